"""Searches: what a trial is made of, and a small study where Optuna is installed."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from cluster import Cluster
from conftest import picture
from PIL import Image
from running import until
from stack import Stack

from imagesr.errors import TrainingError
from imagesr.mlops.tune import Search, _suggested, ended, main, placed

SEARCH = """
[train]
data = ["folder={photos}"]
val = ["folder={photos}"]
scale = "2"
steps = 4
batch = 2
patch = 48
architecture = {{ filters = 4, blocks = 1 }}

[search]
learning_rate = {{ low = 1e-4, high = 1e-3, log = true }}
loss = ["mse", "mae"]
"architecture.filters" = {{ low = 2, high = 4 }}
"""


class First:
    """Suggest the first of everything, as a trial of Optuna."""

    def suggest_categorical(self, name, values):
        return values[0]

    def suggest_int(self, name, low, high, log):
        return int(low)

    def suggest_float(self, name, low, high, log):
        assert log
        return low


@pytest.fixture
def search(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(2):
        Image.fromarray(picture(120, 100, shift=90 * number)).save(tmp_path / "photos" / f"{number}.png")
    file = tmp_path / "search.toml"
    file.write_text(SEARCH.format(photos=tmp_path / "photos"))
    return file


def test_the_settings_of_a_trial(search):
    settings = Search.read(search).settings(partial(_suggested, First()))
    assert settings["architecture"] == {"filters": 2, "blocks": 1}
    assert (settings["learning_rate"], settings["loss"], settings["steps"]) == (1e-4, "mse", 4)
    assert Search.read(search).train["architecture"] == {"filters": 4, "blocks": 1}, "the search stays as it is"


def test_data_in_a_store_is_fetched_once(search, monkeypatch):
    text = search.read_text().replace("data = [", 'data = ["div2k=s3://bucket/data@0.5", ')
    search.write_text(text)
    asked = []
    monkeypatch.setattr("imagesr.datasets.remote.fetch", lambda url: asked.append(url) or "/cache/one")
    found = placed(Search.read(search))
    assert found.train["data"] == ["div2k=/cache/one@0.5", found.train["val"][0]]
    assert asked == ["s3://bucket/data"]
    assert found.space == Search.read(search).space


def test_without_optuna_it_says_what_to_install(search, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main([str(search)]) == 2
    assert capsys.readouterr().err.strip().endswith("[tune]'")


def test_without_ray_it_says_what_to_install(search, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "imagesr.mlops.ray_tune", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([str(search), "--ray", "local"]) == 2
    assert capsys.readouterr().err.strip().endswith("[ray]'")


def test_ray_keeps_its_trials_by_itself(search, capsys):
    assert main([str(search), "--ray", "local", "--storage", "sqlite:///x.db"]) == 2
    assert "Expected --storage or --ray" in capsys.readouterr().err


# The first trial kills its process; the functions of the script travel to the workers by value.
KILLED = """
import os, sys
from pathlib import Path
from imagesr.mlops import ray_tune, tune
real, mark = ray_tune._trial, Path(sys.argv.pop())
def trial(*arguments):
    import os
    from imagesr.mlops.ray_tune import _trial
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return _trial(*arguments)
    os.kill(os.getpid(), 9)
ray_tune._trial = trial
sys.exit(tune.main(sys.argv[1:]))
"""


@pytest.mark.stack
@pytest.mark.slow
def test_a_search_on_ray_repeats_a_killed_trial(search, tmp_path):
    pytest.importorskip("ray.tune", reason="needs Ray Tune (pip install 'imagesr[ray]')")
    runs, mark = tmp_path / "runs", tmp_path / "killed"
    options = [
        str(search),
        "--trials",
        "1",
        "--ray",
        "local",
        "--runs",
        str(runs),
        "--out",
        str(tmp_path / "best.json"),
    ]
    command = [sys.executable, "-c", KILLED, *options, str(mark)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert mark.exists(), "one was killed"
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["loss"] in ("mse", "mae") and 1e-4 <= best["learning_rate"] <= 1e-3 and best["steps"] == 4
    figures = [json.loads(file.read_text())["psnr_y"] for file in runs.glob("trial-*/benchmark.json")]
    assert len(figures) == 1 and f"PSNR-Y {figures[0]:.3f} dB" in done.stdout


# Every trial leaves a file, which names it, its machine and its process.
NAMED = """
import sys
from imagesr.mlops import ray_tune, tune
def trial(search, runs, *more):
    import os
    from ray.tune import get_context
    from imagesr.mlops.ray_tune import _trial
    (runs / f"{get_context().get_trial_id()}.{os.environ['IMAGESR_NODE']}.{os.getpid()}").touch()
    return _trial(search, runs, *more)
