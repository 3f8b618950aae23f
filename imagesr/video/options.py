"""Options of `upscale_video`, and the checks that need no input: numbers, paths."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imagesr.engines.chain import MAX_SCALE
from imagesr.files import part_of
from imagesr.media.containers import FORMATS
from imagesr.scale import Scale

MAX_THREADS = 256


@dataclass(frozen=True, kw_only=True)
class Options:
    """Say how a video is upscaled; the fields are the options of `upscale_video`.

    Args:
        scale: Factor, up to 8.
        size: Box (width, height) in pixels to fit into, in place of `scale`.
        model: `fast`, `balanced`, `best`, `lanczos`, or the folder of a model.
        engine: Runtime, one of `imagesr.engines.ENGINES`.
        precision: One of `imagesr.engines.PRECISIONS`.
        threads: Threads of each stage; 0 is every core.
        start: Where to begin, in seconds.
        duration: How much to take, in seconds; None is all.
        preview: Take ten seconds from the middle.
        codec: Encoder; None chooses by the output's name and the input's depth.
        crf: Quality, 0 to 63, lower is better and larger.
        preset: The encoder's speed.
        encoder: More options for the encoder.
        pix_fmt: Pixel format to encode; None is the input's.
    """

    scale: Scale | float | str = "1.5"
    size: tuple[int, int] | None = None
    model: str = "balanced"
    engine: str = "openvino"
    precision: str = "auto"
    threads: int = 0
    start: float = 0.0
    duration: float | None = None
    preview: bool = False
    codec: str | None = None
    crf: float = 18
    preset: str = "superfast"
    encoder: Mapping[str, str] = field(default_factory=dict)
    pix_fmt: str | None = None

    def __post_init__(self):
        """Raise ValueError for a number that cannot be right."""
        object.__setattr__(self, "scale", Scale.parse(self.scale))
        object.__setattr__(self, "encoder", dict(self.encoder or {}))
        lowest = 0 if self.model == "lanczos" else 1
        if not self.size and not lowest < float(self.scale) <= MAX_SCALE:
            raise ValueError(f"Expected a scale above {lowest} and up to {MAX_SCALE}. Received: {self.scale}")
        if self.size and min(self.size) < 2:
            raise ValueError(f"Expected a size of at least 2x2. Received: {self.size[0]}x{self.size[1]}")
        if not 0 <= self.start < math.inf:
            raise ValueError(f"Expected a start of 0 s or later. Received: {self.start:g}")
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise ValueError(f"Expected a duration above 0 s. Received: {self.duration:g}")
        if not 0 <= self.crf <= 63:
            raise ValueError(f"Expected a crf from 0 to 63. Received: {self.crf:g}")
        if not 0 <= self.threads <= MAX_THREADS:
            raise ValueError(
                f"Expected a number of threads up to {MAX_THREADS}, or 0 for all. Received: {self.threads}"
            )


def check_paths(path: Path, out: Path, *, overwrite: bool) -> None:
    """Raise ValueError for an output that has no place, or would take another file's."""
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"Expected an output file ending in {', '.join(FORMATS)}. Received: {out}")
    if not out.parent.is_dir():
        raise ValueError(f"Expected an existing folder for the output. There is no {out.parent}")
    if out.is_dir():
        raise ValueError(f"Expected a file for the output. {out} is a folder")
    if out.exists():
        if path.exists() and path.samefile(out):
            raise ValueError(f"Expected another file for the output than the input. Received {out} for both")
        if not overwrite:
            raise ValueError(f"{out} exists already. Choose another name, or overwrite it with -y")
    part = part_of(out)
    if part.exists():
        if path.exists() and path.samefile(part):
            raise ValueError(
                f"Expected another name for the output: while it is written it is called {part}, as the input"
            )
        if not overwrite or part.is_dir():
            raise ValueError(f"{part} is in the way, left by another run or in use. Remove it, or overwrite it with -y")
