"""The service follows a registry: swaps under requests, damaged versions, a registry that is gone."""

import asyncio
import dataclasses
import io
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from conftest import picture
from PIL import Image
from running import Running, until

from imagesr.card import SAVED_MODELS, ModelCard
from imagesr.errors import ModelError, OutputError
from imagesr.scale import Scale
from imagesr.serve.follow import Champions, follow, label_of
from imagesr.serve.schemas import describe_models
from imagesr.serve.service import Service

NAME = "mine_x2"


class Folders:
    """A registry of folders: `aliases.json` names a version, which lies in a folder of that number; gone without it."""

    def __init__(self, place):
        self.place = Path(place)

    def alias(self, name, alias):
        try:
            number = json.loads((self.place / "aliases.json").read_text()).get(alias)
        except FileNotFoundError:
            raise OutputError("Expected a tracking server that answers. Received: none") from None
        return SimpleNamespace(name=name, number=number) if number else None

    def download(self, version, folder):
        shutil.copytree(self.place / version.number, folder, dirs_exist_ok=True)

    def crown(self, number, challenger=None):
        part = self.place / "aliases.part"
        part.write_text(json.dumps({"champion": number, "challenger": challenger}))
        os.replace(part, self.place / "aliases.json")


@pytest.fixture
def registry(tmp_path):
    """Return a registry with four versions: the third one is damaged, the fourth one does not run."""
    place = tmp_path / "registry"
    for number, model in (("1", "fast"), ("2", "best"), ("3", "fast"), ("4", "fast")):
        source = SAVED_MODELS / f"{model}_x2"
        source = source if source.is_dir() else SAVED_MODELS / f"{model}-photo_x2"
        folder = Path(shutil.copytree(source, place / number))
        if number == "4":
            (folder / "model_u16.onnx").write_bytes(b"no graph")
        dataclasses.replace(ModelCard.read(source), name="mine", folder=folder).write()
        if number == "3":
            (folder / "model_u16.onnx").write_bytes(b"x" + (folder / "model_u16.onnx").read_bytes()[1:])
    folders = Folders(place)
    folders.crown("1")
    return folders


def test_champions_are_fetched_once_and_checked(registry, tmp_path):
    champions = Champions(lambda: registry, [NAME], tmp_path / "cache")
    ((label, card),) = champions.first()
    assert (label, card.name, card.folder) == (f"{NAME}/1", "mine", tmp_path / "cache" / NAME / "1" / NAME)
    assert label_of(champions.newest(NAME)) == label
    shutil.rmtree(registry.place / "1")
    assert champions.card(champions.newest(NAME)).folder == card.folder, "it is not fetched again"
    registry.crown("3")
    with pytest.raises(ModelError, match="Its checksum differs"):
        champions.card(champions.newest(NAME))
    assert not (tmp_path / "cache" / NAME / "3" / NAME).exists()


def test_nothing_cleans_for_a_champion_that_takes_no_clean(registry):
    service = Service(model="best", queue=1, megapixels=1, threads=1)
    service.adopt(f"{NAME}/1", ModelCard.read(registry.place / "1"))
    told = describe_models(service.models, service.names, default="best", most=1)["models"]
    cleans = {model["name"]: model["clean"] for model in told}
    assert cleans.pop("mine") is None and {*cleans.values()} == {0}
    service.check_clean("auto", "mine", Scale(2))
    with pytest.raises(ModelError, match=r"takes a clean \(best-photo x1\)\. Received: mine x2"):
        service.check_clean(0.5, "mine", Scale(2))
    with pytest.raises(ModelError, match="Received: 1, mine"):
        service.check_clean("auto", "mine", Scale(1))


def test_without_the_registry_the_last_one_is_served(registry, tmp_path):
    def gone():
        raise OutputError("no answer")

    champions = Champions(lambda: registry, [NAME], tmp_path / "cache")
    champions.keep(next(champions.first())[0])
    ((label, _),) = Champions(gone, [NAME], tmp_path / "cache").first()
    assert label == f"{NAME}/1"
    with pytest.raises(OutputError):
        next(Champions(gone, [NAME], tmp_path / "other").first())