ray_tune._trial = trial
sys.exit(tune.main(sys.argv[1:]))
"""


@pytest.mark.stack
@pytest.mark.slow
def test_a_search_on_two_machines_goes_on_where_a_worker_was_killed(search, tmp_path):
    pytest.importorskip("ray.tune", reason="needs Ray Tune (pip install 'imagesr[ray]')")
    search.write_text(search.read_text().replace("steps = 4", "steps = 1000"))
    runs, best = tmp_path / "runs", tmp_path / "best.json"

    def under_way():
        """Return the names of a trial of the second machine, at its first checkpoint."""
        for file in runs.glob("*.node1.*"):
            if [*runs.glob(f"trial-{file.name.split('.')[0]}/checkpoints/*.weights.h5")]:
                return file.name.split(".")
        return None

    with Cluster(tmp_path, os.environ, cores=1) as cluster:
        cluster.add()
        cluster.add()
        options = [str(search), "--trials", "4", "--ray", cluster.address, "--runs", str(runs), "--out", str(best)]
        process = subprocess.Popen(
            [sys.executable, "-c", NAMED, *options],
            env=cluster.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            killed, _, worker = until(under_way, process, seconds=1200)
            os.kill(int(worker), signal.SIGKILL)
            said = process.communicate(timeout=1800)[0]
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert len([*runs.glob("trial-*")]) == 4, "a trial that is repeated is the same one"
    assert len([*runs.glob(f"{killed}.*")]) == 2, "it was repeated once"
    with (runs / f"trial-{killed}/history.csv").open() as file:
        steps = [row["step"] for row in csv.DictReader(file)]
    assert steps == ["500", "1000"][: len(steps)], "it went on from its checkpoint"
    figures = [json.loads(file.read_text())["psnr_y"] for file in runs.glob("trial-*/benchmark.json")]
    assert f"{best}: PSNR-Y {max(figures):.3f} dB" in said
    command = [sys.executable, "-m", "imagesr.train", "--config", str(best), "--steps", "4", "--out", "best"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    chosen, trained = (json.loads(file.read_text()) for file in (best, tmp_path / "best/config.json"))
    assert trained | {"steps": 1000, "precision": chosen["precision"]} == chosen


@pytest.mark.stack
def test_a_ray_cluster_that_there_is_not(search, capsys):
    pytest.importorskip("ray.tune", reason="needs Ray Tune (pip install 'imagesr[ray]')")
    assert main([str(search), "--ray", "127.0.0.1:1"]) == 4
    assert "Expected a Ray cluster that answers" in capsys.readouterr().err


class Study:
    """Hold trials, as Optuna does."""

    def __init__(self, *trials):
        self.trials = [SimpleNamespace(state=SimpleNamespace(name=state), user_attrs=attrs) for state, attrs in trials]

    def get_trials(self, deepcopy=True):
        return self.trials


def test_a_failed_trial_has_ended_and_a_killed_one_has_not():
    states = [("COMPLETE", {}), ("PRUNED", {}), ("FAIL", {"error": "NaN"}), ("FAIL", {"config": {}}), ("RUNNING", {})]
    assert ended(Study(*states)) == 3


@pytest.mark.filterwarnings("ignore")
def test_a_study_whose_trials_all_fail_ends(search, tmp_path, monkeypatch, capsys):
    optuna = pytest.importorskip("optuna", reason="needs Optuna (pip install 'imagesr[tune]')")
    import imagesr.train.training as training

    calls = []

    def fails(*_, **__):
        calls.append(1)
        assert len(calls) < 9, "it goes on for ever"
        raise TrainingError("Expected a loss. Received: nan")

    monkeypatch.setattr(training, "train", fails)
    runs = tmp_path / "runs"
    assert main([str(search), "--trials", "3", "--runs", str(runs), "--out", str(tmp_path / "best.json")]) == 4
    told = capsys.readouterr().err
    assert "Expected a trial that ends" in told and "Traceback" not in told
    assert re.findall(r"trial (\d) has failed: Expected a loss", told) == ["0", "1", "2"]
    study = optuna.load_study(study_name="imagesr", storage=f"sqlite:///{runs}/tune.db")
    assert [trial.state.name for trial in study.trials] == ["FAIL"] * 3


@pytest.mark.filterwarnings("ignore")
def test_a_study_goes_on_where_its_worker_was_killed(search, tmp_path):
    optuna = pytest.importorskip("optuna", reason="needs Optuna (pip install 'imagesr[tune]')")
    code = "import os, sys, imagesr.train.training as training, imagesr.mlops.tune as tune\n"
    code += "tune._BEAT, tune._GRACE = 1, 1\n"
    kill = "training.Run.draw = lambda *_: os.kill(os.getpid(), 9)\n"
    more = [str(search), "--trials", "2", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "best.json")]
    for first in (kill, "import time; time.sleep(3)\n"):
        command = [sys.executable, "-c", f"{code}{first}sys.exit(tune.main(sys.argv[1:]))", *more]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="imagesr", storage=f"sqlite:///{tmp_path}/runs/tune.db")
    states = [trial.state.name for trial in study.trials]
    assert states.count("FAIL") == 1 and len(states) == 3, "the killed one was repeated"
    assert study.trials[1].params == study.trials[0].params
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["loss"] in ("mse", "mae") and 1e-4 <= best["learning_rate"] <= 1e-3
    assert np.isfinite(study.best_value)


@pytest.mark.stack
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_machines_share_a_study_in_a_database(search, tmp_path):
    """A third one dies in its first trial; its settings are tried again by one of the two."""
    optuna = pytest.importorskip("optuna", reason="needs Optuna (pip install 'imagesr[tune]')")
    stack = Stack(tmp_path, tracking=False, store=False)
    try:
        address = stack.database_uri.replace("://test@", "+psycopg2://test:not-to-be-told@")
        code = "import os, sys, imagesr.train.training as training, imagesr.mlops.tune as tune\n"
        code += "tune._BEAT, tune._GRACE = 1, 5\n"
        kill = "training.Run.draw = lambda *_: os.kill(os.getpid(), 9)\n"

        def begin(more, out):
            options = [str(search), "--trials", "4", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / out)]
            command = [sys.executable, "-c", f"{code}{more}sys.exit(tune.main(sys.argv[1:]))", *options]
            env = os.environ | {"OPTUNA_STORAGE": address}
            return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

        assert begin(kill, "none.json").wait(600) == -signal.SIGKILL
        time.sleep(6)  # the signs of life are counted in seconds
        workers = [begin("", f"{number}.json") for number in range(2)]
        said = [worker.communicate(timeout=1200)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0], said
        study = optuna.load_study(study_name="imagesr", storage=address)
        trials, count = study.get_trials(), ended(study)
    finally:
        stack.end()
    assert not any("not-to-be-told" in text for text in said)
    killed = [trial for trial in trials if trial.state.name == "FAIL"]
    assert len(killed) == 1 and 4 <= count <= 5, "a trial of the other one may be under way at the end"
    assert sum(trial.params == killed[0].params for trial in trials) == 2, "the killed one was repeated"
    best = max(trial.value for trial in trials if trial.state.name == "COMPLETE")
    assert any(f"PSNR-Y {best:.3f} dB" in text for text in said)
    assert len({run.name.rpartition("-")[2] for run in (tmp_path / "runs").glob("trial-*")}) == 3, "all took part"
