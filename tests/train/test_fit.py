"""Train models and data of one's own from Python: `fit`, `RunFolder`, `PSNR`, and losses by name."""

import csv
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import picture, slow
from PIL import Image

import imagesr
from imagesr.errors import TrainingError
from imagesr.metrics.fidelity import psnr
from imagesr.pixels import luma
from imagesr.train.loop import run_epochs
from imagesr.train.losses import LOSSES


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder with two pictures."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(2):
        Image.fromarray(picture(112, 100, shift=100 * i)).save(folder / f"{i}.png")
    return folder


def load(photos, split="train", **options):
    options = {"patch": 32, "batch": 2, "steps": 3, "channels": 1} | options
    return imagesr.datasets.load("folder", photos, scale=2, split=split, **options)


def small(seed=0):
    keras.utils.set_random_seed(seed)
    return imagesr.models.build("edsr_baseline", scale=2, filters=4, blocks=1, channels=1)


def rows(run):
    with (run / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_importing_train_loads_no_keras():
    code = "import imagesr.train, sys; imagesr.train; print(dir(imagesr.train)); assert 'keras' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "RunFolder" in done.stdout
    with pytest.raises(AttributeError, match=r"imagesr\.train.*nothing"):
        imagesr.train.nothing  # noqa: B018


def test_tensorflow_writes_nothing_of_its_own():
    code = "import imagesr; imagesr.models.build('espcn', 2).predict_on_batch(__import__('numpy').zeros((1, 8, 8, 1)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_fit_is_resumed_and_made_longer_as_if_it_had_run_through(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("imagesr.train.loop.EPOCH", 4)
    # A schedule that does not depend on the length, so that a longer run is the same run.
    runs = {}
    for name in ("through", "parts"):
        model = small()
        model.compile(keras.optimizers.Adam(1e-3, use_ema=True), "log_mse", metrics=[imagesr.train.PSNR(shave=2)])
        lengths = (10,) if name == "through" else (6, 10)
        for steps in lengths:
            history = imagesr.train.fit(
                model, load(photos), load(photos, "val"), out=tmp_path / name, steps=steps, verbose=0
            )
            if steps == 6:
                model = small(1)
                model.compile(
                    keras.optimizers.Adam(1e-3, use_ema=True), "log_mse", metrics=[imagesr.train.PSNR(shave=2)]
                )
        runs[name] = model.get_weights()
        assert {"loss", "psnr", "val_loss", "val_psnr", "learning_rate"} <= set(history.history)
    assert "going on from step 6" in capsys.readouterr().out
    for a, b in zip(*runs.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    assert [row["step"] for row in rows(tmp_path / "parts")] == ["4", "6", "10"]
    saved = keras.saving.load_model(tmp_path / "parts" / "model.keras")
    np.testing.assert_array_equal(saved.get_weights()[0], runs["parts"][0])
    done = imagesr.train.fit(model, load(photos), out=tmp_path / "parts", steps=10, verbose=0)
    assert done.history == {}
    np.testing.assert_array_equal(model.get_weights()[0], runs["parts"][0])


def test_fit_compiles_a_model_that_is_not(photos, tmp_path, capsys):
    model = small()
    train = tf.data.Dataset.from_tensors((np.zeros((2, 8, 8, 1), "f4"), np.zeros((2, 16, 16, 1), "f4")))
    history = imagesr.train.fit(model, train, load(photos, "val"), out=tmp_path / "run", steps=2, loss="charbonnier")
    assert model.optimizer.use_ema
    assert len(history.history["val_psnr"]) == 1
    told = capsys.readouterr().out
    assert "before the first step: loss" in told
    assert re.search(r"PSNR-Y \d+\.\d\d dB, [+-]\d+\.\d\d dB over the start: .*model\.keras", told)
    assert (tmp_path / "run/statistics/val_psnr.png").exists()
    # Longer, with a schedule for the new length.
    imagesr.train.fit(model, train, out=tmp_path / "run", steps=4, verbose=0)
    assert [row["step"] for row in rows(tmp_path / "run")] == ["2", "4"]
    assert rows(tmp_path / "run")[1]["val_loss"] == "nan"
    with pytest.raises(ValueError, match=r"Expected the network of the run in .*run"):
        imagesr.train.fit(imagesr.models.build("espcn", scale=2), train, out=tmp_path / "run", steps=9, verbose=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"steps": 0}, "at least 1 step"), ({"loss": "l1"}, "a loss"), ({"train": [1]}, "Received: list")],
)
def test_what_fit_cannot_train(options, words, photos, tmp_path):
    given = {"train": load(photos)} | options
    with pytest.raises(ValueError, match=words):
        imagesr.train.fit(small(), **given, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fit_stops_where_a_loss_is_no_number(photos, tmp_path):
    model = small()
    model.compile(keras.optimizers.SGD(1e30), "mse")
    with pytest.raises(TrainingError, match="lower learning rate"):
        imagesr.train.fit(model, load(photos), out=tmp_path / "run", steps=6, verbose=0)
    assert not (tmp_path / "run" / "model.keras").exists()


@pytest.mark.parametrize("policy", ["float32", *(slow(f"mixed_{n}") for n in ("float16", "bfloat16"))])
def test_a_run_folder_alone(policy, photos, tmp_path, capsys):
    def model():
        keras.config.set_dtype_policy(policy)
        try:
            return small()
        finally:
            keras.config.set_dtype_policy("float32")

    first, run = model(), tmp_path / "run"
    for _ in range(2):  # the steps are counted on
        if not first.compiled:
            first.compile("adam", loss=imagesr.train.losses.log_mse, metrics=[imagesr.train.PSNR(shave=2)])
        first.fit(load(photos), epochs=2, verbose=0, shuffle=False, callbacks=[imagesr.train.RunFolder(run)])
    assert [row["step"] for row in rows(run)] == ["3", "6", "9", "12"]
    assert keras.saving.load_model(run / "model.keras").dtype == "float32"
    second = model()
    second.compile("adam", loss="log_mse", metrics=[imagesr.train.PSNR(shave=2)])
    second.fit(load(photos), epochs=1, verbose=0, shuffle=False, callbacks=[imagesr.train.RunFolder(run)])
    assert "going on from step 12" in capsys.readouterr().out
    assert rows(run)[-1]["step"] == "15"


def test_a_model_keeps_its_loss_and_metric_in_a_file(photos, tmp_path):
    for loss in ("log_mse", LOSSES["charbonnier"]):
        model = small()
        model.compile("adam", loss, metrics=[imagesr.train.PSNR(shave=2)])
        model.optimizer.build(model.trainable_variables)
        before = model.evaluate(load(photos, "val"), verbose=0)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert again.evaluate(load(photos, "val"), verbose=0) == pytest.approx(before, rel=1e-5)


def test_psnr_is_that_of_the_papers():
    hr = np.stack([picture(40, 30), picture(40, 30, shift=50)])
    sr = np.clip(hr + np.random.default_rng(0).integers(-9, 9, hr.shape), 0, 255).astype(np.uint8)
    metric = imagesr.train.PSNR(shave=3)
    metric.update_state(hr[:1] / np.float32(255), sr[:1] / np.float32(255))
    metric.update_state(hr[1:] / np.float32(255), sr[1:] / np.float32(255))
    wanted = np.mean([psnr(luma(a), luma(b), shave=3) for a, b in zip(hr, sr, strict=True)])
    assert float(metric.result()) == pytest.approx(wanted, abs=5e-3)
    grey = imagesr.train.PSNR()
    grey.update_state(hr[..., :1] / np.float32(255), hr[..., :1] / np.float32(255))
    assert float(grey.result()) == pytest.approx(100, abs=1e-3)


def test_a_network_of_ones_own_starts_from_the_linear_filter(photos):
    model = imagesr.models.build("realtime", scale=2, filters=4, blocks=1)
    val = load(photos, "val")
    model.compile("adam", "mse", metrics=[imagesr.train.PSNR(shave=2)])
    before = model.evaluate(val, verbose=0, return_dict=True)["psnr"]
    imagesr.train.start_from_linear(model, load(photos), 4)
    assert model.evaluate(val, verbose=0, return_dict=True)["psnr"] > before + 1
    with pytest.raises(ValueError, match="linear anchor"):
        imagesr.train.start_from_linear(small(), load(photos))


@pytest.mark.parametrize(
    ("terminal", "notebook", "verbose"), [(False, False, 2), (True, False, 1), (False, True, 1)], ids=str
)
def test_terminals_and_notebooks_show_a_bar(terminal, notebook, verbose, monkeypatch):
    given = {}

    class Trainer:
        def fit(self, data, **options):
            given.update(options)
            return keras.callbacks.History()

    monkeypatch.setattr(keras.callbacks.History, "history", {}, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    run_epochs(Trainer(), None, done=0, steps=1, callbacks=[])
    assert given["verbose"] == verbose
