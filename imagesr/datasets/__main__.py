"""Check and make pictures: `imagesr datasets verify DIR`, `leaks A B`, `film PHOTOS OUT`, `scenes OUT`.

`extract`, `transform`, `load` and `prune` are in `etl`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from imagesr.cli import Parser, run_subcommand, size_argument
from imagesr.datasets.etl import add_commands, progress

DESCRIPTION = "Check folders of pictures, and make some."
EXAMPLES = """
  imagesr datasets verify photos/train
  imagesr datasets leaks photos/train Set5
  imagesr datasets film photos/val clips
  imagesr datasets scenes scenes/train --count 100
  imagesr datasets extract div2k=DIV2K.zip urban100=Urban100.zip bsd100=BSD100.zip --out raw
  imagesr datasets transform raw tree
  imagesr datasets load tree s3://bucket/data
"""
EPILOG = """\
Exit codes: 0 nothing wrong, 1 problems or leaks found, 2 wrong options or folders, 3 unreadable pictures,
4 output not written."""


def _parser():
    usage = "imagesr datasets {verify,leaks,film,scenes,extract,transform,load,prune} ..."
    parser = Parser(prog="imagesr datasets", usage=usage, description=DESCRIPTION, examples=EXAMPLES, epilog=EPILOG)
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)

    def command(name, run, what, example):
        prog = f"imagesr datasets {name}"
        one = commands.add_parser(
            name, prog=prog, help=what, description=f"{what[0].upper()}{what[1:]}.", epilog=EPILOG, examples=example
        )
        one.set_defaults(run=run)
        return one.add_argument

    add = command(
        "verify",
        run_verify,
        "look for damaged, duplicate, changed and unpaired files",
        "imagesr datasets verify photos/train",
    )
    add("folder", type=Path, metavar="DIR")
    add("--write", action="store_true", help="write the checksums to DIR/SHA256SUMS")

    add = command(
        "leaks",
        run_leaks,
        "look for pictures, or crops of them, that are in both folders",
        "imagesr datasets leaks photos/train Set5",
    )
    add("a", type=Path, metavar="A")
    add("b", type=Path, metavar="B")
    add("--json", type=Path, metavar="FILE", help="write the leaks to FILE")

    add = command(
        "film",
        run_film,
        "pan across photographs, into lossless clips to measure on",
        "imagesr datasets film photos/val clips --frames 60",
    )
    add("folder", type=Path, metavar="PHOTOS")
    add("out", type=Path, metavar="OUT", help="a new folder for the clips")
    add("--frames", type=int, default=60, help="frames of each clip (default: 60)")

    add = command(
        "scenes",
        run_scenes,
        "render scenes with their depth, for networks that take depth",
        "imagesr datasets scenes scenes/train --count 100",
    )
    add("out", type=Path, metavar="OUT", help="a new folder for the pictures, and depth/ in it")
    add("--count", type=int, default=12, help="number of scenes (default: 12)")
    add("--seed", type=int, default=0, help="different seeds render different scenes (default: 0)")
    add("--size", type=size_argument, default=(384, 384), metavar="WxH", help="default: 384x384")

    add_commands(command)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_subcommand("datasets", _parser(), arguments)


def run_verify(options: argparse.Namespace) -> int:
    """Print the contents of a folder and their problems, and return the exit code."""
    from imagesr.datasets.verify import SUMS, verify, write_sums

    target = options.folder / SUMS
    if options.write and target.exists():
        raise ValueError(f"Expected no {SUMS} yet for --write. Received: {target}")
    result = verify(options.folder, progress=progress)
    for folder in result.folders:
        print(_line(folder))
    for problem in result.problems:
        print(f"{problem.path}: {problem.kind}: {problem.what}")
    total = sum(folder.pictures for folder in result.folders)
    sums = f"compared with {SUMS}" if result.listed else f"hashed (no {SUMS} to compare with)"
    count = len(result.problems)
    problems = f"{count or 'no'} problem{'s' * (count > 1)}"
    print(f"{total} pictures decoded, {len(result.sha256)} files {sums}: {problems}.")
    if options.write:
        if any(problem.kind == "unreadable" for problem in result.problems):
            print(f"{target} is not written: it would vouch for damaged files.", file=sys.stderr)
        else:
            write_sums(target, result.sha256)
    return 1 if result.problems else 0


def _line(folder):
    """Describe a folder: how many pictures, their sizes, and files of unusual kinds."""
    sizes = " x ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in (folder.widths, folder.heights))
    kinds = [
        f"{len(files)} {kind} ({files[0]}{', …' * (len(files) > 1)})"
        for kind, files in folder.kinds.items()
        if kind != "RGB"
    ]
    return ", ".join([f"{folder.path}: {folder.pictures} picture{'s' * (folder.pictures > 1)}, {sizes}", *kinds])


def run_leaks(options: argparse.Namespace) -> int:
    """Print the pictures that two folders share, and return the exit code."""
    from imagesr.datasets.leaks import leaks
    from imagesr.files import write_whole

    if options.json and (options.json.is_dir() or not options.json.parent.is_dir()):
        raise ValueError(f"Expected a file in an existing folder for --json. Received: {options.json}")
    result = leaks(options.a, options.b, progress=progress)
    for leak in result.leaks:
        print(f"{leak.a}  {leak.b}  {leak}")
    for problem in result.unreadable:
        print(f"imagesr datasets: {problem.path} was not compared: {problem.what}", file=sys.stderr)
    count = len({leak.b for leak in result.leaks})
    in_a, in_b = result.pictures
    found = f"{count or 'none'} of the latter {'is' if count < 2 else 'are'} in the former"
    print(f"Compared {in_a} pictures of {options.a} and {in_b} of {options.b}: {found}.")
    if options.json:
        write_whole(options.json, json.dumps(asdict(result), indent=1) + "\n")
    return 1 if result.leaks else 3 if result.unreadable else 0


def run_film(options: argparse.Namespace) -> int:
    """Write a clip of every photograph in a folder, and return the exit code."""
    from functools import partial

    from imagesr.datasets.films import write_films
    from imagesr.media.images import find_images

    if options.frames < 1:
        raise ValueError(f"Expected a number of frames of at least 1. Received: {options.frames}")
    photos = find_images([options.folder])
    _check_new(options.out)
    write_films(photos, options.out, options.frames, partial(progress, unit=" clips"))
    print(f"{len(photos)} clips of {options.frames} frames in {options.out}")
    return 0


def _check_new(folder):
    if folder.exists():
        raise ValueError(f"Expected a new folder. Received: {folder}, which exists")


def run_scenes(options: argparse.Namespace) -> int:
    """Write scenes, and their depth in millimetres as 16-bit PNGs of the same names, and return the exit code."""
    import numpy as np
    from PIL import Image

    from imagesr.depth.scenes import render
    from imagesr.files import whole

    if options.count < 1 or options.seed < 0 or min(options.size) < 16:
        received = f"{options.count}, {options.seed}, {'x'.join(map(str, options.size))}"
        raise ValueError(f"Expected a count of 1, a seed of 0 and a size of 16x16, or more. Received: {received}")
    _check_new(options.out)
    (options.out / "depth").mkdir(parents=True)
    for number in progress(range(options.count), unit=" scenes"):
        # The seed is in the name, so that scenes of two seeds may share a folder of depth maps.
        name = f"scene-{options.seed}-{number:04}.png"
        rgb, depth = render(options.size[::-1], np.random.default_rng((options.seed, number)))
        maps = np.rint(1000 * depth).astype(np.uint16)
        for path, pixels in ((options.out / name, rgb), (options.out / "depth" / name, maps)):
            with whole(path) as part:
                Image.fromarray(pixels).save(part, "PNG")
    print(f"{options.count} scenes in {options.out}, their depth in {options.out / 'depth'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
