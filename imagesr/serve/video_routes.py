"""The routes of videos: sent, watched as they are made, fetched, deleted."""

# Without `from __future__ import annotations`: FastAPI reads the annotations.
import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as Part
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from imagesr.engines.chain import MAX_SCALE
from imagesr.serve.forms import beside, body_schema
from imagesr.serve.queries import parse_clean, parse_detail, parse_number, parse_scale, scale_schema
from imagesr.serve.refusal import Refusal
from imagesr.serve.routes import ServiceOf
from imagesr.serve.schemas import VIDEO_MODELS, Error, VideoState, describe_video
from imagesr.serve.service import Service
from imagesr.serve.uploads import check_encoding, length_of, receive_video, unless_gone
from imagesr.serve.video_worker import SOURCE
from imagesr.serve.videos import WATCHERS, Video, VideoOptions, Videos

FORMATS = {"mp4": "video/mp4", "mkv": "video/x-matroska", "webm": "video/webm", "mov": "video/quicktime"}
MODELS = VIDEO_MODELS["models"]
BOXES = {"720p": (1280, 720), "1080p": (1920, 1080), "1440p": (2560, 1440), "2160p": (3840, 2160)}
_ALIVE_SECONDS = 5  # between two comments in a stream of events, by which vanished clients are noticed
_RANGES = 10  # in one request
_OPTIONS = ("scale", "size", "model", "detail", "clean", "crf", "audio", "deinterlace", "start", "duration", "format")

_REFUSED = {
    400: "The body is empty or a damaged video",
    403: "Another web page sent the request, or Host is not a name of this machine, which alone is served",
    404: "The service takes no videos",
    408: "The upload stalls or is too slow",
    413: "More bytes, or larger frames, than the service takes",
    415: "The bytes are no video",
    422: "The query is wrong, or the result would be too large",
    429: "Every place is taken; Retry-After says when to try again",
    503: "The service is starting, or being stopped, or its disk is full; Retry-After says when to try again",
    500: "The service has failed",
}


def _answers(*statuses, **more):
    texts = _REFUSED | {int(status[1:]): text for status, text in more.items()}
    return {status: {"model": Error, "description": texts[status]} for status in (403, 500, *statuses)}


_GONE = "There is no such video: it has expired, was deleted, or was sent to a service that has ended since"
_BINARY = {"schema": {"type": "string", "format": "binary"}}

router = APIRouter()


async def _videos(service: ServiceOf) -> Videos:
    if service.videos is None:
        raise Refusal(404, "videos", "Expected a service that takes videos. This one does not (--videos 0)")
    return service.videos


VideosOf = Annotated[Videos, Depends(_videos)]


async def _video(videos: VideosOf, id: Annotated[str, Part(description="As the answer to `POST /video` says it")]):
    return videos.get(id)


VideoOf = Annotated[Video, Depends(_video)]
Number = {"type": "number", "minimum": 0}
Positive = {"type": "number", "exclusiveMinimum": 0}


