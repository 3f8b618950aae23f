"""Two results side by side: `imagesr compare` for videos, `imagesr blind` for pictures judged by people.

`imagesr.compare.compare(a, b)` is the comparison in Python; in a notebook its result shows its page.
"""

from __future__ import annotations


def __getattr__(name: str):
    if name == "compare":
        from imagesr.compare.videos import compare

        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
