"""Measure an upscaler on clips: HR frames to LR, through an encoder, upscaled as by `imagesr video`, and compared."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from imagesr.cli import check_interrupted
from imagesr.datasets.degradations import Degradation, jpeg_file, noise
from imagesr.evaluate.sheet import Worst
from imagesr.media.clips import compressed
from imagesr.media.coding import Coding, examine_frames
from imagesr.media.encoders import encoder_options
from imagesr.media.frames import Frame, Resizer, VideoInfo, fitted, plane, rgb
from imagesr.media.photo_coding import examine_photo
from imagesr.media.source import Source
from imagesr.metrics.fidelity import figures, means
from imagesr.metrics.vmaf import VMAF
from imagesr.pixels import KERNELS, resize
from imagesr.scale import Scale

if TYPE_CHECKING:
    from imagesr.metrics.texture import Flicker

# Clips that a folder is searched for. Any other file that FFmpeg reads can be named itself.
SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"),
    *(".264", ".h264", ".265", ".hevc", ".ivf", ".y4m", ".3gp"),
}
_SMALLEST = 32  # HR pixels a side; VMAF crashes on less than 20
# One thread: encoders that share a frame among threads make another file of it, and figures would differ by machine.
_REPEATABLE = {"threads": "1", "x265-params": "frame-threads=1:log-level=none"}

_BT709, _UNSPECIFIED, _BT601 = 1, 2, 5  # AVCOL_SPC

FrameUpscaler = Callable[[Frame], Frame]
See = Callable[[Coding], None]
_SEEN = 12  # frames of LR that are looked at before the first is upscaled


@dataclass(frozen=True)
class Condition:
    """Say how LR is made from HR: by one of `pixels.KERNELS`, then through an encoder, unless `codec` is None.

    Without `crf` the encoder chooses the quality. `spoil`, for pictures, is noise, JPEG or both, such as
    "noise=12,jpeg=80".
    """

    kernel: str = "bicubic"
    codec: str | None = None
    crf: float | None = None
    spoil: str | None = None

    def __str__(self):
        if self.spoil:
            return f"{self.kernel}, {self.spoil}"
        coding = "" if self.codec is None else f", {self.codec}" + ("" if self.crf is None else f" CRF {self.crf:g}")
        return self.kernel + coding

    def check(self) -> None:
        """Raise ValueError for an unknown kernel, and for an encoder that does not work here or not at that CRF."""
        if self.kernel not in KERNELS:
            raise ValueError(f"Expected a kernel ({', '.join(KERNELS)}). Received: {self.kernel}")
        if self.spoil is not None:
            self._check_spoil()
        if self.codec is None:
            if self.crf is not None:
                raise ValueError(f"Expected --codec with --crf. Received: --crf {self.crf:g} alone")
            return
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise ValueError(f"Expected a CRF from 0 to 63. Received: {self.crf:g}")
        if self.crf is not None and "crf" not in encoder_options(self.codec, {"crf": str(self.crf)})[0]:
            raise ValueError(f"Expected an encoder that takes a CRF of {self.crf:g}. Received: {self.codec}")
        came = len(list(self.coded([_from_rgb(np.full((64, 128, 3), 99, np.uint8)) for _ in range(3)], Fraction(25))))
        if came != 3:
            raise ValueError(f"Expected an encoder that keeps every frame. Received: {self.codec}, {came} of 3")

    def _check_spoil(self):
        if self.codec:
            raise ValueError(f"Expected --codec or --spoil. Received: {self.codec} and {self.spoil}")
        texts = self.spoil.split(",")
        steps = Degradation.parse([text for text in texts if text.startswith(("noise=", "jpeg="))]).steps
        # One strength each, on every picture: what crops of training draw is not measured.
        if len(steps) < len(texts) or any(low != high or chance < 1 for _, low, high, chance in steps):
            raise ValueError(
                f"Expected noise=SIGMA, jpeg=QUALITY or both for --spoil. Received: {self.spoil or 'nothing'}"
            )

    def coded(self, frames: Iterable[Frame], rate: Fraction) -> Iterable[Frame]:
        """Return LR frames as they come out of the codec, or as they are where there is none."""
        if self.codec is None:
            return frames
        options = _REPEATABLE if self.crf is None else _REPEATABLE | {"crf": f"{self.crf:g}"}
        return compressed(frames, self.codec, options, rate)

    def coded_picture(self, lr: np.ndarray, see: See | None = None) -> np.ndarray:
        """Return an LR picture, (H, W, 3) uint8 RGB, as it comes out of the codec as a film of one frame in 4:2:0.

        `see` is given what can be told of the result.
        """
        if self.codec is None:
            lr, file = self._spoilt(lr)
            if see:
                see(examine_photo(file, lr))
            return lr
        height, width = lr.shape[:2]
        even = np.pad(lr, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        (frame,) = self.coded([_from_rgb(even)], Fraction(25))
        frame.colorspace = _BT601
        if see:
            see(examine_frames([frame]))
        return rgb(frame)[:height, :width]

    def _spoilt(self, lr):
        """Return a picture with the noise and behind the JPEG of `spoil`, the same every time, and its file's bytes."""
        file = b""
        for name, strength, *_ in Degradation.parse(self.spoil.split(",")).steps if self.spoil else ():
            if name == "noise":
                lr = noise(lr, strength, np.random.default_rng(0))
            else:
                file = jpeg_file(lr, strength)
                lr = np.asarray(Image.open(io.BytesIO(file)))
        return lr, file


