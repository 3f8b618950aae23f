"""Versions of data: trees of files that never change, each named by the SHA-256 of its manifest.

A store holds `versions/VERSION/…`, with `manifest.json` beside the files, and `current.json`, which names the newest
version. The files come first, the manifest then, the pointer last: readers find the old version or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import imagesr
from imagesr.errors import InputError, OutputError
from imagesr.files import write_whole
from imagesr.store import Store, local_folder, open_store, without_secrets

MANIFEST = "manifest.json"
POINTER = "current.json"
_BEGUN = ".begun"  # beside the files of a version that is being published
_FORMAT = 1
_THREADS = 8  # files that travel at a time
_ABANDONED = 24 * 3600  # seconds after which a version without a manifest is not on its way any more
_UNUSED = 7 * 24 * 3600  # seconds after which nobody trains any more from what the cache has


class File(NamedTuple):
    """Name a file of a tree, its bytes and their SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Hold what a version consists of and where it comes from.

    `sources` has the name, the address without secrets, and the SHA-256 of what the tree was made of. `kernel` is that
    of LR, `code` the commit or version of imagesr, `parent` the version before.
    """

    files: Sequence[File]
    sources: Sequence[Mapping[str, Any]] = ()
    kernel: str = ""
    code: str = ""
    parent: str | None = None

    def text(self) -> bytes:
        """Return the manifest as JSON, always the same bytes for the same manifest."""
        record = asdict(self) | {"format": _FORMAT, "files": [file._asdict() for file in sorted(self.files)]}
        return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()

    @property
    def version(self) -> str:
        """Return the name of the version: the SHA-256 of the manifest."""
        return hashlib.sha256(self.text()).hexdigest()

    @property
    def data(self) -> tuple:
        """Return what makes the data: two manifests that agree in it describe the same data."""
        return sorted(self.files), [dict(source) for source in self.sources], self.kernel

    @classmethod
    def parse(cls, data: bytes, where: str) -> Manifest:
        """Read a manifest; raises InputError with `where` for anything else, and for paths that lead outside."""
        try:
            record = json.loads(data)
            if record.pop("format") != _FORMAT:
                raise ValueError("an unknown format")
            files = [File(**file) for file in record.pop("files")]
            manifest = cls(files=files, **record)
            for file in files:
                _check(file)
            if len({file.path.lower() for file in files}) < len(files):
                raise ValueError("a path twice")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"Expected a manifest in {where}. Received: {error}") from None
        return manifest


def _check(file):
    path = PurePosixPath(file.path)
    inside = file.path and not path.is_absolute() and ".." not in path.parts and path.as_posix() == file.path
    if not inside or "\\" in file.path or ":" in file.path or file.path == MANIFEST:
        raise ValueError(f"the path {file.path!r}")
    if not (isinstance(file.size, int) and file.size >= 0 and len(file.sha256) == 64 and int(file.sha256, 16) >= 0):
        raise ValueError(f"size or SHA-256 of {file.path}")


def list_tree(tree: Path) -> list[File]:
    """Hash every file of a tree but its manifest; hidden files and `.part` files are left out."""
    paths = sorted(path for path in tree.rglob("*") if path.is_file())
    names = [path.relative_to(tree).as_posix() for path in paths]
    told = [name for name in names if name != MANIFEST and not name.endswith(".part") and not _hidden(name)]

    def entry(name):
        return File(name, (tree / name).stat().st_size, _sha256(tree / name))

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(entry, told))


def _hidden(name):
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tree(tree: Path) -> Manifest:
    """Return the manifest of a tree, and check every file against it; raises InputError that names a changed file."""
    try:
        manifest = Manifest.parse((tree / MANIFEST).read_bytes(), str(tree / MANIFEST))
    except OSError as error:
        raise InputError(f"Expected a tree with {MANIFEST}. Received: {tree} ({error.strerror})") from None
    if changed := changed_files(tree, manifest):
        raise InputError(f"Expected {tree} as its manifest says. Received: {changed[0]}")
    return manifest


def changed_files(tree: Path, manifest: Manifest) -> list[str]:
    """Name every file of a tree that is missing, or not as the manifest says."""

    def differs(file):
        path = tree / file.path
        try:
            if path.stat().st_size == file.size and _sha256(path) == file.sha256:
                return None
        except FileNotFoundError:
            return f"{path}, which is missing"
        except OSError as error:
            return f"{path} ({error.strerror})"
        return f"{path}, which has changed"

    with ThreadPoolExecutor(_THREADS) as pool:
        return [told for told in pool.map(differs, manifest.files) if told]


def current(store: Store) -> str | None:
    """Return the newest version of a store, None where it has none; raises InputError for a pointer that is none."""
    data = store.get(POINTER)
    if data is None:
        return None
    try:
        version = json.loads(data)["version"]
        if len(version) != 64 or int(version, 16) < 0:
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise InputError(f"Expected a version in {POINTER}. Received: {data[:100]!r}") from None
    return version


def read_manifest(store: Store, version: str) -> Manifest:
    """Return the manifest of a version; raises InputError where there is none, or where it is not the version's."""
    name = f"versions/{version}/{MANIFEST}"
    data = store.get(name)
    if data is None:
        raise InputError(f"Expected a version of the data. Received: {version}, which the store does not have")
    if hashlib.sha256(data).hexdigest() != version:
        raise InputError(f"Expected {name} to be the manifest of its version. Received: another")
    return Manifest.parse(data, name)


