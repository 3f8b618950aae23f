"""The server around the application: signals drain it, and connections that stall are closed."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import logging
import socket
import sys
from functools import partial

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from imagesr.errors import cause
from imagesr.serve.app import create_app
from imagesr.serve.guard import TAKE_SECONDS, Guard
from imagesr.serve.service import Service
from imagesr.serve.uploads import UPLOAD_SECONDS

_REQUEST_SECONDS = UPLOAD_SECONDS + 5  # for all of a request: the answer to a slow upload comes before
_REPORT_SECONDS = 60  # between two lines about files that run out
_ASKING_SECONDS = 1  # after a client has closed its side, until it is asked whether it is still there
# Connections that are taken up before one of them can be refused: asyncio takes as many at a time as may wait.
_BACKLOG = 100


class _Protocol(H11Protocol):
    """Close connections whose request does not end in time, or whose answer is not read.

    A client may close its side once its request is sent, and read the answer (RFC 9112, section 9.6). One that has
    gone looks the same until something is sent to it.
    """

    _sending = _taking = _answering = _asking = None
    _half_closed = False

    def __init__(self, *arguments, most, **options):
        super().__init__(*arguments, **options)
        self._most = most
        self.app_state = self.app_state | {"abort_after": self._abort_after, "give_time": self._give_time}

    def connection_made(self, transport):
        super().connection_made(transport)
        if len(self.connections) > self._most:
            transport.abort()
        self._sending = self.loop.call_later(_REQUEST_SECONDS, transport.abort)

    def data_received(self, data):
        super().data_received(data)
        whole = self._whole()
        if self._sending and whole:
            self._sending.cancel()
            self._sending = None
        elif not self._sending and not whole:
            self._sending = self.loop.call_later(_REQUEST_SECONDS, self.transport.abort)

    def eof_received(self):
        """Keep a connection whose request is whole: asyncio closes it otherwise."""
        if self._whole() and not (self.cycle is None or self.cycle.response_complete):
            self._half_closed = True
            self._asking = self.loop.call_later(_ASKING_SECONDS, self._ask)
            return True
        return super().eof_received()

    def _whole(self):
        return self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)

    def _ask(self):
        """Send 100 Continue, which clients skip: the system of one that has gone answers with a reset."""
        gone = self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if gone or self.transport.is_closing():
            self.transport.abort()
        elif self.conn.our_state is h11.SEND_RESPONSE and self.conn.their_http_version != b"1.0":
            self.transport.write(self.conn.send(h11.InformationalResponse(status_code=100, headers=[])))
            self._asking = self.loop.call_later(_ASKING_SECONDS, self._ask)

    def _give_time(self, seconds):
        """Let the request that arrives now take so long, in place of _REQUEST_SECONDS."""
        if self._sending:
            self._sending.cancel()
            self._sending = self.loop.call_later(seconds, self.transport.abort)

    def _abort_after(self, seconds):
        """Abort the connection where the answer that begins now has not ended after `seconds`."""
        if self._answering:
            self._answering.cancel()
        self._answering = self.loop.call_later(seconds, self.transport.abort)

    def on_response_complete(self):
        if self._answering:
            self._answering.cancel()
        # The end of the answer may still be in the buffer.
        self._answering = self.loop.call_later(TAKE_SECONDS, self._abort_untaken)
        super().on_response_complete()
        if self._half_closed:  # nothing can come any more
            self.transport.close()

    def _abort_untaken(self):
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def pause_writing(self):
        super().pause_writing()
        self._taking = self.loop.call_later(TAKE_SECONDS, self.transport.abort)

    def resume_writing(self):
        super().resume_writing()
        self._taking.cancel()

    def connection_lost(self, exc):
        for timer in (self._sending, self._taking, self._answering, self._asking):
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
        except h11.LocalProtocolError:  # an answer has begun already
            pass
        self.transport.close()


class LoopErrors:
    """Say once a minute, in one line, that files run out: asyncio prints a traceback for every connection."""

    _next = 0.0

    def __call__(self, loop, context):
        error, now = context.get("exception"), loop.time()
        if not (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)):
            loop.default_exception_handler(context)
        elif now >= self._next:
            self._next = now + _REPORT_SECONDS
            told = f"Expected a free file for every connection. Received: {error.strerror}; new connections wait"
            print(f"imagesr serve: {told}", file=sys.stderr, flush=True)


class _Server(uvicorn.Server):
    """Drain at the first signal: requests that have begun are finished, and /readyz says no. End at the second."""

    def __init__(self, config, service):
        super().__init__(config)
        self._service = service

    async def startup(self, sockets=None):
        asyncio.get_running_loop().set_exception_handler(LoopErrors())
        await super().startup(sockets)

    def handle_exit(self, sig, frame):
        if self._service.draining:
            self.should_exit = self.force_exit = True
            self._captured_signals.append(sig)
            asyncio.get_running_loop().call_soon_threadsafe(self._cut)
        self._service.draining = True

    def _cut(self):
        """Abort every connection: uvicorn would answer the waiting clients in plain text."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def shutdown(self, sockets=None):
        # No picture is under way any more; what is left are ends of answers that nobody reads.
        asyncio.get_running_loop().call_later(TAKE_SECONDS, self._cut)
        await super().shutdown(sockets)

    async def on_tick(self, counter):
        service = self._service
        if service.draining and service.videos:
            service.videos.stop()
        drained = service.draining and not service.open
        return await super().on_tick(counter) or drained or _failed(service)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises ValueError for an address or port that cannot be used."""
    try:
        sock = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        # Connections inherit it, and asyncio does not set it on these: without it the second part of an answer
        # waits some 40 ms until the first is acknowledged.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    except (OSError, OverflowError) as error:
        raise ValueError(f"Expected a free port. Received: {host}:{port} ({cause(error)})") from None


def serve(service: Service, sock: socket.socket) -> None:
    """Answer until a signal comes."""
    logging.getLogger("pyvips").setLevel(logging.ERROR)  # it warns of metadata in uploads
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it tells of damaged forms, which are answered
    config = uvicorn.Config(
        Guard(create_app(service), service, loopback=ipaddress.ip_address(sock.getsockname()[0]).is_loopback),
        http=partial(_Protocol, most=service.most_connections),
        ws="none",
        loop="asyncio",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_level="error",
        backlog=_BACKLOG,
    )
    _Server(config, service).run(sockets=[sock])
    if _failed(service):
        service.warming.result()


def _failed(service):
    """Tell whether loading the model failed."""
    warming = service.warming
    return warming and warming.done() and not warming.cancelled() and warming.exception()
