"""A long run shared out: an executor makes the segments, somewhere else, and they are joined here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from imagesr.cli import check_interrupted
from imagesr.errors import InputError, OutputError
from imagesr.media.source import Source
from imagesr.video import segments
from imagesr.video.options import Options
from imagesr.video.pipeline import run
from imagesr.video.prepare import find_tools, prepare
from imagesr.video.report import Report

PARTS = 8
_ENDLESS = 10**9  # segments: the last share goes on to the end of the film


class Executor(Protocol):
    """What makes shares: the executors of `concurrent.futures` have this method."""

    def map(self, function: Callable[[Any], Any], items: Any, /) -> Iterator[Any]:
        """Return an iterator over the function of every item, in their order; its errors are raised there."""


@dataclass(frozen=True)
class Share:
    """Segments that follow one another, and what they are made of: plain data, which other machines can be sent.

    `path` and `out` are absolute, and name the same files wherever a share is made.
    """

    path: Path
    out: Path
    options: Options
    numbers: range


@dataclass(frozen=True)
class Seen:
    """What was seen of the input: `frames` up to the end of a share, `missing` says in words what is damaged."""

    frames: int = 0
    missing: str = ""
    notes: list[str] = field(default_factory=list)


def seen(source: Source, frames: int = 0) -> Seen:
    """Return what a source has noted."""
    return Seen(frames, str(source.damage), source.notes)


def make_share(share: Share) -> Seen:
    """Make the segments of a share that are not there yet.

    The input is decoded from its beginning, so that frames and deinterlacing are those of a run in one place.
    """
    folder = segments.Folder(share.out)
    with ExitStack() as stack:
        ready = prepare(stack, share.path, share.out, share.options, find_tools(share.out, share.options))
        encoding = ready.encoding | {"threads": folder.threads()}
        make_segment = segments.segment_maker(share.out, ready.info, encoding)
        writer = segments.SegmentedWriter(folder, make_segment, None, None, numbers=share.numbers)
        try:
            run(writer.frames_of(ready.source), ready.upscalers, writer.write, Report())
            writer.finish_segments()
        except BaseException:
            writer.discard()
            raise
        return seen(ready.source, writer.total)


@dataclass(frozen=True)
class Whole:
    """Hold a video that is upscaled as a whole, one of several: absolute paths, and options of `upscale_video`."""

    path: Path
    out: Path
    options: Mapping[str, Any]


def make_whole(whole: Whole) -> Report | Exception:
    """Upscale a video; return its report, or what went wrong with it alone."""
    from imagesr.video.upscale import upscale_video  # it imports this module

    try:
        whole.out.parent.mkdir(parents=True, exist_ok=True)
        return upscale_video(whole.path, whole.out, **whole.options)
    except (ValueError, InputError, OutputError, OSError) as error:
        return error


def shares_of(job: segments.Job, parts: int) -> list[Share]:
    """Divide a run into shares of about equal length; into one where the length is unknown."""
    count = -(-(job.expected or 1) // segments.LENGTH)
    cuts = sorted({count * part // parts for part in range(parts)})
    options = replace(job.options, precision=job.engines[0].precision) if job.engines else job.options
    ends = [*cuts[1:], _ENDLESS]
    paths = job.path.absolute(), job.out.absolute()
    return [Share(*paths, options, range(begin, end)) for begin, end in zip(cuts, ends, strict=True)]


def share_out(
    executor: Executor,
    job: segments.Job,
    writer: segments.SegmentedWriter,
    parts: int,
    report: Report,
    progress: Callable[[int, int | None], None] | None = None,
) -> Seen:
    """Let an executor make the segments of a run, and finish its output; return what was seen of the input.

    Where it fails, shares that are being made are not waited for: they may still add segments to the folder.
    """
    found = Seen()
    writer.shared = True
    try:
        for found in executor.map(make_share, shares_of(job, parts)):
            check_interrupted()
            if progress:
                progress(found.frames, job.expected)
    except BaseException:
        with suppress(OutputError):
            writer.take(0)  # so that it is told how much is kept
        raise
    report.frames = found.frames - writer.skipped
    writer.take(found.frames)
    with report.clock("encode"):
        writer.finish()
    return found
