"""The body of a request: which ones are accepted, and how they are received within their limits."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import tempfile
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request

from imagesr.media.photo_kinds import described, is_video, kind_of
from imagesr.serve.forms import beside, file_of
from imagesr.serve.refusal import Refusal
from imagesr.serve.service import Service

MAX_BYTES = 5 * 2**20
UPLOAD_SECONDS = 10
_STALL_SECONDS = 30  # of an upload of a video, of which nothing comes
_LEAST_RATE = 2**16  # bytes a second of it, on the whole
_WRITE_BYTES = 2**20  # written at once, beside the loop that answers requests
_CHECK_BYTES = 2**26  # between two looks at the room on the disk
_MAY_MOVE = ("PNG", "WebP", "GIF")  # kinds of pictures that may be animated

_BODY = "the bytes of a PNG or JPEG picture as the body (curl --data-binary @FILE)"
# What programs send in place of the bytes, by how it begins.
_WRAPPED = (
    (rb"--\S", "a form whose Content-Type is not multipart/form-data, as curl -F sends it"),
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
    check_encoding(request, _BODY)
    if (length_of(request) or 0) > MAX_BYTES + beside(request):
        raise _too_long(f"{length_of(request)} bytes")
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


def check_encoding(request: Request, expected: str) -> None:
    """Raise a Refusal for a body that is compressed."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Refusal(415, "kind", f"Expected {expected}. Received: Content-Encoding {encoding[:30]!r}")


def length_of(request: Request) -> int | None:
    """Return how many bytes a body says that it has; None where it does not."""
    length = request.headers.get("content-length")
    return None if length is None else int(length[:15])


async def receive(request: Request, out: Path) -> bytes:
    """Write the body to a file as it arrives, and return its SHA-256.

    Raises a Refusal as soon as it cannot be a picture within the limits.
    """
    received, beginning, digest = 0, b"", hashlib.sha256()
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            with out.open("wb") as file:
                async for data in file_of(request):
                    received += len(data)
                    if received > MAX_BYTES:
                        raise _too_long("more")
                    if len(beginning) < 16:
                        beginning += data[:16]
                        if len(beginning) >= 16:
                            _check_kind(beginning)
                    digest.update(data)
                    file.write(data)
    except TimeoutError:
        sentence = f"Expected a picture within {UPLOAD_SECONDS} s. Received: {received:,} bytes until then"
        raise Refusal(408, "upload", sentence) from None
    if not received:
        raise Refusal(400, "empty", "Expected a picture as the body. Received: nothing")
    _check_kind(beginning)
    return digest.digest()


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


async def receive_video(request: Request, out: Path, service: Service) -> None:
    """Write the body to a file as it arrives; raises a Refusal where it is too long or too slow, or no video."""
    videos, seconds = service.videos, _STALL_SECONDS + service.videos.most_bytes / _LEAST_RATE
    request.state.give_time(seconds)
    received, checked, buffer = 0, 0, bytearray()
    parts = aiter(file_of(request))
    try:
        with out.open("wb") as file:
            while data := await _next_of(parts, received):
                if service.draining:
                    service.check_ready()
                received += len(data)
                if received > videos.most_bytes:
                    raise videos.too_long("more")
                buffer += data
                if len(buffer) >= _WRITE_BYTES:
                    if received == len(buffer):
                        _check_is_video(buffer)
                    if received >= checked:
                        videos.check_room(_CHECK_BYTES)
                        checked = received + _CHECK_BYTES
                    await asyncio.to_thread(file.write, buffer)
                    buffer = bytearray()
            if received == len(buffer):
                _check_is_video(buffer)
            await asyncio.to_thread(file.write, buffer)
    finally:
        await parts.aclose()


async def _next_of(parts, received):
    """Return the next bytes of an upload, b"" at its end."""
    try:
        async with asyncio.timeout(_STALL_SECONDS):
            while (data := await anext(parts, None)) == b"":
                pass
            return data or b""
    except TimeoutError:
        told = f"Received: {received:,} bytes, and then none"
        raise Refusal(408, "upload", f"Expected more of the video within {_STALL_SECONDS} s. {told}") from None


def _check_is_video(beginning):
    """Refuse what is clearly something else; whether it is a video at all is seen later."""
    head = bytes(beginning[:16])
    if not head:
        raise Refusal(400, "empty", "Expected a video as the body. Received: nothing")
    kind = kind_of(head)
    if kind and kind.name not in _MAY_MOVE:
        raise Refusal(415, "kind", f"Expected a video. Received: {kind.name}; pictures go to /supersizeme")
    for pattern, wrapped in _WRAPPED:
        if re.match(pattern, head) and not is_video(head):
            raise Refusal(415, "kind", f"Expected the bytes of a video as the body. Received: {wrapped}")


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
