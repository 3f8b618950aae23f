"""Saved models as Keras models, and in the layout that Keras reads from a hub."""

import shutil

import numpy as np
import pytest

import imagesr
from imagesr.card import SAVED_MODELS, ModelCard
from imagesr.errors import ModelError

keras = pytest.importorskip("keras", reason="needs Keras (pip install 'imagesr[train]')")


def test_a_shipped_model_by_its_name():
    model = imagesr.models.from_preset("linear", scale=2)
    assert model(np.zeros((1, 8, 8, 1), np.float32)).shape == (1, 16, 16, 1)
    assert imagesr.models.from_preset(SAVED_MODELS / "linear_x1.5").count_params() > 0


@pytest.mark.parametrize(("name", "scale"), [("linear", 7), ("nothing", 2)])
def test_presets_that_there_are_not(name, scale):
    with pytest.raises(ModelError, match="Expected"):
        imagesr.models.from_preset(name, scale=scale)


def test_the_layout_of_a_hub(tmp_path):
    folder = shutil.copytree(SAVED_MODELS / "linear_x2", tmp_path / "linear_x2")
    files = imagesr.models.save_to_preset(folder)
    assert [file.name for file in files] == ["config.json", "metadata.json", "model.weights.h5"]
    assert {file.name for file in files} < set(ModelCard.read(folder).sha256)
    lr = np.random.default_rng(0).random((1, 8, 8, 1), np.float32)
    # What keras.saving.load_model("hf://…") does with the folder that it has downloaded.
    hub = keras.saving.load_model(folder, compile=False)
    assert np.array_equal(hub(lr), imagesr.models.from_preset(folder)(lr))