def _from_rgb(picture):
    return Frame.from_ndarray(np.ascontiguousarray(picture), "rgb24").reformat(format="yuv420p", dst_colorspace=_BT601)


def clip_info(path: Path, scale: Scale) -> VideoInfo:
    """Return a clip's info, its size cropped so that LR and HR have even sizes.

    Raises InputError for a file that cannot be read as a clip, and ValueError for a clip that is not 8-bit 4:2:0 or too
    small.
    """
    with Source(path) as source:
        info = source.info
    if (info.bits, info.halved) != (8, (True, True)):
        raise ValueError(f"Expected a clip in 8-bit 4:2:0. Received: {path} ({info.pix_fmt})")
    even = 2 * scale.up
    width, height = info.width - info.width % even, info.height - info.height % even
    if min(width, height) < max(_SMALLEST, 2 * scale.up + 11):
        raise ValueError(f"Expected a clip of at least {_SMALLEST} pixels a side. Received: {path}")
    return replace(info, width=width, height=height)


def lr_info(info: VideoInfo, scale: Scale) -> VideoInfo:
    """Return the info of a clip's LR version."""
    width, height = (n * scale.down // scale.up for n in (info.width, info.height))
    return replace(info, width=width, height=height)


def measure_clip(
    path: Path,
    upscaler: Callable[[VideoInfo, tuple[int, int]], FrameUpscaler],
    scale: Scale,
    condition: Condition,
    *,
    frames: int,
    ffmpeg: str | None = None,
    measure: Callable[..., dict[str, float]] = figures,
    worst: Worst | None = None,
    info: VideoInfo | None = None,
    flicker: Flicker | None = None,
    see: See | None = None,
    advance: Callable[[], None] = lambda: None,
) -> dict:
    """Measure the first `frames` frames of a clip: the means of `measure` over them, and `vmaf_neg` if there is ffmpeg.

    LR luma is made by the condition's kernel, LR chroma by swscale, which keeps the siting. `upscaler` takes the LR
    clip's info and HR's (width, height). `info` is `clip_info`'s result, where it is known. `ffmpeg` is what
    `vmaf_ffmpeg` returns. `flicker`, a new one, sees every frame and adds its figure, where HR moves; then VMAF v1 and
    CAMBI are measured, too. `see` is given LR's first frames before the first is upscaled. `advance` is called after
    every frame.
    """
    info = info or clip_info(path, scale)
    small, size, rows = lr_info(info, scale), (info.width, info.height), []
    chroma = Resizer(small.width, small.height, info.pix_fmt, kernel="bicubic")
    upscale = upscaler(small, size)

    def reduced(hr):
        lr = chroma(hr)
        plane(lr, 0)[:] = resize(plane(hr, 0), (small.width, small.height), condition.kernel)
        return lr

    with Source(path) as source, VMAF(ffmpeg, size, info.rate) if ffmpeg else nullcontext() as vmaf:
        films = (item for item in source if isinstance(item, Frame))
        # Encoders look ahead, so HR waits for LR; no other frames are held.
        originals, again = tee(_original(frame, size) for frame in islice(films, frames))
        coded = iter(condition.coded(map(reduced, again), info.rate))
        if see:
            head = list(islice(coded, _SEEN))
            see(examine_frames(head))
            coded = chain(head, coded)
        for hr, lr in zip(originals, coded, strict=True):
            check_interrupted()
            sr = upscale(lr)
            for frame in (lr, sr):  # the codec does not keep the tags
                frame.color_range, frame.colorspace = hr.color_range, hr.colorspace
            hr_y, sr_y, hr_rgb, sr_rgb = plane(hr, 0), plane(sr, 0), rgb(hr), rgb(sr)
            rows.append(measure(sr_y, hr_y, sr_rgb, hr_rgb, shave=scale.up))
            if flicker:
                flicker.add(sr_y, hr_y)
            if worst:
                pictures = partial(_in_colour, lr, sr_rgb, hr_rgb)
                worst.see(path.name, str(condition), sr_y, hr_y, pictures)
            if vmaf:
                vmaf.add(hr, sr)
            advance()
        result = {"image": path.name, "frames": len(rows)}
        result |= means(rows, dict.fromkeys(key for row in rows for key in row))
        if flicker and (figure := flicker.figure()) is not None:
            result["flicker"] = figure
        if vmaf:
            result |= vmaf.more() if flicker else {"vmaf_neg": vmaf.figure()}
        return result


def own_vmaf(path: Path, info: VideoInfo, *, frames: int, ffmpeg: str) -> float:
    """Return VMAF-NEG of the first `frames` frames of a clip compared with themselves: the most that SR can have.

    `info` is `clip_info`'s result. The figure is below 100 where little moves.
    """
    size = (info.width, info.height)
    with Source(path) as source, VMAF(ffmpeg, size, info.rate) as vmaf:
        for frame in islice((item for item in source if isinstance(item, Frame)), frames):
            check_interrupted()
            hr = fitted(frame, *size)
            vmaf.add(hr, hr)
        return vmaf.figure()


def _original(frame, size):
    """Crop a frame; where it has no tag for its matrix, set one by its size, as `frames.rgb` does."""
    hr = fitted(frame, *size)
    if hr.colorspace == _UNSPECIFIED:
        hr.colorspace = _BT709 if hr.height >= 720 else _BT601  # LR is smaller, but means the same
    return hr


def _in_colour(lr, sr, hr):
    return rgb(lr), sr, hr
