"""The routes of feedback: a vote on a picture, the picture itself where its sender allows it, and its removal."""

# Without `from __future__ import annotations`: FastAPI reads the annotations.
import asyncio
import re
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi import Path as Part
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from imagesr.errors import InputError
from imagesr.media.photo_strip import without_metadata
from imagesr.serve.feedback import Feedback
from imagesr.serve.forms import beside, body_schema
from imagesr.serve.refusal import Refusal
from imagesr.serve.schemas import Error, PictureKept, Vote, VoteTaken
from imagesr.serve.uploads import MAX_BYTES, UPLOAD_SECONDS, length_of, receive

_MOST = 8192  # bytes of a vote: 1,000 characters may be 4 bytes each, and escaped
_RECEIVING = 4  # pictures at a time
_REFUSED = {
    403: "Another web page sent the request, or Host is not a name of this machine, which alone is served",
    429: "Too many votes come at a time; Retry-After says when to try again",
    503: "The database does not answer, or is full; Retry-After says when to try again",
    500: "The service has failed",
}
_ID = "The id is not one that this service issued within 24 hours"

router = APIRouter(prefix="/feedback")


def _errors(texts):
    return {status: {"model": Error, "description": text} for status, text in (_REFUSED | texts).items()}


async def _feedback(request: Request) -> Feedback:
    feedback = request.app.state.service.feedback
    feedback.admit()
    return feedback


FeedbackOf = Annotated[Feedback, Depends(_feedback)]
RequestOf = Annotated[str, Part(alias="request", description="The header Imagesr-Request of an answer")]


@router.post(
    "",
    status_code=201,
    response_model=VoteTaken,
    responses=_errors(
        {
            408: f"The vote took more than {UPLOAD_SECONDS} s",
            409: "The answer has a vote already",
            413: f"More than {_MOST:,} bytes",
            422: f"The body is no vote in JSON. {_ID}",
        }
    ),
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": Vote.model_json_schema()}}}
    },
)
async def vote(request: Request, feedback: FeedbackOf) -> Any:
    """Take a vote, `up` or `down`, on an answer of `/supersizeme`; each answer takes one."""
    given = _parse(await _body(request))
    ticket, up, now = feedback.ticket(given.request), given.vote == "up", time.time()
    if not await feedback.ask(lambda votes: votes.add(ticket.request, ticket.model, up, _clean(given.words), now)):
        raise Refusal(409, "vote", "Expected one vote on each answer. Received: another one")
    feedback.metrics.votes.labels(given.vote).inc()
    told = {"request": ticket.request, "picture": f"/feedback/{ticket.request}/picture"}
    return JSONResponse(told, 201, headers={"Cache-Control": "no-store"})


async def _body(request):
    body = bytearray()
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            async for data in request.stream():
                body += data
                if max(len(body), length_of(request) or 0) > _MOST:
                    raise Refusal(413, "vote", f"Expected a vote of at most {_MOST:,} bytes. Received: more")
    except TimeoutError:
        raise Refusal(408, "vote", f"Expected a vote within {UPLOAD_SECONDS} s. Received: a part of it") from None
    return bytes(body)


def _parse(body):
    try:
        return Vote.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        sentence = f'Expected a vote, as {{"request": "…", "vote": "up"}}. Received: {where}, {first["msg"][:100]}'
        raise Refusal(422, "vote", sentence) from None


def _clean(words):
    """Leave out control characters: databases refuse some, and terminals obey others."""
    return "".join(letter for letter in words if letter.isprintable() or letter == "\n").strip()


@router.put(
    "/{request}/picture",
    status_code=201,
    response_model=PictureKept,
    responses=_errors(
        {
            400: "The body is empty or damaged",
            404: "The answer has no vote",
            408: f"The upload took more than {UPLOAD_SECONDS} s",
            413: f"More than {MAX_BYTES:,} bytes",
            415: "The bytes are neither PNG nor JPEG",
            422: f"The picture is not the one that the vote is on. {_ID}",
        }
    ),
    openapi_extra={"requestBody": body_schema("image/png", "image/jpeg")},
)
async def keep(http: Request, feedback: FeedbackOf, request: RequestOf) -> Any:
    """Keep the picture that a vote is on, without EXIF and other metadata, until it expires. Send it only if its
    owner has agreed."""
    ticket = feedback.ticket(request)
    if not await feedback.ask(lambda votes: votes.has_vote(ticket.request)):
        raise Refusal(404, "vote", "Expected a vote before its picture. There is none")
    if feedback.receiving >= _RECEIVING:
        raise Refusal(429, "votes", "Expected fewer pictures at a time. Try again in 1 s", {"Retry-After": "1"})
    if (length_of(http) or 0) > MAX_BYTES + beside(http):
        raise Refusal(413, "bytes", f"Expected at most {MAX_BYTES:,} bytes. Received: {length_of(http)} bytes")
    feedback.receiving += 1
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            digest = await receive(http, Path(folder, "picture"))
            if not digest.startswith(ticket.picture):
                raise Refusal(422, "vote", "Expected the picture that the vote is on. Received: another")
            data = await asyncio.to_thread(_stripped, Path(folder, "picture"))
    finally:
        feedback.receiving -= 1
    kind = "png" if data.startswith(b"\x89PNG") else "jpg"
    expires = time.time() + feedback.days * 24 * 3600
    if not await feedback.ask(lambda votes: votes.keep(ticket.request, kind, data, expires)):
        raise Refusal(503, "room", "Expected room for the picture. The vote stands; there is none for pictures now")
    return JSONResponse({"expires": expires}, 201, headers={"Cache-Control": "no-store"})


def _stripped(file):
    try:
        return without_metadata(file.read_bytes())
    except InputError as error:
        raise Refusal(400, "damaged", str(error)) from None


@router.delete(
    "/{request}",
    status_code=204,
    response_class=Response,
    response_description="The vote, its words and its picture are removed",
    responses=_errors({404: "There is nothing of that id"}),
)
async def forget(feedback: FeedbackOf, request: RequestOf) -> Response:
    """Remove a vote, its words and its picture; whoever has the id may."""
    # What cannot be an id is not asked for: PostgreSQL fails at a zero byte.
    issued = re.fullmatch("r[A-Za-z0-9_-]{1,999}", request)
    if not issued or not await feedback.ask(lambda votes: votes.forget(request)):
        raise Refusal(404, "vote", "Expected the id of a vote. There is none of that id")
    return Response(status_code=204)
