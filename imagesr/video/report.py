"""Report: what a run did and what it cost; printed, logged, returned, one object."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_TOLD = 0.05  # share of the picture that was unchanged, from which on it is told


@dataclass
class Report:
    """Collect the figures of one run.

    `fps` counts from the opening of the input to the closed output, `first_frame_s` from the call to the first
    upscaled frame; the command adds the start of the process where it has only one video. `model` names what ran,
    one after another, and `flavour` what that was trained for. `coding` says what `clean` follows from, where it was
    not given. `stages` are milliseconds per frame that each stage was at work; they overlap in time, and the
    `bottleneck` is the busiest. `missing` says in words what of a damaged input could not be decoded. `megabytes` is
    the size of the output, `megabytes_in` that of the input, `megabytes_expected` what was expected before the start.
    `by_model` are the shares of the frames by model, where a rate was held. `unchanged` is the share of the picture
    that was as in the frame before, where no network ran. `video_s` is the length of the output, and of a preview
    `whole_s` that of the whole input. `pace` are frames per second from the first upscaled frame on, without the
    start. `tried` says that nothing was kept.
    """

    output: str = ""
    model: str = ""
    flavour: str = ""
    precision: str = ""
    detail: float | None = None
    clean: float | None = None
    coding: str = ""
    grain: float = 0.0
    size: str = ""
    frames: int = 0
    fps: float = 0.0
    seconds: float = 0.0
    first_frame_s: float = 0.0
    video_s: float = 0.0
    whole_s: float | None = None
    pace: float | None = None
    tried: bool = False
    megabytes: float | None = None
    megabytes_in: float | None = None
    megabytes_expected: tuple[float, float] | None = None
    unchanged: float = 0.0
    by_model: dict[str, float] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    bottleneck: str = ""
    kept: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    missing: str = ""
    notes: list[str] = field(default_factory=list)
    peak_memory_mb: float | None = None

    def __post_init__(self):
        self._lock = threading.Lock()
        self._begun = time.perf_counter()
        self._first: float | None = None

    @contextmanager
    def clock(self, stage: str, *, share: float = 1.0) -> Iterator[None]:
        """Add a share of the time spent in the `with` block to a stage, in seconds until `finish` is called."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = share * (time.perf_counter() - begun)
            with self._lock:
                self.stages[stage] = self.stages.get(stage, 0.0) + spent

    def saw_frame(self) -> None:
        """Count an upscaled frame."""
        if not self.frames:
            self._first = time.perf_counter()
            self.first_frame_s = round(self._first - self._begun, 3)
        self.frames += 1

    def paced(self) -> float | None:
        """Return the frames per second from the first upscaled frame until now; None where there are not two."""
        if self.frames < 2 or self._first is None:
            return None
        return round((self.frames - 1) / max(1e-9, time.perf_counter() - self._first), 2)

    def finish(self, seconds: float) -> None:
        """Turn sums into figures per frame; `seconds` is what the whole run took."""
        self.seconds = round(seconds, 3)
        self.fps = round(self.frames / seconds, 2)
        self.pace = self.paced()
        self.stages = {stage: round(1000 * total / max(1, self.frames), 2) for stage, total in self.stages.items()}
        self.bottleneck = max(self.stages, key=self.stages.get, default="")
        self.peak_memory_mb = peak_memory_mb()

    def as_dict(self) -> dict[str, Any]:
        """Return every field as plain JSON types."""
        return dataclasses.asdict(self)

    def __str__(self):
        made = "frames tried, nothing written" if self.tried else "frames"
        detail = "" if self.detail is None else f"detail {self.detail:g}"
        clean = "" if self.clean is None or self.coding else f"clean {self.clean:g}"
        grain = f"grain {self.grain:g}, painted" if self.grain else ""
        how = ", ".join(filter(None, [self.flavour, self.precision, detail, clean, grain]))
        stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in self.stages.items())
        lines = [
            f"{self.output}: {self.frames} {made}, {self.size}, by {self.model}" + (f" ({how})" if how else ""),
            f"  {self.fps:.1f} fps ({self.seconds:.1f} s, first frame after {self.first_frame_s:.1f} s)",
            f"  ms per frame: {stages}; bottleneck: {self.bottleneck}",
            *([f"  {self.cleaned}"] * bool(self.coding)),
            *([f"  in time: {_shares(self.by_model)}"] * bool(self.by_model)),
            *(
                [f"  unchanged, and not computed again: {self.unchanged:.0%} of the picture"]
                * (self.unchanged >= _TOLD)
            ),
            *(f"  kept: {stream}" for stream in self.kept),
            *(f"  dropped: {stream}" for stream in self.dropped),
            *(f"  note: {note}" for note in self.notes),
        ]
        if self.megabytes and not self.tried:
            whole = self.megabytes_in and not self.whole_s
            given = f" (the input has {_megabytes(self.megabytes_in)})" if whole else ""
            lines.insert(1, f"  {_megabytes(self.megabytes)}{given}")
        if self.whole_s and self.video_s and self.megabytes:
            times = self.whole_s / self.video_s
            took, pace = self._whole_takes(times)
            size = _megabytes(times * self.megabytes)
            lines.append(f"  the whole video would take about {took} at {pace:.1f} fps, and {size}")
        if self.missing:
            lines.append(f"  DAMAGED INPUT: {self.missing}")
        return "\n".join(lines)

    @property
    def cleaned(self) -> str:
        """Say which `clean` was chosen, and why."""
        return f"clean {self.clean:g} ({self.coding})" if self.coding else ""

    def _whole_takes(self, times):
        """Return how long the whole takes, as hours, minutes and seconds, and its frames per second."""
        pace = self.pace or self.fps
        start = max(0.0, self.seconds - self.frames / pace)
        seconds = round(start + times * self.frames / pace)
        return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}", pace


def _shares(shares):
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


def _megabytes(number):
    return f"{number:.1f} MB" if number < 1000 else f"{number / 1000:.2f} GB"


def peak_memory_mb() -> float | None:
    """Return the peak resident memory of this process in MB; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)
