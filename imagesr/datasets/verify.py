"""Check a folder of pictures: damaged, changed, duplicate and unpaired files."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps, UnidentifiedImageError

from imagesr.files import write_whole
from imagesr.media.images import SUFFIXES, kind

SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Folder:
    """Describe the pictures directly inside a folder; `kinds` has the files of each kind, such as "16-bit grey"."""

    path: str
    pictures: int
    widths: tuple[int, int]
    heights: tuple[int, int]
    kinds: dict[str, list[str]]


@dataclass(frozen=True)
class Problem:
    """Name a file and what is wrong with it: `kind` is unreadable, duplicate, pair, changed, missing or unlisted."""

    path: str
    kind: str
    what: str


@dataclass(frozen=True)
class Verification:
    """Hold what `verify` found; `sha256` has every file, `listed` says whether there was a list to compare it with."""

    folders: list[Folder]
    problems: list[Problem]
    sha256: dict[str, str]
    listed: bool


def plain(items: Iterable, **_) -> Iterable:
    """Return the items as they are: the `progress` that shows nothing."""
    return items


def verify(folder: Path | str, *, progress: Callable[..., Iterable] = plain) -> Verification:
    """Decode every picture under the folder, hash every file, and compare them with one another and with SHA256SUMS.

    Hidden files and `.part` files are left out. `progress` wraps an iterable, as tqdm does, and takes `total` and
    `desc`. Raises ValueError for a folder that is missing or has nothing to verify, and for a SHA256SUMS that is not
    in sha256sum's format.
    """
    folder = Path(folder)
    files = [file for file in list_files(folder) if file != SUMS]
    listed = read_sums(folder / SUMS) if (folder / SUMS).is_file() else None
    if listed is None and not any(is_picture(file) for file in files):
        raise ValueError(f"Expected a folder with pictures ({', '.join(sorted(SUFFIXES))}). Received: {folder}")
    with ThreadPoolExecutor() as pool:
        results = list(progress(pool.map(partial(_inspect, folder), files), total=len(files), desc="verify"))
    sha256 = {file: digest for file, (digest, *_) in zip(files, results, strict=True) if digest}
    problems = [Problem(file, "unreadable", error) for file, (*_, error) in zip(files, results, strict=True) if error]
    pictures = {file: (size, kind) for file, (_, size, kind, _) in zip(files, results, strict=True) if size}
    problems += _duplicates({file: digest for file, digest in sha256.items() if is_picture(file)})
    problems += _unpaired({file: size for file, (size, _) in pictures.items()}, files)
    if listed is not None:
        problems += _compare_sums(listed, files, sha256)
    return Verification(_describe(pictures), problems, sha256, listed is not None)


def list_files(folder: Path) -> list[str]:
    """List the files under the folder, relative and sorted; folders that are links are not entered."""
    if not folder.is_dir():
        raise ValueError(f"Expected a folder. Received: {folder}")

    def fail(error):  # os.walk passes over folders that it may not read
        raise ValueError(f"Expected folders that can be read. Received: {error.filename} ({error.strerror})") from None

    found = []
    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(place, name) for name in names if not name.startswith(".") and not name.endswith(".part"))
        # A broken link is kept: it fails when it is read, and that is said.
        found += [path.relative_to(folder).as_posix() for path in paths if path.is_file() or path.is_symlink()]
    return sorted(found)


def is_picture(file: str | PurePosixPath) -> bool:
    """Tell by its suffix whether a file is a picture."""
    path = PurePosixPath(file)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _inspect(folder, file):
    """Return a file's SHA-256 and, of a picture, (width, height) and kind; then what is wrong, or an empty string."""
    try:
        if not is_picture(file):
            with (folder / file).open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest(), None, None, ""
        data = (folder / file).read_bytes()
    except OSError as error:
        return None, None, None, error.strerror or str(error)
    digest = hashlib.sha256(data).hexdigest()
    try:
        image, kind = decode(data)
    except ValueError as error:
        return digest, None, None, str(error)
    return digest, image.size, kind, ""


