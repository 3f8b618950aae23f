"""Videos as jobs: the routes with a process that only pretends, and one real service."""

import asyncio
import functools
import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from conftest import write_clip
from PIL import Image
from running import Running, until

from imagesr.media.source import Source
from imagesr.serve import uploads, videos
from imagesr.serve.app import create_app
from imagesr.serve.metrics import Metrics
from imagesr.serve.refusal import Refusal
from imagesr.serve.videos import Videos

HEAD = b"\x1a\x45\xdf\xa3"  # of a video
# What stands for `imagesr.serve.video_worker`: the video's words say how it behaves.
WORKER = """
import json, os, sys, time
os.chdir(sys.argv[1])
words = open("the video", "rb").read()[4:].decode().split()
told = dict(word.split("=") for word in words if "=" in word)
def fail(code, text):
    print(text, file=sys.stderr)
    sys.exit(code)
if sys.argv[2] == "look":
    if "text" in words:
        fail(3, "Expected a video file. Cannot read the video: it is none")
    if "huge" in words:
        fail(2, "Expected frames of at most 16 megapixels. Received: 9000x9000")
    print(json.dumps({"width": 64, "height": 48, "frames": 10}))
    sys.exit()
out = sys.argv[4]
def advance(frames):
    line = {"frames": frames, "expected": 10, "fps": 5.0, "eta_s": (10 - frames) / 5}
    print(json.dumps(line), file=sys.stderr, flush=True)
advance(4)
open(out + ".part", "w").write("half")
if "waits" in words:
    while not os.path.exists(told["until"]):
        time.sleep(0.01)
if "crash" in words:
    os.kill(os.getpid(), 9)
if "full" in words:
    fail(4, "imagesr video: disk full: the result.mp4.part")
if "blank" in words:
    fail(3, "imagesr video: Expected a video. Not one frame of the video can be decoded")
advance(10)
os.rename(out + ".part", out)
missing = "2 frames missing" if "damaged" in words else ""
json.dump({"frames": 10, "fps": 5.0, "missing": missing, "arguments": sys.argv[3:]}, open("report.json", "w"))
sys.exit(5 if missing else 0)
"""


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


class Pretending(Videos):
    """Start WORKER in place of the real process."""

    async def _start(self, folder, *arguments, stdout):
        streams = {"stdin": subprocess.PIPE, "stdout": stdout, "stderr": subprocess.PIPE}
        return await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, folder, *arguments, **streams)


class Service:
    """What the routes need of the service."""

    champions = feedback = None

    def __init__(self, **limits):
        defaults = {"at_once": 1, "queue": 1, "bytes": 10_000, "seconds": 3600, "folder": None}
        self.videos = Pretending(**defaults | {"pixels": 16_000_000, "threads": 2} | limits)
        self.metrics, self.draining = Metrics(), False

    def check_ready(self):
        if self.draining:
            raise Refusal(503, "draining", "Expected a service that stays. It is being stopped")


@asynccontextmanager
async def serving(base, **limits):
    """Yield a service, whose temporary folder is `base`, and a client of its application."""
    base.mkdir(exist_ok=True)
    service = Service(**limits)
    app = create_app(service)

    async def with_state(scope, receive, send):
        await app(scope | {"state": {"give_time": lambda seconds: None}}, receive, send)

    transport = httpx.ASGITransport(with_state)
    async with service.videos.running(base), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        client.app = with_state
        yield service, client


async def eventually(true):
    async with asyncio.timeout(180):
        while not (found := await true()):
            await asyncio.sleep(0.01)
        return found


async def added(client, words="", query=""):
    answer = await client.post(f"/video{query}", content=HEAD + words.encode())
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/video/{answer.json()['id']}"
    return answer.headers["location"]


async def in_state(client, video, *states):
    async def reached():
        told = (await client.get(video)).json()
        return told if told["state"] in states else None

    return await eventually(reached)


def scene(function):
    """Run an asynchronous test."""

    @functools.wraps(function)
    def run(*args, **fixtures):
        asyncio.run(function(*args, **fixtures))

    return run


