"""Upscale a video file: source, upscalers and writer joined."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from imagesr.card import models_for
from imagesr.cli import Interrupted
from imagesr.engines import checked_detail, load_engine
from imagesr.engines.chain import chain_name, load_chain
from imagesr.errors import ModelError, OutputError
from imagesr.media.containers import FORMATS, TURNS
from imagesr.media.frames import Frame, VideoInfo
from imagesr.media.opening import PIPE
from imagesr.media.pipe import PipeWriter
from imagesr.media.source import Source
from imagesr.media.verify import verify_output
from imagesr.media.writer import EMPTY
from imagesr.video import realtime, segments
from imagesr.video import target as wanted_size
from imagesr.video.encoding import SMALLEST, check_target, choose_encoders, expected_size, keeps_transparency
from imagesr.video.options import Options, check_paths
from imagesr.video.pipeline import run
from imagesr.video.report import Report
from imagesr.video.upscaler import Upscaler, pixel_shape, target_size

PREVIEW_S = 3.0
VERIFY = ("quick", "full")
_LEAST_BITS = 0.01  # a pixel, of simple content at a usual quality
MAX_PARALLEL = 4  # each frame in the works takes memory
MAX_SIDE = 16_384  # pixels, of a result


def upscale_video(
    path: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    restart: bool = False,
    verify: str = "quick",
    progress: Callable[[int, int | None], None] | None = None,
    announce: Callable[[str], None] | None = None,
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
        **options: The fields of `imagesr.video.options.Options`: `scale`, `size`, `model`, `crf`, `start` and others.

    Raises:
        ValueError: Before anything is written, for an option, path or model that cannot be right.
        InputError: The input cannot be read.
        OutputError: The output could not be written or did not pass its check.
    """
    path, out, options = Path(path), Path(out), Options(**options)
    _check_verify(verify, path, out)
    if os.path.islink(out):  # noqa: PTH114, Path raises for names that are too long
        out = out.resolve()  # the link stays, and the file that it names is replaced
    folder = segments.Folder(out)
    if out != PIPE:
        folder.prepare()
    check_paths(path, out, overwrite=overwrite)
    cards, loading = _find_cards(options.model), _loading(options)
    encoders = choose_encoders(options, out.suffix.lower()) if out != PIPE else {"": {}}
    # Those of another scale may take no detail.
    first = next((card for card in cards if card.detail is not None), cards[0]) if cards else None
    checked_detail(options.detail, first)
    if first:
        load_engine(first, **loading)  # so that a precision that this CPU lacks is told before the input is opened

    begun = time.perf_counter()
    report = Report(output=str(out), model=options.model)
    report.megabytes_in = _megabytes_of(path)
    if options.preview:
        options, report.whole_s = _preview(path, options)
    with ExitStack() as stack:
        source, reopen, encoders = _source(stack, path, out, options, encoders)
        info = source.info
        target = target_size(info, scale=options.scale, box=options.size, square=options.square)
        _check_target(target, info, options, cards)
        source.tag_for(target[1])
        info = source.info
        engines = _load(cards, info, target, options, loading)
        report.size = f"{info.width}x{info.height} to {target[0]}x{target[1]}"
        _describe(report, engines, options.detail)
        upscalers, pace = _upscalers(info, target, engines, options, loading)
        expected = _expected_frames(info, options)
        if out == PIPE:
            writer = PipeWriter(info, target, shape=pixel_shape(info, square=options.square))
        else:
            encoding = _encoding(source, target, encoders, options)
            report.megabytes_expected = _expected_megabytes(path, source, encoding, options)
            check = partial(verify_output, reopen=reopen, height=target[1], shape=encoding["shape"])
            least = _least_megabytes(report.megabytes_expected, target, expected, options)
            job = segments.Job(
                path, out, options, engines, encoding, expected, least, check if verify == "full" else None
            )
            writer = _writer(stack, folder, job, source, reopen, restart=restart)
        planned = writer.planned if options.preview and out != PIPE else None
        with _discarded_on_failure(writer):
            if announce:
                _announce(announce, report, info, expected, writer)
            _run(source, upscalers, writer, report, lambda done: progress and progress(done, expected))
            report.shares = pace.shares if pace else {}
            report.unchanged = round(sum(upscaler.spared for upscaler in upscalers) / max(1, report.frames), 3)
    _conclude(report, source, writer, out, seconds=time.perf_counter() - begun)
    if planned:
        # Streams that have no packets in so short a part may have some in the whole.
        report.kept, report.dropped = planned, [text for text in report.dropped if not text.endswith(EMPTY)]
    return report


