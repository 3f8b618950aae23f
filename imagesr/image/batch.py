"""Plan which photo becomes which file: find photos in folders, name the results, check for files in the way."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagesr.errors import InputError
from imagesr.media.images import is_picture
from imagesr.media.photos import FORMATS, SUFFIXES

ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif"}
PIPE = Path("-")

Pair = tuple[Path, Path, str]  # a photo, the file that it becomes, and that file's format


@dataclass
class Found:
    """Hold the photos that some places name; `several` where there may be more than one.

    `inside` has the sub-folder of each photo that lies in one. `left` counts files that are no photos, by their
    suffix, and `folders` the sub-folders that were not entered.
    """

    photos: list[Path] = field(default_factory=list)
    several: bool = False
    inside: dict[Path, Path] = field(default_factory=dict)
    left: Counter[str] = field(default_factory=Counter)
    folders: int = 0

    def left_out(self, *, advice: str = " (-r takes them)") -> str:
        """Say what was found and is not taken; "" where there is nothing."""
        count = sum(self.left.values())
        kinds = ", ".join(f"{number} {suffix or 'without a suffix'}" for suffix, number in self.left.most_common())
        parts = [f"{count} file{'s' * (count > 1)} ({kinds})"] * bool(count)
        parts += [f"{self.folders} sub-folder{'s' * (self.folders > 1)}{advice}"] * bool(self.folders)
        return f"left out: {', '.join(parts)}" if parts else ""


@dataclass
class Plan:
    """Hold the pairs to make, `clashes` (photo, reason) that are refused, and the results that are there already."""

    pairs: list[Pair]
    found: Found
    clashes: list[tuple[Path, str]] = field(default_factory=list)
    there: list[Path] = field(default_factory=list)


def plan(
    places: Sequence[str],
    out: str,
    format: str | None,
    *,
    overwrite: bool = False,
    skip_existing: bool = False,
    recursive: bool = False,
) -> Plan:
    """Return every photo with the file that it becomes, all checked before any work.

    Of results that are there already, `skip_existing` leaves the photos out. Raises ValueError for files that stand in
    the way, and where every photo would take another's place.
    """
    folder = Path(out)
    found = find_photos(places, recursive=recursive, besides=folder)
    into_one = folder.is_dir() or out.endswith(("/", "\\")) or not (format or folder.suffix or folder == PIPE)
    if found.several and folder.suffix.lower() in FORMATS and not (into_one or folder.exists()):
        told = f"{out}, the name of a picture; write {out}/ for a folder of that name"
        raise ValueError(f"Expected a folder for several pictures. Received: {told}")
    if not (found.several or into_one):
        kind = format or (FORMATS.get(folder.suffix.lower()) if folder != PIPE else "png")
        if not kind:
            raise ValueError(f"Expected an output ending in {' '.join(FORMATS)}, or --format. Received: {out}")
        pairs, folder = [(found.photos[0], folder, kind)], folder.parent
    elif out == "-":
        raise ValueError("Expected one picture for standard output. Received several; name a folder")
    else:
        pairs = into_folder(found.photos, folder, format, inside=found.inside)
    pairs, clashes = without_clashes(pairs)
    check_outputs(pairs, folder)
    there = [out for _, out, _ in pairs if out != PIPE and _exists(out)]
    if there and not (overwrite or skip_existing):
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise ValueError(
            f"Expected outputs that are not there yet. {there[0]}{more} exist; "
            "-y overwrites, --skip-existing makes what is missing"
        )
    if skip_existing:
        pairs = [pair for pair in pairs if pair[1] not in there]
    return Plan(pairs, found, clashes, there if skip_existing else [])


def find_photos(
    places: Sequence[str],
    suffixes: Collection[str] = SUFFIXES,
    *,
    recursive: bool = False,
    besides: Path | None = None,
) -> Found:
    """List the photos that files, folders and patterns name.

    Of folders and patterns files with these suffixes are taken; hidden files are passed over. `recursive` takes
    sub-folders too, except `besides`. Raises InputError for a place that is missing or holds none.
    """
    found = Found(several=len(places) > 1)
    for place in places:
        path = Path(place)
        if path == PIPE or path.is_file():
            found.photos.append(path)
            continue
        found.several = True
        if not path.is_dir() and not glob.has_magic(place):
            raise InputError(f"Expected a picture, a folder or a pattern. There is none at {place}")
        before = len(found.photos)
        for file, inside in _walk(path, recursive, besides) if path.is_dir() else _matched(place, recursive, besides):
            _sort(file, inside, suffixes, recursive, found)
        if len(found.photos) == before:
            told = f"; {left}" if (left := found.left_out()) else ""
            raise InputError(f"Expected pictures ({' '.join(sorted(suffixes))}). There is none in {place}{told}")
    return found


def _walk(folder, recursive, besides) -> Iterator[tuple[Path, Path]]:
    """Yield every entry of a folder, sorted, with the sub-folder it is in; all sub-folders' too where `recursive`."""
    for entry in sorted(folder.iterdir()):
        yield entry, Path()
        if recursive and entry.is_dir() and not (entry.is_symlink() or _hidden(entry) or _same(entry, besides)):
            yield from ((file, entry.name / inside) for file, inside in _walk(entry, recursive, besides))


