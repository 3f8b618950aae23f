"""The live loop: capture, network and display run side by side, and only the newest frame waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2  # noqa: F401, before PyAV: with libxcb from PyAV's wheel, OpenCV's windows hang (PyAV issue 1050)
import numpy as np

from imagesr.card import models_for
from imagesr.engines import checked_detail
from imagesr.media.frames import Frame, VideoInfo
from imagesr.media.grain import Grain
from imagesr.scale import Scale
from imagesr.video.pipeline import Newest
from imagesr.video.realtime import AUTO, LADDER, Pace, fast_enough, frame_seconds, load_model
from imagesr.video.report import peak_memory_mb
from imagesr.video.upscaler import Upscaler, target_size

_BINS, _LONGEST = 100_000, 10.0  # of the latencies' histogram, and the seconds that it covers
_RECENT = 30  # frames that the figures on the screen are of
_POLL_S = 0.05
_PAUSE_S = 1.0  # without a frame: the figures on the screen begin anew


@dataclass
class Shot:
    """Hold a frame on its way: `lr` as captured at the time `captured` (`time.perf_counter`), and `sr`, upscaled.

    `by` names the model and its scale. For a film, `note` names its position, and `progress` gives the position as a
    number from 0 to 1.
    """

    lr: Frame
    captured: float
    sr: Frame | None = None
    by: str = ""
    note: str = ""
    progress: float | None = None


class Meter:
    """Count shown frames and their latency from capture to display, in constant memory."""

    def __init__(self):
        self._counts = np.zeros(_BINS + 1, np.int64)
        self._shown: list[float] = []
        self._first = self._last = 0.0
        self.frames, self.latency, self.recent_latency = 0, 0.0, 0.0

    def saw(self, captured: float) -> None:
        """Count a frame that is on the screen now."""
        before, self._last = self._last, time.perf_counter()
        if self._last - before > _PAUSE_S:
            self._shown = []
        self._first = self._first or self._last
        self.latency = self._last - captured
        self.recent_latency += 0.1 * (self.latency - self.recent_latency)
        self.frames += 1
        self._counts[min(_BINS, round(self.latency * _BINS / _LONGEST))] += 1
        self._shown = [*self._shown[1 - _RECENT :], self._last]

    @property
    def fps_now(self) -> float:
        """Frames per second of the last second or so."""
        spent = self._shown[-1] - self._shown[0] if len(self._shown) > 1 else 0
        return (len(self._shown) - 1) / spent if spent else 0.0

    def percentile_ms(self, percent: float) -> float:
        """Return the latency in milliseconds, to 0.1, that `percent` of the frames do not exceed."""
        place = int(np.searchsorted(np.cumsum(self._counts), self.frames * percent / 100))
        return round(1000 * place * _LONGEST / _BINS, 1)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures of the whole run as plain JSON types."""
        spent = self._last - self._first
        return {
            "fps": round((self.frames - 1) / spent, 2) if spent else 0.0,
            "latency_ms": {"p50": self.percentile_ms(50), "p95": self.percentile_ms(95)},
            "frames": self.frames,
            "seconds": round(spent, 2),
        }


class LiveUpscaler:
    """Upscale frames of one video by a model that can be changed while it runs.

    `grain` is that of `Grain`, `loading` are options of `load_engine`. Raises ModelError for an unknown model or scale;
    for one that is chosen later, `error` holds the message. A model that is chosen later and takes no detail or clean
    runs without.
    The model `auto` is the best that holds the rate of the video; while a frame takes too long, a cheaper one.
    """

    def __init__(
        self, info: VideoInfo, model: str, scale: str, *, detail: float | None = None, grain: float = 0.0, **loading
    ):
        self._info, self._loading, self._detail, self._grain = info, loading, detail, grain
        if detail is not None and model != AUTO:
            cards = [] if model == "lanczos" else models_for("live", model)
            checked_detail(detail, next((card for card in cards if card.detail is not None), (*cards, None)[0]))
        self.error = ""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._load(model, scale)

    def _load(self, model, scale, *, alone=True):
        """Load a model; where nothing else runs, leave out what is too slow for the rate."""
        parsed = Scale.parse(scale)
        size = target_size(self._info, scale=parsed)
        names = LADDER if model == AUTO else [model]
        loading = {"bits": 16 if self._info.bits > 8 else 8, "detail": self._detail, **self._loading}
        engines = {name: load_model(name, parsed, **loading) for name in names}
        grain = Grain(self._grain, size, self._info.bits) if self._grain else None
        steps = {name: Upscaler(self._info, size, chosen, grain=grain) for name, chosen in engines.items()}
        # The first frame compiles the network, which takes a second: not while somebody is watching.
        rate = float(self._info.rate)
        seconds = {name: frame_seconds(step, self._info) for name, step in steps.items()}
        names = fast_enough(seconds, rate) if alone else list(steps)
        labels = [f"{name} x{scale}" + (f" {engines[name][0].precision}" if engines[name] else "") for name in names]
        with self._lock:  # so that no frame sees half of a change
            self._late, self._step, self._pace = 0.0, 0, Pace(rate, names)
            self._current = [steps[name] for name in names], size, model, scale, labels

    @property
    def size(self) -> tuple[int, int]:
        """The (width, height) of upscaled frames."""
        return self._current[1]

    @property
    def name(self) -> str:
        """The model that runs, its scale and its precision in words."""
        with self._lock:
            return self._current[4][self._step]

    @property
    def model(self) -> str:
        """The model's name."""
        return self._current[2]

    @property
    def scale(self) -> str:
        """The scale as text."""
        return self._current[3]

    def __call__(self, frame: Frame) -> tuple[Frame, str]:
        """Return the upscaled frame, and the model's name, scale and precision."""
        with self._lock:  # a window draws a paused film again, from another thread
            steps, *_, labels = self._current
            begun = time.perf_counter()
            step = self._pace.step(self._late)
            self._late = 0.0 if step != self._step else self._late
            self._step = step
            result = steps[step](frame)
            self._late = max(0.0, self._late + time.perf_counter() - begun - 1 / self._pace.fps)
            return result, labels[step]

    @property
    def shares(self) -> dict[str, float]:
        """The share of the frames that each model had since the last change."""
        return self._pace.shares

    def change(self, *, model: str | None = None, scale: str | None = None) -> bool:
        """Load another model or scale in the background, and use it once it is ready.

        Returns False, and does nothing, while another one is being loaded.
        """
        if self._thread and self._thread.is_alive():
            return False
        wanted = model or self.model, scale or self.scale

        def load():
            try:
                self._load(*wanted, alone=False)
                self.error = ""
            except Exception as error:  # the running one goes on, whatever is wrong with the other
                self.error = str(error)

        self._thread = threading.Thread(target=load, daemon=True)
        self._thread.start()
        return True

    def close(self) -> None:
        """Wait for a model that is being loaded: a process must not end in the middle of it."""
        if self._thread:
            self._thread.join()