@scene
async def test_a_video_is_made_watched_fetched_in_parts_and_deleted(tmp_path):
    async with serving(tmp_path) as (service, client):
        video = await added(client, query="?scale=2&model=lanczos&crf=20&start=1&format=mkv")
        assert re.fullmatch(r"/video/[\w-]{22}", video)
        events = await client.get(f"{video}/events")
        assert events.headers["content-type"].startswith("text/event-stream")
        told = [json.loads(line[6:]) for line in events.text.splitlines() if line.startswith("data: ")]
        assert told[-1] == (await client.get(video)).json()
        last = {"state": "done", "frames": 10, "expected": 10, "fps": 5.0, "left_s": 0, "bytes": 4, "error": ""}
        assert last.items() <= told[-1].items()
        assert told[-1]["size"] == [64, 48]
        folder = next(tmp_path.iterdir())
        arguments = json.loads((folder / "report.json").read_text())["arguments"]
        assert arguments[:2] == ["the video", "the result.mkv"]
        assert {"--scale=2", "--model=lanczos", "--crf=20.0", "--start=1.0", "--threads", "2"} <= set(arguments)
        assert not (folder / "the video").exists()
        whole = await client.get(f"{video}/result")
        assert (whole.status_code, whole.content) == (200, b"half")
        assert whole.headers["content-type"] == "video/x-matroska"
        part = await client.get(f"{video}/result", headers={"Range": "bytes=1-2"})
        assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"al", "bytes 1-2/4")
        for wrong in ("bytes=4-", "bytes=2-1", "lines=1-2", "bytes=-", "bytes=-0", "bytes=" + "0-1," * 11):
            answer = await client.get(f"{video}/result", headers={"Range": wrong})
            assert (answer.status_code, list(answer.json())) == (416, ["error"]), wrong
        assert (await client.put(video)).headers["allow"] == "DELETE, GET"
        head = await client.head(f"{video}/result")
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "4", b"")
        assert b'imagesr_videos{state="done"} 0' not in service.metrics.text()
        assert (await client.delete(video)).status_code == 204
        assert not list(tmp_path.iterdir())
        for path in (video, f"{video}/events", f"{video}/result"):
            answer = await client.get(path)
            assert (answer.status_code, list(answer.json())) == (404, ["error"])
        assert "has been started again" in answer.json()["error"]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ("crash", 500, "SIGKILL"),
        ("full", 503, "disk full"),
        ("blank", 400, "Not one frame of the video can be decoded"),
    ],
)
def test_a_video_that_fails_says_why_and_the_next_one_is_made(tmp_path, words, status, says):
    async def fails():
        async with serving(tmp_path) as (_, client):
            video, after = await added(client, words), await added(client, "damaged")
            told = await in_state(client, video, "failed")
            assert says in told["error"]
            answer = await client.get(f"{video}/result")
            assert (answer.status_code, answer.json()) == (status, {"error": told["error"]})
            assert [file.name for file in (tmp_path / video[7:]).iterdir()] == ["job.json"]
            assert (await in_state(client, after, "done"))["missing"] == "2 frames missing"

    asyncio.run(fails())


