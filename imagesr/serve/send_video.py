"""Videos that `imagesr send` sends: uploaded, waited for, fetched, and deleted on the service."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagesr.cli import check_interrupted
from imagesr.errors import InputError, OutputError
from imagesr.files import whole
from imagesr.media.source import is_whole
from imagesr.video.batch import is_video

if TYPE_CHECKING:
    import httpx

_ASK_SECONDS = 1.0  # between two questions for a video's state
_CHUNK = 2**20
_TRIES = 3  # of a request that breaks off


def without_videos(paths: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Return the paths that are no files of videos, and those that are."""
    videos = [Path(path) for path in paths if is_video(Path(path)) and Path(path).is_file()]
    return [path for path in paths if Path(path) not in videos], videos


def send_video(path: Path, options: argparse.Namespace, tell: Callable[[str], None]) -> Path | None:
    """Have the service upscale a video, and keep the result in the folder `options.out`; None where it is there.

    Raises InputError for a video that is refused, OutputError where the service fails or is away for `options.patience`
    seconds.
    """
    import httpx

    out = options.out / f"{path.stem}.mp4"
    if out.exists() and not options.overwrite:
        if is_whole(out):
            return None
        raise OutputError(f"{out} is there and not whole; -y overwrites")
    query = {"scale": str(options.scale), "model": options.model}
    if options.detail is not None:
        query["detail"] = f"{options.detail:g}"
    query["clean"] = options.clean if options.clean == "auto" else f"{options.clean:g}"
    with httpx.Client(base_url=options.to, timeout=httpx.Timeout(options.patience, connect=10)) as client:
        address = _ask(client, options.patience, "POST", "/video", params=query, read=path).headers["Location"]
        try:
            told = _made(client, address, options.patience, lambda text: tell(f"{path}: {text}"))
            with whole(out) as part, client.stream("GET", f"{address}/result") as answer, part.open("wb") as file:
                _check(answer)
                for data in answer.iter_bytes(_CHUNK):
                    file.write(data)
        except httpx.HTTPError as error:
            raise OutputError(f"fetching the result broke off: {error}") from None
        finally:  # also when interrupted
            with contextlib.suppress(httpx.HTTPError):
                client.delete(address, timeout=10)
    if told["missing"]:
        tell(f"{path}: the video is damaged: {told['missing']}")
    return out


def _made(client, address, patience, tell):
    """Wait until a video is made, and return its last state."""
    begun = time.monotonic()
    while True:
        check_interrupted()
        told = _ask(client, patience, "GET", address).json()
        if told["state"] == "done":
            return told
        if told["state"] == "failed":
            _check(client.get(f"{address}/result"))
        if time.monotonic() - begun > 10:
            begun = time.monotonic()
            left = f", {told['left_s']:.0f} s left" if told["left_s"] else ""
            tell(f"{told['state']}, frame {told['frames']} of {told['expected'] or 'many'}{left}")
        time.sleep(_ASK_SECONDS)


def _ask(client: httpx.Client, patience: float, method: str, url: str, *, read: Path | None = None, **more: Any):
    """Ask until the service answers; it may be busy for ever, and away for `patience` seconds."""
    import httpx

    away, broken = None, 0
    while True:
        check_interrupted()
        pause = 1.0
        try:
            answer = client.request(method, url, content=_bytes_of(read) if read else None, **more)
        except httpx.TransportError as error:
            answer, trouble = None, str(error) or type(error).__name__
            broken += not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            if broken >= _TRIES:
                raise OutputError(f"sending it broke off {_TRIES} times: {trouble}") from None
        if answer is not None and answer.status_code not in (429, 502, 503, 504):
            _check(answer)
            return answer
        if answer is not None:
            pause, trouble = min(30.0, float(answer.headers.get("Retry-After", 1))), _told(answer)
        if answer is not None and answer.status_code == 429:
            away = None
        else:
            away = away or time.monotonic()
            if time.monotonic() - away > patience:
                raise OutputError(f"the service has been away for {patience:g} s (--patience): {trouble}")
        time.sleep(pause)


def _bytes_of(path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while data := file.read(_CHUNK):
                yield data
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from None


def _check(answer):
    """Raise the error that an answer tells."""
    if answer.is_success:
        return
    answer.read()
    raise (InputError if answer.status_code < 500 else OutputError)(_told(answer))


def _told(answer):
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.reason_phrase}".strip()
