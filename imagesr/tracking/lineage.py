"""Where a model comes from: the files it was trained on, the code, the config and the run before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from imagesr.errors import InputError
from imagesr.files import write_whole
from imagesr.store.versions import MANIFEST, code_version

FILE = "lineage.json"
_OF_A_RUN = ("model.keras", "training.weights.h5")  # what the next run may have started from


def write_lineage(run: Path, data: Mapping[str, Sequence[Path]], init: Path | None) -> dict[str, Any]:
    """Write the lineage of a run that begins: `data` has the pictures of every data source, `init` the run before.

    Pictures that are not files are left out. The config is `config.json` in the run. A run that is resumed with other
    code, data or config keeps what it had before, under `earlier`.
    """
    sources = []
    for source, files in data.items():
        found = _hashes(files)
        lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(found.items()))
        entry = {"source": source, "version": _version(files), "sha256": hashlib.sha256(lines.encode()).hexdigest()}
        sources.append(entry | {"files": found})
    parent = _parent(init) if init else None
    record = {"code": code_version(), "config": _digest(run / "config.json"), "data": sources, "parent": parent}
    if (run / FILE).is_file():
        before = read_lineage(run)
        earlier = before.pop("earlier", [])
        if before == record:
            return read_lineage(run)
        record["earlier"] = [*earlier, before]
    write_whole(run / FILE, json.dumps(record, indent=1) + "\n")
    return record


def _hashes(files: Iterable[Path]):
    paths = sorted({str(file.absolute()) for file in files if isinstance(file, Path)})
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(paths, pool.map(lambda path: _digest(Path(path)), paths), strict=True))


def _digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(files):
    """Return the version of the data that the files are of, None where they are of none."""
    first = next((file.absolute() for file in files if isinstance(file, Path)), None)
    for folder in first.parents if first else ():
        if (folder / MANIFEST).is_file():
            version = _digest(folder / MANIFEST)
            return version if folder.name == version else None
    return None


def _parent(init):
    """Return what is known of the run, or of the file of weights, that a run starts from."""
    file = next((init / name for name in _OF_A_RUN if (init / name).is_file()), init)
    if not file.is_file():
        return None
    record = {"place": str(init.absolute()), "file": str(file.absolute()), "sha256": _digest(file)}
    if (init / FILE).is_file():
        record["lineage"] = read_lineage(init)
    return record


def read_lineage(folder: Path) -> dict[str, Any]:
    """Return the lineage in a run, or in a model's folder; raises InputError where there is none."""
    try:
        record = json.loads((folder / FILE).read_text("utf-8"))
        return {key: record[key] for key in ("code", "config", "data", "parent")} | record
    except (OSError, ValueError, KeyError, TypeError):
        what = f"Expected a run of imagesr train --track, or a model of imagesr promote. Received: {folder}"
        raise InputError(f"{what}, without {FILE}") from None


def stages(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a lineage, what it was before the run was resumed, and those of the runs before."""
    yield record
    for one in record.get("earlier", []):
        yield from stages(one)
    if record["parent"] and "lineage" in record["parent"]:
        yield from stages(record["parent"]["lineage"])


def changes(record: Mapping[str, Any], folder: Path | None = None) -> list[str]:
    """Name every file of a lineage that is missing or has changed since, the parents' too.

    `folder` is that of the run, whose config is then compared as well.
    """
    found = []
    if folder and (folder / "config.json").is_file() and _digest(folder / "config.json") != record["config"]:
        found.append(f"{folder / 'config.json'}, which has changed")
    with ThreadPoolExecutor(8) as pool:
        found += filter(None, pool.map(_change, _files(record)))
    return found


def _files(record) -> Iterator[tuple[str, str]]:
    found = {}  # by path and digest, in order: stages share most of their files
    for stage in stages(record):
        for source in stage["data"]:
            found |= dict.fromkeys(source["files"].items())
        if stage["parent"]:
            found[stage["parent"]["file"], stage["parent"]["sha256"]] = None
    yield from found


def _change(entry):
    path, digest = entry
    try:
        return None if _digest(Path(path)) == digest else f"{path}, which has changed"
    except FileNotFoundError:
        return f"{path}, which is missing"
    except OSError as error:
        return f"{path} ({error.strerror})"


def describe(record: Mapping[str, Any], *, indent: str = "") -> Iterator[str]:
    """Yield the lines that tell a lineage."""
    yield f"{indent}code {record['code']}, config {record['config'][:12]}"
    for source in record["data"]:
        version = f"version {source['version'][:12]}" if source["version"] else f"no version, {source['sha256'][:12]}"
        yield f"{indent}data {source['source']}: {len(source['files'])} files, {version}"
    if parent := record["parent"]:
        yield f"{indent}from {parent['place']}, {parent['sha256'][:12]}"
        if "lineage" in parent:
            yield from describe(parent["lineage"], indent=indent + "  ")
    for one in record.get("earlier", []):
        yield f"{indent}before it was resumed:"
        yield from describe(one, indent=indent + "  ")
