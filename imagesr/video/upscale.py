"""Upscale a video file: source, upscalers and writer joined."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from imagesr.card import models_for
from imagesr.cli import Interrupted
from imagesr.engines import checked_clean, checked_detail
from imagesr.engines.chain import chain_name, native_scale
from imagesr.errors import ModelError, OutputError
from imagesr.media.frames import Frame
from imagesr.media.opening import PIPE
from imagesr.media.pipe import PipeWriter
from imagesr.media.source import Source
from imagesr.media.verify import verify_output
from imagesr.media.writer import EMPTY
from imagesr.video import segments
from imagesr.video import target as wanted_size
from imagesr.video.encoding import SMALLEST, bitrate_of, expected_size
from imagesr.video.options import LADDER, Options, check_paths
from imagesr.video.pipeline import run
from imagesr.video.prepare import factor_of, find_tools, length_of, prepare, shown_size
from imagesr.video.realtime import would_hold
from imagesr.video.report import Report
from imagesr.video.shares import PARTS, Executor, seen, share_out
from imagesr.video.upscaler import pixel_shape

PREVIEW_S = 3.0
VERIFY = ("quick", "full")
_LONG_S = 10.0  # of video, that a run has at least for a note on its speed
_HELD = 0.95  # of a rate, at least, with the time that the end takes
_LEAST_BITS = 0.01  # a pixel, of simple content at a usual quality


def upscale_video(
    path: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    restart: bool = False,
    verify: str = "quick",
    progress: Callable[[int, int | None], None] | None = None,
    announce: Callable[[str], None] | None = None,
    advise: bool = True,
    executor: Executor | None = None,
    parts: int = PARTS,
    **options,
) -> Report:
    """Upscale the video at `path` into `out`, its sound and its timestamps kept.

    Example:
        imagesr.upscale_video("in.mp4", "out.mp4", scale=2, model="fast", crf=20)

    Args:
        path: The input: a file, `-` for YUV4MPEG2 on standard input, or numbered pictures such as `%05d.png`.
        out: The output; its ending chooses the container, `-` is YUV4MPEG2 on standard output.
        overwrite: Replace a file that is there already.
        restart: Begin anew where an interrupted run of the same command has left segments.
        verify: `quick` counts what is in the output; `full` compares it with the input as well, frame by frame.
        progress: Called after each frame with the frames done and the frames expected, None where that is unknown.
        announce: Called before the first frame with each line about what will be made, converted and lost.
        advise: Note which model would have held the video's rate, where the run did not: each is timed for some frames.
        executor: Where the segments of a long run are made, such as an executor of `concurrent.futures`; None is here.
        parts: Into how many parts a long run is divided for an executor: about as many as it has workers.
        **options: The fields of `imagesr.video.options.Options`: `scale`, `size`, `model`, `crf`, `start` and others.

    Raises:
        ValueError: Before anything is written, for an option, path or model that cannot be right.
        InputError: The input cannot be read.
        OutputError: The output could not be written or did not pass its check.
    """
    path, out, options = Path(path), Path(out), Options(**options)
    report = Report(output=str(out), model=options.model)
    _check_verify(verify, path, out)
    if parts < 1:
        raise ValueError(f"Expected parts of at least 1. Received: {parts}")
    if os.path.islink(out):  # noqa: PTH114, Path raises for names that are too long
        out = out.resolve()  # the link stays, and the file that it names is replaced
    folder = segments.Folder(out)
    if out != PIPE:
        folder.prepare()
    check_paths(path, out, overwrite=overwrite)
    options, whole_s = _preview(path, options) if options.preview else (options, None)
    tools = find_tools(out, options)

    begun = time.perf_counter()
    report.megabytes_in, report.whole_s = _megabytes_of(path), whole_s
    with ExitStack() as stack:
        ready = prepare(stack, path, out, options, tools)
        source, info, target, expected = ready.source, ready.info, ready.target, ready.expected
        options = replace(options, clean=ready.clean)  # one number for shares, and for a run that goes on
        _describe(report, ready, options)
        if out == PIPE:
            writer = PipeWriter(info, target, shape=pixel_shape(info, square=options.square))
        else:
            report.megabytes_expected = _expected_megabytes(path, ready, options)
            job = _job(path, out, options, ready, report, verify=verify)
            writer = _writer(stack, folder, job, source, ready.reopen, restart=restart)
        planned = writer.planned if options.preview and out != PIPE else None
        with _discarded_on_failure(writer):
            if announce:
                _announce(announce, report, info, expected, writer)
            if executor and isinstance(writer, segments.SegmentedWriter):
                elsewhere = share_out(executor, job, writer, parts, report, progress)
            else:
                elsewhere = None
                _run(source, ready.upscalers, writer, report, lambda done: progress and progress(done, expected))
                spared = sum(upscaler.spared for upscaler in ready.upscalers)
                report.unchanged = round(spared / max(1, report.frames), 3)
            seconds = time.perf_counter() - begun  # without what notes take
            if ready.pace and not elsewhere:
                _note_pace(report, ready.pace)
            elif advise and ready.engines and not elsewhere and not options.preview:
                _note_slow(report, ready, options, tools.loading, seconds=seconds)
    _conclude(report, elsewhere or seen(source), writer, out, seconds=seconds)
    report.video_s = round(report.frames / float(info.rate), 3)
    if planned:
        # Streams that have no packets in so short a part may have some in the whole.
        report.kept, report.dropped = planned, [text for text in report.dropped if not text.endswith(EMPTY)]
    return report


def _note_pace(report, pace):
    """Note which models ran, what they have and take, and where they did not hold the rate, from the first frame on."""
    report.by_model = pace.shares
    report.model = " and ".join(pace.shares)
    cards = [card for name in pace.shares if name != LADDER[-1] for card in models_for("live", name)]
    if not cards:
        report.flavour = report.precision = ""
    for name in ("detail", "clean"):
        if all(getattr(card, name) is None for card in cards):
            setattr(report, name, None)
    report.coding = "" if report.clean is None else report.coding
    if (report.paced() or pace.fps) < _HELD * pace.fps:
        report.notes.append(f"{pace.fps:g} frames a second were not held")


def _note_slow(report, ready, options, loading, *, seconds):
    """Note which model would have held the video's rate, where a run of some length did not."""
    info, fps = ready.info, report.frames / seconds
    if report.frames >= _LONG_S * info.rate and fps < info.rate:
        factor = factor_of(info, ready.target, options)
        with suppress(ModelError):  # a model may lack the device or the precision that was asked for
            report.notes.append(would_hold(info, ready.target, ready.engines, factor, fps, **loading))