def publish(
    tree: Path, manifest: Manifest, store: Store, *, progress: Callable[..., Iterable] = lambda items, **_: items
) -> tuple[str, int]:
    """Publish a tree as the newest version of a store; return the version and the number of files that were sent.

    Data that the newest version has already makes no new one. Files that the version before has are copied within the
    store. What an interrupted call has sent is not sent again. `progress` wraps an iterable, as tqdm does.

    Raises InputError for a file that has changed since its manifest was made, and OutputError where the store fails or
    another writer has published meanwhile. The newest version is the old one then.
    """
    before = store.get(POINTER)
    parent = current(store)
    old = read_manifest(store, parent) if parent else Manifest([])
    if parent and old.data == manifest.data:
        return parent, 0
    manifest = replace(manifest, parent=parent)
    version = manifest.version
    known = {(file.size, file.sha256): f"versions/{parent}/{file.path}" for file in old.files}

    def send(file):
        name = f"versions/{version}/{file.path}"
        if store.size(name) == file.size:
            return 0
        if (file.size, file.sha256) in known:
            store.copy(known[file.size, file.sha256], name)
            return 0
        data = (tree / file.path).read_bytes()
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise InputError(f"Expected {tree / file.path} as its manifest says. It has changed")
        store.put(name, data)
        return 1

    store.put(f"versions/{version}/{_BEGUN}", b"")  # what an earlier call has sent is not abandoned any more
    with ThreadPoolExecutor(_THREADS) as pool:
        sent = sum(progress(pool.map(send, manifest.files), total=len(manifest.files), desc="load"))
    there = {*store.names(f"versions/{version}")}
    if gone := [file.path for file in manifest.files if f"versions/{version}/{file.path}" not in there]:
        raise OutputError(
            f"Expected what was sent to stay. Received: {gone[0]}, which was removed meanwhile; load again"
        )
    store.put(f"versions/{version}/{MANIFEST}", manifest.text())
    if not store.swap(POINTER, before, (json.dumps({"version": version}) + "\n").encode()):
        raise OutputError("Expected to be the only writer. Another one has published meanwhile; load again")
    store.remove(f"versions/{version}/{_BEGUN}")
    return version, sent


