"""Claims: that exactly one process does a piece of work, on whichever machine, and that a killed one is taken over."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from imagesr.errors import InputError, OutputError
from imagesr.store import Store

BEAT = 10.0  # seconds between two signs of life
_MISSED = 4  # so many beats without one: the owner is dead, by the watcher's own clock; clocks are not compared
_wait = time.sleep


class Claim:
    """Hold a piece of work, and show signs of life until `end`; the others see it in the store."""

    def __init__(self, store: Store, name: str, record: dict[str, Any]):
        self._store, self.name, self._record = store, name, record
        self._data, self._lost = _text(record), False
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _live(self):
        while not self._ended.wait(BEAT):
            with suppress(InputError, OutputError):  # the store may be back at the next beat
                self._write(beat=self._record["beat"] + 1)

    def _write(self, **changes):
        with self._lock:
            record = self._record | changes
            data = _text(record)
            # It may have been written although the answer was lost.
            if self._store.swap(self.name, self._data, data) or self._store.get(self.name) == data:
                self._record, self._data = record, data
            else:
                self._lost = True

    def check(self, step: str) -> None:
        """Say which step begins; raises OutputError where the store fails or another process has the work now."""
        self._tell(step=step)

    def end(self, state: str, result: dict[str, Any]) -> None:
        """Say how the work has ended; the claim stays, so that it is not done again."""
        self._ended.set()
        self._thread.join()
        self._tell(state=state, result=result)

    def _tell(self, **changes):
        try:
            self._write(**changes)
        except InputError as error:  # a swap reads, too; it is the store's fault, not that of the work
            raise OutputError(str(error)) from None
        if self._lost:
            raise OutputError(f"Expected to keep the claim {self.name}. Another process has taken it over")

    def release(self) -> None:
        """Give the work back, for whoever comes next; a store that does not answer learns it by the missing signs."""
        self._ended.set()
        self._thread.join()
        with suppress(InputError, OutputError):
            self._write(state="released")


def claim(store: Store, name: str, *, again: Callable[[dict[str, Any]], bool]) -> tuple[Claim | None, dict[str, Any]]:
    """Claim a piece of work; return the claim, None where it is not ours, and what the store says about it.

    Work that nobody has claimed, that was given back, or whose owner is dead, is ours. Work that has ended is ours
    where `again` returns True of its record. Of any number of callers one gets the claim.
    """
    mine = {"state": "running", "owner": uuid.uuid4().hex, "place": _place(), "beat": 0, "step": "", "result": {}}
    while True:
        data = store.get(name)
        if data is None:
            if store.create(name, _text(mine)):
                return Claim(store, name, mine), mine
            continue
        record = _parsed(name, data)
        if record["state"] == "running":
            if _alive(store, name, data, record):
                return None, record
        elif record["state"] != "released" and not again(record):
            return None, record
        if store.swap(name, data, _text(mine)):
            return Claim(store, name, mine), mine


def _text(record):
    return (json.dumps(record, indent=1) + "\n").encode()


def _parsed(name, data):
    try:
        record = json.loads(data)
        return {key: record[key] for key in ("state", "owner", "place", "beat", "step", "result")}
    except (ValueError, KeyError, TypeError):
        raise InputError(f"Expected a claim in {name}. Received: {data[:100]!r}") from None


def _place():
    """Name this process: the machine, its boot, the container, the number and the start of the process.

    Containers of one machine may share its name and boot, but each numbers its own processes.
    """
    boot = _read("/proc/sys/kernel/random/boot_id")
    return [socket.gethostname(), boot, _numbering(), os.getpid(), _started(os.getpid())]


def _numbering():
    """Name the namespace that numbers the processes, "" where the system has none."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid):
    """Return when a process began, in the system's ticks, "" where there is none or the system does not tell."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split(" ")[20:21]


def _read(path):
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError:
        return ""


def _alive(store, name, data, record):
    """Tell whether the owner of a claim lives: a process of this machine at once, others by their signs of life."""
    place, here = record["place"], _place()
    if here[1] and place[:3] == here[:3]:
        return _started(place[3]) == place[4]
    for _ in range(2 * _MISSED):
        _wait(BEAT / 2)
        if store.get(name) != data:
            return True
    return False
