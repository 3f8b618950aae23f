"""Upscale a video: `python -m imagesr.video IN OUT`."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import imagesr
from imagesr.card import find_models
from imagesr.cli import DAMAGED, Interrupted, Parser, check_record, run_command, scale_argument, size_argument
from imagesr.engines import ENGINES, PRECISIONS, load_engine
from imagesr.engines.chain import MAX_SCALE, load_chain
from imagesr.errors import OutputError
from imagesr.files import part_of, write_whole
from imagesr.media.containers import FORMATS
from imagesr.media.encoders import check_encoder, encoder_options
from imagesr.media.frames import Frame, VideoInfo, depth
from imagesr.media.source import Source
from imagesr.media.writer import Writer
from imagesr.scale import Scale
from imagesr.video.pipeline import run
from imagesr.video.report import Report
from imagesr.video.upscaler import Upscaler, target_size

PREVIEW_S = 10.0
MAX_THREADS = 256
MAX_PARALLEL = 4  # each frame in the works takes memory


def upscale_video(
    path: str | Path,
    out: str | Path,
    *,
    scale: Scale | float | str = "1.5",
    size: tuple[int, int] | None = None,
    model: str = "balanced",
    engine: str = "openvino",
    precision: str = "auto",
    codec: str | None = None,
    crf: float = 18,
    preset: str = "superfast",
    encoder: Mapping[str, str] | None = None,
    pix_fmt: str | None = None,
    threads: int = 0,
    start: float = 0.0,
    duration: float | None = None,
    preview: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
) -> Report:
    """Upscale the video at `path` into `out`, its sound and its timestamps kept.

    `size` (width, height) is a box to fit into and replaces `scale`. `start` and `duration` are seconds; `preview`
    takes ten seconds from the middle. `encoder` holds more options for the encoder. `progress` is called after each
    frame with the frames done and the frames expected, None where that is unknown.

    Raises ValueError, before the input is opened, for an option, path or model that cannot be right; InputError for an
    input that cannot be read; OutputError for an output that could not be written or did not pass its check.
    """
    path, out, scale = Path(path), Path(out), Scale.parse(scale)
    _check_numbers(model, scale, size, start, duration, crf, threads)
    _check_paths(path, out, overwrite)
    encoders = _encoders(codec, out.suffix.lower(), crf, preset, encoder or {}, pix_fmt)
    # Frames side by side: no core waits for another at the end of every layer. One more than there are cores, so that
    # a core is not idle while a frame is handed over.
    parallel = min((threads or os.cpu_count() or 1) + 1, MAX_PARALLEL)
    loading = {"engine": engine, "precision": precision, "threads": threads, "parallel": parallel}
    cards, engines = [] if model == "lanczos" else find_models(model), []
    if cards:
        load_engine(cards[0], **loading)  # so that a precision that this CPU lacks is told before the input is opened

    begun = time.perf_counter()
    report = Report(output=str(out), model=model)
    if preview:
        with Source(path) as source:
            if not source.info.duration:
                raise ValueError(
                    f"Expected a video that says how long it is for a preview. Use --start and --duration: {path}"
                )
            start, duration = max(0.0, (source.info.duration - PREVIEW_S) / 2), PREVIEW_S
    with Source(path, start=start, duration=duration, threads=threads) as source:
        info = source.info
        target = target_size(info, scale=scale, box=size)
        report.size = f"{info.width}x{info.height} to {target[0]}x{target[1]}"
        if cards:
            if target[0] < info.width or target[1] < info.height:
                raise ValueError(
                    f"Expected a size of at least the input's {info.width}x{info.height}; {size[0]}x{size[1]} makes it "
                    f"{target[0]}x{target[1]}. To make a video smaller, use --model lanczos"
                )
            factor = max(Fraction(target[0], info.width), Fraction(target[1], info.height)) if size else scale
            engines = load_chain(cards, factor, bits=16 if info.bits > 8 else 8, **loading)
            report.precision = engines[0].precision
        upscalers = [Upscaler(info, target, engines) for _ in range(parallel if cards else 1)]
        name = list(encoders)[-1 if info.bits > 8 else 0]
        expected = _expected_frames(info, start, duration)

        def write(item):
            if isinstance(item, Frame):
                report.saw_frame()
            writer.write(item)
            if isinstance(item, Frame) and progress:
                progress(report.frames, expected)

        writer = Writer(out, source, size=target, codec=name, options=encoders[name], pix_fmt=pix_fmt, threads=threads)
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


def run_demo(out: str | Path, **options) -> Report:
    """Render a clip, upscale it to `out` and save a comparison with Lanczos beside it as PNG.

    `options` and errors are those of `upscale_video`; a PNG that is in the way raises ValueError.
    """
    from imagesr.video.demo import compare, render

    out = Path(out)
    picture = out.with_suffix(".png")
    if picture.exists() and not options.get("overwrite"):
        raise ValueError(f"{picture} exists already. Choose another name, or overwrite it with -y")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "demo.mp4"
        _check_paths(source, out, options.get("overwrite", False))
        begun = time.perf_counter()
        render(source)
        rendering = time.perf_counter() - begun
        report = upscale_video(source, out, **options)
        compare(source, out, picture)
    report.first_frame_s = round(report.first_frame_s - rendering, 3)
    report.notes.append(f"side by side with Lanczos: {picture}")
    return report


def _check_numbers(model, scale, size, start, duration, crf, threads):
    lowest = 0 if model == "lanczos" else 1
    if not size and not lowest < float(scale) <= MAX_SCALE:
        raise ValueError(f"Expected a scale above {lowest} and up to {MAX_SCALE}. Received: {scale}")
    if size and min(size) < 2:
        raise ValueError(f"Expected a size of at least 2x2. Received: {size[0]}x{size[1]}")
    if not 0 <= start < math.inf:
        raise ValueError(f"Expected a start of 0 s or later. Received: {start:g}")
    if duration is not None and not 0 < duration < math.inf:
        raise ValueError(f"Expected a duration above 0 s. Received: {duration:g}")
    if not 0 <= crf <= 63:
        raise ValueError(f"Expected a crf from 0 to 63. Received: {crf:g}")
    if not 0 <= threads <= MAX_THREADS:
        raise ValueError(f"Expected a number of threads up to {MAX_THREADS}, or 0 for all. Received: {threads}")


def _check_paths(path, out, overwrite):
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"Expected an output file ending in {', '.join(FORMATS)}. Received: {out}")
    if not out.parent.is_dir():
        raise ValueError(f"Expected an existing folder for the output. There is no {out.parent}")
    if out.is_dir():
        raise ValueError(f"Expected a file for the output. {out} is a folder")
    if out.exists():
        if path.exists() and path.samefile(out):
            raise ValueError(f"Expected another file for the output than the input. Received {out} for both")
        if not overwrite:
            raise ValueError(f"{out} exists already. Choose another name, or overwrite it with -y")
    part = part_of(out)
    if part.exists():
        if path.exists() and path.samefile(part):
            raise ValueError(
                f"Expected another name for the output: while it is written it is called {part}, as the input"
            )
        if not overwrite or part.is_dir():
            raise ValueError(f"{part} is in the way, left by another run or in use. Remove it, or overwrite it with -y")


def _encoders(codec, suffix, crf, preset, more, pix_fmt):
    """Return the options of each encoder that may be needed, tried out: for 8 bits first, for deeper video last.

    Raises ValueError, with the first one's reason, when none of them can do what is asked.
    """
    if codec:
        candidates = [codec]
    elif suffix == ".webm":
        candidates = ["libsvtav1"]
    elif pix_fmt:
        candidates = ["libx265" if depth(pix_fmt) > 8 else "libx264"]
    else:
        candidates = ["libx264", "libx265"]
    encoders, refusals = {}, []
    for name in candidates:
        try:
            options = _encoder_options(name, crf, preset, more)
            check_encoder(name, options, pix_fmt, suffix)
            encoders[name] = options
        except ValueError as error:
            refusals.append(error)
    if not encoders:
        raise refusals[0]
    return encoders


def _encoder_options(codec, crf, preset, more):
    """Return what is sent to an encoder; raises ValueError for an option of the reader's that it does not know."""
    options, unknown = encoder_options(codec, more)
    if unknown:
        key = unknown[0]
        raise ValueError(f"Expected an option that {codec} knows and a value it takes. Received: {key}={more[key]}")
    quality = encoder_options(codec, {"crf": f"{crf:g}", "cq": f"{crf:g}", "preset": preset})[0]
    if "crf" in quality:
        quality.pop("cq", None)  # NVENC's name for the same; only one of them may be sent
    quiet = {"libx265": {"x265-params": "log-level=error"}}.get(codec, {})
    return quality | quiet | options


