"""Upscale videos: `imagesr video IN OUT`, `python -m imagesr.video IN OUT`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import imagesr
from imagesr.cli import (
    DAMAGED,
    DETAIL_HELP,
    NOT_WRITTEN,
    SOME_FAILED,
    UNREADABLE,
    Interrupted,
    Parser,
    check_record,
    run_command,
    scale_argument,
    size_argument,
)
from imagesr.engines import ENGINES, PRECISIONS
from imagesr.errors import InputError, OutputError
from imagesr.files import write_whole
from imagesr.media.containers import FORMATS
from imagesr.scale import Scale

_LINE_S = 10.0  # between lines of progress where there is no terminal
_BOXES = {"480p": (854, 480), "576p": (1024, 576), "720p": (1280, 720), "1080p": (1920, 1080), "1440p": (2560, 1440)}
_BOXES |= {"2160p": (3840, 2160), "4k": (3840, 2160)}
_EXAMPLES = """examples:
  imagesr video in.mp4 out.mp4                     1.5 times as large
  imagesr video dvd.vob out.mp4 --size 1080p       fitted into 1920x1080
  imagesr video in.mp4 out.mp4 --preview           three seconds, and what the whole will take
  imagesr video a.mp4 b.mov upscaled/              several, into a folder
  imagesr video %05d.png out.mp4 --rate 24         numbered pictures
  ffmpeg -i in.mp4 -f yuv4mpegpipe - | imagesr video - - | mpv -
