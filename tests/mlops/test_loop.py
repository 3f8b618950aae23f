"""The loop end to end, on SQLite and a folder, and on PostgreSQL, S3 and an MLflow server."""

import csv
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mlflow", reason="needs MLflow (pip install 'imagesr[track]')")
keras = pytest.importorskip("keras", reason="needs Keras (pip install 'imagesr[train]')")

from running import Running  # noqa: E402
from stack import Stack  # noqa: E402

from imagesr.card import ModelCard, sha256  # noqa: E402
from imagesr.datasets.__main__ import main as datasets  # noqa: E402
from imagesr.depth.scenes import render  # noqa: E402
from imagesr.errors import OutputError  # noqa: E402
from imagesr.mlops import promote  # noqa: E402
from imagesr.mlops.registry import CHALLENGER, CHAMPION, crown, fetch, roll_back  # noqa: E402
from imagesr.mlops.retrain import Plan, retrain  # noqa: E402
from imagesr.store import open_store  # noqa: E402
from imagesr.tracking import URI  # noqa: E402
from imagesr.tracking.__main__ import main as track  # noqa: E402
from imagesr.tracking.mirror import Mirror, begin  # noqa: E402
from imagesr.tracking.server import Server  # noqa: E402

# MLflow and its database drivers leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore")
NAME = "loop_x2"
ROOT = Path(__file__).parents[2]


@dataclasses.dataclass
class Place:
    """Hold where data and models are: addresses of a store and of a registry; `stack` runs them, where they run."""

    store: str
    uri: str
    folder: Path
    stack: Stack | None = None


