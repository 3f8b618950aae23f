"""The tree that training, tests and evaluation read: made of raw pictures, checked, and published as a version.

div2k/train                   HR to train on
div2k/validation              HR to measure on while training
test/urban100_x2/{hr,lr}      and x4
eval/bsd100_x2/{hr,lr}        and x4
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from imagesr.datasets.extract import read_record
from imagesr.datasets.leaks import leaks
from imagesr.datasets.verify import plain, verify
from imagesr.errors import InputError
from imagesr.files import whole_folder, write_whole
from imagesr.media.images import find_images, is_picture, read_rgb
from imagesr.pixels import downscale
from imagesr.scale import Scale
from imagesr.store import open_store
from imagesr.store.versions import (
    MANIFEST,
    Manifest,
    code_version,
    current,
    list_tree,
    publish,
    read_manifest,
    read_tree,
)

SCALES = (2, 4)
KERNEL = "bicubic"
# The pictures of the official sets.
EXPECT = {"train": 800, "validation": 100, "urban100": 100, "bsd100": 100}
_HR = {"train": "div2k/train", "validation": "div2k/validation"}
_PAIRED = {"urban100": "test/urban100", "bsd100": "eval/bsd100"}
# Where raw folders hold DIV2K's splits.
_SPLITS = {"train": ("DIV2K_train_HR", "train"), "validation": ("DIV2K_valid_HR", "validation", "valid", "val")}
_BORDER = 4  # LR pixels that programs pad in their own way: LR that came along is not compared there


def transform(
    raw: Path, out: Path, *, expect: Mapping[str, int] | None = None, progress: Callable[..., Iterable] = plain
) -> list[str]:
    """Make the tree of what `extract` has made, and check it; return the problems, none where the tree is there.

    LR is `KERNEL` of HR. A tree that was made of the same sources already stays. Where there are problems there is no
    tree. Raises InputError for pictures that are missing or cannot be read.
    """
    sources = [{key: entry[key] for key in ("name", "from", "sha256")} for entry in read_record(raw)]
    expect = EXPECT | dict(expect or {})
    if (out / MANIFEST).is_file():
        manifest = read_tree(out)
        if ([*map(dict, manifest.sources)], manifest.kernel) == (sources, KERNEL):
            return count_problems(out, expect)
    try:
        with whole_folder(out) as part:
            _write(raw, part, progress)
            problems = count_problems(part, expect) or problems_of(part, progress=progress)
            if problems:
                raise _RefusedError([problem.replace(f"{part}/", "") for problem in problems])
            manifest = Manifest(list_tree(part), sources, KERNEL, code_version())
            write_whole(part / MANIFEST, manifest.text())
    except _RefusedError as refused:
        return refused.args[0]
    return []


class _RefusedError(Exception):
    """Leave `whole_folder` without a folder; its argument is the list of problems."""


def load(tree: Path, url: str, *, progress: Callable[..., Iterable] = plain) -> tuple[str, int, list[str]]:
    """Publish a tree in a store, if it is in order; return the version, the files that were sent, and the problems.

    Data that the store has as its newest version is neither checked nor sent again. With problems, nothing is
    published and the version is "".
    """
    manifest, store = read_tree(tree), open_store(url)
    newest = current(store)
    if newest and read_manifest(store, newest).data == manifest.data:
        return newest, 0, []
    if problems := problems_of(tree, progress=progress):
        return "", 0, problems
    return *publish(tree, manifest, store, progress=progress), []


def _write(raw, out, progress):
    jobs = []
    for split, names in _SPLITS.items():
        (out / _HR[split]).mkdir(parents=True)
        pictures = find_images([_folder(raw / "div2k", names)])
        jobs += [(shutil.copyfile, picture, out / _HR[split] / picture.name) for picture in pictures]
    for name, place in _PAIRED.items():
        for scale in SCALES:
            target = out / f"{place}_x{scale}"
            for side in ("hr", "lr"):
                (target / side).mkdir(parents=True)
            jobs += [(_reduced, pair, target, scale) for pair in _benchmark(raw / name, scale)]
    with ThreadPoolExecutor() as pool:
        list(progress(pool.map(lambda job: job[0](*job[1:]), jobs), total=len(jobs), desc="transform"))


def _folder(place, names):
    """Return the only folder under `place`, or it itself, that has one of the names."""
    folders = [place, *sorted(path for path in place.rglob("*") if path.is_dir())]
    for name in names:
        found = [folder for folder in folders[1:] if folder.name.lower() == name.lower()]
        if len(found) > 1:
            raise InputError(f"Expected one folder {name} in {place}. Received: {len(found)}")
        if found:
            return found[0]
    raise InputError(f"Expected a folder {names[0]} in {place}. Received: none")


def _benchmark(place, scale):
    """Return (HR, own LR or None, name) of a benchmark: by the names of its usual archive, or a folder of HR."""
    files = sorted(path for path in place.rglob("*") if path.is_file())
    named = {}
    for path in files:
        if match := re.fullmatch(rf"(.+)_SRF_{scale}_(HR|LR)", path.stem):
            named.setdefault(match[1], {})[match[2]] = path
    if named:
        if alone := [name for name, pair in named.items() if "HR" not in pair]:
            raise InputError(f"Expected HR beside {alone[0]} in {place}. Received: LR alone")
        return [(pair["HR"], pair.get("LR"), name) for name, pair in named.items()]
    folders = sorted({path.parent for path in files}, key=lambda folder: (len(folder.parts), folder))
    if not folders:
        raise InputError(f"Expected HR pictures in {place}. Received: none")
    return [(picture, None, picture.stem) for picture in find_images(folders[:1])]


def _reduced(pair, target, scale):
    picture, own, name = pair
    try:
        lr, hr = downscale(whole := read_rgb(picture), Scale(scale), KERNEL)
        if own is not None:
            _compare(read_rgb(own), lr, own)
    except ValueError as error:
        raise InputError(str(error)) from None
    if hr.shape == whole.shape and picture.suffix.lower() == ".png":
        shutil.copyfile(picture, target / "hr" / f"{name}.png")
    else:
        Image.fromarray(hr).save(target / "hr" / f"{name}.png")
    Image.fromarray(lr).save(target / "lr" / f"{name}.png")


def _compare(own, lr, path):
    inside = (slice(_BORDER, -_BORDER),) * 2
    if own.shape != lr.shape:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (lr.shape, own.shape)]
        raise ValueError(f"Expected {path} of {sizes[0]}. Received: {sizes[1]}")
    if (apart := int(np.abs(own[inside].astype(int) - lr[inside]).max(initial=0))) > 1:
        raise ValueError(f"Expected {path} within one code of {KERNEL}. Received: {apart} codes apart")


def count_problems(tree: Path, expect: Mapping[str, int]) -> list[str]:
    """Say which folders do not have the number of pictures that is expected."""
    wanted = {place: expect[split] for split, place in _HR.items()}
    for name, place in _PAIRED.items():
        wanted |= {f"{place}_x{scale}/{side}": expect[name] for scale in SCALES for side in ("hr", "lr")}
    problems = []
    for place, count in wanted.items():
        have = sum(map(is_picture, (tree / place).iterdir())) if (tree / place).is_dir() else 0
        if have != count:
            problems.append(f"{place}: expected {count} pictures, received {have}")
    return problems


def problems_of(tree: Path, *, progress: Callable[..., Iterable] = plain) -> list[str]:
    """Check a tree: pictures that do not decode, duplicates, pairs that do not fit, and pictures that leak."""
    places = [*_HR.values(), *(f"{place}_x{scale}" for place in _PAIRED.values() for scale in SCALES)]
    if missing := [place for place in places if not (tree / place).is_dir()]:
        return [f"{missing[0]}: expected a folder, received none"]
    odd = sorted({path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_dir()} - _folders())
    problems = [f"{place}: a folder that the tree does not have" for place in odd]
    for place in places:
        found = verify(tree / place, progress=progress).problems
        problems += [f"{place}/{problem.path}: {problem.kind}: {problem.what}" for problem in found]
    for place in _PAIRED.values():
        for scale in SCALES:
            problems += _unpaired(tree, f"{place}_x{scale}", scale)
    return problems or [*_leaked(tree, progress)]


def _folders():
    """Return every folder that a tree has."""
    leaves = [*_HR.values(), *(f"{p}_x{s}/{side}" for p in _PAIRED.values() for s in SCALES for side in ("hr", "lr"))]
    return {"/".join(leaf.split("/")[:depth]) for leaf in leaves for depth in (1, 2, 3)}


def _unpaired(tree, place, scale) -> Iterator[str]:
    sides = {side: {path.stem: path for path in find_images([tree / place / side])} for side in ("hr", "lr")}
    for name in sorted(sides["hr"].keys() ^ sides["lr"].keys()):
        yield f"{place}: {name} has no partner"
    for name in sorted(sides["hr"].keys() & sides["lr"].keys()):
        hr, lr = read_rgb(sides["hr"][name]), read_rgb(sides["lr"][name])
        if hr.shape[:2] != tuple(scale * n for n in lr.shape[:2]):
            yield f"{place}: {name} is not {scale} times its LR"
        elif np.abs(downscale(hr, Scale(scale), KERNEL)[0].astype(int) - lr).max() > 1:
            yield f"{place}: LR of {name} is not {KERNEL} of its HR"


def _leaked(tree, progress) -> Iterator[str]:
    """Find training pictures among those that are measured on, and pictures of the validation in the tests."""
    tests = [f"{place}_x{min(SCALES)}/hr" for place in _PAIRED.values()]
    for a, b in [("div2k/train", "div2k/validation"), *(("div2k", test) for test in tests)]:
        for leak in leaks(tree / a, tree / b, progress=progress).leaks:
            yield f"leak: {leak.a} and {leak.b}: {leak}"


def expected(pairs: Iterable[str]) -> dict[str, int]:
    """Read `SET=NUMBER` texts of `--expect`; raises ValueError."""
    counts = {}
    for text in pairs:
        name, _, number = text.partition("=")
        if name not in EXPECT or not number.isdecimal() or not int(number):
            raise ValueError(f"Expected SET=NUMBER with a set ({', '.join(EXPECT)}). Received: {text}")
        counts[name] = int(number)
    return counts
