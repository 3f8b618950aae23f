"""Send photographs to a running service and keep its answers: `imagesr send DIR --to URL --out DIR`."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from imagesr.batch import Found
from imagesr.cli import (
    CLEAN_HELP,
    NOT_STARTED,
    NOT_WRITTEN,
    SOME_FAILED,
    UNREADABLE,
    Parser,
    check_interrupted,
    check_record,
    clean_argument,
    run_command,
    scale_argument,
    share_argument,
    told,
)
from imagesr.engines.chain import MAX_SCALE
from imagesr.errors import InputError, OutputError
from imagesr.files import write_whole
from imagesr.image.batch import check_outputs, find_photos, into_folder
from imagesr.media.photo_kinds import kind_of
from imagesr.media.photos import read_photo, whole_size
from imagesr.scale import Scale
from imagesr.serve.send_video import send_video, without_videos

if TYPE_CHECKING:
    import httpx

SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".jpe"}
FORMATS = ("png", "jpeg", "webp")
PATIENCE = 300.0
_BROKEN, _BUSY, _AWAY = 408, 429, (502, 503, 504)
_TRIES = 3  # of a picture whose sending breaks off
_LONGEST_PAUSE = 10.0  # seconds between two tries, unless the service asks for more


class AwayError(Exception):
    """The service cannot be reached, or serves nobody, for longer than --patience."""


@dataclass
class Sent:
    """Count what became of the pictures; `failed` holds (picture, error, exit code)."""

    pictures: int
    made: int = 0
    skipped: int = 0
    requests: int = 0
    failed: list[tuple[str, str, int]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def left(self) -> int:
        """How many have not been sent."""
        return self.pictures - self.made - self.skipped - len(self.failed)

    def __str__(self):
        others = {"there already": self.skipped, "failed": len(self.failed), "not sent": self.left}
        parts = [
            f"{self.made} of {self.pictures} made",
            *(f"{count} {what}" for what, count in others.items() if count),
        ]
        return f"{', '.join(parts)}, in {self.seconds:.1f} s and {self.requests} requests"

    def as_dict(self) -> dict:
        """Return the figures as plain JSON types."""
        failed = [{"picture": picture, "error": error} for picture, error, _ in self.failed]
        counts = {"pictures": self.pictures, "made": self.made, "skipped": self.skipped, "not_sent": self.left}
        return {**counts, "failed": failed, "requests": self.requests, "seconds": round(self.seconds, 3)}

    def code(self) -> int:
        """Return the exit code: 1 where some are missing, that of the first failure where all are."""
        if not (self.failed or self.left):
            return 0
        if self.made or self.skipped:
            return SOME_FAILED
        return self.failed[0][2] if self.failed else NOT_WRITTEN


def check_service(url: str) -> None:
    """Raise ValueError for an invalid URL, and where no service answers."""
    import httpx

    try:
        answer = httpx.get(f"{url}/healthz", timeout=10)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ValueError(f"Expected a running service (imagesr serve) at {url}. Received: {_words(error)}") from None
    if answer.status_code != 200:
        raise ValueError(f"Expected a running service (imagesr serve) at {url}. Received: {_told(answer)}")


class _RetryError(Exception):
    """A request failed with a `status` and may be repeated; the service asks to wait `asked` seconds."""

    def __init__(self, status: int, trouble: str, asked: float = 0.0):
        super().__init__(trouble)
        self.status, self.asked = status, asked


class Client:
    """Hold the connections to a service, and remember since when it has been away.

    A service that is busy (429) is not away: the client waits until it is free.
    """

    def __init__(self, client: httpx.AsyncClient, query: dict[str, str], *, patience: float):
        self._client, self._query, self._patience = client, query, patience
        self._away_since: float | None = None

    async def upscale(self, photo: bytes, sent: Sent) -> bytes:
        """Send a picture until the service has answered; returns the answer's body.

        Raises InputError for a picture that the service refuses, OutputError when sending breaks off _TRIES times, and
        AwayError.
        """
        broken = 0
        for tries in count(1):
            check_interrupted()
            sent.requests += 1
            try:
                answer = await self._post(photo)
            except _RetryError as error:
                broken += error.status == _BROKEN
                self._judge(error, broken)
                pause = error.asked or min(_LONGEST_PAUSE, 0.25 * 2 ** min(tries, 10))
                await asyncio.sleep(pause * random.uniform(1, 1.25))  # other clients were told the same
            else:
                self._away_since = None
                return answer
        raise AssertionError

    async def _post(self, photo):
        """Send a picture once; returns the answer's body, and raises _RetryError where there is none."""
        import httpx

        kind = kind_of(photo[:16])
        headers = {"Content-Type": f"image/{kind[0].lower() if kind else 'png'}"}
        try:
            answer = await self._client.post("/supersizeme", params=self._query, content=photo, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _RetryError(_AWAY[0], _words(error)) from None
        except httpx.ReadTimeout:
            raise OutputError(f"there is no answer within {self._patience:g} s (--patience)") from None
        except httpx.RequestError as error:
            raise _RetryError(_BROKEN, _words(error)) from None
        if answer.status_code != 200:
            raise _RetryError(answer.status_code, _told(answer), _retry_after(answer))
        return answer.content

    def _judge(self, error, broken):
        """Raise the error that ends the tries, if there is one; `broken` is how often sending the picture broke off."""
        if error.status in _AWAY or error.asked > self._patience:
            now = time.monotonic()
            self._away_since = self._away_since or now
            if now - self._away_since + error.asked > self._patience:
                raise AwayError(f"the service has been away for {self._patience:g} s (--patience): {error}")
            return
        self._away_since = None
        if error.status >= 500:
            raise OutputError(f"the service failed: {error}")
        if error.status not in (_BROKEN, _BUSY):
            raise InputError(str(error))
        if broken >= _TRIES:
            raise OutputError(f"sending it broke off {_TRIES} times: {error}")


def _retry_after(answer):
    """Return the seconds that an answer's Retry-After asks to wait, a number or a date; 0 where it has none."""
    text = answer.headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0


def _told(answer):
    """Return the error message of an answer that is not a picture."""
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.reason_phrase}".strip()


