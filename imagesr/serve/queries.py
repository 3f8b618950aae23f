"""Numbers in queries, as text: what is no number of the right size is refused with one sentence."""

from __future__ import annotations

import re
from contextlib import suppress
from fractions import Fraction

from imagesr.engines.chain import MAX_SCALE
from imagesr.scale import Scale
from imagesr.serve.refusal import Refusal


def parse_scale(text: str) -> Scale:
    """Return the scale that a text such as 1.5, 4/3 or 1 says; raises a Refusal."""
    # Before it is parsed: 1e999999999 is a number, too.
    if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,20})?|[0-9]{1,4}/[0-9]{1,4}", text) and not text.endswith("/0"):
        scale = Scale.parse(text) if float(Fraction(text)) > 0 else None
        if scale and 1 <= Fraction(text) <= MAX_SCALE:
            return scale
    raise Refusal(422, "query", f"Expected a scale from 1 to {MAX_SCALE}. Received: {text[:50]!r}")


def parse_number(text: str, expected: str) -> float:
    """Return the number that a text says; raises a Refusal that begins with what is expected."""
    if re.fullmatch(r"[0-9.eE+-]{1,40}", text):  # float() also takes words and underscores
        with suppress(ValueError):
            return float(text)
    raise Refusal(422, "query", f"Expected {expected}. Received: {text[:50]!r}")


def parse_detail(text: str) -> float:
    """Return the detail that a text says; raises a Refusal."""
    return parse_number(text, "a detail from 0 to 1")


def parse_clean(text: str) -> float | str:
    """Return the clean that a text says, a number or `auto`; raises a Refusal."""
    return text if text == "auto" else parse_number(text, "a clean from 0 to 1, or auto")


def scale_schema(default: float) -> dict:
    """Return what the OpenAPI document says of a scale."""
    return {"type": "number", "minimum": 1, "maximum": MAX_SCALE, "default": default, "examples": [1.5, 2, 4]}
