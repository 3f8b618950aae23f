"""Extract pictures from zips, folders, addresses and Kaggle: the raw data that `tree` makes a data set of."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import shutil
import ssl
import stat
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from imagesr.datasets.verify import list_files, plain
from imagesr.errors import InputError, cause
from imagesr.files import whole_folder, write_whole
from imagesr.media.images import SUFFIXES
from imagesr.store import without_secrets

RECORD = "sources.json"
MOST = 200 * 2**30  # bytes that a source may have, zipped or not
_RATIO, _FREE = 200, 64 * 2**20  # a zip that grows more than so many times, these bytes aside, is a bomb
_ENTRIES = 500_000
_SECONDS = 60  # without a byte of a download
_CHUNK = 2**20
_KAGGLE = "https://www.kaggle.com/api/v1/datasets/download/"


def extract(
    sources: Sequence[tuple[str, str]],
    out: Path,
    *,
    sha256: Sequence[tuple[str, str]] = (),
    progress: Callable[..., Iterable] = plain,
) -> list[dict[str, Any]]:
    """Extract the pictures of (name, source) into `out`/NAME, and return the record that `out`/sources.json keeps.

    A source is a zip, a folder, `https://…` of a zip, or `kaggle:OWNER/DATASET`; a name may have several, as DIV2K has
    two zips. `sha256` holds the digests that sources must have, those of a name in the order of its sources; that of a
    folder is the digest of its pictures' digests and names. Files and folders that `out` was made of already are not
    extracted again, and an address is not fetched again where its digest is given. `out` is there as a whole or not at
    all.

    Raises InputError for a source that is missing, cannot be read, is not what its digest says, has links, or is a zip
    with paths that lead outside, or too much data; ValueError for more digests than sources.
    """
    wanted = _wanted(sources, sha256)
    done = _done(out, sources, wanted)
    if done:
        return done
    record = []
    with whole_folder(out) as part, tempfile.TemporaryDirectory(prefix="imagesr-extract-") as scratch:
        for number, (name, source) in enumerate(sources):
            found = _source(source, Path(scratch) / str(number))
            digest = _tree_digest(found) if found.is_dir() else _digest(found)
            if digest != (wanted[number] or digest):
                raise InputError(f"Expected {name} with the SHA-256 {wanted[number]}. Received: {digest}")
            take, place = (_copy if found.is_dir() else _unzip), part / name
            if found.is_dir() and [other for other, _ in sources].count(name) > 1:
                place /= found.resolve().name  # the folders of splits stay apart, as in zips
            pictures = take(found, place, progress)
            if not pictures:
                raise InputError(f"Expected pictures in {_shown(source)}. Received: none")
            record.append({"name": name, "from": _shown(source), "sha256": digest, "pictures": pictures})
        write_whole(part / RECORD, json.dumps(record, indent=1) + "\n")
    return record


def read_record(raw: Path) -> list[dict[str, Any]]:
    """Return what `extract` has written about a folder; raises InputError for any other folder."""
    try:
        return json.loads((raw / RECORD).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"Expected a folder of imagesr datasets extract. Received: {raw} ({cause(error)})") from None


def _wanted(sources, sha256):
    """Return the digest of each source, None where none is given."""
    given: dict[str, list[str]] = {}
    for name, digest in sha256:
        given.setdefault(name, []).append(digest)
    wanted = [given[name].pop(0) if given.get(name) else None for name, _ in sources]
    if more := [name for name, digests in given.items() if digests]:
        raise ValueError(f"Expected at most one SHA-256 for each source. Received: more for {more[0]}")
    return wanted


def _done(out, sources, wanted):
    """Return the record of `out` where it was made of the very same sources, so that nothing is left to do."""
    if not (out / RECORD).is_file():
        return None
    record = read_record(out)
    before = [(entry["name"], entry["from"], entry["sha256"]) for entry in record]
    now = []
    for (name, source), digest in zip(sources, wanted, strict=True):
        place = Path(source)
        digest = _tree_digest(place) if place.is_dir() else _digest(place) if place.is_file() else digest
        now.append((name, _shown(source), digest))
    return record if now == before else None


def _shown(source):
    """Name a source without this machine's folders, and without a key that its address may hold."""
    return without_secrets(source) if "://" in source or source.startswith("kaggle:") else Path(source).name


