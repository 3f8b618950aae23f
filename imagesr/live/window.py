"""The window of the live commands: upscaled frames, split against Lanczos, with figures on top; and its keys."""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from imagesr.errors import OutputError
from imagesr.files import part_of, write_whole
from imagesr.live.command import LIVE_MODELS, LIVE_SCALES
from imagesr.live.loop import LiveUpscaler, Shot
from imagesr.live.recorder import Recorder
from imagesr.media.frames import Frame, VideoInfo, bgr
from imagesr.video.upscaler import Upscaler

_ESC = 27
# What waitKeyEx returns for the arrows, by Qt and GTK, by Windows, and by macOS.
ARROWS = {
    "left": (65361, 2424832, 63234),
    "right": (65363, 2555904, 63235),
    "up": (65362, 2490368, 63232),
    "down": (65364, 2621440, 63233),
}
_GRAB = 0.02  # of the width: how near to the line a click must be to drag it; twice that of the height is the bar
_TALK_S = 3.0  # a message stays that long
_STANDS_S = 0.5  # without a frame: the film is paused


class WindowError(Exception):
    """There is no screen, or OpenCV cannot draw on it."""


@dataclass
class View:
    """Hold what a window shows: figures, the split's position from 0 to 1, and whether all is Lanczos."""

    figures: bool = True
    split: float | None = None
    lanczos: bool = False


class Lanczos:
    """Upscale frames by swscale's Lanczos, for the other side of the split."""

    def __init__(self, info: VideoInfo):
        self._info, self._size, self._resize = info, None, None

    def __call__(self, frame: Frame, size: tuple[int, int]) -> np.ndarray:
        """Return the frame at (width, height) as BGR."""
        if size != self._size:
            self._size, self._resize = size, Upscaler(self._info, size)
        return bgr(self._resize(frame))