async def _options(
    request: Request,
    scale: Annotated[
        str,
        Query(
            description=f"Factor from 1, which keeps the size and cleans, up to {MAX_SCALE}",
            json_schema_extra=scale_schema(1.5),
        ),
    ] = "",
    size: Annotated[
        str,
        Query(
            description="Box to fit into, such as 1920x1080 or 1080p, in place of `scale`",
            json_schema_extra={"enum": [*BOXES], "examples": ["1080p"]},
        ),
    ] = "",
    model: Annotated[str, Query(json_schema_extra={"enum": [*MODELS]})] = VIDEO_MODELS["default"],
    detail: Annotated[str, Query(description="From 0 to 1", json_schema_extra=Number | {"maximum": 1})] = "",
    clean: Annotated[str, Query(description="How much is cleaned, from 0 to 1, or auto, by the video")] = "auto",
    crf: Annotated[str, Query(description="Quality, lower is better", json_schema_extra=Number | {"maximum": 63})] = "",
    audio: Annotated[str, Query(json_schema_extra={"enum": ["auto", "copy", "convert", "none"]})] = "auto",
    deinterlace: Annotated[str, Query(json_schema_extra={"enum": ["auto", "off", "frame", "field", "film"]})] = "auto",
    start: Annotated[str, Query(description="In seconds", json_schema_extra=Number)] = "",
    duration: Annotated[str, Query(description="In seconds", json_schema_extra=Positive)] = "",
    format: Annotated[str, Query(json_schema_extra={"enum": [*FORMATS]})] = "mp4",
) -> VideoOptions:
    """Return what the query asks for; raises a Refusal."""
    if unknown := set(request.query_params) - {*_OPTIONS}:
        raise Refusal(422, "query", f"Expected {', '.join(_OPTIONS)}. Received: {min(unknown)[:50]!r}")
    if scale and size:
        raise Refusal(422, "query", "Expected scale or size. Received: both")
    _check_word("model", model, MODELS)
    _check_word("format", format, FORMATS)
    fields: dict[str, Any] = {"model": model, "audio": audio[:20], "deinterlace": deinterlace[:20]}
    if size:
        fields["size"] = _parse_size(size)
    else:
        fields["scale"] = parse_scale(scale or "1.5")
    given = request.query_params
    if "detail" in given:
        fields["detail"] = parse_detail(detail)
    if "clean" in given:
        fields["clean"] = parse_clean(clean)
    for name, text in (("crf", crf), ("start", start), ("duration", duration)):
        if name in given:
            fields[name] = parse_number(text, f"{name} as a number of 0 or more")
    try:
        await asyncio.to_thread(_check, fields)
    except ValueError as error:
        raise Refusal(422, "query", str(error)) from None
    words = {name: "x".join(map(str, value)) if name == "size" else str(value) for name, value in fields.items()}
    arguments = [f"--{name}={word}" for name, word in words.items()]
    return VideoOptions(tuple(arguments), words.get("scale"), fields.get("size"), format)


def _check_word(name, word, words):
    if word not in words:
        raise Refusal(422, "query", f"Expected {name} as one of {', '.join(words)}. Received: {word[:50]!r}")


def _parse_size(text):
    if box := BOXES.get(text.lower()):
        return box
    found = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", text)
    if not found:
        raise Refusal(422, "query", f"Expected a size such as 1920x1080 or 1080p. Received: {text[:50]!r}")
    return int(found[1]), int(found[2])


def _check(fields):
    """Raise ValueError for options that no video can be upscaled with."""
    from imagesr.card import models_for, of_own_size
    from imagesr.engines import checked_clean, checked_detail
    from imagesr.engines.chain import chain
    from imagesr.scale import Scale
    from imagesr.video.options import Options  # it loads PyAV, which pictures do not need

    options = Options(**fields)
    cards = [None]
    if options.model != "lanczos":
        own_size = not options.size and options.scale == Scale(1)
        cards = [of_own_size("video", options.model)] if own_size else models_for("video", options.model)
        cards = chain(cards, options.scale)
    for card in cards if options.detail is not None else ():
        checked_detail(options.detail, card)
    if options.clean not in ("auto", None):
        checked_clean(options.clean, next((card for card in cards if card and card.clean is not None), cards[0]))


async def _accepted(request: Request, service: ServiceOf, videos: VideosOf) -> None:
    """Refuse, before the body is read, what is known to be too much."""
    check_encoding(request, "the bytes of a video as the body (curl -T FILE)")
    service.check_ready()
    videos.check_place(_bytes_of(request))


def _bytes_of(request):
    """Return the fewest bytes that the video of a request has; None where that is not said."""
    length = length_of(request)
    return None if length is None else max(0, length - beside(request))


