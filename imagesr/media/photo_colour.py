"""Colours of photo files as grey or RGB: CMYK, CIELAB, floating point, channels that are not colours."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyvips
from PIL import Image

from imagesr.errors import InputError

# TIFF 6.0 and its supplements.
PHOTOMETRIC, EXTRA_SAMPLES, BITS = 262, 338, 258
TAGS = (PHOTOMETRIC, EXTRA_SAMPLES, BITS)
_CIELAB, _ICCLAB, _ITULAB = 8, 9, 10
_ALPHAS = (1, 2)  # premultiplied, which libvips takes back, and not
_RGB_LIKE = ("srgb", "rgb16", "rgb", "b-w", "grey16", "multiband")


def is_eight_bit_lab(tags: dict[int, tuple[int, ...]]) -> bool:
    """Tell whether a TIFF is CIELAB of 8 bits, which libvips takes for its own packed Lab and fails to read."""
    return tags.get(PHOTOMETRIC) == (_CIELAB,) and set(tags.get(BITS, ())) == {8}


def read_lab(source: Path | bytes, name: str) -> pyvips.Image:
    """Return a CIELAB TIFF of 8 bits as a float Lab picture. Raises InputError."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.mode != "LAB":
                raise InputError(f"Expected CIELAB of three channels. Received: {name} ({image.mode}); convert it")
            orientation = image.getexif().get(274, 1)
            samples = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"Expected CIELAB that can be read. Received: {name} ({error}); convert it") from None
    lightness = pyvips.Image.new_from_array(np.ascontiguousarray(samples[..., :1])) * (100 / 255)
    tints = pyvips.Image.new_from_array(np.ascontiguousarray(samples[..., 1:]).view(np.int8))  # a and b are signed
    picture = lightness.bandjoin(tints).copy(interpretation="lab")
    picture.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    return picture


def without_extra_channels(picture: pyvips.Image, tags: dict[int, tuple[int, ...]]) -> tuple[pyvips.Image, list[str]]:
    """Leave out of a TIFF the channels that its ExtraSamples tag does not call transparency, and say so."""
    extra = tags.get(EXTRA_SAMPLES, ())
    colours = picture.bands - len(extra)
    if not extra or colours not in (1, 3):
        return picture, []
    kept = colours + (extra[0] in _ALPHAS)
    if kept == picture.bands:
        return picture, []
    count = picture.bands - kept
    what = "a channel that is" if count == 1 else f"{count} channels that are"
    return picture.extract_band(0, n=kept), [f"left out: {what} neither colour nor transparency"]


def to_grey_or_rgb(
    picture: pyvips.Image, name: str, tags: dict[int, tuple[int, ...]]
) -> tuple[pyvips.Image, list[str]]:
    """Return a picture as grey or RGB of 8 or 16 bits, and what that changed. Raises InputError, and pyvips.Error."""
    notes = []
    photometric = tags.get(PHOTOMETRIC, (0,))[0]
    if photometric == _ITULAB:
        raise InputError(f"Expected grey or RGB. Received: {name} (ITU CIELAB, as fax machines send); convert it")
    if photometric == _ICCLAB and picture.interpretation == "multiband":
        white = 255 if picture.format == "uchar" else 65_280
        byte = white / 255
        picture = picture.linear([100 / white, 1 / byte, 1 / byte], [0, -128, -128]).copy(interpretation="lab")
    if picture.interpretation == "cmyk":
        picture = picture.icc_transform("srgb", embedded=True, input_profile="cmyk")
        notes.append("CMYK became sRGB")
    elif picture.interpretation in ("lab", "labs", "labq"):
        deep = picture.interpretation == "labs" or tags.get(BITS, (8,))[0] == 16
        # Through ICC, as libvips's own conversion takes CIELAB to be of another white.
        picture = picture.colourspace("lab").icc_export(output_profile="srgb", depth=16 if deep else 8)
        notes.append("CIELAB became sRGB")
    elif picture.format in ("float", "double"):
        picture, notes = _from_float(picture, name)
    elif picture.interpretation not in _RGB_LIKE:
        picture = picture.colourspace("rgb16" if picture.format == "ushort" else "srgb")
    if picture.format not in ("uchar", "ushort") or picture.bands > 4:
        bands = "1 band" if picture.bands == 1 else f"{picture.bands} bands"
        raise InputError(
            f"Expected grey or RGB of 8 or 16 bits. Received: {name} ({bands} of the type {picture.format}); convert it"
        )
    return _with_fitting_profile(picture), notes


def _from_float(picture, name):
    """Return 8 bits of floating point: as the embedded profile encodes it, or of linear light where there is none."""
    profile = _profile(picture)
    colours = {b"RGB ": 3, b"GRAY": 1}.get(profile[16:20], 0)
    encoded = colours > 0 and picture.bands in (colours, colours + 1)
    if not (encoded or picture.interpretation == "scrgb"):
        raise InputError(
            f"Expected floating point as RGB, or with a profile. Received: {name} "
            f"({picture.bands} of the type {picture.format}); convert it"
        )
    notes = ["floating point became 8 bits"]
    inside = (picture >= -0.001) & (picture <= 1.001)  # neither holds for NaN
    if inside.min() == 0:
        notes.append("values outside 0 to 1 are cut off")
    inside = picture != picture
    picture = inside.ifthenelse(0, picture)
    if encoded:
        picture = (picture * 255 + 0.5).cast("uchar")
        picture = picture.copy(interpretation="srgb" if picture.bands > 2 else "b-w")
    else:
        picture = picture.copy(interpretation="scrgb").colourspace("srgb")
        picture = picture.cast("uchar")
    return picture, notes


def _profile(picture):
    return picture.get("icc-profile-data") if picture.get_typeof("icc-profile-data") else b""


def _with_fitting_profile(picture):
    """Forget a profile of colours that the picture no longer has, such as Lab."""
    if _profile(picture)[16:20] in (b"Lab ", b"CMYK", b"XYZ "):
        picture = picture.copy()
        picture.remove("icc-profile-data")
    return picture
