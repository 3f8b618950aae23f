"""How much of a photograph was lost to JPEG and to noise, as `coding` says it of films: what `--clean auto` chooses."""

from __future__ import annotations

import math

import numpy as np

from imagesr.media.coding import BLOCK, FEW, Coding, blocks_of, differences, quantiser_of

HEAD = 1 << 20  # bytes in which a JPEG's tables are
_JPEG_FIRST, _JPEG_LAST = 1, 21  # entries of a JPEG's table, in its zigzag: low and middle frequencies
_STEP = 18.4  # the mean of these of JPEG's own table of luma at quality 50
# A JPEG's blocks: the least jump in codes at every eighth column that is no chance (of 111 good pictures 99 % have less
# than 0.39; below 512 pixels a side chance is larger), the differences of neighbours that are an edge of the picture,
# the least share of neighbours that differ (grids drawn on plain grey have less), and the step of a jump, fitted to the
# medians of JPEGs of quality 15 to 70.
_LEAST_JUMP, _EDGE, _LEAST_LIVELY, _STEP_OF_JUMP, _JUMP_POWER = 0.5, 12, 0.3, 19.5, 1.45
_FINE = 4.0  # a table's step below which it takes nothing itself, so that blocks are those of a worse JPEG before
_MOST_SEEN = 30.0  # the largest step that is guessed: jumps are larger where a picture is soft
# How white noise is at least and at most. Of 119 pictures of benchmarks and their halves 45 seemed noisy for their
# texture, at 0.22 to 0.60, and six by noise, at 0.76 and more. Noise that was added has 0.69 and more in nine of ten of
# them, from 5 codes on, and at most 1.1, sharpened or not. Dither and hatching of every other pixel have 30 and more.
_LEAST_WHITE, _MOST_WHITE = 0.65, 1.2
# How alike the noise of blocks is at least: that of the second hundredth over that of the fifth. And the blocks that a
# picture has at least for that (512 pixels a side): smaller ones are now and then all grass.
_UNIFORM, _LARGE = 0.65, 1024
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_LUMA_NOISE = float(np.sqrt(np.sum(_LUMA**2)))  # of luma, where red, green and blue have noise of 1 each for themselves


def examine_photo(file: bytes, picture: np.ndarray | None) -> Coding:
    """Say what was lost of a photograph: by the table of a JPEG, by blocks that are seen, and by its noise.

    `picture` is grey or RGB (H, W, 1 or 3), of samples from 0 to 255.
    """
    if picture is None:
        told, seen, noise = jpeg_step(file), None, None
    else:
        told, seen, noise = jpeg_step(file), blocks_step(_luma(picture)), photo_noise(picture)
    if seen and (told is None or told < _FINE):
        return Coding("blocks of a JPEG", quantiser_of(seen), noise, estimated=True, quality=_quality_of(seen))
    return Coding(noise=noise) if told is None else Coding("JPEG", quantiser_of(told), noise, quality=_quality_of(told))


def step_of_quality(quality: float) -> float:
    """Return the step of a JPEG of a quality from 1 to 100, as libjpeg scales its table."""
    return _STEP * (50 / quality if quality < 50 else 2 - quality / 50)


def _quality_of(step):
    return 50 * _STEP / step if step > _STEP else 100 - 50 * step / _STEP


def photo_noise(picture: np.ndarray) -> float | None:
    """Measure the noise of a photograph (H, W, 1 or 3), as sigma of each of red, green and blue, by that of its luma.

    It is that of the flattest blocks where it is as white as noise, which differs as much from pixel to pixel as over
    two pixels; fine texture differs less, and patterns of every other pixel more. A JPEG takes the finest noise away.
    What is left has the same strength in all blocks of a picture, and texture has not. None where neither is so.
    """
    whites = [_sigmas(channel)[2] for channel in np.moveaxis(picture, 2, 0)]
    fine, coarse, _ = _sigmas(_luma(picture))
    if not fine.size or None in whites:
        return None
    white = np.mean(whites)
    if _LEAST_WHITE < white < _MOST_WHITE:
        return float(np.sort(fine)[len(fine) // 10]) / _LUMA_NOISE
    if white > _MOST_WHITE or math.prod(n // BLOCK for n in picture.shape[:2]) < _LARGE:
        return None
    coarse = np.sort(coarse)
    uniform = coarse[len(coarse) // 50] / coarse[len(coarse) // 5]
    return float(coarse[len(coarse) // 10]) / _LUMA_NOISE if uniform > _UNIFORM else None


def _luma(picture):
    return picture[..., 0] if picture.shape[2] == 1 else picture @ _LUMA


def _sigmas(plane):
    """Return the noise of a plane's blocks from pixel to pixel and over two, and how white it is in the flattest."""
    blocks = blocks_of(plane)
    fine, coarse = differences(blocks, 1), differences(blocks, 2)
    differ = (fine > 0) & (coarse > 0)
    fine, coarse = fine[differ], coarse[differ]
    if len(fine) < FEW:
        return fine[:0], coarse[:0], None
    flattest = np.argsort(fine)[len(fine) // 20 : len(fine) * 3 // 20 + 1]
    return fine, coarse, float(np.median(fine[flattest] / coarse[flattest]))


def blocks_step(luma: np.ndarray) -> float | None:
    """Guess the step of a JPEG by the blocks of 8 pixels that it left in luma (H, W); None where none stand out."""
    jump = min(_jump(luma), _jump(luma.T))
    least = _LEAST_JUMP * max(1.0, math.sqrt(_LARGE / max(1, math.prod(n // BLOCK for n in luma.shape))))
    return min(_MOST_SEEN, _STEP_OF_JUMP * jump**_JUMP_POWER) if jump > least else None


def _jump(luma):
    """Return by how many codes columns differ more at every eighth than elsewhere; 0 where few differ at all."""
    slopes = np.abs(np.diff(luma.astype(np.float32), axis=1))
    if slopes.shape[1] < 32 or np.count_nonzero(slopes > 0.5) < _LEAST_LIVELY * slopes.size:
        return 0.0
    here, beside = slopes[:, 1:-1], (slopes[:, :-2] + slopes[:, 2:]) / 2
    smooth = (here < _EDGE) & (beside < _EDGE)
    more = np.where(smooth, here - beside, 0).sum(0) / np.maximum(1, smooth.sum(0))
    # The median: lines of a picture's own stand at some of the columns, blocks at all.
    phases = np.array([np.median(more[p::8]) for p in range(8)])
    grid = phases.argmax()
    return float(phases[grid] - np.delete(phases, grid).mean())


def jpeg_step(file: bytes) -> float | None:
    """Return the mean step of a JPEG's quantiser of luma, of low and middle frequencies; None for other files."""
    at = 2
    while file[:2] == b"\xff\xd8" and at + 4 <= len(file) and file[at] == 0xFF:
        kind, length = file[at + 1], int.from_bytes(file[at + 2 : at + 4], "big")
        if kind == 0xFF:  # a filling byte
            at += 1
            continue
        if at + 2 + length > len(file):
            return None
        if kind == 0xDB and length >= 67 and not file[at + 4] & 15:  # the first table is that of luma
            wide = file[at + 4] >> 4
            dtype = np.dtype(">u2" if wide else "u1")
            table = np.frombuffer(file[at + 5 : at + 2 + length].ljust(64 * dtype.itemsize, b"\0"), dtype, 64)
            return float(np.mean(table[_JPEG_FIRST:_JPEG_LAST]))
        if kind in (0xD9, 0xDA) or length < 2:
            return None
        at += 2 + length
    return None
