"""Plan which photo becomes which file: find photos in folders, name the results, check for files in the way."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagesr.batch import Found, check_folder, find_files, without_clashes
from imagesr.media.images import is_picture
from imagesr.media.photos import FORMATS, SUFFIXES

ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif"}
PIPE = Path("-")

Pair = tuple[Path, Path, str]  # a photo, the file that it becomes, and that file's format


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
        pairs, folder = [(found.files[0], folder, kind)], folder.parent
    elif out == "-":
        raise ValueError("Expected one picture for standard output. Received several; name a folder")
    else:
        pairs = into_folder(found.files, folder, format, inside=found.inside)
    pairs, clashes = check_outputs(pairs, folder)
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
    """List the photos that files, folders and patterns name; see `imagesr.batch.find_files`.

    Of folders and patterns files with these suffixes are taken. Raises InputError for a place that is missing or holds
    none.
    """
    return find_files(
        places,
        lambda file: is_picture(file, suffixes),
        single=lambda path: path == PIPE or path.is_file(),
        noun=f"pictures ({' '.join(sorted(suffixes))})",
        recursive=recursive,
        besides=besides,
    )


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


def check_outputs(pairs: Sequence[Pair], folder: Path) -> tuple[list[Pair], list[tuple[Path, str]]]:
    """Return the pairs whose files have names of their own, and the other photos, each with the reason.

    Raises ValueError where none is left, for results that would take their own photo's place, and where their folder
    cannot be made.
    """
    files = {photo: format for photo, _, format in pairs}
    piped = [pair for pair in pairs if pair[1] == PIPE]
    named = [(photo, out) for photo, out, _ in pairs if out != PIPE]
    kept, clashes = without_clashes(named, noun="pictures that become files")
    if named:
        check_folder(folder, [pair for pair in kept if _exists(pair[1])], noun="pictures")
    return piped + [(photo, out, files[photo]) for photo, out in kept], clashes


def _exists(file):
    try:
        return file.exists()
    except OSError:  # of a name that is too long, which fails alone
        return False
