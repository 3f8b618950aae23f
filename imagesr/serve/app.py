"""The application: the routes, the page's files, and an answer for every error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

import imagesr
from imagesr.errors import OutputError
from imagesr.files import NO_ROOM
from imagesr.serve.feedback_routes import router as feedback_router
from imagesr.serve.refusal import Refusal
from imagesr.serve.routes import SUPERSIZE_PATHS, router, staging
from imagesr.serve.schemas import error_response
from imagesr.serve.service import Service
from imagesr.serve.video_routes import router as video_router
from imagesr.serve.web import STATIC

_FULL_SECONDS = 0.08  # before a 429: a client that asks again at once would take the time that other pictures need
_GONE = 499  # as nginx counts clients that disconnect; nobody reads it


def create_app(service: Service) -> FastAPI:
    """Return the application around a service, which the routes find in its state."""
    app = FastAPI(
        title="imagesr",
        version=imagesr.__version__,
        summary="Upscales photographs and videos.",
        docs_url=None,  # it would fetch scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.service = service
    app.include_router(router)
    if service.champions and service.champions.staging:
        app.include_router(staging)
    app.include_router(video_router)
    if service.feedback:
        app.include_router(feedback_router)
    for error, handler in _HANDLERS.items():
        app.add_exception_handler(error, handler)
    # Behind every route, and not mounted at /, where it would answer for methods that a route does not have.
    app.router.default = _Static(directory=STATIC, html=True)
    app.add_middleware(_Head)
    _name_models(app, service)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with app.state.service.running():
        yield


def _name_models(app, service):
    """Have the OpenAPI document list the service's models, which the routes do not know. They have the details."""
    document = app.openapi

    def openapi() -> dict[str, Any]:
        described = document()
        for path in SUPERSIZE_PATHS:
            for parameter in described["paths"][path]["post"]["parameters"]:
                if parameter["name"] == "model":
                    parameter["schema"] |= {"enum": list(service.names), "default": service.model}
                elif parameter["name"] in ("detail", "clean"):
                    parameter["schema"].pop("default", None)
        return described

    app.openapi = openapi


class _Head:
    """Answer HEAD as GET, without the body (RFC 9110, section 9.3.2): FastAPI's routes take only what they name."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message):
            if message["type"] == "http.response.body":
                message = message | {"body": b""}
            await send(message)

        await self._app(scope | {"method": "GET", "head": True}, receive, without_body)


class _Static(StaticFiles):
    """Let browsers ask each time whether a file has changed: an update is seen at once."""

    def file_response(self, *arguments, **options):
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def _refused(request: Request, refusal: Refusal) -> Response:
    if request.method == "POST":
        _count_refusal(request, refusal.why)
    if refusal.status == 429:
        await asyncio.sleep(_FULL_SECONDS)
    return error_response(refusal.status, refusal.sentence, refusal.headers)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    request.app.state.service.metrics.hang_ups.inc()
    return Response(status_code=_GONE)


async def _http_error(request: Request, error: HTTPException) -> Response:
    expected = {404: "Expected a path that is there", 405: "Expected a method that the path has"}
    sentence = f"{expected.get(error.status_code, error.detail)}. Received: {request.method} {request.url.path}"
    headers = dict(error.headers or {})
    routes = [*router.routes, *video_router.routes, *feedback_router.routes] if "Allow" in headers else []
    # A path may have several routes; Starlette names the methods of the first.
    if methods := set().union(*(route.methods for route in routes if route.path_regex.match(request.url.path))):
        headers["Allow"] = ", ".join(sorted(methods))
    return error_response(error.status_code, sentence, headers)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    name, received = first["loc"][-1], str(first.get("input"))[:50]
    _count_refusal(request, "query")
    return error_response(422, f"Expected {name}: {first['msg']}. Received: {received!r}")


async def _no_space(request: Request, error: OutputError) -> Response:
    _count_refusal(request, "room")
    sentence = "Expected room on the service's disk. There is none at the moment; try again later"
    return error_response(503, sentence, {"Retry-After": "10"})


async def _os_error(request: Request, error: OSError) -> Response:
    if error.errno not in NO_ROOM:
        raise error
    return await _no_space(request, error)


async def _failed(request: Request, error: Exception) -> Response:
    return error_response(500, "The service has failed; its log says why")


def _count_refusal(request, why):
    request.app.state.service.metrics.refusals.labels(why).inc()


_HANDLERS = {
    Refusal: _refused,
    ClientDisconnect: _gone,
    HTTPException: _http_error,
    RequestValidationError: _invalid,
    OutputError: _no_space,
    OSError: _os_error,
    Exception: _failed,
}
