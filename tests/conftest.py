"""Clips made by PyAV, and ffmpeg as the independent reader of what came of them."""

import os
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As this process has it; `imagesr serve`, run within it, sets it for the processes that follow.
BLAS_THREADS = {key: value for key, value in os.environ.items() if key == "OPENBLAS_NUM_THREADS"}

DATA = Path(os.environ["IMAGESR_DATA"]) if os.environ.get("IMAGESR_DATA") else None
SAMPLE_RATE = 48_000

# Options that make the large networks small enough for tests.
SMALL = {
    "realtime": {"filters": 4, "blocks": 1},
    "vdsr": {"depth": 4, "filters": 8},
    "edsr_baseline": {"filters": 8, "blocks": 2},
    "edsr": {"filters": 8, "blocks": 2},
    "rdn": {"filters": 8, "blocks": 2, "convolutions": 2, "growth": 4},
    "srresnet": {"filters": 8, "blocks": 2},
}


def pytest_collection_modifyitems(items):
    """Leave out what needs the shared pictures and clips where there are none: such tests do more, not else."""
    if DATA is None:
        items[:] = [item for item in items if "data" not in item.fixturenames]


@pytest.fixture(autouse=True)
def scheduling():
    """Take back the real-time scheduling that SVT-AV1 gives the process; browsers would inherit it."""
    from imagesr.media.encoders import ordinary_scheduling

    with ordinary_scheduling():
        yield


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


def run_video(*arguments, timeout=120):
    """Run `python -m imagesr.video` as a user does; returns the finished process."""
    command = [sys.executable, "-m", "imagesr.video", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def run_python(*arguments, timeout=120, environment=None):
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
