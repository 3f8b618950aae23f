"""A folder as a store: the default, which needs no package."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imagesr.errors import InputError, OutputError
from imagesr.files import fsync_folder_of, make_folder, put_in_place

_PARTS = ".parts"  # files while they are written: never inside a tree that somebody reads


class LocalStore:
    """Hold files in a folder, which is made with the first file; see `Store`."""

    def __init__(self, root: Path):
        self.root = root.absolute()

    def get(self, name: str) -> bytes | None:
        """Return a file's bytes, None where there is none."""
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"Expected a readable store. Received: {self._path(name)} ({error.strerror})") from None

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, None where there is none."""
        try:
            return self._path(name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, name: str, data: bytes) -> None:
        """Write a file, new or not."""
        with self._part(name, data) as part:
            put_in_place(part, self._path(name))

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file; return False, and write nothing, where there is one."""
        with self._part(name, data) as part:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            try:
                _create(part, self._path(name), data)
            except FileExistsError:
                return False
            fsync_folder_of(self._path(name))
            return True

    def swap(self, name: str, old: bytes | None, new: bytes) -> bool:
        """Write a file that still holds `old`; return False, and write nothing, where it does not."""
        with self._locked(name):
            if self.get(name) != old:
                return False
            self.put(name, new)
            return True

    def copy(self, name: str, to: str) -> None:
        """Copy a file within the store, as a hard link where the system can: files are never changed in place."""
        with self._writing(to):
            make_folder(self._path(to).parent)
            part = self._new_part()
            try:
                try:
                    os.link(self._path(name), part)
                except FileNotFoundError:
                    raise
                except OSError:
                    shutil.copyfile(self._path(name), part)
                put_in_place(part, self._path(to))
            finally:
                part.unlink(missing_ok=True)

    def names(self, prefix: str) -> list[str]:
        """List the names that begin with `prefix` and a /, sorted."""
        files = (path for path in self._path(prefix).rglob("*") if path.is_file())
        return sorted(path.relative_to(self.root).as_posix() for path in files)

    def ages(self, prefix: str) -> dict[str, float]:
        """Return the seconds since each file was written whose name begins with `prefix` and a /."""
        ages = {}
        for name in self.names(prefix):
            with suppress(FileNotFoundError):  # removed meanwhile
                ages[name] = time.time() - self._path(name).stat().st_mtime
        return ages

    def remove(self, name: str) -> None:
        """Remove a file, if it is there, and the folders that are empty then."""
        path = self._path(name)
        with self._writing(name):
            path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self.root or not folder.is_relative_to(self.root):
                break
            try:
                folder.rmdir()
            except OSError:
                break

    def _path(self, name):
        return self.root / name

    def _new_part(self):
        folder = self.root / _PARTS
        make_folder(folder)
        return folder / uuid.uuid4().hex

    @contextmanager
    def _writing(self, name) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(
                f"Expected a store that can be written. Received: {self._path(name)} ({reason})"
            ) from None

    @contextmanager
    def _part(self, name, data) -> Iterator[Path]:
        with self._writing(name):
            make_folder(self._path(name).parent)
            part = self._new_part()
            try:
                part.write_bytes(data)
                yield part
            finally:
                part.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, name) -> Iterator[None]:
        """Hold a lock on a name; the system frees it where the process dies."""
        with self._writing(name):
            lock = self._new_part().with_name(f"{name.replace('/', '_')}.lock")
            with lock.open("ab") as file:
                try:
                    import fcntl
                except ModuleNotFoundError:  # Windows: one writer at a time there
                    yield
                    return
                fcntl.flock(file, fcntl.LOCK_EX)
                yield


def _create(part, path, data):
    """Give a part file its name; raises FileExistsError where there is a file, which a rename would replace."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with path.open("xb") as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                path.unlink()
                raise
