"""Retraining: one run for a version of the data and a config, taken over where it was killed."""

import json
import os
import subprocess
import sys
import threading

import pytest

from imagesr.errors import OutputError, TrainingError
from imagesr.mlops import claims, retrain
from imagesr.mlops.claims import claim
from imagesr.mlops.retrain import Plan, main
from imagesr.store.local import LocalStore
from imagesr.store.versions import Manifest, list_tree, publish


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

    def steps(plan, version, run, ours):
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


def test_a_failed_run_is_repeated_on_request_alone(plan, steps, capsys):
    steps.append(TrainingError("a loss that is no number"))
    assert main(["--if-changed", str(plan)]) == 4
    assert main(["--if-changed", str(plan)]) == 1
    assert "it has failed: a loss that is no number; --retry tries again" in capsys.readouterr().out
    assert main(["--if-changed", "--retry", str(plan)]) == 0
    assert main(["--if-changed", "--retry", str(plan)]) == 0


@pytest.mark.parametrize("error", [OutputError("no answer"), KeyboardInterrupt()])
def test_what_is_no_fault_of_the_run_is_tried_again(error, plan, steps):
    steps.append(error)
    assert main(["--if-changed", str(plan)]) in (4, 130)
    assert main(["--if-changed", str(plan)]) == 0
    assert len(steps) == 2


def test_twenty_at_once_make_one_run(plan, monkeypatch):
    made, outcomes, everybody = [], [], threading.Barrier(20)
    ended = threading.Event()

    def steps(plan, version, run, ours):
        made.append(run.name)
        ended.wait(60)
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
    code = "import os, sys; from imagesr.mlops import retrain; "
    code += "retrain._steps = lambda *_: os._exit(9); retrain.main(sys.argv[1:])"
    assert subprocess.run([sys.executable, "-c", code, str(plan)], check=False).returncode == 9
    (entry,) = (tmp_path / "store/retrain").glob("*.json")
    assert json.loads(entry.read_text())["state"] == "running"
    assert main(["--if-changed", str(plan)]) == 0
    assert len(steps) == 1
    assert json.loads(entry.read_text())["state"] == "promoted"


def test_of_another_machine_signs_of_life_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.05)
    store = LocalStore(tmp_path)
    monkeypatch.setattr(claims, "_place", lambda: ["elsewhere", "boot", 1, ""])
    theirs, _ = claim(store, "c", again=never)
    monkeypatch.undo()
    monkeypatch.setattr(claims, "BEAT", 0.2)
    assert claim(store, "c", again=never)[0] is None, "it beats"
    theirs._ended.set()
    theirs._thread.join()
    ours, _ = claim(store, "c", again=never)
    assert ours is not None
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
    assert record["place"][2] == os.getpid()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name = 'x'", "Expected name, store and train"),
        ("name = 'x'\nstore = 's'\nother = 1\n[train]\n", "Expected keys"),
        ("name = 'x'\nstore = 's'\n[train]\nsteps = 1\n", "Expected data and val"),
        ("=", "Expected a config in TOML"),
    ],
)
def test_configs_that_are_none(text, expected, tmp_path, capsys):
    (tmp_path / "x.toml").write_text(text)
    assert main([str(tmp_path / "x.toml")]) == 2
    assert expected in capsys.readouterr().err


def test_a_store_without_data(plan, tmp_path, capsys):
    (tmp_path / "store/current.json").unlink()
    assert main(["--if-changed", str(plan)]) == 3
    assert "which imagesr datasets load makes" in capsys.readouterr().err
