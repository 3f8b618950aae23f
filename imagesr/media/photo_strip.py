"""Photo files without what they say of people, places and cameras; pixels are not decoded, and stay as they are."""

from __future__ import annotations

import re
import struct

from imagesr.errors import InputError

# PNG, third edition, 11: what decides how pixels look. Text, EXIF, times and private chunks are not among it.
_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT"}
_PNG = b"\x89PNG\r\n\x1a\n"
# ITU-T T.81, B.1.1.2: a marker within a scan is no stuffed byte and no restart. It may follow any number of 0xFF: a
# search for those, too, would take a time that grows with the square of a run of them.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_MARKER_HERE = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_SOS, _EOI, _COM = 0xDA, 0xD9, 0xFE


def without_metadata(data: bytes) -> bytes:
    """Return a PNG or JPEG file without EXIF, XMP, IPTC, comments, text, and what stands behind its end.

    The colour profile stays. The turn that EXIF asks for is lost: such a picture lies as the camera held it. Raises
    InputError for a file that is damaged, or of another kind.
    """
    try:
        if data.startswith(_PNG):
            return _PNG + b"".join(_png_chunks(data))
        if data.startswith(b"\xff\xd8"):
            return b"\xff\xd8" + b"".join(_jpeg_segments(data))
    except (struct.error, IndexError, AttributeError):
        pass
    raise InputError("Expected a whole PNG or JPEG picture. It is damaged, or something else")


def _png_chunks(data):
    place, kind = len(_PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + 12 + length]
        if len(chunk) < 12 + length:
            raise IndexError
        place += len(chunk)
        if kind in _CHUNKS:
            yield chunk


def _jpeg_segments(data):
    place = 2
    while True:
        found = _MARKER_HERE.match(data, place)  # AttributeError where there is none
        place, kind = found.end(), found[1][0]
        if kind == _EOI:
            yield b"\xff\xd9"
            return
        (length,) = struct.unpack_from(">H", data, place)
        end = place + length
        if kind == _SOS:
            # The coded pixels go on to the next marker. IndexError: they break off.
            end = _MARKER.search(data, end).start()
        if end > len(data):
            raise IndexError
        if _stays(kind, data[place + 2 : end]):
            yield b"\xff" + bytes([kind]) + data[place:end]
        place = end


def _stays(kind, body):
    """Tell whether a segment says how pixels look: JFIF, the colour profile and Adobe's transform among APPn."""
    if kind == 0xE0:
        return body.startswith(b"JFIF\0")
    if kind == 0xE2:
        return body.startswith(b"ICC_PROFILE\0")
    return kind == 0xEE and body.startswith(b"Adobe") if 0xE1 <= kind <= 0xEF else kind != _COM
