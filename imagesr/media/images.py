"""Photo files to arrays and back."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from imagesr.errors import cause

SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".bmp", ".tif", ".tiff"}


def find_images(folders: Iterable[Path | str]) -> list[Path]:
    """List the pictures directly inside the folders, sorted by name; hidden files and folders are passed over.

    Raises ValueError for a folder that is missing or holds no picture.
    """
    found = []
    for folder in map(Path, folders):
        files = sorted(filter(is_picture, folder.iterdir())) if folder.is_dir() else []
        if not files:
            raise ValueError(f"Expected a folder with pictures ({', '.join(sorted(SUFFIXES))}). Received: {folder}")
        found += files
    return found


def is_picture(file: Path, suffixes: Collection[str] = SUFFIXES) -> bool:
    """Tell whether a folder's entry is a file named like a picture, and not hidden, as macOS's `._NAME` are."""
    return file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()


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
        raise ValueError(f"Expected a picture that can be read. Received: {path} ({cause(error)})") from None