def _check_verify(verify, path, out):
    if verify not in VERIFY:
        raise ValueError(f"Expected verify to be one of {', '.join(VERIFY)}. Received: {verify}")
    if verify == "full" and PIPE in (path, out):
        raise ValueError("Expected files, which can be read again, for --verify full. Received: -")


def _loading(options):
    """Return the options of `load_engine`."""
    # Frames are upscaled side by side: no core waits for another at the end of every layer. One more than there are
    # cores, so that a core is not idle while a frame is handed over.
    parallel = min((options.threads or os.cpu_count() or 1) + 1, MAX_PARALLEL)
    names = ("engine", "device", "precision", "threads", "detail")
    return {name: getattr(options, name) for name in names} | {"parallel": parallel}


def _source(stack, path, out, options, encoders):
    """Open the input; return it, what opens it once more, and the encoders, which may have to keep transparency."""
    suffix = out.suffix.lower()
    reopen = partial(_open, path, options, suffix)
    source = stack.enter_context(reopen())
    if source.has_alpha and out != PIPE:
        encoders = choose_encoders(options, suffix, alpha=True)
        if keeps_transparency(encoders, suffix):
            stack.close()
            reopen = partial(reopen, alpha=True)
            source = stack.enter_context(reopen())
    return source, reopen, encoders


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


def _conclude(report, source, writer, out, *, seconds):
    """Complete the report of a finished run."""
    skipped = getattr(writer, "skipped", 0)
    report.kept, report.dropped = writer.kept, writer.dropped
    report.notes = source.notes + writer.notes
    report.missing = ", ".join(text for text in (str(source.damage), writer.lost) if text)
    report.megabytes = round(out.stat().st_size / 1e6, 3) if out != PIPE else None
    report.finish(seconds)
    if skipped:
        report.frames += skipped
        report.notes.append(f"{skipped} frames were done by earlier runs")
    report.video_s = round(report.frames / float(source.info.rate), 3)


def _find_cards(model):
    """Return the cards of a model; none for plain Lanczos. Raises ModelError."""
    if model == "lanczos":
        return []
    try:
        return models_for("video", model)
    except ModelError as error:
        raise ModelError(f"{error}; or lanczos, for plain resizing") from None


def _open(path, options, suffix, *, alpha=False):
    part = {"start": options.start, "duration": options.duration, "threads": options.threads, "rate": options.rate}
    upright = FORMATS.get(suffix) not in TURNS
    return Source(
        path, **part, deinterlace=options.deinterlace, upright=upright, alpha=alpha, sound=options.audio != "none"
    )


def _preview(path, options):
    """Return the options with a part from the middle of the video, and the length of all that is asked for."""
    with Source(path, rate=options.rate, deinterlace="off") as source:
        whole = _seconds(source.info, options) if source.info.duration else None
    if not whole:
        raise ValueError(f"Expected a video that says how long it is for a preview. Use --start and --duration: {path}")
    wanted = min(PREVIEW_S if options.preview is True else options.preview, whole)
    return replace(options, start=options.start + (whole - wanted) / 2, duration=wanted), whole