def _expected_frames(info: VideoInfo, start, duration):
    if duration is None and not start:
        return info.frames
    seconds = min(duration or float("inf"), (info.duration or float("inf")) - start)
    return round(seconds * info.rate) if 0 < seconds < float("inf") else None


def _key_value(text):
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, received {text}")
    return key, value


def _parser():
    parser = Parser(prog="imagesr video", description="Upscale a video; sound and timestamps are kept.")
    add = parser.add_argument
    add("input", nargs="?", metavar="IN", type=Path, help="the video to upscale")
    add("output", nargs="?", metavar="OUT", type=Path, help=f"the video to write: {' '.join(FORMATS)}")
    add("--demo", metavar="OUT", type=Path, help="render a 720p clip, upscale it to OUT, and leave a PNG beside it")
    large = parser.add_mutually_exclusive_group().add_argument
    large("-s", "--scale", type=scale_argument, default=Scale(3, 2), help="factor, up to 8 (default: 1.5)")
    large("--size", type=size_argument, metavar="WxH", help="fit into this size instead; the aspect is kept")
    add(
        "-n",
        "--model",
        default="balanced",
        help="fast, balanced, best, lanczos, or the folder of a model (default: balanced)",
    )
    add("--engine", choices=ENGINES, default="openvino", help="the runtime (default: openvino)")
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="default: auto, the fastest that this CPU computes natively",
    )
    add("-c", "--codec", help="encoder (default: libx264; 10 bit: libx265; webm: libsvtav1)")
    add("--crf", type=float, default=18, help="quality, lower is better and larger (default: 18)")
    add("--preset", default="superfast", help="the encoder's speed (default: superfast)")
    add(
        "-e",
        dest="encoder",
        type=_key_value,
        action="append",
        metavar="KEY=VALUE",
        help="another option for the encoder",
    )
    add("--pix-fmt", help="pixel format to encode (default: the input's)")
    add("--threads", type=int, default=0, help="threads of each stage (default: 0, every core)")
    add("--start", type=float, default=0.0, metavar="SECONDS", help="begin here")
    add("--duration", type=float, metavar="SECONDS", help="take only this much")
    add("--preview", action="store_true", help="take ten seconds from the middle")
    add("--allow-truncated", action="store_true", help="exit with 0 even when the input was damaged")
    add("-y", dest="overwrite", action="store_true", help="overwrite OUT")
    add("-q", "--quiet", action="store_true", help="print errors only")
    add(
        "--progress",
        choices=("auto", "json", "none"),
        default="auto",
        help="a bar in a terminal, or a JSON object per line",
    )
    add("--json", type=Path, metavar="FILE", help="write the report to FILE")
    add("--version", action="version", version=f"imagesr {imagesr.__version__}")
    return parser


