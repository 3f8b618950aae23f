"""Pixels as arrays: luma of RGB, interpolation kernels, resizing."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from PIL import Image

from imagesr.scale import Scale

# BT.601 studio luma of RGB in [0, 255]: what MATLAB's rgb2ycbcr gives and the papers' tables are made with.
_BT601 = np.array([65.481, 128.553, 24.966]) / 255


def luma(rgb: np.ndarray) -> np.ndarray:
    """Return the BT.601 studio luma, uint8 in [16, 235], of an (H, W, 3) uint8 RGB picture."""
    return np.rint(luma_of(rgb)).astype(np.uint8)


def luma_of(rgb: np.ndarray) -> np.ndarray:
    """Return the BT.601 studio luma, floating point from 16 to 235, of (…, 3) RGB from 0 to 255."""
    return rgb @ _BT601.astype(rgb.dtype if rgb.dtype.kind == "f" else float) + 16


def with_luma(rgb: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Return an (H, W, 3) uint8 RGB picture with its BT.601 studio luma replaced by a plane, its chroma kept.

    In YCbCr a change of luma alone moves red, green and blue by the same amount.
    """
    change = (plane - luma_of(rgb)) * (255 / 219)
    return np.rint(np.clip(rgb + change[..., np.newaxis], 0, 255)).astype(np.uint8)


def _cubic(x, a):
    """Weigh by Keys's cubic convolution (1981) at distances 0 ≤ x < 2."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    return np.where(x <= 1, near, a * (((x - 5) * x + 8) * x - 4))


# Interpolation kernels by name: how many pixels of the smaller picture they reach, and their weight at a distance.
# MATLAB and Pillow use a = -0.5 in the bicubic, ffmpeg's swscale -0.6, OpenCV -0.75.
_KERNELS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "bicubic": (2, partial(_cubic, a=-0.5)),
    "bicubic-0.6": (2, partial(_cubic, a=-0.6)),
    "bicubic-0.75": (2, partial(_cubic, a=-0.75)),
    "lanczos": (3, lambda x: np.sinc(x) * np.sinc(x / 3)),
    "bilinear": (1, lambda x: 1 - x),
}
KERNELS = (*_KERNELS, "area")
_IN_PILLOW = {
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
}


@lru_cache(maxsize=64)
def weights(source: int, target: int, kernel: str) -> np.ndarray:
    """Return the (target, source) float32 matrix that resizes a line of pixels; a reduction is antialiased.

    `area` weighs every pixel by how much of it an output pixel covers.
    """
    ratio = source / target
    pixels = np.arange(source)
    if kernel == "area":
        ends = np.arange(target + 1)[:, np.newaxis] * ratio
        matrix = np.clip(np.minimum(ends[1:], pixels + 1) - np.maximum(ends[:-1], pixels), 0, None)
    else:
        reach, weigh = _KERNELS[kernel]
        centres = (np.arange(target)[:, np.newaxis] + 0.5) * ratio
        distance = np.abs(pixels + 0.5 - centres) / max(1.0, ratio)  # a kernel widens as the picture shrinks
        matrix = np.where(distance < reach, weigh(distance), 0)
    matrix = (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def resize(picture: np.ndarray, size: tuple[int, int], kernel: str = "bicubic") -> np.ndarray:
    """Resize uint8 (H, W) or (H, W, 3) to (width, height) with one of `KERNELS`, antialiased where it shrinks."""
    if kernel in _IN_PILLOW:
        return np.asarray(Image.fromarray(picture).resize(size, _IN_PILLOW[kernel]))
    planes = picture.reshape(*picture.shape[:2], -1).transpose(2, 0, 1).astype(np.float32)
    planes = weights(picture.shape[0], size[1], kernel) @ planes @ weights(picture.shape[1], size[0], kernel).T
    result = np.rint(np.clip(planes, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(result.reshape(size[::-1] + picture.shape[2:]))


def downscale(picture: np.ndarray, scale: Scale, kernel: str = "bicubic") -> tuple[np.ndarray, np.ndarray]:
    """Return the (LR, HR) pair of a picture: cropped to a multiple of `up`, reduced by an antialiased kernel."""
    height, width = (n - n % scale.up for n in picture.shape[:2])
    hr = picture[:height, :width]
    return resize(hr, (width * scale.down // scale.up, height * scale.down // scale.up), kernel), hr
