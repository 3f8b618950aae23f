"""Photo files to pictures and back; the only module that knows libvips.

A picture is a `pyvips.Image`, upright, grey or RGB, with or without a last band of alpha: libvips works out its rows
when they are asked for, so that a hundred megapixels need not be in memory.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyvips

from imagesr.errors import InputError, OutputError
from imagesr.files import NO_ROOM, disk_full, part_of, whole
from imagesr.media.photo_by_hand import read_by_hand
from imagesr.media.photo_colour import TAGS, is_eight_bit_lab, read_lab, to_grey_or_rgb, without_extra_channels
from imagesr.media.photo_kinds import BY_HAND, HEAD, NAMES, has_loader, is_video, kind_of
from imagesr.media.photo_metadata import (
    cleaned_xmp,
    heif_notes,
    insert_text,
    jpeg_notes,
    png_chunks,
    png_notes,
    text_names,
    tiff_tags,
)

pyvips.cache_set_max(0)  # it would remember a file by its name, whatever has become of it since

FORMATS = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jfif": "jpeg",
    ".jpe": "jpeg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
}
SUFFIXES = {*FORMATS, ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".pbm", ".pgm", ".pnm", ".ppm"}
MAX_PIXELS = 2**30  # of a result
_LONGEST = {"jpeg": 65_535, "webp": 16_383}  # pixels a side that a format can hold
_TEXT = "imagesr-text"  # the field of a PNG's text chunks: libvips would write them in another encoding
_DESCRIPTION = "image-description"  # of a TIFF
_KEPT = ("icc-profile-data", "xmp-data", "iptc-data", "exif-", _TEXT, _DESCRIPTION)
_OLD_SIZES = (
    "exif-ifd0-ImageWidth",
    "exif-ifd0-ImageLength",
    "exif-ifd4-RelatedImageWidth",
    "exif-ifd4-RelatedImageLength",
)
_HEIF_HEAD = 2**16  # bytes in which a HEIF file describes itself
_LEAST_ROOM = 2**16  # bytes: with fewer a disk is full
_BLOCK = 1024  # pixels: what is reduced at a time
_BLEED = 6.0  # sigma in pixels of how far colours reach into what is transparent
_PEAKS = {"uchar": 255, "ushort": 65_535, "float": 1.0}
# What libheif and libtiff say where they were built without a decoder.
_NO_DECODER = re.compile(
    r"has not been built in: ([\w-]+)|([\w-]+(?: JPEG)?) compression support is not configured"
    r"|[Cc]ompression scheme (\d+)|Unsupported codec|No decoding plugin"
)
_DTYPES = {"uchar": np.dtype(np.uint8), "ushort": np.dtype(np.uint16), "float": np.dtype(np.float32)}

Picture = pyvips.Image


@dataclass
class Photo:
    """Hold a picture and what is to be said about its file; `format` is one of `FORMATS`, else "png"."""

    picture: Picture
    format: str
    notes: list[str] = field(default_factory=list)


def peak(picture: Picture) -> float:
    """Return the sample that means white: 255, 65535, or 1 of a picture in floating point."""
    return _PEAKS[picture.format]


def has_alpha(picture: Picture) -> bool:
    """Tell whether the last band is alpha."""
    return picture.bands in (2, 4)


def read_photo(source: Path | bytes, *, name: str = "", damaged: bool = False) -> Photo:
    """Open a photo file, or the bytes of one: turned upright, its colours grey or RGB of 8 or 16 bits.

    Colours stay in the file's own space, which goes with the picture as its ICC profile; CMYK and Lab become sRGB.
    With `damaged` a file is read as far as it goes. Raises InputError for what is missing or cannot be read; what is
    wrong deeper in the file shows when its rows are worked out.
    """
    name = name or str(source)
    beginning = _beginning(source)
    kind = kind_of(beginning)
    if is_video(beginning):
        raise InputError(f"Expected a picture. Received: {name}, which is a video: `imagesr video` upscales it")
    if not kind:
        told = "which is none of them" if beginning else "which is empty"
        raise InputError(f"Expected a picture ({NAMES}). Received: {name}, {told}")
    if not has_loader(kind) and kind.name not in BY_HAND:
        raise InputError(f"Expected a picture that the installed libvips reads. Received: {name} ({kind.name})")
    try:
        tags, notes, text = _described(source, kind.name)
        picture = _loaded(source, kind, tags, name, damaged)
        return _upright(picture, kind.name, name, tags, notes, text)
    except pyvips.Error as error:
        raise unreadable(error, name) from None


def _beginning(source):
    if isinstance(source, bytes):
        return source[:HEAD]
    if not source.is_file():
        raise InputError(f"Expected a picture. There is none at {source}")
    try:
        with source.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise InputError(f"Expected a picture that can be read. Received: {source} ({error.strerror})") from None


def _described(source, kind):
    """Return what libvips does not tell of a file: a TIFF's tags, notes, the text chunks of a PNG."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        if kind == "TIFF":
            return tiff_tags(file, TAGS), [], b""
        if kind == "PNG":
            chunks, texts = png_chunks(file)
            return {}, png_notes(chunks), b"".join(texts)
        if kind == "HEIF":
            return {}, heif_notes(file.read(_HEIF_HEAD)), b""
        return {}, jpeg_notes(file) if kind == "JPEG" else [], b""


