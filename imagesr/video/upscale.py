"""Upscale a video file: source, upscalers and writer joined."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from imagesr.card import find_models
from imagesr.engines import load_engine
from imagesr.engines.chain import load_chain
from imagesr.media.frames import Frame, VideoInfo
from imagesr.media.source import Source
from imagesr.media.writer import Writer
from imagesr.video.encoding import choose_encoders
from imagesr.video.options import Options, check_paths
from imagesr.video.pipeline import run
from imagesr.video.report import Report
from imagesr.video.upscaler import Upscaler, target_size

PREVIEW_S = 10.0
MAX_PARALLEL = 4  # each frame in the works takes memory


def upscale_video(
    path: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    **options,
) -> Report:
    """Upscale the video at `path` into `out`, its sound and its timestamps kept.

    Example:
        imagesr.upscale_video("in.mp4", "out.mp4", scale=2, model="fast", crf=20)

    Args:
        path: The input.
        out: The output; its ending chooses the container.
        overwrite: Replace a file that is there already.
        progress: Called after each frame with the frames done and the frames expected, None where that is unknown.
        **options: The fields of `imagesr.video.options.Options`: `scale`, `size`, `model`, `crf`, `start` and others.

    Raises:
        ValueError: Before the input is opened, for an option, path or model that cannot be right.
        InputError: The input cannot be read.
        OutputError: The output could not be written or did not pass its check.
    """
    path, out, options = Path(path), Path(out), Options(**options)
    check_paths(path, out, overwrite=overwrite)
    encoders = choose_encoders(options, out.suffix.lower())
    cards = [] if options.model == "lanczos" else find_models(options.model)
    # Frames side by side: no core waits for another at the end of every layer. One more than there are cores, so that
    # a core is not idle while a frame is handed over.
    parallel = min((options.threads or os.cpu_count() or 1) + 1, MAX_PARALLEL) if cards else 1
    loading = {
        "engine": options.engine,
        "precision": options.precision,
        "threads": options.threads,
        "parallel": parallel,
    }
    if cards:
        load_engine(cards[0], **loading)  # so that a precision that this CPU lacks is told before the input is opened

    begun = time.perf_counter()
    report = Report(output=str(out), model=options.model)
    if options.preview:
        options = _preview(path, options)
    with Source(path, start=options.start, duration=options.duration, threads=options.threads) as source:
        info = source.info
        target = target_size(info, scale=options.scale, box=options.size)
        report.size = f"{info.width}x{info.height} to {target[0]}x{target[1]}"
        engines = _load(cards, info, target, options, loading)
        report.precision = engines[0].precision if engines else ""
        upscalers = [Upscaler(info, target, engines) for _ in range(parallel)]
        name = list(encoders)[-1 if info.bits > 8 else 0]
        expected = _expected_frames(info, options)

        def write(item):
            if isinstance(item, Frame):
                report.saw_frame()
            writer.write(item)
            if isinstance(item, Frame) and progress:
                progress(report.frames, expected)

        encoding = {"codec": name, "options": encoders[name], "pix_fmt": options.pix_fmt, "threads": options.threads}
        writer = Writer(out, source, size=target, **encoding)
        try:
            run(source, upscalers, write, report)
            with report.clock("encode"):
                writer.finish()
        except BaseException:
            writer.discard()
            raise
    report.kept, report.dropped = writer.kept, writer.dropped
    report.notes = source.notes + writer.notes
    report.missing = ", ".join(text for text in (str(source.damage), writer.lost) if text)
    report.finish(time.perf_counter() - begun)
    return report


def _preview(path, options):
    """Return the options with a part from the middle of the video."""
    with Source(path) as source:
        length = source.info.duration
    if not length:
        raise ValueError(f"Expected a video that says how long it is for a preview. Use --start and --duration: {path}")
    return replace(options, start=max(0.0, (length - PREVIEW_S) / 2), duration=PREVIEW_S)


def _load(cards, info, target, options, loading):
    """Load the engines that reach the target size; none for plain Lanczos."""
    if not cards:
        return []
    if target[0] < info.width or target[1] < info.height:
        size = options.size
        raise ValueError(
            f"Expected a size of at least the input's {info.width}x{info.height}; {size[0]}x{size[1]} makes it "
            f"{target[0]}x{target[1]}. To make a video smaller, use --model lanczos"
        )
    factor = max(Fraction(target[0], info.width), Fraction(target[1], info.height)) if options.size else options.scale
    return load_chain(cards, factor, bits=16 if info.bits > 8 else 8, **loading)


def _expected_frames(info: VideoInfo, options):
    start, duration = options.start, options.duration
    if duration is None and not start:
        return info.frames
    seconds = min(duration or float("inf"), (info.duration or float("inf")) - start)
    return round(seconds * info.rate) if 0 < seconds < float("inf") else None
