"""Check and make pictures: `python -m imagesr.datasets verify DIR`, `leaks A B`, `film DIR OUT`, `scenes OUT`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from imagesr.cli import Parser, run_command, size_argument
from imagesr.datasets.checks import SUMS, leaks, verify, write_sums
from imagesr.datasets.film import camera
from imagesr.datasets.pairs import shape
from imagesr.depth.scenes import render
from imagesr.files import whole, write_whole
from imagesr.media.clips import write_clip
from imagesr.media.images import find_images, read_rgb

EPILOG = (
    "Exit codes: 0 nothing wrong, 1 something found, 2 options or folders, 3 pictures unreadable, 4 file not written."
)
progress = partial(tqdm, disable=None, leave=False, dynamic_ncols=True)  # None: only on a terminal


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(prog="imagesr datasets", description="Check folders of pictures, and make some.", epilog=EPILOG)
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)
    what = "look for damaged, doubled, changed and unpaired files"
    command = commands.add_parser("verify", help=what, description=what.capitalize(), epilog=EPILOG)
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("--write", action="store_true", help=f"write the checksums to DIR/{SUMS}")
    command.set_defaults(run=run_verify)
    what = "look for the same picture, or a crop of it, in two folders"
    command = commands.add_parser("leaks", help=what, description=what.capitalize(), epilog=EPILOG)
    command.add_argument("a", type=Path, metavar="A")
    command.add_argument("b", type=Path, metavar="B")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the leaks to FILE")
    command.set_defaults(run=run_leaks)
    what = "pan across photographs, into lossless clips to measure on"
    command = commands.add_parser("film", help=what, description=what.capitalize(), epilog=EPILOG)
    command.add_argument("folder", type=Path, metavar="PHOTOS")
    command.add_argument("out", type=Path, metavar="OUT", help="a new folder for the clips")
    command.add_argument("--frames", type=int, default=60, help="of each clip (default: 60)")
    command.set_defaults(run=run_film)
    what = "render scenes with their depth, to train and measure networks that take depth"
    command = commands.add_parser("scenes", help=what, description=what.capitalize(), epilog=EPILOG)
    command.add_argument("out", type=Path, metavar="OUT", help="a new folder for the pictures, and depth/ in it")
    command.add_argument("--count", type=int, default=12, help="of scenes (default: 12)")
    command.add_argument("--seed", type=int, default=0, help="other seeds, other scenes (default: 0)")
    command.add_argument("--size", type=size_argument, default=(384, 384), metavar="WxH", help="default: 384x384")
    command.set_defaults(run=run_scenes)
    options = parser.parse_args(arguments)
    if not hasattr(options, "run"):
        parser.print_help()
        return 0
    return run_command("datasets", options.run, options)


def run_verify(options: argparse.Namespace) -> int:
    """Print what is in a folder and what is wrong with it, and return the exit code."""
    target = options.folder / SUMS
    if options.write and target.exists():
        raise ValueError(f"Expected no {SUMS} yet for --write. Received: {target}")
    result = verify(options.folder, progress=progress)
    for folder in result.folders:
        sizes = " x ".join(
            f"{low}" if low == high else f"{low}-{high}" for low, high in (folder.widths, folder.heights)
        )
        kinds = [
            f"{len(files)} {kind} ({files[0]}{', …' * (len(files) > 1)})"
            for kind, files in folder.kinds.items()
            if kind != "RGB"
        ]
        print(", ".join([f"{folder.path}: {folder.pictures} picture{'s' * (folder.pictures > 1)}, {sizes}", *kinds]))
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


def run_leaks(options: argparse.Namespace) -> int:
    """Print the pictures that two folders share, and return the exit code."""
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
    if options.frames < 1:
        raise ValueError(f"Expected a number of frames of at least 1. Received: {options.frames}")
    photos = find_images([options.folder])
    _check_new(options.out)
    # Some of the photograph stays out of sight, for the camera to move to; every scale takes multiples of 24 whole.
    sizes = {photo: tuple(n * 6 // 7 // 24 * 24 for n in shape(photo)) for photo in photos}
    for photo, size in sizes.items():
        if not all(size):
            raise ValueError(f"Expected photographs of at least 28 pixels a side. Received: {photo}")
    if len({photo.stem for photo in photos}) < len(photos):
        raise ValueError(f"Expected photographs of different names, endings aside. Received: {options.folder}")
    options.out.mkdir()
    for number, (photo, size) in enumerate(progress(sizes.items(), unit=" clips")):
        frames = camera(read_rgb(photo), size, options.frames, np.random.default_rng(number))
        with whole(options.out / f"{photo.stem}.mp4") as part:
            write_clip(part, map(Image.fromarray, frames), 25, crf=0)
    print(f"{len(photos)} clips of {options.frames} frames in {options.out}")
    return 0


def _check_new(folder):
    if folder.exists() or not folder.absolute().parent.is_dir():
        raise ValueError(f"Expected a new folder, in one that exists. Received: {folder}")


def run_scenes(options: argparse.Namespace) -> int:
    """Write scenes, and their depth in millimetres as 16-bit PNGs of the same names, and return the exit code."""
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
