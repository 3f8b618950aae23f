"""What a frame shares with the frame before it, where networks need not run again."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from imagesr.media.frames import Frame, Packet, plane
from imagesr.scale import Scale

_TILE = 160  # LR pixels a side, about: small enough for a cursor, large enough beside what a network sees around it
# Share of the frame up to which changed windows run by themselves: they take 1.1 to 1.25 times as long for their size.
_MOST = 0.7
_BANDS = 8

Area = tuple[slice, slice]


class Window(NamedTuple):
    """Name a part of a frame in LR pixels: `seen` is what the network reads for the pixels of `tile`."""

    seen: Area
    tile: Area

    def kept(self, scale: Scale) -> Area:
        """Return the tile's place within the upscaled window."""
        return tuple(
            slice(scale.grow(tile.start - seen.start), scale.grow(tile.stop - seen.start))
            for seen, tile in zip(self.seen, self.tile, strict=True)
        )

    def target(self, scale: Scale) -> Area:
        """Return the tile's place within the upscaled frame."""
        return tuple(slice(scale.grow(tile.start), scale.grow(tile.stop)) for tile in self.tile)


class Windows:
    """Cut frames of one size into tiles, and find those that differ between two frames.

    All windows have one shape, since runtimes compile for a shape. A window ends where the frame ends, or lies `halo`
    pixels around its tile, so the network computes the tile as it would in the whole frame.

    Args:
        shape: (height, width) of a frame, multiples of `units`.
        units: Windows begin and end at multiples of these, (down, across).
        halo: How far the network sees, in LR pixels.
    """

    def __init__(self, shape: tuple[int, int], *, units: tuple[int, int], halo: int):
        rows, columns = (
            _spans(length, unit, -(-halo // unit) * unit) for length, unit in zip(shape, units, strict=True)
        )
        self._windows = [
            Window((seen_y, seen_x), (tile_y, tile_x)) for seen_y, tile_y in rows for seen_x, tile_x in columns
        ]
        seen = self._windows[0].seen
        area = (seen[0].stop - seen[0].start) * (seen[1].stop - seen[1].start)
        self._share = area / (shape[0] * shape[1])  # of the frame, that a window is

    def changed(self, luma: np.ndarray, before: np.ndarray) -> list[Window] | None:
        """Return the windows in which two frames differ; None where they are so many that the whole frame is cheaper.

        It looks no further than it has to, so that it costs next to nothing where everything moves.
        """
        found = []
        for window in self._windows:
            if not np.array_equal(luma[window.seen], before[window.seen]):
                found.append(window)
                if len(found) * self._share > _MOST:
                    return None
        return found

    def spared(self, windows: list[Window] | None) -> float:
        """Return the share of the frame's pixels that networks need not run on."""
        return 0.0 if windows is None else 1 - len(windows) * self._share


class Repeats:
    """Tell of every frame whether its luma is that of the frame before, and of sound between them that it stays.

    It stops looking at the first difference.
    """

    def __init__(self) -> None:
        self._before: Frame | None = None

    def __call__(self, item: Frame | Packet) -> bool:
        if not isinstance(item, Frame):
            return isinstance(item, Packet)
        before, self._before = self._before, item
        if before is None:
            return False
        bands = (np.array_split(plane(frame, 0), _BANDS) for frame in (item, before))
        return all(np.array_equal(a, b) for a, b in zip(*bands, strict=True))


def _spans(length: int, unit: int, halo: int) -> list[tuple[slice, slice]]:
    """Return (seen, tile) along one side: tiles of about one length, and what the network sees of each."""
    ends = _ends(length, unit)
    longest = max(end - start for start, end in ends)
    seen = min(length, longest + 2 * halo)
    spans = []
    for start, end in ends:
        first = min(max(0, start - halo), length - seen)
        spans.append((slice(first, first + seen), slice(start, end)))
    return spans


def _ends(length: int, unit: int) -> list[tuple[int, int]]:
    number = max(1, length // max(_TILE, unit))
    return list(pairwise([*(i * length // number // unit * unit for i in range(number)), length]))
