"""The routes: what is asked, what is answered, with which status and headers."""

# Without `from __future__ import annotations`: FastAPI reads annotations, which name what a function holds here.
import asyncio
import contextlib
import ipaddress
import re
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request
from fastapi import Path as Part
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.staticfiles import StaticFiles

import imagesr
from imagesr.engines.chain import MAX_SCALE
from imagesr.errors import OutputError
from imagesr.media.photos import NO_ROOM, kind_of
from imagesr.scale import Scale
from imagesr.serve.figures import STAGES
from imagesr.serve.refusal import Refusal
from imagesr.serve.service import Service
from imagesr.serve.web import RUNTIME, STATIC

MAX_BYTES = 5 * 2**20
UPLOAD_SECONDS = 10
MEDIA = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
_FULL_SECONDS = 0.08  # before a 429: who asks again at once would take the time that others' pictures need
_CHUNK = 2**18
TAKE_SECONDS = 30  # for the next 64 KiB of an answer; and for all of it, beside
_TAKE_BYTES = 2**16  # a second
_GONE = 499  # as nginx counts clients that hang up; nobody reads it

_CSP = {
    "default-src": "'none'",
    "script-src": "'self' 'wasm-unsafe-eval'",
    "style-src": "'self'",
    "img-src": "'self' blob:",
    "connect-src": "'self' blob:",
    "worker-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{what} {where}" for what, where in _CSP.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=(), payment=(), usb=()",
}
_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Error(BaseModel):
    """Hold what is wrong, in one sentence."""

    error: str = Field(examples=["Expected a PNG or JPEG picture. Received: something else"])


class Measured(BaseModel):
    """Hold one model at one scale."""

    scale: str = Field(examples=["2"])
    parameters: int = Field(examples=[12440])
    multiply_accumulates: float = Field(description="per pixel of the picture", examples=[12340.0])
    channels: int = Field(description="1 where it takes luma, 3 where it takes RGB", examples=[1])
    multiple: int = Field(description="of which height and width given to its files must be multiples", examples=[1])
    receptive_field: int = Field(description="in pixels of the picture", examples=[15])
    psnr_y_b100: float | None = Field(description="dB, as measured on B100", examples=[31.511])
    files: dict[str, str] = Field(
        description="ONNX files, integers in and out", examples=[{"model.onnx": "/models/best-photo_x2/model.onnx"}]
    )


class Model(BaseModel):
    """Hold a model, and the native scales from which all others are composed."""

    name: str = Field(examples=["best-photo"])
    also: list[str] = Field(description="other names for it", examples=[["best"]])
    scales: list[Measured]


class Models(BaseModel):
    """Hold the models that `model` may name."""

    default: str = Field(examples=["best"])
    max_bytes: int = Field(description="of a picture", examples=[MAX_BYTES])
    max_pixels: int = Field(description="of a picture", examples=[16_000_000])
    runtime: str | None = Field(description="where ONNX Runtime for browsers is, if it is", examples=[None])
    models: list[Model]


def described(service: Service) -> dict[str, Any]:
    """Return what `/models` tells."""
    models = []
    for name, cards in service.models.items():
        scales = [
            {
                "scale": str(card.scale),
                "parameters": card.parameters,
                "multiply_accumulates": card.multiply_accumulates,
                "channels": card.channels,
                "multiple": card.multiple,
                "receptive_field": card.receptive_field,
                "psnr_y_b100": card.measured.get("B100", {}).get("fp32", {}).get("psnr_y"),
                "files": {file: f"/models/{card.folder.name}/{file}" for file in card.sha256 if file.endswith(".onnx")},
            }
            for card in sorted(cards, key=lambda card: card.scale)
        ]
        also = [other for other, photo in service.names.items() if photo == name != other]
        models.append({"name": name, "also": also, "scales": scales})
    return {
        "default": service.model,
        "max_bytes": MAX_BYTES,
        "max_pixels": service.most,
        "runtime": f"/{RUNTIME.relative_to(STATIC).as_posix()}/" if RUNTIME.is_dir() else None,
        "models": models,
    }


_REFUSED = {
    403: "Another web page asks; or Host is no name of this machine, and the service is there for it alone",
    400: "The body is no whole picture: empty, damaged, or too slow to decode",
    408: f"The upload took more than {UPLOAD_SECONDS} s",
    413: f"More than {MAX_BYTES:,} bytes, or more pixels than the service takes",
    415: "The bytes are neither PNG nor JPEG, whatever Content-Type says",
    422: "The query is wrong, or the result would be too large",
    429: "Every place is taken; Retry-After says when to come again",
    503: "The service is starting, or being stopped, or its disk is full; Retry-After says when to come again",
    500: "The service has failed",
}


