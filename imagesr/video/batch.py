"""Several videos: which one becomes which file, and folders that are watched as they fill."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagesr.batch import check_folder, entries, find_files, without_clashes
from imagesr.errors import InputError
from imagesr.media.containers import FORMATS, VIDEO_SUFFIXES
from imagesr.media.opening import PIPE, is_sequence
from imagesr.media.source import is_whole

SETTLED_S = 5.0  # a file that has not grown for this long is taken to be whole
_POLL_S = 1.0

Pair = tuple[Path, Path]  # a video and the file that it becomes


@dataclass
class Plan:
    """Hold what is to be made: `pairs`, and `clashes` (video, reason), which are refused.

    `several` tells whether there may be more than one. `there` are the results that exist already, `remade` those that
    exist and are not whole, `left` says what else was found, and `failed` which places gave nothing, and why.
    """

    pairs: list[Pair]
    several: bool = False
    clashes: list[tuple[Path, str]] = field(default_factory=list)
    there: list[Path] = field(default_factory=list)
    remade: list[Path] = field(default_factory=list)
    left: str = ""
    failed: list[tuple[str, InputError]] = field(default_factory=list)


def plan(
    paths: Sequence[str], *, overwrite: bool = False, skip_existing: bool = False, recursive: bool = False
) -> Plan:
    """Return every video with the file that it becomes, all checked before any work; the last path is the output.

    With `skip_existing` videos whose results exist and are whole are left out. Raises ValueError for files that stand
    in the way, InputError where no place has a video.
    """
    *places, out = paths
    folder = Path(out)
    if out == str(PIPE):
        if len(places) > 1:
            raise ValueError("Expected one video for standard output. Received several; name a folder")
        return Plan([(Path(places[0]), PIPE)])
    into_one = _is_folder(folder) or out.endswith(("/", "\\")) or not folder.suffix
    if len(places) == 1 and not into_one and not _is_folder(places[0]) and not _is_pattern(places[0]):
        todo = Plan([(Path(places[0]), folder)])
        return _without_made(todo) if skip_existing else todo
    if not into_one and not folder.exists():
        if folders := [place for place in places if Path(place).is_dir()]:
            raise InputError(f"Expected a folder as output for a folder. Received: {folders[0]} and the file {out}")
        raise ValueError(f"Expected a folder for several videos. Received: {out}, the name of a file; {out}/ is one")
    found = find_files(places, is_video, single=_is_one, noun="videos", recursive=recursive, besides=folder)
    pairs = [(path, folder / found.inside.get(path, Path()) / result_name(path)) for path in found.files]
    pairs, clashes = without_clashes(pairs, noun="videos")
    check_folder(folder, pairs, noun="videos")
    there = [target for _, target in pairs if target.exists()]
    if there and not (overwrite or skip_existing):
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise ValueError(
            f"Expected outputs that do not exist yet. {there[0]}{more} exist already; -y overwrites them, "
            "--skip-existing makes what is missing"
        )
    todo = Plan(pairs, found.several or len(pairs) > 1, clashes, left=found.left_out(), failed=found.failed)
    return _without_made(todo) if skip_existing else todo


def _is_folder(place):
    return os.path.isdir(place)  # noqa: PTH112, Path.is_dir raises for names that are too long


def _is_one(path):
    """Tell whether a place is one input by itself: a file, standard input or numbered pictures."""
    return path == PIPE or is_sequence(path) or path.is_file()


def _is_pattern(place):
    return glob.has_magic(place) and not _is_one(Path(place))


def _without_made(todo):
    for _, out in todo.pairs:
        if out.exists():
            (todo.there if is_whole(out) else todo.remade).append(out)
    todo.pairs = [pair for pair in todo.pairs if pair[1] not in todo.there]
    return todo


def is_video(path: Path) -> bool:
    """Tell whether a file is named like a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def result_name(path: Path) -> str:
    """Return the name of a result: the input's, with .mp4 in place of an ending that is not written."""
    if path == PIPE:
        return "stdin.mp4"
    stem = path.stem.partition("%")[0].rstrip("._- ") or "pictures" if is_sequence(path) else path.stem
    return stem + (path.suffix if path.suffix.lower() in FORMATS else ".mp4")


def arriving(
    paths: Sequence[str],
    *,
    recursive: bool = False,
    tell: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Pair]:
    """Yield the videos of folders as they arrive, each with the file that it becomes; without end.

    A file is taken when its size and time have not changed for five seconds, and again when it has changed after a
    failure. One whose result exists is passed over; `tell` is called where that is the result of another one, and once
    for each folder that cannot be read. Raises ValueError for places that are no folders.
    """
    *places, out = paths
    folder = Path(out)
    for place in places:
        if not Path(place).is_dir():
            raise ValueError(f"Expected folders to watch. Received: {place}")
    if folder.suffix.lower() in FORMATS and not folder.is_dir():
        raise ValueError(f"Expected a folder for several videos. Received: {out}")
    if any(Path(place).resolve() == folder.resolve() for place in places):
        raise ValueError(f"Expected another folder for the output than the watched one. Received: {out}")
    check_folder(folder, [])
    seen: dict[Path, tuple] = {}  # size and time, and since when
    taken: dict[Path, tuple] = {}
    maker: dict[Path, Path] = {}  # which video became which file
    closed: set[Path] = set()  # the folders that could not be read a moment ago
    while True:
        unreadable: list[Path] = []
        for path, inside in _videos(places, recursive, folder, unreadable):
            state = _state(path)
            if state is None or taken.get(path) == state:
                continue
            if seen.get(path, (None,))[0] != state:
                seen[path] = state, clock()
            elif clock() - seen[path][1] >= SETTLED_S:
                del seen[path]
                taken[path] = state
                target = folder / inside / result_name(path)
                if maker.setdefault(target, path) != path:
                    tell(f"{path}: not the only one that would become {target}; {maker[target]} does")
                elif not (target.exists() and is_whole(target)):
                    yield path, target
        for place in unreadable:
            if place not in closed and os.path.exists(place):  # noqa: PTH110, Path.exists raises for closed folders
                tell(f"{place} cannot be read; it is passed over until it can")
        closed = set(unreadable)
        sleep(_POLL_S)


def _videos(places, recursive, besides, unreadable):
    for place in places:
        try:
            for path, inside in entries(place, recursive=recursive, besides=besides, unreadable=unreadable):
                # Path.is_file raises where a folder on the way cannot be read.
                if is_video(path) and not path.name.startswith(".") and os.path.isfile(path):  # noqa: PTH113
                    yield path, inside
        except OSError:  # it may also have been removed while it was read
            unreadable.append(Path(place))


def _state(path):
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_size, stat.st_mtime_ns) if stat.st_size else None
