"""Measure a model from Python: by its name, its folder, its file, and as it stands in memory."""

import json

import keras
import numpy as np
import pytest
from conftest import picture, write_clip
from PIL import Image

import imagesr
from imagesr.errors import ModelError
from imagesr.evaluate import protocol
from imagesr.scale import Scale


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return a folder of two pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, size in (("a", (101, 73)), ("<b>", (140, 97))):
        Image.fromarray(picture(*size)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def model():
    """Return a compiled network at x2, as it stands in training."""
    model = imagesr.models.build("edsr_baseline", scale=2, filters=4, blocks=1)
    model.compile(keras.optimizers.Adam(use_ema=True), "mse")
    return model


def test_a_shipped_name_gives_what_the_protocol_gives(pictures):
    result = imagesr.evaluate.evaluate("fast-photo", str(pictures), scale=2)
    files = sorted(pictures.iterdir())
    wanted = protocol.evaluate(protocol.upscaler("fast-photo", Scale(2)), files, Scale(2))
    assert {key: result[key] for key in wanted} == wanted
    assert (result["model"], result["scale"]) == ("fast-photo", "2")
    assert json.loads(json.dumps(result)) == result
    assert imagesr.evaluate.evaluate("bicubic", [files[0]])["scale"] == "1.5"


def test_a_model_in_memory_gives_what_its_file_gives(pictures, model, tmp_path):
    result = imagesr.evaluate.evaluate(model, pictures)
    (tmp_path / "run").mkdir()
    model.save(tmp_path / "run" / "model.keras")
    for place in (tmp_path / "run" / "model.keras", str(tmp_path / "run")):
        of_file = imagesr.evaluate.evaluate(place, pictures)
        assert of_file["psnr_y"] == pytest.approx(result["psnr_y"], abs=1e-3)
        assert of_file["model"] == "run"
    assert (result["scale"], result["precision"]) == ("2", "fp32")
    assert len(result["images"]) == 2
    assert model.optimizer is not None  # as it was


def test_a_result_shows_itself_as_a_table(pictures):
    result = imagesr.evaluate.evaluate("bicubic", pictures, 2)
    lines = str(result).splitlines()
    assert lines[0].split() == ["bicubic", "x2", "PSNR-Y", "SSIM-Y", "PSNR-RGB"]
    assert [line.split()[0] for line in lines[1:]] == ["<b>.png", "a.png", "mean"]
    assert lines[-1].split()[3] == f"{result['psnr_y']:.2f}"
    table = result._repr_html_()
    assert table.count("<tr>") == 4
    assert "&lt;b&gt;.png" in table
    assert f"<td>{result['ssim_y']:.4f}</td>" in table


def test_what_cannot_be_measured(pictures, model, tmp_path):
    evaluate = imagesr.evaluate.evaluate
    with pytest.raises(ModelError, match="scale of edsr"):
        evaluate(model, pictures, scale=3)
    with pytest.raises(ModelError, match="from LR to SR"):
        evaluate(np.zeros(3), pictures)
    with pytest.raises(ValueError, match="none at"):
        evaluate("bicubic", tmp_path / "nothing")
    with pytest.raises(ValueError, match="measures clips"):
        evaluate("bicubic", write_clip(tmp_path / "a.mp4", sound=None))
    with pytest.raises(ValueError, match="kernel"):
        evaluate("bicubic", pictures, kernel="box")
