"""A recording of what a window shows."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from imagesr.errors import OutputError
from imagesr.live.loop import Shot
from imagesr.media.encoders import encoder_options
from imagesr.media.frames import VideoInfo
from imagesr.media.writer import Writer

_CLOCK = Fraction(1, 90_000)


class Recorder:
    """Write shown shots into an MP4, with the times at which they were captured; raises OutputError."""

    def __init__(self, path: Path, info: VideoInfo, size: tuple[int, int]):
        options = encoder_options("libx264", {"crf": "18", "preset": "ultrafast"})[0]
        self.path, self._size = path, size
        info = replace(
            info, time_base=_CLOCK, duration=None, frames=None
        )  # times of capture are no multiples of a film's clock
        self._writer = Writer(path, info, size=size, codec="libx264", options=options)
        self._begun, self._last, self._error = None, -1, ""

    def write(self, shot: Shot) -> bool:
        """Write a shot; returns False when that is no longer possible."""
        if (shot.sr.width, shot.sr.height) != self._size:
            return False
        self._begun = shot.captured if self._begun is None else self._begun
        frame = shot.sr
        frame.time_base = _CLOCK
        frame.pts = self._last = max(self._last + 1, round((shot.captured - self._begun) / _CLOCK))
        frame.duration = 0
        try:
            self._writer.write(frame)
        except OutputError as error:
            self._error = str(error)
            return False
        return True

    def finish(self) -> str:
        """Close the file; returns a message with its name, or with the error."""
        if self._begun is None:
            self._error = self._error or "nothing was shown: no recording"
        try:
            if not self._error:
                self._writer.finish()
                return f"recording: {self.path}"
        except OutputError as error:
            self._error = str(error)
        self._writer.discard()
        return self._error
