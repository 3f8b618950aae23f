"""What a photo file says besides its pixels, where libvips does not tell: PNG chunks, TIFF tags, JPEG segments, XMP."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

_MOST_TEXT = 2**24  # bytes of text of a PNG that are kept
_SRGB_GAMMA = 45_455
_SRGB_CHROMATICITIES = (31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)
# ITU-T H.273: colour primaries and transfer characteristics.
_PRIMARIES = {1: "BT.709", 9: "BT.2020", 11: "DCI P3", 12: "Display P3"}
_TRANSFERS = {8: "linear", 13: "sRGB", 16: "PQ", 18: "HLG"}
_LIKE_SRGB = ({1, 2, 5, 6}, {1, 2, 6, 13, 14, 15})  # shown as sRGB, or unspecified


# PNG


def png_chunks(file: BinaryIO) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Return the beginnings of a PNG's chunks by name, and its text chunks as they stand (PNG, third edition, 5.3)."""
    found, texts, room = {}, [], _MOST_TEXT
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"tEXt", b"zTXt", b"iTXt") and length <= room:
            data = file.read(length + 4)
            if _is_whole(kind, data) and not data.startswith((b"XML:com.adobe.xmp\0", b"Raw profile type ")):
                texts.append(head + data)
                room -= length
            continue
        found.setdefault(kind, file.read(min(length, 64)))
        if kind == b"IEND":
            break
        file.seek(length + 4 - min(length, 64), 1)
    return found, texts


def _is_whole(kind, data):
    return zlib.crc32(kind + data[:-4]) == int.from_bytes(data[-4:], "big")


def text_names(texts: bytes) -> list[str]:
    """Return the keywords of text chunks, one behind another."""
    names, place = [], 0
    while place < len(texts):
        length = int.from_bytes(texts[place : place + 4], "big")
        names.append(texts[place + 8 : place + 8 + length].partition(b"\0")[0].decode("latin-1"))
        place += 12 + length
    return names


def insert_text(path: Path, texts: bytes, *, block: int = 2**20) -> None:
    """Put text chunks into a PNG file, behind its first chunk: the rest moves on, in place."""
    start = 33  # behind the signature and IHDR
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        while end > start:
            begin = max(start, end - block)
            file.seek(begin)
            data = file.read(end - begin)
            file.seek(begin + len(texts))
            file.write(data)
            end = begin
        file.seek(start)
        file.write(texts)


def png_notes(chunks: dict[bytes, bytes]) -> list[str]:
    """Say what a PNG's chunks promise and a result does not have: frames, and colours without a profile."""
    notes = []
    if len(animation := chunks.get(b"acTL", b"")) >= 4 and (frames := int.from_bytes(animation[:4], "big")) > 1:
        notes.append(f"it has {frames} frames: the first one is taken")
    if len(code := chunks.get(b"cICP", b"")) >= 2:
        notes += coding_notes(code[0], code[1], "cICP")
    elif not {b"iCCP", b"sRGB"} & chunks.keys():
        odd = [name.decode() for name in (b"gAMA", b"cHRM") if name in chunks and not _is_srgb(name, chunks[name])]
        if odd:
            notes.append(f"the colour space of {' and '.join(odd)} is not kept: colours may look different")
    return notes


def _is_srgb(name, data):
    if name == b"gAMA":
        return abs(int.from_bytes(data[:4], "big") - _SRGB_GAMMA) < 700
    if len(data) < 32:
        return True
    return all(abs(a - b) < 700 for a, b in zip(struct.unpack(">8I", data[:32]), _SRGB_CHROMATICITIES, strict=True))


def coding_notes(primaries: int, transfer: int, where: str) -> list[str]:
    """Say where the colours of H.273's code points are others than sRGB, which results do not say."""
    if primaries in _LIKE_SRGB[0] and transfer in _LIKE_SRGB[1]:
        return []
    names = [
        table.get(code, f"{what} {code}")
        for table, code, what in ((_PRIMARIES, primaries, "primaries"), (_TRANSFERS, transfer, "transfer"))
    ]
    return [f"the colour space of {where} ({', '.join(names)}) is not kept: colours will look different"]


def heif_notes(beginning: bytes) -> list[str]:
    """Say where a HEIF or AVIF file without a profile has other colours than sRGB (`colr` box, ISO/IEC 23008-12)."""
    place = beginning.find(b"colrnclx")
    if place < 0 or len(beginning) < place + 12 or b"colrprof" in beginning or b"colrrICC" in beginning:
        return []
    return coding_notes(*struct.unpack_from(">HH", beginning, place + 8), "the file")


