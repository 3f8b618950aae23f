"""The live loop: capture, network and display overlap, and the newest frame wins."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from imagesr.card import find_models
from imagesr.engines.chain import load_chain
from imagesr.media.frames import Frame, VideoInfo
from imagesr.scale import Scale
from imagesr.video.pipeline import Newest
from imagesr.video.report import peak_memory_mb
from imagesr.video.upscaler import Upscaler, target_size

MODELS = ("fast", "balanced", "best", "lanczos")  # in the order of the key that changes them
SCALES = ("1.5", "2", "3")
KEYS = (
    ("q, Esc", "quit"),
    ("o", "figures on and off"),
    ("s", "split screen: Lanczos on the left; drag the line, or move it with [ and ]"),
    ("a", "A/B: all Lanczos, and back"),
    ("m", "next model: " + ", ".join(MODELS)),
    ("z", "next scale: " + ", ".join(SCALES)),
    ("f", "full screen and back"),
    ("p", "take a picture, as PNG in this folder"),
    ("r", "start and stop a recording, as MP4 in this folder"),
)
_BINS, _LONGEST = 100_000, 10.0  # of the latencies' histogram, and the seconds that it covers
_RECENT = 30  # frames that the figures on the screen are of
_POLL_S = 0.05
_PAUSE_S = 1.0  # without a frame: the figures on the screen begin anew


@dataclass
class Shot:
    """Hold a frame on its way: as it came, when (`time.perf_counter`), and enlarged.

    Of a film, `note` says where in it that is, and `progress` as a number from 0 to 1.
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


class Enlarger:
    """Upscale frames of one video by a model that can be changed while it runs.

    Raises ModelError for a model or scale that there is not, when it is made; later `error` says so.
    """

    def __init__(self, info: VideoInfo, model: str, scale: str, **loading):
        self._info, self._loading = info, loading
        self.error = ""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._load(model, scale)

    def _load(self, model, scale):
        parsed = Scale.parse(scale)
        size, engines = target_size(self._info, scale=parsed), []
        if model != "lanczos":
            bits = 16 if self._info.bits > 8 else 8
            engines = load_chain(find_models(model), parsed, bits=bits, **self._loading)
        upscaler = Upscaler(self._info, size, engines)
        # The first frame compiles the network, which takes a second: not while somebody is watching.
        upscaler(Frame(self._info.width, self._info.height, self._info.pix_fmt))
        precision = f" {engines[0].precision}" if engines else ""
        # All at once, so that no frame sees half of a change.
        self._current = upscaler, size, model, scale, f"{model} x{scale}{precision}"

    @property
    def size(self) -> tuple[int, int]:
        """The (width, height) of enlarged frames."""
        return self._current[1]

    @property
    def name(self) -> str:
        """The model, its scale and its precision in words."""
        return self._current[4]

    @property
    def model(self) -> str:
        """The model's name."""
        return self._current[2]

    @property
    def scale(self) -> str:
        """The scale as text."""
        return self._current[3]

    def __call__(self, frame: Frame) -> tuple[Frame, str]:
        """Return the enlarged frame, and in words by what."""
        upscaler, *_, name = self._current
        with self._lock:  # of a window that draws a paused film anew
            return upscaler(frame), name

    def change(self, *, model: str | None = None, scale: str | None = None) -> bool:
        """Load another model or scale beside the running one, and go over to it when it is ready.

        Returns False, and does nothing, while another one is being loaded.
        """
        if self._thread and self._thread.is_alive():
            return False
        wanted = model or self.model, scale or self.scale

        def load():
            try:
                self._load(*wanted)
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
    """A place where live frames go; `place` names it."""

    place: str

    def show(self, shot: Shot, figures: Sequence[str]) -> None:
        """Show a shot, and beside it the figures if there is a reader."""

    def poll(self) -> str | None:
        """Let a window live; returns a key that was pressed, "quit" for the end, or None."""

    def close(self) -> None:
        """Finish."""


class Live:
    """Run shots through an enlarger and show them, capture and network each in a thread of its own.

    Between any two of the three only the newest frame waits: a slow one drops frames, and adds no delay. `stop` is
    called at the end, to wake a source that waits.
    """

    def __init__(
        self,
        shots: Iterable[Shot],
        enlarge: Callable[[Frame], tuple[Frame, str]],
        *,
        meter: Meter | None = None,
        stop: Callable[[], None] = lambda: None,
    ):
        self.meter, self._stop_source = meter or Meter(), stop
        self._captured: Newest[Shot] = Newest()
        self._ready: Newest[Shot] = Newest()
        self._stop = threading.Event()
        self._shots, self._enlarge = shots, enlarge
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
                shot.sr, shot.by = self._enlarge(shot.lr)
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

        `on_key` is called with keys that the sink does not know. Raises what the source, the network or the sink raise.
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
                thread.join(timeout=2)  # a camera that hangs in the system's hands must not hold us

    def _figures(self, shot):
        meter = self.meter
        return [
            f"{meter.fps_now:.1f} fps   latency {1000 * meter.latency:.0f} ms   dropped {self.dropped}",
            *([shot.note] if shot.note else []),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures of the whole run as plain JSON types."""
        return self.meter.as_dict() | {"dropped": self.dropped, "peak_memory_mb": peak_memory_mb()}
