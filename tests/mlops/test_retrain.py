"""Retraining: one run for a version of the data and a config, taken over where it was killed."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from imagesr import store
from imagesr.cli import install, install_hint
from imagesr.errors import InputError, OutputError, TrainingError
from imagesr.mlops import claims, retrain
from imagesr.mlops.claims import claim
from imagesr.mlops.retrain import Plan, main
from imagesr.serve.votes import Votes
from imagesr.store import versions
from imagesr.store.local import LocalStore
from imagesr.store.versions import Manifest, list_tree, publish

WHOLE = "name = 'x'\nstore = 's'\n[train]\ndata = ['a']\nval = ['b']\n"  # a config


def never(record):
    return False


@pytest.fixture
def plan(tmp_path):
    """Return the file of a plan whose store has a version of data."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.png").write_text("a")
    publish(tree, Manifest(list_tree(tree)), LocalStore(tmp_path / "store"))
    file = tmp_path / "retrain.toml"
    file.write_text('name = "mine"\nstore = "store"\n[train]\ndata = ["div2k"]\nval = ["b100"]\nsteps = 4\n')
    return file


@pytest.fixture
def steps(monkeypatch):
    """Replace the work by a list of what is called; an exception in it is raised, otherwise the result returned."""
    done = []
    monkeypatch.setattr(retrain, "PACKAGES", ())

    def steps(plan, version, run, ours, data):
        done.append(run.name)
        if isinstance(done[0], BaseException):
            raise done.pop(0)
        return {"run": run.name, "model": "mine_x2", "version": "1", "promoted": "refused" not in done}

    monkeypatch.setattr(retrain, "_steps", steps)
    return done


def test_a_run_is_made_once(plan, steps, capsys):
    assert main(["--if-changed", str(plan)]) == 0
    assert main(["--if-changed", str(plan)]) == 0
    assert main([str(plan)]) == 1
    assert len(steps) == 1
    assert "nothing to do for this data and config: version 1 of mine_x2 was promoted" in capsys.readouterr().out


def test_new_data_or_another_config_make_another_run(plan, steps, tmp_path):
    assert main(["--if-changed", str(plan)]) == 0
    plan.write_text(plan.read_text().replace("steps = 4", "steps = 5"))
    assert main(["--if-changed", str(plan)]) == 0
    (tmp_path / "tree/b.png").write_text("b")
    publish(tmp_path / "tree", Manifest(list_tree(tmp_path / "tree")), LocalStore(tmp_path / "store"))
    assert main(["--if-changed", str(plan)]) == 0
    assert len({*steps}) == len(steps) == 3


def test_a_refused_run_is_not_repeated(plan, steps):
    steps.append("refused")
    assert main(["--if-changed", str(plan)]) == 1
    assert main(["--if-changed", str(plan)]) == 0
    assert len(steps) == 2


