"""An object store by its address, such as `s3://BUCKET/PREFIX`, through obstore."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import from_url

from imagesr.errors import InputError, OutputError
from imagesr.store import without_secrets

_PATIENCE = timedelta(seconds=30)  # over all tries of a call: a store that is away is told soon


class RemoteStore:
    """Hold files in an object store; see `Store`.

    Credentials and the endpoint come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` …) or from the
    machine's role. Raises ValueError for an address that is none.
    """

    def __init__(self, url: str):
        self.url = without_secrets(url)
        for name in [name for name, value in os.environ.items() if name.startswith("AWS_") and not value]:
            del os.environ[name]  # empty is not set, as compose files write it; obstore would fail at an empty address
        endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
        client = {"timeout": "60s", "connect_timeout": "5s", "allow_http": endpoint.startswith("http://")}
        options = {"client_options": client, "retry_config": {"max_retries": 4, "retry_timeout": _PATIENCE}}
        if url.startswith("memory:"):  # for tests
            options = {}
        try:
            self._store = from_url(url, **options)
        except (BaseError, ValueError) as error:
            raise ValueError(
                f"Expected a folder or an address such as s3://BUCKET. Received: {self._told(error)}"
            ) from None

    def get(self, name: str) -> bytes | None:
        """Return a file's bytes, None where there is none."""
        return self._get(name)[0]

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, None where there is none."""
        with self._reading():
            try:
                return obstore.head(self._store, name)["size"]
            except (NotFoundError, FileNotFoundError):
                return None

    def put(self, name: str, data: bytes) -> None:
        """Write a file, new or not."""
        with self._writing():
            obstore.put(self._store, name, data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file; return False, and write nothing, where there is one."""
        return self._put_if(name, data, "create")

    def swap(self, name: str, old: bytes | None, new: bytes) -> bool:
        """Write a file that still holds `old`; return False, and write nothing, where it does not."""
        if old is None:
            return self.create(name, new)
        data, tag = self._get(name)
        return data == old and self._put_if(name, new, {"e_tag": tag})

    def copy(self, name: str, to: str) -> None:
        """Copy a file within the store."""
        with self._writing():
            obstore.copy(self._store, name, to)

    def names(self, prefix: str) -> list[str]:
        """List the names that begin with `prefix` and a /, sorted."""
        return sorted(self.ages(prefix))

    def ages(self, prefix: str) -> dict[str, float]:
        """Return the seconds since each file was written whose name begins with `prefix` and a /."""
        with self._reading():
            entries = [entry for some in obstore.list(self._store, prefix=prefix) for entry in some]
        now = datetime.now(UTC)
        return {entry["path"]: (now - entry["last_modified"]).total_seconds() for entry in entries}

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._writing():
            try:
                obstore.delete(self._store, name)
            except (NotFoundError, FileNotFoundError):
                return

    def _get(self, name):
        with self._reading():
            try:
                found = obstore.get(self._store, name)
                return bytes(found.bytes()), found.meta["e_tag"]
            except (NotFoundError, FileNotFoundError):
                return None, None

    def _put_if(self, name, data, mode):
        with self._writing():
            try:
                obstore.put(self._store, name, data, mode=mode, use_multipart=False)
                return True
            except (AlreadyExistsError, PreconditionError):
                return False

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise InputError(f"Expected a store that answers. Received: {self._told(error)}") from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise OutputError(f"Expected a store that can be written. Received: {self._told(error)}") from None

    def _told(self, error):
        """Return the address and the reason in one line, without what a server's answer may quote."""
        text = str(error)
        known = {
            "InvalidAccessKeyId": "unknown access key",
            "SignatureDoesNotMatch": "wrong secret key",
            "AccessDenied": "access denied",
            "NoSuchBucket": "no such bucket",
            "credential": "no credentials, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            "169.254.169.254": "no credentials, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            "tcp connect error": "no connection",
        }
        reason = next((told for mark, told in known.items() if mark in text), type(error).__name__)
        return f"{self.url} ({reason})"