def fetch(url: str, *, cache: Path | None = None) -> Path:
    """Return a folder with the newest version of a store, or with the one behind a #; every file is checked.

    Versions of a folder are used where they are. Those of an object store are kept in `cache`, the user's by default,
    and only what is missing there, or damaged, travels; the last two of a store stay there, and others for a week.
    Raises InputError for missing or damaged files.
    """
    address, _, version = url.partition("#")
    store = open_store(address)
    version = version or current(store)
    if not version:
        raise InputError(
            f"Expected a store with data, which imagesr datasets load makes. Received: {without_secrets(url)}"
        )
    manifest = read_manifest(store, version)
    place = local_folder(address)
    if place is not None:
        folder = place.absolute() / "versions" / version
        if changed := changed_files(folder, manifest):
            raise InputError(f"Expected the version as it was published. Received: {changed[0]}")
        return folder
    folder = (cache or cache_folder() / "data") / short_name(address) / version
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)

    def take(file):
        path = folder / file.path
        if path.is_file() and path.stat().st_size == file.size and _sha256(path) == file.sha256:
            return
        data = store.get(f"versions/{version}/{file.path}")
        if data is None or hashlib.sha256(data).hexdigest() != file.sha256:
            what = "which is missing" if data is None else "which is damaged"
            raise InputError(f"Expected {without_secrets(address)} as its manifest says. Received: {file.path}, {what}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data, shared=True)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(take, manifest.files))
    write_whole(folder / MANIFEST, manifest.text(), shared=True)
    forget_unused(folder.parent, seconds=_UNUSED)
    return folder


def prune(store: Store, keep: int) -> list[str]:
    """Remove all but the newest `keep` versions of a store, and return those removed, the oldest first.

    A version's manifest goes first, so that no half of a version looks whole. What an interrupted call of this or of
    `publish` has left is removed a day later. Raises ValueError for `keep` below 1.
    """
    if keep < 1:
        raise ValueError(f"Expected to keep at least 1 version. Received: {keep}")
    names = store.names("versions")  # before the pointer is read: what is published meanwhile is not among them
    line = _line(store)
    listed = {name.split("/")[1] for name in names}
    # A version outside the line may be on its way. The oldest goes first: a killed call leaves a line without a gap.
    gone = [version for version in reversed(line[keep:]) if version in listed]
    whole = {name.split("/")[1] for name in names if name.split("/")[2:] == [MANIFEST]}
    halves = sorted(listed - whole - {*line})
    new = _age_of_a_new_file(store) if halves else 0.0
    for left in halves:
        if min(store.ages(f"versions/{left}").values(), default=new) - new > _ABANDONED:
            gone.append(left)
    for old in gone:
        store.remove(f"versions/{old}/{MANIFEST}")
        for name in (name for name in names if name.startswith(f"versions/{old}/")):
            store.remove(name)
    return gone


def _age_of_a_new_file(store):
    """Return how old a store says that a new file is: its clock, or this machine's, may have jumped."""
    name = f"clock/{uuid.uuid4().hex}"
    store.put(name, b"")
    age = store.ages("clock").get(name, 0.0)
    store.remove(name)
    return age


def _line(store):
    """Return the newest version of a store and those that it comes from, the newest first."""
    line, version = [], current(store)
    while version and store.size(f"versions/{version}/{MANIFEST}") is not None:
        line.append(version)
        version = read_manifest(store, version).parent
    return line


def cache_folder() -> Path:
    """Return the folder for what is fetched: IMAGESR_CACHE, or the user's."""
    if place := os.environ.get("IMAGESR_CACHE"):
        return Path(place)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imagesr"


def short_name(address: str) -> str:
    """Return a name for an address, always the same, by which a cache tells it from others."""
    return hashlib.sha256(without_secrets(address).rstrip("/").encode()).hexdigest()[:16]


def forget_unused(cache: Path, *, seconds: float) -> None:
    """Remove the folders of a cache but the two that were used last, and others that were used within some seconds."""

    def used(folder):
        try:
            return folder.stat().st_mtime
        except FileNotFoundError:  # another process has removed it
            return 0

    folders = sorted((folder for folder in cache.iterdir() if folder.is_dir()), key=used)
    for folder in folders[:-2]:
        if time.time() - used(folder) > seconds:
            shutil.rmtree(folder, ignore_errors=True)


def code_version() -> str:
    """Return the commit of the code, "+" behind it where files are changed; the version where it is installed."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return imagesr.__version__
    try:
        options = {"cwd": here, "capture_output": True, "text": True, "timeout": 10, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **options).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return imagesr.__version__
    return commit + "+" * bool(changed)
