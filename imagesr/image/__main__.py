"""Upscale photographs: `imagesr image IN OUT`, `python -m imagesr.image IN OUT`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from imagesr.cli import (
    CLEAN_HELP,
    DETAIL_HELP,
    DEVICE_HELP,
    GRAIN_HELP,
    RAY_HELP,
    Parser,
    box_argument,
    clean_argument,
    run_command,
    scale_argument,
    share_argument,
    shared_on,
)
from imagesr.engines import DEVICES
from imagesr.engines.chain import MAX_SCALE
from imagesr.engines.tiles import TILE
from imagesr.image.batch import ENDINGS
from imagesr.image.files import upscale_files
from imagesr.image.upscale import MODEL, SMALLEST_TILE
from imagesr.media.photos import MAX_PIXELS
from imagesr.scale import Scale


def _parser():
    parser = Parser(
        prog="imagesr image",
        usage="imagesr image [options] IN ... OUT",
        description="Upscale photographs. OUT is a file for one photograph and a folder for several; - is standard "
        "input and output.",
        examples="""
            imagesr image photo.jpg large.png  # twice as large
            imagesr image photo.jpg large.png -s 1.5
            imagesr image photo.jpg large.png --size 3840x2160
            imagesr image photos/ large/ -r  # a folder and its sub-folders
        """,
        epilog=f"A result has at most {MAX_PIXELS / 1e6:,.0f} megapixels.",
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="IN ... OUT", help="pictures, folders or patterns, and at last where to write")
    large = parser.add_mutually_exclusive_group().add_argument
    large("-s", "--scale", type=scale_argument, default=Scale(2), help=f"factor, up to {MAX_SCALE} (default: 2)")
    large(
        "--size",
        type=box_argument,
        metavar="WxH",
        help="fit into this size: 3840x2160, 1080p, 4k",
    )
    add("--times", type=int, default=1, metavar="N", help="upscale N times in a row (default: 1)")
    add("-n", "--model", default=MODEL, help=f"fast, balanced, best, or the folder of a model (default: {MODEL})")
    add("--detail", type=share_argument, metavar="0..1", help=DETAIL_HELP)
    add("--clean", type=clean_argument, default="auto", metavar="0..1", help=CLEAN_HELP.format(default="auto"))
    add("--grain", type=share_argument, default=0.0, metavar="0..1", help=GRAIN_HELP)
    add("--device", choices=("auto", *DEVICES), default="auto", help=DEVICE_HELP)
    add("--tta", action="store_true", help="average over eight orientations: a little better, eight times as slow")
    add(
        "--tile",
        type=_tile,
        default="auto",
        help=f"pixels a side, or off: the whole picture at once (default: auto, {TILE})",
    )
    add("--format", choices=ENDINGS, help="format of the files (default: by OUT's name, or each picture's own)")
    add("--quality", type=int, default=95, help="quality of JPEG and WebP, up to 100 (default: 95)")
    add("--strip", action="store_true", help="leave out EXIF, XMP, IPTC and text; the colour profile stays")
    add("--allow-truncated", action="store_true", help="take what can be read of a damaged picture")
    add("--threads", type=int, default=0, help="threads of the network (default: 0, every core)")
    add("-r", "--recursive", action="store_true", help="take sub-folders, too; OUT gets the same ones")
    there = parser.add_mutually_exclusive_group().add_argument
    there("-y", dest="overwrite", action="store_true", help="overwrite files that exist")
    there("--skip-existing", action="store_true", help="make only the pictures whose files do not exist yet")
    add("--ray", metavar="ADDRESS", help=RAY_HELP)
    add("-q", "--quiet", action="store_true", help="print errors only")
    return parser


def _tile(text):
    if text in ("auto", "off") or (text.isdecimal() and int(text) >= SMALLEST_TILE):
        return text
    raise argparse.ArgumentTypeError(f"expected auto, off or at least {SMALLEST_TILE} pixels, received {text}")


def main(arguments: list[str] | None = None, *, executor_on: Callable | None = None) -> int:
    """Run the command and return its exit code; `executor_on` opens what shares work out, at the address of --ray."""

    def run(options):
        with shared_on(options.ray, executor_on) as executor:
            return upscale_files(options, executor=executor)

    return run_command("image", run, _parser().parse_intermixed_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
