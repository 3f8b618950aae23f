"""Upscale videos: `imagesr video IN OUT`, `python -m imagesr.video IN OUT`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import repeat
from pathlib import Path

import imagesr
from imagesr.cli import (
    CLEAN_HELP,
    DAMAGED,
    DETAIL_HELP,
    DEVICE_HELP,
    GRAIN_HELP,
    NOT_STARTED,
    RAY_HELP,
    SOME_FAILED,
    UNREADABLE,
    Interrupted,
    Parser,
    box_argument,
    check_record,
    clean_argument,
    exit_code,
    run_command,
    scale_argument,
    share_argument,
    shared_on,
    told,
)
from imagesr.engines import DEVICES, ENGINES, PRECISIONS
from imagesr.errors import InputError, OutputError
from imagesr.files import write_whole
from imagesr.media.containers import FORMATS
from imagesr.scale import Scale

_NOTHING = "nothing was written"
_LINE_S = 10.0  # between lines of progress where there is no terminal
_EXAMPLES = """
  imagesr video in.mp4 out.mp4  # 1.5 times as large
  imagesr video dvd.vob out.mp4 --size 1080p  # fitted into 1920x1080
  imagesr video in.mp4 out.mp4 --dry-run  # what the whole will take; nothing is written
  imagesr video in.mp4 out.mp4 --preview  # three seconds, and what the whole will take
  imagesr video a.mp4 b.mov upscaled/  # several, into a folder
  imagesr video films upscaled -r  # a folder and its sub-folders
  imagesr video %05d.png out.mp4 --rate 24  # numbered pictures
  ffmpeg -i in.mp4 -f yuv4mpegpipe - | imagesr video - - | mpv -
