"""A film as shots at its own pace: it follows the sound's clock, and can be paused and sought in."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from imagesr.errors import InputError
from imagesr.live.loop import Meter, Shot
from imagesr.live.sound import Silence, Sound, SoundError
from imagesr.media.frames import Frame
from imagesr.media.source import Source

_POLL_S = 0.01
_MOST_LEAD = 0.3  # seconds


class Film:
    """Iterate over a film's frames at its own pace, as shots; another thread can pause it and seek in it.

    The clock is the sound; without one, `silent_because` says why. `meter` belongs to the loop that shows the frames:
    each frame is yielded earlier by the latency. Raises InputError for a file that cannot be read.
    """

    def __init__(self, path: Path, *, start: float = 0.0, mute: bool = False, meter: Meter | None = None):
        self._path, self._meter = path, meter or Meter()
        with Source(path, start=start) as source:
            self.info, self.duration = source.info, source.info.duration
        self.silent_because = "it is muted" if mute else ""
        self.damage = ""
        self._lock = threading.Lock()
        self._position, self._target = start, None
        self._paused = self._closed = False
        self._sound = None
        if not mute:
            try:
                self._sound = Sound(path)
            except SoundError as error:
                self.silent_because = str(error)
        self._clock = self._clock_from(start)

    def _clock_from(self, position):
        """Return a stopped clock at a position."""
        if self._sound:
            with contextlib.suppress(SoundError):  # the sound may be shorter than the picture
                self._sound.move(position)
                return self._sound
        return Silence(position)

    def pause(self) -> None:
        """Pause, or go on."""
        with self._lock:
            self._paused = not self._paused
            self._clock.stop() if self._paused else self._clock.go()

    def seek(self, seconds: float) -> None:
        """Go to a position, in seconds from the beginning."""
        end = max(0.0, self.duration - 0.5) if self.duration else float("inf")
        with self._lock:
            self._target = min(max(0.0, seconds), end)

    @property
    def position(self) -> float:
        """The position of the newest frame in seconds, or the one that is being sought."""
        with self._lock:
            return self._position if self._target is None else self._target

    def close(self) -> None:
        """End the iteration at the next frame."""
        self._closed = True

    def __iter__(self) -> Iterator[Shot]:
        """Yield the frames, each at its time."""
        start = first = self._shown = self._position
        try:
            while start is not None and not self._closed:
                try:
                    start = yield from self._from(start)
                except InputError:
                    if start == first:
                        raise
                    start = self._shown  # no frame follows the sought position: back to the old one
        finally:
            if self._sound:
                self._sound.close()

    def _from(self, start):
        """Yield the frames from a position on; returns the next position to go to, None at the end."""
        with Source(self._path, start=start) as source:
            offset, first = start, True
            for frame in source:
                if not isinstance(frame, Frame):
                    continue
                moment = offset + float(frame.pts * frame.time_base)
                if first:  # shown at once, even while the film is paused; then the clock starts
                    self._begin(start)
                while not first and self._goes_on() and (left := moment - self._lead() - self._now()) > 0:
                    time.sleep(_POLL_S if self._paused else min(left, _POLL_S))
                if not self._goes_on():
                    break
                with self._lock:
                    first, self._position, self._shown = False, moment, moment
                yield self._shot(frame, moment)
            else:
                self.damage = self.damage or str(source.damage)
        with self._lock:
            target, self._target = self._target, None
            if target is not None:
                self._position = target
        return None if self._closed else target

    def _begin(self, start):
        """Start the clock, a new one after a seek."""
        with self._lock:
            if abs(self._clock.now() - start) > 1e-9:
                self._clock.stop()
                self._clock = self._clock_from(start)
            if not self._paused:
                self._clock.go()

    def _now(self):
        with self._lock:
            if self._sound and not self._sound.alive:
                self.silent_because = "its device went away"
                sound, self._sound, self._clock = self._sound, None, Silence(self._clock.now())
                sound.close()
                if not self._paused:
                    self._clock.go()
            return self._clock.now()

    def _lead(self):
        """Return how many seconds before its time a frame is yielded, to be on the screen in time."""
        return min(self._meter.recent_latency, _MOST_LEAD)

    def _goes_on(self):
        return self._target is None and not self._closed

    def _shot(self, frame, moment):
        note = _time(moment) + (f" / {_time(self.duration)}" if self.duration else "")
        progress = min(1.0, max(0.0, moment / self.duration)) if self.duration else None
        return Shot(frame, time.perf_counter(), note=note, progress=progress)


def _time(seconds):
    minutes, seconds = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
