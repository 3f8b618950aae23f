"""Frames: what they are, their planes, their colours as arrays, their size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from imagesr.media.colour import JPEG_RANGE, MPEG_RANGE, TAGS, matrix_by_size, matrix_of
from imagesr.media.sidedata import SideData

Frame = av.VideoFrame
Packet = av.Packet
_EXACT = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND


@dataclass(frozen=True)
class VideoInfo:
    """Describe a video by its headers and its first frame.

    `pix_fmt` is the planar YUV or grey format of the frames that a Source yields, `halved` says whether chroma has
    half the (width, height). `frames` is what the file declares or its length suggests: good for a progress bar.
    `color` holds the tags of the frames, `side` what they carry for the encoder.
    """

    width: int
    height: int
    pix_fmt: str
    bits: int
    halved: tuple[bool, bool]
    time_base: Fraction
    rate: Fraction
    sample_aspect_ratio: Fraction | None
    color: Mapping[str, int]
    display_matrix: np.ndarray | None
    rotation: int
    duration: float | None
    frames: int | None
    side: SideData = field(default_factory=SideData)

    @property
    def shape(self) -> Fraction:
        """The width of a pixel over its height."""
        return self.sample_aspect_ratio or Fraction(1)

    def upright(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (width, height) of stored pixels as displayed: swapped where the video is turned on its side."""
        return size[::-1] if self.rotation % 180 else size


class Resizer:
    """Resize whole frames by swscale, their timestamps, tags and side data kept, their chroma siting respected.

    `kernel` is `bicubic` or `lanczos`. The siting is the decoder's (left, unless the stream says otherwise).
    """

    def __init__(self, width: int, height: int, pix_fmt: str, *, kernel: str):
        self._size, self._pix_fmt = (width, height), pix_fmt
        self._kernel = {"bicubic": Interpolation.BICUBIC, "lanczos": Interpolation.LANCZOS}[kernel]
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Frame) -> Frame:
        full = {"src_color_range": JPEG_RANGE, "dst_color_range": JPEG_RANGE} if "yuvj" in frame.format.name else {}
        # One thread: the stages of the pipeline overlap already.
        result = self._reformatter.reformat(
            frame, *self._size, self._pix_fmt, interpolation=self._kernel, threads=1, **full
        )
        if frame.time_base:
            result.time_base = frame.time_base
        return result


def rgb(frame: Frame, *, exact: bool = True) -> np.ndarray:
    """Return a frame as RGB, uint8 (H, W, 3), by its own matrix, or by its size's where it does not say.

    Unless `exact`, swscale takes a short cut, and red, green and blue come out up to a code too dark.
    """
    interpolation = _EXACT if exact else Interpolation.FAST_BILINEAR
    return frame.to_ndarray(format="rgb24", src_colorspace=matrix_of(frame), interpolation=interpolation)


def bgr(frame: Frame) -> np.ndarray:
    """Return a frame as OpenCV draws it, BGR uint8 (H, W, 3), fast rather than exact."""
    return frame.to_ndarray(format="bgr24", src_colorspace=matrix_of(frame), interpolation=Interpolation.FAST_BILINEAR)


def from_bgr(picture: np.ndarray) -> Frame:
    """Return a picture of OpenCV's, BGR uint8 (H, W, 3), as a frame of yuv420p, BT.601 or from 720 lines on BT.709."""
    return _from_packed(picture, "bgr24", "yuv420p")


def from_rgb(picture: np.ndarray, *, pix_fmt: str = "yuv420p", exact: bool = False) -> Frame:
    """Return an RGB picture, uint8 (H, W, 3), as a YUV frame, BT.601 or from 720 lines on BT.709.

    OpenCV's pictures turned to RGB, `bgr[..., ::-1]`, are read in place. Unless `exact`, swscale rounds in haste.
    """
    flags = _EXACT if exact else Interpolation.FAST_BILINEAR
    if picture.strides[2] < 0 and (bgr := picture[..., ::-1]).flags.c_contiguous:
        return _from_packed(bgr, "bgr24", pix_fmt, flags)
    return _from_packed(np.ascontiguousarray(picture), "rgb24", pix_fmt, flags)


def _from_packed(picture, packed, pix_fmt, flags=Interpolation.FAST_BILINEAR):
    frame = Frame.from_ndarray(picture, packed)
    result = frame.reformat(format=pix_fmt, dst_colorspace=matrix_by_size(frame.height), interpolation=flags)
    result.colorspace, result.color_range = matrix_by_size(frame.height).value, MPEG_RANGE
    return result


def plane(frame: Frame, index: int) -> np.ndarray:
    """Return one plane of a planar frame as a writable (H, W) view, uint8 or uint16, without copying."""
    plane = frame.planes[index]
    dtype = np.dtype("<u2" if frame.format.components[0].bits > 8 else "u1")
    rows = np.frombuffer(plane, dtype).reshape(plane.height, plane.line_size // dtype.itemsize)
    return rows[:, : plane.width]


def fitted(frame: Frame, width: int, height: int) -> Frame:
    """Return the frame with its right and bottom edges repeated, or cut off, to reach a size in luma pixels."""
    result = Frame(width, height, frame.format.name)
    for i in range(len(frame.planes)):
        source, target = plane(frame, i), plane(result, i)
        grow = [(0, max(0, t - s)) for s, t in zip(source.shape, target.shape, strict=True)]
        target[:] = np.pad(source, grow, mode="edge")[: target.shape[0], : target.shape[1]]
    if frame.time_base:
        result.pts, result.time_base, result.duration = frame.pts, frame.time_base, frame.duration
    for tag in TAGS:
        setattr(result, tag, getattr(frame, tag))
    return result


def depth(pix_fmt: str) -> int:
    """Return the bits per sample of a pixel format; raises ValueError for one that does not exist."""
    return av.VideoFormat(pix_fmt).components[0].bits


def working_format(name: str, *, alpha: bool = False) -> str:
    """Return the planar YUV or grey format, 8, 10 or 12 bits, that keeps all chroma of format `name`.

    With `alpha` transparency is kept where `name` has it.
    """
    fmt = av.VideoFormat(name, 64, 64)
    color = [c for c in fmt.components if not c.is_alpha]
    bits = max(c.bits for c in color)
    transparent = alpha and has_alpha(name)
    if fmt.is_rgb or fmt.has_palette or fmt.is_bayer:
        family = "yuv444p"
    elif len(color) == 1:
        family = "yuv444p" if transparent else "gray"
    else:
        family = {(True, True): "yuv420p", (True, False): "yuv422p"}.get(halved(name), "yuv444p")
    if transparent:
        family = family.replace("yuv", "yuva")
        bits = min(bits, 10)  # there is no yuva420p12le
    return family + ("" if bits <= 8 else "10le" if bits <= 10 else "12le")


def halved(name: str) -> tuple[bool, bool]:
    """Tell whether a pixel format has chroma of half the (width, height)."""
    fmt = av.VideoFormat(name, 64, 64)
    return (fmt.chroma_width() < 64, fmt.chroma_height() < 64) if len(fmt.components) > 1 else (False, False)


def has_alpha(name: str) -> bool:
    """Tell whether a pixel format holds transparency."""
    return any(component.is_alpha for component in av.VideoFormat(name).components) or name == "pal8"
