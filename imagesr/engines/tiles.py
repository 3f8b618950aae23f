"""Large pictures through a network in tiles, without a seam."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from imagesr.scale import Scale

# A side in LR pixels. The classic networks hold feature maps of 64 channels as large as HR, several at once: for one
# tile VDSR at x2 takes 0.2 GB in OpenVINO and 1.7 in Keras, EDSR's baseline at x4 0.7 and 2.4. Larger tiles save
# little: half a receptive field is thrown away at each side, 13 of 288 pixels for these 20 layers. B100's pictures are
# no larger at x1.5, and go through whole.
TILE = 288
SMALLEST = 8  # pixels a side: less than this is padded, so that networks can reflect their borders


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
    """Run a network on a picture of any size, (H, W) or (H, W, channels), and return the picture enlarged.

    `run` takes (1, h, w, channels), h and w multiples of `multiple`, and may overwrite its result at the next call;
    the picture's edge is repeated to get there, and the surplus cut off. A picture of more than `tile`² pixels goes
    through in tiles of `tile` pixels a side, all of one size, since runtimes compile for a size: the last of a row
    begins earlier instead of being smaller. `halo` pixels at a tile's inner edges are run and thrown away: with half
    the network's receptive field plus `multiple`, the result is that of the whole picture. Tiles are at least four
    halos wide, or most of the work would be thrown away. All lengths are LR pixels. `guide`, (H·scale,
    W·scale, channels), goes through beside the picture: then `run` takes a piece of each.
    """
    unit = math.lcm(multiple, scale.down)
    height, width = (_up_to(max(n, SMALLEST), unit) for n in picture.shape[:2])
    planes = picture.reshape(*picture.shape[:2], -1)
    planes = np.pad(planes, ((0, height - len(planes)), (0, width - planes.shape[1]), (0, 0)), mode="edge")
    if height * width <= tile**2:
        side, halo = max(height, width), 0
    else:
        halo = _up_to(halo, unit)
        side = max(_up_to(tile, unit), 4 * halo)
    grown = (height * scale.up // scale.down, width * scale.up // scale.down)
    if guide is not None:
        guide = np.pad(guide, [(0, n - m) for n, m in zip(grown, guide.shape[:2], strict=True)] + [(0, 0)], mode="edge")
    sr = None
    for y, kept_rows, rows in _pieces(height, side, halo, scale):
        for x, kept_columns, columns in _pieces(width, side, halo, scale):
            pieces = [planes[np.newaxis, y : y + side, x : x + side]]
            if guide is not None:
                top, left, bottom, right = (n * scale.up // scale.down for n in (y, x, y + side, x + side))
                pieces.append(guide[np.newaxis, top:bottom, left:right])
            result = run(*map(np.ascontiguousarray, pieces))[0]
            if sr is None:
                sr = np.empty((*grown, result.shape[-1]), result.dtype)
            sr[rows, columns] = result[kept_rows, kept_columns]
    sr = sr[: scale.grow(picture.shape[0]), : scale.grow(picture.shape[1])]
    return sr if picture.ndim == 3 else sr[..., 0]


def _pieces(length, side, halo, scale):
    """Yield where each tile of a line begins, what is kept of its result, and where that goes, both in SR pixels."""
    last = max(0, length - side)
    for start in (*range(0, last, side - 2 * halo), last):
        begin = start + halo if start else 0
        end = start + side - halo if start < last else length
        place = slice(begin * scale.up // scale.down, end * scale.up // scale.down)
        offset = start * scale.up // scale.down
        yield start, slice(place.start - offset, place.stop - offset), place


def _up_to(length, unit):
    return -(-length // unit) * unit