def test_it_tells_prometheus_when_a_run_ended_and_when_one_failed(plan, steps, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGESR_METRICS", str(tmp_path))
    steps += ["refused"]
    assert main(["--if-changed", str(plan)]) == 1
    plan.write_text(plan.read_text().replace("steps = 4", "steps = 5"))
    steps[0] = TrainingError("no number")
    assert main(["--if-changed", str(plan)]) != 0
    names = [line.split(" ")[0] for line in (tmp_path / "imagesr_retrain.prom").read_text().splitlines()]
    expected = ["end_timestamp_seconds", "failure_timestamp_seconds", 'run_timestamp_seconds{state="refused"}']
    assert names == [f"imagesr_retrain_{name}" for name in expected]


def test_a_failed_run_is_repeated_on_request_alone(plan, steps, capsys):
    steps.append(TrainingError("a loss that is no number"))
    assert main(["--if-changed", str(plan)]) == 4
    assert main(["--if-changed", str(plan)]) == 1
    assert "it has failed: a loss that is no number; --retry tries again" in capsys.readouterr().out
    assert main(["--if-changed", "--retry", str(plan)]) == 0
    assert main(["--if-changed", "--retry", str(plan)]) == 0


@pytest.fixture
def votes(tmp_path, monkeypatch):
    """Return the database of feedback that retraining asks."""
    url = f"sqlite:///{tmp_path}/feedback.db"
    monkeypatch.setenv("IMAGESR_FEEDBACK", url)
    return Votes(url)


def cast(votes, number, up, model="mine_x2/1", at=1000.0):
    for index in range(number):
        votes.add(f"r{model}{at}{index}", model, up, "", at + index)


def test_votes_down_ask_for_it_once_and_a_newer_version_answers(plan, steps, votes, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IMAGESR_METRICS", str(tmp_path))
    figures = tmp_path / "imagesr_feedback.prom"
    steps.append(TrainingError("no number"))
    assert main(["--if-changed", str(plan)]) == 4
    assert main(["--if-changed", str(plan)]) == 1, "nobody asks for another try"
    assert "imagesr_feedback_signal 0\n" in figures.read_text() and "feedback:" not in capsys.readouterr().out
    cast(votes, 50, False)
    assert main(["--if-changed", str(plan)]) == 0
    said = capsys.readouterr().out
    assert "feedback: asks for retraining, as 0 of 50 votes on mine_x2/1 are up" in said and "was promoted" in said
    assert "imagesr_feedback_signal 1\n" in figures.read_text()
    assert main(["--if-changed", str(plan)]) == 0
    assert "feedback: the signal needs other data or another config" in capsys.readouterr().out
    assert len(steps) == 2
    cast(votes, 1, True, model="mine_x2/2", at=5000.0)
    assert main(["--if-changed", str(plan)]) == 0
    assert "feedback:" not in capsys.readouterr().out and "imagesr_feedback_signal 0\n" in figures.read_text()


def test_a_signal_that_stands_tries_a_failed_run_again_once(plan, steps, votes, capsys):
    cast(votes, 50, False)
    steps.append(TrainingError("no number"))
    assert main(["--if-changed", str(plan)]) == 4
    assert main(["--if-changed", str(plan)]) == 1
    assert len(steps) == 1
    assert "the signal needs other data" in capsys.readouterr().out


def test_without_its_database_retraining_goes_on(plan, steps, tmp_path, monkeypatch, capsys):
    for url, told in {
        f"sqlite:///{tmp_path}/none.db": "which is not there",
        f"sqlite:///{plan}": "Expected a database that takes feedback",
        "mysql://x": "Expected sqlite:///FILE or postgresql://…",
    }.items():
        monkeypatch.setenv("IMAGESR_FEEDBACK", url)
        assert main(["--if-changed", str(plan)]) == 0
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert told in line and line.endswith("it goes on without the users' votes")
    monkeypatch.setenv("IMAGESR_FEEDBACK", "postgresql://x")
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    assert main(["--if-changed", str(plan)]) == 0
    assert "pip install psycopg2-binary; it goes on" in capsys.readouterr().err
    assert len(steps) == 1


@pytest.mark.parametrize("error", [OutputError("no answer"), KeyboardInterrupt(), ModuleNotFoundError(name="x")])
def test_what_is_no_fault_of_the_run_is_tried_again(error, plan, steps):
    steps.append(error)
    assert main(["--if-changed", str(plan)]) in (2, 4, 130)
    assert main(["--if-changed", str(plan)]) == 0
    assert len(steps) == 2


def test_twenty_at_once_make_one_run(plan, monkeypatch):
    made, outcomes, everybody = [], [], threading.Barrier(20)
    ended = threading.Event()
    monkeypatch.setattr(retrain, "PACKAGES", ())

    def steps(plan, version, run, ours, data):
        made.append(run.name)
        ended.wait(600)
        return {"run": run.name, "model": "m", "version": "1", "promoted": True}

    monkeypatch.setattr(retrain, "_steps", steps)

    def one():
        everybody.wait()
        outcomes.append(retrain.retrain(Plan.read(plan))[0])
        if len(outcomes) == 19:
            ended.set()

    threads = [threading.Thread(target=one) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert sorted(outcomes) == ["promoted"] + ["running"] * 19


def test_a_killed_run_is_taken_over(plan, steps, tmp_path):
    code = "import os, sys; from imagesr.mlops import retrain; retrain.PACKAGES = (); "
    code += "retrain._steps = lambda *_: os._exit(9); retrain.main(sys.argv[1:])"
    assert subprocess.run([sys.executable, "-c", code, str(plan)], check=False).returncode == 9
    (entry,) = (tmp_path / "store/retrain").glob("*.json")
    assert json.loads(entry.read_text())["state"] == "running"
    assert main(["--if-changed", str(plan)]) == 0
    assert len(steps) == 1
    assert json.loads(entry.read_text())["state"] == "promoted"


ELSEWHERE = ["elsewhere", "boot", "pid:[1]", 1, ""]


@pytest.mark.parametrize("where", ["machine", "container"])
def test_of_another_machine_or_container_signs_of_life_tell(where, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 1000.0)  # nobody beats by the clock here
    store = LocalStore(tmp_path)
    # In a container of this machine, the number of this process is that of another one, or of none.
    place = ELSEWHERE if where == "machine" else [*claims._place()[:2], "pid:[1]", 1, ["0"]]
    with monkeypatch.context() as patch:
        patch.setattr(claims, "_place", lambda: place)
        theirs, _ = claim(store, "c", again=never)
    waits = []

    def beat(seconds):
        waits.append(seconds)
        if len(waits) == 8:
            theirs._write(beat=1)

    monkeypatch.setattr(claims, "_wait", beat)
    assert claim(store, "c", again=never)[0] is None, "it beats"
    assert waits == [500.0] * 8
    ours, _ = claim(store, "c", again=never)
    assert ours is not None and len(waits) == 16
    with pytest.raises(OutputError, match="Another process has taken it over"):
        theirs.check("train")
    ours.end("promoted", {})


def test_a_claim_of_this_process_is_alive(tmp_path):
    store = LocalStore(tmp_path)
    ours, _ = claim(store, "c", again=never)
    assert claim(store, "c", again=never)[0] is None
    ours.check("train")
    ours.end("refused", {"version": "1"})
    record = json.loads(store.get("c"))
    assert (record["state"], record["result"], record["step"]) == ("refused", {"version": "1"}, "train")
    assert record["place"][3] == os.getpid()
    numbering = Path("/proc/self/ns/pid")
    assert record["place"][2] == (str(numbering.readlink()) if numbering.is_symlink() else "")


class Cloud(LocalStore):
    """Fail to answer, as an object store whose network is away, from the call on that `fails` names."""

    fails = None

    def get(self, name):
        if self.fails and self.fails in name:
            Cloud.fails = None  # a short failure
            raise InputError("Expected a store that answers. Received: s3://x (no connection)")
        return super().get(name)


@pytest.mark.parametrize("name", ["manifest.json", "retrain/"])
def test_a_store_that_is_away_for_a_moment_fails_no_run(name, plan, steps, monkeypatch, capsys):
    for module in (store, versions):
        monkeypatch.setattr(module, "open_store", lambda url: Cloud(Path(url)))
    taken = claims.claim

    def claim_then_fail(*arguments, **options):
        ours = taken(*arguments, **options)
        Cloud.fails = name
        return ours

    monkeypatch.setattr(claims, "claim", claim_then_fail)
    assert main(["--if-changed", str(plan)]) == 4
    assert "no connection" in capsys.readouterr().err
    monkeypatch.setattr(claims, "claim", taken)
    assert main(["--if-changed", str(plan)]) == 0
    assert len(steps) == 1


@pytest.mark.parametrize(
    ("package", "how"),
    [("psycopg2", "psycopg2-binary"), ("psycopg", "'psycopg[binary]'"), ("h5py", "'/a b/imagesr[train]'")],
)
def test_what_installs_a_missing_package(package, how, monkeypatch):
    origin = SimpleNamespace(read_text=lambda name: '{"url": "file:///a%20b/imagesr", "dir_info": {}}')
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: origin)
    told = install_hint(ModuleNotFoundError(f"No module named {package!r}", name=package))
    assert told == f"it needs the package {package}: pip install {how}"


GIT = "'imagesr[train] @ git+https://example.org/imagesr.git'"


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'imagesr[train]'"),
        ('{"url": "https://example.org/imagesr.git", "vcs_info": {"vcs": "git"}}', f"pip install {GIT}"),
        ('{"url": "file:///code/imagesr", "dir_info": {"editable": true}}', "pip install -e '/code/imagesr[train]'"),
    ],
)
def test_an_extra_comes_from_where_the_package_came_from(origin, command, monkeypatch):
    found = SimpleNamespace(read_text=lambda name: origin)
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: found)
    assert install("train") == command


def test_a_missing_package_is_told_before_the_run_is_claimed(plan, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(retrain, "PACKAGES", ("mlflow",))
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert main(["--if-changed", str(plan)]) == 2
    assert capsys.readouterr().err.strip().endswith("[track]'")
    assert not (tmp_path / "store/retrain").exists()


@pytest.mark.keras
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("pictures = ['b100']", "Expected the 100 HR pictures of b100 in "),
        ("pictures = ['nothing']", "Received: nothing="),
        ("pictures = ['folder']", "Expected a folder with pictures"),
    ],
)
def test_what_the_last_steps_lack_is_told_before_the_training(line, told, plan, monkeypatch, capsys):
    monkeypatch.setattr(retrain, "PACKAGES", ())
    monkeypatch.setattr(retrain, "_train", lambda *_: pytest.fail("it trains"))
    plan.write_text(f"{line}\n{plan.read_text()}scale = '2'\n")
    assert main(["--if-changed", str(plan)]) == 2
    assert told in capsys.readouterr().err


def test_a_store_without_data(plan, steps, tmp_path, capsys):
    (tmp_path / "store/current.json").unlink()
    assert main(["--if-changed", str(plan)]) == 3
    assert "which imagesr datasets load makes" in capsys.readouterr().err
