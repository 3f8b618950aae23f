"""Sinks beside the window: a virtual camera, a page on loopback, a pipe, nowhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO

import cv2

from imagesr.live.loop import Shot
from imagesr.media.frames import Frame, bgr, plane

_PAGE = b"""<!doctype html><meta charset=utf-8><title>imagesr</title><link rel=icon href=data:,>
<style>body{margin:0;background:#111}img{display:block;max-width:100%;margin:auto}</style>
<img src=stream alt="the upscaled camera">"""
_JPEG_QUALITY = 90
_MOST_TWICE_S = 1.0


class Nowhere:
    """Show nothing: for measurements, and as the base of the other sinks."""

    place = "nowhere"

    def show(self, shot: Shot, figures: Sequence[str]) -> None:
        """Do nothing."""

    def poll(self) -> str | None:
        """Return None: there are no keys."""

    def close(self) -> None:
        """Do nothing."""


class VirtualCamera(Nowhere):
    """Act as a camera for other programs, by pyvirtualcam; raises RuntimeError where the system has no such device."""

    def __init__(self, size: tuple[int, int], rate: Fraction):
        import pyvirtualcam

        self._camera = pyvirtualcam.Camera(*size, float(rate), fmt=pyvirtualcam.PixelFormat.BGR)
        self.place = f"the camera {self._camera.device}"

    def show(self, shot: Shot, figures: Sequence[str]) -> None:
        """Send a frame to the programs that read the camera."""
        self._camera.send(bgr(shot.sr))

    def close(self) -> None:
        """Remove the camera."""
        self._camera.close()


class Page(Nowhere):
    """Serve a page on loopback that shows the newest frame as MJPEG; raises OSError for a port in use."""

    def __init__(self, port: int):
        self._change, self._jpeg, self._watching = threading.Condition(), b"", 0
        page = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True  # the end of a frame is sent before its beginning is acknowledged

            def do_GET(self):
                # Another host name for this address means that a foreign page tries to see the camera.
                if self.headers.get("Host", "").rsplit(":", 1)[0] not in ("127.0.0.1", "localhost"):
                    self.send_error(403)
                elif self.path == "/":
                    self._answer("text/html", _PAGE)
                elif self.path == "/stream":
                    page.stream(self)
                else:
                    self.send_error(404)

            def _answer(self, kind, body):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.place = f"http://127.0.0.1:{self._server.server_port}/"

    def show(self, shot: Shot, figures: Sequence[str]) -> None:
        """Make a frame the newest one; without viewers that costs nothing."""
        if self._watching:
            jpeg = cv2.imencode(".jpg", bgr(shot.sr), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
            with self._change:
                self._jpeg = jpeg
                self._change.notify_all()

    def stream(self, request: BaseHTTPRequestHandler) -> None:
        """Send every newest frame, until the browser leaves or `close` is called."""
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        with self._change:
            self._watching += 1
        try:
            while True:
                with self._change:
                    self._change.wait()
                    jpeg = self._jpeg
                if not jpeg:
                    return
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                request.wfile.write(head.encode() + jpeg + b"\r\n")
        except OSError:
            pass  # the browser disconnected
        finally:
            with self._change:
                self._watching -= 1

    def close(self) -> None:
        """Stop serving."""
        with self._change:
            self._jpeg = b""
            self._change.notify_all()
        self._server.shutdown()
        self._server.server_close()


class Y4M(Nowhere):
    """Write uncompressed frames for another program, at a constant rate: a frame is repeated while the next is late.

    Raises BrokenPipeError when the reader ends, ValueError for a terminal.
    """

    place = "standard output"

    def __init__(self, rate: Fraction, out: BinaryIO | None = None):
        if out is None and sys.stdout.isatty():
            raise ValueError("Expected a pipe or a file for the frames, as in: imagesr webcam --sink y4m | mpv -")
        self._rate, self._out = rate, out or sys.stdout.buffer
        self._begun, self._written, self._last = None, 0, b""

    def show(self, shot: Shot, figures: Sequence[str]) -> None:
        """Write a frame, after repeating the one before for the time that has passed."""
        if self._begun is None:
            self._begun = shot.captured
            head = f"YUV4MPEG2 W{shot.sr.width} H{shot.sr.height} F{self._rate.numerator}:{self._rate.denominator} Ip"
            self._out.write(f"{head} A1:1 C420mpeg2\n".encode())
        due = round((shot.captured - self._begun) * self._rate)
        # The reader was too slow, or the camera away: go on from here.
        if due - self._written > self._rate * _MOST_TWICE_S:
            self._begun = shot.captured - self._written / self._rate
            due = self._written
        while self._written < due:
            self._write(self._last)
        self._last = _bytes(shot.sr)
        if self._written == due:  # otherwise two frames came in the time of one
            self._write(self._last)
        self._out.flush()

    def _write(self, data):
        self._out.write(b"FRAME\n" + data)
        self._written += 1


def _bytes(frame: Frame) -> bytes:
    return b"".join(plane(frame, i).tobytes() for i in range(3))
