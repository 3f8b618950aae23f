"""Saved models of a run: made once, and again where something else is asked for; versions that never change."""

import dataclasses
import shutil
import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from imagesr.card import SAVED_MODELS, ModelCard
from imagesr.mlops.promote import exported
from imagesr.mlops.registry import register


@pytest.fixture
def run(tmp_path):
    """Return a run that has a network."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.keras").write_text("network")
    return folder


@pytest.fixture
def exports(monkeypatch):
    """Replace the export by a copy of a shipped model; return the pictures that it was called with."""
    calls = []

    def export(run, name, folder, *, calibration):
        calls.append([file.name for file in calibration])
        made = folder / f"{name}_x1.5"
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(SAVED_MODELS / "fast_x1.5", made)
        return dataclasses.replace(ModelCard.read(SAVED_MODELS / "fast_x1.5"), folder=made)

    module = ModuleType("imagesr.export.export")
    module.export = export
    monkeypatch.setitem(sys.modules, "imagesr.export.export", module)
    monkeypatch.setattr("imagesr.models.import_keras", lambda: None)
    return calls


def test_other_pictures_for_int8_make_another_model(run, exports, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(photos / "a.png")
    for _ in range(2):
        exported(run, "mine", [])
    assert exports == [[]]
    for _ in range(2):
        exported(run, "mine", [photos])
    assert exports == [[], ["a.png"]]
    Image.fromarray(np.ones((8, 8, 3), np.uint8)).save(photos / "a.png")
    exported(run, "mine", [photos])
    (run / "model.keras").write_text("another")
    exported(run, "mine", [photos])
    exported(run, "mine", [])
    assert exports == [[], ["a.png"], ["a.png"], ["a.png"], []]


@dataclasses.dataclass
class Version:
    """Name a version, as the registry does."""

    name: str
    number: str
    tags: dict
    folder: str


class Registry:
    """Keep what a registry keeps."""

    def __init__(self):
        self.files, self.made = {}, []

    def versions(self, name):
        return self.made

    def upload(self, run, file, folder=""):
        for one in file.iterdir():
            self.files[f"{run}/{folder}/{one.name}"] = one.read_bytes()

    def register(self, name, run, folder, tags):
        self.made.append(Version(name, str(len(self.made) + 1), tags, f"{run}/{folder}"))
        return self.made[-1]

    def content(self, version):
        return {name: data for name, data in self.files.items() if name.startswith(f"{version.folder}/")}


def test_a_version_never_changes(tmp_path):
    server = Registry()
    folder = shutil.copytree(SAVED_MODELS / "fast_x1.5", tmp_path / "mine_x1.5")
    first = register(server, "run", ModelCard.read(folder))
    assert register(server, "run", ModelCard.read(folder)) is first, "the same model of the same run"
    before = server.content(first)
    assert before
    (folder / "model_int8.onnx").write_bytes(b"calibrated otherwise")
    dataclasses.replace(ModelCard.read(SAVED_MODELS / "fast_x1.5"), folder=folder).write()
    second = register(server, "run", ModelCard.read(folder))
    assert (second.number, server.content(first)) == ("2", before)
    assert server.content(second) != before