def test_a_model_without_a_champion(registry, tmp_path):
    (registry.place / "aliases.json").write_text("{}")
    with pytest.raises(ModelError, match="Expected a champion of mine_x2"):
        next(Champions(lambda: registry, [NAME], tmp_path / "cache").first())


def test_a_version_of_another_model_is_refused(registry, tmp_path):
    """A version named mine_x2 that holds the model other, or mine at x3, would answer for that one."""
    card = ModelCard.read(registry.place / "1")
    for changes in ({"name": "other"}, {"scale": Scale(3)}):
        dataclasses.replace(card, **changes).write()
        champions = Champions(lambda: registry, [NAME], tmp_path / "cache")
        with pytest.raises(ModelError, match=r"Expected mine_x2 .* Received: (other_x2|mine_x3)"):
            next(champions.first())
        with pytest.raises(ModelError, match="Expected mine_x2"):
            champions.card(champions.newest(NAME))
    assert not (tmp_path / "cache" / NAME / "1" / NAME).exists()


@pytest.mark.parametrize("what", ["card", "model", "other", "current"])
def test_what_is_damaged_in_the_cache_is_fetched_again(registry, tmp_path, what):
    champions = Champions(lambda: registry, [NAME], tmp_path / "cache")
    ((label, card),) = champions.first()
    champions.keep(label)
    if what == "card":
        (card.folder / "card.json").write_bytes(b"")
    elif what == "model":
        (card.folder / "model_u16.onnx").write_bytes(b"x")
    elif what == "other":
        dataclasses.replace(card, name="other").write()
    else:
        (tmp_path / "cache" / NAME / "current").write_bytes(b"\xff\x00")
    again = Champions(lambda: registry, [NAME], tmp_path / "cache")
    assert [*again.first()] == [(label, card)]
    assert ModelCard.read(card.folder) == card


def test_the_cache_keeps_the_last_two_versions(registry, tmp_path):
    champions = Champions(lambda: registry, [NAME], tmp_path / "cache")
    for number in ("1", "2", "4", "1"):
        for old in (tmp_path / "cache").glob(f"{NAME}/*"):
            os.utime(old, (old.stat().st_mtime - 7200,) * 2)
        registry.crown(number)
        version = champions.newest(NAME)
        champions.card(version)
        champions.keep(label_of(version))
    assert sorted(place.name for place in (tmp_path / "cache" / NAME).iterdir()) == ["1", "4", "current"]


class Ended(BaseException):
    """Ends a follower."""


class Looked:
    """A registry whose every look is one entry of a list: a version's number, or an error."""

    def __init__(self, looks, place):
        self.looks, self.place = iter(looks), place

    def alias(self, name, alias):
        look = next(self.looks, Ended())
        if isinstance(look, BaseException):
            raise look
        return SimpleNamespace(name=name, number=look)

    def download(self, version, folder):
        with (self.place / "downloads").open("a") as file:
            file.write(f"{label_of(version)}\n")
        shutil.copytree(self.place / version.number, folder, dirs_exist_ok=True)


def followed(looks, registry, tmp_path, names=(NAME,), *, staged=None):
    """Follow a registry for some looks; return the versions served, the number refused and those downloaded.

    With the list `staged`, every second look is for the challenger, and the list gets those that were served.
    """
    served, refused, labels, challengers = [], [], {}, {}

    async def warm(card):
        if (card.folder / "model_u16.onnx").read_bytes() == b"no graph":
            raise RuntimeError("no graph")

    def adopt(label, card):
        labels[label.rpartition("/")[0]] = label
        served.append(label.rpartition("/")[2])

    def stage(label, card):
        challengers[label.rpartition("/")[0]] = label
        staged.append(label.rpartition("/")[2])

    metrics = SimpleNamespace(refused_models=SimpleNamespace(inc=lambda: refused.append(1)))
    service = SimpleNamespace(
        labels=labels, challengers=challengers, warm=warm, adopt=adopt, stage=stage, metrics=metrics
    )
    looked = Looked(looks, registry.place)
    champions = Champions(lambda: looked, names, tmp_path / "cache", staging=staged is not None)
    with pytest.raises(Ended):
        asyncio.run(follow(service, champions, 0))
    file = registry.place / "downloads"
    return served, len(refused), file.read_text().split() if file.exists() else []


