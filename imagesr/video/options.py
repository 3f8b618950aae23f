"""Options of `upscale_video`, and the checks that need no input: numbers, paths."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from imagesr.engines.chain import MAX_SCALE
from imagesr.files import part_of
from imagesr.media.audio import MODES as SOUND_MODES
from imagesr.media.containers import FORMATS
from imagesr.media.deinterlace import MODES as DEINTERLACING
from imagesr.media.opening import PIPE, is_sequence
from imagesr.scale import Scale

MAX_THREADS = 256
OWN = "own"  # the rate of the video
LADDER = ("best", "balanced", "fast", "lanczos")  # of models, from the best to the cheapest


@dataclass(frozen=True, kw_only=True)
class Options:
    """Say how a video is upscaled; the fields are the options of `upscale_video`.

    Args:
        scale: Factor, up to 8. 1 is for models of scale 1, which clean.
        size: Box (width, height) in pixels to fit into as the video is displayed, in place of `scale`.
        square: Give the output square pixels.
        model: `fast`, `balanced`, `best`, `lanczos`, or the folder of a model.
        engine: Runtime, one of `imagesr.engines.ENGINES`; None is OpenVINO where it drives the device.
        device: Where networks run, `auto` (the CPU) or one of `imagesr.engines.DEVICES`.
        precision: One of `imagesr.engines.PRECISIONS`.
        realtime: Frames a second to hold, `own` for those of the video: the best model that does so runs, and `model`
            is not looked at. None takes all the time that it needs.
        detail: From 0, the faithful picture, to 1, the most detailed one; None is the model's default.
        clean: How much of the source was lost to compression and noise, from 0, nothing, to 1; `auto` looks at the
            source, None is the model's default. `auto` is nothing to models that do not take it.
        grain: From 0, none, to 1: grain that is painted on the upscaled frames.
        threads: Threads of each stage; 0 is every core.
        start: Where to begin, in seconds.
        duration: How much to take, in seconds; None is all.
        preview: Take three seconds from the middle, or as many as this says.
        rate: Frames per second of numbered pictures; None is 25.
        deinterlace: `auto`, `off`, `frame`, `field` (twice the frame rate) or `film` (telecine to 23.976 fps).
        audio: `auto` copies sound where the container holds it and converts it elsewhere; `copy`, `convert`, `none`.
        codec: Encoder, or `hardware`; None chooses by the output's name and the input's depth.
        crf: Quality, 0 to 63, lower is better and larger; None is the encoder's default here.
        bitrate: Kilobits per second of the picture, in place of `crf`.
        target_size: Megabytes of the output, in place of `crf`.
        preset: The encoder's speed; None is the default here.
        encoder: More options for the encoder.
        pix_fmt: Pixel format to encode; None is the input's.
    """

    scale: Scale | float | str = "1.5"
    size: tuple[int, int] | None = None
    square: bool = False
    model: str = "balanced"
    engine: str | None = None
    device: str = "auto"
    precision: str = "auto"
    realtime: float | str | None = None
    detail: float | None = None
    clean: float | str | None = "auto"
    grain: float = 0.0
    threads: int = 0
    start: float = 0.0
    duration: float | None = None
    preview: bool | float = False
    rate: Fraction | float | str | None = None
    deinterlace: str = "auto"
    audio: str = "auto"
    codec: str | None = None
    crf: float | None = None
    bitrate: float | None = None
    target_size: float | None = None
    preset: str | None = None
    encoder: Mapping[str, str] = field(default_factory=dict)
    pix_fmt: str | None = None

    def __post_init__(self):
        """Raise ValueError for a value that cannot be right."""
        object.__setattr__(self, "scale", Scale.parse(self.scale))
        object.__setattr__(self, "encoder", dict(self.encoder or {}))
        object.__setattr__(self, "rate", None if self.rate is None else Fraction(str(self.rate)))
        if self.realtime is not None:
            object.__setattr__(self, "model", LADDER[0])
        lowest = 0 if self.model == "lanczos" else 1
        if not self.size and not (lowest < float(self.scale) <= MAX_SCALE or float(self.scale) == 1):
            raise ValueError(f"Expected a scale above {lowest} and up to {MAX_SCALE}. Received: {self.scale}")
        if self.size and min(self.size) < 2:
            raise ValueError(f"Expected a size of at least 2x2. Received: {self.size[0]}x{self.size[1]}")
        if not 0 <= self.start < math.inf:
            raise ValueError(f"Expected a start of 0 s or later. Received: {self.start:g}")
        for name, low, high, unit in _LIMITS:
            value = getattr(self, name)
            if value is not None and (name, value) != ("realtime", OWN) and not low <= value <= high:
                raise ValueError(
                    f"Expected a {name.replace('_', ' ')} from {low:g} to {high:g}{unit}. Received: {float(value):g}"
                )
        if not (self.clean in ("auto", None) or (isinstance(self.clean, (int, float)) and 0 <= self.clean <= 1)):
            raise ValueError(f"Expected a clean from 0 to 1, or auto. Received: {self.clean}")
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise ValueError(f"Expected a duration above 0 s. Received: {self.duration:g}")
        if not 0 <= self.threads <= MAX_THREADS:
            raise ValueError(f"Expected up to {MAX_THREADS} threads, or 0 for all. Received: {self.threads}")
        for name, words in (("deinterlace", DEINTERLACING), ("audio", SOUND_MODES)):
            if getattr(self, name) not in words:
                raise ValueError(f"Expected {name} to be one of {', '.join(words)}. Received: {getattr(self, name)}")
        if sum(value is not None for value in (self.crf, self.bitrate, self.target_size)) > 1:
            raise ValueError("Expected one of crf, bitrate and target size. Received several")


_LIMITS = (
    ("grain", 0, 1, ""),
    ("crf", 0, 63, ""),
    ("bitrate", 10, 1_000_000, " kbit/s"),
    ("target_size", 0.01, 1_000_000, " MB"),
    ("rate", 0.01, 1000, " fps"),
    ("realtime", 0.01, 1000, " fps"),
)


def check_paths(path: Path, out: Path, *, overwrite: bool) -> None:
    """Raise ValueError for an output that has no place, or would take another file's."""
    if out == PIPE:
        return
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"Expected an output file ending in {', '.join(FORMATS)}, or -. Received: {out}")
    part = part_of(out)
    try:
        _check_places(path, out, part, overwrite)
    except OSError as error:
        raise ValueError(f"Expected a place for the output that can be used. {out}: {error.strerror}") from None


def _check_places(path, out, part, overwrite):
    if not out.parent.is_dir():
        raise ValueError(f"Expected an existing folder for the output. There is no {out.parent}")
    if out.is_dir():
        raise ValueError(f"Expected a file for the output. {out} is a folder")
    there = path != PIPE and not is_sequence(path) and _exists(path)
    if out.exists():
        if there and path.samefile(out):
            raise ValueError(f"Expected another file for the output than the input. Received {out} for both")
        if not overwrite:
            raise ValueError(f"{out} exists already. Choose another name, or overwrite it with -y")
    if part.exists():
        if there and path.samefile(part):
            raise ValueError(
                f"Expected another name for the output: while it is written it is called {part}, as the input"
            )
        if not overwrite or part.is_dir():
            raise ValueError(f"{part} is in the way, left by another run or in use. Remove it, or overwrite it with -y")


def _exists(path):
    try:
        return path.exists()
    except OSError:
        return False  # that is told when it is opened