def _source(source, scratch):
    """Return the file or folder of a source, fetched where that must be."""
    if source.startswith(("https://", "http://")):
        return _download(source, scratch, {})
    if source.startswith("kaggle:"):
        name = source.removeprefix("kaggle:")
        return _download(_KAGGLE + name, scratch, _kaggle_login())
    path = Path(source)
    if not path.exists():
        raise InputError(f"Expected a zip, a folder, https://… or kaggle:OWNER/DATASET. Received: {source}")
    return path


def _kaggle_login():
    """Return the header that signs a user of Kaggle in, by the environment or Kaggle's own file; none for nobody."""
    user, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    own = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle") / "kaggle.json"
    if not (user and key) and own.is_file():
        try:
            login = json.loads(own.read_text("utf-8"))
            user, key = login["username"], login["key"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"Expected a username and a key in {own}. Received: something else") from None
    if not (user and key):
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()}


def _download(url, target, headers):
    shown, request = without_secrets(url), urllib.request.Request(url)
    for name, value in headers.items():
        request.add_unredirected_header(name, value)  # the storage behind a redirect must not see it
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer, target.open("wb") as file:
            length = int(answer.headers.get("Content-Length") or 0)
            got = _pour(answer, file, MOST, shown)
    except urllib.error.HTTPError as error:
        error.close()
        hint = "; set KAGGLE_USERNAME and KAGGLE_KEY" if error.code in (401, 403) and "kaggle" in shown else ""
        raise InputError(f"Expected {shown} to be there. Received: status {error.code}{hint}") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"Expected {shown} to answer. Received: {reason!s:.200}") from None
    if length and got != length:
        raise InputError(f"Expected {length:,} bytes of {shown}. Received: {got:,}")
    return target


def _pour(source: BinaryIO, target: BinaryIO, most, shown):
    got = 0
    while chunk := source.read(_CHUNK):
        got += len(chunk)
        if got > most:
            raise InputError(f"Expected at most {most:,} bytes of {shown}. Received: more")
        target.write(chunk)
    return got


def _digest(file):
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _tree_digest(folder):
    """Hash the names and digests of a folder's pictures, as `sha256sum` lists them."""
    lines = [f"{_digest(folder / name)}  {name}\n" for name in _pictures(folder)]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _pictures(folder):
    names = [name for name in list_files(folder) if _is_picture(name)]
    for name in names:
        if (folder / name).is_symlink():
            raise InputError(f"Expected files, no links. Received: {folder / name}")
    return names


def _is_picture(name):
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _copy(folder, out, progress):
    names = _pictures(folder)
    for name in progress(names, desc=out.name):
        shutil.copyfile(folder / name, _new(out / name, folder))
    return len(names)


def _new(target, source):
    """Return the path of a picture in a folder that is there; raises InputError where another source has that one."""
    if target.exists():
        raise InputError(f"Expected sources with different pictures. Received: {source} with {target.name} again")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _unzip(file, out, progress):
    try:
        with zipfile.ZipFile(file) as archive:
            entries = _checked(archive, file)
            for entry in progress(entries, desc=out.name):
                target = _new(out / entry.filename, file)
                with archive.open(entry) as data, target.open("wb") as made:
                    _pour(data, made, entry.file_size, f"{file}: {entry.filename}")
            return len(entries)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"Expected a whole zip. Received: {file} ({error or type(error).__name__})") from None


def _checked(archive, file):
    """Return a zip's pictures; raises InputError for one that is a bomb, or that would write elsewhere."""
    entries = archive.infolist()
    size = sum(entry.file_size for entry in entries)
    if len(entries) > _ENTRIES or size > min(MOST, _RATIO * file.stat().st_size + _FREE):
        raise InputError(f"Expected a zip of pictures. Received: {file}, {size:,} bytes in {len(entries):,} files")
    seen = set()
    for entry in entries:
        name = entry.orig_filename
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name or "\\" in name:
            raise InputError(f"Expected a zip whose files stay in their folder. Received: {file} with {name!r:.200}")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise InputError(f"Expected a zip without links. Received: {file} with {name!r:.200}")
        if name.lower() in seen:
            raise InputError(f"Expected a zip with different names. Received: {file} with {name!r:.200} twice")
        seen.add(name.lower())
    return [entry for entry in entries if not entry.is_dir() and _is_picture(entry.filename)]
