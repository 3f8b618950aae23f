"""Photo files upscaled one after another: read, upscaled, written, reported."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

from imagesr.cli import NOT_STARTED, SOME_FAILED, UNREADABLE, check_interrupted, exit_code, told
from imagesr.engines import tuned
from imagesr.engines.chain import MAX_SCALE
from imagesr.engines.tiles import TILE
from imagesr.errors import InputError, OutputError
from imagesr.files import disk_full
from imagesr.image.batch import PIPE, plan
from imagesr.image.upscale import clean_of, last, load_photo_engines, photo_scale, upscaling
from imagesr.media.photo_coding import HEAD
from imagesr.media.photos import check_size, read_photo, write_photo
from imagesr.scale import Scale

_TOGETHER = 8  # pictures that another machine is sent at a time


def upscale_files(options: argparse.Namespace, *, executor: Any = None) -> int:
    """Upscale every picture that the options name; returns the exit code. An executor makes them elsewhere."""
    _check_numbers(options)
    *places, out = options.paths
    if not places:
        raise ValueError("Expected IN and OUT. Received one path; --help shows how")
    todo = plan(
        places,
        out,
        options.format,
        overwrite=options.overwrite,
        skip_existing=options.skip_existing,
        recursive=options.recursive,
    )
    steps_to(options, options.scale)  # a model that is not there is said before the first picture is opened
    if (left := todo.found.left_out()) and not options.quiet:
        _tell(f"imagesr image: {left}")
    for photo, reason in todo.clashes:
        _tell(f"imagesr image: {photo}: {reason}")
    for _, error in todo.found.failed:
        _tell(f"imagesr image: {error}")
    codes = [NOT_STARTED for _ in todo.clashes] + [UNREADABLE for _ in todo.found.failed]
    wanted = len(codes) + len(todo.pairs)
    several = todo.found.several
    made = _made_elsewhere(todo.pairs, options, executor) if executor else repeat((None, None))
    for number, (pair, (spent, error)) in enumerate(zip(todo.pairs, made, strict=False), 1):
        count = f"{number}/{len(todo.pairs)} " if several else ""
        if spent is not None and not error and not options.quiet:
            _tell(f"{count}{pair[0]}: {spent:.1f} s")
        if error := error if executor else _make(pair, options, count):
            if not several:
                raise error from None
            codes.append(exit_code(error))
            _tell(f"imagesr image: {pair[0]}: {told(error)}")
    if (several or todo.there) and not options.quiet:
        there = f", {len(todo.there)} there already" if todo.there else ""
        _tell(f"{wanted - len(codes)} of {wanted} made{there}, in {out}")
    made = wanted - len(codes)
    return SOME_FAILED if codes and (made or todo.there) else codes[0] if codes else 0


def _make(pair, options, count=""):
    """Upscale a picture; return what went wrong, or None: the others are made whatever it is."""
    try:
        _upscale(*pair, options, count)
    except Exception as error:
        return _understood(error, pair[0])
    return None


def _made_elsewhere(pairs, options, executor):
    """Let an executor make pictures, some at a time; yield the seconds that each took, and what went wrong."""
    if any(PIPE in pair for pair in pairs):
        raise ValueError("Expected files for --ray. Received: -")
    quiet = argparse.Namespace(**vars(options) | {"quiet": True})
    absolute = [(photo.absolute(), target.absolute(), format) for photo, target, format in pairs]
    groups = [(quiet, absolute[at : at + _TOGETHER]) for at in range(0, len(pairs), _TOGETHER)]
    for results in executor.map(make_pictures, groups):
        yield from results


def make_pictures(group: tuple[argparse.Namespace, list]) -> list[tuple[float, Exception | None]]:
    """Upscale some pictures, as the options say; return the seconds that each took, and what went wrong with it."""
    options, pairs = group
    results = []
    for pair in pairs:
        begun = time.perf_counter()
        error = _make(pair, options)
        results.append((time.perf_counter() - begun, error))
    return results


def steps_to(options: argparse.Namespace, scale: Scale) -> list:
    """Return the engines that reach a scale; they stay loaded."""
    clean = None if options.clean == "auto" else options.clean
    return _loaded(options.model, scale, options.device, options.threads, options.detail, clean)


@cache
def _loaded(model, scale, device, threads, detail, clean):
    return load_photo_engines(model, scale, device=device, threads=threads, detail=detail, clean=clean)


def _understood(error, photo):
    """Return an error that says in one sentence what went wrong with a picture."""
    if isinstance(error, MemoryError):
        return OutputError(f"{photo} takes more memory than there is; --tile takes smaller pieces")
    if isinstance(error, OSError) and disk_full(error.errno):
        return OutputError(f"Cannot write: {disk_full(error.errno)}")
    if isinstance(error, (InputError, OutputError, ValueError, OSError, ImportError)):
        return error
    return InputError(f"{photo} cannot be upscaled ({type(error).__name__}: {' '.join(str(error).split())})")


def _upscale(photo, target, format, options, count):
    begun = time.perf_counter()
    source = sys.stdin.buffer.read() if photo == PIPE else photo
    name = "standard input" if photo == PIPE else str(photo)
    read = read_photo(source, name=name, damaged=options.allow_truncated)
    picture = read.picture
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
    with ExitStack() as spools, _progress(options.quiet, f"{count}{Path(name).name}", options.times) as advance:
        clean, told = _clean(source, picture, options, steps_to(options, scale))
        for size in sizes[1:]:
            engines, grain = tuned(steps_to(options, scale), clean=clean), options.grain if size is sizes[-1] else 0.0
            how = {"tta": options.tta, "tile": tile, "grain": grain}
            steps = upscaling(picture, size, engines, spools=spools, **how)
            picture, clean = last(steps, advance), 0.0  # a second time there is nothing left to clean
        check_interrupted()
        writing = {"quality": options.quality, "strip": options.strip, "note": note}
        _write(picture, target, format, writing)
        check_interrupted()  # libvips calls Python to log, where an exception is lost
    if not options.quiet:
        (width, height), (wide, high) = sizes[0], sizes[-1]
        spent = time.perf_counter() - begun
        _tell(f"{count}{name}: {width}x{height} to {wide}x{high}, {spent:.1f} s{told}")


def _clean(source, picture, options, engines):
    """Return the clean of a photograph, None where no network takes it or the networks have it, and words about it."""
    if all(engine.card.clean is None for engine in engines):
        return None, ""
    if options.clean != "auto":
        return None, f", clean {options.clean:g}" if options.clean else ""
    coding = clean_of(source[:HEAD] if isinstance(source, bytes) else _head(source), picture)
    return coding.clean, f", {coding}" if coding.clean or options.scale == Scale(1) else ""


def _head(file):
    with file.open("rb") as opened:
        return opened.read(HEAD)


def _write(picture, target, format, writing):
    if target != PIPE:
        target.parent.mkdir(parents=True, exist_ok=True)
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
    if not options.size and not 1 <= float(options.scale) <= MAX_SCALE:
        raise ValueError(f"Expected a scale from 1 to {MAX_SCALE}. Received: {options.scale}")
    if options.times < 1:
        raise ValueError(f"Expected at least one time. Received: {options.times}")
    if not 1 <= options.quality <= 100:
        raise ValueError(f"Expected a quality from 1 to 100. Received: {options.quality}")
    if not 0 <= options.threads <= 256:
        raise ValueError(f"Expected 0 to 256 threads. Received: {options.threads}")
