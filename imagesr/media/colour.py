"""Colour tags of video: matrices, ranges, and what is written where the input has none."""

from __future__ import annotations

from collections.abc import Mapping

from av.video.reformatter import Colorspace

MPEG_RANGE, JPEG_RANGE = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG: limited and full
TAGS = ("color_range", "colorspace", "color_trc", "color_primaries")
_RGB, _BT709, _UNKNOWN, _BT470BG, _SMPTE170M = 0, 1, 2, 5, 6  # AVCOL_SPC_*; the last two are both BT.601
_HD_LINES = 720


def matrix_of(frame) -> Colorspace:
    """Return the matrix of a frame, or its size's where it does not say."""
    known = {matrix.value: matrix for matrix in Colorspace} | {_SMPTE170M: Colorspace.ITU601}
    return known.get(frame.colorspace) or matrix_by_size(frame.height)


def matrix_by_size(height: int) -> Colorspace:
    """Return the matrix that a picture without tags has by convention: BT.709 from 720 lines on, else BT.601."""
    return Colorspace.ITU709 if height >= _HD_LINES else Colorspace.ITU601


def tags_of(frame) -> dict[str, int]:
    """Return the tags of a frame by name, with the range that its pixel format implies."""
    tags = {name: int(getattr(frame, name)) for name in TAGS}
    name = frame.format.name
    if name.startswith(("yuvj", "mono")):
        tags["color_range"] = JPEG_RANGE
    if not is_rgb(frame) and tags["colorspace"] == _RGB:
        tags["colorspace"] = _UNKNOWN  # nothing but RGB can have it
    return tags


def written_tags(frame, height: int) -> dict[str, int]:
    """Return the tags of the frames that are written, `height` lines high, for a first frame as it was decoded.

    RGB becomes YUV of limited range, by BT.709 from 720 lines on, else by BT.601. Where the input says nothing,
    players go by the number of lines: when the upscaled video would be taken for another kind, it is tagged.
    """
    tags = tags_of(frame)
    if is_rgb(frame):
        tags["colorspace"] = _BT709 if height >= _HD_LINES else _SMPTE170M
        tags["color_range"] = MPEG_RANGE
    elif tags["colorspace"] == _UNKNOWN and len(frame.format.components) > 1:
        was, becomes = matrix_by_size(frame.height), matrix_by_size(height)
        if was != becomes:
            matrix = _BT709 if was == Colorspace.ITU709 else _BT470BG if frame.height % 288 == 0 else _SMPTE170M
            tags["colorspace"] = matrix
            curve = _BT709 if matrix == _BT709 else _SMPTE170M
            for name, value in (("color_trc", curve), ("color_primaries", matrix)):
                tags[name] = value if tags[name] == _UNKNOWN else tags[name]
    return tags


def to_yuv_options(frame, tags: Mapping[str, int]) -> dict[str, int]:
    """Return what a reformat of an RGB frame needs to reach the tags; nothing for other frames."""
    if not is_rgb(frame):
        return {}
    matrix = Colorspace.ITU709 if tags["colorspace"] == _BT709 else Colorspace.ITU601
    return {"dst_colorspace": matrix, "src_color_range": JPEG_RANGE, "dst_color_range": MPEG_RANGE}


def is_rgb(frame) -> bool:
    """Tell whether a frame holds red, green and blue, or a palette of them."""
    return frame.format.is_rgb or frame.format.has_palette or frame.format.is_bayer