def decode(data: bytes) -> tuple[Image.Image, str]:
    """Decode a picture, upright, and name its kind; raises ValueError with the reason where it does not decode."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            what = kind(image)
            if image.format == "PNG":
                # Pillow is content once the last pixel is there, and passes over the chunks' checksums.
                with Image.open(io.BytesIO(data)) as again:
                    again.verify()
                if b"IEND\xaeB`\x82" not in data:
                    raise ValueError("the end of the file is missing")
            image.load()
            return ImageOps.exif_transpose(image), what
    except UnidentifiedImageError:
        raise ValueError("not a picture, or its header is damaged") from None
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, struct.error, IndexError and more
        raise ValueError(f"{error}" or type(error).__name__) from None


def _describe(pictures):
    inside = defaultdict(list)
    for file, (size, what) in pictures.items():
        inside[str(PurePosixPath(file).parent)].append((file, size, what))
    folders = []
    for path, entries in sorted(inside.items()):
        widths, heights = zip(*(size for _, size, _ in entries), strict=True)
        kinds = defaultdict(list)
        for file, _, what in entries:
            kinds[what].append(file)
        ranges = [(min(sides), max(sides)) for sides in (widths, heights)]
        folders.append(Folder(path, len(entries), *ranges, dict(sorted(kinds.items()))))
    return folders


def _duplicates(sha256):
    first = {}
    for file, digest in sha256.items():
        if first.setdefault(digest, file) != file:
            yield Problem(file, "duplicate", f"the same as {first[digest]}")


def _unpaired(sizes, files):
    """Check folders laid out as DIV2K and Flickr2K are: NAME_HR/0001.png beside NAME_LR_bicubic/X2/0001x2.png."""
    inside = defaultdict(list)
    for file in filter(is_picture, files):
        inside[PurePosixPath(file).parent].append(PurePosixPath(file))
    for place, lr_files in sorted(inside.items()):
        top, name = next(
            ((p.parent, m[1]) for p in (place, *place.parents) if (m := re.fullmatch(r"(.+)_LR(_.+)?", p.name))),
            (None, None),
        )
        if not name:
            continue
        hr_files = {hr.stem: hr for hr in inside.get(top / f"{name}_HR", [])}
        if not hr_files:
            yield Problem(str(place), "pair", f"Expected the HR pictures in {top / f'{name}_HR'}. Received: none")
            continue
        paired = set()
        for lr in lr_files:
            # 0001x2, and DIV2K's 0001x4m, 0001x4d and 0001x4w1
            match = re.fullmatch(r"(.+?)x([2-9])[a-z]?\d*", lr.stem)
            if not match:
                yield Problem(str(lr), "pair", "Expected a name like 0001x2")
                continue
            hr, scale = hr_files.get(match[1]), int(match[2])
            paired.add(match[1])
            if hr is None:
                yield Problem(str(lr), "pair", f"no partner {match[1]} in {top / f'{name}_HR'}")
            elif str(lr) in sizes and str(hr) in sizes:
                received, hr_size = sizes[str(lr)], sizes[str(hr)]
                expected = tuple(side // scale for side in hr_size)
                if received != expected:
                    sides = " x ".join(map(str, hr_size))
                    what = "Expected {} x {}, 1/{} of {} ({}). Received: {} x {}"
                    yield Problem(str(lr), "pair", what.format(*expected, scale, hr, sides, *received))
        for stem in sorted(hr_files.keys() - paired):
            yield Problem(str(hr_files[stem]), "pair", f"no partner in {place}")


def _compare_sums(listed, files, sha256):
    for file in sorted(listed.keys() | set(files)):
        if file not in listed:
            yield Problem(file, "unlisted", f"not in {SUMS}")
        elif file not in files:
            yield Problem(file, "missing", f"in {SUMS}, not in the folder")
        elif file in sha256 and sha256[file] != listed[file]:
            yield Problem(file, "changed", f"its SHA-256 is not the one in {SUMS}")


def read_sums(path: Path) -> dict[str, str]:
    """Read a file of sha256sum's format: relative path to SHA-256 in hex.

    Raises ValueError for a line of any other format.
    """
    sums = {}
    # Names are bytes on Linux: surrogateescape takes those that are not UTF-8.
    for line in filter(None, path.read_text("utf-8", "surrogateescape").split("\n")):
        match = re.fullmatch(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)", line)
        if not match:
            raise ValueError(f"Expected lines of a SHA-256, two spaces and a path in {path}. Received: {line[:100]!r}")
        escaped, digest, name = match.groups()
        if escaped:
            name = re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), name)
        sums[PurePosixPath(name).as_posix()] = digest.lower()
    return sums


def write_sums(path: Path, sha256: dict[str, str]) -> None:
    """Write the checksums as `sha256sum -c` reads them."""
    lines = []
    for name, digest in sorted(sha256.items()):
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        lines.append(f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n")
    write_whole(path, "".join(lines))
