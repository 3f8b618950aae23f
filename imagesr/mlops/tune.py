"""Search for a config: `imagesr tune SEARCH --out best.json`, by Optuna or Ray Tune, on any number of machines."""

from __future__ import annotations

import json
import os
import sys
import tomllib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagesr.cli import Parser, run_command
from imagesr.errors import OutputError, TrainingError, cause
from imagesr.files import write_whole
from imagesr.store import without_secrets

if TYPE_CHECKING:
    import optuna

    from imagesr.train.config import Config

DESCRIPTION = "Search for the config of a training that measures best. Poor trials end early (successive halving)."
EXAMPLES = """
  imagesr tune search.toml --trials 20 --out best.json
  imagesr tune search.toml --trials 200 --storage postgresql+psycopg2://host/optuna --out best.json
  imagesr tune search.toml --trials 200 --ray head:6379 --out best.json
  imagesr train --config best.json --out runs/best
"""
EPILOG = """\
SEARCH is a TOML file: the settings of a run's config.json under [train], and under [search] what is searched for: a
list of values, or { low = 1e-4, high = 1e-3, log = true }. architecture.filters is an option of the network. The same
command on several machines shares one study where --storage is the address of a database; --trials counts all trials.
An address with a password belongs in OPTUNA_STORAGE, where other users do not see it. With --ray the trials run on
the machines of a Ray cluster, which all have imagesr, and the data and --runs under the same paths."""
STORAGE = "OPTUNA_STORAGE"
_BEAT, _GRACE = 15, 90  # seconds between signs of life, and without one until a trial is repeated
_FAILED = "error"  # the attribute of a trial whose training has failed
REDUCTION = 3  # of the trials of a rung, one in three goes on
RETRIES = 3  # of a trial whose worker was killed


@dataclass(frozen=True)
class Search:
    """Hold the settings of every trial, and the values or ranges of those that are searched for."""

    train: Mapping[str, Any]
    space: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path) -> Search:
        """Read a search; raises ValueError for a file that is none."""
        try:
            given = tomllib.loads(file.read_text("utf-8"))
            search = cls(given["train"], given["search"])
            if not (isinstance(search.train, dict) and isinstance(search.space, dict)):
                raise ValueError("no tables")
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"Expected a search with [train] and [search]. Received: {file} ({cause(error)})"
            ) from None
        for name, values in search.space.items():
            if not (isinstance(values, list) and values) and not (isinstance(values, dict) and _is_range(values)):
                expected = "a list of values, or low and high, with log"
                raise ValueError(f"Expected {expected} for {name} in {file}. Received: {values}")
        return search

    def settings(self, choose: Callable[[str, Any], Any]) -> dict[str, Any]:
        """Return the settings of one trial; `choose` returns a value for a name and its values or range."""
        settings = {key: dict(value) if isinstance(value, dict) else value for key, value in self.train.items()}
        for name, values in self.space.items():
            value = choose(name, values)
            group, dot, key = name.partition(".")
            if dot:
                settings.setdefault(group, {})[key] = value
            else:
                settings[name] = value
        return settings


def placed(search: Search) -> Search:
    """Return a search whose data sets are folders: those in stores are fetched, once for all trials.

    Raises InputError for missing or damaged data, and for a store that does not answer.
    """
    from imagesr.datasets.remote import fetched

    train = dict(search.train)
    for key in ("data", "val"):
        if isinstance(names := train.get(key), list):
            train[key] = [fetched(name) if isinstance(name, str) else name for name in names]
    return replace(search, train=train)


def is_whole(values: Mapping[str, Any]) -> bool:
    """Tell whether a range is one of whole numbers."""
    return isinstance(values["low"], int) and isinstance(values["high"], int)


def _is_range(values):
    known = {"low", "high", "log"}
    if not {"low", "high"} <= values.keys() <= known:
        return False
    numbers = all(isinstance(values[key], int | float) for key in ("low", "high"))
    return numbers and isinstance(values.get("log", False), bool) and values["low"] < values["high"]


def _suggested(trial, name, values):
    if isinstance(values, list):
        return trial.suggest_categorical(name, values)
    suggest = trial.suggest_int if is_whole(values) else trial.suggest_float
    return suggest(name, values["low"], values["high"], log=values.get("log", False))