def _sentence(text):
    return re.sub(r"\s+", " ", text).strip()


def _error(status, sentence, headers=None):
    return JSONResponse({"error": _sentence(sentence)}, status, headers=headers)


def create_app(service: Service) -> FastAPI:
    """Return the routes of a service."""

    @asynccontextmanager
    async def lifespan(app):
        async with service.running():
            yield

    app = FastAPI(
        title="imagesr",
        version=imagesr.__version__,
        summary="Makes photographs larger.",
        docs_url=None,  # it would fetch scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    failed = {status: {"model": Error, "description": _REFUSED[status]} for status in (403, 500)}

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> Response:
        if request.method == "POST":
            service.figures.refusals.labels(refusal.why).inc()
        if refusal.status == 429:
            await asyncio.sleep(_FULL_SECONDS)
        return _error(refusal.status, refusal.sentence, refusal.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        service.figures.hang_ups.inc()
        return Response(status_code=_GONE)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        told = {404: "Expected a path that is there", 405: "Expected a method that the path has"}
        sentence = f"{told.get(error.status_code, error.detail)}. Received: {request.method} {request.url.path}"
        return _error(error.status_code, sentence, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name, received = first["loc"][-1], str(first.get("input"))[:50]
        service.figures.refusals.labels("query").inc()
        return _error(422, f"Expected {name}: {first['msg']}. Received: {received!r}")

    @app.exception_handler(OutputError)
    async def no_room(request: Request, error: OutputError) -> Response:
        service.figures.refusals.labels("room").inc()
        sentence = "Expected room on the service's disk. There is none at the moment; try again later"
        return _error(503, sentence, {"Retry-After": "10"})

    @app.exception_handler(OSError)
    async def no_room_either(request: Request, error: OSError) -> Response:
        if error.errno not in NO_ROOM:
            raise error
        return await no_room(request, error)

    @app.exception_handler(Exception)
    async def failure(request: Request, error: Exception) -> Response:
        return _error(500, "The service has failed; its log says why")

    async def accepted(request: Request) -> AsyncIterator[Path]:
        """Refuse what is known to be too much before the body is read, and clear away whatever comes of the others."""
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

    async def supersize(
        request: Request,
        folder: Annotated[Path, Depends(accepted)],
        scale: Annotated[
            str,
            Query(
                description=f"Factor above 1 and up to {MAX_SCALE}; a fraction such as 4/3 is taken, too",
                json_schema_extra={
                    "type": "number",
                    "exclusiveMinimum": 1,
                    "maximum": MAX_SCALE,
                    "default": 2,
                    "examples": [1.5, 2, 4],
                },
            ),
        ] = "2",
        model: Annotated[
            str, Query(description="One of `/models`", json_schema_extra={"enum": list(service.names)})
        ] = service.model,
        format: Annotated[Literal["png", "jpeg", "webp"], Query(description="Of the answer")] = "png",
    ) -> Response:
        """Enlarge a photograph, sent as the raw body: PNG or JPEG, at most 5 MiB.

        The answer is exactly `scale` times the upright picture, rounded; alpha, 16 bits (in PNG), EXIF and the colour
        profile stay.
        """
        wanted = _scale(scale)
        unknown = set(request.query_params) - {"scale", "model", "format"}
        if model not in service.names or unknown:
            what, received = ("scale, model and format", min(unknown)) if unknown else (", ".join(service.names), model)
            raise Refusal(422, "query", f"Expected {what}. Received: {received[:50]!r}")
        times: dict[str, float] = {}
        source = folder / "source"
        with service.figures.uploads.track_inprogress():
            begun = time.perf_counter()
            await _receive(request, source)
            times["upload"] = time.perf_counter() - begun
        made = await _unless_gone(request, service.make(source, model, wanted, format, times))
        for stage in STAGES:
            service.figures.stages.labels(stage).observe(times[stage])
        headers = {
            "Content-Length": str(made.stat().st_size),
            "Cache-Control": "no-store",
            "Server-Timing": ", ".join(f"{stage};dur={1000 * times[stage]:.1f}" for stage in STAGES),
        }
        return StreamingResponse(_chunks(made), headers=headers, media_type=MEDIA[format])

    binary = {"schema": {"type": "string", "format": "binary"}}
    refusals = {status: {"model": Error, "description": what} for status, what in _REFUSED.items()}
    pictures = {200: {"description": "The picture, larger", "content": dict.fromkeys(MEDIA.values(), binary)}}
    body = {"required": True, "content": {"image/png": binary, "image/jpeg": binary}}
    for path in ("/supersizeme", "/supersizeme/"):
        app.post(
            path,
            response_class=Response,
            responses=pictures | refusals,
            openapi_extra={"requestBody": body},
            operation_id="supersizeme" + "_" * path.endswith("/"),
        )(supersize)

    @app.get("/models", response_model=Models, responses=failed)
    async def models() -> Any:
        """List the models with their scales, cost and quality, and where their files are."""
        return JSONResponse(described(service), headers={"Cache-Control": "no-cache"})

    files = {
        (card.folder.name, file): (card.folder / file, digest)
        for cards in service.models.values()
        for card in cards
        for file, digest in card.sha256.items()
        if file.endswith(".onnx")
    }

    @app.get(
        "/models/{folder}/{file}",
        response_class=Response,
        responses=failed
        | {
            200: {"description": "The file", "content": {"application/octet-stream": binary}},
            304: {"description": "The file has not changed"},
            404: {"model": Error, "description": "No model of the service has this file"},
        },
    )
    async def model_file(
        request: Request,
        folder: Annotated[str, Part(examples=["best-photo_x2"])],
        file: Annotated[str, Part(examples=["model.onnx"])],
    ) -> Response:
        """Return an ONNX file of a model, as `/models` lists them."""
        if (folder, file) not in files:
            raise HTTPException(404)
        path, digest = files[folder, file]
        # By content: the same name may hold another network after an update.
        headers = {"ETag": f'"{digest}"', "Cache-Control": "no-cache"}
        if f'"{digest}"' in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return FileResponse(path, headers=headers, media_type="application/octet-stream")

    @app.get("/healthz", responses=failed)
    async def healthz() -> dict[str, str]:
        """Say that the process is alive."""
        return {"status": "alive"}

    @app.get("/readyz", responses=failed | {503: {"model": Error, "description": _REFUSED[503]}})
    async def readyz() -> dict[str, str]:
        """Say whether pictures are taken: the model is warm, and the service is not being stopped."""
        service.check_ready()
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response, responses=failed | {200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Return the figures in the text format of Prometheus."""
        return Response(service.figures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    # Behind every route, and not mounted at /, where it would answer for methods that a route does not have.
    app.router.default = _Static(directory=STATIC, html=True)
    return app


class _Static(StaticFiles):
    """Let browsers ask each time whether a file has changed: an update is seen at once."""

    def file_response(self, *arguments, **options):
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _scale(text):
    # Before it is parsed: 1e999999999 is a number, too.
    if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,20})?|[0-9]{1,4}/[0-9]{1,4}", text) and not text.endswith("/0"):
        scale = Scale.parse(text) if float(Fraction(text)) > 0 else None
        if scale and 1 < Fraction(text) <= MAX_SCALE:
            return scale
    raise Refusal(422, "query", f"Expected a scale above 1 and up to {MAX_SCALE}. Received: {text[:50]!r}")


def _too_long(received):
    return Refusal(413, "bytes", f"Expected at most {MAX_BYTES:,} bytes. Received: {received}")


async def _receive(request, out):
    """Write the body to a file as it comes, as long as it can still be a picture."""
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


def _check_kind(beginning):
    kind = kind_of(beginning[:16])
    if not kind or kind[0] not in ("PNG", "JPEG"):
        received = kind[0] if kind else "something else"
        raise Refusal(415, "kind", f"Expected a PNG or JPEG picture. Received: {received}")


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """Run what a client waits for, and give it up at once when the client hangs up."""
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


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as data:
        while chunk := data.read(_CHUNK):
            yield chunk


class Guard:
    """Refuse what pages of others ask for, add to every answer the headers that keep a page to itself, and count it.

    With `loopback` the service is there for this machine alone, under its names: a page's own name may be made to lead
    here, too.
    """

    def __init__(self, app: Any, service: Service, *, loopback: bool):
        self._app, self._service, self._loopback = app, service, loopback

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message):
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                scope["state"]["abort_after"](TAKE_SECONDS + int(dict(headers).get(b"content-length", 0)) / _TAKE_BYTES)
                message = message | {"headers": [*headers, *_HEADERS]}
                path = getattr(scope.get("route"), "path", "other")
                self._service.figures.requests.labels(path, message["status"]).inc()
            await send(message)

        refused = self._refused(scope["method"], Headers(scope=scope))
        if refused:
            self._service.figures.refusals.labels("site").inc()
        await (_error(403, refused) if refused else self._app)(scope, receive, guarded)

    def _refused(self, method, headers):
        site, host = headers.get("sec-fetch-site"), headers.get("host", "localhost")
        if self._loopback and not _is_loopback(host):
            return f"Expected localhost as Host. Received: {host[:100]}"
        if method == "POST" and site in ("cross-site", "same-site"):
            return "Expected a request of the service's own page, or of a program. Another page sent it"
        return None


def _is_loopback(host):
    name = re.sub(r":[0-9]*$", "", host).strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return False
