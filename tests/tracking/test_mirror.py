"""Run folders mirrored to a server that these tests make up, and the lineage in them; MLflow is not needed."""

import json
import shutil
import socket
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from running import until

from imagesr.errors import InputError
from imagesr.mlops.measures import leaked
from imagesr.store.local import LocalStore
from imagesr.store.versions import MANIFEST, Manifest, fetch, list_tree, publish
from imagesr.tracking import address, is_local
from imagesr.tracking.__main__ import _runs, main
from imagesr.tracking.follow import Follower, reachable
from imagesr.tracking.lineage import changes, describe, read_lineage, write_lineage
from imagesr.tracking.mirror import Mirror, begin, read_record


class Fake:
    """Keep what a tracking server keeps."""

    def __init__(self):
        self.keys, self.params, self.tags, self.metrics, self.files = {}, {}, {}, {}, {}
        self.status, self.calls = "RUNNING", 0

    def kept(self):
        """Return all that it keeps, as text."""
        return repr([self.params, self.tags, self.metrics, self.files, self.status])

    def find_run(self, key, *, name, started):
        return self.keys.setdefault(key, f"run-{len(self.keys)}")

    def read_run(self, run):
        return dict(self.params), dict(self.tags), self.status

    def log(self, run, *, metrics=(), params=None, tags=None, sent=lambda: None):
        self.calls += 1
        for key, value in (params or {}).items():
            assert self.params.setdefault(key, value) == value, "parameters never change"
        self.tags |= tags or {}
        for name, value, at, step in metrics:
            self.metrics.setdefault(name, {})[at, step, str(value)] = value
        sent()

    def history(self, run, name):
        return {step: value for (_, step, _), value in self.metrics.get(name, {}).items()}

    def upload(self, run, file, folder=""):
        self.calls += 1
        self.files[f"{folder}/{file.name}".lstrip("/")] = file.read_bytes()

    def end(self, run, status):
        self.calls += 1
        self.status = status


@pytest.fixture
def run(tmp_path):
    """Return a run folder that has three rows, and a checkpoint at the second."""
    folder = tmp_path / "runs/a"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "statistics").mkdir()
    (folder / "checkpoints/000001000.weights.h5").write_text("")
    (folder / "statistics/curves.png").write_text("curves")
    (folder / "config.json").write_text(json.dumps({"scale": "2", "steps": 1000, "data": ["folder=x"]}))
    (folder / "start.json").write_text(json.dumps({"bicubic": 30.0, "psnr_y": 31.0}))
    (folder / "history.csv").write_text("step,loss,psnr_y\n500,0.5,31.5\n1000,0.25,nan\n1500,0.1,33\n")
    begin(folder, "http://user:secret@host:1/x")
    return folder


def test_rows_are_sent_up_to_the_last_checkpoint(run):
    server = Fake()
    mirror = Mirror(run, server)
    assert mirror.missing() == 6
    mirror.send()
    assert server.history("", "loss") == {500: 0.5, 1000: 0.25}
    assert server.history("", "start.psnr_y") == {0: 31.0}
    assert server.params == {"scale": "2", "steps": "1000", "data": '["folder=x"]'}
    assert set(server.files) == {"config.json", "history.csv", "statistics/curves.png"}
    assert mirror.missing() == 0
    (run / "checkpoints/000001500.weights.h5").write_text("")
    assert mirror.send() == 1, "one row is new"
    assert server.history("", "loss")[1500] == 0.1


def test_twice_changes_nothing(run):
    server = Fake()
    Mirror(run, server).send(last=True)
    kept = server.kept()
    Mirror(run, server).send(last=True)
    assert len(server.keys) == 1
    assert server.kept() == kept
    calls = server.calls
    mirror = Mirror(run, server)
    mirror.send()
    mirror.send()
    assert server.calls == calls + 1, "the rows once more, which changes nothing, and then nothing"


def test_a_finished_run_ends_with_its_network_and_yardstick(run):
    server = Fake()
    (run / "model.keras").write_text("network")
    (run / "benchmark.json").write_text(json.dumps({"psnr_y": 33.0, "parameters": 12}))
    Mirror(run, server).send()
    assert server.status == "RUNNING"
    Mirror(run, server).send(last=True)
    assert server.status == "FINISHED"
    assert server.files["model.keras"] == b"network"
    assert server.history("", "final.psnr_y") == {1000: 33.0}


def test_a_longer_run_says_so_in_a_tag(run):
    server = Fake()
    Mirror(run, server).send()
    (run / "config.json").write_text(json.dumps({"scale": "2", "steps": 2000}))
    Mirror(run, server).send()
    assert server.params["steps"] == "1000"
    assert server.tags["now.steps"] == "2000"


def test_a_row_that_is_being_written_waits(run):
    (run / "history.csv").write_text("step,loss,psnr_y\n500,0.5,31.5\n1000,0.2")
    server = Fake()
    Mirror(run, server).send()
    assert server.history("", "loss") == {500: 0.5}


def test_the_record_keeps_no_secret(run, tmp_path):
    assert read_record(run)["uri"] == "http://host:1/x"
    key = read_record(run)["key"]
    assert begin(run, "sqlite:////tmp/x.db")["key"] == key, "the same run on another server"
    assert read_record(run)["uri"] == "sqlite:////tmp/x.db"
    assert begin(run, "postgresql://u:p@h/d?password=p")["uri"] == "postgresql://h/d"
    with pytest.raises(InputError, match=r"without tracking\.json"):
        read_record(tmp_path)


