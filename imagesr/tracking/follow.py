"""A run mirrored while it trains, by a process of its own: training neither waits for it nor fails with it.

MLflow takes seconds to import and holds the interpreter meanwhile, and its own callback loses rows, and ends the
training, where its server dies.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from imagesr.errors import OutputError
from imagesr.store import without_secrets
from imagesr.tracking import URI, is_local
from imagesr.tracking.mirror import Mirror, begin

EVERY = 5.0  # seconds between two looks at the run
PATIENCE = 1.5  # seconds that a run's end waits for the next answer of a server
_LOCAL_PATIENCE, _STARTING = 60.0, 120.0  # for a file on this machine, and for the import of MLflow
_PROBE = 0.5  # seconds until a server is taken for dead
_CALL = 2  # seconds for one call
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}


class Follower:
    """Start the process that mirrors a run, and end it with the run; `end` never raises.

    It is a context manager too: `with Follower(run, uri): …`.
    """

    def __init__(self, run: Path, uri: str):
        begin(run, uri)
        self._run, self._uri = run, uri
        self._said, self._news = "starting", threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "imagesr.tracking.follow", str(run)],
            env=os.environ | {URI: uri},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for the training, which then tells this process
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, kind, *_) -> None:
        self.end(hurry=kind is not None)

    def _listen(self):
        with self._process.stdout as lines:
            for line in lines:
                self._said = line.strip()
                self._news.set()
        self._news.set()

    def end(self, *, hurry: bool = False) -> bool:
        """Let the process send the rest, and return whether all was sent; what is left is told in a line.

        `hurry` is for a run that was interrupted or has failed: then no file on this machine is waited for either.
        """
        self._process.stdin.close()
        silent, patience = 0.0, _LOCAL_PATIENCE if is_local(self._uri) and not hurry else PATIENCE
        while self._process.poll() is None:
            begun = time.monotonic()
            self._news.wait(0.05)
            if self._news.is_set():
                self._news.clear()
                silent = 0.0
            else:
                silent += time.monotonic() - begun
            if silent > (_STARTING if self._said == "starting" and not hurry else patience):
                break
        self._process.kill()
        code = self._process.wait()
        if code:
            shown = without_secrets(self._uri)
            print(f"not all of the run is at {shown} yet: imagesr track sync {self._run}", file=sys.stderr, flush=True)
        return not code


def reachable(uri: str) -> bool:
    """Tell whether something listens at a server's address; True for files."""
    if is_local(uri):
        return True
    parts = urlsplit(uri)
    port = parts.port or _PORTS.get(parts.scheme.partition("+")[0], 80)
    try:
        socket.create_connection((parts.hostname or "", port), _PROBE).close()
    except OSError:
        return False
    return True


def _follow(run: Path, uri: str, ended: threading.Event) -> bool:
    """Mirror a run until it has ended; returns whether the server has all of it."""
    mirror, whole = None, False
    while not whole:
        last = ended.is_set()
        try:
            if not reachable(uri):
                raise OutputError("no answer")
            if mirror is None:
                from imagesr.tracking.server import Server

                _say("connecting" if not is_local(uri) else "starting")
                mirror = Mirror(run, Server(uri, seconds=_CALL, tries=0), sent=lambda: _say("sent"))
            mirror.send(last=last)
            whole = last
        except OutputError:
            _say("away")
            mirror = None
            if last:
                return False
        if not last:
            ended.wait(EVERY)
    return whole


def _say(word):
    with suppress(BrokenPipeError):  # the training was killed; what it has written is sent nevertheless
        print(word, flush=True)


def main() -> int:
    """Mirror the run that the first argument names, until standard input ends."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    return 0 if _follow(Path(sys.argv[1]), os.environ[URI], ended) else 1


if __name__ == "__main__":
    os._exit(main())  # MLflow's threads must not keep it