"""


def _key_value(text):
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, received {text}")
    return key, value


def _box(text):
    return _BOXES.get(text.lower()) or size_argument(text)


def _seconds(text):
    """Return the seconds of a text such as 90, 1:30 or 1:02:03.5."""
    total = 0.0
    try:
        for part in text.split(":"):
            total = 60 * total + float(part)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a time such as 90, 1:30 or 1:02:03, received {text}") from None
    return total


def _rate(text):
    from fractions import Fraction

    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(
            f"expected frames per second such as 24 or 30000/1001, received {text}"
        ) from None


def _parser():
    parser = Parser(
        prog="imagesr video",
        usage="imagesr video IN OUT [options]",
        description="Upscale videos; sound, subtitles and timestamps are kept.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    outputs = " ".join(FORMATS)
    add("paths", nargs="*", metavar="IN OUT", help=f"videos, and at last the output ({outputs}), - or a folder")
    add("--demo", metavar="OUT", type=Path, help="render a 720p clip, upscale it to OUT, and leave a PNG beside it")
    large = parser.add_mutually_exclusive_group().add_argument
    large("-s", "--scale", type=scale_argument, default=Scale(3, 2), help="factor, up to 8 (default: 1.5)")
    large("--size", type=_box, metavar="WxH", help="fit into this size as displayed: 1920x1080, 720p, 1080p, 4k")
    add("--square", action="store_true", help="make pixels square")
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
        help="default: auto, the fastest that this CPU computes natively; video of 10 bits always runs at fp32",
    )
    add("--detail", type=float, metavar="0..1", help=DETAIL_HELP)
    how = ("auto", "off", "frame", "field", "film")
    add("--deinterlace", choices=how, default="auto", help="interlaced video: one frame per frame, per field, or film")
    add("--rate", type=_rate, metavar="FPS", help="frames per second of numbered pictures (default: 25)")
    sound = ("auto", "copy", "convert", "none")
    add("--audio", choices=sound, default="auto", help="default: copy where the output holds it, else convert")
    add("-c", "--codec", "--encoder", dest="codec", help="libx264, libx265, …, or hardware (10 bit: libx265)")
    quality = parser.add_mutually_exclusive_group().add_argument
    quality("--crf", type=float, help="quality, lower is better and larger (default: 18)")
    quality("--bitrate", type=float, metavar="KBIT", help="kilobits per second of the picture instead")
    quality("--target-size", type=float, metavar="MB", help="megabytes of the output instead")
    add("--preset", help="the encoder's speed (default: superfast)")
    add("-e", dest="encoder", type=_key_value, action="append", metavar="KEY=VALUE", help="more for the encoder")
    add("--pix-fmt", help="pixel format to encode (default: the input's)")
    add("--threads", type=int, default=0, help="threads of each stage (default: 0, every core)")
    add("--start", type=_seconds, default=0.0, metavar="TIME", help="begin here: 90, 1:30")
    add("--duration", type=_seconds, metavar="TIME", help="take only this much")
    add("--preview", action="store_true", help="take three seconds from the middle, and say what the whole will take")
    add("--allow-truncated", action="store_true", help="exit with 0 even when the input was damaged")
    add("-y", dest="overwrite", action="store_true", help="overwrite OUT")
    add("-q", "--quiet", action="store_true", help="print errors only")
    kinds = ("auto", "json", "none")
    add("--progress", choices=kinds, default="auto", help="a bar in a terminal, else a line now and then; or JSON")
    add("--json", type=Path, metavar="FILE", help="write the report to FILE")
    add("--version", action="version", version=f"imagesr {imagesr.__version__}")
    return parser


@contextmanager
def _progress(kind, quiet):
    """Yield what `upscale_video` calls after each frame: a bar, lines on stderr, or nothing."""
    if kind == "json" or (kind == "auto" and not quiet and not sys.stderr.isatty()):
        pause = 1.0 if kind == "json" else _LINE_S
        begun = last = time.monotonic()

        def line(done, expected):
            nonlocal last
            now = time.monotonic()
            if now - last >= pause or (kind == "json" and done == expected):
                fps, last = done / max(now - begun, 1e-9), now
                eta = None if not expected else round(max(0, expected - done) / fps, 1)
                if kind == "json":
                    text = json.dumps({"frames": done, "expected": expected, "fps": round(fps, 2), "eta_s": eta})
                else:
                    left = f" of {expected}, {eta:.0f} s left" if expected else ""
                    text = f"imagesr video: frame {done}{left}, {fps:.1f} fps"
                print(text, file=sys.stderr, flush=True)

        yield line
    elif kind == "none" or quiet:
        yield None
    else:
        from tqdm import tqdm

        form = "{percentage:3.0f}% {bar} {n_fmt}/{total_fmt} frames, {elapsed}<{remaining}, {rate_noinv_fmt}"
        with tqdm(unit=" frames", bar_format=form, dynamic_ncols=True, leave=False) as bar:

            def advance(done, expected):
                bar.total = max(expected, done) if expected else None
                bar.update(done - bar.n)

            yield advance


def _pairs(paths):
    """Return each input with its output; raises ValueError for outputs that two inputs would share."""
    from imagesr.media.containers import FORMATS

    *inputs, out = map(Path, paths)
    folder = os.path.isdir(out) or str(paths[-1]).endswith(("/", "\\"))  # noqa: PTH112, Path raises for long names
    if len(inputs) == 1 and not folder:
        return [(inputs[0], out)]
    if not folder and out.suffix:
        raise ValueError(f"Expected a folder as the last of several paths. Received: {out}")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"Expected an existing folder for the output. There is no {out.parent}")
    out.mkdir(exist_ok=True)
    pairs = [(path, out / (path.stem + (path.suffix if path.suffix.lower() in FORMATS else ".mp4"))) for path in inputs]
    outs = [target for _, target in pairs]
    if len(set(outs)) < len(outs):
        twice = next(target for target in outs if outs.count(target) > 1)
        raise ValueError(f"Expected videos of different names. Two become {twice}")
    return pairs


def _video(parser, options):
    options = vars(options)
    demo, paths = options.pop("demo"), options.pop("paths")
    if (demo is None) == (len(paths) < 2) or (demo and paths):
        parser.error("expected IN and OUT, or --demo OUT")
    allow_truncated, quiet, record = options.pop("allow_truncated"), options.pop("quiet"), options.pop("json")
    if options["preview"] and (options["start"] or options["duration"]):
        parser.error("expected --preview or --start and --duration, not both")
    options["encoder"] = dict(options["encoder"] or [])
    kind = options.pop("progress")
    pairs = [(None, demo)] if demo else _pairs(paths)
    if record:
        others = [place for pair in pairs for place in pair if place] + [demo and demo.with_suffix(".png")]
        try:
            check_record(record, others)
        except OSError as error:
            raise ValueError(f"Expected a place for the report that can be used. {record}: {error.strerror}") from None
    codes, reports = [], []
    for number, (path, out) in enumerate(pairs, 1):
        told = "" if len(pairs) == 1 else f"{number}/{len(pairs)} {path}: "
        try:
            report = _one(path, out, options, kind, quiet, told)
        except (ValueError, InputError, OutputError) as error:
            if len(pairs) == 1:
                raise
            codes.append(UNREADABLE if isinstance(error, InputError) else NOT_WRITTEN)
            print(f"imagesr video: {path}: {error}", file=sys.stderr, flush=True)
            continue
        reports.append(report)
        if report.missing:
            print(f"imagesr video: {told}the input is damaged: {report.missing}", file=sys.stderr)
            codes.append(0 if allow_truncated else DAMAGED)
    if record and reports:
        _write_record(record, reports[0].as_dict() if len(pairs) == 1 else [report.as_dict() for report in reports])
    codes = [code for code in codes if code]
    return SOME_FAILED if codes and len(codes) < len(pairs) else codes[0] if codes else 0


def _one(path, out, options, kind, quiet, told):
    """Upscale one video, or the demonstration where there is no path."""
    from imagesr.video.demo import run_demo
    from imagesr.video.upscale import upscale_video

    silent = quiet or str(out) == "-"

    def announce(line):
        print(f"{told}{line}", flush=True)

    try:
        with _progress(kind, quiet) as progress:
            asked = {"progress": progress, "announce": None if silent else announce, **options}
            report = upscale_video(path, out, **asked) if path else run_demo(out, **asked)
    except Interrupted as interrupted:
        interrupted.hint = "nothing was written"
        raise
    if not silent:
        print(report, flush=True)
    return report


def _write_record(record, figures):
    try:
        write_whole(record, json.dumps(figures, indent=1) + "\n")
    except OSError as error:
        told = f"Cannot write the report to {record}: {error.strerror}; the video is made"
        raise OutputError(told) from None


def _with_dashes(arguments):
    """Return the arguments without `--`: what follows it are paths, also those that begin with a dash."""
    if "--" not in arguments:
        return arguments
    at = arguments.index("--")
    paths = [f"./{path}" if path.startswith("-") and path != "-" else path for path in arguments[at + 1 :]]
    return arguments[:at] + paths


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_intermixed_args(_with_dashes(arguments))  # IN --scale 2 OUT as well
    return run_command("video", partial(_video, parser), options)


if __name__ == "__main__":
    sys.exit(main())