@pytest.fixture(scope="module", params=["embedded", pytest.param("servers", marks=pytest.mark.stack)])
def place(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    if request.param == "embedded":
        with pytest.MonkeyPatch.context() as patch:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                patch.setenv(name, f"not-to-be-kept-{name}")
            yield Place(str(folder / "store"), f"sqlite:///{folder}/mlflow.db", folder)
        return
    stack = Stack(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (stack.env | {"IMAGESR_CACHE": str(folder / "cache")}).items():
            patch.setenv(name, value)
        try:
            yield Place(stack.bucket, stack.uri, folder, stack)
        finally:
            stack.end()


COUNTS = {"train": 3, "validation": 2, "urban100": 2, "bsd100": 8}


@pytest.fixture(scope="module")
def loaded(place, tmp_path_factory):
    """Load a mini set into the store; return the folder with its raw pictures."""
    folder, seed = tmp_path_factory.mktemp("data"), 0
    for name, count in COUNTS.items():
        pictures = folder / "in" / ("div2k" if name in ("train", "validation") else "") / name
        pictures.mkdir(parents=True)
        for number in range(count):
            seed += 1
            Image.fromarray(render((96, 96), np.random.default_rng(seed))[0]).save(pictures / f"{number}.png")
    sources = [f"{name}={folder / 'in' / name}" for name in ("div2k", "urban100", "bsd100")]
    expect = ["--expect", *(f"{name}={count}" for name, count in COUNTS.items())]
    assert datasets(["extract", *sources, "--out", str(folder / "raw")]) == 0
    assert datasets(["transform", str(folder / "raw"), str(folder / "tree"), *expect]) == 0
    assert datasets(["load", str(folder / "tree"), place.store]) == 0
    return folder


@pytest.fixture(scope="module")
def plan(place, loaded):
    file = loaded / "retrain.toml"
    (loaded / "limits.toml").write_text("seconds_size = [96, 64]\nframes = 2\nfilms = 1\nseconds_ratio = 100.0\n")
    file.write_text(
        f'name = "loop"\nstore = "{place.store}"\nregistry = "{place.uri}"\nlimits = "limits.toml"\ncalibrate = false\n'
        '[train]\ndata = ["div2k"]\nval = ["b100"]\nscale = "2"\nsteps = 4\nbatch = 2\npatch = 48\n'
        "learning_rate = 1e-6\narchitecture = { filters = 4, blocks = 1 }\n"  # it stays better than bicubic
    )
    return file


@pytest.fixture(scope="module")
def first(place, plan):
    """Make the first champion; return its run."""
    state, result = retrain(Plan.read(plan))
    assert (state, result["version"], result["new"]) == ("promoted", "1", True)
    return plan.parent / "runs" / result["run"]


def server(place):
    return Server(place.uri)


def test_the_loop(place, plan, first, capsys, monkeypatch):
    state, result = retrain(Plan.read(plan))
    assert (state, result["new"]) == ("promoted", False), "the second time there is nothing to do"
    registry = server(place)
    assert registry.alias(NAME, CHAMPION).number == registry.alias(NAME, CHALLENGER).number == "1"
    decision = json.loads((first / "decision-1.json").read_text())
    assert decision["passed"] and len(decision["figures"]["pictures"]["b100"]["psnr_y"][0]) == 8
    mirror = Mirror(first, registry)
    assert mirror.missing() == 0
    with (first / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert registry.history(mirror.id, "loss") == {int(row["step"]): float(row["loss"]) for row in rows}
    monkeypatch.setenv(URI, place.uri)
    assert track(["lineage", f"{NAME}@champion"]) == 0
    said = capsys.readouterr().out
    assert "(train): 3 files, version" in said and "(val): 16 files, version" in said
    assert track(["sync", str(first)]) == 0
    assert "0 values were missing" in capsys.readouterr().out


def other_run(run, folder, change):
    """Copy a run, changed: as another run, with other weights and no decision."""
    copy = Path(shutil.copytree(run, folder / f"{run.name}-{change.__name__}"))
    (copy / "tracking.json").unlink()
    for file in [*copy.glob("decision-*.json")]:
        file.unlink()
    exported = copy / "export" / NAME
    change(exported)
    card = ModelCard.read(run / "export" / NAME)
    # The card of another network: the digest of its weights tells versions apart.
    (exported / "model.keras").write_bytes((exported / "model.keras").read_bytes() + b" ")
    (copy / "model.keras").write_bytes((copy / "model.keras").read_bytes() + b" ")
    (exported / "source.json").write_text(json.dumps({"sha256": sha256(copy / "model.keras")}))
    dataclasses.replace(card, folder=exported).write()
    return copy


def same(folder):
    """Leave the network as it is."""


def worse(folder):
    """Disturb the filters of the network."""
    import onnx
    from onnx import numpy_helper

    for name in ("model.onnx", "model_u16.onnx"):
        graph = onnx.load(folder / name)
        random = np.random.default_rng(0)
        for tensor in graph.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.ndim == 4:
                noisy = values + 0.02 * random.normal(size=values.shape).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(noisy, tensor.name))
        onnx.save(graph, folder / name)


def run_promote(run, place, first):
    sets = promote.picture_sets(
        [f"b100={place.store}"] if "://" in place.store else [f"b100=file://{place.store}"], "2"
    )
    limits = first.parent.parent / "limits.toml"
    return promote.promote(run, "loop", place.uri, pictures=sets, limits=limits)


@pytest.mark.parametrize("change", [same, worse])
def test_what_is_not_better_stays_a_challenger(change, place, first, tmp_path):
    copy = other_run(first, tmp_path, change)
    number, passed, file = run_promote(copy, place, first)
    assert not passed
    registry = server(place)
    assert registry.alias(NAME, CHAMPION).number == "1"
    assert registry.alias(NAME, CHALLENGER).number == number
    version = registry.version(NAME, number)
    assert version.tags["imagesr.gate"] == "refused" and "psnr_y" in version.tags["imagesr.why"]
    assert json.loads(file.read_text())["champion"] == "1"
    again, passed, _ = run_promote(copy, place, first)
    assert (again, passed) == (number, False), "a run has one version"


def test_rollback(place, first, tmp_path, capsys):
    registry = server(place)
    with pytest.raises(ValueError, match=r"before version 1\. Received: none"):
        roll_back(registry, NAME)
    better = registry.register(NAME, Mirror(first, registry).id, "model", {"imagesr.weights": "x"})
    before = registry.alias(NAME, CHAMPION)
    crown(registry, better, before)
    with pytest.raises(OutputError, match=f"Received: version {better.number}"):
        crown(registry, better, before)
    assert promote.main(["--rollback", "--name", NAME, "--registry", place.uri]) == 0
    assert f"version 1 is the champion again, {better.number} is not" in capsys.readouterr().out
    assert registry.alias(NAME, CHAMPION).number == "1"
    card = fetch(registry, registry.alias(NAME, CHAMPION), tmp_path)
    assert card.name == "loop"


def test_an_unknown_alias(place, first, capsys, monkeypatch):
    monkeypatch.setenv(URI, place.uri)
    assert track(["lineage", f"{NAME}@nothing"]) == 2
    assert promote.main(["--rollback", "--name", "nothing_x2", "--registry", place.uri]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and said[0].endswith(f"Received: {NAME}@nothing")
    assert said[1].endswith("Expected a champion of nothing_x2. Received: none")


def test_no_credential_is_kept(place, loaded, first, capsys):
    """Neither runs, manifests, nor what MLflow and the store hold, have the environment's keys or a password."""
    keys = [os.environ[name].encode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    keys.append(f"not-to-be-told-{os.getpid()}".encode())
    _, _, host = (place.uri if place.stack else "http://127.0.0.1:1").partition("://")
    code = track(["sync", str(first), "--uri", f"http://me:{keys[-1].decode()}@{host}"])
    said = capsys.readouterr()
    assert code == (0 if place.stack else 4), said.err
    assert host in said.out + said.err or place.stack
    assert not any(key.decode() in said.out + said.err for key in keys)
    assert begin(first, place.uri)["uri"] == place.uri
    for root in (loaded, place.folder, *(place.stack.made if place.stack else ())):
        for file in root.rglob("*"):
            if file.is_file() and file.name != "s3.json":  # the server's own list of them
                assert not any(key in file.read_bytes() for key in keys), file
    if place.stack:  # whose files on disk may be compressed
        bucket = open_store(place.store.rpartition("/")[0])
        names = [name for prefix in ("data", "mlflow") for name in bucket.names(prefix)]
        assert any(name.endswith("manifest.json") for name in names)
        assert any(name.startswith("mlflow/") for name in names)
        for name in names:
            assert not any(key in bucket.get(name) for key in keys), name


@pytest.mark.stack
@pytest.mark.parametrize("victim", ["tracking", "database", "store"])
def test_a_server_that_is_killed_costs_training_nothing(victim, place, loaded, tmp_path):
    if place.stack is None:
        pytest.skip("there is nothing to kill")
    data = str(loaded / "tree")
    small = ["--scale", "2", "--architecture", "filters=4", "blocks=1", "--steps", "6", "--batch", "2", "--patch", "48"]
    code = "import sys, imagesr.train.loop as loop; loop.EPOCH = 2; from imagesr.train.__main__ import main; "
    code += "sys.exit(main(sys.argv[1:]))"

    def start(out, *more):
        command = [
            sys.executable,
            "-c",
            code,
            "--data",
            f"div2k={data}",
            "--val",
            f"b100={data}",
            *small,
            "--out",
            str(out),
        ]
        return subprocess.Popen([*command, *more], env=os.environ | {URI: place.uri})

    program = getattr(place.stack, victim)
    run = tmp_path / "run"
    process = start(run, "--track")
    try:
        while not (run / "history.csv").exists():
            assert process.poll() is None
            time.sleep(0.05)
        program.kill()
        assert process.wait(600) == 0
    finally:
        process.kill()
        program.start()
    plain = start(tmp_path / "plain")
    assert plain.wait(600) == 0
    assert (run / "history.csv").read_text() == (tmp_path / "plain/history.csv").read_text()
    mirror = None
    for _ in range(60):  # a database that was killed recovers first
        try:
            begin(run, place.uri)
            mirror = Mirror(run, server(place))
            mirror.send(last=True)
            break
        except OutputError:
            time.sleep(2)
    assert mirror.missing() == 0


def test_a_killed_retraining_goes_on(place, plan, first, tmp_path):
    """Kill it in its training, and again between its steps; the run that comes of it is one."""
    text = plan.read_text().replace("steps = 4", "steps = 6")
    file = plan.with_name("second.toml")
    file.write_text(text)
    code = "import os, sys, imagesr.mlops.retrain as retrain, imagesr.mlops.promote as promote\n"
    code += "kill = lambda *_, **__: os.kill(os.getpid(), 9)\n"
    training = "from imagesr.train.callbacks import RunFolder; RunFolder.on_epoch_end = kill"
    for kill in (training, "promote.promote = kill"):
        command = [sys.executable, "-c", f"{code}{kill}\nsys.exit(retrain.main(sys.argv[1:]))", str(file)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    before = len(server(place).versions(NAME))
    state, result = retrain(Plan.read(file))
    assert state in ("promoted", "refused") and result["new"]
    assert len(server(place).versions(NAME)) == before + 1


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path):
    """Run docs/mlops.md from its first command to a picture of the service, as a reader does."""
    page = (ROOT / "docs/mlops.md").read_text("utf-8")
    section = page.split("## The loop in ten minutes\n")[1].split("\n## ")[0]
    blocks = dict(re.findall(r"^```(toml)\n(.*?)^```", section, re.M | re.S))
    (tmp_path / "retrain.toml").write_text(blocks["toml"])
    lines = "".join(re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)).replace("\\\n", " ").splitlines()
    lines = [line for line in lines if line]
    keep = ("AWS_", "MLFLOW_", "IMAGESR_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(keep)}

    def run(line):
        """Run a line by this Python; returns its exit code and its output."""
        line = re.sub("^imagesr ", f"{shlex.quote(sys.executable)} -m imagesr ", line)
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert [line.split()[1] for line in lines[-3:]] == ["promote", "serve", "-s"]
    for line in lines[:-2]:
        code, said = run(line)
        assert code == 0 or (code == 1 and "imagesr promote" in line), f"{line}: {said}"
    repeated = next(line for line in lines if "imagesr retrain" in line)
    assert "nothing to do" in run(repeated)[1]
    service = Running(*shlex.split(lines[-2])[2:], cwd=tmp_path, env=env | {"IMAGESR_CACHE": str(tmp_path / "cache")})
    try:
        service.ready()
        code, said = run(lines[-1].replace("localhost:5000", service.url))
        assert code == 0 and re.search("^imagesr-model: mini_x2/", said, re.M | re.I), said
        assert Image.open(tmp_path / "larger.png").size == (384, 384)
    finally:
        service.process.terminate()
        service.end()
