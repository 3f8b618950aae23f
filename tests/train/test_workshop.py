"""What happens to people who train: a full disk, spoiled pictures, odd names, another Keras than ours."""

import importlib.util
import resource

import keras
import numpy as np
import pytest
from conftest import picture, run_python
from PIL import Image

import imagesr
from imagesr.datasets import DataSource
from imagesr.engines.keras import read_network
from imagesr.errors import ModelError, together
from imagesr.evaluate.__main__ import main as evaluate
from imagesr.train.__main__ import main

TINY = ["--steps", "2", "--batch", "2", "--patch", "48"]


@pytest.fixture
def photos(tmp_path):
    """Return a folder with two pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(picture(112, 100, shift=100 * i)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def full_disk():
    """Return a function that makes the disk full for files above a size: each ends there, as a limit of its size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size=before[0]: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_at_a_checkpoint(photos, tmp_path, full_disk, capfd):
    run = tmp_path / "run"
    arguments = [*TINY, "--data", str(photos), "--val", str(photos), "--architecture", "filters=16", "blocks=2"]
    full_disk(30_000)
    assert main([*arguments, "--out", str(run)]) == 4
    full_disk()
    told = capfd.readouterr().err.splitlines()
    assert told == [f"imagesr train: disk full (or a limit of file sizes); go on with --resume --out {run}"]
    assert not [*run.rglob("*.part*")]
    assert not [*(run / "checkpoints").iterdir()]
    assert main(["--resume", "--out", str(run)]) == 0
    assert (run / "model.keras").exists()


def test_a_full_disk_is_told_by_fit(photos, tmp_path, full_disk):
    model = imagesr.models.build("edsr_baseline", scale=2, filters=16, blocks=2)
    train = imagesr.datasets.load("folder", photos, scale=2, patch=48, batch=2)
    full_disk(30_000)
    with pytest.raises(OSError, match="too large"):
        imagesr.train.fit(model, train, out=tmp_path / "run", steps=2, verbose=0)
    full_disk()
    assert not [*tmp_path.rglob("*.part*")]
    assert len(imagesr.train.fit(model, train, out=tmp_path / "run", steps=2, verbose=0).history["loss"]) == 1


def spoil(photos):
    """Put five pictures into a folder that cannot be trained on; return their names."""
    whole = (photos / "0.png").read_bytes()
    (photos / "text.png").write_bytes(b"no picture")
    (photos / "half.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(picture(30, 30)).save(photos / "small.png")
    Image.fromarray(picture(112, 100)).convert("L").save(photos / "grey.png")
    Image.fromarray(np.zeros((112, 100), np.uint16)).save(photos / "deep.png")
    return ["text", "half", "small", "grey", "deep"]


def test_all_bad_files_are_named_at_once(photos, tmp_path, capsys):
    names = spoil(photos)
    out = tmp_path / "run"
    assert main([*TINY, "--data", str(photos), "--val", str(photos), "--out", str(out)]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    for name in names:
        assert f"{name}.png" in told
    assert "0.png" not in told
    assert told.count("Expected RGB pictures of 8 bits") == 1
    assert not out.exists()
    # A grey picture can be measured on.
    assert evaluate(["--model", "lanczos", "--data", str(photos)]) == 2
    told = capsys.readouterr().err
    assert all(f"{name}.png" in told for name in ("text", "half", "deep"))
    assert "grey.png" not in told


def test_errors_are_put_together():
    assert together(["Expected a. Received: b", "Broken", "Expected a. Received: c"]) == (
        "Expected a. Received: b; c. Broken"
    )


@pytest.mark.parametrize(
    ("text", "there", "read"),
    [
        ("a=b", ["a=b"], ("folder", "a=b", None)),
        ("a=b@2", ["a=b"], ("folder", "a=b", 2)),
        ("set@2", ["set@2"], ("folder", "set@2", None)),
        ("folder=set@2", ["set@2"], ("folder", "set@2", None)),
        ("folder=set@2@3", ["set@2"], ("folder", "set@2", 3)),
        ("folder=set@2", ["set"], ("folder", "set", 2)),
        ("./film=x", ["film=x"], ("folder", "film=x", None)),
        ("film=x", ["x"], ("film", "x", None)),
        ("film=x@0.5", [], ("film", "x", 0.5)),
        ("me@home", [], ("folder", "me@home", None)),
    ],
)
def test_folders_that_exist_are_taken_by_their_name(text, there, read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in there:
        (tmp_path / name).mkdir()
    source = DataSource.parse(text)
    assert (source.name, str(source.place), source.weight) == read
    assert DataSource.parse(str(source.absolute())) == source.absolute()


def test_a_folder_with_an_odd_name_is_trained_on(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    odd = photos.rename(tmp_path / "a=b@2")
    options = ["--architecture", "filters=4", "blocks=1", "--out", "run"]
    assert main([*TINY, "--data", "a=b@2", "--val", f"folder={odd}", *options]) == 0
    assert "2 pictures to train on" in capsys.readouterr().out


def test_channels_first_is_named(photos, tmp_path, capsys):
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match=r"Expected .*channels_last.* Received: channels_first"):
            imagesr.models.build("espcn", scale=2)
        assert main([*TINY, "--data", str(photos), "--val", str(photos), "--out", str(tmp_path / "run")]) == 2
        assert "Received: channels_first" in capsys.readouterr().err
    finally:
        keras.config.set_image_data_format("channels_last")
    lr = keras.Input((1, 16, 16))
    sr = keras.layers.UpSampling2D(2, data_format="channels_first")(lr)
    keras.Model(lr, sr).save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match="channels first"):
        read_network(tmp_path / "model.keras")


def test_a_backend_that_is_not_installed_is_named(photos, tmp_path):
    if importlib.util.find_spec("torch"):
        pytest.skip("PyTorch is installed")
    command = ["-m", "imagesr.train", *TINY, "--data", photos, "--val", photos, "--out", tmp_path / "run"]
    done = run_python(*command, environment={"KERAS_BACKEND": "torch"})
    assert done.returncode == 2
    assert done.stderr.startswith("imagesr train: Keras's backend is torch, which is not installed: pip install torch")
    assert done.stderr.count("\n") == 1


def test_a_backend_that_does_not_train_is_named(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    assert main([*TINY, "--data", str(photos), "--val", str(photos), "--out", str(tmp_path / "run")]) == 2
    assert "Expected KERAS_BACKEND to be tensorflow, jax or torch" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class Sharpened(keras.layers.Layer):
    """A layer of one's own, which loading a file does not know."""

    def call(self, x):
        return 1.0 * x


def test_a_custom_layer_is_named(photos, tmp_path, capsys):
    lr = keras.Input((None, None, 1))
    model = keras.Model(lr, keras.layers.UpSampling2D(2)(Sharpened()(lr)))
    model.save(tmp_path / "mine.keras")
    arguments = ["--model", str(tmp_path / "mine.keras"), "--scale", "2", "--data", str(photos)]
    assert evaluate(arguments) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert "Received: Sharpened. In Python, load it by keras.saving.load_model(FILE, custom_objects" in told
    # As the sentence says.
    again = keras.saving.load_model(tmp_path / "mine.keras", custom_objects={"Sharpened": Sharpened})
    assert imagesr.evaluate.evaluate(again, photos)["psnr_y"] > 10
    (tmp_path / "none.keras").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="Expected a Keras network"):
        read_network(tmp_path / "none.keras")
