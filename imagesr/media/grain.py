"""Grain painted on upscaled luma: seeded by a frame's time, weaker in black and white, of a size that fits."""

from __future__ import annotations

import functools
import hashlib

import numpy as np

_SIGMA = 8.0  # codes at 1, in middle grey
_WIDTH = 1.5 / 1080  # of a grain at half its height, over the height of the picture
_TILE = 1024  # pixels a side of the noise, which is repeated
_BLACK, _WHITE = 16, 235
_ROWS = 48  # at a time, so that all stays in the processor's cache


class Grain:
    """Add grain to planes of luma of one size.

    The pattern depends on the frame's time alone, not on what was painted before: a run that goes on, or that is made
    in parts, paints the same. Near black and white there is less of it: it reaches no further than a quarter of the way
    to them.

    Args:
        amount: From 0 to 1, which is a sigma of 8 codes in middle grey.
        size: (width, height) of the planes.
        bits: Of a sample.
    """

    def __init__(self, amount: float, size: tuple[int, int], bits: int = 8):
        width, height = size
        self._bits, self._high = bits, bits > 8
        tile = _noise(round(_WIDTH * height, 2)) * np.float32(amount * _SIGMA * 2 ** (bits - 8))
        dtype = np.int16 if self._high else np.int8
        limit = np.iinfo(dtype).max
        tile = np.clip(np.rint(tile), -limit, limit).astype(dtype)
        down, across = (-(-n // _TILE) + 1 for n in (height, width))
        self._tile = np.tile(tile, (down, across))
        # Above and below separately: samples have no sign, so that all is done on their own 8 or 16 bits.
        unsigned = np.uint16 if self._high else np.uint8
        self._up = np.maximum(self._tile, 0).astype(unsigned)
        self._down = np.maximum(-self._tile, 0).astype(unsigned)
        del self._tile

    def paint(self, luma: np.ndarray, target: np.ndarray, seed: int) -> None:
        """Fill `target`, (H, W), with `luma` and the grain of a seed."""
        digest = hashlib.blake2b(seed.to_bytes(16, "little", signed=True), digest_size=8).digest()
        top, left = (int.from_bytes(part, "little") % _TILE for part in (digest[:4], digest[4:]))
        height, width = luma.shape
        shift = self._bits - 8
        black, white = _BLACK << shift, _WHITE << shift
        # Arrays, because NumPy takes ten times as long for the larger of an array and a number.
        lowest, highest, room, part = np.empty((4, min(_ROWS, height), width), luma.dtype)
        lowest[:], highest[:] = black, white
        for row in range(0, height, _ROWS):
            source, out = luma[row : row + _ROWS], target[row : row + _ROWS]
            here, more = room[: len(source)], part[: len(source)]
            at = slice(top + row, top + row + len(source)), slice(left, left + width)
            np.maximum(source, lowest[: len(source)], out=here)
            np.minimum(here, highest[: len(source)], out=here)
            np.subtract(highest[: len(source)], here, out=more)
            here -= lowest[: len(source)]
            np.minimum(here, more, out=here)
            here >>= 2
            np.minimum(self._up[at], here, out=more)
            np.add(source, more, out=out)
            np.minimum(self._down[at], here, out=more)
            out -= more


def with_grain(picture: np.ndarray, place: tuple[int, int], amount: float, *, height: int) -> np.ndarray:
    """Return a part of a photograph, (h, w, bands) from 0 to 255, with grain; the last of 2 or 4 bands is alpha.

    `place` is the part's (left, top), `height` that of the whole. All colours get the same grain.
    """
    bands = 1 if picture.shape[2] < 3 else 3
    noise = _noise(round(_WIDTH * height, 2))
    rows, columns = (np.arange(n) + begin for n, begin in zip(picture.shape[:2], place[::-1], strict=True))
    noise = noise.take(rows, 0, mode="wrap").take(columns, 1, mode="wrap")[..., np.newaxis] * amount * _SIGMA
    level = picture[..., :bands].mean(2, keepdims=True)
    room = np.maximum(0, np.minimum(level, 255 - level)) / 4
    result = picture.copy()
    result[..., :bands] += np.clip(noise, -room, room)
    return result


@functools.lru_cache(maxsize=4)
def _noise(width: float) -> np.ndarray:
    """Return noise (`_TILE`, `_TILE`) float32 of variance 1, whose grains are `width` pixels wide; it has no seam."""
    noise = np.random.default_rng(0).standard_normal((_TILE, _TILE), np.float32)
    sigma = max(0.3, width / 2.355)
    down, across = np.fft.fftfreq(_TILE)[:, np.newaxis], np.fft.rfftfreq(_TILE)
    blur = np.exp(-2 * (np.pi * sigma) ** 2 * (down**2 + across**2))
    noise = np.fft.irfft2(np.fft.rfft2(noise) * blur, (_TILE, _TILE))
    return (noise / noise.std()).astype(np.float32)
