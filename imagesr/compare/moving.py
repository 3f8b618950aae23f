"""Moving crops: the window in which two clips differ most, side by side in one clip."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, islice
from pathlib import Path

import numpy as np

from imagesr.cli import check_interrupted
from imagesr.compare.crops import worst_window
from imagesr.media.clips import StackWriter
from imagesr.media.frames import Frame, plane
from imagesr.media.source import Source

CRF = 8  # so fine that the encoder is not what is compared


def moving_crops(left: Path, right: Path, *, side: int, seconds: float) -> bytes:
    """Return an MP4 of the window of two clips in which they differ most, the one beside the other.

    `side` is the window's, in pixels; `seconds` is taken from the beginning of both. Raises ValueError for clips of two
    sizes, InputError for one that cannot be read.
    """
    squares = None
    for a, b, _ in _pairs(left, right, seconds):
        error = (plane(a, 0).astype(np.float32) - plane(b, 0)) ** 2
        squares = error if squares is None else squares + error
    window = _even(worst_window(squares, side))
    shape = tuple(part.stop - part.start for part in window[::-1])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pair.mp4"
        pairs = _pairs(left, right, seconds)
        first = next(pairs)
        with closing(StackWriter(file, shape, first[2], side_by_side=True, crf=CRF)) as writer:
            for a, b, _ in chain([first], pairs):
                writer.write(_cut(a, window), _cut(b, window))
        return file.read_bytes()


def _pairs(left: Path, right: Path, seconds: float) -> Iterator:
    """Yield the frames of two clips in pairs, in 8-bit 4:2:0, with their rate."""
    with Source(left) as a, Source(right) as b:
        sizes = [(source.info.width, source.info.height) for source in (a, b)]
        if sizes[0] != sizes[1]:
            said = " and ".join(f"{width}x{height}" for width, height in sizes)
            raise ValueError(f"Expected two clips of one size. Received: {left} and {right}, {said}")
        frames = ((item for item in source if isinstance(item, Frame)) for source in (a, b))
        for pair in islice(zip(*frames, strict=False), max(1, round(seconds * a.info.rate))):
            check_interrupted()
            yield *(_plain(frame) for frame in pair), a.info.rate


def _plain(frame):
    return frame if frame.format.name == "yuv420p" else frame.reformat(format="yuv420p")


def _even(window):
    """Return the window with even sides and corners, as 4:2:0 has them."""
    return tuple(slice(part.start // 2 * 2, part.start // 2 * 2 + (part.stop - part.start) // 2 * 2) for part in window)


def _cut(frame, window):
    rows, columns = window
    result = Frame(columns.stop - columns.start, rows.stop - rows.start, "yuv420p")
    for i in range(3):
        half = 2 if i else 1
        plane(result, i)[:] = plane(frame, i)[
            rows.start // half : rows.stop // half, columns.start // half : columns.stop // half
        ]
    for tag in ("color_range", "colorspace", "color_trc", "color_primaries"):
        setattr(result, tag, getattr(frame, tag))
    return result
