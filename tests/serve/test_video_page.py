"""The page for videos in a real browser, before a service whose processes only pretend."""

import asyncio
import re
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
import uvicorn
from conftest import chromium, drop, paste, write_clip
from running import until
from starlette.responses import JSONResponse

from imagesr.card import find_models
from imagesr.cli import UNREADABLE
from imagesr.serve.app import create_app
from imagesr.serve.client import main as send
from imagesr.serve.guard import HEADERS
from imagesr.serve.metrics import Metrics
from imagesr.serve.schemas import VIDEO_MODELS
from imagesr.serve.server import listen
from imagesr.serve.videos import Videos

MOST = 3_000_000
# It goes on when the test says so.
WORKER = """
import json, os, shutil, sys, time
os.chdir(sys.argv[1])
if sys.argv[2] == "look":
    if open("the video", "rb").read(4) == b"none":
        print("Expected a video file. Cannot read the video: it is none", file=sys.stderr)
        sys.exit(3)
    print(json.dumps({"width": 160, "height": 96, "frames": 50}))
    sys.exit()
line = {"frames": 20, "expected": 50, "fps": 10.0, "eta_s": 3.0}
print(json.dumps(line), file=sys.stderr, flush=True)
while not os.path.exists(GO):
    time.sleep(0.02)
shutil.copy(RESULT, sys.argv[4])
json.dump({"frames": 50, "fps": 10.0, "missing": ""}, open("report.json", "w"))
"""


class Pretending(Videos):
    """Start WORKER in place of the real process; its result lies ready."""

    def __init__(self, folder, result):
        limits = {"at_once": 1, "queue": 2, "bytes": MOST, "seconds": 3600, "folder": None}
        super().__init__(**limits, pixels=16_000_000, threads=1)
        self.go, self.temporary, self.asked = folder / "go", folder, ()
        self.program = WORKER.replace("GO", repr(str(self.go))).replace("RESULT", repr(str(result)))

    async def _start(self, folder, *arguments, stdout):
        self.asked = arguments
        streams = {"stdin": subprocess.PIPE, "stdout": stdout, "stderr": subprocess.PIPE}
        return await asyncio.create_subprocess_exec(sys.executable, "-c", self.program, folder, *arguments, **streams)