def jpeg_notes(file: BinaryIO) -> list[str]:
    """Say which parts of a JPEG a result does not have: comments, a gain map beside the XMP's."""
    notes, place = [], 2
    while True:
        file.seek(place)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):
            return notes
        length = int.from_bytes(head[2:], "big")
        if head[1] == 0xFE and "its comment is left out" not in notes:
            notes.append("its comment is left out")
        if head[1] == 0xE2 and file.read(28) == b"urn:iso:std:iso:ts:21496:-1\0":
            notes.append("its gain map (HDR) is left out")
        place += 2 + max(2, length)


# TIFF


def tiff_tags(file: BinaryIO, wanted: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Return the integers of some tags of a TIFF's first picture, also of BigTIFF; damaged ones are left out."""
    wanted = set(wanted)
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    count_form, entry_form, offset_form = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    size = struct.calcsize("<" + entry_form)
    found = {}
    try:
        file.seek(struct.unpack_from(order + offset_form, head, 8 if big else 4)[0])
        (count,) = struct.unpack(order + count_form, file.read(struct.calcsize("<" + count_form)))
        entries = file.read(min(count, 4096) * size)
        for tag, kind, number, data in struct.iter_unpack(order + entry_form, entries[: len(entries) // size * size]):
            form = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
            if tag not in wanted or not form or number > 64:
                continue
            length = struct.calcsize(f"<{number}{form}")
            if length > len(data):
                file.seek(struct.unpack(order + offset_form, data)[0])
                data = file.read(length)
            found[tag] = struct.unpack(f"{order}{number}{form}", data[:length])
    except (struct.error, OverflowError, ValueError, OSError):
        pass
    return found


# XMP

_OF_THE_SIZE = {
    "http://ns.adobe.com/tiff/1.0/": ("Orientation", "ImageWidth", "ImageLength"),
    "http://ns.adobe.com/exif/1.0/": ("PixelXDimension", "PixelYDimension"),
}
# What stands behind the picture in its file: a gain map, a video, depth, or more XMP.
_OF_THE_FILE = {
    "http://ns.adobe.com/hdr-gain-map/1.0/": "a gain map (HDR)",
    "http://ns.apple.com/HDRGainMap/1.0/": "a gain map (HDR)",
    "http://ns.apple.com/pixeldatainfo/1.0/": "",
    "http://ns.google.com/photos/1.0/container/": "pictures behind this one",
    "http://ns.google.com/photos/1.0/container/item/": "",
    "http://ns.google.com/photos/1.0/camera/": "a video or more pictures",
    "http://ns.google.com/photos/1.0/image/": "a picture behind this one",
    "http://ns.google.com/photos/1.0/audio/": "sound",
    "http://ns.google.com/photos/1.0/depthmap/": "a depth map",
    "http://ns.google.com/photos/dd/1.0/": "a depth map",
    "http://ns.adobe.com/xmp/note/": "",
}


def cleaned_xmp(xmp: bytes) -> tuple[bytes, list[str]]:
    """Return XMP without orientation, size and what belongs to the old file alone, and what was left out of it.

    The rest stays as it was, byte for byte.
    """
    out, left = xmp, []
    for prefix, address in dict.fromkeys(re.findall(rb"xmlns:([\w.-]+)\s*=\s*[\"']([^\"']*)[\"']", xmp)):
        address = address.decode("utf-8", "replace")
        if address in _OF_THE_FILE:
            cleaned = _without(out, prefix, rb"[\w.-]+")
            cleaned = re.sub(rb"\s+xmlns:" + re.escape(prefix) + rb"\s*=\s*(\"[^\"]*\"|'[^']*')", b"", cleaned)
            if cleaned != out and _OF_THE_FILE[address]:
                left.append(_OF_THE_FILE[address])
            out = cleaned
        for name in _OF_THE_SIZE.get(address, ()):
            out = _without(out, prefix, name.encode())
    return out, sorted(set(left))


def _without(xmp, prefix, name):
    """Return XMP without the attributes and elements of a name, a pattern, under a prefix."""
    named = re.escape(prefix) + b":" + name
    attributes = rb"(?:\s+[\w:.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*\s*"
    xmp = re.sub(rb"<" + named + attributes + rb"/>", b"", xmp)
    xmp = re.sub(rb"<(" + named + rb")" + attributes + rb">.*?</\1\s*>", b"", xmp, flags=re.S)
    return re.sub(rb"\s+" + named + rb"\s*=\s*(\"[^\"]*\"|'[^']*')", b"", xmp)