def compose(sr: np.ndarray, lanczos: np.ndarray | None, view: View, lines: Sequence[str] = ()) -> np.ndarray:
    """Draw a window's content into `sr`, BGR uint8 (H, W, 3): `lanczos` left of the split, and lines of text."""
    height, width = sr.shape[:2]
    if lanczos is not None:
        column = width if view.lanczos else round((view.split or 0) * width)
        sr[:, :column] = lanczos[:, :column]
        if not view.lanczos:
            cv2.line(sr, (column, 0), (column, height), (255, 255, 255), max(1, height // 540))
            _write(sr, "Lanczos", column, height - height // 40, right=True)
            _write(sr, "imagesr", column, height - height // 40)
        else:
            _write(sr, "Lanczos", 0, height - height // 40)
    for i, line in enumerate(lines):
        _write(sr, line, 0, (i + 1) * max(16, height // 30))
    return sr


def _write(picture, text, x, y, *, right=False):
    """Write white text on a darkened box, its baseline at `y`; with `right` it ends at `x`."""
    size, thick = max(0.4, picture.shape[0] / 1300), max(1, picture.shape[0] // 500)
    margin = round(14 * size)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
    x = x - width - margin if right else x + margin
    picture[max(0, y - height - margin // 2) : y + margin // 2, max(0, x - margin // 2) : x + width + margin // 2] //= 3
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), thick, cv2.LINE_AA)


def _draw_progress(picture, progress):
    height, width = picture.shape[:2]
    thick = max(2, height // 180)
    picture[-thick:] //= 3
    picture[-thick:, : round(progress * width)] = (255, 255, 255)


def seen_size(info: VideoInfo, size: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) that a picture of a video has when it is displayed."""
    return info.upright((round(size[0] * info.shape), size[1]))


def as_seen(picture: np.ndarray, info: VideoInfo) -> np.ndarray:
    """Return a picture of a video as it is displayed: with square pixels, and rotated."""
    if info.sample_aspect_ratio and info.sample_aspect_ratio != 1:
        picture = cv2.resize(picture, (round(picture.shape[1] * info.sample_aspect_ratio), picture.shape[0]))
    turn = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
    return cv2.rotate(picture, turn[info.rotation % 360]) if info.rotation % 360 in turn else picture


class Window:
    """Show shots in a window and handle its keys; a Sink.

    Raises WindowError where there is no screen, and where this OpenCV was built without windows.
    """

    place = "a window (o: figures, s: split, a: A/B, m: model, z: scale, f: full, p: picture, r: record, q: quit)"

    def __init__(self, title: str, upscaler: LiveUpscaler, info: VideoInfo, *, view: View | None = None):
        _check_screen()
        _leave_qt_its_events()
        self.title, self.view, self._upscaler, self._info = title, view or View(), upscaler, info
        self._lanczos, self._dragging, self._full = Lanczos(info), False, False
        self._message, self._until = "", 0.0
        self._recorder: Recorder | None = None
        self._last: Shot | None = None
        self._figures: Sequence[str] = ()
        self._clicked: float | None = None
        self._size, self._drawn = upscaler.size, 0.0
        try:
            # Without GUI_NORMAL, Qt adds a toolbar and a status line, and takes keys for itself.
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.resizeWindow(title, *_fitting(seen_size(info, upscaler.size)))
            cv2.setMouseCallback(title, self._mouse)
        except cv2.error as error:
            raise WindowError(f"this OpenCV has no windows ({str(error).strip().splitlines()[0]})") from None

    def show(self, shot: Shot, figures: Sequence[str]) -> None:
        """Draw a shot, with the figures if they are wanted."""
        self._last, self._figures = shot, figures
        if self._recorder and not self._recorder.write(shot):
            self._stop_recording()
        self._draw()

    def _draw(self):
        shot, view, info, other = self._last, self.view, self._info, None
        if view.lanczos or view.split is not None:
            other = as_seen(self._lanczos(shot.lr, (shot.sr.width, shot.sr.height)), self._info)
        lr, sr = (seen_size(info, (frame.width, frame.height)) for frame in (shot.lr, shot.sr))
        what = f"{shot.by}   {lr[0]}x{lr[1]} > {sr[0]}x{sr[1]}"
        text = [what, *self._figures] if view.figures else []
        if self._recorder:
            text.append(f"REC {self._recorder.path.name}")
        if self._upscaler.error:
            text.append(self._upscaler.error)
        if time.monotonic() < self._until:
            text.append(self._message)
        picture = compose(as_seen(bgr(shot.sr), self._info), other, view, text)
        if view.figures and shot.progress is not None:
            _draw_progress(picture, shot.progress)
        self._size, self._drawn = picture.shape[1::-1], time.monotonic()
        cv2.imshow(self.title, picture)

    def poll(self) -> str | None:
        """Handle the window's events and keys.

        Returns "quit", the character or name of a key that it does not know, "seek 0.5" for a click on the progress
        bar, or None.
        """
        key = cv2.waitKeyEx(1)
        try:
            closed = cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:  # Qt has forgotten it
            closed = True
        if closed:
            return "quit"
        last = self._last
        if last and last.by != self._upscaler.name and time.monotonic() - self._drawn > _STANDS_S:
            last.sr, last.by = self._upscaler(last.lr)  # a paused film, by the model that was chosen meanwhile
            self._draw()
        if key < 0:
            clicked, self._clicked = self._clicked, None
            return None if clicked is None else f"seek {clicked:.4f}"
        # Above 16 bits are the modifiers, on GTK; special keys of X11 are above 8 bits, and no letters.
        code = key & 0xFFFF
        for name, codes in ARROWS.items():
            if key in codes or code in codes:
                return name
        if code == _ESC:
            return "quit"
        if not 32 <= code < 127:
            return None
        name = chr(code).lower()
        known = name != "q" and self._obey(name)
        if known and self._last:
            self._draw()  # a film may be paused
        return None if known else "quit" if name == "q" else name

    def _obey(self, key):
        """Do what a key stands for; returns False for an unknown key."""
        view, upscaler = self.view, self._upscaler
        if key == "o":
            view.figures = not view.figures
        elif key == "s":
            view.split, view.lanczos = 0.5 if view.split is None else None, False
        elif key in "[]" and view.split is not None:
            view.split = min(1.0, max(0.0, view.split + (0.05 if key == "]" else -0.05)))
        elif key == "a":
            view.lanczos = not view.lanczos
        elif key == "m":
            self._change(model=_next(LIVE_MODELS, upscaler.model))
        elif key == "z":
            self._change(scale=_next(LIVE_SCALES, upscaler.scale))
        elif key == "f":
            self._full = not self._full
            state = cv2.WINDOW_FULLSCREEN if self._full else cv2.WINDOW_NORMAL
            cv2.setWindowProperty(self.title, cv2.WND_PROP_FULLSCREEN, state)
        elif key == "p":
            self._take_picture()
        elif key == "r":
            self._stop_recording() if self._recorder else self._start_recording()
        else:
            return False
        return True

    def _change(self, **what):
        if self._recorder:
            self.say("a recording keeps its size and model: stop it first (r)")
        else:
            self.say(
                f"loading {next(iter(what.values()))}"
                if self._upscaler.change(**what)
                else "one at a time: still loading"
            )

    def _mouse(self, event, x, y, flags, _):
        width, height = self._size
        if event == cv2.EVENT_LBUTTONDOWN:
            split = self.view.split
            self._dragging = split is not None and abs(x - split * width) < max(8, _GRAB * width)
            if not self._dragging and y > (1 - 2 * _GRAB) * height and self._last and self._last.progress is not None:
                self._clicked = min(1.0, max(0.0, x / width))
        elif event == cv2.EVENT_LBUTTONUP:
            self._dragging = False
        if self._dragging and self._last and self.view.split is not None:
            self.view.split = min(1.0, max(0.0, x / width))
            self._draw()

    def _report(self, message):
        """Show a message, and print it."""
        self.say(message)
        print(message, file=sys.stderr)

    def say(self, message: str) -> None:
        """Show a message for a few seconds."""
        self._message, self._until = message, time.monotonic() + _TALK_S

    def _take_picture(self):
        if not self._last:
            return
        file = _new_file(".png")
        try:
            write_whole(file, cv2.imencode(".png", as_seen(bgr(self._last.sr), self._info))[1].tobytes())
            self._report(f"picture: {file}")
        except OSError as error:
            self.say(f"cannot write {file}: {error.strerror}")

    def _start_recording(self):
        if self._last:
            try:
                self._recorder = Recorder(_new_file(".mp4"), self._info, (self._last.sr.width, self._last.sr.height))
            except OutputError as error:
                self.say(str(error))

    def _stop_recording(self):
        recorder, self._recorder = self._recorder, None
        self._report(recorder.finish())

    def close(self) -> None:
        """Finish a recording and close the window."""
        if self._recorder:
            print(self._recorder.finish(), file=sys.stderr)
        cv2.destroyAllWindows()


def _next(values, value):
    return values[(values.index(value) + 1) % len(values)] if value in values else values[0]


def _new_file(suffix):
    name = time.strftime("imagesr-%Y%m%d-%H%M%S")
    file, number = Path(name + suffix), 1
    while file.exists() or part_of(file).exists():
        file, number = Path(f"{name}-{number}{suffix}"), number + 1
    return file


def _fitting(size):
    """Return a window's first size: the picture's, or less, so that it fits on most screens."""
    factor = min(1.0, 1600 / size[0], 900 / size[1])
    return round(size[0] * factor), round(size[1] * factor)


def _check_screen():
    """Raise WindowError where a window would end the process: Qt aborts where it finds no screen.

    So another process tries first. Where PyAV was imported before OpenCV, a window would hang.
    """
    loaded = list(sys.modules)
    if sys.platform == "linux" and loaded.index("av") < loaded.index("cv2"):
        raise WindowError("PyAV was imported before OpenCV: begin with 'import cv2'")
    code = "import cv2; cv2.namedWindow('w'); cv2.waitKey(1)"
    try:
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        raise WindowError("the screen does not answer") from None
    if found.returncode:
        lines = [line for line in found.stderr.strip().splitlines() if line.strip()]
        built = any("not implemented" in line for line in lines)
        raise WindowError("this OpenCV was built without windows" if built else "there is no screen to draw on")


def _leave_qt_its_events():
    """Have Qt call the system's libX11-xcb instead of the one in OpenCV's wheel.

    The wheel's is of libX11 1.6: it marks the owner of events where libX11 no longer looks since 1.7. Xlib then takes
    some of Qt's events, and a window stays black when the event that makes it visible is among them.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # without it there is no libGL either, and OpenCV does not load
            ctypes.CDLL("libX11-xcb.so.1", ctypes.RTLD_GLOBAL)