class Service:
    """What the routes need of the service."""

    champions = feedback = None

    def __init__(self, videos):
        self.videos, self.metrics, self.draining = videos, Metrics(), False

    def check_ready(self):
        """Take everything."""

    def running(self):
        return self.videos.running(self.videos.temporary)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Return a clip, and what stands for its result: twice as large, of the same frames."""
    folder = tmp_path_factory.mktemp("clips")
    return [write_clip(folder / f"lake{size[0]}.mp4", size=size, frames=50) for size in ((160, 96), (320, 192))]


@pytest.fixture
def site(tmp_path, clips):
    """Serve the page; yields what holds the videos, with the `address`."""
    videos = Pretending(tmp_path, clips[1])
    app = create_app(Service(videos))

    async def around(scope, receive, send):
        async def guarded(message):
            if message["type"] == "http.response.start":
                more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = message | {"headers": [*message["headers"], *more]}
            await send(message)

        if scope.get("path") == "/models":
            await JSONResponse({"models": [], "videos": {"max_bytes": MOST, **VIDEO_MODELS}})(scope, receive, guarded)
        else:
            await app(scope | {"state": {"give_time": lambda seconds: None}}, receive, guarded)

    with listen("127.0.0.1", 0) as sock:
        videos.address = f"http://127.0.0.1:{sock.getsockname()[1]}/video.html"
        server = uvicorn.Server(uvicorn.Config(around, lifespan="on", log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        yield videos
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser():
    driver = chromium("--disable-gpu", "--autoplay-policy=no-user-gesture-required", size=(1000, 800))
    yield driver
    driver.quit()


def find(browser, name):
    return browser.find_element("id", name)


def text(browser, name):
    with suppress(Exception):
        return find(browser, name).text
    return ""


def videos_of(browser):
    """Return (time, paused, width) of the leading video and of the one that follows."""
    script = "return ['after', 'before'].map((n) => document.querySelector(`.${n} > video`))"
    script += ".map((v) => v && [v.currentTime, v.paused, v.videoWidth])"
    return browser.execute_script(script)


def test_a_video_is_sent_watched_compared_and_deleted(browser, site, clips, tmp_path):
    from selenium.webdriver.support.select import Select

    browser.get(site.address)
    until(lambda: find(browser, "model").is_enabled())
    assert "3.0 MB" in text(browser, "limits")
    find(browser, "file").send_keys(str(clips[0]))
    until(lambda: "20 of 50 frames · 10.0 fps · 0:03 left" in text(browser, "doing"))
    assert float(find(browser, "progress").get_attribute("value")) == pytest.approx(0.4)
    browser.refresh()  # the address knows the video
    until(lambda: "20 of 50 frames" in text(browser, "doing"))
    site.go.touch()
    until(lambda: find(browser, "download").is_displayed())
    assert [bool(video) for video in videos_of(browser)] == [False, True], "the file is not known any more"
    browser.get(site.address)
    until(lambda: find(browser, "model").is_enabled())
    Select(find(browser, "model")).select_by_value("fast")
    assert not any(find(browser, name).is_enabled() for name in ("detail", "clean"))
    for name, value in {"model": "balanced", "size": "scale=1", "detail": "0.3", "clean": "0.5"}.items():
        Select(find(browser, name)).select_by_value(value)
    drop(browser, clips[0])
    until(lambda: find(browser, "download").is_displayed())
    assert {"--model=balanced", "--scale=1", "--detail=0.3", "--clean=0.5"} <= {*site.asked}
    assert "160 × 96 → 320 × 192 · 50 frames" in text(browser, "facts")
    after, before = videos_of(browser)
    assert (after[2], before[2]) == (320, 160)

    def in_step():
        (time, paused, _), (other, _, _) = videos_of(browser)
        return not paused and time > 0 and abs(time - other) < 0.04

    until(in_step)
    find(browser, "play").click()
    browser.execute_script(
        "const t = document.getElementById('time'); t.value = 1.3; t.dispatchEvent(new Event('input'))"
    )
    until(lambda: all(paused and abs(time - 1.3) < 0.01 for time, paused, _ in videos_of(browser)))
    link = find(browser, "download")
    assert link.get_attribute("download") == "lake160_upscaled.mp4"
    assert re.fullmatch(r".*/video/[\w-]{22}/result", link.get_attribute("href"))
    find(browser, "delete").click()
    until(lambda: text(browser, "status") == "Deleted." and "#" not in browser.current_url.rstrip("#"))
    told = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert told == []


def test_the_page_offers_numbers_where_the_models_take_them():
    takes = {name: find_models(name) for name in VIDEO_MODELS["models"] if name != "lanczos"}
    numbers = {name: {(card.detail is None, card.clean is None) for card in cards} for name, cards in takes.items()}
    assert [name for name, found in numbers.items() if found == {(False, False)}] == VIDEO_MODELS["tuned"]


def test_send_takes_a_video(site, clips, tmp_path, capsys):
    url, out = site.address.removesuffix("/video.html"), tmp_path / "sent"
    site.go.touch()
    assert send([str(clips[0]), "--to", url, "--out", str(out), "--model", "fast"]) == 0
    assert (out / "lake160.mp4").read_bytes() == clips[1].read_bytes()
    until(lambda: not [path for path in tmp_path.iterdir() if path.is_dir() and path != out])  # it is deleted there
    assert send([str(clips[0]), "--to", url, "--out", str(out), "--model", "fast"]) == 0
    assert "is there already" in capsys.readouterr().err
    (tmp_path / "none.mp4").write_bytes(b"none" * 10)
    assert send([str(tmp_path / "none.mp4"), "--to", url, "--out", str(out), "--model", "fast"]) == UNREADABLE
    assert "Cannot read the video: it is none" in capsys.readouterr().err
    assert send([str(clips[0]), "--to", url, "--out", str(out), "--model", "mine", "-y"]) == UNREADABLE
    assert "Expected model as one of fast" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_refused_is_told_and_a_job_can_be_cancelled(browser, site, clips, tmp_path):
    browser.get(site.address)
    until(lambda: find(browser, "model").is_enabled())
    (tmp_path / "none.mp4").write_bytes(b"none" * 10)
    (tmp_path / "long.mp4").write_bytes(bytes(MOST + 1))
    for name, says in (("none", "Cannot read the video"), ("long", "at most 3,000,000 bytes")):
        find(browser, "file").send_keys(str(tmp_path / f"{name}.mp4"))
        until(lambda: says in text(browser, "message"))  # noqa: B023
    paste(browser, b"none", "video/mp4")
    until(lambda: "Cannot read the video" in text(browser, "message"))
    find(browser, "file").send_keys(str(clips[0]))
    until(lambda: "20 of 50 frames" in text(browser, "doing"))
    find(browser, "cancel").click()
    until(lambda: not any(path.is_dir() for path in tmp_path.iterdir()))
    assert not find(browser, "message").is_displayed()
    assert not find(browser, "job").is_displayed()
