"""Videos as jobs: a bounded number of them, each upscaled by a process of its own at the lowest priority."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from imagesr.cli import DAMAGED, NOT_STARTED, NOT_WRITTEN, UNREADABLE
from imagesr.files import make_folder, write_whole
from imagesr.media.photo_kinds import HEAD, is_video
from imagesr.scale import Scale
from imagesr.serve.refusal import Refusal
from imagesr.serve.video_worker import REPORT, RESULT, SOURCE

STATES = ("uploading", "waiting", "running", "done", "failed")
WATCHERS = 8  # of one video's events
_JOB = "job.json"
_ID = "[A-Za-z0-9_-]{22}"  # as _new_id makes them
_RESERVE = 2**26  # bytes that stay free on the disk
_LOOK_SECONDS = 60
_ENDING_SECONDS = 10  # from SIGTERM until a process is killed
_LINE = 2**20  # bytes
_SWEEP_SECONDS = 60  # between two looks for videos that have expired, at most
_GROWN = 4  # a result may have as many times the pixels of the largest frame


@dataclass(frozen=True)
class VideoOptions:
    """Hold what a query asks for: the options of `imagesr video`, and the ending of the result's name."""

    arguments: tuple[str, ...]
    scale: str | None  # either this, or the size
    size: tuple[int, int] | None
    format: str


@dataclass
class Video:
    """Hold a job: its folder, what is asked for, and what became of it so far.

    `frames` of `expected` are done, at `fps`; `left_s` seconds are left. `expires` is a time of the clock.
    """

    id: str
    folder: Path
    options: VideoOptions
    size: tuple[int, int]
    expected: int | None
    state: str = "waiting"
    frames: int = 0
    fps: float | None = None
    left_s: float | None = None
    error: str = ""
    status: int = 0  # the HTTP status of a failure
    missing: str = ""  # from a damaged input
    expires: float | None = None
    bytes: int | None = None
    watchers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task | None = None

    @property
    def result(self) -> Path:
        """The file of the result."""
        return self.folder / f"{RESULT}.{self.options.format}"

    @property
    def ended(self) -> bool:
        """Tell whether nothing will change any more."""
        return self.state in ("done", "failed")

    def change(self, **fields: Any) -> None:
        """Set fields, and wake those who watch."""
        for name, value in fields.items():
            setattr(self, name, value)
        before, self.changed = self.changed, asyncio.Event()
        before.set()