def _describe(report, ready, options):
    """Note which sizes and models a run has: one model may run several times, and may go beyond what is asked for."""
    info, target, engines = ready.info, ready.target, ready.engines
    report.size = f"{shown_size(info)} to {shown_size(info, target)}"
    pix_fmt = ready.encoding.get("pix_fmt")
    if pix_fmt and not options.pix_fmt:
        keeps = f"--pix-fmt {info.pix_fmt} keeps the colour of every pixel"
        report.notes.append(f"RGB becomes {pix_fmt}, which all players show; {keeps}")
    factor = float(native_scale(engines)) if engines else 1
    if factor > 1 and target == (info.width, info.height):
        report.notes.append(f"the output has the input's size: it is upscaled {factor:g} times, and reduced again")
    if engines:
        cards = [engine.card for engine in engines]
        takes = next((card for card in reversed(cards) if card.detail is not None), None)  # the last draws it
        report.model, report.flavour = chain_name(cards), cards[0].flavour
        report.precision, report.detail = engines[0].precision, checked_detail(options.detail, takes) if takes else None
        cleans = next((card for card in cards if card.clean is not None), None)
        report.clean = checked_clean(ready.clean, cleans) if cleans else None
    report.grain = options.grain
    if ready.coding:
        report.clean, report.coding = ready.clean, ready.coding.reasons
    if ready.pace:
        report.model = f"the best of {', '.join(ready.pace.steps)} at {ready.pace.fps:g} fps"


def _job(path, out, options, ready, report, *, verify):
    """Return what is made, with what is looked at before it gets its name."""
    check = None
    if verify == "full":
        shape = ready.encoding["shape"]
        check = partial(verify_output, reopen=ready.reopen, height=ready.target[1], shape=shape)
    least = _least_megabytes(report.megabytes_expected, ready.target, ready.expected, options)
    return segments.Job(path, out, options, ready.engines, ready.encoding, ready.expected, least, check)


def _check_verify(verify, path, out):
    if verify not in VERIFY:
        raise ValueError(f"Expected verify to be one of {', '.join(VERIFY)}. Received: {verify}")
    if verify == "full" and PIPE in (path, out):
        raise ValueError("Expected files, which can be read again, for --verify full. Received: -")


def _writer(stack, folder, job, source, reopen, *, restart):
    """Return the writer of a file: in segments where the run is long or goes on with an interrupted one, or of a size.

    With `restart` the segments of earlier runs are removed: now, when nothing is left to check.
    """
    stack.enter_context(segments.alone(job.out))
    writer = segments.output_writer(job, source)
    with _discarded_on_failure(writer):
        if restart:
            folder.restart()
        parts = segments.wanted(folder, job, source.info)
        if not parts and job.options.target_size is None:
            return writer
    writer.discard()  # it has said what it keeps and loses, and is made anew at the end
    writing = segments.writing if parts else wanted_size.writing
    return stack.enter_context(writing(folder, job, source, writer, reopen))


