"""How files are opened; the first module that loads PyAV."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import av.sidedata.sidedata

from imagesr.errors import InputError
from imagesr.media.containers import READ
from imagesr.media.webp import as_video, is_animated_webp

# Errors are told in our own words. PyAV is silent by itself; av.logging.set_level, at any level, would make decoder
# threads call into Python to log, and deadlock against the thread that closes the decoder.
os.environ.setdefault("SVT_LOG", "1")


def _newer(kind, value):
    """Stand for a kind of side data that PyAV has no name for, such as EXIF: reading any would raise ValueError."""
    member = object.__new__(kind)
    member._name_, member._value_ = f"NUMBER_{value}", value
    return member


av.sidedata.sidedata.Type._missing_ = classmethod(_newer)

PIPE = Path("-")
MAX_PIXELS = 2**28  # of a frame, 16384x16384: what encoders take
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # how Matroska and its body begin
_SEQUENCE = re.compile(r"%0?\d*d")


def open_input(path: Path, *, rate: Fraction | None = None):
    """Open a video file, `-` for YUV4MPEG2 on standard input, or an image sequence such as `%05d.png` at `rate`.

    Only containers from a list are opened, so that no playlist makes this read other files. Raises PyAV's errors,
    OSError, and InputError for a sequence without pictures.
    """
    if path == PIPE:
        # Not the buffer: Python cannot exit while a thread waits for input within it.
        return av.open(_standard_input(), format="yuv4mpegpipe")
    # Absolute: libav takes what stands before a colon in a relative name for a protocol.
    name = str(path.absolute())
    if is_sequence(path):
        first = min(_numbers(path), default=None)
        if first is None:
            raise InputError(f"Expected pictures whose names follow {path.name}. There are none in {path.parent}")
        options = {"framerate": str(rate or 25), "start_number": str(first)}
        return av.open(name, format="image2", options=options)
    if is_animated_webp(path):
        return av.open(as_video(path))
    return av.open(name, container_options={"format_whitelist": ",".join(READ), "protocol_whitelist": "file"})


def _standard_input():
    """Return standard input without a buffer, whose lock a waiting thread would hold; notebooks have no such thing."""
    buffer = getattr(sys.stdin, "buffer", None)
    return getattr(buffer, "raw", buffer)


def close_input(container) -> None:
    """Close what `open_input` opened, with the temporary file that it may read from."""
    file = container.file and container.file.file
    container.close()
    if file and file is not _standard_input():
        file.close()


@contextmanager
def opened(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a file for the `with` block; raises as `open_input` does."""
    container = open_input(path)
    try:
        yield container
    finally:
        close_input(container)


def is_sequence(path: Path) -> bool:
    """Tell whether a path stands for numbered pictures and is no file by itself."""
    return bool(_SEQUENCE.search(path.name)) and not path.exists()


def sequence_files(path: Path) -> list[Path]:
    """List the numbered pictures that a pattern stands for, in the order of their numbers."""
    return [file for _, file in sorted(_numbered(path))]


def _numbers(path):
    """Yield the numbers of a sequence's pictures."""
    return (number for number, _ in _numbered(path))


def _numbered(path):
    before, after = _SEQUENCE.split(path.name, maxsplit=1)
    pattern = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    if path.parent.is_dir():
        for file in path.parent.iterdir():
            if found := pattern.fullmatch(file.name):
                yield int(found[1]), file


def declared_size(path: Path) -> tuple[int, int] | None:
    """Return (width, height) as the header of a YUV4MPEG2 file has it; None for other files."""
    try:
        with path.open("rb") as file:
            header = file.read(128)
    except OSError:
        return None
    found = re.match(rb"YUV4MPEG2 .*?W(\d+) H(\d+)", header)
    return (int(found[1]), int(found[2])) if found else None


def is_live(path: Path) -> bool:
    """Tell whether a file is an AVI that knows no size, as one that went through a pipe; its lengths mean nothing."""
    try:
        with path.open("rb") as file:
            return file.read(8) == b"RIFF" + b"\xff" * 4
    except OSError:
        return False


def breaks_off(path: Path) -> bool:
    """Tell whether a Matroska or AVI file is shorter than its header says, as one that was not copied whole."""
    try:
        with path.open("rb") as file:
            head, size = file.read(4096), path.stat().st_size
    except OSError:
        return False
    if head[:4] == b"RIFF":
        return 8 + int.from_bytes(head[4:8], "little") > size and not is_live(path)
    if head[:4] != _EBML:
        return False
    length, begin = _ebml_number(head, 4)
    at = begin + length
    if head[at : at + 4] != _SEGMENT:
        return False
    length, begin = _ebml_number(head, at + 4)
    live = length == (1 << 7 * (begin - at - 4)) - 1  # all bits set: nobody knew
    return not live and begin + length > size


def _ebml_number(data, at):
    """Return a number of a variable length that begins at a place, and where it ends."""
    if at >= len(data) or not data[at]:
        return 0, at + 1
    width = 9 - data[at].bit_length()
    return int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1), at + width


def check_declared_size(path: Path, size: tuple[int, int]) -> None:
    """Raise InputError for a frame size that is more than can be worked on."""
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(
            f"Expected frames of at most {MAX_PIXELS / 1e6:,.0f} megapixels. {path} has {size[0]:,}x{size[1]:,}"
        )


def is_cover(stream) -> bool:
    """Tell whether a video stream is a still picture that belongs to the file, not a film."""
    still = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    return bool(stream.disposition & still)


def reason(error: Exception) -> str:
    """Say in a few words what an exception of PyAV or the system means."""
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__
