"""Clips made by PyAV, and ffmpeg as the independent reader of what came of them."""

import base64
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryFile

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from needs import TESTS, imports_keras, needs, of_tests

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As this process has it; `imagesr serve`, run within it, sets it for the processes that follow.
BLAS_THREADS = {key: value for key, value in os.environ.items() if key == "OPENBLAS_NUM_THREADS"}

# Busy machines are slow.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

DATA = Path(os.environ["IMAGESR_DATA"]) if os.environ.get("IMAGESR_DATA") else None
SAMPLE_RATE = 48_000

# Options that make the large networks small enough for tests.
SMALL = {
    "realtime": {"filters": 4, "blocks": 1},
    "vdsr": {"depth": 4, "filters": 8},
    "ffdnet": {"depth": 3, "filters": 8},
    "edsr_baseline": {"filters": 8, "blocks": 2},
    "edsr": {"filters": 8, "blocks": 2},
    "rdn": {"filters": 8, "blocks": 2, "convolutions": 2, "growth": 4},
    "srresnet": {"filters": 8, "blocks": 2},
}


def left_out(config):
    """Return the files that are not read because every test in them needs Keras, which is not wanted."""
    wanted = not re.search(r"\bnot \(?keras\b", config.option.markexpr)
    return [] if wanted else [file for file in TESTS.rglob("test_*.py") if imports_keras(file)]


def pytest_ignore_collect(collection_path, config):
    """Leave out files whose import takes many seconds for tests that are not run."""
    return True if collection_path in left_out(config) else None


def pytest_report_header(config):
    """Say what is left out."""
    unread = f"; not read, because they need Keras: {len(left_out(config))} files" if left_out(config) else ""
    return f"chosen: -m {config.option.markexpr!r}{unread}"


def pytest_collection_modifyitems(items):
    """Give every test the marks of what it needs, and skip those whose data are not there; order the files.

    A worker takes a file at a time. The largest come first, so that none is left at the end while the other worker is
    idle; those that import Keras come last, because a test that says nothing of Keras is held to that before.
    """
    order = {path: (imports_keras(path), -path.stat().st_size) for path in {item.path for item in items}}
    items.sort(key=lambda item: order[item.path])
    for item in items:
        fixtures = [one.func for found in item._fixtureinfo.name2fixturedefs.values() for one in found]
        functions = [function for function in (item.function, *fixtures) if of_tests(inspect.unwrap(function))]
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        names = set(item.fixturenames) - set(parameters)  # a parameter may be called as a fixture is
        for mark in sorted(needs(functions, names, item.path, parameters)):
            item.add_marker(mark)
        if DATA is None and "data" in names:
            item.add_marker(pytest.mark.skip(reason="needs the shared pictures and clips (IMAGESR_DATA)"))


@pytest.fixture(autouse=True)
def scheduling():
    """Take back the real-time scheduling that SVT-AV1 gives the process; browsers would inherit it."""
    from imagesr.media.encoders import ordinary_scheduling

    with ordinary_scheduling():
        yield


@pytest.fixture(autouse=True)
def keras_is_marked(request):
    """Fail a test that imports Keras and does not say so; this is seen where no test before it has."""
    before = "keras" in sys.modules
    yield
    assert before or "keras" not in sys.modules or request.node.get_closest_marker("keras"), "mark it with keras"


def slow(*values):
    """Return a case of a parametrised test that `-m slow` runs alone."""
    return pytest.param(*values, marks=pytest.mark.slow)


class Clock:
    """Stand in for the module `time`: its time goes on when somebody sleeps, and things happen `later`."""

    def __init__(self):
        self._now, self._events, self._lock = 1000.0, [], threading.Lock()

    def perf_counter(self):
        return self._now

    monotonic = time = perf_counter

    def later(self, seconds, event):
        """Call a function once so much time has passed."""
        self._events.append((self._now + seconds, event))

    def sleep(self, seconds):
        """Let time pass for everybody."""
        with self._lock:
            self._now += max(seconds, 1e-4)  # a system does no better
            due = [event for moment, event in self._events if moment <= self._now]
            self._events = [(moment, event) for moment, event in self._events if moment > self._now]
        for event in due:
            event()
        time.sleep(0.001)  # for other threads, which a busy loop would hold up


@pytest.fixture
def clock():
    """Return a clock that stands in for the module `time`."""
    return Clock()


@pytest.fixture(scope="session")
def data():
    """Return the folder of shared pictures and clips."""
    return DATA