"""


def _key_value(text):
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, received {text}")
    return key, value


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


def _fps(text):
    """Return frames a second, or the word that stands for those of the video."""
    try:
        return text if text == "own" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected frames a second such as 25, or own, received {text}") from None


def _parser():
    parser = Parser(
        prog="imagesr video",
        usage="imagesr video [options] IN ... OUT",
        description="Upscale videos; sound, subtitles and timestamps are kept.",
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    outputs = " ".join(FORMATS)
    add("paths", nargs="*", metavar="IN OUT", help=f"videos, and at last the output ({outputs}), - or a folder")
    add("--demo", metavar="OUT", type=Path, help="render a 720p clip, upscale it to OUT, and leave a PNG beside it")
    large = parser.add_mutually_exclusive_group().add_argument
    large("-s", "--scale", type=scale_argument, default=Scale(3, 2), help="factor, up to 8 (default: 1.5)")
    large("--size", type=box_argument, metavar="WxH", help="fit into this size as displayed: 1920x1080, 1080p, 4k")
    add("--square", action="store_true", help="make pixels square")
    add(
        "-n",
        "--model",
        default="balanced",
        help="fast, balanced, best, lanczos, or the folder of a model (default: balanced)",
    )
    add("--engine", choices=ENGINES, help="the runtime (default: openvino)")
    add("--device", choices=("auto", *DEVICES), default="auto", help=DEVICE_HELP)
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="default: auto, the fastest that this CPU computes natively; video of 10 bits always runs at fp32",
    )
    rate = {"type": _fps, "nargs": "?", "const": "own", "metavar": "FPS"}
    add(
        "--realtime",
        **rate,
        help="hold a rate (default: the video's own) by the best model that does, whatever -n says",
    )
    add("--detail", type=share_argument, metavar="0..1", help=DETAIL_HELP)
    add(
        "--clean",
        type=clean_argument,
        default="auto",
        metavar="0..1",
        help=CLEAN_HELP.format(default="auto, where the model takes it"),
    )
    add("--grain", type=share_argument, default=0.0, metavar="0..1", help=GRAIN_HELP)
    how = ("auto", "off", "frame", "field", "film")
    add("--deinterlace", choices=how, default="auto", help="interlaced video: one frame per frame, per field, or film")
    add("--rate", type=_rate, metavar="FPS", help="frames per second of numbered pictures (default: 25)")
    sound = ("auto", "copy", "convert", "none")
    add("--audio", choices=sound, default="auto", help="default: copy where the output holds it, else convert")
    add("-c", "--codec", "--encoder", dest="codec", help="libx264, libx265, …, or hardware (10 bit: libx265)")
    quality = parser.add_mutually_exclusive_group().add_argument
    quality("--crf", type=float, help="quality, lower is better and larger (default: 21)")
    quality("--bitrate", type=float, metavar="KBIT", help="kilobits per second of the picture, in place of --crf")
    quality("--target-size", type=float, metavar="MB", help="megabytes of the output, in place of --crf")
    add("--preset", help="the encoder's speed (default: superfast)")
    add(
        "-e",
        "--encoder-option",
        dest="encoder",
        type=_key_value,
        action="append",
        metavar="KEY=VALUE",
        help="an option of the encoder, such as tune=film; may be given several times",
    )
    add("--pix-fmt", help="pixel format to encode (default: the input's; 4:2:0 for RGB)")
    add("--threads", type=int, default=0, help="threads of each stage (default: 0, every core)")
    add("--start", type=_seconds, default=0.0, metavar="TIME", help="begin here: 90, 1:30")
    add("--duration", type=_seconds, metavar="TIME", help="take only this much")
    part = parser.add_mutually_exclusive_group().add_argument
    part("--dry-run", action="store_true", help="try half a second, say what the whole will take, and write nothing")
    part("--preview", action="store_true", help="take three seconds from the middle, and say what the whole will take")
    add("--restart", action="store_true", help="begin anew; else the same command goes on where it was interrupted")
    checks = ("quick", "full")
    add(
        "--verify",
        choices=checks,
        default="quick",
        help="full: compare every frame, time, stream and tag with the input",
    )
    add("--allow-truncated", action="store_true", help="exit with 0 even when the input was damaged")
    add("-r", "--recursive", action="store_true", help="take sub-folders, too; OUT gets the same ones")
    there = parser.add_mutually_exclusive_group().add_argument
    there("-y", dest="overwrite", action="store_true", help="overwrite OUT")
    there("--skip-existing", action="store_true", help="make only the videos whose files do not exist yet")
    add("--watch", action="store_true", help="wait for videos that arrive in the folders IN, and upscale each")
    add("--ray", metavar="ADDRESS", help=RAY_HELP)
    add("-q", "--quiet", action="store_true", help="print errors only")
    text = "take options from a TOML or JSON file of their names, such as crf = 20; the command line wins"
    add("--preset-file", type=Path, metavar="FILE", help=text)
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
        before = None  # frames that earlier runs have done

        def line(done, expected):
            nonlocal last, before
            before = done - 1 if before is None else before
            now = time.monotonic()
            if now - last >= pause or (kind == "json" and done == expected):
                fps, last = (done - before) / max(now - begun, 1e-9), now
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
                if not bar.n:
                    bar.initial = bar.n = done - 1  # what earlier runs have done
                bar.total = max(expected, done) if expected else None
                bar.update(done - bar.n)

            yield advance


def _video(parser, executor_on, options):
    out = Path(options.demo or (options.paths or ["-"])[-1])
    chosen, address = vars(options), options.ray
    del chosen["ray"]
    if address and (options.demo or options.dry_run or out == Path("-")):
        parser.error("expected --ray with files, not with --demo, --dry-run or -")
    # Of a folder each of the videos tells for itself.
    telling = _telling_what_is_left(out) if out.suffix.lower() in FORMATS else nullcontext()
    with telling, shared_on(address, executor_on) as executor:
        return _chosen(parser, chosen, executor)


@contextmanager
def _telling_what_is_left(out):
    """Let a signal that comes while the block runs say what became of an output."""
    from imagesr.video.segments import Folder

    def state():
        try:
            found = os.stat(out)  # noqa: PTH116, Path.stat says no more
        except (OSError, ValueError):
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    before = state()
    try:
        yield
    except Interrupted as interrupted:
        if state() not in (None, before):
            hint = f"{out} is made"
        elif Folder(out).begun():
            hint = "what is done is kept; the same command goes on, --restart begins anew"
        else:
            hint = _NOTHING
        interrupted.hint = interrupted.hint or hint
        raise


def _chosen(parser, options, executor):
    demo, paths = options.pop("demo"), options.pop("paths")
    if (demo is None) == (len(paths) < 2) or (demo and paths):
        parser.error("expected IN and OUT, or --demo OUT")
    if options["preview"] and (options["start"] or options["duration"]):
        parser.error("expected --preview or --start and --duration, not both")
    options["encoder"] = dict(options["encoder"] or [])
    run = {name: options.pop(name) for name in ("progress", "quiet", "allow_truncated", "json")}
    run["executor"] = executor
    which = {name: options.pop(name) for name in ("recursive", "skip_existing")}
    watch, run["dry_run"] = options.pop("watch"), options.pop("dry_run")
    if run["dry_run"] and (demo or watch):
        parser.error("expected --dry-run of videos that exist, not with --demo or --watch")
    if demo:
        _check_record(run["json"], [demo, demo.with_suffix(".png")])
        return _single(None, demo, options, run)
    from imagesr.video.batch import plan
    from imagesr.video.options import check_paths

    if watch:
        return _watch(paths, which["recursive"], options, run)
    todo = plan(paths, overwrite=options["overwrite"], **which)
    _check_record(run["json"], [place for pair in todo.pairs for place in pair])
    if todo.several or not todo.pairs:
        return _several(todo, paths[-1], options, run)
    overwrite = options["overwrite"] or bool(todo.remade)
    if run["dry_run"]:
        check_paths(*todo.pairs[0], overwrite=overwrite)
    return _single(*todo.pairs[0], options | {"overwrite": overwrite}, run)


def _single(path, out, options, run):
    report = _one(path, out, options, run)
    if run["json"]:
        _write_record(run["json"], report.as_dict())
    return _code(report, run)


def _several(todo, folder, options, run):
    """Upscale the videos of a plan, one after another; what goes wrong with one is told, and the others are made."""
    _check_options(options)
    if todo.left and not run["quiet"]:
        _tell(todo.left)
    for path, reason in todo.clashes:
        _tell(f"{path}: {reason}")
    for _, error in todo.failed:
        _tell(str(error))
    for out in todo.remade:
        _tell(f"{out} exists and is not whole; it is made again")
    codes, reports = [NOT_STARTED for _ in todo.clashes] + [UNREADABLE for _ in todo.failed], []
    wanted = len(codes) + len(todo.pairs)
    elsewhere = _made_elsewhere(todo, options, run["executor"]) if run["executor"] else repeat(None)
    for number, (path, out) in enumerate(todo.pairs, 1):
        asked = options | {"overwrite": options["overwrite"] or out in todo.remade}
        try:
            count = f"{number}/{len(todo.pairs)} {path}: "
            code, report = _one_of_several(path, out, asked, run, count, next(elsewhere))
        except Interrupted as interrupted:
            if reports:
                made = f"{len(reports)} of {len(todo.pairs)} made, in {folder}"
                interrupted.hint = made if interrupted.hint == _NOTHING else f"{made}; {interrupted.hint}"
            raise
        codes.append(code)
        reports += [report] if report else []
    if run["json"] and reports:
        _write_record(run["json"], [report.as_dict() for report in reports])
    if not run["quiet"]:
        there = f", {len(todo.there)} exist already" if todo.there else ""
        made = "would be made" if run["dry_run"] else "made"
        _tell(f"{len(reports)} of {wanted} {made}{there}, in {folder}")
    return _code_of_several(codes, there=bool(todo.there))


def _made_elsewhere(todo, options, executor):
    """Let an executor make each video of a plan as a whole; yield their reports, or what went wrong."""
    from imagesr.video.shares import Whole, make_whole

    wholes = [
        Whole(path.absolute(), out.absolute(), options | {"overwrite": options["overwrite"] or out in todo.remade})
        for path, out in todo.pairs
    ]
    return executor.map(make_whole, wholes)


def _code_of_several(codes, *, there):
    """Return the exit code of several videos: where none was made and none was `there`, that of the first."""
    failed = [code for code in codes if code not in (0, DAMAGED)]
    if failed:
        return SOME_FAILED if there or len(failed) < len(codes) else failed[0]
    return DAMAGED if DAMAGED in codes else 0


def _watch(paths, recursive, options, run):
    """Upscale videos as they arrive in folders, until a signal ends it."""
    from imagesr.video.batch import arriving

    _check_options(options)
    if run["json"]:
        raise ValueError("Expected --json or --watch, not both: a folder that is watched has no last report")
    coming, made, failed = arriving(paths, recursive=recursive, tell=_tell), 0, 0
    try:
        for number, (path, out) in enumerate(coming, 1):
            _, report = _one_of_several(path, out, options | {"overwrite": True}, run, f"{number} {path}: ")
            made, failed = made + bool(report), failed + (report is None)
    finally:
        if not run["quiet"]:
            _tell(f"{made} made, {failed} failed, in {paths[-1]}")


def _one_of_several(path, out, options, run, count, made=None):
    """Upscale one of several videos; return its exit code, and its report where it was made.

    `made` is the report, or the error, where it was upscaled elsewhere.
    """
    try:
        if made:
            return _code(_told_of(made, out, run, count), run, count), made
        if not run["dry_run"]:
            out.parent.mkdir(parents=True, exist_ok=True)
        report = _one(path, out, options, run, count)
    except (ValueError, InputError, OutputError, OSError) as error:
        _tell(f"{path}: {told(error)}")
        return exit_code(error), None
    return _code(report, run, count), report


def _told_of(made, out, run, count):
    """Print the report of a video that was upscaled elsewhere; raise what went wrong there."""
    if isinstance(made, Exception):
        raise made
    if not run["quiet"]:
        print(f"{count}{made}", flush=True)
    return made


def _check_options(options):
    """Raise ValueError for options that no video can be upscaled with, before any."""
    from imagesr.video.options import Options

    Options(**{key: value for key, value in options.items() if key not in ("overwrite", "restart", "verify")})


def _check_record(record, others):
    if not record:
        return
    try:
        check_record(record, others)
    except OSError as error:
        raise ValueError(f"Expected a place for the report that can be used. {record}: {error.strerror}") from None


def _code(report, run, count=""):
    """Return the exit code of a video that was made; tell what its input lacks."""
    if not report.missing:
        return 0
    _tell(f"{count}the input is damaged: {report.missing}")
    return 0 if run["allow_truncated"] else DAMAGED


def _tell(text):
    print(f"imagesr video: {text}", file=sys.stderr, flush=True)


def _one(path, out, options, run, count=""):
    """Upscale one video, or the demonstration where there is no path; `count` says which of several it is."""
    from imagesr.video.demo import run_demo
    from imagesr.video.estimate import dry_run
    from imagesr.video.upscale import upscale_video

    silent = run["quiet"] or str(out) == "-"
    started = 0.0 if count else time.perf_counter() - imagesr.STARTED  # one that follows others has no start of its own

    def announce(line):
        print(f"{count}{line}", flush=True)

    with _telling_what_is_left(out), _progress(run["progress"], run["quiet"]) as progress:
        asked = {"progress": progress, "announce": None if silent else announce, "advise": not run["quiet"], **options}
        if run["dry_run"]:
            of_files = ("advise", "announce", "overwrite", "preview", "restart", "verify")
            report = dry_run(path, out, **{key: value for key, value in asked.items() if key not in of_files})
        elif path:
            executor = run["executor"]
            shared = {"executor": executor, "parts": executor.parts} if executor else {}
            report = upscale_video(path, out, **shared, **asked)
        else:
            report = run_demo(out, **asked)
        report.first_frame_s = round(report.first_frame_s + started, 3)
    if not silent:
        print(report, flush=True)
    return report


def _write_record(record, figures):
    try:
        write_whole(record, json.dumps(figures, indent=1) + "\n")
    except OSError as error:
        raise OutputError(f"Cannot write the report to {record}: {error.strerror}; the video is made") from None


def _with_dashes(arguments):
    """Return the arguments without `--`: what follows it are paths, also those that begin with a dash."""
    if "--" not in arguments:
        return arguments
    at = arguments.index("--")
    paths = [f"./{path}" if path.startswith("-") and path != "-" else path for path in arguments[at + 1 :]]
    return arguments[:at] + paths


def main(arguments: list[str] | None = None, *, executor_on: Callable | None = None) -> int:
    """Run the command and return its exit code; `executor_on` opens what shares work out, at the address of --ray."""
    parser = _parser()
    arguments = sys.argv[1:] if arguments is None else arguments
    from imagesr.video.preset import with_preset

    try:
        arguments = with_preset(_parser, _with_dashes(arguments))
    except ValueError as error:
        parser.exit(NOT_STARTED, f"imagesr video: {error}\n")
    options = parser.parse_intermixed_args(arguments)  # IN --scale 2 OUT as well
    del options.preset_file
    return run_command("video", partial(_video, parser, executor_on), options)


if __name__ == "__main__":
    sys.exit(main())
