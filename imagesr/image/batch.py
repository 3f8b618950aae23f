"""Plan which photo becomes which file: find photos in folders, name the results, check for files in the way."""

from __future__ import annotations

import glob
from collections.abc import Collection, Sequence
from pathlib import Path

from imagesr.errors import InputError
from imagesr.media.photos import FORMATS, SUFFIXES

ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif"}
PIPE = Path("-")


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


def find_photos(places: Sequence[str], suffixes: Collection[str] = SUFFIXES) -> tuple[list[Path], bool]:
    """List the photos that files, folders and patterns name, and say whether there may be several.

    Of folders and patterns files with these suffixes are taken. Raises InputError for a place that is missing or holds
    none.
    """
    found, several = [], len(places) > 1
    for place in places:
        path = Path(place)
        if path == PIPE or path.is_file():
            found.append(path)
            continue
        several = True
        if path.is_dir():
            inside = sorted(path.iterdir())
        elif glob.has_magic(place):
            inside = sorted(map(Path, glob.glob(place)))  # noqa: PTH207, a pattern may be absolute
        else:
            raise InputError(f"Expected a picture, a folder or a pattern. There is none at {place}")
        photos = [file for file in inside if file.suffix.lower() in suffixes and file.is_file()]
        if not photos:
            raise InputError(f"Expected pictures ({' '.join(sorted(suffixes))}). There is none in {place}")
        found += photos
    return found, several


def into_folder(photos: Sequence[Path], folder: Path, format: str | None) -> list[tuple[Path, Path, str]]:
    """Return every photo with its file in a folder and that file's format: `format`, or the photo's own, or png."""
    pairs = []
    for photo in photos:
        kind = format or FORMATS.get(photo.suffix.lower(), "png")
        kept = photo.suffix if FORMATS.get(photo.suffix.lower()) == kind else ENDINGS[kind]
        name = "stdin" if photo == PIPE else photo.stem
        pairs.append((photo, folder / (name + kept), kind))
    return pairs


def check_outputs(pairs: Sequence[tuple[Path, Path, str]], folder: Path) -> None:
    """Raise ValueError for results that would take each other's place or their own photo's, or have no folder."""
    outs = [out for _, out, _ in pairs if out != PIPE]
    if len(set(outs)) < len(outs):
        twice = next(out for out in outs if outs.count(out) > 1)
        raise ValueError(f"Expected pictures that become files of different names. Two become {twice}")
    parent = folder.parent if outs else Path()
    if not parent.is_dir():
        raise ValueError(f"Expected an existing folder to write into. Received: {parent}")
    if folder.is_file() and (len(pairs) > 1 or folder not in outs):
        raise ValueError(f"Expected a folder for several pictures. Received a file: {folder}")
    for photo, out, _ in pairs:
        if out != PIPE and out.exists() and photo != PIPE and out.samefile(photo):
            raise ValueError(f"Expected an output other than the input. Received: {out}")
