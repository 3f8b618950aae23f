"""The guard around every route: foreign pages and hosts are refused, answers get their headers and their time."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import Any

from starlette.datastructures import Headers

from imagesr.serve.schemas import error_response
from imagesr.serve.service import Service

TAKE_SECONDS = 30  # for the next 64 KiB of an answer; and for all of it, beside
_TAKE_BYTES = 2**16  # a second

_CSP = {
    "default-src": "'none'",
    "script-src": "'self' 'wasm-unsafe-eval'",
    "style-src": "'self'",
    "img-src": "'self' blob:",
    "media-src": "'self' blob:",
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


class Guard:
    """Refuse requests of other web pages, add to every answer the headers that isolate the page, and count it.

    With `loopback` the service is for this machine alone, and Host must be one of the machine's own names: a page
    elsewhere may have its own name point here.
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
                if not dict(headers).get(b"content-type", b"").startswith(b"text/event-stream"):  # it may take hours
                    length = int(dict(headers).get(b"content-length", 0))
                    scope["state"]["abort_after"](TAKE_SECONDS + length / _TAKE_BYTES)
                message = message | {"headers": [*headers, *_HEADERS]}
                path = getattr(scope.get("route"), "path", "other")
                self._service.metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        refused = self._refused(scope["method"], Headers(scope=scope))
        if refused:
            self._service.metrics.refusals.labels("site").inc()
        await (error_response(403, refused) if refused else self._app)(scope, receive, guarded)

    def _refused(self, method, headers):
        site, host = headers.get("sec-fetch-site"), headers.get("host", "localhost")
        if self._loopback and not _is_loopback(host):
            return f"Expected localhost as Host. Received: {host[:100]}"
        if method in ("POST", "PUT", "DELETE") and site in ("cross-site", "same-site"):
            return "Expected a request of the service's own page, or of a program. Another page sent it"
        return None


def _is_loopback(host):
    name = re.sub(r":[0-9]*$", "", host).strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return False