def picture(width, height, shift=0):
    """Return an RGB picture with smooth and sharp parts that moves with `shift`, (height, width, 3) uint8."""
    y, x = np.mgrid[:height, :width].astype(float)
    x = x + shift
    red = 128 + 70 * np.sin(x / 31) * np.cos(y / 23)
    green = 110 + 60 * np.sin((x + 2 * y) / 47) + 30 * (((x // 24) + (y // 18)) % 2)
    blue = 90 + 0.3 * (x % width) * 128 / width + 40 * np.cos((x - y) / 13)
    return np.clip(np.stack([red, green, blue], -1), 0, 255).astype(np.uint8)


def write_clip(
    path,
    *,
    size=(192, 108),
    frames=12,
    rate=Fraction(25),
    pix_fmt="yuv420p",
    codec="libx264",
    sound="aac",
    options=None,
    pts=None,
    **tags,
):
    """Write a clip with moving content and, unless `sound` is None, a tone; `pts` are frame times in 1/90000 s."""
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "A title"
        time_base = Fraction(1, 90_000) if pts else 1 / rate
        options = {"crf": "12", "preset": "veryfast"} | (options or {}) if codec == "libx264" else options
        video = container.add_stream(codec, rate=rate, options=options or {}, time_base=time_base)
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        for tag, value in tags.items():
            setattr(video.codec_context, tag, value)
        audio = container.add_stream(sound, rate=SAMPLE_RATE, layout="stereo") if sound else None
        chunk = round(SAMPLE_RATE / rate)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(*size, shift=2 * i), "rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = pts[i] if pts else i, time_base
            container.mux(video.encode(frame))
            if audio:
                time = (np.arange(chunk) + i * chunk) / SAMPLE_RATE
                wave = np.sin(2 * np.pi * 440 * time).astype(np.float32)
                samples = av.AudioFrame.from_ndarray(np.stack([wave, 0.5 * wave]), "fltp", "stereo")
                samples.sample_rate, samples.pts = SAMPLE_RATE, i * chunk
                samples.time_base = Fraction(1, SAMPLE_RATE)
                container.mux(audio.encode(samples))
        container.mux(video.encode())
        if audio:
            container.mux(audio.encode())
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Return the path of a clip of 12 frames with sound, 192x108."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


def ffmpeg(*arguments):
    """Run ffmpeg and return what it writes to standard output."""
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [get_ffmpeg_exe(), "-v", "error", "-nostdin", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def packet_hashes(path, streams="a"):
    """Return (size, MD5) of every packet of the streams, as ffmpeg reads them."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
    lines = ffmpeg("-i", path, "-map", f"0:{streams}", "-c", "copy", "-f", "framehash", "-hash", "md5", "-")
    return [tuple(line.split(",")[4:6]) for line in lines.decode().splitlines() if line and line[0] != "#"]


def frame_times(path):
    """Return the time of every decoded frame in seconds, exactly, as ffmpeg reads them."""
    how = ["-map", "0:v:0", "-fps_mode", "passthrough", "-enc_time_base", "demux", "-f", "framecrc"]
    lines = ffmpeg("-copyts", "-noautorotate", "-i", path, *how, "-").decode().splitlines()
    time_base = next(Fraction(line.split()[-1]) for line in lines if line.startswith("#tb"))
    return [int(line.split(",")[2]) * time_base for line in lines if line[0] != "#"], time_base


def thumbnails(path, size, pix_fmt):
    """Return every frame reduced to `size` by area averaging: a list of its planes, int, one array per plane."""
    width, height = size
    raw = ffmpeg(
        *("-noautorotate", "-i", path, "-fps_mode", "passthrough"),
        *("-vf", f"scale={width}:{height}:flags=area+accurate_rnd", "-pix_fmt", pix_fmt, "-f", "rawvideo", "-"),
    )
    dtype = np.dtype("<u2" if "10" in pix_fmt else "u1")
    sub = {"yuv420p": (2, 2), "yuv422p": (2, 1)}.get(pix_fmt.removesuffix("10le"), (1, 1))
    chroma = (-(-height // sub[1]), -(-width // sub[0]))
    sizes = [height * width, *([] if pix_fmt.startswith("gray") else [chroma[0] * chroma[1]] * 2)]
    samples = np.frombuffer(raw, dtype).astype(int).reshape(-1, sum(sizes))
    cuts = np.cumsum(sizes)[:-1]
    return [np.split(frame, cuts) for frame in samples]


def run_command(name, *arguments):
    """Run a command within this process and return what `subprocess.run` returns; twenty times as fast as a new one."""
    from imagesr.__main__ import find_main

    main, arguments = find_main(name), [str(argument) for argument in arguments]
    saved = os.dup(1), os.dup(2)
    with TemporaryFile("w+", encoding="utf-8") as out, TemporaryFile("w+", encoding="utf-8") as err:
        try:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            with redirect_stdout(out), redirect_stderr(err):
                try:
                    code = main(arguments)
                except SystemExit as end:
                    code = end.code
                out.flush()
                err.flush()
        finally:
            for number, descriptor in enumerate(saved, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)
        out.seek(0), err.seek(0)
        return subprocess.CompletedProcess([name, *arguments], code or 0, out.read(), err.read())


def run_video(*arguments):
    """Run `imagesr video` within this process; returns what `subprocess.run` returns."""
    return run_command("video", *arguments)


def run_python(*arguments, timeout=300, environment=None):
    """Run Python with arguments as a user does; returns the finished process."""
    command = [sys.executable, *map(str, arguments)]
    env = os.environ | (environment or {})
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env)


def chromium(*arguments, size=(1400, 1200)):
    """Start a Chromium without a window; the test is skipped where there is none."""
    driver = shutil.which("chromedriver")
    if not driver:
        pytest.skip("needs Chromium (apt install chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-background-networking", "--no-first-run"),
        *("--disable-component-update", "--disable-sync", f"--window-size={size[0]},{size[1]}"),
        *(arguments or ["--disable-gpu"]),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, Service(driver))


def drop(browser, file):
    """Drop a file on the page, as from a file manager."""
    place = browser.find_element("id", "source").rect
    where = {"x": place["x"] + 50, "y": place["y"] + 50}
    data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, **where, "data": data})


def paste(browser, data, type):
    """Paste the bytes of a file of a type, such as image/png, into the page."""
    browser.execute_script(
        """const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        const clipboardData = new DataTransfer();
        clipboardData.items.add(new File([bytes], "pasted", { type: arguments[1] }));
        document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));""",
        base64.b64encode(data).decode(),
        type,
    )


@pytest.fixture(scope="session")
def browser():
    """Start a Chromium for the session."""
    browser = chromium()
    yield browser
    browser.quit()


@pytest.fixture
def handlers():
    """Give the test run its own answer to SIGTERM back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
