"""Photo files to arrays and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from imagesr.scale import Scale

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def _cubic(x, a):
    """Weigh by Keys's cubic convolution (1981) at distances 0 ≤ x < 2."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    return np.where(x <= 1, near, a * (((x - 5) * x + 8) * x - 4))


def find_images(folders: Iterable[Path | str]) -> list[Path]:
    """List the pictures directly inside the folders, sorted by name.

    Raises ValueError for a folder that is missing or holds no picture.
    """
    found = []
    for folder in map(Path, folders):
        files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES) if folder.is_dir() else []
        if not files:
            raise ValueError(f"Expected a folder with pictures ({', '.join(sorted(SUFFIXES))}). Received: {folder}")
        found += files
    return found


def kind(image: Image.Image) -> str:
    """Name what a picture's file holds, such as "RGB", "16-bit grey" or "RGB with alpha"; before it is loaded."""
    names = {"L": "grey", "LA": "grey", "1": "bilevel", "P": "palette", "PA": "palette", "RGBA": "RGB"}
    colours = "grey" if image.mode[0] in "IF" else names.get(image.mode, image.mode)
    # Pillow opens 16-bit RGB as mode RGB; only the name of the raw samples, such as RGB;16B, tells.
    arguments = image.tile[0][3] if image.tile else ""
    raw = arguments if isinstance(arguments, str) else str(next(iter(arguments or [""])))
    deep = image.mode.startswith("I;16") or re.search(";16[BLN]", raw)
    depth = "32-bit " if image.mode in ("I", "F") else "16-bit " if deep else ""
    return depth + colours + (" with alpha" if image.has_transparency_data else "")


def read_rgb(path: Path) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 RGB, its EXIF orientation applied.

    Raises ValueError for a file that does not decode.
    """
    try:
        with Image.open(path) as image:
            if "-bit" in (what := kind(image)):  # Pillow would cut their samples to 8 bits without a word
                raise ValueError(f"Expected a picture of 8 bits per sample. Received: {path} ({what}); convert it")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"Expected a picture that can be read. Received: {path} ({error})") from None


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


def degrade(picture: np.ndarray, scale: Scale, kernel: str = "bicubic") -> tuple[np.ndarray, np.ndarray]:
    """Return the (LR, HR) pair of a picture: cropped to a multiple of `up`, reduced by an antialiased kernel."""
    height, width = (n - n % scale.up for n in picture.shape[:2])
    hr = picture[:height, :width]
    return resize(hr, (width * scale.down // scale.up, height * scale.down // scale.up), kernel), hr
