"""The window of the live commands, on a virtual screen, with keys and mouse from outside; screenshots are looked at."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import ffmpeg, run_python, write_clip
from PIL import Image, ImageGrab
from running import until

SIZE = (320, 180)


PROGRAMS = ("Xvfb", "openbox", "wmctrl", "xdotool", "xwininfo")


@pytest.fixture(scope="module")
def screen():
    """Start a virtual screen with a window manager; returns its DISPLAY. Skipped where one of PROGRAMS is missing."""
    if not all(map(shutil.which, PROGRAMS)):
        pytest.skip(f"needs {', '.join(PROGRAMS)} (apt install xvfb openbox wmctrl xdotool x11-utils)")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1024x768x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as number:
        display = f":{number.readline().strip()}"
    how = {"env": os.environ | {"DISPLAY": display}, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    manager = subprocess.Popen(["openbox"], **how)
    until(lambda: subprocess.run(["wmctrl", "-m"], **how).returncode == 0)
    yield display
    for process in (manager, server):
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Return a film of 100 s, blue on the left and red on the right, with a checkerboard that Lanczos blurs."""
    folder = tmp_path_factory.mktemp("films")
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    rgb = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    rgb[..., 2], rgb[..., 0] = 200 * (x < SIZE[0] // 2), 200 * (x >= SIZE[0] // 2)
    rgb[60:120][(x[60:120] // 2 + y[60:120] // 2) % 2 == 0] = 255
    from imagesr.media.clips import write_clip as write

    write(folder / "short.mp4", [Image.fromarray(rgb)] * 250, 25, crf=4)
    ffmpeg("-stream_loop", "9", "-i", folder / "short.mp4", "-c", "copy", folder / "film.mp4")
    return folder / "film.mp4"


class Desk:
    """Run a live command, press its keys, look at the screen."""

    def __init__(self, screen, folder, *command):
        self.screen, self._env = screen, os.environ | {"DISPLAY": screen}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command)], cwd=folder, env=self._env, stderr=subprocess.PIPE, text=True
        )
        try:
            self.wait_for(self._is_there)
            self._xdotool("windowfocus", "--sync", self._window)
            self.wait_for(self._shows_the_film)  # a window that stays black is a fault
        except BaseException:
            self.close()
            raise

    def _is_there(self):
        found = self._xdotool("search", "--onlyvisible", "--name", "imagesr -").split()
        self._window = found[-1] if found else None
        return found

    def _shows_the_film(self):
        picture = self.picture().astype(int)
        return picture.size and (picture[-30:, :100, 2] - picture[-30:, :100, 0]).mean() > 100  # blue on the left

    def _xdotool(self, *arguments):
        return subprocess.run(["xdotool", *arguments], env=self._env, capture_output=True, text=True, timeout=60).stdout

    def press(self, key):
        """Press a key. OpenCV keeps only the last one: wait for what it does before the next."""
        self._xdotool("key", key)

    def drag(self, start, end):
        """Drag from one place of the window to another, in its pixels."""
        self._xdotool("mousemove", "--window", self._window, *map(str, start), "mousedown", "1")
        self._xdotool("mousemove", "--window", self._window, *map(str, end), "mouseup", "1")

    def _place(self):
        """Return left, top, width and height; zeros while the window manager has it in hands."""
        done = subprocess.run(["xwininfo", "-id", self._window], env=self._env, capture_output=True, text=True)
        found = [re.search(rf"{name}: +(-?\d+)", done.stdout) for name in ("left X", "left Y", "Width", "Height")]
        return tuple(int(number[1]) for number in found) if all(found) else (0, 0, 0, 0)

    def size(self):
        return self._place()[2:]

    def picture(self):
        """Return what the window shows, RGB."""
        x, y, width, height = self._place()
        return np.asarray(ImageGrab.grab(xdisplay=self.screen).crop((x, y, x + width, y + height)).convert("RGB"))

    def wait_for(self, condition):
        until(condition, self.process)

    def wait_for_line(self, place):
        """Wait until the line of the split is at a place, as a share of the width; None for no line."""

        def there():
            found = line(self.picture())
            return found is place if place is None or found is None else abs(found - place) < 0.02

        self.wait_for(there)

    def close(self):
        """End it in any case."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if not self.process.stderr.closed:
            self.process.stderr.close()

    def end(self, key="q"):
        """Press the key for the end; returns what was said."""
        self.press(key)
        return self.ended()

    def ended(self):
        """Wait for the end; returns what was said."""
        _, told = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, told
        assert "Traceback" not in told
        return told


@pytest.fixture
def desk(screen, film, tmp_path, request):
    desk = Desk(screen, tmp_path, *[film if part == "FILM" else part for part in request.param])
    desk.folder = tmp_path
    yield desk
    desk.close()


def line(picture):
    """Return the column, as a share of the width, in which the white line of the split is; None without one."""
    rows = picture[round(0.72 * picture.shape[0]) : round(0.85 * picture.shape[0])].astype(int)
    white = rows.min(2).min(0)  # blue, red: none has all three
    return None if white.max() < 150 else float(white.argmax()) / picture.shape[1]


@pytest.mark.parametrize("desk", [("imagesr.webcam", "FILM")], indirect=True)
def test_a_window_shows_the_film_and_obeys(desk):
    desk.wait_for(lambda: desk.size() == (480, 270))
    plain = desk.picture()
    assert plain.shape == (270, 480, 3)
    np.testing.assert_allclose(plain[200, 40], (0, 0, 200), atol=30)  # blue on the left: RGB, not BGR
    np.testing.assert_allclose(plain[200, 440], (200, 0, 0), atol=30)
    assert line(plain) is None
    desk.press("s")
    desk.wait_for_line(0.5)
    desk.press("bracketright")
    desk.wait_for_line(0.55)
    desk.press("bracketright")
    desk.wait_for_line(0.6)
    desk.drag((round(0.6 * 480), 150), (120, 150))
    desk.wait_for_line(0.25)
    # What is left of the line is Lanczos, which is what A/B shows everywhere.
    split = desk.picture()
    desk.press("a")
    desk.wait_for_line(None)
    lanczos = desk.picture()
    assert np.abs(split[100:170, 10:100].astype(int) - lanczos[100:170, 10:100]).mean() < 2
    assert np.abs(split[100:170, 260:470].astype(int) - plain[100:170, 260:470]).mean() < 2
    assert np.abs(lanczos[100:170, 10:470].astype(int) - plain[100:170, 10:470]).mean() > 3
    desk.press("a")
    desk.wait_for_line(0.25)
    desk.press("s")
    desk.wait_for_line(None)
    # The figures in the corner go and come.
    with_figures = desk.picture()[:40, :150].astype(int)
    assert with_figures.std((0, 1)).max() > 20
    desk.press("o")
    desk.wait_for(lambda: desk.picture()[:40, :150].std((0, 1)).max() < 20)
    desk.press("o")
    desk.wait_for(lambda: desk.picture()[:40, :150].std((0, 1)).max() > 20)
    told = desk.end()
    assert "latency" in told


@pytest.mark.parametrize("desk", [("imagesr.webcam", "FILM", "--model", "lanczos")], indirect=True)
def test_pictures_and_recordings_are_kept(desk):
    def files(kind):
        return list(Path(desk.folder).glob(f"*{kind}"))

    desk.press("p")
    desk.wait_for(lambda: files(".png"))
    begun = time.monotonic()
    desk.press("r")
    desk.wait_for(lambda: files(".part"))
    shortest = time.monotonic()
    time.sleep(1.5)
    desk.press("z")  # refused while it records: another size would end it
    time.sleep(2)
    shortest = time.monotonic() - shortest
    desk.press("r")
    desk.wait_for(lambda: files(".mp4"))
    longest = time.monotonic() - begun
    desk.end()
    (photo,), (recording,) = files(".png"), files(".mp4")
    assert not files(".part")
    with Image.open(photo) as image:
        assert image.size == (480, 270)
        np.testing.assert_allclose(image.getpixel((40, 200)), (0, 0, 200), atol=30)
    with av.open(str(recording)) as container:
        video = container.streams.video[0]
        frames = [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in container.decode(video)]
    times = np.array([moment for moment, _ in frames])
    assert (np.diff(times) > 0).all()
    assert shortest / 3 < times[-1] < longest + 0.5  # as long as it took, whatever was dropped
    assert {frame.shape for _, frame in frames} == {(270, 480, 3)}
    np.testing.assert_allclose(frames[-1][1][200, 440], (200, 0, 0), atol=30)


@pytest.mark.parametrize("desk", [("imagesr.webcam", "FILM")], indirect=True)
def test_the_scale_changes(desk):
    before = desk.picture()[:18].astype(int)
    desk.press("z")
    desk.wait_for(lambda: np.abs(desk.picture()[:18] - before).max() > 100)  # its first line says so

    def sizes():
        desk.press("p")
        time.sleep(0.2)
        found = []
        for photo in Path(desk.folder).glob("*.png"):
            with Image.open(photo) as image:
                found.append(image.size)
        return found

    desk.wait_for(lambda: (640, 360) in sizes())
    desk.end("Escape")


@pytest.mark.parametrize("desk", [("imagesr.play", "FILM", "--mute", "--split")], indirect=True)
def test_a_film_is_played_paused_and_sought_in(desk):
    desk.wait_for_line(0.5)

    def done():
        """Return how far the bar at the bottom says that the film is."""
        bar = desk.picture()[-1].astype(int).min(1) > 200
        return bar.sum() / len(bar)

    def stands():
        """Say whether the bar stays where it is, which it would leave every 0.2 s; a busy machine stands, too."""
        before = done()
        return all(time.sleep(0.5) or done() == before for _ in range(4))

    desk.wait_for(lambda: done() > 0)
    first = done()
    assert first < 0.5
    desk.wait_for(lambda: done() > first)
    desk.press("space")
    desk.wait_for(stands)
    place = done()
    desk.press("r")
    desk.wait_for(lambda: list(Path(desk.folder).glob("*.part")))
    desk.press("r")  # nothing was shown in between: no recording, and no file
    desk.wait_for(lambda: not list(Path(desk.folder).iterdir()))
    desk.press("Right")
    desk.wait_for(lambda: done() == pytest.approx(place + 5 / 100, abs=0.008))
    desk.press("s")  # the picture follows the keys while it stands
    desk.wait_for_line(None)
    before = desk.picture()[110:150].astype(int)
    desk.press("n")  # a key without a meaning
    desk.press("m")  # another model: the checkerboard comes out differently
    desk.wait_for(lambda: np.abs(desk.picture()[110:150].astype(int) - before).mean() > 0.3)
    desk.drag((480 * 3 // 4, 268), (480 * 3 // 4, 268))
    desk.wait_for(lambda: done() == pytest.approx(0.75, abs=0.01))
    desk.press("space")
    desk.wait_for(lambda: done() > 0.765)
    desk.end()


@pytest.mark.parametrize("desk", [("imagesr.webcam", "FILM")], indirect=True)
def test_a_window_fills_the_screen_and_is_closed(desk):
    desk.press("f")
    desk.wait_for(lambda: desk.size() == (1024, 768))
    desk.press("f")
    desk.wait_for(lambda: 0 < desk.size()[0] < 1024)
    subprocess.run(["wmctrl", "-c", "imagesr -"], env=os.environ | {"DISPLAY": desk.screen}, check=True)
    assert "latency" in desk.ended()


@pytest.mark.skipif(sys.platform != "linux", reason="X11 is of Linux")
def test_events_of_the_window_are_qts(screen, tmp_path):
    """Where Xlib takes them a window stays black now and then: the dynamic linker says whose function Qt calls."""
    code = "import cv2, imagesr.live.window as w; w._leave_qt_its_events(); cv2.namedWindow('w')"
    linker = {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(tmp_path / "bindings")}
    done = run_python("-c", code, environment={"DISPLAY": screen} | linker)
    assert done.returncode == 0, done.stderr
    bindings = "".join(path.read_text() for path in tmp_path.iterdir())
    found = re.findall(r"libQt5XcbQpa\S+ \[0\] to (\S+) .*XSetEventQueueOwner", bindings)
    assert found and not any("opencv" in path for path in found), found


def test_a_screen_that_is_not_there_is_said(film):
    done = run_python("-m", "imagesr.webcam", film, environment={"DISPLAY": ":597"})
    assert done.returncode == 2
    assert "no screen" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_turned_film_stands_upright(tmp_path):
    """Rotation is a tag of the file, which a player obeys."""
    from imagesr.live.window import as_seen
    from imagesr.media.frames import Frame
    from imagesr.media.source import Source

    path = write_clip(tmp_path / "flat.mp4", size=(64, 36))
    turned = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", path, "-c", "copy", turned)
    with Source(turned) as source:
        info = source.info
    shown = as_seen(np.arange(36 * 64 * 3, dtype=np.uint8).reshape(36, 64, 3), info)
    assert shown.shape == (64, 36, 3)
    upright = np.frombuffer(ffmpeg("-i", turned, "-frames:v", "1", "-pix_fmt", "gray", "-f", "rawvideo", "-"), np.uint8)
    with Source(turned) as source:
        frame = next(item for item in source if isinstance(item, Frame))
    gray = frame.to_ndarray(format="gray")
    ours = as_seen(np.repeat(gray[..., None], 3, 2), info)[..., 0]
    assert np.abs(ours.astype(int) - upright.reshape(64, 36)).mean() < 3
