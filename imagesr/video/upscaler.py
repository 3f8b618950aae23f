"""Upscaler: engines applied to frames; sizes, padding and chroma."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from imagesr.engines import Engine
from imagesr.engines.chain import native_scale, reach, whole_unit
from imagesr.errors import ModelError
from imagesr.media.deband import Deband
from imagesr.media.frames import Frame, Packet, Resizer, VideoInfo, fitted, plane
from imagesr.media.grain import Grain
from imagesr.scale import Scale
from imagesr.video.unchanged import Windows

_SMALLEST = 8  # pixels a side: less than this is padded, so that borders can be reflected


def target_size(
    info: VideoInfo, *, scale: Scale | None = None, box: tuple[int, int] | None = None, square: bool = False
) -> tuple[int, int]:
    """Return the (width, height) of the output: `scale` times the input's, or the largest that fits into `box`.

    The box is meant as the video is displayed: pixels may be wider than high, and a video that is displayed turned
    turns the box. With `square` the output has square pixels. Where chroma has half the pixels of luma the size is the
    nearest even number, ties up.
    """
    shape = info.shape
    displayed = (info.width * shape, Fraction(info.height))
    if box:
        box = info.upright(box)
        factor = min(Fraction(box[0]) / displayed[0], Fraction(box[1]) / displayed[1])
    else:
        factor = Fraction(scale.up, scale.down)
    if square:
        # The side that has too few pixels gets more: nothing is lost.
        lengths = (info.width * max(shape, 1), info.height / min(shape, Fraction(1)))
        if box:
            lengths = displayed
        widths = (Fraction(1), Fraction(1))
    else:
        lengths, widths = (Fraction(info.width), Fraction(info.height)), (shape, Fraction(1))
    size = []
    for axis, length in enumerate(lengths):
        step = 2 if info.halved[axis] else 1
        pixels = step * math.floor(length * factor / step + Fraction(1, 2))
        if box and pixels * widths[axis] - box[axis] >= 1:
            pixels = math.floor(box[axis] / widths[axis]) // step * step
        size.append(max(step, pixels))
    return tuple(size)


def pixel_shape(info: VideoInfo, *, square: bool) -> Fraction | None:
    """Return the pixel aspect of the output; None where the input has none."""
    return Fraction(1) if square else info.sample_aspect_ratio


class Upscaler:
    """Upscale frames of one video: luma through the engines, chroma by swscale.

    `engines` run one after another; none at all is plain Lanczos. They run only where a frame differs from the one
    before. Where their sizes do not come out even, the frame's edge is repeated before and cut off after them; where
    `size` is not what they reach, Lanczos resizes luma to it. `spared` counts the frames, in parts of one,
    on which the engines did not run. Where an engine cleans, faint steps are dissolved too. `grain` is painted last.
    """

    def __init__(
        self, info: VideoInfo, size: tuple[int, int], engines: Sequence[Engine] = (), *, grain: Grain | None = None
    ):
        self._grain, self._count, self._deband = grain, 0, Deband()
        self._engines, self._size, self._shift = engines, size, 16 - info.bits if info.bits > 8 else 0
        self.spared, self._padded, self._plain = 0.0, None, None
        if not engines:
            self._resize = Resizer(*size, info.pix_fmt, kernel="lanczos")
            return
        if any(engine.card.channels != 1 for engine in engines):
            raise ModelError("Expected models of luma, with 1 channel: others cannot run on video yet")
        self._scale = scale = native_scale(engines)
        units = [whole_unit([engine.card for engine in engines], halved=halved) for halved in info.halved]
        padded = [
            max(_SMALLEST, -(-n // unit) * unit) for n, unit in zip((info.width, info.height), units, strict=True)
        ]
        native = size == target_size(info, scale=scale)
        self._padded = None if padded == [info.width, info.height] else tuple(padded)
        self._sr_size = tuple(n * scale.up // scale.down for n in padded)
        self._before: tuple[np.ndarray, np.ndarray] | None = None  # the luma of the frame before, and that upscaled
        # A network of one size runs on whole frames.
        fixed = any(engine.card.size for engine in engines)
        self._windows = None if fixed else Windows(tuple(padded[::-1]), units=tuple(units[::-1]), halo=reach(engines))
        # What is kept for the next frame has no grain.
        self._plain = np.empty(size[::-1], np.uint16 if self._shift else np.uint8) if grain and native else None
        if native:
            self._to_size = None
            self._resize = Resizer(*self._sr_size, info.pix_fmt, kernel="bicubic")
        else:
            # The part of the upscaled luma that is not padding, which is then resized to the size asked for.
            gray = "gray" + (f"{info.bits}le" if info.bits > 8 else "")
            self._inside = Frame(scale.grow(info.width), scale.grow(info.height), gray)
            self._inside_luma = plane(self._inside, 0)
            self._to_size = Resizer(*size, gray, kernel="lanczos")
            self._resize = Resizer(*size, info.pix_fmt, kernel="bicubic")

    def __call__(self, frame: Frame | Packet) -> Frame | Packet:
        if isinstance(frame, Packet):
            return frame  # sound and the like pass through, in their place among the frames
        result = self._upscaled(frame)
        painted = self._plain is not None and not self._padded
        clean = max((engine.clean or 0.0 for engine in self._engines if engine.card.clean is not None), default=0.0)
        if painted and self._deband.changes(result, clean):
            plane(result, 0)[:], painted = self._plain, False
        result = self._deband(result, clean)
        if self._grain:
            luma = plane(result, 0)
            self._count += 1
            seed = self._count if frame.pts is None else frame.pts  # cameras have no times
            self._grain.paint(self._plain if painted else luma, luma, seed)
        return result

    def _upscaled(self, frame):
        """Return the frame of the size to come; without its luma where that has to be painted, and is in `_plain`."""
        if not self._engines:
            return self._resized(frame) if self._grain else self._resize(frame)
        wide = fitted(frame, *self._padded) if self._padded else frame
        if self._to_size is None:
            result = self._resized(wide)
            own = self._plain is None or self._padded
            self._upscale(plane(wide, 0), plane(result, 0) if own else self._plain)
            return fitted(result, *self._size) if self._padded else result
        result = self._resized(frame)
        self._upscale(plane(wide, 0), self._inside_luma)
        plane(result, 0)[:] = plane(self._to_size(self._inside), 0)
        return result

    def _resized(self, frame):
        """Return a new frame of the size to come; a frame that has it already is the decoder's, and stays as it is."""
        result = self._resize(frame)
        return fitted(frame, frame.width, frame.height) if result is frame else result

    def _upscale(self, luma, target):
        """Fill `target`, upscaled luma without padding; what has not changed since the last call is kept."""
        windows = self._windows.changed(luma, self._before[0]) if self._windows and self._before else None
        if windows is None:
            target[:] = self._luma(luma)[: target.shape[0], : target.shape[1]]
        elif self._before[1] is not target:
            target[:] = self._before[1]
        for window in windows or ():
            part = target[window.target(self._scale)]
            part[:] = self._luma(luma[window.seen])[window.kept(self._scale)][: part.shape[0], : part.shape[1]]
        self._before = luma, target
        self.spared += self._windows.spared(windows) if self._windows else 0.0

    def _luma(self, luma):
        """Run (H, W) luma through the engines; the result may be overwritten by the next call."""
        # Deeper samples are left-aligned to the 16 bits of the engines, and rounded on the way back.
        planes = np.ascontiguousarray(luma << self._shift if self._shift else luma)[np.newaxis, ..., np.newaxis]
        for engine in self._engines:
            planes = engine(planes)
        sr = planes[0, ..., 0]
        if self._shift:
            peak = (1 << 16 - self._shift) - 1
            sr = np.minimum((sr.astype(np.uint32) + (1 << self._shift - 1)) >> self._shift, peak)
        return sr
