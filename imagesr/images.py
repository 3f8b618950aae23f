"""Photo files to arrays and back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from imagesr.scale import Scale

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


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


def read_rgb(path: Path) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 RGB, its EXIF orientation applied.

    Raises ValueError for a file that does not decode.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except OSError as error:
        raise ValueError(f"Expected a picture that can be read. Received: {path} ({error})") from None


def resize(rgb: np.ndarray, size: tuple[int, int], kernel: str = "bicubic") -> np.ndarray:
    """Resize to (width, height) with an antialiased kernel: `bicubic` (a = -0.5, as MATLAB's imresize) or `lanczos`."""
    filters = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}
    return np.asarray(Image.fromarray(rgb).resize(size, filters[kernel]))


def degrade(rgb: np.ndarray, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """Return the (LR, HR) pair of a picture: cropped to a multiple of `up`, reduced by antialiased bicubic."""
    height, width = (n - n % scale.up for n in rgb.shape[:2])
    hr = rgb[:height, :width]
    return resize(hr, (width * scale.down // scale.up, height * scale.down // scale.up)), hr
