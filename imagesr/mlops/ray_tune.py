"""The search on a Ray cluster: the trials of `tune` under Ray Tune, where ASHA ends the poor ones early."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import ray
from ray import tune as space
from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.schedulers import ASHAScheduler

from imagesr.errors import TrainingError
from imagesr.mlops.ray import connected
from imagesr.mlops.tune import REDUCTION, RETRIES, Search, is_whole, measured
from imagesr.models import import_keras

_WORST = -1e9  # dB, of a trial whose training has failed: NaN would stop ASHA


def tune_on(address: str, search: Search, runs: Path, *, trials: int) -> tuple[float, dict[str, Any]]:
    """Train `trials` trials on a Ray cluster; return the best PSNR-Y and its config.

    A trial whose worker or machine was killed is repeated, from its last checkpoint where the runs are on a shared
    folder. Raises OutputError for a cluster that does not answer, ValueError for settings that no run can have, and
    TrainingError where every trial has failed.
    """
    # Wrong settings are told before a cluster is asked.
    config = _config(search, {name: _first(values) for name, values in search.space.items()})
    with connected(address):
        results = _fit(search, runs.absolute(), trials, _epochs(config))
    ended = [result for result in results if result.metrics and result.metrics.get("ended")]
    if not ended:
        raise TrainingError("Expected a trial that ends. Received: none; try a lower learning_rate")
    best = max(ended, key=lambda result: result.metrics["psnr_y"])
    return best.metrics["psnr_y"], _config(search, best.config).model_dump(mode="json")


def _fit(search, runs, trials, epochs):
    runs.mkdir(parents=True, exist_ok=True)
    each = {"cpu": 1, "gpu": 1} if ray.cluster_resources().get("GPU") else {"cpu": 1}
    # The last report, of the network that is kept, is one after that of the last epoch.
    asha = ASHAScheduler(time_attr="epoch", max_t=epochs + 1, reduction_factor=REDUCTION)
    tuner = Tuner(
        space.with_resources(partial(_trial, search, runs, Path.cwd(), epochs), each),
        param_space={name: _distribution(values) for name, values in search.space.items()},
        tune_config=TuneConfig(num_samples=trials, metric="psnr_y", mode="max", scheduler=asha),
        run_config=RunConfig(
            name="ray", storage_path=str(runs), verbose=0, failure_config=FailureConfig(max_failures=RETRIES)
        ),
    )
    return tuner.fit()


def _trial(search, runs, folder, epochs, chosen):
    """Train one trial, in a process of the cluster; relative paths are those of the command's folder."""
    os.chdir(folder)
    import_keras()

    def report(psnr_y: float, epoch: int, **more) -> None:
        space.report({"psnr_y": psnr_y, "epoch": epoch, **more})

    run = runs / f"trial-{space.get_context().get_trial_id()}"  # a trial that is repeated finds its checkpoint
    try:
        report(measured(_config(search, chosen), run, report), epochs + 1, ended=True)
    except TrainingError:  # by its settings: it would fail again
        report(_WORST, epochs + 1)


def _config(search, chosen):
    from imagesr.train.config import Config

    return Config(**search.settings(lambda name, _: chosen[name]))


def _epochs(config):
    from imagesr.train.loop import EPOCH

    return -(-config.steps // EPOCH)


def _first(values):
    return values[0] if isinstance(values, list) else values["low"]


def _distribution(values) -> Callable:
    """Return what Ray draws from: a list of values, or a range, of whole numbers too."""
    if isinstance(values, list):
        return space.choice(values)
    low, high, log = values["low"], values["high"], values.get("log", False)
    if is_whole(values):  # Ray leaves out the upper bound of those
        return (space.lograndint if log else space.randint)(low, high + 1)
    return (space.loguniform if log else space.uniform)(low, high)