def _loaded(source, kind, tags, name, damaged):
    if not has_loader(kind):
        return read_by_hand(source, name=name, damaged=damaged)
    if is_eight_bit_lab(tags):
        return read_lab(source, name)
    load = getattr(pyvips.Image, kind.loader + ("_buffer" if isinstance(source, bytes) else ""))
    source = source if isinstance(source, bytes) else str(source)
    if damaged:
        with suppress(pyvips.Error):
            _check_decoder(load(source, fail_on="error"), name)
    return load(source, fail_on="none" if damaged else "error")


def _check_decoder(picture, name):
    """Raise InputError where there is no decoder, which libvips would take for damage and leave black."""
    try:
        pyvips.Region.new(picture).fetch(0, 0, 1, 1)
    except pyvips.Error as error:
        if _missing_decoder(error):
            raise unreadable(error, name) from None


def whole_size(source: Path | bytes, *, name: str = "") -> tuple[int, int]:
    """Read a photo to its end and return its (width, height). Raises InputError for one that is not whole."""
    picture = read_photo(source, name=name).picture
    try:
        picture.avg()
    except pyvips.Error as error:
        raise unreadable(error, name or str(source), expected="a whole picture") from None
    return picture.width, picture.height


def _upright(picture, kind, name, tags, notes, text):
    if picture.get_typeof("n-pages") and picture.get_n_pages() > 1:
        what = "pages" if kind in ("TIFF", "HEIF") else "frames"
        notes.append(f"it has {picture.get_n_pages()} {what}: the first one is taken")
    picture, left = without_extra_channels(picture, tags)
    picture = _with_new_metadata(picture.autorot(), notes, text)
    picture, changed = to_grey_or_rgb(picture, name, tags)
    kind = kind.lower()
    return Photo(picture, kind if kind in FORMATS.values() else "png", [*notes, *left, *changed])


def _with_new_metadata(picture, notes, text):
    """Return a picture whose EXIF and XMP say nothing of the old size, nor of what else the old file held."""
    picture = picture.copy()
    _forget_old_size(picture)
    if picture.get_typeof("xmp-data"):
        xmp, left = cleaned_xmp(picture.get("xmp-data"))
        picture.set_type(pyvips.GValue.blob_type, "xmp-data", xmp)
        if left:
            notes.append(f"left out, with what its XMP says of it: {', '.join(left)}")
    if text:
        picture.set_type(pyvips.GValue.blob_type, _TEXT, text)
    return picture


def _forget_old_size(picture):
    for name in _OLD_SIZES:
        picture.remove(name)  # nothing happens where there is none


def from_array(array: np.ndarray) -> Picture:
    """Return an (H, W, bands) array of uint8, uint16 or float32 as a picture."""
    return pyvips.Image.new_from_array(np.ascontiguousarray(array))