def test_what_is_damaged_is_told_counted_and_fetched_once(registry, tmp_path, capsys):
    served, refused, fetched = followed(["1", "3", "3", "1", "3", "4", "4", "2"], registry, tmp_path)
    assert (served, refused) == (["1", "2"], 2)
    assert fetched == [f"{NAME}/{number}" for number in "1342"]
    told = capsys.readouterr().err
    assert (told.count("Its checksum differs"), told.count("Expected a model that runs")) == (1, 1)


def test_one_model_that_fails_is_told_once_beside_one_that_does_not(registry, tmp_path, capsys):
    """The looks take turns: the first model fails, the second has no news."""
    looks = [OutputError("gone"), "1", OutputError("gone"), "1", OutputError("gone"), "1"]
    assert followed(looks, registry, tmp_path, ["a_x2", NAME])[0] == ["1"]
    assert capsys.readouterr().err.count("gone") == 1
    followed([OutputError("gone")] * 4, registry, tmp_path, ["a_x2", NAME])
    assert capsys.readouterr().err.count("gone") == 1, "the registry is one for all"


def test_challengers_are_staged_and_only_champions_served(registry, tmp_path, capsys):
    """Looks take turns: for the champion, for the challenger; 3 is damaged, and 4 does not run."""
    staged = []
    looks = ["1", "2", "1", "2", "1", "3", "1", "4", "2", "2"]
    served, refused, _ = followed(looks, registry, tmp_path, staged=staged)
    assert (served, staged, refused) == (["1", "2"], ["2"], 2)
    assert f"{NAME}/2 stands behind /staging now" in capsys.readouterr().err


def test_without_a_challenger_nothing_is_staged(registry, tmp_path):
    staged = []
    assert followed(["1", None, "1", None], registry, tmp_path, staged=staged)[0] == ["1"]
    assert staged == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("a bug")])
def test_no_error_ends_the_follower(registry, tmp_path, capsys, error):
    assert followed([error, error, "1", error, "2"], registry, tmp_path)[0] == ["1", "2"]
    told = capsys.readouterr().err
    assert told.count(f"Expected to follow {NAME}. Received: {type(error).__name__}") == 2


def test_a_cache_that_cannot_be_written(registry, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file")
    served, refused, _ = followed(["1", "1"], registry, tmp_path)
    assert (served, refused) == ([], 0)
    assert capsys.readouterr().err.count("Expected to follow") == 1


# Looks at a registry of folders, five times a second.
CODE = """
import sys
import imagesr.serve.__main__ as command, imagesr.serve.follow as follow
from test_follow import Folders
follow.follow.__defaults__ = (0.2,)
command._check_mlflow = lambda: None
command._connect = Folders
sys.exit(command.main(sys.argv[1:]))
"""


class Following(Running):
    """The service with a registry of folders."""

    program = (sys.executable, "-c", CODE)


@pytest.fixture
def service(registry, tmp_path, request):
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"IMAGESR_CACHE": str(tmp_path / "cache"), "PYTHONPATH": path}
    more = getattr(request, "param", [])
    running = Following("--registry", registry.place, "--follow", NAME, *more, env=env)
    yield running
    running.process.send_signal(signal.SIGTERM)
    running.end()


def png():
    file = io.BytesIO()
    Image.fromarray(picture(24, 16)).save(file, "PNG")
    return file.getvalue()


