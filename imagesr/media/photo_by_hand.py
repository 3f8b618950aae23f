"""Read PPM, PGM, PBM and BMP: the libvips of pyvips's wheels has no loader for them."""

from __future__ import annotations

import io
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pyvips
from PIL import Image, ImageFile

from imagesr.errors import InputError

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_HEADER = re.compile(rb"P([2356])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)\s")
_HEADER_BYTES = 4096  # comments included
_BANDS = {b"2": 1, b"5": 1, b"3": 3, b"6": 3}


def read_by_hand(source: Path | bytes, *, name: str, damaged: bool = False) -> pyvips.Image:
    """Return a PPM or BMP picture, grey or RGB, with or without alpha. Raises InputError.

    Samples of binary PPM files are mapped, not loaded. What is missing of a `damaged` file is black.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            beginning = file.read(_HEADER_BYTES)
    else:
        beginning = source[:_HEADER_BYTES]
    header = _HEADER.match(beginning)
    try:
        if header:
            return _read_pnm(source, header, name, damaged)
        return _read_by_pillow(source, damaged)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"Expected a picture that can be read. Received: {name} ({error})") from None


def _read_pnm(source, header, name, damaged):
    """Return the picture of a file with grey or RGB samples, as text (P2, P3) or bytes (P5, P6)."""
    kind, width, height, most = header[1], *map(int, header.groups()[1:])
    bands = _BANDS[kind]
    if not (0 < width < 2**31 and 0 < height < 2**31 and 0 < most < 2**16):
        raise InputError(f"Expected a picture that can be read. Received: {name} ({width}x{height}, up to {most})")
    wide = np.dtype(">u2" if most > 255 else "u1")
    count = width * height * bands
    samples = _text(source, header) if kind in b"23" else _bytes(source, header, wide)
    if len(samples) < count:
        if not damaged:
            raise InputError(f"Expected a whole picture. Received: {name}, which ends too early")
        samples = np.concatenate([samples, np.zeros(count - len(samples), samples.dtype)])
    samples = samples[:count]
    if kind in b"23":
        samples = np.minimum(samples, most).astype(wide)
    picture = pyvips.Image.new_from_memory(samples, width, height, bands, "ushort" if most > 255 else "uchar")
    if most > 255 and sys.byteorder == "little":
        picture = picture.byteswap()
    white = 65_535 if most > 255 else 255
    if most != white:
        picture = (picture * (white / most) + 0.5).cast(picture.format)
    space = ("grey16" if most > 255 else "b-w") if bands == 1 else ("rgb16" if most > 255 else "srgb")
    return picture.copy(interpretation=space)


def _bytes(source, header, wide):
    if isinstance(source, bytes):
        return np.frombuffer(source, wide, (len(source) - header.end()) // wide.itemsize, header.end())
    count = (source.stat().st_size - header.end()) // wide.itemsize
    return np.memmap(source, wide, "r", header.end(), (count,)) if count else np.zeros(0, wide)


def _text(source, header):
    text = (source if isinstance(source, bytes) else source.read_bytes())[header.end() :]
    return np.array(re.sub(rb"#[^\r\n]*", b"", text).split(), dtype=np.int64)


def _read_by_pillow(source, damaged):
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, damaged
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(file) as image,
        ):
            if image.mode not in ("L", "LA", "RGB", "RGBA"):
                image = image.convert("L" if image.mode == "1" else "RGB")
            return pyvips.Image.new_from_array(np.asarray(image))
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
