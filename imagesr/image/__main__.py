"""Upscale photographs: `python -m imagesr.image IN OUT`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from imagesr.cli import (
    NOT_WRITTEN,
    SOME_FAILED,
    UNREADABLE,
    Parser,
    check_interrupted,
    run_command,
    scale_argument,
    size_argument,
)
from imagesr.engines.chain import MAX_SCALE
from imagesr.engines.tiles import TILE
from imagesr.errors import InputError, OutputError
from imagesr.image.batch import ENDINGS, PIPE, check_outputs, find_photos, into_folder
from imagesr.image.upscale import MODEL, SMALLEST_TILE, enlarging, last, load_photo_engines, photo_scale
from imagesr.media.photos import FORMATS, MAX_PIXELS, check_size, read_photo, write_photo
from imagesr.scale import Scale


def plan(places: Sequence[str], out: str, format: str | None, *, overwrite: bool) -> list[tuple[Path, Path, str]]:
    """Return every photo with the file that it becomes and that file's format, all checked before any work.

    Raises ValueError for files that stand there already, or would take another's place.
    """
    photos, several = find_photos(places)
    folder = Path(out)
    if not (several or folder.is_dir() or out.endswith(("/", "\\"))):
        kind = format or (FORMATS.get(folder.suffix.lower()) if folder != PIPE else "png")
        if not kind:
            raise ValueError(f"Expected an output ending in {' '.join(FORMATS)}, or --format. Received: {out}")
        pairs = [(photos[0], folder, kind)]
    elif out == "-":
        raise ValueError("Expected one picture for standard output. Received several; name a folder")
    else:
        pairs = into_folder(photos, folder, format)
    check_outputs(pairs, folder)
    there = [out for _, out, _ in pairs if out != PIPE and out.exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise ValueError(f"Expected outputs that are not there yet. {there[0]}{more} exist; -y overwrites")
    return pairs


def image(options: argparse.Namespace) -> int:
    """Upscale every picture that the options name; returns the exit code."""
    _check_numbers(options)
    *places, out = options.paths
    if not places:
        raise ValueError("Expected IN and OUT. Received one path; --help shows how")
    pairs = plan(places, out, options.format, overwrite=options.overwrite)

    @cache
    def steps_to(scale):
        return load_photo_engines(options.model, scale, threads=options.threads)

    steps_to(options.scale)  # a model that is not there is said before the first picture is opened
    pairs[0][1].parent.mkdir(exist_ok=True)
    codes = []
    for number, (photo, target, format) in enumerate(pairs, 1):
        count = f"{number}/{len(pairs)} " if len(pairs) > 1 else ""
        try:
            _upscale(photo, target, format, options, steps_to, count)
        except (InputError, OutputError, ValueError, OSError) as error:
            if len(pairs) == 1:
                raise
            codes.append(UNREADABLE if isinstance(error, InputError) else NOT_WRITTEN)
            _tell(f"imagesr image: {photo}: {error}")
    if len(pairs) > 1 and not options.quiet:
        _tell(f"{len(pairs) - len(codes)} of {len(pairs)} made, in {out}")
    return SOME_FAILED if codes and len(codes) < len(pairs) else codes[0] if codes else 0


def _upscale(photo, target, format, options, steps_to, count):
    begun = time.perf_counter()
    source = sys.stdin.buffer.read() if photo == PIPE else photo
    name = "standard input" if photo == PIPE else str(photo)
    read = read_photo(source, name=name, damaged=options.allow_truncated)
    picture, spools = read.picture, []
    sizes = [(picture.width, picture.height)]
    scale = photo_scale(sizes[0], options.scale, options.size)
    for _ in range(options.times):
        sizes.append((scale.grow(sizes[-1][0]), scale.grow(sizes[-1][1])))
    check_size(sizes[-1], format)

    def note(text):
        if not options.quiet:
            _tell(f"imagesr image: {name}: {text}")

    for text in read.notes:
        note(text)
    tile = {"auto": TILE, "off": max(sizes[-1]) * 2}.get(options.tile) or int(options.tile)
    try:
        with _progress(options.quiet, f"{count}{Path(name).name}", options.times) as advance:
            for size in sizes[1:]:
                steps = enlarging(picture, size, steps_to(scale), tta=options.tta, tile=tile, spools=spools)
                picture = last(steps, advance)
            check_interrupted()
            writing = {"quality": options.quality, "strip": options.strip, "note": note}
            _write(picture, target, format, writing)
            check_interrupted()  # libvips calls Python to log, where an exception is lost
    finally:
        for spool in spools:
            spool.close()
    if not options.quiet:
        (width, height), (wide, high) = sizes[0], sizes[-1]
        spent = time.perf_counter() - begun
        _tell(f"{count}{name}: {width}x{height} to {wide}x{high}, {spent:.1f} s")


def _write(picture, target, format, writing):
    if target != PIPE:
        write_photo(picture, target, format, **writing)
        return
    with tempfile.TemporaryDirectory(prefix="imagesr-") as folder:
        file = Path(folder) / "photo"
        write_photo(picture, file, format, **writing)
        with file.open("rb") as whole:
            shutil.copyfileobj(whole, sys.stdout.buffer)
        sys.stdout.buffer.flush()


@contextmanager
def _progress(quiet, name, times):
    """Yield what is called with the share of a picture that is done: a bar in a terminal, else nothing."""
    if quiet or not sys.stderr.isatty():
        yield lambda share: None
        return
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f}% {bar} {elapsed}<{remaining}"
    with tqdm(desc=name, total=times, bar_format=form, dynamic_ncols=True, leave=False) as bar:
        yield bar.update


def _tell(text):
    print(text, file=sys.stderr, flush=True)


def _check_numbers(options):
    if not options.size and not 1 < float(options.scale) <= MAX_SCALE:
        raise ValueError(f"Expected a scale above 1 and up to {MAX_SCALE}. Received: {options.scale}")
    if options.times < 1:
        raise ValueError(f"Expected at least one time. Received: {options.times}")
    if not 1 <= options.quality <= 100:
        raise ValueError(f"Expected a quality from 1 to 100. Received: {options.quality}")
    if not 0 <= options.threads <= 256:
        raise ValueError(f"Expected 0 to 256 threads. Received: {options.threads}")


def _tile(text):
    if text in ("auto", "off") or (text.isdecimal() and int(text) >= SMALLEST_TILE):
        return text
    raise argparse.ArgumentTypeError(f"expected auto, off or at least {SMALLEST_TILE} pixels, received {text}")


def _parser():
    parser = Parser(
        prog="imagesr image",
        usage="imagesr image [options] IN ... OUT",
        description="Upscale photographs. OUT is a file for one, a folder for several; - is standard input and output.",
        epilog=f"A result has at most {MAX_PIXELS / 1e6:,.0f} megapixels.",
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="IN ... OUT", help="pictures, folders or patterns, and at last where to write")
    large = parser.add_mutually_exclusive_group().add_argument
    large("-s", "--scale", type=scale_argument, default=Scale(2), help=f"factor, up to {MAX_SCALE} (default: 2)")
    large("--size", type=size_argument, metavar="WxH", help="fit into this size instead; the aspect is kept")
    add("--times", type=int, default=1, metavar="N", help="enlarge N times in a row (default: 1)")
    add("-n", "--model", default=MODEL, help=f"fast, balanced, best, or the folder of a model (default: {MODEL})")
    add("--tta", action="store_true", help="average over eight orientations: a little better, eight times as slow")
    add("--tile", type=_tile, default="auto", help=f"pixels a side, or off: at once (default: auto, {TILE})")
    add("--format", choices=ENDINGS, help="of the files (default: by OUT's name, or each picture's own)")
    add("--quality", type=int, default=95, help="of JPEG and WebP, up to 100 (default: 95)")
    add("--strip", action="store_true", help="leave out EXIF, XMP and IPTC; the colour profile stays")
    add("--allow-truncated", action="store_true", help="take what can be read of a damaged picture")
    add("--threads", type=int, default=0, help="of the network (default: 0, every core)")
    add("-y", dest="overwrite", action="store_true", help="overwrite what is there")
    add("-q", "--quiet", action="store_true", help="print errors only")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("image", image, _parser().parse_intermixed_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
