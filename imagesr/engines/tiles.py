"""The one way to cut a picture into tiles, for what is measured and what ships: no seam, and mirrored borders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from imagesr.cli import check_interrupted
from imagesr.scale import Scale

# A side in LR pixels. The classic networks hold feature maps of 64 channels as large as HR, several at once: for one
# tile VDSR at x2 takes 0.2 GB in OpenVINO and 1.7 in Keras, EDSR's baseline at x4 0.7 and 2.4. Larger tiles save
# little: half a receptive field is thrown away at each side, 13 of 288 pixels for these 20 layers.
TILE = 288
_MARGIN = 4  # pixels that are mirrored at every side, at least: no network sees zeros beyond the picture's border


@dataclass(frozen=True)
class Grid:
    """Cut a picture into tiles of one shape, since runtimes compile for a shape; iterate over their corners.

    Around the picture lies a border of `margin` pixels, in which it is mirrored, as it is to the right and below, up to
    whole tiles. A corner (left, top) is that of a tile with its margins, counted from the border's own corner. All
    lengths are LR pixels.

    Args:
        size: (width, height) of the picture.
        tile: (width, height) of a tile without its margins.
        margin: Pixels around a tile that are run and thrown away.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    margin: int

    @property
    def covered(self) -> tuple[int, int]:
        """The (width, height) of all tiles together, without the border."""
        return tuple(-(-n // side) * side for n, side in zip(self.size, self.tile, strict=True))

    @property
    def piece(self) -> tuple[int, int]:
        """The (width, height) of a tile with its margins."""
        return self.tile[0] + 2 * self.margin, self.tile[1] + 2 * self.margin

    def __len__(self) -> int:
        return math.prod(n // side for n, side in zip(self.covered, self.tile, strict=True))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for top in range(0, self.size[1], self.tile[1]):
            for left in range(0, self.size[0], self.tile[0]):
                check_interrupted()
                yield left, top

    def used(self, left: int, top: int, unit: int = 1) -> tuple[int, int]:
        """Return the (width, height) of a tile's part that belongs to the picture, with its margins; whole units."""
        return tuple(
            min(side, _up_to(n - start, unit)) + 2 * self.margin
            for start, side, n in zip((left, top), self.tile, self.size, strict=True)
        )

    def kept(self, sr: np.ndarray, left: int, top: int, scale: Scale) -> tuple[np.ndarray, int, int]:
        """Return the part of an upscaled tile that belongs to the result, and its corner (x, y) there."""
        corner, x, y = (scale.grow(n) for n in (self.margin, left, top))
        right, bottom = (
            min(scale.grow(start + side), scale.grow(n))
            for start, side, n in zip((left, top), self.tile, self.size, strict=True)
        )
        return sr[corner : corner + bottom - y, corner : corner + right - x], x, y


def cut(
    size: tuple[int, int],
    *,
    unit: int = 1,
    margin: int = 0,
    tile: int = TILE,
    fixed: bool = False,
    square: bool = False,
) -> Grid:
    """Return the Grid for a picture of (width, height) LR pixels.

    Args:
        unit: All lengths are multiples of it.
        margin: How far a network sees; with half its receptive field plus its `multiple`, the result is that of the
            whole picture.
        tile: The longest side of a tile with its margins; a tile without them has at least `unit` pixels.
        fixed: Give tiles the same shape whatever the picture's size. Otherwise they share the picture evenly.
        square: Give tiles equal sides.
    """
    margin = _up_to(max(margin, _MARGIN), unit)
    most = max(unit, (tile - 2 * margin) // unit * unit)
    sides = (most, most) if fixed else tuple(_divided(length, most, unit) for length in size)
    return Grid(tuple(size), (max(sides),) * 2 if square else sides, margin)


def tiled(
    run: Callable[[np.ndarray], np.ndarray],
    picture: np.ndarray,
    *,
    scale: Scale,
    multiple: int = 1,
    halo: int = 0,
    tile: int = TILE,
    guide: np.ndarray | None = None,
) -> np.ndarray:
    """Run a network on a picture of any size, (H, W) or (H, W, channels), and return the upscaled picture.

    Tiles with their margins are at least four halos wide, or most of the work would be thrown away.

    Args:
        run: Takes (1, h, w, channels), h and w multiples of `multiple`; it may overwrite its result at the next call.
        halo: How far the network sees, in LR pixels: the `margin` of `cut`.
        guide: (H·scale, W·scale, channels) that goes through beside the picture: `run` then takes a piece of each.
    """
    height, width = picture.shape[:2]
    grid = cut((width, height), unit=math.lcm(multiple, scale.down), margin=halo, tile=max(tile, 4 * halo))
    borders = [(grid.margin, grid.margin + n - m) for n, m in zip(grid.covered[::-1], (height, width), strict=True)]
    around = np.pad(picture.reshape(height, width, -1), [*borders, (0, 0)], mode="symmetric")
    if guide is not None:
        full = [scale.grow(n + 2 * grid.margin) for n in grid.covered[::-1]]
        corner = scale.grow(grid.margin)
        borders = [(corner, n - m - corner) for n, m in zip(full, guide.shape[:2], strict=True)]
        guide = np.pad(guide, [*borders, (0, 0)], mode="symmetric")
    result = None
    for left, top in grid:
        right, bottom = left + grid.piece[0], top + grid.piece[1]
        pieces = [around[np.newaxis, top:bottom, left:right]]
        if guide is not None:
            x, y, end_x, end_y = (scale.grow(n) for n in (left, top, right, bottom))
            pieces.append(guide[np.newaxis, y:end_y, x:end_x])
        sr, x, y = grid.kept(run(*map(np.ascontiguousarray, pieces))[0], left, top, scale)
        if result is None:
            result = np.empty((scale.grow(height), scale.grow(width), sr.shape[2]), sr.dtype)
        result[y : y + len(sr), x : x + sr.shape[1]] = sr
    return result if picture.ndim == 3 else result[..., 0]


def _divided(length, most, unit):
    """Return a multiple of `unit` of which as few as can be make up a length, none longer than `most`."""
    return _up_to(-(-length // -(-length // most)), unit)


def _up_to(length, unit):
    return -(-length // unit) * unit
