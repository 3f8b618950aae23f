"""Photo files to pictures and back; the only module that knows libvips.

A picture is a `pyvips.Image`, upright, grey or RGB, with or without a last band of alpha: libvips works out its rows
when they are asked for, so that a hundred megapixels need not be in memory.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyvips

from imagesr.errors import InputError, OutputError
from imagesr.files import whole

pyvips.cache_set_max(0)  # it would remember a file by its name, whatever has become of it since

# What a file may be: its name, the operation that reads it, and how its bytes begin. Libvips reads much else, some of
# it by loaders that its authors would not give a stranger's file to.
_KINDS = (
    ("JPEG", "jpegload", rb"\xff\xd8\xff"),
    ("PNG", "pngload", rb"\x89PNG\r\n\x1a\n"),
    ("WebP", "webpload", rb"RIFF....WEBP"),
    ("TIFF", "tiffload", rb"II[*+]\x00|MM\x00[*+]"),
    ("HEIF", "heifload", rb"....ftyp"),
    ("GIF", "gifload", rb"GIF8"),
    ("PPM", "ppmload", rb"P[1-6]\s"),
)
_NAMES = ", ".join(name for name, *_ in _KINDS)
FORMATS = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
}
SUFFIXES = {*FORMATS, ".avif", ".gif", ".heic", ".heif", ".ppm"}
MAX_PIXELS = 2**30  # of a result
_LONGEST = {"jpeg": 65_535, "webp": 16_383}  # pixels a side that a format can hold
_KEPT = ("icc-profile-data", "xmp-data", "iptc-data", "exif-")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BLOCK = 1024  # pixels: what is reduced at a time
_BLEED = 6.0  # sigma in pixels of how far colours reach into what is transparent
_PEAKS = {"uchar": 255, "ushort": 65_535, "float": 1.0}
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
    if isinstance(source, Path):
        if not source.is_file():
            raise InputError(f"Expected a picture. There is none at {source}")
        with source.open("rb") as file:
            beginning = file.read(16)
    else:
        beginning = source[:16]
    kind = kind_of(beginning)
    if not kind:
        raise InputError(f"Expected a picture ({_NAMES}). Received: {name}, which is none of them")
    try:
        load = getattr(pyvips.Image, kind[1] + ("_buffer" if isinstance(source, bytes) else ""))
        picture = load(source if isinstance(source, bytes) else str(source), fail_on="none" if damaged else "error")
        return _upright(picture, kind[0], name)
    except pyvips.Error as error:
        raise InputError(f"Expected a picture that can be read. Received: {name} ({reason(error)})") from None


def whole_size(source: Path | bytes, *, name: str = "") -> tuple[int, int]:
    """Read a photo to its end and return its (width, height). Raises InputError for one that is not whole."""
    picture = read_photo(source, name=name).picture
    try:
        picture.avg()
    except pyvips.Error as error:
        name = name or str(source)
        raise InputError(f"Expected a whole picture. Received: {name} ({reason(error)})") from None
    return picture.width, picture.height


def kind_of(beginning: bytes) -> tuple[str, str] | None:
    """Return what a file is by its first 16 bytes, as its name and the operation that reads it; None for others."""
    return next((kind[:2] for kind in _KINDS if re.match(kind[2], beginning, re.S)), None)


def _upright(picture, kind, name):
    notes = []
    if picture.get_n_pages() > 1:
        what = "pages" if kind in ("TIFF", "HEIF") else "frames"
        notes.append(f"it has {picture.get_n_pages()} {what}: the first one is taken")
    picture = picture.autorot()
    if picture.interpretation == "cmyk":
        picture = picture.icc_transform("srgb", embedded=True, input_profile="cmyk")
        notes.append("CMYK became sRGB")
    elif picture.interpretation not in ("srgb", "rgb16", "rgb", "b-w", "grey16", "multiband"):
        picture = picture.colourspace("rgb16" if picture.format == "ushort" else "srgb")
    if picture.format not in ("uchar", "ushort") or picture.bands > 4:
        bands = "1 band" if picture.bands == 1 else f"{picture.bands} bands"
        raise InputError(
            f"Expected grey or RGB of 8 or 16 bits. Received: {name} ({bands} of the type {picture.format}); convert it"
        )
    kind = kind.lower()
    return Photo(picture, kind if kind in FORMATS.values() else "png", notes)


def from_array(array: np.ndarray) -> Picture:
    """Return an (H, W, bands) array of uint8, uint16 or float32 as a picture."""
    return pyvips.Image.new_from_array(np.ascontiguousarray(array))


def region(picture: Picture, left: int, top: int, width: int, height: int) -> np.ndarray:
    """Work out a part of a picture; returns (height, width, bands). Raises InputError where its file is damaged."""
    try:
        data = pyvips.Region.new(picture).fetch(left, top, width, height)
    except pyvips.Error as error:
        told = f"The picture is damaged: {reason(error)}. --allow-truncated takes what there is of it"
        raise InputError(told) from None
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
            raise OutputError(f"Cannot keep the rows in {self._folder.name}: {error.strerror}") from None

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
        like = _rewritten(like)
        names = like.get_fields()
    for name in names:
        if name.startswith(_KEPT):
            picture.set_type(like.get_typeof(name), name, like.get(name))
    picture.set_type(pyvips.GValue.gint_type, "orientation", 1)  # it stands upright; what is said in EXIF follows this
    return picture


def _rewritten(picture):
    """Return a pixel of a picture with the metadata that results keep, as PNG holds it, and without comments."""
    data = picture.crop(0, 0, 1, 1).pngsave_buffer(keep="icc:exif:xmp:iptc")
    return pyvips.Image.pngload_buffer(data)


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
        raise OutputError(f"Cannot write {out}: {error.strerror}") from None


def encode_photo(
    picture: Picture, out: Path, format: str, *, quality: int = 95, strip: bool = False, note: Callable = print
) -> None:
    """Write a picture as `write_photo` does, straight to a file that nobody else knows of yet; raises OutputError."""
    picture = picture.copy()
    picture.remove("jpeg-thumbnail-data")  # of the small picture; nothing happens where there is none
    if format in ("jpeg", "webp") and picture.format == "ushort":
        note(f"{format} holds 8 bits a sample: rounded")
        picture = (picture / 257 + 0.5).cast("uchar").copy(interpretation=_space(picture.bands, "uchar"))
    if format == "tiff" and picture.get_typeof("exif-data") and not strip:
        note("tiff is written without EXIF")
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
    try:
        # Where there is no EXIF libvips would make some up.
        keep = "icc" if strip else "all" if picture.get_typeof("exif-data") else "icc:xmp:iptc"
        getattr(picture, f"{format}save")(str(out), keep=keep, **options)
        written = pyvips.Image.new_from_file(str(out))
    except pyvips.Error as error:
        raise OutputError(f"Cannot write {out}: {reason(error)}") from None
    if (written.width, written.height) != (picture.width, picture.height):
        raise OutputError(f"Expected {picture.width}x{picture.height} in {out}. It has another size")


def store_decoded(picture: Picture, out: Path) -> None:
    """Write all pixels of a picture, and the metadata that results keep, for `open_decoded` in another process.

    What is kept of EXIF is what libexif has written itself, not what it was given. Raises InputError where the
    picture's file is damaged, and OutputError where there is no room.
    """
    try:
        picture = picture.copy()
        picture.remove("jpeg-thumbnail-data")
        if picture.get_typeof("exif-data"):
            exif = _rewritten(picture).get("exif-data")
            picture.set_type(pyvips.GValue.blob_type, "exif-data", exif)
        # Comments stay behind: in a PNG their very names may be no text.
        picture.vipssave(str(out), keep="icc:exif:xmp:iptc")
    except pyvips.Error as error:
        if any(os.strerror(code) in str(error) for code in NO_ROOM):
            raise OutputError(f"Cannot keep the picture in {out}: {reason(error)}") from None
        raise InputError(f"The picture is damaged: {reason(error)}") from None


def open_decoded(file: Path) -> Picture:
    """Open what `store_decoded` wrote: pixels are mapped from the file, when they are asked for."""
    return pyvips.Image.vipsload(str(file))


def stop(picture: Picture) -> None:
    """Let whoever works a picture out, in another thread, fail at the next row."""
    picture.set_kill(True)


def reason(error: pyvips.Error) -> str:
    """Return what libvips says is wrong, in one line."""
    lines = [line.strip() for line in str(error.detail).splitlines() if line.strip()]
    return lines[-1] if lines else str(error).strip()
