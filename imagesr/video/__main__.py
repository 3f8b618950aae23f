"""Upscale a video: `imagesr video IN OUT`, `python -m imagesr.video IN OUT`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import imagesr
from imagesr.cli import DAMAGED, Interrupted, Parser, check_record, run_command, scale_argument, size_argument
from imagesr.engines import ENGINES, PRECISIONS
from imagesr.errors import OutputError
from imagesr.files import write_whole
from imagesr.media.containers import FORMATS
from imagesr.scale import Scale


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


def _key_value(text):
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, received {text}")
    return key, value


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
    from imagesr.video.demo import run_demo
    from imagesr.video.upscale import upscale_video

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