def region(picture: Picture, left: int, top: int, width: int, height: int) -> np.ndarray:
    """Work out a part of a picture; returns (height, width, bands). Raises InputError where its file is damaged."""
    try:
        data = pyvips.Region.new(picture).fetch(left, top, width, height)
    except pyvips.Error as error:
        raise unreadable(error) from None
    return np.frombuffer(data, _DTYPES[picture.format]).reshape(height, width, picture.bands)


def without_hidden_colours(picture: Picture) -> Picture:
    """Give transparent pixels the colours next to them, so that nothing dark leaks over an edge when it is enlarged.

    What is said of a pixel that nobody sees is arbitrary, most often black.
    """
    alpha = picture[picture.bands - 1]
    colours = picture.extract_band(0, n=picture.bands - 1)
    visible = colours * (alpha / peak(picture))
    weight = (alpha / peak(picture)).gaussblur(_BLEED, precision="float", min_ampl=0.01)
    near = visible.gaussblur(_BLEED, precision="float", min_ampl=0.01) / weight
    near = (near + (0.5 if picture.format != "float" else 0)).cast(picture.format)
    # Beyond the reach of the blur there is nothing to take.
    colours = (alpha == 0).ifthenelse((weight > 1e-4).ifthenelse(near, colours), colours)
    return colours.bandjoin(alpha)