REFUSALS = {
    "none": (400, b"", "", {}, "Received: nothing"),
    "text": (415, HEAD.replace(b"\x1a", b"a") + b"text", "", {}, "Expected a video file. Cannot read the video"),
    "damaged": (400, HEAD + b"text", "", {}, "Expected a video file. Cannot read the video"),
    "photo": (415, b"\xff\xd8\xff\xe0" + bytes(99), "", {}, "Received: JPEG; pictures go to /supersizeme"),
    "json": (415, b'{"video": "AAAA"}', "", {}, "Received: JSON"),
    "huge": (413, HEAD + b"huge", "", {}, "at most 16 megapixels"),
    "bytes": (413, HEAD + bytes(10_000), "", {}, "at most 10,000 bytes. Received: 10,004 bytes"),
    "encoded": (415, HEAD, "", {"Content-Encoding": "gzip"}, "Received: Content-Encoding 'gzip'"),
    "scale": (422, HEAD, "?scale=0.9", {}, "a scale from 1 to 8"),
    "own size": (422, HEAD, "?scale=1&model=best", {}, "a model of scale 1 (balanced)"),
    "both": (422, HEAD, "?scale=2&size=1080p", {}, "scale or size. Received: both"),
    "size": (422, HEAD, "?size=large", {}, "a size such as 1920x1080"),
    "large": (422, HEAD, "?size=9000x9000", {}, "at most 64 megapixels a frame. Received: 9000x9000"),
    "model": (422, HEAD, "?model=../../etc", {}, "model as one of fast, balanced, best, lanczos"),
    "detail": (422, HEAD, "?detail=2", {}, "a detail from 0 to 1"),
    "clean": (422, HEAD, "?clean=nan", {}, "a clean from 0 to 1, or auto"),
    "no clean": (422, HEAD, "?clean=1&model=fast", {}, "a model that takes a clean"),
    "grain": (422, HEAD, "?grain=0.5", {}, "Received: 'grain'"),
    "no detail": (422, HEAD, "?detail=1&model=fast", {}, "a model that takes a detail"),
    "crf": (422, HEAD, "?crf=64", {}, "a crf from 0 to 63"),
    "number": (422, HEAD, "?start=nan", {}, "Received: 'nan'"),
    "misspelt": (422, HEAD, "?sacle=2", {}, "Received: 'sacle'"),
}


@scene
async def test_refusals_are_one_sentence_and_leave_nothing(tmp_path):
    async with serving(tmp_path) as (_, client):
        for name, (status, body, query, headers, says) in REFUSALS.items():
            answer = await client.post(f"/video{query}", content=body, headers=headers)
            assert (answer.status_code, list(answer.json())) == (status, ["error"]), (name, answer.text)
            assert says in answer.json()["error"], name

        async def chunks():
            for _ in range(4):
                yield HEAD * 1000

        assert (await client.post("/video", content=chunks())).status_code == 413
        assert not list(tmp_path.iterdir())


@scene
async def test_uploads_that_begin_together_take_no_more_than_the_places(tmp_path):
    async with serving(tmp_path / "jobs", queue=0) as (service, client):
        all_asked = asyncio.Event()

        async def chunks():
            yield HEAD
            await all_asked.wait()

        service.videos.check_place(None)
        service.videos.check_place(None)  # both were told that there is a place
        with service.videos.place(None), pytest.raises(Refusal, match="Expected a free place"):
            service.videos.place(None).__enter__()
        assert not list((tmp_path / "jobs").iterdir())
        sent = [asyncio.create_task(client.post("/video", content=chunks())) for _ in range(3)]
        await eventually(lambda: asyncio.sleep(0, sum(task.done() for task in sent) == 2))
        all_asked.set()
        assert sorted([(await task).status_code for task in sent]) == [202, 429, 429]


