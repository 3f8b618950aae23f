"""Stores of files by address, and the immutable versions of data in them.

`open_store` takes a folder, `file://…` or `s3://…`. `local` is a folder, and needs no package. `remote` is an object
store, and alone knows obstore. `versions` publishes trees of files and fetches them. What the files mean is in
`datasets`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

_DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle")


class Store(Protocol):
    """Hold files by name, parts of a name separated by /; each is there as a whole or not at all.

    Reading raises InputError and writing OutputError where the store fails. Calls may come from several threads.
    """

    def get(self, name: str) -> bytes | None:
        """Return a file's bytes, None where there is none."""

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, None where there is none."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file, new or not."""

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file; return False, and write nothing, where there is one. One of several callers gets True."""

    def swap(self, name: str, old: bytes | None, new: bytes) -> bool:
        """Write a file that still holds `old`, None for no file; return False, and write nothing, where it does not."""

    def copy(self, name: str, to: str) -> None:
        """Copy a file within the store."""

    def names(self, prefix: str) -> list[str]:
        """List the names that begin with `prefix` and a /, sorted."""

    def ages(self, prefix: str) -> dict[str, float]:
        """Return the seconds since each file was written whose name begins with `prefix` and a /."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


def open_store(url: str | Path) -> Store:
    """Return the store at an address: a folder, `file://…`, or what obstore opens, such as `s3://BUCKET/PREFIX`.

    Credentials come from the environment, or from the cloud's own chain. Raises ValueError for an address that is none.
    """
    if place := local_folder(url):
        from imagesr.store.local import LocalStore

        return LocalStore(place)
    from imagesr.store.remote import RemoteStore

    return RemoteStore(str(url))


def local_folder(url: str | Path) -> Path | None:
    """Return the folder that an address names, None for an object store's."""
    if isinstance(url, Path) or "://" not in url:
        return Path(url)
    parts = urlsplit(url)
    return Path(url2pathname(unquote(parts.path))) if parts.scheme == "file" else None


def without_secrets(url: str) -> str:
    """Return an address without the user, password and query that it may hold.

    A password for a database may have a / and a ?, as SQLAlchemy reads it.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    if scheme.partition("+")[0].lower() in _DATABASES:
        rest = re.sub(r"^[^:/?@]*(:[^@]*)?@", "", rest).partition("?")[0].rpartition("@")[2]
    else:
        rest = re.sub(r"^[^/]*@", "", rest).partition("?")[0]
    return f"{scheme}://{rest}"