class Spool:
    """Collect the tiles of a picture as they are made, in a temporary file; `picture` gives them back.

    Memory holds none of them: a row of tiles of a wide picture alone may take gigabytes. `like` is a picture with as
    many bands. Close it, or leave its `with` block, when the picture has been written.
    """

    def __init__(self, size: tuple[int, int], like: Picture, format: str):
        self.dtype = _DTYPES[format]
        self._size, self._like, self._format = size, like, format
        self._folder = tempfile.TemporaryDirectory(prefix="imagesr-")
        self._file = (Path(self._folder.name) / "rows").open("wb")

    def write(self, tile: np.ndarray, left: int, top: int) -> None:
        """Put a tile (height, width, bands) into its place. Raises OutputError where there is no room."""
        tile = np.ascontiguousarray(tile, self.dtype)
        pixel = tile.itemsize * tile.shape[2]
        try:
            for y, row in enumerate(tile, top):
                self._file.seek((y * self._size[0] + left) * pixel)
                self._file.write(row.data)
            self._file.flush()
        except OSError as error:
            told = disk_full(error.errno) or error.strerror
            raise OutputError(f"Cannot keep the rows in {self._folder.name}: {told}") from None

    def picture(self) -> Picture:
        """Return the picture, complete, with the resolution, the profile and the other metadata of `like`."""
        self._file.close()
        like, (width, height) = self._like, self._size
        raw = pyvips.Image.rawload(self._file.name, width, height, like.bands, format=self._format)
        return with_metadata(raw.copy(interpretation=_space(like.bands, self._format)), like)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Forget the tiles."""
        with suppress(OSError):  # of what it still wanted to write
            self._file.close()
        self._folder.cleanup()


def with_metadata(picture: Picture, like: Picture) -> Picture:
    """Return a picture with the resolution, colour profile, EXIF, XMP and IPTC of another."""
    picture = picture.copy(xres=like.xres, yres=like.yres)
    try:
        names = like.get_fields()
    except UnicodeDecodeError:  # of a PNG's comment
        text, like = _field(like, _TEXT), _rewritten(like)
        names = like.get_fields()
        if text:
            picture.set_type(pyvips.GValue.blob_type, _TEXT, text)
    for name in names:
        if name.startswith(_KEPT):
            picture.set_type(like.get_typeof(name), name, like.get(name))
    _forget_old_size(picture)  # libvips has read it out of EXIF again
    picture.set_type(pyvips.GValue.gint_type, "orientation", 1)  # it stands upright; what is said in EXIF follows this
    return picture


def _rewritten(picture):
    """Return a pixel of a picture with the metadata that results keep, as PNG holds it, and without comments."""
    data = picture.crop(0, 0, 1, 1).pngsave_buffer(keep=_what_to_keep(picture))
    return pyvips.Image.pngload_buffer(data)


def _what_to_keep(picture):
    """Return the metadata that libvips is to write; where there is no EXIF it would make some up."""
    return "icc:exif:xmp:iptc" if picture.get_typeof("exif-data") else "icc:xmp:iptc"


def _field(picture, name):
    """Return a field of a picture, b"" where there is none."""
    return picture.get(name) if picture.get_typeof(name) else b""


def reduced(picture: Picture, size: tuple[int, int], format: str) -> Picture:
    """Return a picture in floating point at a smaller (width, height), by Lanczos, rounded to another format."""
    width, height = size
    result = picture.resize(width / picture.width, vscale=height / picture.height, kernel="lanczos3")
    result = result.gravity("north-west", *size, extend="copy").clamp(min=0, max=_PEAKS[format])
    if format != "float":
        result = (result + 0.5).cast(format).copy(interpretation=_space(picture.bands, format))
    # Whole rows of a wide picture, of every step above, took gigabytes.
    columns = -(-width // _BLOCK)
    return result.tilecache(tile_width=_BLOCK, tile_height=16, max_tiles=4 * columns, threaded=True)


def mirrored(picture: Picture, margin: int, size: tuple[int, int]) -> Picture:
    """Return a picture continued to (width, height) by its mirror image, with `margin` pixels more on every side."""
    width, height = (n + 2 * margin for n in size)
    return picture.embed(margin, margin, width, height, extend="mirror")


def _space(bands, format):
    """Return what libvips calls grey or RGB of a format."""
    return ("grey16" if format == "ushort" else "b-w") if bands < 3 else ("rgb16" if format == "ushort" else "srgb")


def check_size(size: tuple[int, int], format: str | None = None) -> None:
    """Raise ValueError for a (width, height) that is more than a result, or its format, can hold."""
    width, height = size
    longest = _LONGEST.get(format, 2**31)
    if width * height > MAX_PIXELS:
        most = f"{MAX_PIXELS / 1e6:,.0f} megapixels"
        raise ValueError(f"Expected a result of at most {most}. Received: {width}x{height}; choose a smaller scale")
    if max(size) > longest:
        raise ValueError(
            f"Expected at most {longest} pixels a side for {format}. Received: {width}x{height}; write png or tiff"
        )


def write_photo(
    picture: Picture, out: Path, format: str, *, quality: int = 95, strip: bool = False, note: Callable = print
) -> None:
    """Write a picture so that it is whole under its name, or not there; `note` is told what the format cannot hold.

    `quality` is that of JPEG and WebP, whose colours are not subsampled. `strip` leaves out EXIF, XMP and IPTC; the
    colour profile always stays. Raises OutputError.
    """
    try:
        with whole(out) as part:
            encode_photo(picture, part, format, quality=quality, strip=strip, note=note)
    except OSError as error:
        raise OutputError(f"Cannot write {out}: {disk_full(error.errno) or error.strerror}") from None
    except OutputError as error:  # the part file's name says nothing to the user
        raise OutputError(str(error).replace(str(part_of(out)), str(out))) from None


def encode_photo(
    picture: Picture, out: Path, format: str, *, quality: int = 95, strip: bool = False, note: Callable = print
) -> None:
    """Write a picture as `write_photo` does, straight to a file that nobody else knows of yet; raises OutputError."""
    picture = picture.copy()
    picture.remove("jpeg-thumbnail-data")  # of the small picture; nothing happens where there is none
    if format in ("jpeg", "webp") and picture.format == "ushort":
        note(f"{format} holds 8 bits a sample: rounded")
        picture = (picture / 257 + 0.5).cast("uchar").copy(interpretation=_space(picture.bands, "uchar"))
    text = b"" if strip else _field(picture, _TEXT)
    if not strip:
        _note_what_is_left_out(picture, format, text, note)
    if format == "jpeg" and has_alpha(picture):
        note("jpeg holds no transparency: laid on white")
        picture = picture.flatten(background=255)
    options = {
        "png": {"compression": 3, "filter": "paeth"},
        "jpeg": {"Q": quality, "subsample_mode": "off", "optimize_coding": True},
        "webp": {"Q": quality, "smart_subsample": True},
        "tiff": {
            "compression": "deflate",
            "predictor": "horizontal",
            "bigtiff": picture.width * picture.height > 2**28,
        },
    }[format]
    # A TIFF's description is among "other".
    keep = "icc" if strip else _what_to_keep(picture) + (":other" if format == "tiff" else "")
    try:
        getattr(picture, f"{format}save")(str(out), keep=keep, **options)
        if text and format == "png":
            insert_text(out, text)
        written = pyvips.Image.new_from_file(str(out))
    except pyvips.Error as error:
        raise OutputError(f"Cannot write {out}: {_full(error, out) or reason(error)}") from None
    if (written.width, written.height) != (picture.width, picture.height):
        raise OutputError(f"Expected {picture.width}x{picture.height} in {out}. It has another size")


def _note_what_is_left_out(picture, format, text, note):
    if format == "tiff" and picture.get_typeof("exif-data"):
        note("tiff is written without EXIF")
    left = text_names(text) if format != "png" else []
    if picture.get_typeof(_DESCRIPTION) and format != "tiff":
        left.append("the description")
    if left:
        note(f"left out of {format}: text ({', '.join(dict.fromkeys(left))})")


def _full(error, out):
    """Say that the disk is full, if that is why libvips could not write a file; its encoders do not always tell."""
    known = next((code for code in NO_ROOM if os.strerror(code) in str(error.detail)), None)
    if known is None:
        with suppress(OSError):
            known = errno.ENOSPC if shutil.disk_usage(out.parent).free < _LEAST_ROOM else None
    return disk_full(known)


def store_decoded(picture: Picture, out: Path) -> None:
    """Write all pixels of a picture, and the metadata that results keep, for `open_decoded` in another process.

    What is kept of EXIF is what libexif has written itself, not what it was given. Raises InputError where the
    picture's file is damaged, and OutputError where there is no room.
    """
    try:
        picture = picture.copy()
        picture.remove("jpeg-thumbnail-data")
        keep = _what_to_keep(picture)
        if picture.get_typeof("exif-data"):
            exif = _rewritten(picture).get("exif-data")
            picture.set_type(pyvips.GValue.blob_type, "exif-data", exif)
        # Comments stay behind: in a PNG their very names may be no text.
        picture.vipssave(str(out), keep=keep)
    except pyvips.Error as error:
        if any(os.strerror(code) in str(error) for code in NO_ROOM):
            raise OutputError(f"Cannot keep the picture in {out}: {reason(error)}") from None
        raise unreadable(error, advice="") from None


def open_decoded(file: Path) -> Picture:
    """Open what `store_decoded` wrote: pixels are mapped from the file, when they are asked for."""
    return pyvips.Image.vipsload(str(file))


def stop(picture: Picture) -> None:
    """Let whoever works a picture out, in another thread, fail at the next row."""
    picture.set_kill(True)


_ADVICE = ". --allow-truncated takes what there is of it"


def unreadable(
    error: pyvips.Error, name: str = "", *, expected: str = "a picture that can be read", advice: str = _ADVICE
) -> InputError:
    """Return the error for a picture that libvips fails to read: its decoder is missing, or the file is damaged.

    Without a name the picture has been opened, and its rows are damaged; `advice` follows then.
    """
    if missing := _missing_decoder(error):
        told = f"{missing} is not decoded here: the installed libvips has no decoder for it; convert the picture"
        return InputError(f"Expected {expected}. Received: {name} ({told})" if name else told)
    if name:
        return InputError(f"Expected {expected}. Received: {name} ({reason(error)})")
    return InputError(f"The picture is damaged: {reason(error)}{advice}")


def _missing_decoder(error):
    """Return the compression that libvips has no decoder for; "" where something else is wrong."""
    found = _NO_DECODER.search(str(error.detail))
    return next((name for name in found.groups() if name), "Its compression").removeprefix("scheme ") if found else ""


def reason(error: pyvips.Error) -> str:
    """Return what libvips says is wrong, in one line."""
    lines = [line.strip() for line in str(error.detail).splitlines() if line.strip()]
    return lines[-1] if lines else str(error).strip()