def tune(search: Search, runs: Path, storage: str, *, trials: int, name: str = "imagesr") -> tuple[float, dict]:
    """Train until the study has `trials` ended trials, failed ones included; return the best PSNR-Y and its config.

    A trial whose worker was killed is repeated by whoever looks next. Raises OutputError for a storage that does not
    answer, ValueError for settings that no run can have, and TrainingError where every trial has failed.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings are tracebacks of trials that fail
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # signs of life are called experimental
        try:
            repeated = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
            kept = optuna.storages.RDBStorage(
                storage, heartbeat_interval=_BEAT, grace_period=_GRACE, heartbeat_stale_trial_callback=repeated
            )
            pruner = optuna.pruners.SuccessiveHalvingPruner(reduction_factor=REDUCTION)
            how = {"storage": kept, "pruner": pruner, "direction": "maximize", "load_if_exists": True}
            study = optuna.create_study(study_name=name, **how)
        except Exception as error:  # what the drivers of databases raise
            if isinstance(error, ImportError):
                raise
            received = f"{type(error).__name__} at {without_secrets(storage)}"
            raise OutputError(f"Expected a database for the study. Received: {received}") from None

        def stop_at_enough(study, trial):
            if ended(study) >= trials:
                study.stop()

        if ended(study) < trials:
            study.optimize(partial(_objective, search, runs), callbacks=[stop_at_enough], catch=(TrainingError,))
        done = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        if not done:
            raise TrainingError("Expected a trial that ends. Received: none; try a lower learning_rate")
        return study.best_value, study.best_trial.user_attrs["config"]


def ended(study: optuna.Study) -> int:
    """Count the trials that came to an end: measured, left behind, or failed; not those whose worker was killed."""
    trials = study.get_trials(deepcopy=False)
    return sum(trial.state.name in ("COMPLETE", "PRUNED") or _FAILED in trial.user_attrs for trial in trials)


def _objective(search, runs, trial):
    import optuna

    from imagesr.train.config import Config

    def report(psnr_y, epoch):
        trial.report(psnr_y, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    config = Config(**search.settings(partial(_suggested, trial)))
    trial.set_user_attr("config", config.model_dump(mode="json"))
    try:
        return measured(config, runs / f"trial-{trial.number:04}-{os.getpid()}", report)
    except TrainingError as error:
        trial.set_user_attr(_FAILED, str(error))  # a killed trial has the same state, and is repeated
        print(f"imagesr tune: trial {trial.number} has failed: {error}", file=sys.stderr)
        raise


def measured(config: Config, run: Path, report: Callable[[float, int], None]) -> float:
    """Train as a config says, and return PSNR-Y at the end, in dB.

    `report` gets PSNR-Y and the number of every epoch; what it raises ends the training. Raises TrainingError.
    """
    import keras

    from imagesr.train.training import train

    class Report(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            report(logs["psnr_y"], epoch + 1)

    keras.utils.clear_session()
    train(config, run, callbacks=[Report()])
    return json.loads((run / "benchmark.json").read_text("utf-8"))["psnr_y"]


def _parser():
    parser = Parser(
        prog="imagesr tune",
        usage="imagesr tune SEARCH [options]",
        description=DESCRIPTION,
        examples=EXAMPLES,
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("search", type=Path, metavar="SEARCH", help="a TOML file with [train] and [search]")
    add("--trials", type=int, default=20, metavar="N", help="trials of all machines together (default: 20)")
    add("--storage", metavar="URL", help=f"a database (default: {STORAGE}, or an SQLite file in --runs)")
    text = "run the trials on a Ray cluster, by ASHA: its address, auto, or local for this machine"
    add("--ray", metavar="ADDRESS", help=text)
    add("--runs", type=Path, default=Path("runs/tune"), metavar="DIR", help="folder for the runs (default: runs/tune)")
    add("--out", type=Path, default=Path("best.json"), metavar="FILE", help="the best config (default: best.json)")
    return parser


def _tune(options):
    if options.trials < 1:
        raise ValueError(f"Expected at least 1 trial. Received: {options.trials}")
    if options.ray and options.storage:
        raise ValueError("Expected --storage or --ray, since Ray keeps its trials by itself. Received: both")
    search = placed(Search.read(options.search))
    best, config = (_by_ray if options.ray else _by_optuna)(search, options)
    write_whole(options.out, json.dumps(config, indent=1) + "\n")
    print(f"{options.out}: PSNR-Y {best:.3f} dB")
    return 0


def _by_optuna(search, options):
    import optuna  # noqa: F401 - a missing package is reported before Keras is imported

    from imagesr.models import import_keras

    import_keras()
    options.runs.mkdir(parents=True, exist_ok=True)
    storage = options.storage or os.environ.get(STORAGE) or f"sqlite:///{(options.runs / 'tune.db').absolute()}"
    return tune(search, options.runs, storage, trials=options.trials)


def _by_ray(search, options):
    from imagesr.mlops.ray_tune import tune_on

    return tune_on(options.ray, search, options.runs, trials=options.trials)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("tune", _tune, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
