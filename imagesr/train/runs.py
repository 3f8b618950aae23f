"""Run folders: their checkpoints, the rows of `history.csv`, and their network for export and evaluation."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagesr.engines import import_engine
from imagesr.errors import ModelError, cause
from imagesr.files import write_whole

if TYPE_CHECKING:
    import keras


def read_run(run: Path) -> tuple[keras.Model, dict[str, Any]]:
    """Return the network of a run folder or a `.keras` file, and its settings as the card of a model shows them.

    A folder of `fit` or `RunFolder` has a network and no settings. Raises ModelError for anything else.
    """
    if not (run / "config.json").exists() and (run / "model.keras").exists():
        run /= "model.keras"
    if not run.is_dir():
        from imagesr.models.cost import model_scale

        model = import_engine("keras").read_network(run)
        return model, {"scale": str(model_scale(model))}
    try:
        config = _public(json.loads((run / "config.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"Expected a run of imagesr train, or a .keras file. Received: {run} ({cause(error)})"
        ) from None
    if config.get("depth") or config.get("depth_model"):
        print(f"NOTE: exported models take no depth: {run} becomes what it is where depth is missing", flush=True)
    return import_engine("keras").read_network(run / "model.keras"), config


def _public(config):
    """Return settings without this machine's paths: a card names the data, not the folder that held it."""
    config |= {key: [_without_place(source) for source in config[key]] for key in ("data", "val")}
    if config.get("perceptual"):
        config["perceptual"] = config["perceptual"].partition("=")[0]
    for key in ("init", "depth_model", "features"):
        if config.get(key):
            config[key] = _end(config[key]).as_posix()
    if config.get("depth"):
        config["depth"] = [_end(place).as_posix() for place in config["depth"]]
    return config


def _without_place(text):
    from imagesr.datasets import DataSource

    source = DataSource.parse(text)
    return str(source._replace(place=_end(source.place)))


def _end(path):
    return Path(*Path(path).absolute().parts[1:][-2:])


def last_checkpoint(run: Path) -> tuple[int, Path] | None:
    """Return the number of steps done and the file of the newest checkpoint; None where there is none."""
    files = sorted(f for f in (run / "checkpoints").glob("*.h5") if re.fullmatch(r"\d+\.weights\.h5", f.name))
    return (int(files[-1].name.split(".")[0]), files[-1]) if files else None


class _Memory(io.BytesIO):
    """A file in memory, with a name that Keras accepts."""

    def __str__(self):
        return "memory.weights.h5"


def save_weights(model: keras.Model, file: Path) -> None:
    """Write a model's weights and its optimizer's, whole or not at all; raises OSError.

    They are put together in memory: the HDF5 library, writing to a full disk itself, crashes the process.
    """
    memory = _Memory()
    model.save_weights(memory)
    write_whole(file, memory.getbuffer())


def read_rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a history, none where there is no file."""
    return list(csv.DictReader(io.StringIO(file.read_text("utf-8")))) if file.exists() else []


def write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a history, whole or not at all; the first row's keys are the columns."""
    rows, text = list(rows), io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write_whole(file, text.getvalue())


def add_row(file: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a history whose columns may be others; cells that a row does not have become `nan`."""
    rows = read_rows(file)
    if not rows or list(rows[0]) == list(row):
        append_row(file, row)
        return
    empty = dict.fromkeys([*rows[0], *row], "nan")
    write_rows(file, [empty | row for row in (*rows, row)])


def append_row(file: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a history, fsynced; a new file gets a header."""
    new = not file.exists()
    with file.open("a", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
        out.flush()
        os.fsync(out.fileno())


def keep_rows(file: Path, steps: int) -> None:
    """Cut a history back to the first `steps`, those of the checkpoint that training goes on from."""
    if not file.exists():
        return
    header, *rows = file.read_text("utf-8").splitlines() or [""]
    if not header.startswith("step,") or not steps:  # torn, or of steps that are lost
        file.unlink()
        return
    kept = [row for row in rows if row.count(",") == header.count(",") and int(row.split(",")[0]) <= steps]
    write_whole(file, "\n".join([header, *kept]) + "\n")
