"""Sources that OpenCV opens, as shots: cameras, streams, and files at their own pace."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from imagesr.errors import InputError
from imagesr.live.loop import Shot
from imagesr.media.frames import Frame, VideoInfo, from_bgr

# Errors are reported by this module.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

_CLOCK = Fraction(1, 90_000)
_PATIENCE_MS = 10_000  # for a stream to open, and for its next frame
_RETRY_S = 1.0
_TRIES = 3
_MOST_LATE_S = 0.5  # after which a file that is decoded too slowly is delayed, instead of catching up


class Camera:
    """Open a camera index, a device, a file or a URL, and iterate over its shots.

    A file is delivered at its own pace, or slower where it cannot be decoded so fast; a camera and a stream as fast as
    they come. `size` (width, height) and `fps` are requests that a camera may ignore. When a camera or stream ends,
    the iteration ends, and `ended` says why; with `reconnect` it waits until the source is back, and reports that by
    `tell`. Raises InputError for a source that cannot be read.
    """

    def __init__(
        self,
        source: str,
        *,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
        reconnect: bool = False,
        tell: Callable[[str], None] = lambda text: None,
    ):
        self.source, self.ended = source, ""
        self._wishes, self._reconnect, self._tell = (size, fps), reconnect, tell
        self._closed = False
        with _without_output():
            self._capture, picture = self._open()
        if picture is None:
            raise InputError(self._refusal())
        self._first, self._start = picture, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        self.finite = Path(source).is_file() or self._capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        frame = from_bgr(picture)
        self._rate = rate if math.isfinite(rate) and 1 <= rate <= 1000 else 30.0
        self.info = VideoInfo(
            width=picture.shape[1],
            height=picture.shape[0],
            pix_fmt="yuv420p",
            bits=8,
            halved=(True, True),
            time_base=_CLOCK,
            rate=Fraction(self._rate).limit_denominator(1001),
            sample_aspect_ratio=None,
            # A recording has more lines; without tags its colours would be read differently.
            color={"colorspace": int(frame.colorspace), "color_range": int(frame.color_range)},
            display_matrix=None,
            rotation=0,
            duration=None,
            frames=None,
        )

    def _open(self):
        """Return the capture and its first picture, or None for it."""
        index = self.source.isdigit()
        options = [] if index else [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _PATIENCE_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC]
        options += [] if index else [_PATIENCE_MS]
        device = index or self.source.startswith("/dev/")
        capture = cv2.VideoCapture()
        if device:
            capture.open(int(self.source) if index else self.source, cv2.CAP_ANY)
            (size, fps) = self._wishes
            if size:
                capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
                capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
            if fps:
                capture.set(cv2.CAP_PROP_FPS, fps)
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # frames that wait in the driver are late
        else:
            # Absolute: in a relative name FFmpeg takes the part before a colon for a protocol.
            file = Path(self.source)
            capture.open(str(file.absolute()) if file.is_file() else self.source, cv2.CAP_FFMPEG, options)
        found, picture = capture.read() if capture.isOpened() else (False, None)
        return capture, _colour(picture) if found else None

    def _refusal(self):
        source = self.source
        if source.isdigit() or source.startswith("/dev/"):
            known = sorted(str(path) for path in Path("/dev").glob("video*"))
            there = f"there are {', '.join(known)}" if known else "the system shows no camera"
            return f"Expected a camera that delivers pictures. Received: {source}" + (
                f" ({there})" if sys.platform == "linux" else ", which does not open or is in use"
            )
        if "://" not in source and not Path(source).exists():
            return f"Expected a camera index, a device, a video file or a URL. There is no {source}"
        if "://" in source:
            return f"Expected a stream. Nothing answers that could be read: {source}"
        what = "a folder" if Path(source).is_dir() else "a file without a picture that can be decoded"
        return f"Expected a video that can be read. Received {what}: {source}"

    @property
    def first(self) -> Frame:
        """The first frame."""
        return from_bgr(self._first)

    def __iter__(self) -> Iterator[Shot]:
        """Yield shots; `close` of the iterator closes the camera."""
        try:
            picture, begun, number = self._first, time.perf_counter(), 0
            while not self._closed:
                now = time.perf_counter()
                if self.finite:
                    now = begun + self._moment(number)
                    self._wait(now)
                    late = time.perf_counter() - now
                    if late > _MOST_LATE_S:
                        begun, now = begun + late, now + late
                if picture.shape[:2] != (self.info.height, self.info.width):
                    picture = cv2.resize(picture, (self.info.width, self.info.height))  # a camera that came back
                yield Shot(from_bgr(picture), now)
                number += 1
                found, picture = self._read()
                if found:
                    picture = _colour(picture)
                elif self.finite:
                    return
                elif not self._reconnect:
                    self.ended = f"{self.source} delivers no more pictures; --reconnect would wait for it"
                    return
                elif (picture := self._again()) is None:
                    return
        finally:
            self._capture.release()

    def _read(self):
        """Read a picture; a camera may fail once or twice, for a damaged JPEG, and go on."""
        for _ in range(1 if self.finite else _TRIES):
            found, picture = self._capture.read()
            if found or self._closed:
                break
        return found, picture

    def _moment(self, number):
        """Return when the newest picture is due, in seconds after the first one.

        The time is the file's, or follows from its rate where the file's times do not grow.
        """
        moment = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 - self._start
        return moment if math.isfinite(moment) and moment > 0 else number / self._rate

    def _wait(self, due):
        while not self._closed and (left := due - time.perf_counter()) > 0:
            time.sleep(min(left, 0.1))

    def _again(self):
        """Wait until the source is back, and return its first picture; None after `close`."""
        self._tell(f"{self.source} delivers no more pictures: waiting for it to come back")
        self._capture.release()
        while not self._closed:
            self._capture, picture = self._open()
            if picture is not None:
                self._tell(f"{self.source} is back")
                return picture
            self._capture.release()
            self._wait(time.perf_counter() + _RETRY_S)
        return None

    def close(self) -> None:
        """End the iteration at the next picture."""
        self._closed = True


def _colour(picture):
    """Return a picture as BGR; some cameras deliver grey."""
    return cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) if np.ndim(picture) == 2 else picture


@contextlib.contextmanager
def _without_output():
    """Hide what the system's libraries print about a missing camera."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
