"""The routes: paths, parameters, answers and their headers."""

# Without `from __future__ import annotations`: FastAPI reads the annotations.
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as Part
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from imagesr.engines.chain import MAX_SCALE
from imagesr.errors import ModelError
from imagesr.serve.forms import body_schema
from imagesr.serve.metrics import STAGES
from imagesr.serve.queries import parse_clean, parse_detail, parse_scale, scale_schema
from imagesr.serve.refusal import Refusal
from imagesr.serve.schemas import Error, Models, describe_models
from imagesr.serve.service import Service, Wanted
from imagesr.serve.uploads import MAX_BYTES, UPLOAD_SECONDS, accept, receive, unless_gone

MEDIA = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
SUPERSIZE_PATHS = ("/supersizeme", "/supersizeme/")
STAGING = "/staging"
_CHUNK = 2**18  # bytes of an answer that are read at once

_REFUSED = {
    403: "Another web page sent the request, or Host is not a name of this machine, which alone is served",
    400: "The body is not a whole picture: it is empty, damaged, or too slow to decode",
    408: f"The upload took more than {UPLOAD_SECONDS} s",
    413: f"More than {MAX_BYTES:,} bytes, or more pixels than the service takes",
    415: "The bytes are neither PNG nor JPEG, whatever Content-Type says",
    422: "The query is wrong, or the result would be too large",
    429: "Every place is taken; Retry-After says when to try again",
    503: "The service is starting, or being stopped, or its disk is full; Retry-After says when to try again",
    500: "The service has failed",
}
_FAILED = {status: {"model": Error, "description": _REFUSED[status]} for status in (403, 500)}
_BINARY = {"schema": {"type": "string", "format": "binary"}}

_NO_CHALLENGER = "The registry has no challenger, or not of that model"

router = APIRouter()
staging = APIRouter(prefix=STAGING)  # for services that follow challengers


async def _service(request: Request) -> Service:
    return request.app.state.service


ServiceOf = Annotated[Service, Depends(_service)]