@scene
async def test_the_room_of_uploads_under_way_is_taken(tmp_path):
    async with serving(tmp_path / "jobs", queue=1) as (service, _):
        with pytest.MonkeyPatch.context() as patch, service.videos.place(6000) as folder:
            free = videos._RESERVE + 20_000
            patch.setattr(videos.shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
            with pytest.raises(Refusal, match="of space for a video"), service.videos.place(6000):
                pass
            (folder / videos.SOURCE).write_bytes(bytes(4000))  # what has come is no longer free
            with service.videos.place(6000):
                pass


@scene
async def test_the_queue_is_bounded_and_in_order_and_jobs_can_be_cancelled(tmp_path):
    async with serving(tmp_path / "jobs") as (service, client):
        first = await added(client, f"waits until={tmp_path / 'go'}")
        second = await added(client, f"waits until={tmp_path / 'go'}")
        assert (await in_state(client, first, "running"))["state"] == "running"
        answer = await client.post("/video", content=HEAD)
        assert (answer.status_code, answer.json()["error"][:22]) == (429, "Expected a free place.")
        assert int(answer.headers["retry-after"]) >= 1
        early = await client.get(f"{second}/result")
        assert (early.status_code, early.headers["retry-after"]) == (409, "5")
        assert b'imagesr_videos{state="waiting"} 0' not in service.metrics.text()
        process = service.videos._videos[first[7:]].task
        watching = asyncio.create_task(client.get(f"{first}/events"))
        await eventually(lambda: asyncio.sleep(0, service.videos._videos[first[7:]].watchers))
        assert (await client.delete(first)).status_code == 204
        assert '"error": "The video was deleted"' in (await watching).text
        assert process.cancelled()
        await in_state(client, second, "running")
        third = await added(client)
        (tmp_path / "go").touch()
        await in_state(client, third, "done")
        assert sorted(folder.name for folder in (tmp_path / "jobs").iterdir()) == sorted([second[7:], third[7:]])


@scene
async def test_results_expire(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(videos, "_SWEEP_SECONDS", 0.05)
        async with serving(tmp_path, seconds=0.05) as (_, client):
            video = await added(client)

            async def gone():
                return (await client.get(video)).status_code == 404

            await eventually(gone)
            await eventually(lambda: asyncio.sleep(0, not list(tmp_path.iterdir())))


@scene
async def test_what_a_service_leaves_the_next_one_goes_on_with(tmp_path):
    kept = tmp_path / "kept"
    async with serving(tmp_path / "one", folder=kept) as (service, client):
        done = await added(client)
        told = await in_state(client, done, "done")
        begun = await added(client, f"waits until={tmp_path / 'go'}")
        waiting = await added(client)
        await in_state(client, begun, "running")
        watching = asyncio.create_task(client.get(f"{begun}/events"))
        await eventually(lambda: asyncio.sleep(0, service.videos._videos[begun[7:]].watchers))
        service.draining = True
        service.videos.stop()
        await watching  # they are let go
        assert (await client.post("/video", content=HEAD)).status_code == 503
    (kept / ("x" * 22)).mkdir()
    (kept / ("x" * 22) / "the video").touch()  # an upload that a crash has cut off
    (kept / "somebody's").mkdir()
    (tmp_path / "go").touch()
    async with serving(tmp_path / "two", folder=kept) as (_, client):
        assert (await client.get(done)).json() == told
        assert (await client.get(f"{done}/result")).content == b"half"
        for video in (begun, waiting):
            await in_state(client, video, "done")
        assert "started again" not in (await client.get("/video/x")).json()["error"]
    names = {done[7:], begun[7:], waiting[7:], "somebody's"}
    assert {path.name for path in kept.iterdir()} == names


@scene
async def test_what_a_service_finds_in_its_folder_does_not_stop_it(tmp_path, capsys):
    kept = tmp_path / "kept"
    async with serving(tmp_path / "one", folder=kept) as (_, client):
        begun = [await added(client, f"waits until={tmp_path / 'go'}") for _ in range(2)]
        await in_state(client, begun[0], "running")
    for video in begun:
        job = kept / video[7:] / "job.json"
        job.write_text(json.dumps(json.loads(job.read_text()) | {"state": "running"}))
    for number, text in enumerate(("[]", "3", "null", '{"options": 3}', "{")):
        folder = kept / (str(number) * 22)
        folder.mkdir()
        (folder / "job.json").write_text(text)
    others = [kept / "my holiday pictures 22", kept / ("é" * 22), kept / ("f" * 22)]
    others[0].mkdir()
    others[1].mkdir()
    others[2].write_text("no folder")
    async with serving(tmp_path / "two", folder=kept) as (service, client):
        await eventually(lambda: asyncio.sleep(0, service.videos.count("running")))
        assert (service.videos.count("running"), service.videos.count("waiting")) == (1, 1)
        (tmp_path / "go").touch()
        for video in begun:
            await in_state(client, video, "done")
    assert capsys.readouterr().err.count("cannot be read; it is passed over") == 5
    assert all(path.exists() for path in others)


@scene
async def test_a_fault_in_what_it_finds_ends_what_was_begun(tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    async with serving(tmp_path / "one", folder=kept) as (_, client):
        await added(client, f"waits until={tmp_path / 'never'}")
    load = Pretending._load_all

    def fails(self):
        load(self)
        assert self.count("waiting") == 1
        raise RuntimeError("a fault")

    monkeypatch.setattr(Pretending, "_load_all", fails)
    with pytest.raises(RuntimeError, match="a fault"):
        async with serving(tmp_path / "two", folder=kept):
            pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


@scene
async def test_an_upload_that_breaks_off_or_stalls_leaves_nothing(tmp_path):
    async with serving(tmp_path) as (service, client):
        sent = []

        async def send(message):
            sent.append(message)

        def scope():
            return {"type": "http", "method": "POST", "path": "/video", "query_string": b"", "headers": []}

        parts = [{"type": "http.request", "body": HEAD, "more_body": True}, {"type": "http.disconnect"}]

        async def receive():
            return parts.pop(0)

        await client.app(scope(), receive, send)
        assert b"imagesr_hang_ups_total 1" in service.metrics.text()
        parts = [{"type": "http.request", "body": HEAD, "more_body": True}]

        async def receive_slowly():
            return parts.pop(0) if parts else await asyncio.sleep(600)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(uploads, "_STALL_SECONDS", 0.01)
            sent.clear()
            await client.app(scope(), receive_slowly, send)
        assert sent[0]["status"] == 408
        assert b"4 bytes, and then none" in sent[1]["body"]
        assert not list(tmp_path.iterdir())
        assert service.videos.count("uploading") == 0


@scene
async def test_a_disk_without_room_is_told(tmp_path):
    async with serving(tmp_path) as (_, client):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(videos.shutil, "disk_usage", lambda place: SimpleNamespace(free=10**6))
            answer = await client.post("/video", content=HEAD)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
        assert "0.07 GB of space" in answer.json()["error"]


@scene
async def test_a_service_may_take_no_videos(tmp_path):
    async with serving(tmp_path) as (service, client):
        service.videos, kept = None, service.videos
        answer = await client.post("/video", content=HEAD)
        assert (answer.status_code, "--videos 0" in answer.json()["error"]) == (404, True)
        service.videos = kept


# Forms


def form(*files, boundary="zz", **fields):
    """Return a form with fields and files (name, bytes)."""
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts += [f'name="{name}"; filename="a.bin"\r\n\r\n'.encode() + data for name, data in files]
    begin = f"--{boundary}\r\nContent-Disposition: form-data; ".encode()
    return b"".join(begin + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()


FORM = {"Content-Type": "multipart/form-data; boundary=zz"}
FORMS = {
    "field": (422, form(("video", HEAD), scale="2"), FORM, "Received: the field 'scale'"),
    "two": (422, form(("a", HEAD), ("b", HEAD)), FORM, "Received: several files"),
    "empty": (400, form(), FORM, "Expected a"),
    "short": (400, form(("a", HEAD))[:-8], FORM, "It breaks off"),
    "damaged": (400, b"nothing like it", FORM, "Received: a damaged one"),
    "boundary": (400, form(("a", HEAD)), {"Content-Type": "multipart/form-data"}, "its boundary"),
    "picture": (415, form(("a", b"\xff\xd8\xff" + bytes(99))), FORM, "Received: JPEG"),
    "long": (413, form(("a", HEAD + bytes(10_000))), FORM, "at most 10,000 bytes. Received: more"),
    "no file": (400, form(("a", b"")), FORM, "Received: nothing"),
}


@scene
async def test_a_form_with_one_file_is_taken(tmp_path):
    pytest.importorskip("python_multipart")
    async with serving(tmp_path) as (_, client):
        body = form(("video", HEAD + b"damaged"))

        async def one_by_one():
            for i in range(len(body)):
                yield body[i : i + 1]

        answer = await client.post("/video?model=lanczos", content=one_by_one(), headers=FORM)
        assert answer.status_code == 202, answer.text
        assert (await in_state(client, answer.headers["location"], "done"))["missing"] == "2 frames missing"
        await client.delete(answer.headers["location"])
        for name, (status, body, headers, says) in FORMS.items():
            answer = await client.post("/video", content=body, headers=headers)
            assert (answer.status_code, list(answer.json())) == (status, ["error"]), (name, answer.text)
            assert says in answer.json()["error"], name
        endless = form(("a", HEAD)).replace(b"\r\n\r\n", b"\r\nX: " + bytes(70_000) + b"\r\n\r\n")
        assert (await client.post("/video", content=endless, headers=FORM)).status_code in (400, 413)
        assert not list(tmp_path.iterdir())


# The processes as they are


def working(folder, *arguments, **more):
    """Run the worker; while it runs, its standard input stays open."""
    command = [sys.executable, "-m", "imagesr.serve.video_worker", folder, *arguments]
    with subprocess.Popen(
        command, stdin=more.pop("stdin", subprocess.PIPE), stdout=-1, stderr=-1, text=True
    ) as process:
        told, error = process.stdout.read(), process.stderr.read()
        return process.wait(180), told, error


def test_the_worker_looks_and_ends_with_the_service(tmp_path):
    write_clip(tmp_path / "clip.mp4", size=(96, 64), frames=6)
    (tmp_path / "clip.mp4").rename(tmp_path / "the video")
    code, told, _ = working(tmp_path, "look", "10000")
    assert (code, json.loads(told)) == (0, {"width": 96, "height": 64, "frames": 6})
    code, _, error = working(tmp_path, "look", "1000")
    assert (code, error) == (2, "Expected frames of at most 0.001 megapixels. Received: 96x64\n")
    (tmp_path / "the video").write_text("no video at all")
    code, _, error = working(tmp_path, "look", "1000")
    assert (code, len(error.splitlines()), error.startswith("Expected a video file.")) == (3, 1, True)
    assert working(tmp_path, "run", "-", "-", stdin=subprocess.DEVNULL)[0] == 143


@pytest.mark.slow
def test_a_real_video(tmp_path):
    """Sent to a real service, it is made by a process at the lowest priority; SIGTERM leaves nothing of it."""
    clip = write_clip(tmp_path / "clip.mp4", size=(96, 64), frames=6)
    (tmp_path / "service").mkdir()
    running = Running("-n", "fast", env=os.environ | {"TMPDIR": str(tmp_path / "service")}).ready()
    answer = httpx.post(f"{running.url}/video?model=lanczos&scale=2", content=clip.read_bytes(), timeout=180)
    assert answer.status_code == 202, answer.text
    video = running.url + answer.headers["location"]
    assert answer.json()["expected"] == 6
    with httpx.stream("GET", f"{video}/events", timeout=180) as events:
        until(lambda: [one.nice() for one in running.tree() if "video_worker" in str(one.cmdline())] == [19])
        told = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: ")]
    assert told[-1]["state"] == "done", told
    (tmp_path / "result.mp4").write_bytes(httpx.get(f"{video}/result").content)
    with Source(tmp_path / "result.mp4") as source:
        assert (source.info.width, source.info.height, source.info.frames) == (192, 128, 6)
    long = write_clip(tmp_path / "long.mp4", size=(640, 360), frames=300)
    answer = httpx.post(f"{running.url}/video?model=best", content=long.read_bytes(), timeout=180)
    video = running.url + answer.headers["location"]
    until(lambda: httpx.get(video).json()["state"] == "running")
    picture = png(np.zeros((4, 4, 3), np.uint8))
    assert httpx.post(f"{running.url}/supersizeme", content=picture, timeout=180).status_code == 200
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == (0, "")
    assert not list((tmp_path / "service").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_an_upload_that_fills_the_disk(tmp_path):
    """A file that may not grow stands for a disk that is full."""
    import resource

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))

    running = Running("-n", "fast", env=os.environ | {"TMPDIR": str(tmp_path)}, preexec_fn=limited).ready()
    answer = httpx.post(f"{running.url}/video", content=HEAD + bytes(5_000_000), timeout=180)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    running.process.terminate()
    assert running.end() == (0, "")
