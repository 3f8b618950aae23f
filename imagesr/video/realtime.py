"""Hold a frame rate: the best model that this machine manages, and cheaper ones while it is late."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

from imagesr.card import models_for
from imagesr.engines import Engine
from imagesr.engines.chain import chain, load_chain
from imagesr.media.frames import Frame, Packet, VideoInfo, plane
from imagesr.media.grain import Grain
from imagesr.scale import Scale
from imagesr.video.options import LADDER
from imagesr.video.upscaler import Upscaler

T = TypeVar("T")

AUTO = "auto"  # the name that stands for the ladder
_LATE = 3  # frames behind, from which on a cheaper model runs
_STAY_S = 1.0  # with a model, at least: pictures of two networks side by side in time would flicker
_TRY_S, _LONGEST_TRY_S = 2.0, 60.0  # in time, before the next better model is tried; doubled when that was in vain
_HELD_S = 15.0  # after which a step that becomes too slow was not tried in vain
_MOST_EARLY_S = 1.0
_TIMED = 3  # frames that a model is timed on


class Pace:
    """Choose a step of a ladder for every frame, 0 being the best, so that no frame is late for long.

    A cheaper step is taken once frames are three late, the better one again after two seconds in time. Where that was
    too much the next try waits twice as long, at most a minute.

    Args:
        fps: Frames a second to hold.
        steps: Their names, from the best to the cheapest.
        clock: Returns seconds.
    """

    def __init__(self, fps: float, steps: Sequence[str], *, clock: Callable[[], float] = time.perf_counter):
        self.fps, self._clock = fps, clock
        self._frames = dict.fromkeys(steps, 0)
        self._step, self._since, self._try = 0, clock(), _TRY_S
        self._lock = threading.Lock()

    def step(self, late: float) -> int:
        """Return the step for a frame; `late` is how far behind the frames are, in seconds."""
        with self._lock:
            stayed = self._clock() - self._since
            if late * self.fps > _LATE and stayed >= _STAY_S and self._step + 1 < len(self._frames):
                self._try = min(2 * self._try, _LONGEST_TRY_S) if stayed < _HELD_S else _TRY_S
                self._move(1)
            elif late <= 0 and stayed >= self._try and self._step:
                self._move(-1)
            self._frames[list(self._frames)[self._step]] += 1
            return self._step

    def _move(self, by):
        self._step, self._since = self._step + by, self._clock()

    @property
    def steps(self) -> list[str]:
        """The names of the steps."""
        return list(self._frames)

    @property
    def shares(self) -> dict[str, float]:
        """The share of the frames by step, without those that had none."""
        total = max(1, sum(self._frames.values()))
        return {name: round(number / total, 3) for name, number in self._frames.items() if number}


class Late:
    """Tell how far behind a rate frames are that are made as fast as can be."""

    def __init__(self, fps: float, *, clock: Callable[[], float] = time.perf_counter):
        self._fps, self._clock, self._due = fps, clock, None
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """Count a frame; returns the seconds that it is late, below zero where it is early.

        More than a second in advance is forgotten: it would not help those who watch.
        """
        with self._lock:
            now = self._clock()
            due = now if self._due is None else self._due
            self._due = min(due, now + _MOST_EARLY_S) + 1 / self._fps
            return now - due


class Ladder:
    """Upscale every frame by the step that the pace chooses. Several, one of each thread, share a pace."""

    def __init__(self, steps: Sequence[Upscaler], pace: Pace, late: Callable[[], float]):
        self._steps, self._pace, self._late = steps, pace, late

    def __call__(self, item: Frame | Packet) -> Frame | Packet:
        return item if isinstance(item, Packet) else self._steps[self._pace.step(self._late())](item)

    @property
    def spared(self) -> float:
        """Frames, in parts of one, on which no network ran."""
        return sum(step.spared for step in self._steps)


def load_model(
    name: str, factor: Scale | Fraction, *, detail: float | None = None, clean: float | None = None, **loading
) -> list[Engine]:
    """Load the engines that reach a factor by the flavour for film; none for plain Lanczos.

    `detail` and `clean` go to those that take them, `loading` are other options of `load_engine`. Raises ModelError.
    """
    if name == LADDER[-1]:
        return []
    cards = models_for("live", name)
    wanted = {"detail": detail, "clean": clean}
    for name in wanted:
        if all(getattr(card, name) is None for card in chain(cards, factor)):
            wanted[name] = None
    return load_chain(cards, factor, **wanted, **loading)


def fast_enough(seconds: Mapping[str, float], fps: float) -> list[str]:
    """Return the steps of a ladder, from the first on of which a frame takes no longer than the rate allows."""
    names = list(seconds)
    while len(names) > 1 and seconds[names[0]] * fps > 1:
        del names[0]
    return names


def ladders(
    info: VideoInfo,
    size: tuple[int, int],
    factor: Scale | Fraction,
    fps: float,
    *,
    parallel: int,
    grain: Grain | None = None,
    **loading,
) -> tuple[list[Ladder], Pace]:
    """Return a ladder for each of the `parallel` threads that upscale frames side by side, and their common pace.

    `fps` is the rate to hold. `loading` are options of `load_engine`.
    """
    loading |= {"bits": 16 if info.bits > 8 else 8, "parallel": parallel}
    engines = {name: load_model(name, factor, **loading) for name in LADDER}
    # Each thread computes a frame by itself: as many frames at once as there are cores.
    side_by_side = max(1, parallel - 1)
    seconds = {name: frame_seconds(Upscaler(info, size, steps), info) / side_by_side for name, steps in engines.items()}
    names = fast_enough(seconds, fps)
    pace, late = Pace(fps, names), Late(fps)
    steps = [[Upscaler(info, size, engines[name], grain=grain) for name in names] for _ in range(parallel)]
    return [Ladder(own, pace, late) for own in steps], pace


def would_hold(
    info: VideoInfo,
    size: tuple[int, int],
    engines: Sequence[Engine],
    factor: Scale | Fraction,
    fps: float,
    *,
    parallel: int,
    **loading,
) -> str:
    """Say which cheaper model would have held the video's rate, where a run managed `fps` frames a second.

    A frame of each model is timed. What the run took beside its own network, each would have taken, too.
    """
    rate, own = float(info.rate), engines[0].card.name
    loading |= {"bits": 16 if info.bits > 8 else 8, "parallel": parallel}
    side_by_side = max(1, parallel - 1)
    beside = 1 / fps - frame_seconds(Upscaler(info, size, engines), info) / side_by_side
    said = f"{fps:.1f} frames a second, the video has {rate:g}"
    for name in LADDER[LADDER.index(own) + 1 if own in LADDER else 0 :]:
        steps = load_model(name, factor, **loading)
        seconds = frame_seconds(Upscaler(info, size, steps), info) / side_by_side
        expected = 1 / max(seconds, beside + seconds)
        if expected >= rate:
            return f"{said}; {name} would have held them, with about {expected:.0f}"
    return f"{said}; no model would have held them here, {name} comes to about {expected:.0f}"


def frame_seconds(upscaler: Upscaler, info: VideoInfo) -> float:
    """Time a frame, the median of three, once the networks are compiled, for whole frames and for parts of them."""
    times = []
    for number in (0, 0, *range(1, 1 + _TIMED)):
        frame = Frame(info.width, info.height, info.pix_fmt)
        plane(frame, 0)[:] = number  # another one each time: what stays the same is not computed again
        plane(frame, 0)[0, 0] = len(times)  # the second frame differs from the first in this alone
        begun = time.perf_counter()
        upscaler(frame)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[2:])