class Sink(Protocol):
    """Show live frames; `place` says where."""

    place: str

    def show(self, shot: Shot, figures: Sequence[str]) -> None:
        """Show a shot, with the figures where somebody can read them."""

    def poll(self) -> str | None:
        """Handle a window's events; returns the key that was pressed, "quit" for the end, or None."""

    def close(self) -> None:
        """Finish what was begun."""


class Live:
    """Upscale shots and show them, with capture and network each in a thread of its own.

    Between two stages only the newest frame waits: a slow stage drops frames and adds no delay. `upscale` returns the
    upscaled frame and the name of its model. `stop` is called at the end, to wake a source that waits.
    """

    def __init__(
        self,
        shots: Iterable[Shot],
        upscale: Callable[[Frame], tuple[Frame, str]],
        *,
        meter: Meter | None = None,
        stop: Callable[[], None] = lambda: None,
    ):
        self.meter, self._stop_source = meter or Meter(), stop
        self._captured: Newest[Shot] = Newest()
        self._ready: Newest[Shot] = Newest()
        self._stop = threading.Event()
        self._shots, self._by = shots, upscale
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._capture, self._upscale)]

    @property
    def dropped(self) -> int:
        """The number of frames that were captured and not shown."""
        return self._captured.dropped + self._ready.dropped

    def _capture(self):
        error, shots = None, iter(self._shots)
        try:
            for shot in shots:
                if self._stop.is_set():
                    break
                self._captured.put(shot)
        except BaseException as caught:
            error = caught
        finally:
            if hasattr(shots, "close"):
                shots.close()
            self._captured.close(error)

    def _upscale(self):
        error = None
        try:
            while not self._stop.is_set():
                shot = self._captured.get()
                shot.sr, shot.by = self._by(shot.lr)
                self._ready.put(shot)
        except StopIteration:
            pass
        except BaseException as caught:
            error = caught
        finally:
            self._ready.close(error)

    def run(
        self, sink: Sink, *, seconds: float | None = None, on_key: Callable[[str], None] = lambda key: None
    ) -> None:
        """Show shots until the source ends, the sink says so, or `seconds` have passed.

        `on_key` is called with keys that the sink does not know. Raises the exceptions of the source, the network and
        the sink.
        """
        end = time.monotonic() + seconds if seconds else None
        for thread in self._threads:
            thread.start()
        try:
            while not (end and time.monotonic() >= end):
                try:
                    shot = self._ready.get(_POLL_S)
                except StopIteration:
                    return
                if shot:
                    sink.show(shot, self._figures(shot))
                key = sink.poll()
                if shot:
                    self.meter.saw(shot.captured)  # after the poll, in which a window draws
                if key == "quit":
                    return
                if key:
                    on_key(key)
        finally:
            self._stop.set()
            self._stop_source()
            self._captured.close()
            for thread in self._threads:
                thread.join(timeout=2)  # a camera may hang in a system call

    def _figures(self, shot):
        meter = self.meter
        return [
            f"{meter.fps_now:.1f} fps   latency {1000 * meter.latency:.0f} ms   dropped {self.dropped}",
            *([shot.note] if shot.note else []),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures of the whole run as plain JSON types."""
        return self.meter.as_dict() | {"dropped": self.dropped, "peak_memory_mb": peak_memory_mb()}
