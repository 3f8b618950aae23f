"""What a file is by its first bytes: which kind of picture, or that it is a video."""

from __future__ import annotations

import re
from typing import NamedTuple

import pyvips

HEAD = 16  # bytes that tell


class Kind(NamedTuple):
    """Hold a kind of picture and the libvips operation that reads it, "" where it has none of its own."""

    name: str
    loader: str


# Libvips reads many more kinds, some by loaders that their authors would not give a stranger's file.
_KINDS = (
    (Kind("JPEG", "jpegload"), rb"\xff\xd8\xff"),
    (Kind("PNG", "pngload"), rb"\x89PNG\r\n\x1a\n"),
    (Kind("WebP", "webpload"), rb"RIFF....WEBP"),
    (Kind("TIFF", "tiffload"), rb"II[*+]\x00|MM\x00[*+]"),
    (Kind("HEIF", "heifload"), rb"....ftyp"),
    (Kind("GIF", "gifload"), rb"GIF8"),
    (Kind("PPM", "ppmload"), rb"P[1-6]\s"),
    (Kind("BMP", ""), rb"BM....\0\0\0\0"),
)
BY_HAND = ("PPM", "BMP")  # read by photo_by_hand where libvips has no loader
NAMES = ", ".join(kind.name for kind, _ in _KINDS)
# MP4 and its relatives begin as HEIF does, and differ in the brand.
_VIDEO = re.compile(
    rb"....ftyp(isom|iso[2-9]|mp4|avc1|qt  |M4V|M4P|3g|dash|f4v|mmp4|MSNV|XAVC|cmf|NDS)"
    rb"|....(moov|mdat|wide|free|skip|pnot)|\x1aE\xdf\xa3|RIFF....AVI |FLV\x01|OggS|\0\0\x01[\xb3\xba]"
    rb"|0&\xb2\x75|YUV4MPEG2|G[\x40-\x5f][\x00-\xff][\x10-\x3f]\x00",
    re.S,
)


def kind_of(beginning: bytes) -> Kind | None:
    """Return what kind of picture a file is by its first 16 bytes; None for others."""
    if is_video(beginning):
        return None
    return next((kind for kind, pattern in _KINDS if re.match(pattern, beginning, re.S)), None)


def is_video(beginning: bytes) -> bool:
    """Tell whether a file is a video by its first 16 bytes."""
    return bool(_VIDEO.match(beginning))


def has_loader(kind: Kind) -> bool:
    """Tell whether the installed libvips reads this kind."""
    return bool(kind.loader and pyvips.type_find("VipsOperation", kind.loader))


def described(beginning: bytes) -> str:
    """Say what a file is that cannot be upscaled as a picture."""
    if not beginning:
        return "nothing: it is empty"
    kind = kind_of(beginning)
    return kind.name if kind else "a video" if is_video(beginning) else "something else"
