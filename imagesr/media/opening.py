"""How files are opened; the first module that loads PyAV."""

from __future__ import annotations

import os
from pathlib import Path

import av

# Errors are told in our own words. PyAV is silent by itself; av.logging.set_level, at any level, would make decoder
# threads call into Python to log, and deadlock against the thread that closes the decoder.
os.environ.setdefault("SVT_LOG", "1")


def open_input(path: Path):
    # Absolute: libav takes what stands before a colon in a relative name for a protocol.
    return av.open(str(path.absolute()))


def is_cover(stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def reason(error: Exception) -> str:
    """Say in a few words what an exception of PyAV or the system means."""
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__
