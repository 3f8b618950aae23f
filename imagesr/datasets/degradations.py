"""Degradations from HR to LR, as cameras, scalers and encoders make them; each has a strength drawn per crop."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from PIL import Image

from imagesr.media.clips import compressed
from imagesr.media.coding import frame_step, h264_step, lost
from imagesr.media.frames import Frame, plane, rgb
from imagesr.media.photo_coding import step_of_quality
from imagesr.pixels import KERNELS, downscale, resize
from imagesr.scale import Scale

_RATE = Fraction(25)
_X264 = "mbtree=0"
_X265 = "log-level=none:pools=none:frame-threads=1"
_BT601 = 5  # AVCOL_SPC_BT470BG
# One thread, no log: crops are small, and batches are made side by side. No mbtree: with it x264 does not code a film
# with predicted frames the same way twice (20 times in 150).
_ENCODERS = {
    "h264": (
        "libx264",
        lambda crf: {"crf": f"{crf:.1f}", "preset": "medium", "threads": "1", "x264-params": "mbtree=0"},
    ),
    "hevc": ("libx265", lambda crf: {"crf": f"{crf:.1f}", "preset": "fast", "x265-params": _X265}),
    "mpeg2": ("mpeg2video", lambda q: {"qmin": f"{q:.0f}", "qmax": f"{q:.0f}", "bf": "2", "g": "12", "threads": "1"}),
    "mpeg4": ("mpeg4", lambda q: {"qmin": f"{q:.0f}", "qmax": f"{q:.0f}", "bf": "1", "threads": "1"}),
}


def softness(hr: np.ndarray, factor: float, random: np.random.Generator) -> np.ndarray:
    """Make a picture as soft as one upscaled by `factor` ≥ 1, by resizing or by a blur that cuts off as early."""
    if random.integers(2):
        return blur(hr, 0.8 * (factor - 1) ** 0.5, random)
    height, width = hr.shape[:2]
    small = resize(hr, (max(1, round(width / factor)), max(1, round(height / factor))))
    return resize(small, (width, height))


def blur(picture: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray:
    """Blur by a Gaussian of `sigma` pixels; at the edges it weighs what there is."""
    if sigma < 0.1:  # below a tenth of a pixel no sample changes
        return picture
    planes = picture.reshape(*picture.shape[:2], -1).transpose(2, 0, 1).astype(np.float32)
    planes = _gaussian(picture.shape[0], sigma) @ planes @ _gaussian(picture.shape[1], sigma).T
    return np.rint(planes).astype(np.uint8).transpose(1, 2, 0).reshape(picture.shape)


def _gaussian(length, sigma):
    distance = np.subtract.outer(np.arange(length), np.arange(length))
    matrix = np.exp(-(distance**2) / (2 * sigma**2))
    return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)


def noise(lr: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise of `sigma` codes."""
    return np.rint(np.clip(lr + random.normal(0, sigma, lr.shape), 0, 255)).astype(np.uint8)


def jpeg(lr: np.ndarray, quality: float, random: np.random.Generator) -> np.ndarray:
    """Compress as JPEG of a quality from 1 to 100."""
    return np.asarray(Image.open(io.BytesIO(jpeg_file(lr, quality))))


def jpeg_file(picture: np.ndarray, quality: float) -> bytes:
    """Return the bytes of a JPEG of a quality from 1 to 100."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=round(quality))
    return file.getvalue()


def _codec(film, strength, name):
    """Compress pictures of one size as the frames of a film; return them, and the step that each was rounded to."""
    codec, options = _ENCODERS[name]
    height, width = film[0].shape[:2]
    # To whole macroblocks: on others x264 now and then reads beyond the picture, and the same crop is not the same.
    border = ((0, -height % 16), (0, -width % 16)) + ((0, 0),) * (film[0].ndim - 2)
    frames = [_frame(np.pad(lr, border, mode="edge")) for lr in film]
    results = []
    for frame in compressed(frames, codec, options(strength), _RATE):
        # Some decoders tell none, and others none of a film's last frame.
        step = frame_step(frame) or rounded(name, strength)
        frame.colorspace = _BT601  # as _frame made it
        picture = plane(frame, 0) if film[0].ndim == 2 else rgb(frame)
        results.append((picture[:height, :width].copy(), step))
    return results


def _pan(lr, step):
    """Return a film that ends in the picture, so that it is predicted from the others like most of a film."""
    return [np.roll(lr, tuple(n * step), (0, 1)) for n in (2, 1, 0)]


def h264(lr: np.ndarray, crf: float, random: np.random.Generator) -> np.ndarray:
    """Compress by x264 at a constant rate factor."""
    return _codec(_pan(lr, random.integers(-3, 4, 2)), crf, "h264")[-1][0]


def hevc(lr: np.ndarray, crf: float, random: np.random.Generator) -> np.ndarray:
    """Compress by x265 at a constant rate factor, as a key frame: others it does not code the same way twice."""
    return _codec([lr], crf, "hevc")[0][0]


def mpeg2(lr: np.ndarray, quantiser: float, random: np.random.Generator) -> np.ndarray:
    """Compress as MPEG-2, of DVDs and broadcasts, by one quantiser."""
    return _codec(_pan(lr, random.integers(-3, 4, 2)), quantiser, "mpeg2")[-1][0]


def mpeg4(lr: np.ndarray, quantiser: float, random: np.random.Generator) -> np.ndarray:
    """Compress as MPEG-4 part 2, of DivX and Xvid, by one quantiser."""
    return _codec(_pan(lr, random.integers(-3, 4, 2)), quantiser, "mpeg4")[-1][0]


def _frame(picture):
    if picture.ndim == 3:
        return Frame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
    frame = Frame(picture.shape[1], picture.shape[0], "yuv420p")
    plane(frame, 0)[:] = picture
    plane(frame, 1)[:] = plane(frame, 2)[:] = 128
    return frame


# name: (function, the strengths that make sense). In the order in which they happen: `softness` to the source, HR and
# LR alike, `blur` to what the kernel then reduces, the rest to LR.
DEGRADATIONS = {
    "softness": (softness, (1, 4)),
    "blur": (blur, (0, 3)),
    "noise": (noise, (0, 64)),
    "jpeg": (jpeg, (1, 100)),
    "h264": (h264, (0, 51)),
    "hevc": (hevc, (0, 51)),
    "mpeg2": (mpeg2, (1, 31)),
    "mpeg4": (mpeg4, (1, 31)),
}


def rounded(name: str, strength: float) -> float:
    """Return the step, in codes, to which a degradation rounds a picture's coefficients, or is as bad as rounding."""
    if name == "noise":
        return strength * 12**0.5
    if name == "jpeg":
        return step_of_quality(strength)
    if name in _ENCODERS:
        return h264_step(strength) if name in ("h264", "hevc") else 2 * strength
    return 0.0