class Videos:
    """Hold the videos that the service has been sent.

    Args:
        at_once: How many are upscaled at a time.
        queue: How many may wait beside those, uploads among them.
        bytes: The size limit of an upload.
        seconds: For how long a result is kept.
        folder: Where they are kept; videos that are there already go on. None: in the service's temporary folder.
        pixels: The limit of a frame; a result may have four times as many.
        threads: Threads of a job; 0 is every core.
    """

    def __init__(
        self, *, at_once: int, queue: int, bytes: int, seconds: float, folder: Path | None, pixels: int, threads: int
    ):
        self.most_bytes, self._seconds, self._pixels, self._threads = bytes, seconds, pixels, threads
        self.places, self._at_once, self._folder = at_once + queue, at_once, folder and folder.absolute()
        self._videos: dict[str, Video] = {}
        self.count_made: Callable[[int, float], None] = lambda frames, core_seconds: None
        self._uploads: dict[Path, int] = {}  # each one's folder, and the bytes that it is said to have; 0 is unknown
        self._looking = asyncio.Semaphore(1)
        self.ending = False
        if folder:
            make_folder(folder)

    def count(self, state: str) -> int:
        """Return how many videos are in a state of STATES."""
        return len(self._uploads) if state == "uploading" else Counter(v.state for v in self._videos.values())[state]

    @asynccontextmanager
    async def running(self, temporary: Path) -> AsyncIterator[None]:
        """Upscale while the block runs, and remove what has expired; processes are ended with it."""
        self._turns = asyncio.Semaphore(self._at_once)
        self.base = self._folder or temporary
        sweeping = asyncio.create_task(self._sweep())
        try:
            if self._folder:
                self._load_all()
            yield
        finally:
            await self.end()
            sweeping.cancel()
            await asyncio.wait([sweeping])

    async def end(self) -> None:
        """Stop the processes, and take no more."""
        self.stop()
        if tasks := [video.task for video in self._videos.values() if video.task]:
            await asyncio.wait(tasks)

    def stop(self) -> None:
        """Ask the processes to end, and let watchers go."""
        if not self.ending:
            self.ending = True
            for video in self._videos.values():
                if video.task:
                    video.task.cancel()
                video.change()

    # Sent

    def check_place(self, length: int | None) -> None:
        """Raise a Refusal where no video is taken at the moment, or not one of so many bytes."""
        if length is not None and length > self.most_bytes:
            raise self.too_long(f"{length:,} bytes")
        taken = len(self._uploads) + self.count("waiting") + self.count("running")
        if taken >= self.places:
            left = [video.left_s for video in self._videos.values() if video.state == "running" and video.left_s]
            seconds = max(1, min(600, round(min(left, default=30))))
            sentence = f"Expected a free place. All {self.places} are taken; try again in {seconds} s"
            raise Refusal(429, "full", sentence, {"Retry-After": str(seconds)})
        self.check_room((length or 0) + self._promised())

    def _promised(self):
        """Return the bytes that uploads under way have still to write."""
        files = {folder / SOURCE: length for folder, length in self._uploads.items()}
        return sum(max(0, length - (file.stat().st_size if file.exists() else 0)) for file, length in files.items())

    def check_room(self, length: int) -> None:
        """Raise a Refusal unless the disk has room for so many bytes, and for a result of as many."""
        needed, free = 2 * length + _RESERVE, shutil.disk_usage(self.base).free
        if needed > free:
            sentence = (
                f"Expected {needed / 1e9:.2f} GB of space for a video and its result. {free / 1e9:.2f} GB are free"
            )
            raise Refusal(503, "room", f"{sentence}; try again later", {"Retry-After": "60"})

    def too_long(self, received: str) -> Refusal:
        """Return the refusal of a video that is too large."""
        return Refusal(413, "bytes", f"Expected a video of at most {self.most_bytes:,} bytes. Received: {received}")

    @contextmanager
    def place(self, length: int | None) -> Iterator[Path]:
        """Yield a new folder for an upload of so many bytes; it is removed at the end, unless the video was added.

        Raises a Refusal as `check_place` does: others may have come since that was asked.
        """
        self.check_place(length)
        folder = self.base / _new_id()
        folder.mkdir(mode=0o700)
        self._uploads[folder] = length or 0
        try:
            yield folder
        finally:
            del self._uploads[folder]
            if folder.name not in self._videos:
                shutil.rmtree(folder, ignore_errors=True)

    async def look(self, folder: Path, options: VideoOptions) -> dict:
        """Return what the uploaded video is; raises a Refusal for one that cannot be upscaled."""
        async with self._looking:
            process = await self._start(folder, "look", str(self._pixels), stdout=subprocess.PIPE)
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    told, error = await _output_of(process)
            except TimeoutError:
                raise Refusal(
                    400, "slow", f"Expected a video that opens within {_LOOK_SECONDS} s. It takes longer"
                ) from None
            finally:
                await _end(process, seconds=0)
        if process.returncode:
            lines = error.decode("utf-8", "replace").strip().splitlines()
            refusal = _refused(process.returncode, lines[-1] if lines else "")
            if refusal.status == 415 and _begins_as_video(folder / SOURCE):
                refusal.status = 400
            raise refusal
        found = json.loads(told)
        width, height = options.size or [Scale.parse(options.scale).grow(found[side]) for side in ("width", "height")]
        if width * height > _GROWN * self._pixels:
            most = f"{_GROWN * self._pixels / 1e6:g} megapixels"
            raise Refusal(422, "pixels", f"Expected a result of at most {most} a frame. Received: {width}x{height}")
        return found

    def add(self, folder: Path, options: VideoOptions, found: dict) -> Video:
        """Let a video wait for its turn."""
        size, expected = (found["width"], found["height"]), found["frames"]
        self._videos[folder.name] = video = Video(folder.name, folder, options, size, expected)
        self._keep(video)
        video.task = asyncio.create_task(self._make(video))
        return video

    def get(self, id: str) -> Video:
        """Return a video; raises a Refusal for one that is not here."""
        if video := self._videos.get(id):
            return video
        kept = "" if self._folder else ", or the service has been started again since"
        raise Refusal(404, "gone", f"Expected a video that is here. It has expired or was deleted{kept}")

    async def remove(self, video: Video) -> None:
        """Stop what is done with a video, and remove it; those who watch are told."""
        self._videos.pop(video.id, None)
        if video.task:
            video.task.cancel()
            await asyncio.wait([video.task])
        video.change(state="failed", error="The video was deleted", status=404)
        await asyncio.to_thread(shutil.rmtree, video.folder, ignore_errors=True)

    # Made

    async def _make(self, video):
        async with self._turns:
            video.change(state="running")
            try:
                await self._run(video)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # no process could be started
                self._fail(video, 503, f"Expected a process for the video. {error}")

    async def _run(self, video):
        code, told = await self._upscale(video)
        if code in (0, DAMAGED) and video.result.exists():
            report = json.loads((video.folder / REPORT).read_text("utf-8"))
            self._done(video, report)
        else:
            refusal = _refused(code, told)
            self._fail(video, refusal.status, refusal.sentence)

    async def _upscale(self, video):
        """Run the process, and return its exit code and its last line."""
        options = video.options
        if video.result.exists() and (video.folder / REPORT).exists():  # the service ended just then
            return 0, ""
        command = ["run", SOURCE, video.result.name, *options.arguments, "--threads", str(self._threads)]
        command += ["--progress", "json", "--quiet", "--json", REPORT, "-y"]
        process = await self._start(video.folder, *command, stdout=subprocess.DEVNULL)
        told = ""
        try:
            async for line in _lines(process.stderr):
                if line.startswith("{"):
                    _advance(video, line)
                elif line.startswith("imagesr video: "):
                    told = line.partition(": ")[2]
            code = await process.wait()
        finally:
            # It tidies up for the next start of the service; of a deleted video nothing is left to tidy.
            await _end(process, seconds=_ENDING_SECONDS if video.id in self._videos else 0)
        return code, told

    def _done(self, video, report):
        frames, size = report["frames"], video.result.stat().st_size
        done = {
            "frames": frames,
            "expected": frames,
            "fps": report["fps"],
            "left_s": 0.0,
            "missing": report["missing"],
            "bytes": size,
        }
        self.count_made(frames, report.get("core_seconds", 0.0))
        video.change(state="done", expires=time.time() + self._seconds, **done)
        self._keep(video)
        (video.folder / SOURCE).unlink(missing_ok=True)

    def _fail(self, video, status, sentence):
        for file in video.folder.iterdir():
            with suppress(OSError):
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        video.change(state="failed", status=status, error=sentence, left_s=None, expires=time.time() + self._seconds)
        self._keep(video)

    async def _start(self, folder, *arguments, stdout):
        command = [sys.executable, "-m", "imagesr.serve.video_worker", folder, *arguments]
        # A group of its own: Ctrl+C in a terminal is for the service, which ends this in its time.
        own = {"process_group": 0} if os.name == "posix" else {"creationflags": subprocess.IDLE_PRIORITY_CLASS}
        environment = os.environ | {"TMPDIR": str(folder)}
        streams = {"stdin": subprocess.PIPE, "stdout": stdout, "stderr": subprocess.PIPE}
        return await asyncio.create_subprocess_exec(*command, **streams, env=environment, limit=_LINE, **own)

    # Kept

    def _keep(self, video):
        """Note what a later start of the service needs."""
        names = (
            "size",
            "expected",
            "state",
            "frames",
            "fps",
            "left_s",
            "error",
            "status",
            "missing",
            "expires",
            "bytes",
        )
        kept = {name: getattr(video, name) for name in names} | {"options": asdict(video.options)}
        with suppress(OSError):  # a full disk: it goes on without
            write_whole(video.folder / _JOB, json.dumps(kept))

    def _load_all(self):
        """Take up what an earlier service has left, and remove uploads that it has not finished."""
        for job in sorted(self.base.glob(f"*/{_JOB}"), key=lambda job: job.stat().st_mtime):
            self._load(job)
        for folder in self.base.iterdir():  # what is somebody else's stays
            ours = re.fullmatch(_ID, folder.name) and folder.is_dir() and not folder.is_symlink()
            if ours and {file.name for file in folder.iterdir()} <= {SOURCE}:
                shutil.rmtree(folder, ignore_errors=True)

    def _load(self, job):
        """Take up a video: done, failed, or to be made."""
        try:
            kept = json.loads(job.read_text("utf-8"))
            options = kept.pop("options")
            options = options | {
                "arguments": tuple(options["arguments"]),
                "size": options["size"] and tuple(options["size"]),
            }
            kept["size"] = tuple(kept["size"])
            video = Video(job.parent.name, job.parent, VideoOptions(**options), **kept)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            print(f"imagesr serve: {job} cannot be read; it is passed over", file=sys.stderr)
            return
        self._videos[video.id] = video
        if not video.ended:
            video.state = "waiting"  # for its turn, also where it was running
            video.task = asyncio.create_task(self._make(video))

    async def _sweep(self):
        """Remove videos that have expired."""
        while True:
            now = time.time()
            for video in [video for video in self._videos.values() if video.expires and video.expires <= now]:
                await self.remove(video)
            times = [video.expires for video in self._videos.values() if video.expires]
            await asyncio.sleep(max(0.1, min(_SWEEP_SECONDS, min(times, default=now + _SWEEP_SECONDS) - now)))


