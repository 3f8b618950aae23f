"""A recording of a screen, made here: most of it stays as it is, as in what people record of their work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imagesr.media.clips import write_clip

RATE = 30
_LINE, _MARGIN, _LETTER = 24, 60, 9  # pixels
_SCROLLS = 3  # in the whole, of a page each
_SCROLLED = 75  # a scroll takes a frame in so many of the whole
_BLINK = 15  # frames of a cursor, on and off
_TEXT = "the frame stays where nothing moves and only a word is typed at the end of a line while a pointer waits"


def write_screen(path: Path, frames: int, size: tuple[int, int]) -> None:
    """Write a page of text with a cursor, a line that is typed, a pointer and three scrolls; raises OutputError."""
    write_clip(path, pictures(frames, size), RATE)


def pictures(frames: int, size: tuple[int, int]) -> Iterator[Image.Image]:
    """Yield the pictures of a recording, RGB of `size`, (width, height)."""
    width, height = size
    page = _page(width, height * (1 + _SCROLLS))
    down, begun, long = 0, 0, max(1, frames // _SCROLLED)  # a scroll's frames
    starts = {frames * (i + 1) // (_SCROLLS + 1) for i in range(_SCROLLS)}
    for i in range(frames):
        if i in starts:
            begun = i
        if begun and i - begun < long:
            down += height // long
        shown = page.crop((0, down, width, down + height))
        _draw_moving(ImageDraw.Draw(shown), i, i - begun, size)
        yield shown


def _page(width, height):
    """Return a page full of lines, longer than the screen."""
    page, random = Image.new("RGB", (width, height), "white"), np.random.default_rng(0)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for y in range(_MARGIN, height - _LINE, _LINE):
        words = random.choice(_TEXT.split(), random.integers(4, 18))
        draw.text((_MARGIN, y), " ".join(words), "black", font)
    draw.rectangle((0, 0, _MARGIN // 2, height), "#345")
    return page


def _draw_moving(draw, i, since, size):
    """Draw what moves: a line that is typed since the last scroll, its blinking cursor, and a pointer now and then."""
    width, height = size
    y, text = height - 2 * _LINE, _TEXT[: since // 3]
    draw.rectangle((_MARGIN, y - 4, width - _MARGIN, y + _LINE), "#eee")
    draw.text((_MARGIN, y), text, "black", ImageFont.load_default(16))
    if i // _BLINK % 2:
        draw.rectangle((_MARGIN + 4 + _LETTER * len(text), y, _MARGIN + 6 + _LETTER * len(text), y + 16), "black")
    moved = min(i % 120, 40)  # it moves for 40 frames of 120
    x, y = width // 4 + 8 * moved, height // 3 + 3 * moved
    draw.polygon([(x, y), (x + 11, y + 11), (x, y + 16)], "black", "white")
