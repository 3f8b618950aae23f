"""A run folder mirrored to a tracking server: what is missing there is sent, and nothing twice."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagesr.errors import InputError
from imagesr.files import write_whole
from imagesr.store import without_secrets

if TYPE_CHECKING:
    from imagesr.tracking.server import Server

RECORD = "tracking.json"
_FILES = ("config.json", "lineage.json", "history.csv", "benchmark.json", "statistics/*.png", "decision-*.json")
_OF_A_RUN = ("config.json", "history.csv")
_LAST_FILES = ("model.keras",)  # sent once, at the end
_SENT = "imagesr.files"  # the tag that says which files the server has


def is_run(folder: Path) -> bool:
    """Tell whether a folder is a run: of `imagesr train`, or of `model.fit` with `RunFolder`."""
    return any((folder / name).is_file() for name in _OF_A_RUN)


def begin(run: Path, uri: str) -> dict[str, Any]:
    """Return a run's record, written on the first call: its key on any server, and the address without secrets."""
    if (run / RECORD).exists():
        record = read_record(run)
        if record["uri"] == without_secrets(uri):
            return record
    else:
        record = {"key": uuid.uuid4().hex, "started": int(time.time() * 1000)}
    record |= {"uri": without_secrets(uri)}
    write_whole(run / RECORD, json.dumps(record, indent=1) + "\n")
    return record


def read_record(run: Path) -> dict[str, Any]:
    """Return a run's record; raises InputError for a run that was not tracked."""
    try:
        record = json.loads((run / RECORD).read_text("utf-8"))
        return {key: record[key] for key in ("key", "started", "uri")}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"Expected a run of imagesr train --track. Received: {run}, without {RECORD}") from None


class Mirror:
    """Send a run folder to a server, again and again; what was sent is not sent anew."""

    def __init__(self, run: Path, server: Server, *, sent: Callable[[], None] = lambda: None):
        self.run, self._server, self._told = run, server, sent
        record = read_record(run)
        self._started = record["started"]
        self.id = server.find_run(record["key"], name=run.absolute().name, started=self._started)
        sent()
        self._params, self._tags, self._status = server.read_run(self.id)
        sent()
        self._rows: set[str] = set()  # as text: one NaN is like another there

    def send(self, *, last: bool = False) -> int:
        """Send what the server lacks, and return the number of rows that were sent; `last` sends the network, too."""
        settings, tags = self._settings()
        new = {key: value for key, value in settings.items() if key not in self._params}
        # A resumed run may have more steps: MLflow's parameters never change, so a tag says it.
        tags |= {f"now.{key}": value for key, value in settings.items() if self._params.get(key, value) != value}
        fresh_tags = {key: value for key, value in tags.items() if self._tags.get(key) != value}
        rows = [row for row in self._history() if str(row) not in self._rows]
        metrics = [(name, value, self._started + step, step) for step, name, value in rows]
        if metrics or new or fresh_tags:
            self._server.log(self.id, metrics=metrics, params=new, tags=fresh_tags, sent=self._told)
            self._rows |= set(map(str, rows))
            self._params |= new
            self._tags |= fresh_tags
        self._send_files(last)
        if last and (self.run / "model.keras").exists() and self._status != "FINISHED":
            self._server.end(self.id, "FINISHED")
            self._status = "FINISHED"
        return len({step for step, *_ in rows})

    def missing(self) -> int:
        """Return the number of values of `history.csv` that the server does not have."""
        have: dict[str, Mapping[int, float]] = {}
        lacking = 0
        for step, name, value in self._history():
            if name not in have:
                have[name] = self._server.history(self.id, name)
            there = have[name].get(step)
            lacking += there is None or not (there == value or (there != there and value != value))
        return lacking

    def _settings(self):
        """Return the run's settings as parameters, and its tags: the code and the versions of its data."""
        config = _read_json(self.run / "config.json") or {}
        lineage = _read_json(self.run / "lineage.json") or {}
        settings = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
        tags = {"imagesr.code": lineage.get("code")}
        for number, source in enumerate(lineage.get("data", [])):
            tags[f"imagesr.data.{number}"] = source.get("version") or source.get("sha256")
        if lineage.get("parent"):
            tags["imagesr.parent"] = lineage["parent"]["sha256"]
        return settings, {key: value for key, value in tags.items() if value}

    def _history(self) -> Iterator[tuple[int, str, float]]:
        """Yield (step, name, value) of all figures that stay: rows after the last checkpoint may be cut off yet."""
        checkpoints = [file.name.split(".")[0] for file in self.run.glob("checkpoints/*.weights.h5")]
        done = max((int(step) for step in checkpoints if step.isdecimal()), default=0)
        for row in _rows(self.run / "history.csv"):
            step = int(row.pop("step"))
            if step <= done:
                yield from ((step, name, float(value)) for name, value in row.items())
        for file, prefix in (("start.json", "start"), ("benchmark.json", "final")):
            for name, value in (_read_json(self.run / file) or {}).items():
                yield done if prefix == "final" else 0, f"{prefix}.{name}", float(value)

    def _send_files(self, last):
        have = json.loads(self._tags.get(_SENT, "{}"))
        patterns = _FILES + _LAST_FILES * last
        sent = False
        for file in sorted(file for pattern in patterns for file in self.run.glob(pattern)):
            name = file.relative_to(self.run).as_posix()
            digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
            if have.get(name) != digest:
                self._server.upload(self.id, file, name.rpartition("/")[0])
                have[name], sent = digest, True
                self._told()
        if sent:
            self._tags[_SENT] = json.dumps(have)
            self._server.log(self.id, tags={_SENT: self._tags[_SENT]}, sent=self._told)


def _rows(file):
    """Return the whole rows of a history that is being written."""
    try:
        text = file.read_text("utf-8")
    except OSError:
        return []
    rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    return [row for row in rows if None not in row and None not in row.values() and "step" in row]


def _read_json(file):
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