def _new_id():
    return secrets.token_urlsafe(16)


def _advance(video, line):
    with suppress(ValueError, KeyError):
        told = json.loads(line)
        more = {"expected": told["expected"]} if told["expected"] else {}
        video.change(frames=told["frames"], fps=told["fps"], left_s=told["eta_s"], **more)


async def _lines(stream):
    """Yield the lines of a process; one that is longer than a buffer is left out."""
    while True:
        try:
            line = await stream.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            line = error.partial
        except asyncio.LimitOverrunError as error:
            await stream.readexactly(error.consumed)
            continue
        if not line:
            return
        yield line.decode("utf-8", "replace").strip()


def _begins_as_video(path):
    with path.open("rb") as file:
        return is_video(file.read(HEAD))


async def _output_of(process):
    told = await asyncio.gather(process.stdout.read(), process.stderr.read())
    await process.wait()  # a signal to one that has ended would lose its exit code
    return told


async def _end(process, *, seconds):
    """End a process: it may tidy up for so long, then it is killed."""
    while process.returncode is None:  # it was cancelled, or takes too long
        with suppress(ProcessLookupError):
            process.terminate() if seconds else process.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds or None):
                await process.wait()
        seconds = 0
    with suppress(OSError):
        process.stdin.close()


def _refused(code, sentence):
    """Return the refusal that an exit code and an error's sentence stand for."""
    if code == UNREADABLE:
        return Refusal(415 if sentence.startswith("Expected a video file.") else 400, "damaged", sentence)
    if code == NOT_STARTED and sentence:
        return Refusal(413 if sentence.startswith("Expected frames") else 422, "query", sentence)
    if code == NOT_WRITTEN and sentence:
        full = "disk full" in sentence or " of space for " in sentence
        return Refusal(503 if full else 500, "room", sentence)
    names = {number.value: number.name for number in signal.Signals}
    how = f"by {names.get(-code, -code)}" if code < 0 else f"with {code}"
    more = "; the system may have run out of memory" if -code == getattr(signal, "SIGKILL", None) else ""
    return Refusal(500, "crash", f"Expected a process that upscales the video to its end. It has ended {how}{more}")