@contextmanager
def _discarded_on_failure(writer):
    """Remove what is unfinished where the block fails; segments stay, and the error says how to go on."""
    try:
        yield
    except BaseException as error:
        writer.discard()
        left = getattr(writer, "left", "")
        if left and isinstance(error, OutputError):
            raise OutputError(f"{error}. {left}") from None
        if left and isinstance(error, Interrupted):
            error.hint = left
        raise


def _run(source, upscalers, writer, report, advance):
    """Decode, upscale and write every frame, and finish the file."""
    items = writer.frames_of(source) if hasattr(writer, "frames_of") else source

    def write(item):
        if isinstance(item, Frame):
            report.saw_frame()
        writer.write(item)
        if isinstance(item, Frame):
            advance(report.frames + getattr(writer, "skipped", 0))

    run(items, upscalers, write, report)
    with report.clock("encode"):
        writer.finish()


def _conclude(report, found, writer, out, *, seconds):
    """Complete the report of a finished run."""
    skipped = getattr(writer, "skipped", 0)
    report.kept, report.dropped = writer.kept, writer.dropped
    report.notes = found.notes + writer.notes + report.notes
    report.missing = ", ".join(text for text in (found.missing, writer.lost) if text)
    report.megabytes = round(out.stat().st_size / 1e6, 3) if out != PIPE else None
    report.finish(seconds)
    if skipped:
        report.frames += skipped
        report.notes.append(f"{skipped} frames were done by earlier runs")


def _preview(path, options):
    """Return the options with a part from the middle of the video, and the length of all that is asked for."""
    with Source(path, rate=options.rate, deinterlace="off") as source:
        whole = length_of(source.info, options) if source.info.duration else None
        sounds = 0 if options.audio == "none" else len(source.container.streams.audio)
    if not whole:
        raise ValueError(f"Expected a video that says how long it is for a preview. Use --start and --duration: {path}")
    wanted = min(PREVIEW_S if options.preview is True else options.preview, whole)
    if options.target_size is not None:  # of the whole: its part has the same rate
        options = replace(options, target_size=None, bitrate=bitrate_of(options.target_size, whole, sounds))
    return replace(options, start=options.start + (whole - wanted) / 2, duration=wanted), whole


def _announce(announce, report, info, expected, writer):
    length = f", {expected} frames" if expected else ""
    size = "; about {} to {} MB".format(*map(_rounded, report.megabytes_expected)) if report.megabytes_expected else ""
    announce(f"{report.size} by {report.model}{length}, {float(info.rate):g} fps{size}")
    for note in report.notes:
        announce(f"note: {note}")
    if report.coding:
        announce(report.cleaned)
    if begun := getattr(writer, "begun_before", ""):
        announce(begun)
    for line in writer.dropped:
        announce(f"will be lost: {line}")
    for line in writer.conversions:
        announce(f"will be converted: {line}")


def _megabytes_of(path):
    """Return the size of a file in megabytes; None for what is no file."""
    return round(os.path.getsize(path) / 1e6, 3) if os.path.isfile(path) else None  # noqa: PTH113, PTH202


def _rounded(number):
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


def _expected_megabytes(path, ready, options):
    """Return between which sizes the output will lie; None where nothing of the input tells."""
    source, (width, height) = ready.source, ready.target
    info, seconds, length = source.info, length_of(source.info, options), source.info.duration
    if options.target_size:
        return SMALLEST * options.target_size, options.target_size
    size = _megabytes_of(path)
    if not (seconds and length and size):
        return None
    sound = 160 * len(source.container.streams.audio) * (options.audio != "none")
    kilobits_in = max(50.0, 8000 * size / length - sound)
    rates = {"kilobits_in": kilobits_in, "growth": width * height / (info.width * info.height), "sound": sound}
    looks = {"quantiser": ready.coding and ready.coding.quantiser, "grain": options.grain}
    pixels = width * height * float(info.rate)
    return expected_size(ready.encoding["options"], seconds=seconds, pixels=pixels, **rates, **looks)


def _least_megabytes(expected, size, frames, options):
    """Return the least that the output may come to; None where nothing tells.

    What is expected for a quality follows from the input's rate, which says little where that was not compressed.
    """
    if not expected:
        return None
    if options.bitrate or not frames:
        return expected[0]
    return min(expected[0], _LEAST_BITS * size[0] * size[1] * frames / 8e6)