async def _wanted(
    request: Request,
    service: ServiceOf,
    scale: Annotated[
        str,
        Query(
            description=f"Factor up to {MAX_SCALE}; a fraction such as 4/3 is valid, too. 1 keeps the size, and cleans",
            json_schema_extra=scale_schema(2),
        ),
    ] = "2",
    model: Annotated[str, Query(description="One of `/models`")] = "",
    format: Annotated[
        str,
        Query(
            description="Format of the answer; upper case and `jpg` are understood",
            json_schema_extra={"enum": [*MEDIA]},
        ),
    ] = "png",
    detail: Annotated[
        str,
        Query(
            description="From 0, the faithful picture, to 1, the most detailed one. "
            "Models with a `detail` in `/models` take it; that is their default",
            json_schema_extra={"type": "number", "minimum": 0, "maximum": 1},
        ),
    ] = "",
    clean: Annotated[
        str,
        Query(
            description="How much of the picture was lost to compression and noise: from 0, which leaves it as it is, "
            "to 1, or `auto`, by the picture; nothing, where no network cleans for a model (`clean` in `/models`)",
            json_schema_extra={"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"const": "auto"}]},
        ),
    ] = "auto",
) -> Wanted:
    """Return what the query asks for; raises a Refusal for an unknown parameter, model, scale, detail or clean."""
    given = request.query_params
    factor, kind = parse_scale(scale), _parse_format(format)
    if unknown := set(given) - {"scale", "model", "format", "detail", "clean"}:
        raise Refusal(422, "query", f"Expected scale, model, format, detail and clean. Received: {min(unknown)[:50]!r}")
    model = model if "model" in given else None
    staged = request.scope["route"].path.startswith(STAGING)
    model = _staged_model(service, model) if staged else _served_model(service, model)
    wanted = Wanted(factor, model, kind)
    number = parse_detail(detail) if "detail" in given else None
    degree = parse_clean(clean)
    try:
        service.check_clean(degree, wanted.model, wanted.scale)
        return replace(wanted, detail=service.detail_of(number, wanted.model, wanted.scale), clean=degree)
    except ModelError as error:
        raise Refusal(422, "query", str(error)) from None


def _served_model(service, name):
    name = service.model if name is None else name
    if name not in service.names:
        raise Refusal(422, "query", f"Expected {', '.join(service.names)}. Received: {name[:50]!r}")
    return name


def _staged_model(service, name):
    """Return the label of a challenger, by its model's name; the first one without a name."""
    name = next(iter(service.staged), "none") if name is None else name
    if name not in service.staged:
        raise Refusal(404, "query", f"Expected a challenger in the registry. Received: {name[:50]!r}")
    return service.staged[name]


def _parse_format(text):
    format = text.lower()
    format = "jpeg" if format == "jpg" else format
    if format not in MEDIA:
        names = ", ".join(map(repr, MEDIA))
        raise Refusal(422, "query", f"Expected format as one of {names}. Received: {text[:50]!r}")
    return format


async def supersize(
    request: Request,
    service: ServiceOf,
    folder: Annotated[Path, Depends(accept)],
    wanted: Annotated[Wanted, Depends(_wanted)],
) -> Response:
    """Upscale a photograph, PNG or JPEG, at most 5 MiB: sent as the raw body, or as a form (multipart) with one file.

    The answer is exactly `scale` times the upright picture, rounded. Alpha, 16 bits (in PNG), EXIF and the colour
    profile are kept.
    """
    times: dict[str, float] = {}
    source = folder / "source"
    with service.metrics.uploads.track_inprogress():
        begun = time.perf_counter()
        digest = await receive(request, source)
        times["upload"] = time.perf_counter() - begun
    wanted = replace(wanted, model=service.pin(wanted.model))  # a version that comes meanwhile is for the next request
    made = await unless_gone(request, service.make(source, wanted, times))
    for stage in STAGES:
        service.metrics.stages.labels(stage).observe(times[stage])
    service.metrics.pictures.observe(time.perf_counter() - begun - times["upload"])
    headers = {
        "Content-Length": str(made.stat().st_size),
        "Cache-Control": "no-store",
        "Imagesr-Model": service.label(wanted.model),
        "Server-Timing": ", ".join(f"{stage};dur={1000 * times[stage]:.1f}" for stage in STAGES),
    }
    # Challengers have no votes: they would be compared with champions on other pictures.
    if service.feedback and wanted.model not in service.staged.values():
        headers |= _named(service.feedback.issue(service.label(wanted.model), digest))
    return StreamingResponse(_chunks(made), headers=headers, media_type=MEDIA[wanted.format])


for _path, _router, _statuses in (
    *((path, router, _REFUSED) for path in SUPERSIZE_PATHS),
    *((path, staging, _REFUSED | {404: _NO_CHALLENGER}) for path in SUPERSIZE_PATHS),
):
    _router.post(
        _path,
        response_class=Response,
        responses={
            200: {"description": "The picture, larger", "content": dict.fromkeys(MEDIA.values(), _BINARY)},
            **{status: {"model": Error, "description": text} for status, text in _statuses.items()},
        },
        openapi_extra={"requestBody": body_schema("image/png", "image/jpeg")},
        operation_id="staging_" * (_router is staging) + "supersizeme" + "_" * _path.endswith("/"),
    )(supersize)


def _named(request):
    return {"Imagesr-Request": request} if request else {}


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as data:
        while chunk := data.read(_CHUNK):
            yield chunk


@router.get("/models", response_model=Models, responses=_FAILED)
async def models(service: ServiceOf) -> Any:
    """List the models with their scales, cost and quality, and where their files are."""
    told = describe_models(
        service.models,
        service.names,
        default=service.model,
        most=service.most,
        detail=service.detail,
        video_bytes=service.videos and service.videos.most_bytes,
        feedback_days=service.feedback and service.feedback.days,
    )
    return JSONResponse(told, headers={"Cache-Control": "no-cache"})


@router.get(
    "/models/{folder}/{file}",
    response_class=Response,
    responses=_FAILED
    | {
        200: {"description": "The file", "content": {"application/octet-stream": _BINARY}},
        304: {"description": "The file has not changed"},
        404: {"model": Error, "description": "No model of the service has this file"},
    },
)
async def model_file(
    request: Request,
    service: ServiceOf,
    folder: Annotated[str, Part(examples=["best-photo_x2"])],
    file: Annotated[str, Part(examples=["model.onnx"])],
) -> Response:
    """Return an ONNX file of a model, as `/models` lists them."""
    if (folder, file) not in service.files:
        raise HTTPException(404)
    path, digest = service.files[folder, file]
    # By content: the same name may hold another network after an update.
    headers = {"ETag": f'"{digest}"', "Cache-Control": "no-cache"}
    if f'"{digest}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return FileResponse(path, headers=headers, media_type="application/octet-stream")


@router.get("/healthz", responses=_FAILED)
async def healthz() -> dict[str, str]:
    """Say that the process is alive."""
    return {"status": "alive"}


@router.get("/readyz", responses=_FAILED | {503: {"model": Error, "description": _REFUSED[503]}})
async def readyz(service: ServiceOf) -> dict[str, str]:
    """Say whether pictures are taken: the model is warm, and the service is not being stopped."""
    service.check_ready()
    return {"status": "ready"}


@router.get("/metrics", response_class=Response, responses=_FAILED | {200: {"content": {"text/plain": {}}}})
async def metrics(service: ServiceOf) -> Response:
    """Return the figures in the text format of Prometheus."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
