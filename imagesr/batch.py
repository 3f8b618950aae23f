"""Which inputs become which outputs: files found in folders, names of the results, and checks before any work."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from imagesr.errors import InputError


@dataclass
class Found:
    """Hold the files that some places name; `several` where there may be more than one.

    `inside` has the sub-folder of each file that lies in one. `left` counts files of other kinds by their suffix, and
    `folders` the sub-folders that were not entered; `unreadable` are the sub-folders that cannot be read. `failed` has
    the places that gave nothing, each with the error, where others gave something.
    """

    files: list[Path] = field(default_factory=list)
    several: bool = False
    inside: dict[Path, Path] = field(default_factory=dict)
    left: Counter[str] = field(default_factory=Counter)
    folders: int = 0
    unreadable: list[Path] = field(default_factory=list)
    failed: list[tuple[str, InputError]] = field(default_factory=list)

    def left_out(self, *, advice: str = " (-r takes them)") -> str:
        """Say what was found and is not taken; "" where there is nothing."""
        count = sum(self.left.values())
        kinds = ", ".join(f"{number} {suffix or 'without a suffix'}" for suffix, number in self.left.most_common())
        parts = [f"{count} file{'s' * (count > 1)} ({kinds})"] * bool(count)
        parts += [f"{self.folders} sub-folder{'s' * (self.folders > 1)}{advice}"] * bool(self.folders)
        parts += [f"{folder}, which cannot be read" for folder in self.unreadable]
        return f"left out: {', '.join(parts)}" if parts else ""


def find_files(
    places: Sequence[str],
    wanted: Callable[[Path], bool],
    *,
    single: Callable[[Path], bool] = Path.is_file,
    noun: str = "files",
    recursive: bool = False,
    besides: Path | None = None,
) -> Found:
    """List the files that file names, folders and patterns name.

    Of folders and patterns the files are taken that are `wanted`; hidden ones are passed over. A place for which
    `single` holds is taken as it is. `recursive` takes sub-folders too, except `besides`. A file that several places
    name is taken once. A place fails that is missing, cannot be read or holds none; raises InputError where all do.
    """
    found = Found(several=len(places) > 1)

    def take(place):
        path = Path(place)
        if single(path):
            found.files.append(path)
            return
        found.several = True
        if not path.is_dir() and not glob.has_magic(place):
            raise InputError(f"Expected {noun}, a folder or a pattern. There is none at {place}")
        before = len(found.files)
        try:
            for file, inside in entries(place, recursive=recursive, besides=besides, unreadable=found.unreadable):
                _sort(file, inside, wanted, recursive, found)
        except OSError as error:
            raise InputError(f"Expected a folder that can be read. {place}: {error.strerror}") from None
        if len(found.files) == before:
            told = f"; {left}" if (left := found.left_out()) else ""
            raise InputError(f"Expected {noun}. There is none in {place}{told}")

    for place in places:
        try:
            take(place)
        except InputError as error:
            found.failed.append((place, error))
    if not found.files:
        raise found.failed[0][1]
    found.files = _each_once(found.files)
    return found


def _each_once(files):
    """Return files without those that are named again, whatever way leads to their folder.

    A link is a file of its own: its result has another name.
    """
    first = {}
    for path in files:
        first.setdefault(path.parent.resolve() / path.name, path)
    return list(first.values())


def entries(
    place: str, *, recursive: bool, besides: Path | None = None, unreadable: list[Path] | None = None
) -> Iterator[tuple[Path, Path]]:
    """Yield every entry of a folder or pattern, sorted, with the sub-folder it is in; sub-folders' too on request.

    Sub-folders that cannot be read are passed over, and appended to `unreadable`. Raises OSError where the place itself
    cannot be read.
    """
    path = Path(place)
    # A pattern may be absolute, which Path.glob does not take.
    inside = sorted(path.iterdir() if path.is_dir() else map(Path, glob.glob(place)))  # noqa: PTH207
    with suppress(FileNotFoundError):
        if inside:
            inside[0].lstat()  # a folder may tell its names and refuse all else
    for entry in inside:
        yield entry, Path()
        if recursive and entry.is_dir() and not (entry.is_symlink() or _hidden(entry) or _same(entry, besides)):
            below = entries(str(entry), recursive=True, besides=besides, unreadable=unreadable)
            try:
                yield from ((file, entry.name / deeper) for file, deeper in below)
            except OSError:
                if unreadable is not None:
                    unreadable.append(entry)


def _sort(entry, inside, wanted, recursive, found):
    if entry.is_dir():
        found.folders += not recursive and not _hidden(entry)
    elif not _hidden(entry) and entry.is_file():
        if wanted(entry):
            found.files.append(entry)
            found.inside.setdefault(entry, inside)
        else:
            found.left[entry.suffix.lower()] += 1


def _hidden(entry):
    return entry.name.startswith(".")


def _same(entry, other):
    return other is not None and entry.resolve() == other.resolve()


def without_clashes(
    pairs: Sequence[tuple[Path, Path]], *, noun: str = "files"
) -> tuple[list[tuple[Path, Path]], list[tuple[Path, str]]]:
    """Return the (input, output) pairs whose outputs have names of their own, and the other inputs with the reason.

    Raises ValueError where no pair is left.
    """
    count = Counter(out for _, out in pairs)
    clashes = [(path, f"not the only one that would become {out}") for path, out in pairs if count[out] > 1]
    kept = [pair for pair in pairs if count[pair[1]] <= 1]
    if clashes and not kept:
        twice = next(out for out in count if count[out] > 1)
        raise ValueError(f"Expected {noun} of different names. Two become {twice}")
    return kept, clashes


def check_folder(folder: Path, pairs: Sequence[tuple[Path, Path]], *, noun: str = "files") -> None:
    """Raise ValueError for a folder that cannot be made, or an output that would take its own input's place."""
    if not folder.absolute().parent.is_dir():
        raise ValueError(f"Expected an existing folder for the output. There is no {folder.parent}")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected a folder for several {noun}. Received a file: {folder}")
    for path, out in pairs:
        if out.exists() and path.exists() and out.samefile(path):
            raise ValueError(f"Expected another file for the output than the input. Received {out} for both")
