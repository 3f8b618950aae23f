"""Files that are whole under their final name, or not there: written as `.part`, fsynced, renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import takewhile
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL = ("disk full", "disk full (the quota is used up)", "disk full (or a limit of file sizes)")
_LONGEST = 255  # bytes of a file's name, on most systems


def disk_full(code: int | None) -> str:
    """Say that the disk is full where an error's number means that; "" where it means something else."""
    return _FULL[NO_ROOM.index(code)] if code in NO_ROOM else ""


@contextmanager
def whole(path: Path, *, ending: str = "", shared: bool = False) -> Iterator[Path]:
    """Yield the part file to write; it gets its final name when the block ends, and is removed when the block fails.

    `ending` is appended to the part file's name, for libraries that choose a format by it, such as Keras. With
    `shared`, several processes may write the file at a time, as in a cache: each has a part file of its own.

    Example:
        with whole(Path("model.keras"), ending=".keras") as part:
            model.save(part)
    """
    part = _beside(path, f"{_own(shared)}.part{ending}")
    try:
        yield part
        put_in_place(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a new folder to fill; it gets its final name when the block ends, and is removed when the block fails.

    A folder that stands there already is replaced at that moment, not before. What an earlier call left that was
    killed is removed first, and a folder that it had moved away gets its name back. With `shared`, several processes
    may make the same folder at a time, as in a cache: each has a part of its own, and one of theirs stays.
    """
    own = _own(shared)
    part, old = _beside(path, f"{own}.part"), _beside(path, f"{own}.replaced.part")  # X.old may be the user's
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                _fsync(file)
        _put_folder(part, path, old, shared)
        fsync_folder_of(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _put_folder(part, path, old, shared):
    if path.exists():
        with suppress(FileNotFoundError) if shared else nullcontext():  # another process has moved it away
            path.rename(old)
    try:
        part.rename(path)
    except OSError:
        if shared and path.exists():  # another process was first
            return
        if old.exists():
            old.rename(path)
        raise


def _own(shared):
    return f".{uuid.uuid4().hex}" if shared else ""


def write_whole(path: Path, data: str | bytes | memoryview, *, shared: bool = False) -> None:
    """Write a small file at once, text as UTF-8; raises OSError. `shared` is that of `whole`."""
    with whole(path, shared=shared) as part:
        part.write_bytes(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)


def part_of(path: Path, *, ending: str = "") -> Path:
    """Return the name that a file has while it is written; a long name is cut, so that it still fits."""
    return _beside(path, f".part{ending}")


def _beside(path, suffix):
    name = path.name + suffix
    if len(os.fsencode(name)) > _LONGEST:
        told_apart = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
        begin = os.fsencode(path.name)[: _LONGEST - len(suffix) - len(told_apart) - 1].decode("utf-8", "ignore")
        name = f"{begin}.{told_apart}{suffix}"
    return path.with_name(name)


def put_in_place(part: Path, path: Path) -> None:
    """Give a finished part file its final name so that a power cut leaves either the old file or the new one."""
    _fsync(part)
    os.replace(part, path)
    fsync_folder_of(path)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, so that a power cut leaves them; raises OSError."""
    new = [*takewhile(lambda folder: not folder.exists(), (path, *path.parents))]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(new):
        fsync_folder_of(folder)


def fsync_folder_of(path: Path) -> None:
    """Let a power cut leave a file's name in its folder."""
    with suppress(OSError):  # some systems cannot open a folder, or fsync it
        _fsync(path.absolute().parent)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
