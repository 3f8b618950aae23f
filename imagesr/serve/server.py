"""The server around the routes: signals drain it, and connections that dawdle are closed."""

from __future__ import annotations

import json
import logging
import socket
import time

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from imagesr.serve.app import UPLOAD_SECONDS, Guard, Service, create_app

DRAIN_SECONDS = 60
_DOWNLOAD_SECONDS = 10  # after that
_REQUEST_SECONDS = UPLOAD_SECONDS + 5  # for all of a request: the answer to a slow upload comes before
_TAKE_SECONDS = 30  # for the next 64 KiB of an answer


class _Protocol(H11Protocol):
    """Close connections whose request does not come to its end, or whose answer nobody takes."""

    _sending = _taking = None

    def connection_made(self, transport):
        super().connection_made(transport)
        self._sending = self.loop.call_later(_REQUEST_SECONDS, transport.abort)

    def data_received(self, data):
        super().data_received(data)
        whole = self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)
        if self._sending and whole:
            self._sending.cancel()
            self._sending = None
        elif not self._sending and not whole:
            self._sending = self.loop.call_later(_REQUEST_SECONDS, self.transport.abort)

    def pause_writing(self):
        super().pause_writing()
        self._taking = self.loop.call_later(_TAKE_SECONDS, self.transport.abort)

    def resume_writing(self):
        super().resume_writing()
        self._taking.cancel()

    def connection_lost(self, exc):
        for timer in (self._sending, self._taking):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg):
        body = json.dumps({"error": "Expected HTTP. Received: something else"}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        headers.append((b"content-length", str(len(body)).encode()))
        try:
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        except h11.LocalProtocolError:  # an answer is under way already
            pass
        self.transport.close()


class _Server(uvicorn.Server):
    """Drain at the first signal: what has begun is finished, and /readyz says no. End at the second."""

    def __init__(self, config, service):
        super().__init__(config)
        self._service, self._until = service, None

    def handle_exit(self, sig, frame):
        if self._service.draining:
            self.should_exit = self.force_exit = True
            self._captured_signals.append(sig)
        self._service.draining = True
        self._until = self._until or time.monotonic() + DRAIN_SECONDS

    async def on_tick(self, counter):
        service = self._service
        drained = service.draining and (not service.open or time.monotonic() > self._until)
        return await super().on_tick(counter) or drained or _failed(service)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket; raises ValueError where there is no such place to listen at."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise ValueError(f"Expected a free port. Received: {host}:{port} ({error})") from None


def serve(service: Service, place: socket.socket) -> None:
    """Answer until a signal comes."""
    logging.getLogger("pyvips").setLevel(logging.ERROR)  # it warns of strangers' metadata
    config = uvicorn.Config(
        Guard(create_app(service), service),
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_level="error",
        timeout_graceful_shutdown=_DOWNLOAD_SECONDS,
    )
    _Server(config, service).run(sockets=[place])
    if _failed(service):
        service.warming.result()


def _failed(service):
    """Tell whether there is no model to serve with."""
    warming = service.warming
    return warming.done() and not warming.cancelled() and warming.exception()