@dataclass(frozen=True)
class Degradation:
    """Make LR from HR: `kernels` to reduce with, and steps as (name, lowest, highest strength, how often)."""

    kernels: tuple[str, ...] = ("bicubic",)
    steps: tuple[tuple[str, float, float, float], ...] = ()

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Degradation:
        """Read `kernel=bicubic,lanczos` and steps such as `blur=0:1.2`, `h264=18:28@0.5` (on half of the crops).

        Raises ValueError for an unknown kernel or step, and for a strength that makes no sense.
        """
        kernels, steps = ("bicubic",), {}
        for text in texts:
            name, _, value = text.partition("=")
            if name == "kernel":
                kernels = tuple(value.split(","))
                if unknown := set(kernels) - set(KERNELS):
                    raise ValueError(f"Expected kernels ({', '.join(KERNELS)}). Received: {', '.join(unknown)}")
                continue
            if name not in DEGRADATIONS:
                raise ValueError(f"Expected a degradation (kernel, {', '.join(DEGRADATIONS)}). Received: {text}")
            low, high = DEGRADATIONS[name][1]
            try:
                strength, _, chance = value.partition("@")
                ends = [float(end) for end in strength.split(":")]
                step = (name, ends[0], ends[-1], float(chance or 1))
                if not (len(ends) <= 2 and low <= ends[0] <= ends[-1] <= high and 0 <= step[3] <= 1):
                    raise ValueError
            except ValueError:
                raise ValueError(f"Expected {name}=LOW:HIGH@CHANCE within {low}:{high}. Received: {text}") from None
            steps[name] = step
        return cls(kernels, tuple(steps[name] for name in DEGRADATIONS if name in steps))

    @property
    def fixed(self) -> bool:
        """Say whether every crop is degraded alike, so that LR can be made once for the whole picture."""
        return len(self.kernels) == 1 and not self.steps

    def __call__(
        self, hr: np.ndarray, scale: Scale, random: np.random.Generator, share: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (LR, HR) of a uint8 picture, (H, W) or (H, W, 3), its sides multiples of `up`.

        `share` multiplies the frequency of every step.
        """
        return self.measured(hr, scale, random, share)[:2]

    def measured(
        self, hr: np.ndarray, scale: Scale, random: np.random.Generator, share: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Return (LR, HR, lost): how much of LR its encoder and noise took, from 0 to 1."""
        kernel, drawn = self._draw(random, share)
        lr, hr = self._reduce(hr, scale, kernel, drawn)
        for name, strength, own in drawn:
            if name not in ("softness", "blur"):
                lr = DEGRADATIONS[name][0](lr, strength, own)
        return lr, hr, lost(math.hypot(*(rounded(name, strength) for name, strength, _ in drawn)))

    def film(
        self, hr: Sequence[np.ndarray], scale: Scale, random: np.random.Generator
    ) -> list[tuple[np.ndarray, np.ndarray, float]]:
        """Return (LR, HR, lost) of the frames of a film: degraded alike, and by an encoder as one film."""
        kernel, drawn = self._draw(random)
        # Every frame gets copies of the same generators, so that all are softened alike.
        lr, hr = zip(*(self._reduce(picture, scale, kernel, deepcopy(drawn)) for picture in hr), strict=True)
        steps: list[list[float]] = [[] for _ in lr]
        for name, strength, own in drawn:
            if name in _ENCODERS:
                lr, own_steps = zip(*_codec(lr, strength, name), strict=True)
            elif name not in ("softness", "blur"):
                lr = [DEGRADATIONS[name][0](picture, strength, own) for picture in lr]
                own_steps = [rounded(name, strength)] * len(lr)
            else:
                continue
            for all_steps, step in zip(steps, own_steps, strict=True):
                all_steps.append(step)
        return [(*pair, lost(math.hypot(*own))) for *pair, own in zip(lr, hr, steps, strict=True)]

    def _draw(self, random, share=1.0):
        """Draw a kernel and all steps before one is applied, so that no step changes the random values of the next."""
        kernel = self.kernels[random.integers(len(self.kernels))]
        return kernel, [
            (name, random.uniform(low, high), random.spawn(1)[0])
            for name, low, high, chance in self.steps
            if random.random() < chance * share
        ]

    def _reduce(self, hr, scale, kernel, drawn):
        for name, strength, own in drawn:
            if name == "softness":
                hr = softness(hr, strength, own)
        source = hr
        for name, strength, own in drawn:
            if name == "blur":
                source = blur(source, strength, own)
        lr, _ = downscale(source, scale, kernel)
        return lr, hr