@router.post(
    "/video",
    status_code=202,
    response_model=VideoState,
    responses=_answers(400, 404, 408, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": body_schema("video/mp4")},
    operation_id="video",
    dependencies=[Depends(_accepted)],
)
async def send(
    request: Request, service: ServiceOf, videos: VideosOf, options: Annotated[VideoOptions, Depends(_options)]
) -> Any:
    """Take a video, sent as the raw body or as a form with one file, and let it wait for its turn.

    The answer comes when the upload has ended; `Location` is the video's address.
    """
    with videos.place(_bytes_of(request)) as folder:
        await receive_video(request, folder / SOURCE, service)
        found = await unless_gone(request, videos.look(folder, options))
        service.check_ready()  # it may have been told to stop meanwhile
        video = videos.add(folder, options, found)
    headers = {"Location": f"/video/{video.id}", "Cache-Control": "no-store"}
    return JSONResponse(describe_video(video), 202, headers=headers)


@router.get("/video/{id}", response_model=VideoState, responses=_answers(404, _404=_GONE))
async def state(video: VideoOf) -> Any:
    """Say how far a video is."""
    return JSONResponse(describe_video(video), headers={"Cache-Control": "no-store"})


@router.get(
    "/video/{id}/events",
    response_class=StreamingResponse,
    responses=_answers(404, 429, _404=_GONE, _429="Too many clients watch this video")
    | {200: {"description": "Events, each with the state as its data", "content": {"text/event-stream": {}}}},
)
async def events(request: Request, service: ServiceOf, video: VideoOf) -> Response:
    """Tell each change of a video's state as a server-sent event, until it is done, failed or deleted."""
    if video.watchers >= WATCHERS:
        raise Refusal(429, "full", f"Expected at most {WATCHERS} who watch a video", {"Retry-After": "5"})
    told = _told(request, service, video)
    return StreamingResponse(told, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _told(request: Request, service: Service, video: Video) -> AsyncIterator[str]:
    video.watchers += 1
    last = None
    try:
        while not await request.is_disconnected():
            changed, now = video.changed, json.dumps(describe_video(video))
            yield ": alive\n\n" if now == last else f"data: {now}\n\n"
            last = now
            if video.ended or service.draining:
                return
            try:
                async with asyncio.timeout(_ALIVE_SECONDS):
                    await changed.wait()
            except TimeoutError:
                pass
    finally:
        video.watchers -= 1


class _Result(FileResponse):
    """Answer HEAD, which the application turns into GET, without reading the file."""

    async def __call__(self, scope, receive, send):
        await super().__call__(scope | {"method": "HEAD"} if scope.get("head") else scope, receive, send)


@router.get(
    "/video/{id}/result",
    response_class=Response,
    responses=_answers(
        *(400, 404, 409, 415, 416, 422, 503),
        _404=_GONE,
        _400="The video could not be decoded",
        _409="It is not done yet; Retry-After says when to ask again",
        _415="It is no video",
        _416="The range is none, or not in the file",
        _422="Its options do not fit together",
        _503="The disk was full",
    )
    | {
        status: {"description": "The video", "content": dict.fromkeys(FORMATS.values(), _BINARY)}
        for status in (200, 206)
    },
)
async def result(request: Request, video: VideoOf) -> Response:
    """Return the video, upscaled; ranges are answered. Where making it failed, the answer says why."""
    if video.state == "failed":
        raise Refusal(video.status, "failed", video.error)
    if video.state != "done":
        seconds = str(max(1, min(60, round(video.left_s or 5))))
        raise Refusal(409, "early", f"Expected a video that is done. It is {video.state}", {"Retry-After": seconds})
    _check_range(request.headers.get("range", ""), video.bytes)
    format = video.options.format
    headers = {"Cache-Control": "private, no-cache"}
    name = f"upscaled.{format}"
    return _Result(
        video.result, media_type=FORMATS[format], headers=headers, filename=name, content_disposition_type="inline"
    )


def _check_range(text, length):
    """Raise a Refusal for a Range that is none, or not in the file; Starlette would tell so in plain text."""
    ranges = [part.strip() for part in text.partition("=")[2].split(",")]
    for part in ranges if text else ():
        found = re.fullmatch(r"([0-9]{0,15})-([0-9]{0,15})", part)
        if not (found and text.startswith("bytes=") and len(ranges) <= _RANGES):
            raise Refusal(416, "range", f"Expected a range such as bytes=0-999. Received: {text[:50]!r}")
        first, last = found[1], found[2]
        inside = int(first) < length if first else last and int(last) > 0
        if not inside or (first and last and int(last) < int(first)):
            where = {"Content-Range": f"bytes */{length}"}
            raise Refusal(416, "range", f"Expected a range within {length:,} bytes. Received: {text[:50]!r}", where)


@router.delete(
    "/video/{id}",
    status_code=204,
    response_class=Response,
    responses=_answers(404, _404=_GONE) | {204: {"description": "It is deleted"}},
)
async def delete(videos: VideosOf, video: VideoOf) -> Response:
    """Stop what is done with a video, and delete it and its result."""
    await videos.remove(video)
    return Response(status_code=204)
