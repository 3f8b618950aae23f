"""From photographs to a model that runs: train, be interrupted, resume, export, use."""

import re
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from conftest import picture
from PIL import Image

import imagesr
from imagesr.card import ModelCard
from imagesr.datasets.pairs import RandomCrops, load_pairs
from imagesr.images import degrade, find_images, read_rgb
from imagesr.metrics import luma
from imagesr.models.realtime import realtime
from imagesr.scale import Scale
from imagesr.train import Config, collapsed, start_from_linear, train

SCALE = Scale(3, 2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder with four pictures."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(4):
        Image.fromarray(picture(180 + 7 * i, 150, shift=100 * i)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def pairs(photos):
    return load_pairs(find_images([photos]), SCALE)


def config(photos, **options):
    small = {"filters": 4, "blocks": 1, "steps": 6, "batch": 2, "patch": 48}
    return Config(data=(str(photos),), val=(str(photos),), **small | options)


def run_train(*arguments, **options):
    command = [sys.executable, "-m", "imagesr.train", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_pairs_are_aligned_and_reduced(photos):
    (lr, hr), *_ = load_pairs(find_images([photos]), SCALE, sizes=(1.0, 0.7))
    assert lr.dtype == hr.dtype == np.uint8
    assert hr.shape == (150, 180)
    assert lr.shape == (100, 120)
    # Pillow's own reduction of LR's luma: the two agree but for rounding.
    small = np.asarray(Image.fromarray(hr).resize((120, 100), Image.Resampling.BICUBIC), int)
    assert np.abs(small - lr).max() <= 2


def test_crops_are_cut_and_turned_together(pairs):
    crops = RandomCrops(pairs, SCALE, batch=16, patch=48, steps=3, seed=0)
    lr, hr = crops[1]
    assert lr.shape == (16, 32, 32, 1)
    assert hr.shape == (16, 48, 48, 1)
    assert lr.dtype == np.float32
    for small, large in zip(lr, hr, strict=True):
        again = Image.fromarray(large[..., 0]).resize((32, 32), Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(again) - small[..., 0])[2:-2, 2:-2].max() < 0.02
    np.testing.assert_array_equal(crops[1][0], lr)
    crops.epoch = 1
    assert not np.array_equal(crops[1][0], lr)


def test_degrade_crops_to_a_multiple():
    lr, hr = degrade(picture(50, 41), SCALE)
    assert hr.shape == (39, 48, 3)
    assert lr.shape == (26, 32, 3)


def test_training_starts_from_the_linear_filter(pairs):
    model = realtime(SCALE, filters=4, blocks=1)
    start_from_linear(model, RandomCrops(pairs, SCALE, batch=8, patch=48, steps=20, seed=0))
    anchor = model.get_layer("anchor").get_weights()[0]
    assert anchor.sum((0, 1, 2)) == pytest.approx(1, abs=0.02)  # it keeps grey
    lr, hr = pairs[0]
    sr = keras.ops.convert_to_numpy(model(lr[None, ..., None] / np.float32(255)))[0, ..., 0] * 255
    lanczos = np.asarray(Image.fromarray(lr).resize(hr.shape[::-1], Image.Resampling.LANCZOS), float)
    assert np.mean((sr - hr) ** 2) < np.mean((lanczos - hr) ** 2)


def test_a_collapsed_network_computes_the_same(photos):
    settings = config(photos)
    model = realtime(SCALE, filters=settings.filters, blocks=settings.blocks)
    lr = np.random.default_rng(0).random((1, 20, 26, 1), np.float32)
    np.testing.assert_allclose(collapsed(model, settings)(lr), model(lr), atol=1e-5)


def test_a_run_goes_from_photographs_to_a_video(photos, tmp_path, clip):
    run = tmp_path / "run"
    done = run_train(
        "--data", photos, "--val", photos, "--out", run, "--filters", 4, "--blocks", 1, "--steps", 20, "--batch", 2
    )
    assert done.returncode == 0, done.stderr
    before, after = map(float, re.findall(r"PSNR-Y.*?([\d.]+) dB", done.stdout))
    assert after > before - 0.5
    assert {"config.json", "history.csv", "model.keras", "checkpoints"} <= {path.name for path in run.iterdir()}

    from imagesr.export import main

    arguments = [run, "--name", "mine", "--folder", tmp_path, "--calibrate", photos, "--measure", f"photos={photos}"]
    assert main([*map(str, arguments), "--data", "waves=CC0-1.0"]) == 0
    card = ModelCard.read(tmp_path / "mine_x1.5")
    assert card.parameters == (4 * 4 * 9 + 4) * 2 + 4 * 9 * 9 + 9 + 4 * 25 * 9
    assert card.multiply_accumulates == (4 * 4 * 9 * 2 + 4 * 9 * 9 + 4 * 25 * 9) / 4
    assert card.receptive_field == 14
    assert card.data == [{"name": "waves", "licence": "CC0-1.0"}]
    assert str(photos.parent) not in (card.folder / "card.json").read_text()
    report = imagesr.upscale_video(clip, tmp_path / "out.mp4", model=str(card.folder), precision="int8")
    assert report.frames == 12


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("imagesr.train.STEPS_PER_EPOCH", 4)
    settings = config(photos, steps=16)
    whole = train(settings, tmp_path / "whole")

    class StopError(Exception):
        pass

    def stop(self, epoch, logs=None):
        if epoch == 2:
            self.csv_file.close()
            raise StopError

    with monkeypatch.context() as patch, pytest.raises(StopError):
        patch.setattr(keras.callbacks.CSVLogger, "on_epoch_begin", stop)
        train(settings, tmp_path / "parts")
    resumed = train(settings, tmp_path / "parts")
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_killed_run_resumes_by_its_folder(photos, tmp_path):
    run = tmp_path / "run"
    options = ["--filters", 4, "--blocks", 1, "--steps", 1000, "--batch", 1, "--patch", 48]
    command = [sys.executable, "-m", "imagesr.train", "--data", photos, "--val", photos, "--out", run, *options]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not (run / "checkpoints" / "training_metadata.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "model.keras").exists()
    done = run_train("--resume", "--out", run)
    assert done.returncode == 0, done.stderr
    assert "Epoch 2/2" in done.stdout
    assert "Epoch 1/2" not in done.stdout
    assert (run / "model.keras").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "none", "--val", "none"], "folder with pictures"),
        (["--data", "PHOTOS", "--val", "PHOTOS", "--patch", "50"], "multiple of 3"),
        (["--data", "PHOTOS", "--val", "PHOTOS", "--patch", "300"], "at least 300"),
        (["--data", "PHOTOS", "--val", "PHOTOS", "--steps", "0"], "above 0"),
        (["--data", "PHOTOS", "--val", "PHOTOS", "--scale", "4/3"], "multiple of 1/2"),
        (["--data", "PHOTOS", "--val", "PHOTOS", "--scale", "big"], "scale"),
        (["--data", "PHOTOS"], "--val"),
        (["--resume"], "config"),
        (["--resume", "--steps", "5"], "leave out --steps"),
    ],
)
def test_bad_requests_are_one_line(photos, tmp_path, arguments, words, capfd):
    from imagesr.train import main

    given = [argument.replace("PHOTOS", str(photos)) for argument in arguments]
    try:
        code = main([*given, "--out", str(tmp_path / "run")])
    except SystemExit as exit:
        code = exit.code
    lines = capfd.readouterr().err.strip().splitlines()
    assert code == 2
    assert words in lines[-1]
    assert not (tmp_path / "run").exists()


def test_a_picture_that_does_not_decode(photos, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"bad\.png"):
        load_pairs(find_images([tmp_path]), SCALE)


def test_exif_orientation_is_applied(tmp_path):
    image = Image.fromarray(picture(30, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    assert read_rgb(tmp_path / "turned.png").shape == (30, 20, 3)


def test_luma_is_what_is_trained_on(photos, pairs):
    path = find_images([photos])[0]
    np.testing.assert_array_equal(pairs[0][1], luma(degrade(read_rgb(path), SCALE)[1]))
