"""The service follows a registry: swaps under requests, damaged versions, a registry that is gone."""

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
from imagesr.serve.follow import Champions

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

    def crown(self, number):
        part = self.place / "aliases.part"
        part.write_text(json.dumps({"champion": number}))
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
    assert champions.newest(NAME, but=label) is None
    registry.crown("3")
    with pytest.raises(ModelError, match="Its checksum differs"):
        champions.newest(NAME)
    assert not (tmp_path / "cache" / NAME / "3" / NAME).exists()


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
def service(registry, tmp_path):
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"IMAGESR_CACHE": str(tmp_path / "cache"), "PYTHONPATH": path}
    running = Following("--registry", registry.place, "--follow", NAME, env=env)
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
        for number, count in (("3", 1), ("4", 2)):  # damaged, and one that does not run
            registry.crown(number)
            until(lambda count=count: service.figure("refused_models_total") >= count, service.process)
        (registry.place / "aliases.json").unlink()
        until(lambda: "Expected a tracking server that answers" in service.log(), service.process)
        count = len(seen)
        until(lambda: len(seen) > count + 10, service.process)
        assert {*seen[count + 5 :]} == {f"{NAME}/2"}
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


def test_options_that_belong_together(capsys):
    from imagesr.serve.__main__ import main

    assert main(["--follow", NAME]) == 2
    assert "Expected --registry URI and --follow NAME_xSCALE together" in capsys.readouterr().err
