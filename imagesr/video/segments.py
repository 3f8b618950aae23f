"""Long runs in segments: what is done is kept beside the output, and the same command goes on after an interruption."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import imagesr
from imagesr.cli import Interrupted, check_interrupted, uninterrupted
from imagesr.engines import Engine
from imagesr.errors import InputError, OutputError, cause
from imagesr.files import part_of, write_whole
from imagesr.media.encoded import SegmentWriter, frames_in, give_back_memory, joined
from imagesr.media.frames import Frame, Packet, VideoInfo, has_alpha
from imagesr.media.opening import PIPE, is_sequence, sequence_files
from imagesr.media.source import Source
from imagesr.media.writer import Writer
from imagesr.video.encoding import HARDWARE
from imagesr.video.options import Options

LENGTH = 500  # frames of a segment
LONG_S = 60.0  # runs that are expected to take longer are cut
_MACS_PER_S, _PIXELS_PER_S = 2e11, 1e8  # of a laptop's network and encoder; fixed, so that every run decides alike
_SAMPLE = 1 << 20  # bytes at both ends of the input that tell it from another
_LONGEST_NAME = 240  # bytes, so that an ending fits
_JOURNAL, _LOCK, _ENDING, _FILM = "journal.json", "lock", ".segment", "upscaled.mov"
_OWN = {name for own in (_JOURNAL, _FILM) for name in (own, part_of(Path(own)).name)}
_THREADS = ((32, 6), (16, 5), (8, 3), (4, 2), (0, 1))  # of x265: cores from which on it works on so many frames


class Folder:
    """The folder beside an output that holds its segments, and the lock that one run has on it."""

    def __init__(self, out: Path):
        self.out = out
        name = out.name
        if len(os.fsencode(name)) > _LONGEST_NAME:
            name = hashlib.sha256(os.fsencode(name)).hexdigest()
        self.path = out.with_name(name + ".segments")
        self._lock: int | None = None

    def begun(self) -> bool:
        """Tell whether there is a journal of an earlier run, or of one that is going on."""
        return (self.path / _JOURNAL).is_file()

    def claim(self) -> None:
        """Make the folder and lock it, until `release`; raises ValueError where another run has it, or OutputError."""
        try:
            self.path.mkdir(exist_ok=True)
            self._lock = _locked(self.path / _LOCK)
        except OSError as error:
            raise OutputError(f"Cannot write {self.path}: {error.strerror}") from None

    def release(self) -> None:
        """Let others have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            if os.name != "posix" and self.path.is_dir() and not self.begun():
                self.remove()  # a file that is open could not be removed

    def prepare(self) -> None:
        """Remove what a run that was killed left while it joined its segments; the segments stay.

        Raises ValueError where another run has the folder.
        """
        with self._claimed() as there:
            if there and self.begun():
                part_of(self.out).unlink(missing_ok=True)
            elif there:
                self.remove()

    def restart(self) -> None:
        """Remove all that earlier runs left in the folder; raises ValueError where another run has it."""
        with self._claimed() as there:
            if there:
                self.remove()

    @contextmanager
    def _claimed(self):
        """Hold the folder while the block runs, where there is one; yield whether there is."""
        if not os.path.isdir(self.path):  # noqa: PTH112, Path.is_dir raises for names that are too long
            yield False
            return
        self.claim()
        try:
            yield True
        except OSError as error:
            raise OutputError(f"Cannot write {self.out}: {error.strerror}") from None
        finally:
            self.release()

    @property
    def film(self) -> Path:
        """The name of the whole upscaled film, where it is kept to be encoded several times."""
        return self.path / _FILM

    def segment(self, number: int) -> Path:
        """Return the name of a segment."""
        return self.path / f"{number:06}{_ENDING}"

    def threads(self) -> int:
        """Return how many threads the encoder has, as the journal says; raises OutputError."""
        try:
            return int(json.loads((self.path / _JOURNAL).read_text("utf-8"))["threads"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f"Cannot read {self.path / _JOURNAL}: {cause(error)}") from None

    def done(self, numbers: range | None = None) -> dict[int, int]:
        """Return the numbers of the finished segments and how many frames each has; remove unfinished ones.

        With `numbers` the others are left alone. Raises OutputError where one can neither be read nor removed.
        """
        found = {}
        with self._usable():
            for file in filter(_is_segment, self.path.iterdir()):
                if numbers is not None and int(file.name.partition(_ENDING)[0]) not in numbers:
                    continue
                if file.suffix == _ENDING and (frames := frames_in(file)):
                    found[int(file.stem)] = frames
                else:
                    file.unlink(missing_ok=True)
        return found

    def finished(self) -> dict[int, int]:
        """Return the same as `done`, and change nothing: other processes may still be writing segments.

        Raises OutputError where one cannot be read.
        """
        with self._usable():
            files = [file for file in self.path.iterdir() if _is_segment(file) and file.suffix == _ENDING]
        counted = {int(file.stem): frames_in(file) for file in files}
        return {number: frames for number, frames in counted.items() if frames}

    @contextmanager
    def _usable(self):
        """Turn an OSError of the block into an OutputError."""
        try:
            yield
        except OSError as error:
            raise OutputError(f"Cannot use {self.path}: {error.strerror}; --restart begins anew") from None

    def remove(self) -> None:
        """Remove the folder and all that runs keep in it; what else lies there stays."""
        for file in self.path.iterdir():
            if file.name in _OWN or _is_segment(file):
                file.unlink()
        with suppress(OSError):
            (self.path / _LOCK).unlink(missing_ok=True)
            self.path.rmdir()


def _is_segment(file):
    """Tell whether a file has the name of a segment, finished or not."""
    number, ending, rest = file.name.partition(_ENDING)
    return number.isdecimal() and bool(ending) and rest in ("", ".part")


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Lock the part file of an output while the block runs; raises ValueError where another run has it."""
    part = part_of(out)
    if os.name != "posix":  # elsewhere a file that is open cannot be renamed
        yield
        return
    handle = None
    try:
        with uninterrupted():  # or a file would be left that nobody knows of
            handle = _locked(part)
    except OSError as error:
        raise OutputError(f"Cannot write {out}: {error.strerror}") from None
    else:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                if os.path.samestat(os.fstat(handle), part.stat()):  # nothing was made of it
                    part.unlink()
            os.close(handle)


def _locked(path):
    """Open and lock a file; return its number. Raises ValueError where another process has it locked, or OSError."""
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            _lock(handle)
        except OSError as error:  # a file system without locks has none to respect
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                os.close(handle)
                raise ValueError(f"Expected an output that no other run is writing. {path} is in use by one") from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # another run has removed or renamed it meanwhile


def _lock(handle):
    if os.name == "posix":
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)


@dataclass(frozen=True)
class Job:
    """What a run makes of which input.

    `encoding` are the keyword arguments of a Writer, `expected` counts frames, `least_mb` is the least that the output
    may come to. `verify` looks through a Writer's part file before that gets its name.
    """

    path: Path
    out: Path
    options: Options
    engines: Sequence[Engine]
    encoding: Mapping[str, Any]
    expected: int | None
    least_mb: float | None = None
    verify: Callable[[Writer], None] | None = None


def output_writer(job: Job, source: Source) -> Writer:
    """Return the Writer of a job's output."""
    return Writer(job.out, source, sound=job.options.audio, verify=job.verify, **job.encoding)


def wanted(folder: Folder, job: Job, info: VideoInfo) -> bool:
    """Tell whether a run is made in segments: one that goes on, and one that is long and not exempt."""
    return folder.begun() or (not exempt(job, info.pix_fmt) and is_long(job, info))


def is_long(job: Job, info: VideoInfo) -> bool:
    """Tell whether a run is expected to take more than a minute on a laptop; where the length is unknown, it is."""
    if job.expected is None:
        return True
    macs, pixels = 0.0, float(info.width * info.height)
    for engine in job.engines:
        macs += pixels * engine.card.multiply_accumulates
        pixels *= float(engine.card.scale) ** 2
    width, height = job.encoding["size"]
    return job.expected * (macs / _MACS_PER_S + width * height / _PIXELS_PER_S) > LONG_S


def exempt(job: Job, pix_fmt: str) -> bool:
    """Tell whether a run cannot be cut: its result would differ, or its input or output is a pipe."""
    codec, options = job.encoding["codec"], job.options
    hardware = codec in HARDWARE or codec.rpartition("_")[2] in ("nvenc", "qsv", "amf", "videotoolbox", "mf", "vaapi")
    beside = codec.startswith("libvpx") and has_alpha(pix_fmt)  # transparency lies beside its packets
    # A frame depends on those before it, or on the clock.
    paced = options.target_size is not None or options.realtime is not None
    return PIPE in (job.path, job.out) or hardware or beside or paced or options.preview


@contextmanager
def writing(
    folder: Folder, job: Job, source: Source, trial: Writer, open_source: Callable[[], Source]
) -> Iterator[SegmentedWriter]:
    """Yield the writer of a run in segments, which holds the folder while the block runs.

    `trial` is a Writer that has said what it keeps and loses, `open_source` opens the input once more. Raises
    ValueError where another run holds the folder, or an earlier one was of another command or input, OutputError where
    less space is free than the output and its segments will need at least.
    """
    if not folder.begun() and job.least_mb:
        check_space(job.out, 2e6 * job.least_mb, about=True)
    folder.claim()
    try:
        encoding, info = dict(job.encoding), source.info
        threads = encoder_threads(encoding["codec"], job.options.threads, os.cpu_count() or 1)
        encoding["threads"] = open_journal(folder, identity(job.path), command_of(job), threads)

        def make_writer(again):
            again.tag_for(encoding["size"][1])
            return output_writer(replace(job, encoding=encoding), again)

        writer = SegmentedWriter(
            folder, segment_maker(job.out, info, encoding), make_writer, open_source, expected=job.expected
        )
        writer.describe(trial)
        del trial  # its encoder holds memory
        yield writer
    finally:
        folder.release()


def segment_maker(out: Path, info: VideoInfo, encoding: Mapping[str, Any]) -> Callable[[Path], SegmentWriter]:
    """Return what begins a segment of an output at a path."""
    return partial(SegmentWriter, suffix=out.suffix.lower(), info=info, **encoding)


def identity(path: Path) -> dict[str, Any]:
    """Return what tells an input from another: sizes, times, and a checksum of its beginning and end.

    Nothing tells what comes through a pipe: it is no input that an earlier run began with.
    """
    if path == PIPE:
        return {}
    files = sequence_files(path) if is_sequence(path) else [path]
    try:
        digest, size = hashlib.sha256(), 0
        for file in files:
            stat = file.stat()
            size += stat.st_size
            digest.update(f"{file.name if len(files) > 1 else ''} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        if len(files) == 1:
            with path.open("rb") as file:
                digest.update(file.read(_SAMPLE))
                file.seek(max(0, size - _SAMPLE))
                digest.update(file.read(_SAMPLE))
    except OSError as error:
        raise InputError(f"Expected a video file. Cannot read {path}: {error.strerror}") from None
    return {"bytes": size, "sha256": digest.hexdigest()}


def command_of(job: Job) -> dict[str, Any]:
    """Return all that a result depends on beside its input, as plain JSON types."""
    record = {key: _plain(value) for key, value in dataclasses.asdict(job.options).items() if key != "threads"}
    return record | {
        "ending": job.out.suffix.lower(),
        "codec": job.encoding["codec"],
        "encoder": dict(job.encoding["options"]),
        "precision": job.engines[0].precision if job.engines else "",
        "models": [f"{engine.card.name} x{engine.card.scale} {_digest(engine.card)}" for engine in job.engines],
        "imagesr": imagesr.__version__,
        "av": version("av"),
        "segment length": LENGTH,
    }


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _digest(card):
    return hashlib.sha256(json.dumps(dict(card.sha256), sort_keys=True).encode()).hexdigest()


def encoder_threads(codec: str, threads: int, cores: int) -> int:
    """Return how many threads an encoder gets: a fixed number, since its result depends on that."""
    if threads:
        return threads
    if codec == "libx265":
        return next(frames for least, frames in _THREADS if cores >= least)
    return min(16, max(1, 3 * cores // 2) if codec == "libx264" else cores)


def open_journal(folder: Folder, source: Mapping[str, Any], command: Mapping[str, Any], threads: int) -> int:
    """Begin a journal, or check that an earlier one is of the same input and command; return the encoder's threads.

    Raises ValueError where it is not, OutputError where it cannot be written.
    """
    wanted = json.loads(json.dumps({"input": source, "command": command}))
    try:
        if not folder.begun():
            write_whole(folder.path / _JOURNAL, json.dumps(wanted | {"threads": threads}, indent=1) + "\n")
            return threads
        found = json.loads((folder.path / _JOURNAL).read_text("utf-8"))
        threads, before = int(found["threads"]), dict(found["command"])
    except OSError as error:
        raise OutputError(f"Cannot write {folder.path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, OverflowError):
        raise ValueError(f"Expected a journal in {folder.path}. It is damaged; --restart begins anew") from None
    if found.get("input") != wanted["input"]:
        raise ValueError(f"Expected the input that {folder.path} was begun with. It has changed; --restart begins anew")
    if before != (now := wanted["command"]):
        key = next(key for key in {**now, **before} if before.get(key, ...) != now.get(key, ...))
        told = f"{key} was {before.get(key)} and is {now.get(key)}"
        raise ValueError(
            f"Expected the command that {folder.path} was begun with: {told}. Give that one to go on, or --restart"
        )
    return threads


class SegmentedWriter:
    """Write a film in segments, each whole under its name; `finish` joins them and copies the other streams.

    It has what a Writer has. `frames_of` leaves out the frames of a source that are done. `skipped` counts them.
    `shared` is true where other processes write segments of the same film: `discard` then never removes the folder.

    Args:
        folder: Where the segments lie, claimed.
        make_segment: Returns a SegmentWriter for a path.
        make_writer: Returns the Writer of the output for a source, which is opened again.
        open_source: Opens the input once more.
        expected: How many frames there will be; None where that is unknown.
        numbers: The segments that are made, where others make the rest; None is all.
    """

    def __init__(
        self,
        folder: Folder,
        make_segment: Callable[[Path], SegmentWriter],
        make_writer: Callable[[Source], Writer],
        open_source: Callable[[], Source],
        *,
        expected: int | None = None,
        numbers: range | None = None,
    ):
        self._folder, self._make_segment, self._make_writer = folder, make_segment, make_writer
        self._open_source, self._expected, self._numbers = open_source, expected, numbers
        self._done = folder.done(numbers)
        self._new: dict[int, int] = {}
        self._next = self.total = 0
        self._segment: SegmentWriter | None = None
        self.skipped = sum(self._done.values())
        self.shared = numbers is not None
        self.kept: list[str] = []
        self.dropped: list[str] = []
        self.notes: list[str] = []
        self.conversions: list[str] = []
        self.lost = ""
        self._check_disk()

    def describe(self, writer: Writer) -> None:
        """Take what a Writer of the output says of its streams."""
        self.kept, self.dropped, self.notes = writer.kept, writer.dropped, writer.notes
        self.conversions, self.lost = writer.conversions, writer.lost

    @property
    def begun_before(self) -> str:
        """Say where this run goes on; "" where it begins."""
        if not self._done:
            return ""
        return f"going on: {self.skipped} frames are done, in {len(self._done)} segments; they are only decoded"

    def frames_of(self, source: Iterable[Frame | Packet]) -> Iterator[Frame]:
        """Yield the frames that are not done yet."""
        for item in source:
            if isinstance(item, Frame):
                number = self.total // LENGTH
                if self._numbers is not None and number >= self._numbers.stop:
                    return
                self.total += 1
                if not self._skips(number):
                    yield item
            check_interrupted()  # nothing may come for long

    def _skips(self, number):
        return number in self._done or (self._numbers is not None and number not in self._numbers)

    def write(self, frame: Frame) -> None:
        """Encode the next frame that is not done."""
        while self._next % LENGTH == 0 and self._skips(self._next // LENGTH):
            self._next += LENGTH
        if self._segment is None:
            self._segment = self._make_segment(self._folder.segment(self._next // LENGTH))
        self._segment.write(frame)
        self._next += 1
        if self._next % LENGTH == 0:
            self._finish_segment()

    def _finish_segment(self):
        segment = self._segment
        segment.finish()
        self._new[(self._next - 1) // LENGTH] = segment.frames
        self._segment = segment = None
        give_back_memory()
        if len(self._new) == 1:
            self._check_disk()

    def _check_disk(self):
        """Raise OutputError where what is missing and the output will not fit on the disk, by what is done so far."""
        done = self._done | self._new
        if not (done and self._expected):
            return
        try:
            each = sum(self._folder.segment(number).stat().st_size for number in done) / sum(done.values())
        except OSError as error:
            raise OutputError(f"Cannot use {self._folder.path}: {error.strerror}") from None
        check_space(self._folder.out, each * (2 * self._expected - sum(done.values())))

    def finish_segments(self) -> None:
        """Finish the last segment."""
        if self._segment is not None:
            self._finish_segment()

    def take(self, total: int) -> None:
        """Take the finished segments that others have made of a film of so many frames."""
        self._done, self.total = self._folder.finished(), total

    def finish(self) -> None:
        """Finish the last segment, join all, copy the other streams, check the file and give it its name."""
        self.finish_segments()
        done = self._done | self._new
        if sum(done.values()) != self.total or set(done) != set(range(-(-self.total // LENGTH))):
            told = f"{self.total} frames were decoded, {sum(done.values())} are in segments"
            raise OutputError(f"Cannot write {self._folder.out}: {told}; --restart begins anew")
        with self._open_source() as source:
            source.skip_frames()
            writer = self._make_writer(source)
            try:
                for item in _merged(joined(map(self._folder.segment, sorted(done))), source):
                    check_interrupted()
                    if isinstance(item, Packet) and item.stream is None:
                        writer.write_encoded(item)
                    elif isinstance(item, Packet):
                        writer.write(item)
                writer.finish()
            except BaseException:
                writer.discard()
                raise
        self.describe(writer)
        try:
            self._folder.remove()
        except FileNotFoundError:
            pass  # somebody else has removed it
        except Interrupted as interrupted:
            self._done, self._new = {}, {}
            interrupted.hint = f"{self._folder.out} is made"
            self._folder.remove()
            raise

    def discard(self) -> None:
        """Remove the unfinished segment; what is done stays."""
        if (segment := self._segment) is not None:
            if segment.path.exists():  # a signal came just after it had got its name
                self._new[int(segment.path.stem)] = segment.frames
            segment.discard()
            self._segment = None
        with suppress(OSError):
            if not self._done and not self._new and not self.shared:
                self._folder.remove()

    @property
    def left(self) -> str:
        """Say what an interrupted run leaves, and how to go on; "" where it leaves nothing."""
        done = self._done | self._new
        if not ((done or self.shared) and self._folder.begun()):
            return ""
        frames = f"{sum(done.values())} frames are kept in {self._folder.path.name}"
        return f"{frames}; the same command goes on, --restart begins anew"


def check_space(out: Path, needed: float, *, about: bool = False) -> None:
    """Raise OutputError where fewer bytes than `needed` are free where an output goes."""
    with suppress(OSError):  # some file systems do not tell
        free = shutil.disk_usage(out.absolute().parent).free
        if needed > free:
            least = "about " if about else ""
            raise OutputError(
                f"Expected {least}{needed / 1e9:,.2f} GB of space for {out} and its segments. "
                f"{free / 1e9:,.2f} GB are free"
            )


def _merged(video, others):
    """Yield encoded frames and what else a source has in the order of their decoding times."""
    waiting = next(video, None)
    for item in others:
        if not isinstance(item, Packet):
            continue
        stamp = item.pts if item.dts is None else item.dts
        while waiting is not None and stamp is not None and waiting.dts * waiting.time_base <= stamp * item.time_base:
            yield waiting
            waiting = next(video, None)
        yield item
    while waiting is not None:
        yield waiting
        waiting = next(video, None)
