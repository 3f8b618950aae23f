"""Colour tags of video: matrices and ranges."""

from __future__ import annotations

from av.video.reformatter import Colorspace

MPEG_RANGE, JPEG_RANGE = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG: limited and full
_SMPTE170M = 6  # AVCOL_SPC_SMPTE170M: BT.601 under another number, as swscale writes it


def matrix_of(frame) -> Colorspace:
    """Return the matrix of a frame, or its size's where it does not say."""
    known = {matrix.value: matrix for matrix in Colorspace} | {_SMPTE170M: Colorspace.ITU601}
    return known.get(frame.colorspace) or matrix_by_size(frame.height)


def matrix_by_size(height: int) -> Colorspace:
    """Return the matrix that a picture without tags has by convention: BT.709 from 720 lines on, else BT.601."""
    return Colorspace.ITU709 if height >= 720 else Colorspace.ITU601