def test_addresses(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert address(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert address("http://x", tmp_path) == "http://x"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://y")
    assert address(None, tmp_path) == "http://y"
    assert is_local("sqlite:///x") and is_local("file:///x") and is_local("x") and not is_local("http://x")
    assert reachable("sqlite:///x")


def test_a_dead_server_costs_no_failure(run, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        with Follower(run, f"http://user:secret@{place}"):
            pass
    told = capsys.readouterr().err
    assert f"not all of the run is at http://{place} yet: imagesr track sync" in told and "secret" not in told


@pytest.mark.skipif(not find_spec("mlflow"), reason="needs MLflow (pip install 'imagesr[track]')")
def test_a_server_that_never_answers_is_not_waited_for(run, capsys, monkeypatch):
    monkeypatch.setattr("imagesr.tracking.follow.PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        follower = Follower(run, f"http://127.0.0.1:{silent.getsockname()[1]}")
        until(lambda: follower._said == "connecting", follower._process)  # MLflow's import is another matter
        begun = time.monotonic()
        assert not follower.end()
        assert time.monotonic() - begun < 60
    assert "not all of the run" in capsys.readouterr().err


def test_a_run_that_was_not_tracked_needs_an_address(run, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (run / "tracking.json").unlink()
    assert main(["sync", str(run)]) == 2
    assert "Expected the address of a tracking server, by --uri" in capsys.readouterr().err


def test_what_lies_beside_runs_is_not_sent(run, capsys):
    (run.parent / "mlartifacts").mkdir()
    (run.parent / "mlflow.db").write_text("")
    beside = sorted(run.parent.iterdir())
    assert _runs(beside) == [run]
    told = capsys.readouterr().err
    assert "mlartifacts is no run" in told and "mlflow.db is no run" in told
    for path, expected in (("mlartifacts", "which is none"), ("nothing", "which is not there")):
        assert main(["sync", str(run.parent / path), "--uri", "sqlite:///x.db"]) == 3
        assert expected in capsys.readouterr().err
    assert [*(run.parent / "mlartifacts").iterdir()] == []


@pytest.mark.parametrize("command", [["sync", "x", "--uri", "sqlite:///x.db"], ["lineage", "a@champion"]])
def test_without_mlflow_it_says_what_to_install(command, run, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///x.db")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "imagesr.tracking.server", raising=False)
    assert main([str(run) if word == "x" else word for word in command]) == 2
    assert capsys.readouterr().err.strip().endswith("[track]'")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.png").write_text(name)
    return folder


def files(folder):
    return sorted(folder.glob("*.png"))


def test_one_flipped_byte_is_named(run, photos, capsys):
    record = write_lineage(run, {"folder=photos (train)": files(photos)}, None)
    assert read_lineage(run) == record
    assert changes(record, run) == []
    assert main(["lineage", str(run)]) == 0
    assert "folder=photos (train): 3 files, no version" in capsys.readouterr().out
    (photos / "b.png").write_text("c")
    (photos / "c.png").unlink()
    assert main(["lineage", str(run)]) == 1
    said = capsys.readouterr().err
    assert f"{photos / 'b.png'}, which has changed" in said
    assert f"{photos / 'c.png'}, which is missing" in said
    (run / "config.json").write_text("{}")
    assert f"{run / 'config.json'}, which has changed" in changes(record, run)


def test_lineage_names_the_version_of_the_data(run, photos, tmp_path):
    manifest = Manifest(list_tree(photos))
    (photos / MANIFEST).write_bytes(manifest.text())
    version, _ = publish(photos, manifest, LocalStore(tmp_path / "store"))
    folder = fetch(str(tmp_path / "store"))
    record = write_lineage(run, {"a": files(folder), "b": files(photos), "c": []}, None)
    assert [source["version"] for source in record["data"]] == [version, None, None]


def test_lineage_follows_the_parents(run, photos, tmp_path):
    write_lineage(run, {"a": files(photos)}, None)
    (run / "model.keras").write_text("network")
    child = Path(shutil.copytree(run, tmp_path / "child", ignore=shutil.ignore_patterns("lineage.json")))
    record = write_lineage(child, {"b": []}, run)
    lines = list(describe(record))
    assert lines[1:3] == ["data b: 0 files, no version, e3b0c44298fc", f"from {run}, {record['parent']['sha256'][:12]}"]
    assert lines[4] == f"  data a: 3 files, no version, {record['parent']['lineage']['data'][0]['sha256'][:12]}"
    (photos / "a.png").write_text("x")
    (run / "model.keras").write_text("another")
    assert {line.split(",")[0] for line in changes(record)} == {str(photos / "a.png"), str(run / "model.keras")}


def test_a_resumed_run_keeps_the_lineage_that_it_had(run, photos, monkeypatch, capsys):
    monkeypatch.setattr("imagesr.tracking.lineage.code_version", lambda: "1")
    first = write_lineage(run, {"a (train)": files(photos)}, None)
    assert write_lineage(run, {"a (train)": files(photos)}, None) == first, "nothing has changed"
    old = files(photos)[0].read_text()
    files(photos)[0].write_text("retouched")
    second = write_lineage(run, {"a (train)": files(photos)}, None)
    monkeypatch.setattr("imagesr.tracking.lineage.code_version", lambda: "2")
    third = write_lineage(run, {"a (train)": files(photos)}, None)
    assert third["earlier"] == [first, {key: second[key] for key in first}]
    assert write_lineage(run, {"a (train)": files(photos)}, None) == read_lineage(run) == third
    assert [line for line in describe(third) if "resumed" in line] == ["before it was resumed:"] * 2
    assert changes(third) == [f"{files(photos)[0]}, which has changed"], "since the first stage"
    picture = run / "measured.png"
    picture.write_text(old)
    assert leaked(third, [picture]) == [f"{picture} is {files(photos)[0]}"], "the first stage was trained on it"
