"""Train anew where the data has changed, and promote what is better: `imagesr retrain --if-changed CONFIG`."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imagesr.cli import SOME_FAILED, Parser, install_hint, run_command
from imagesr.errors import InputError, OutputError, TrainingError, cause
from imagesr.textfile import record, recorded

DESCRIPTION = """\
Train on the newest version of the data, and promote the run if it is better than the champion. Each version of the data
is trained on once with each config. An interrupted run goes on where it was. Where IMAGESR_FEEDBACK names the database
of a service, its users are asked first, as imagesr feedback signal does: a new signal tries a failed run again."""
EXAMPLES = """
  imagesr retrain --if-changed retrain.toml
"""
EPILOG = """\
Exit codes: 0 promoted, or nothing to do with --if-changed; 1 refused, nothing to do, or failed before without --retry;
2 a wrong config, or a missing package; 3 unreadable data; 4 the store, the registry or the disk has failed, and the
next call goes on."""
STEPS = ("claim", "fetch", "train", "export", "promote", "record")
PACKAGES = ("keras", "mlflow")  # that a run needs; a store in the cloud asks for obstore itself
_TEXT, _NAMES = "a text", "a list of texts"
_TYPES = {
    "name": _TEXT,
    "store": _TEXT,
    "runs": _TEXT,
    "registry": _TEXT,
    "limits": _TEXT,
    "pictures": _NAMES,
    "calibrate": "true or false",
    "train": "a table",
}


@dataclass(frozen=True)
class Plan:
    """Hold a config: where the data, runs and models are, and the settings of the training."""

    name: str
    store: str
    train: Mapping[str, Any]
    pictures: tuple[str, ...] = ("b100",)
    runs: str = "runs"
    registry: str | None = None
    calibrate: bool = True
    limits: str | None = None
    folder: Path = field(default=Path(), compare=False)

    @classmethod
    def read(cls, file: Path) -> Plan:
        """Read a config in TOML; relative paths are those beside it. Raises ValueError, for wrong limits, too."""
        from imagesr.mlops.gate import Limits

        try:
            given = tomllib.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"Expected a config in TOML. Received: {file} ({cause(error)})") from None
        known = {"name", "store", "train", "pictures", "runs", "registry", "calibrate", "limits"}
        if odd := sorted((given.keys() - known) | ({"name", "store", "train"} - given.keys())):
            what = "name, store and train" if odd[0] not in given else f"keys ({', '.join(sorted(known))})"
            raise ValueError(f"Expected {what} in {file}. Received: {odd[0]}")
        for key, value in given.items():
            _check(key, value, _TYPES[key], file)
        train = given["train"]
        if not train.get("data") or not train.get("val"):
            raise ValueError(f"Expected data and val under [train] in {file}, as data = ['div2k']. Received: none")
        for key in ("data", "val"):
            _check(f"{key} under [train]", train[key], _NAMES, file)
        pictures = tuple(given.get("pictures", cls.pictures))
        plan = cls(**given | {"pictures": pictures}, folder=file.absolute().parent)
        if plan.limits:
            Limits.read(plan.place(plan.limits))
        return plan

    def place(self, path: str) -> Path:
        """Return a path as the config means it."""
        return self.folder / path

    @property
    def address(self) -> str:
        """Return the address of the store."""
        return self.store if "://" in self.store else str(self.place(self.store))

    def key(self, version: str) -> str:
        """Return the name of the run on a version of the data: the same for the same data and settings."""
        limits = self.place(self.limits).read_text("utf-8") if self.limits else None
        settings = [self.name, dict(self.train), list(self.pictures), self.calibrate, limits]
        return hashlib.sha256(json.dumps([version, settings], sort_keys=True).encode()).hexdigest()


def _check(key, value, expected, file):
    """Raise ValueError for a value of the wrong type."""
    fits = {
        _TEXT: isinstance(value, str) and bool(value),
        _NAMES: isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value),
        "true or false": isinstance(value, bool),
        "a table": isinstance(value, dict),
    }
    if not fits[expected]:
        raise ValueError(f"Expected {expected} for {key} in {file}. Received: {value!r}")


def check_packages() -> None:
    """Raise ModuleNotFoundError for a package that a run will need: before it is claimed."""
    for package in PACKAGES:
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def retrain(plan: Plan, *, retry: bool = False) -> tuple[str, dict[str, Any]]:
    """Do what is left of the run on the newest version of the data; return its state and what came of it.

    The state is "promoted", "refused", "failed", or "running" where another process does it. What had ended is not done
    again, but a failed run with `retry`. Raises ValueError, InputError or TrainingError for a run that has failed, and
    OutputError for a store, registry or disk that has, ModuleNotFoundError for a missing package: the run goes on with
    the next call then.
    """
    from imagesr.mlops.claims import claim
    from imagesr.store import open_store, without_secrets
    from imagesr.store.versions import current

    check_packages()
    store = open_store(plan.address)
    version = current(store)
    if version is None:
        raise InputError(
            "Expected data in the store, which imagesr datasets load makes. "
            f"Received: {without_secrets(plan.store)}, empty"
        )
    key = plan.key(version)
    ours, record = claim(store, f"retrain/{key}.json", again=lambda old: retry and old["state"] == "failed")
    if ours is None:
        return record["state"], record["result"] | {"new": False}
    run = plan.place(plan.runs) / key[:16]
    _tell(f"{STEPS[0]}: run {run.name} on version {version[:12]}")
    try:
        data = _fetch(plan, version, ours)
        result = _steps(plan, version, run, ours, data)
    except (ValueError, InputError, TrainingError) as error:
        ours.end("failed", {"error": str(error), "run": run.name})
        raise
    except BaseException:  # the store, the registry, the disk or the installation, or a signal: the next call goes on
        ours.release()
        raise
    state = "promoted" if result["promoted"] else "refused"
    ours.end(state, result)
    _tell(f"{STEPS[5]}: {state}")
    return state, result | {"new": True}


def _fetch(plan, version, ours):
    """Return the folder with the data; what fails here fails in the store or the cache, and the run is not to blame."""
    from imagesr.store.versions import fetch

    ours.check(STEPS[1])
    try:
        data = fetch(f"{plan.address}#{version}")
    except InputError as error:
        raise OutputError(str(error)) from None
    _tell(f"{STEPS[1]}: {data}")
    return data


def _steps(plan, version, run, ours, data):
    """Train, export and promote; each finds what it has done before."""
    from imagesr.media.images import find_images
    from imagesr.mlops.promote import exported, picture_sets, promote, tell
    from imagesr.tracking import address

    # What the last steps need is looked for before the training, which may take days.
    config = _config(plan, data)
    pictures = picture_sets([f"{name}={data}" for name in plan.pictures], config.scale)
    calibrate = [data / "div2k/train"] if plan.calibrate else []
    find_images(calibrate)
    ours.check(STEPS[2])
    run.parent.mkdir(parents=True, exist_ok=True)
    registry = address(plan.registry, plan.place(plan.runs))
    if not (run / "benchmark.json").exists():
        _train(config, run, registry)
    _tell(f"{STEPS[2]}: {run}")
    ours.check(STEPS[3])
    card = exported(run, plan.name, calibrate)
    _tell(f"{STEPS[3]}: {card.folder}")
    ours.check(STEPS[4])
    number, passed, file = promote(
        run,
        plan.name,
        registry,
        pictures=pictures,
        calibrate=calibrate,
        limits=plan.place(plan.limits) if plan.limits else None,
    )
    tell(number, passed, file)
    ours.check(STEPS[5])
    return {"run": run.name, "model": card.folder.name, "version": number, "promoted": passed, "data": version}


def _config(plan, data):
    """Return the config of the run: that of the plan, its data sets in the folder of the version."""
    from imagesr.train.config import Config

    def placed(names):
        return tuple(f"{name}={data}@{weight}" if weight else f"{name}={data}" for name, weight in map(_parted, names))

    given = dict(plan.train)
    return Config(**given | {key: placed(given[key]) for key in ("data", "val")})


def _parted(text):
    name, _, weight = text.partition("@")
    return name, weight


def _train(config, run, registry):
    from imagesr.models import import_keras

    import_keras()
    from imagesr.train.training import train

    if (run / "config.json").exists():  # whose precision was decided then
        config = config.changed(precision=type(config).read(run / "config.json").precision)
    train(config, run, track=registry)


def _tell(text):
    print(text, flush=True)


def _parser():
    parser = Parser(
        prog="imagesr retrain",
        usage="imagesr retrain [--if-changed] CONFIG",
        description=DESCRIPTION,
        examples=EXAMPLES,
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG", help="a TOML file: name, store, runs, registry, pictures, [train]")
    add("--if-changed", action="store_true", help="exit with 0 where there is nothing to do")
    add("--retry", action="store_true", help="try a run again that has failed")
    return parser


def _asked() -> tuple[bool, bool]:
    """Ask for the signal of feedback; return whether it stands, and whether it is new.

    A database that does not answer costs a line on standard error, and not the retraining.
    """
    from imagesr.serve.feedback_command import VARIABLE, ask

    if not (url := os.environ.get(VARIABLE)):
        return False, False
    try:
        reason, new = ask(url)
    except (OutputError, ValueError, ModuleNotFoundError) as error:
        told = install_hint(error) if isinstance(error, ModuleNotFoundError) else error
        print(f"imagesr retrain: {told}; it goes on without the users' votes", file=sys.stderr)
        return False, False
    if reason:
        _tell(f"feedback: asks for retraining, as {reason}")
    return bool(reason), new


def _retrain(options):
    plan = Plan.read(options.config)
    standing, new = _asked()
    with recorded("retrain"):
        state, result = retrain(plan, retry=options.retry or new)
    if result.get("new"):
        record("retrain", {"run_timestamp_seconds": time.time()}, state=state)
    what = {
        "promoted": f"version {result.get('version')} of {result.get('model')} was promoted",
        "refused": f"version {result.get('version')} of {result.get('model')} was refused",
        "failed": f"it has failed: {result.get('error')}; --retry tries again",
        "running": "another process is at it",
    }[state]
    if result.get("new"):
        print(what)
        return 0 if state == "promoted" else SOME_FAILED
    print(f"nothing to do for this data and config: {what}")
    if standing and state != "running":
        print("feedback: the signal needs other data or another config")
    return 0 if options.if_changed and state != "failed" else SOME_FAILED


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return run_command("retrain", _retrain, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
