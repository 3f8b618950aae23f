"""The body of a request: which ones are accepted, and how they are received within their limits."""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request

from imagesr.media.photo_kinds import described, kind_of
from imagesr.serve.refusal import Refusal
from imagesr.serve.service import Service

MAX_BYTES = 5 * 2**20
UPLOAD_SECONDS = 10

_BODY = "the bytes of a PNG or JPEG picture as the body (curl --data-binary @FILE)"
# What programs send in place of the bytes, by how it begins.
_WRAPPED = (
    (rb"--\S", "a form (multipart/form-data, as curl -F sends it)"),
    (rb"\x1f\x8b", "gzip"),
    (rb"\s*[{\[\"]", "JSON"),
    (rb"iVBORw0KGgo|/9j/|data:", "base64"),
    (rb"\x89PNG\x1a", "a PNG without its line ends, as curl -d @FILE sends it"),
    (rb"[\w.%-]+=", "a form (application/x-www-form-urlencoded)"),
)


async def accept(request: Request) -> AsyncIterator[Path]:
    """Yield a folder for the files of a request, and remove it at the end; a dependency of a route.

    Raises a Refusal before the body is read where the body is known to be too long, or the service takes no more.
    """
    service: Service = request.app.state.service
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Refusal(415, "kind", f"Expected {_BODY}. Received: Content-Encoding {encoding[:30]!r}")
    length = request.headers.get("content-length", "0")
    if len(length) > 15 or int(length) > MAX_BYTES:
        raise _too_long(f"{length[:15]} bytes")
    service.check_ready()
    service.places.check()
    if service.open >= service.most_open:
        raise Refusal(429, "open", "Expected fewer uploads at a time. Try again in 1 s", {"Retry-After": "1"})
    service.open += 1
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    finally:
        service.open -= 1


async def receive(request: Request, out: Path) -> None:
    """Write the body to a file as it arrives; raises a Refusal as soon as it cannot be a picture within the limits."""
    received, beginning = 0, b""
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            with out.open("wb") as file:
                async for data in request.stream():
                    received += len(data)
                    if received > MAX_BYTES:
                        raise _too_long("more")
                    if len(beginning) < 16:
                        beginning += data[:16]
                        if len(beginning) >= 16:
                            _check_kind(beginning)
                    file.write(data)
    except TimeoutError:
        sentence = f"Expected a picture within {UPLOAD_SECONDS} s. Received: {received:,} bytes until then"
        raise Refusal(408, "upload", sentence) from None
    if not received:
        raise Refusal(400, "empty", "Expected a picture as the body. Received: nothing")
    _check_kind(beginning)


def _too_long(received):
    return Refusal(413, "bytes", f"Expected at most {MAX_BYTES:,} bytes. Received: {received}")


def _check_kind(beginning):
    kind = kind_of(beginning[:16])
    if kind and kind.name in ("PNG", "JPEG"):
        return
    for pattern, wrapped in _WRAPPED:
        if re.match(pattern, beginning):
            raise Refusal(415, "kind", f"Expected {_BODY}. Received: {wrapped}")
    raise Refusal(415, "kind", f"Expected a PNG or JPEG picture. Received: {described(beginning[:16])}")


async def unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """Run the work that a client waits for; cancel it and raise ClientDisconnect when the client disconnects."""
    working = asyncio.create_task(work)
    gone = asyncio.create_task(request.receive())  # behind the body nothing else can come
    try:
        await asyncio.wait([working, gone], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.wait([working, gone])
        for task in (working, gone):
            with contextlib.suppress(asyncio.CancelledError):
                task.exception()