def _words(error):
    return " ".join(told(error).split()) or type(error).__name__


async def _send_all(pairs, options, sent, tell):
    import httpx

    query = {"scale": str(options.scale), "model": options.model, "format": options.format}
    if options.detail is not None:
        query["detail"] = f"{options.detail:g}"
    query["clean"] = options.clean if options.clean == "auto" else f"{options.clean:g}"
    limits = httpx.Limits(max_connections=options.jobs)
    timeout = httpx.Timeout(options.patience, connect=min(options.patience, 10))
    async with httpx.AsyncClient(base_url=options.to, limits=limits, timeout=timeout) as client:
        service, waiting = Client(client, query, patience=options.patience), iter(pairs)
        workers = [asyncio.create_task(_work(waiting, service, options, sent, tell)) for _ in range(options.jobs)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


async def _work(waiting, service, options, sent, tell):
    """Send pictures, one after another, until none is waiting."""
    for photo, out, _ in waiting:
        check_interrupted()
        try:
            made = await _send_one(photo, out, service, options, sent)
        except (InputError, OutputError, OSError) as error:
            code = UNREADABLE if isinstance(error, InputError) else NOT_WRITTEN
            sent.failed.append((str(photo), _words(error), code))
            tell(f"imagesr send: {photo}: {_words(error)}", failed=True)
        else:
            tell(f"{photo}: {made or f'{out} is there already'}")


async def _send_one(photo, out, service, options, sent):
    """Send a picture and keep the answer; returns its size and time in words, "" where the answer is there already."""
    begun = time.monotonic()
    data = await asyncio.to_thread(_read, photo)
    size = await asyncio.to_thread(_size_of_answer, data, options.scale)
    if not options.overwrite and await asyncio.to_thread(_is_there, out, size):
        sent.skipped += 1
        return ""
    answer = await service.upscale(data, sent)
    wide, high = await asyncio.to_thread(_keep, answer, out, size)
    sent.made += 1
    return f"{wide}x{high}, {time.monotonic() - begun:.1f} s"


def _read(photo):
    try:
        return photo.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from None


def _size_of_answer(data, scale):
    """Return the (width, height) that a picture becomes; None for one that cannot be read here."""
    try:
        picture = read_photo(data).picture
    except InputError:
        return None
    return scale.grow(picture.width), scale.grow(picture.height)


def _is_there(out, size):
    """Tell whether a whole answer is there already; raises OutputError where it is of another size."""
    if not out.exists():
        return False
    try:
        there = whole_size(out)
    except InputError:
        return False
    if size and there != size:
        raise OutputError(f"{out} is there, {there[0]}x{there[1]} and not {size[0]}x{size[1]}; -y overwrites")
    return True


def _keep(answer, out, size):
    """Write the answer and return its size; raises OutputError unless it is a whole picture of the right size."""
    try:
        received = whole_size(answer, name="the answer")
    except InputError as error:
        raise OutputError(str(error)) from None
    if size and received != size:
        raise OutputError(f"the answer is {received[0]}x{received[1]} and not {size[0]}x{size[1]}")
    write_whole(out, answer)
    return received


def send(options: argparse.Namespace) -> int:
    """Send every picture that the options name; returns the exit code."""
    _check_numbers(options)
    check_service(options.to)
    paths, videos = without_videos(options.paths)
    found = find_photos(paths, SUFFIXES) if paths else Found()
    pairs, clashes = check_outputs(into_folder(found.files, options.out, options.format), options.out)
    if options.json:
        check_record(options.json, [file for pair in pairs for file in pair[:2]])
    options.out.mkdir(exist_ok=True)
    sent, begun = Sent(len(found.files) + len(found.failed) + len(videos)), time.monotonic()
    if (left := found.left_out(advice="")) and not options.quiet:
        print(f"imagesr send: {left}", file=sys.stderr)
    for photo, reason in clashes:
        sent.failed.append((str(photo), reason, NOT_STARTED))
        print(f"imagesr send: {photo}: {reason}", file=sys.stderr)
    for place, error in found.failed:
        sent.failed.append((place, str(error), UNREADABLE))
        print(f"imagesr send: {error}", file=sys.stderr)
    try:
        with _telling(options.quiet, len(pairs)) as tell:
            asyncio.run(_send_all(pairs, options, sent, tell))
            for video in videos:
                _send_video(video, options, sent, tell)
    except AwayError as error:
        print(f"imagesr send: {error}", file=sys.stderr)
    finally:  # also when interrupted
        sent.seconds = time.monotonic() - begun
        if not options.quiet:
            print(f"{sent}; {options.out}", file=sys.stderr)
        if options.json:
            write_whole(options.json, json.dumps(sent.as_dict(), indent=1) + "\n")
    return sent.code()


def _send_video(path, options, sent, tell):
    try:
        made = send_video(path, options, lambda text: options.quiet or print(text, file=sys.stderr, flush=True))
    except (InputError, OutputError, OSError) as error:
        sent.failed.append((str(path), _words(error), UNREADABLE if isinstance(error, InputError) else NOT_WRITTEN))
        tell(f"imagesr send: {path}: {_words(error)}", failed=True)
    else:
        sent.made, sent.skipped = sent.made + bool(made), sent.skipped + (made is None)
        tell(f"{path}: {made or 'is there already'}")


@contextmanager
def _telling(quiet: bool, pictures: int) -> Iterator:
    """Yield the function that reports a picture: failures always, the others in lines, or on a bar in a terminal."""
    if quiet or not sys.stderr.isatty():

        def line(text, *, failed=False):
            if failed or not quiet:
                print(text, file=sys.stderr, flush=True)

        yield line
        return
    from tqdm import tqdm

    with tqdm(total=pictures, unit="picture", dynamic_ncols=True, leave=False) as bar:

        def advance(text, *, failed=False):
            if failed:
                bar.write(text, file=sys.stderr)
            bar.update()

        yield advance


def _check_numbers(options):
    if not 1 <= float(options.scale) <= MAX_SCALE:
        raise ValueError(f"Expected a scale from 1 to {MAX_SCALE}. Received: {options.scale}")
    if not 1 <= options.jobs <= 64:
        raise ValueError(f"Expected 1 to 64 jobs. Received: {options.jobs}")
    if not 0 < options.patience < math.inf:
        raise ValueError(f"Expected a patience above 0 s. Received: {options.patience:g}")


def _url(text):
    if not re.match(r"https?://[^/]", text):
        raise argparse.ArgumentTypeError(f"expected a URL such as http://127.0.0.1:5000, received {text}")
    return text.rstrip("/").removesuffix("/supersizeme")


def _parser():
    parser = Parser(
        prog="imagesr send",
        description="Send PNG and JPEG photographs, and videos, to a running service and keep its answers. "
        "Pictures whose answers are there already are not sent again: a second run goes on where the first one ended.",
        examples="imagesr send photos/ --to http://127.0.0.1:5000 --out large/",
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="DIR", help="a folder of pictures, or pictures, or patterns, or videos")
    add("--to", type=_url, required=True, metavar="URL", help="address of the service, such as http://127.0.0.1:5000")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the answers")
    add("-s", "--scale", type=scale_argument, default=Scale(2), help=f"factor, up to {MAX_SCALE} (default: 2)")
    add("-n", "--model", default="best", help="one of the service's models (default: best)")
    text = "detail of the result, for models that take one (default: the service's)"
    add("--detail", type=share_argument, metavar="0..1", help=text)
    add("--clean", type=clean_argument, default="auto", metavar="0..1", help=CLEAN_HELP.format(default="auto"))
    add("--format", choices=FORMATS, default="png", help="format of the answers (default: png)")
    add("--jobs", type=int, default=2, metavar="N", help="pictures that are sent at a time (default: 2)")
    away = "seconds to wait for a service that is away or silent"
    add("--patience", type=float, default=PATIENCE, metavar="S", help=f"{away} (default: {PATIENCE:g})")
    add("--json", type=Path, metavar="FILE", help="write a report to FILE")
    add("-y", dest="overwrite", action="store_true", help="send pictures again whose answers are there already")
    add("-q", "--quiet", action="store_true", help="print errors only")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("send", send, _parser().parse_intermixed_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