def test_swaps_under_requests(service, registry):
    service.ready()
    data, seen, failed, ended = png(), [], [], threading.Event()

    def ask():
        while not ended.is_set():
            answer = httpx.post(f"{service.url}/supersizeme", content=data, timeout=90)
            (seen if answer.status_code == 200 else failed).append(answer.headers.get("Imagesr-Model") or answer.text)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: f"{NAME}/1" in seen, service.process)
        for number in ("2", "1", "2"):
            registry.crown(number)
            count = len(seen)
            until(lambda count=count, number=number: f"{NAME}/{number}" in seen[count:], service.process)
        assert service.figure("model_version") == 1
        assert f'imagesr_model_version{{model="{NAME}",version="2"}} 1.0' in httpx.get(f"{service.url}/metrics").text
        assert (service.figure("promotions_total"), service.figure("champions_behind")) == (3, 0)
        for number, count in (("3", 1), ("4", 2)):  # damaged, and one that does not run
            registry.crown(number)
            until(lambda count=count: service.figure("refused_models_total") >= count, service.process)
        assert service.figure("champions_behind") == 1
        (registry.place / "aliases.json").unlink()
        until(lambda: "Expected a tracking server that answers" in service.log(), service.process)
        count = len(seen)
        until(lambda: len(seen) > count + 10, service.process)
        assert {*seen[count + 5 :]} == {f"{NAME}/2"}
        assert service.figure("refused_models_total") == 2, "each once, however often the registry was asked"
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not failed
    assert service.log().count("is served now") == 3
    models = httpx.get(f"{service.url}/models").json()
    assert models["default"] == "mine"
    answer = httpx.post(f"{service.url}/supersizeme?model=fast", content=data, timeout=90)
    assert answer.headers["Imagesr-Model"].startswith("fast")


@pytest.mark.slow
@pytest.mark.parametrize("service", [["--staging"]], indirect=True, ids=["staging"])
def test_a_challenger_stands_behind_staging(service, registry):
    service.ready()
    data = png()

    def answer(path):
        return httpx.post(f"{service.url}{path}", content=data, timeout=90)

    none = answer("/staging/supersizeme")
    assert none.status_code == 404 and "Expected a challenger in the registry" in none.json()["error"]
    registry.crown("1", "2")
    until(lambda: f"{NAME}/2 stands behind /staging now" in service.log(), service.process)
    staged, served = answer("/staging/supersizeme"), answer("/supersizeme")
    assert [a.headers["Imagesr-Model"] for a in (staged, served)] == [f"{NAME}/2", f"{NAME}/1"]
    assert staged.content != served.content
    assert answer("/staging/supersizeme/?model=mine&scale=4").headers["Imagesr-Model"] == f"{NAME}/2"
    assert answer("/staging/supersizeme?model=fast").status_code == 404
    assert answer("/staging/supersizeme?scale=9").status_code == 422
    assert f'imagesr_staging_version{{model="{NAME}",version="2"}} 1.0' in httpx.get(f"{service.url}/metrics").text
    assert "/staging/supersizeme" in httpx.get(f"{service.url}/openapi.json").json()["paths"]
    registry.crown("2", "2")
    until(lambda: answer("/supersizeme").headers["Imagesr-Model"] == f"{NAME}/2", service.process)
    assert answer("/supersizeme").content == staged.content, "it is the model that stood there"


@pytest.mark.parametrize("options", [["--follow", NAME], ["--staging"]])
def test_options_that_belong_together(options, capsys):
    from imagesr.serve.__main__ import main

    assert main(options) == 2
    assert "Expected --registry URI and --follow NAME_xSCALE together" in capsys.readouterr().err


def test_each_registry_has_a_cache_of_its_own(tmp_path, monkeypatch):
    import imagesr.serve.__main__ as command

    monkeypatch.setattr(command, "_check_mlflow", lambda: None)
    monkeypatch.setenv("IMAGESR_CACHE", str(tmp_path / "cache"))

    def folder(registry):
        return command._champions(SimpleNamespace(registry=registry, follow=[NAME], staging=False)).folder

    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(tmp_path)
    folders = {folder(place) for place in ("http://a:1", "http://b:1", "sqlite:///mlflow.db")}
    assert folder(f"sqlite:///{tmp_path / 'mlflow.db'}") in folders
    monkeypatch.chdir(other)
    folders.add(folder("sqlite:///mlflow.db"))
    assert len(folders) == 4
    assert folder("http://me:password@a:1/") in folders
