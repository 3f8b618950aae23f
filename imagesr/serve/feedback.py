"""Feedback beside the service: ids of requests that cannot be forged, and a thread of its own for the database."""

from __future__ import annotations

import asyncio
import base64
import hmac
import secrets
import struct
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from imagesr.errors import InputError, OutputError
from imagesr.media.photos import open_decoded
from imagesr.serve.inputs import LEAST, drift, jpeg_quality, measure
from imagesr.serve.metrics import Metrics
from imagesr.serve.refusal import Refusal
from imagesr.serve.votes import VALID_S, Votes

T = TypeVar("T")
_RATE, _BURST = 20, 40  # votes, pictures and removals: a second, and at once
_WAITING = 32  # calls of the database, at most
_PATIENCE_S = 20  # for one of them
_INPUT_S = 1.0  # at least, between two pictures that are measured
_LOOK_S, _AGAIN_S = 20, 10  # between two looks at expiry and drift; and where the database did not answer
_MEASURED = 300  # the last pictures, for the drift on /metrics
_HEAD = struct.Struct(">9sI8s")  # chance, time, and the beginning of the picture's SHA-256
_SIGNATURE = 16  # bytes


class Ticket(NamedTuple):
    """Hold what the id of a request says: the model's version that answered, and its picture."""

    request: str
    model: str
    picture: bytes


class Feedback:
    """Hold the database of feedback for a service, within `running`.

    All calls of the database are made by one thread, one after another, so that requests for pictures never wait for
    them. An address that cannot be used raises ValueError or ModuleNotFoundError here; a database that does not answer
    costs the votes of that time.

    Args:
        url: `sqlite:///FILE` or `postgresql://…`.
        days: For how long pictures are kept.
        metrics: Of the service.
    """

    def __init__(self, url: str, *, days: float, metrics: Metrics | None = None):
        self._open = partial(Votes, url)
        self.days, self.metrics = days, metrics or Metrics()
        self._votes: Votes | None = None
        self._key = b""
        self._waiting, self._admitted, self._left = 0, time.monotonic(), float(_BURST)
        self._measured = -_INPUT_S
        self.receiving = 0  # pictures
        self.trouble = ""  # why the database does not answer yet, which it may do later
        try:
            self._open().close()
        except OutputError as error:
            self.trouble = str(error)

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator[None]:
        """Start the thread; pictures that wait to be measured lie in `folder`."""
        for name in ("up", "down"):
            self.metrics.votes.labels(name)  # from 0 on
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, "feedback")
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait([looking])
            await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
            if self._votes:
                self._votes.close()

    async def _look(self):
        while True:
            pause = _AGAIN_S
            with suppress(Refusal):
                await self.ask(self._look_after)
                pause = _LOOK_S
            await asyncio.sleep(pause)

    def _look_after(self, votes):
        votes.expire(time.time())
        if not (record := votes.inputs_record()):
            return
        figures = votes.inputs(_MEASURED)
        if len(figures) >= LEAST:
            for name, value in drift(record[0], figures).items():
                self.metrics.drift.labels(name).set(value)

    # Ids of requests: signed, so that they are kept nowhere, and another process on the same database knows them

    def issue(self, model: str, picture: bytes) -> str | None:
        """Return the id of a request by the version of a model and its picture's SHA-256; None without a database."""
        if not self._key:
            return None
        body = _HEAD.pack(secrets.token_bytes(9), int(time.time()), picture[:8]) + model.encode()
        return "r" + base64.urlsafe_b64encode(body + self._sign(body)).rstrip(b"=").decode()

    def ticket(self, request: str) -> Ticket:
        """Return what an id says; raises a Refusal for one that was not issued here, or too long ago."""
        forged = Refusal(
            422, "vote", "Expected the Imagesr-Request of an answer of this service. Received: another text"
        )
        if not self._key:
            raise _unavailable()
        try:
            if len(request) > 1000 or not request.startswith("r"):
                raise ValueError
            text = request[1:].encode("ascii")
            data = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
            body, signature = data[:-_SIGNATURE], data[-_SIGNATURE:]
            if len(body) < _HEAD.size or not hmac.compare_digest(signature, self._sign(body)):
                raise ValueError
        except ValueError:
            raise forged from None
        _, at, picture = _HEAD.unpack_from(body)
        # A last character with other spare bits would say the same: the id is what was issued.
        if base64.urlsafe_b64encode(data).rstrip(b"=") != text:
            raise forged
        if time.time() - at > VALID_S:
            raise Refusal(
                422, "vote", f"Expected a vote within {VALID_S // 3600} hours. Received: one on an older answer"
            )
        return Ticket(request, body[_HEAD.size :].decode(), picture)

    def _sign(self, body):
        return hmac.digest(self._key, body, "sha256")[:_SIGNATURE]

    # The database

    def admit(self) -> None:
        """Raise a Refusal where more is sent than `_RATE` a second."""
        now = time.monotonic()
        self._left = min(_BURST, self._left + (now - self._admitted) * _RATE)
        self._admitted = now
        if self._left < 1:
            raise Refusal(429, "votes", "Expected fewer votes at a time. Try again in 1 s", {"Retry-After": "1"})
        self._left -= 1

    async def ask(self, function: Callable[[Votes], T]) -> T:
        """Call a function with the database, in its thread; raises a Refusal where that does not answer."""
        if self._waiting >= _WAITING:
            raise Refusal(429, "votes", "Expected fewer votes at a time. Try again in 1 s", {"Retry-After": "1"})
        self._waiting += 1
        asked = asyncio.get_running_loop().run_in_executor(self._thread, self._with_votes, function)
        asked.add_done_callback(self._answered)
        try:
            async with asyncio.timeout(_PATIENCE_S):  # wait_for swallows a cancellation that comes with the result
                return await asyncio.shield(asked)
        except (OutputError, TimeoutError):
            raise _unavailable() from None

    def _answered(self, asked):
        self._waiting -= 1
        if not asked.cancelled() and asked.exception():
            self.metrics.feedback_failures.inc()

    def _with_votes(self, function):
        try:
            self._votes = self._votes or self._open()
            self._key = self._key or self._votes.secret()
            return function(self._votes)
        except OutputError:
            votes, self._votes = self._votes, None  # the next call connects anew
            if votes:
                votes.close()
            raise

    # Inputs

    def quality_of(self, source: Path) -> float | None:
        """Return the JPEG quality of a picture whose turn it is to be measured, None where it is not its turn."""
        if not self._key or self._waiting or time.monotonic() - self._measured < _INPUT_S:
            return None
        with suppress(InputError):
            return jpeg_quality(source)
        return None

    def measure(self, decoded: Path, quality: float) -> None:
        """Let the thread measure a decoded picture later, by another name of its file."""
        if self._waiting or time.monotonic() - self._measured < _INPUT_S:
            return
        self._measured = time.monotonic()
        mine = self._folder / f"measured-{secrets.token_hex(8)}.v"
        try:
            mine.hardlink_to(decoded)
        except OSError:  # some file systems have no links
            return
        self._waiting += 1
        asked = asyncio.get_running_loop().run_in_executor(self._thread, self._note, mine, quality)
        asked.add_done_callback(self._answered)

    def _note(self, decoded, quality):
        try:
            figures = measure(open_decoded(decoded), quality)
        finally:
            decoded.unlink(missing_ok=True)
        self._with_votes(lambda votes: votes.note_input(figures, time.time()))


def _unavailable():
    sentence = "Expected a database that takes votes. It does not at the moment; try again later"
    return Refusal(503, "database", sentence, {"Retry-After": "10"})