@contextmanager
def _progress(kind, quiet):
    """Yield what `upscale_video` calls after each frame: a bar, JSON lines on stderr every second, or nothing."""
    if kind == "json":
        begun = last = time.monotonic()

        def line(done, expected):
            nonlocal last
            now = time.monotonic()
            if now - last >= 1 or done == expected:
                fps, last = done / max(now - begun, 1e-9), now
                eta = None if not expected else round(max(0, expected - done) / fps, 1)
                record = {"frames": done, "expected": expected, "fps": round(fps, 2), "eta_s": eta}
                print(json.dumps(record), file=sys.stderr, flush=True)

        yield line
    elif kind == "none" or quiet or not sys.stderr.isatty():
        yield None
    else:
        from tqdm import tqdm

        with tqdm(unit=" frames", dynamic_ncols=True, leave=False) as bar:

            def advance(done, expected):
                bar.total = max(expected, done) if expected else None
                bar.update(done - bar.n)

            yield advance


def _video(parser, options):
    options = vars(options)
    demo, path, out = options.pop("demo"), options.pop("input"), options.pop("output")
    if (demo is None) == (path is None or out is None):
        parser.error("expected IN and OUT, or --demo OUT")
    allow_truncated, quiet, record = options.pop("allow_truncated"), options.pop("quiet"), options.pop("json")
    if options["preview"] and (options["start"] or options["duration"]):
        parser.error("expected --preview or --start and --duration, not both")
    options["encoder"] = dict(options["encoder"] or [])
    if record:
        check_record(record, [path, out, demo, demo and demo.with_suffix(".png")])
    try:
        with _progress(options.pop("progress"), quiet) as progress:
            if demo:
                report = run_demo(demo, progress=progress, **options)
            else:
                report = upscale_video(path, out, progress=progress, **options)
    except Interrupted as interrupted:
        interrupted.hint = "nothing was written"
        raise
    if not quiet:
        print(report, flush=True)
    if record:
        try:
            write_whole(record, json.dumps(report.as_dict(), indent=1) + "\n")
        except OSError as error:
            told = f"Cannot write the report to {record}: {error.strerror}; the video is made"
            raise OutputError(told) from None
    if report.missing:
        print(f"imagesr video: the input is damaged: {report.missing}", file=sys.stderr)
        return 0 if allow_truncated else DAMAGED
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)  # IN --scale 2 OUT as well
    return run_command("video", partial(_video, parser), options)


if __name__ == "__main__":
    sys.exit(main())