def _matched(pattern, recursive, besides):
    """Yield every entry that a pattern names, and those of folders among them where `recursive`."""
    for entry in sorted(map(Path, glob.glob(pattern))):  # noqa: PTH207, a pattern may be absolute
        yield entry, Path()
        if recursive and entry.is_dir() and not _same(entry, besides):
            yield from ((file, entry.name / inside) for file, inside in _walk(entry, recursive, besides))


def _sort(entry, inside, suffixes, recursive, found):
    if is_picture(entry, suffixes):
        found.photos.append(entry)
        found.inside[entry] = inside
    elif entry.is_file() and not _hidden(entry):
        found.left[entry.suffix.lower()] += 1
    elif entry.is_dir() and not recursive and not _hidden(entry):
        found.folders += 1


def _hidden(entry):
    return entry.name.startswith(".")


def _same(entry, other):
    return other is not None and entry.resolve() == other.resolve()


def into_folder(
    photos: Sequence[Path], folder: Path, format: str | None, *, inside: dict[Path, Path] | None = None
) -> list[Pair]:
    """Return every photo with its file in a folder and that file's format: `format`, or the photo's own, or png.

    `inside` names the sub-folder for a photo's file.
    """
    pairs = []
    for photo in photos:
        kind = format or FORMATS.get(photo.suffix.lower(), "png")
        kept = photo.suffix if FORMATS.get(photo.suffix.lower()) == kind else ENDINGS[kind]
        name = "stdin" if photo == PIPE else photo.stem
        pairs.append((photo, folder / (inside or {}).get(photo, Path()) / (name + kept), kind))
    return pairs


def without_clashes(pairs: Sequence[Pair]) -> tuple[list[Pair], list[tuple[Path, str]]]:
    """Return the pairs whose files have names of their own, and the other photos, each with the reason.

    Raises ValueError where no pair is left.
    """
    count = Counter(out for _, out, _ in pairs if out != PIPE)
    clashes = [(photo, f"not the only one that would become {out}") for photo, out, _ in pairs if count[out] > 1]
    kept = [pair for pair in pairs if count[pair[1]] <= 1]
    if clashes and not kept:
        twice = next(out for out in count if count[out] > 1)
        raise ValueError(f"Expected pictures that become files of different names. Two become {twice}")
    return kept, clashes


def check_outputs(pairs: Sequence[Pair], folder: Path) -> None:
    """Raise ValueError for results that would take their own photo's place, or whose folder cannot be made."""
    outs = [out for _, out, _ in pairs if out != PIPE]
    if outs and not folder.absolute().parent.is_dir():
        raise ValueError(f"Expected an existing folder to write into. Received: {folder.parent}")
    if outs and folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected a folder for several pictures. Received a file: {folder}")
    for photo, out, _ in pairs:
        if out != PIPE and photo != PIPE and _exists(out) and out.samefile(photo):
            raise ValueError(f"Expected an output other than the input. Received: {out}")


def _exists(file):
    try:
        return os.path.lexists(file) and file.exists()
    except OSError:  # of a name that is too long, which fails alone
        return False