def _check_target(target, info, options, cards):
    """Raise ValueError for a size that no encoder takes, or that is smaller than the input where networks upscale."""
    if max(target) > MAX_SIDE:
        raise ValueError(f"Expected an output of at most {MAX_SIDE} pixels a side. Received: {target[0]}x{target[1]}")
    if cards and (target[0] < info.width or target[1] < info.height):
        given = "x".join(map(str, options.size)) if options.size else f"scale {options.scale}"
        raise ValueError(
            f"Expected a size of at least the input's {info.width}x{info.height}; {given} gives "
            f"{target[0]}x{target[1]}. To make a video smaller, use --model lanczos"
        )


def _load(cards, info, target, options, loading):
    """Load the engines that reach the target size; none for plain Lanczos."""
    if not cards:
        return []
    return load_chain(cards, _factor(info, target, options), bits=16 if info.bits > 8 else 8, **loading)


def _factor(info, target, options):
    """Return the factor that engines have to reach."""
    if not options.size and not options.square:
        return options.scale
    return max(Fraction(target[0], info.width), Fraction(target[1], info.height))


def _upscalers(info, target, engines, options, loading):
    """Return what upscales frames, one of each thread, and the pace that chooses among models, None without."""
    threads = range(loading["parallel"] if engines else 1)
    if options.realtime is None:
        return [Upscaler(info, target, engines) for _ in threads], None
    return realtime.ladders(info, target, _factor(info, target, options), options.realtime, **loading)


def _describe(report, engines, detail):
    """Say in the report what runs: one model may run several times, and may go beyond what is asked for."""
    if not engines:
        return
    cards = [engine.card for engine in engines]
    takes = next((card for card in cards if card.detail is not None), None)
    report.model, report.flavour = chain_name(cards), cards[0].flavour
    report.precision, report.detail = engines[0].precision, checked_detail(detail, takes) if takes else None


def _encoding(source, size, encoders, options):
    """Return how a Writer encodes frames: its keyword arguments."""
    info = source.info
    name = list(encoders)[-1 if info.bits > 8 else 0]
    sounds = 0 if options.audio == "none" else len(source.container.streams.audio)
    check_target(options.target_size, _seconds(info, options), sounds)
    return {
        "size": size,
        "codec": name,
        "options": encoders[name],
        "pix_fmt": options.pix_fmt,
        "threads": options.threads,
        "shape": pixel_shape(info, square=options.square),
    }


def _announce(announce, report, info, expected, writer):
    length = f", {expected} frames" if expected else ""
    size = "; about {} to {} MB".format(*map(_rounded, report.megabytes_expected)) if report.megabytes_expected else ""
    announce(f"{report.size} by {report.model}{length}, {float(info.rate):g} fps{size}")
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


def _expected_megabytes(path, source, encoding, options):
    """Return between which sizes the output will lie; None where nothing of the input tells."""
    info, seconds, length = source.info, _seconds(source.info, options), source.info.duration
    if options.target_size:
        return SMALLEST * options.target_size, options.target_size
    size = _megabytes_of(path)
    if not (seconds and length and size):
        return None
    sound = 160 * len(source.container.streams.audio) * (options.audio != "none")
    kilobits_in = max(50.0, 8000 * size / length - sound)
    growth = encoding["size"][0] * encoding["size"][1] / (info.width * info.height)
    return expected_size(encoding["options"], kilobits_in=kilobits_in, growth=growth, seconds=seconds, sound=sound)


def _least_megabytes(expected, size, frames, options):
    """Return the least that the output may come to; None where nothing tells.

    What is expected for a quality follows from the input's rate, which says little where that was not compressed.
    """
    if not expected:
        return None
    if options.bitrate or not frames:
        return expected[0]
    return min(expected[0], _LEAST_BITS * size[0] * size[1] * frames / 8e6)


def _seconds(info, options):
    """Return how long the part that is read is; None where that is unknown."""
    left = (info.duration or float("inf")) - options.start
    seconds = min(options.duration or float("inf"), left)
    return seconds if 0 < seconds < float("inf") else None


def _expected_frames(info: VideoInfo, options):
    if options.duration is None and not options.start:
        return info.frames
    seconds = _seconds(info, options)
    return round(seconds * info.rate) if seconds else None
