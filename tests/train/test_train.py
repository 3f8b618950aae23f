"""From photographs to a model that runs: train, be interrupted, resume, export, use."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import get_args

import keras
import numpy as np
import pytest
from conftest import SMALL, picture, run_command, slow
from PIL import Image

import imagesr
from imagesr.card import ModelCard
from imagesr.datasets import DATASETS
from imagesr.datasets.crops import RandomCrops
from imagesr.datasets.pairs import load_pairs
from imagesr.errors import TrainingError
from imagesr.media.images import read_rgb
from imagesr.metrics.fidelity import ssim
from imagesr.models import MODELS, OWN_SCALES
from imagesr.models.realtime import realtime
from imagesr.scale import Scale
from imagesr.train.__main__ import _parser, main
from imagesr.train.config import Config
from imagesr.train.loop import EPOCH
from imagesr.train.losses import LOSSES
from imagesr.train.start import start_from_linear, warm_start
from imagesr.train.training import Run, train

SCALE = Scale(3, 2)


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Leave out the timing of 30 frames, 3 seconds of every run, and the curves; one test has the whole."""
    if request.function is not test_a_run_goes_from_photographs_to_a_video:
        monkeypatch.setattr("imagesr.train.plots.draw_curves", lambda *_: None)
        monkeypatch.setattr("imagesr.models.cost.seconds_30_frames", lambda model: (1.0, "not measured"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder with four pictures."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(4):
        Image.fromarray(picture(180 + 7 * i, 150, shift=100 * i)).save(folder / f"{i}.png")
    return folder


def config(photos, **options):
    small = {"architecture": {"filters": 4, "blocks": 1}, "steps": 6, "batch": 2, "patch": 48}
    return Config(data=(f"folder={photos}",), val=(f"folder={photos}",), **small | options)


def history(run):
    with (run / "history.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def started_by(code):
    """Return the command line of `imagesr train` in which `code` runs first."""
    start = "import sys, imagesr.train.__main__ as command"
    return [sys.executable, "-c", f"{start}\n{code}\nsys.exit(command.main(sys.argv[1:]))"]


def epochs_of(steps):
    """Return code that makes the epochs of a run shorter."""
    return f"import imagesr.train.loop\nimagesr.train.loop.EPOCH = {steps}"


def run_train(*arguments, code=None, env=(), **options):
    """Run the command in a process of its own; `code` runs first, in the same process."""
    start = started_by(code) if code else [sys.executable, "-m", "imagesr.train"]
    settings = {"capture_output": True, "text": True, "timeout": 600, "env": os.environ | dict(env)} | options
    return subprocess.run([*start, *map(str, arguments)], **settings)


def test_training_starts_from_the_linear_filter(photos):
    pairs = load_pairs(DATASETS["folder"](photos, SCALE, "train"), SCALE)
    model = realtime(SCALE, filters=4, blocks=1)
    start_from_linear(model, RandomCrops([(pairs, 1)], SCALE, batch=8, size=(48, 48), steps=20), batches=20)
    anchor = model.get_layer("anchor").get_weights()[0]
    assert anchor.sum((0, 1, 2)) == pytest.approx(1, abs=0.02)  # it keeps grey
    lr, hr = pairs[0]
    sr = keras.ops.convert_to_numpy(model(lr[None, ..., None] / np.float32(255)))[0, ..., 0] * 255
    lanczos = np.asarray(Image.fromarray(lr).resize(hr.shape[::-1], Image.Resampling.LANCZOS), float)
    assert np.mean((sr - hr) ** 2) < np.mean((lanczos - hr) ** 2)


def test_no_step_at_all_leaves_the_linear_filter(photos, tmp_path):
    settings = config(photos, model="linear", architecture={}, steps=0)
    model = train(settings, tmp_path / "run")
    run = Run(settings, tmp_path / "other")
    assert run.validation.psnr_y(model) > run.validation.bicubic + 0.3


def test_a_run_goes_from_photographs_to_a_video(photos, tmp_path, clip):
    run = tmp_path / "run"
    options = ["--architecture", "filters=4", "blocks=1", "--steps", 20, "--batch", 2]
    done = run_command("train", "--data", f"folder={photos}", "--val", photos, "--out", run, *options)
    assert done.returncode == 0, done.stderr
    bicubic, before = map(
        float, re.search(r"PSNR-Y of bicubic ([\d.]+) dB, before .* ([\d.]+) dB", done.stdout).groups()
    )
    after = float(re.search(r"PSNR-Y ([\d.]+) dB, [\d,]+ parameters", done.stdout)[1])
    assert before > bicubic
    assert after > bicubic
    assert "The network starts as the best linear filter" in done.stdout
    gain, over = map(
        float, re.search(r"PSNR-Y ([+-][\d.]+) dB over the start, ([+-][\d.]+) dB over", done.stdout).groups()
    )
    assert (gain, over) == pytest.approx((after - before, after - bicubic), abs=0.02)
    assert {path.name for path in run.iterdir()} == {
        *("config.json", "history.csv", "checkpoints", "statistics", "model.keras", "training.weights.h5"),
        *("benchmark.json", "start.json"),
    }
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["000000020.weights.h5"]
    benchmark = json.loads((run / "benchmark.json").read_text())
    assert benchmark["parameters"] == 4 * 4 * 9 * 2 + 4 * 9 * 9 + 4 + 4 + 9 + 4 * 25 * 9
    assert benchmark["psnr_y"] == pytest.approx(after, abs=0.01)
    assert benchmark["seconds_30_frames"] > 0
    assert [list(row) for row in history(run)] == [["step", "loss", "psnr_y", "learning_rate"]]
    for name in ("loss", "psnr_y", "learning_rate", "samples"):
        drawn = np.asarray(Image.open(run / "statistics" / f"{name}.png").convert("RGB"))
        assert drawn.std() > 5, f"{name}.png is empty"

    from imagesr.export.__main__ import main

    arguments = [run, "--name", "mine", "--folder", tmp_path, "--calibrate", photos, "--measure", f"photos={photos}"]
    assert main([*map(str, arguments), "--data", "waves=CC0-1.0"]) == 0
    card = ModelCard.read(tmp_path / "mine_x1.5")
    assert card.parameters == benchmark["parameters"]
    assert card.multiply_accumulates == (4 * 4 * 9 * 2 + 4 * 9 * 9 + 4 * 25 * 9) / 4
    assert card.receptive_field == 14
    assert card.data == [{"name": "waves", "licence": "CC0-1.0"}]
    assert str(photos.parent) not in (card.folder / "card.json").read_text()
    report = imagesr.upscale_video(clip, tmp_path / "out.mp4", model=str(card.folder), precision="int8")
    assert report.frames == 12


@pytest.mark.parametrize("model", ["espcn", slow("srresnet")])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("imagesr.train.loop.EPOCH", 4)
    settings = config(photos, steps=18, model=model, scale="2", architecture=SMALL.get(model, {}))
    whole = train(settings, tmp_path / "whole")
    assert [row["step"] for row in history(tmp_path / "whole")] == [4, 8, 12, 16, 18]

    class StopError(Exception):
        pass

    def stop(self, step):
        if step >= 10:
            raise StopError
        return numbered(self, step)

    numbered = RandomCrops.numbered
    with monkeypatch.context() as patch, pytest.raises(Exception, match="StopError"):
        patch.setattr(RandomCrops, "numbered", stop)
        train(settings, tmp_path / "parts")
    # As if killed after the row was written and before the checkpoint.
    with (tmp_path / "parts" / "history.csv").open("a") as file:
        file.write("12,0.1,1.0,0.1\n16,0.")
    resumed = train(settings, tmp_path / "parts")
    for key in ("step", "loss", "psnr_y", "learning_rate"):
        curves = [[row[key] for row in history(tmp_path / name)] for name in ("whole", "parts")]
        assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes_by_its_folder(photos, tmp_path):
    run = tmp_path / "run"
    few = epochs_of(40)
    options = ["--architecture", "filters=4", "blocks=1", "--steps", 200, "--batch", 1, "--patch", 48]
    options = ["--data", photos, "--val", photos, "--out", run, *options]

    def killed_when(there, arguments):
        command = [*started_by(few), *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 600
        while not there() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()

    killed_when((run / "config.json").exists, options)  # before there is a checkpoint
    assert not list(run.glob("checkpoints/0*"))
    killed_when(lambda: list(run.glob("checkpoints/*.part*")), ["--resume", "--out", run])  # while one is written
    killed_when(lambda: list(run.glob("checkpoints/0000000[4-9]0.weights.h5")), ["--resume", "--out", run])
    done_before = max(int(path.name[:9]) for path in run.glob("checkpoints/?????????.weights.h5"))
    assert not (run / "model.keras").exists()
    done = run_train("--resume", "--out", run, code=few)
    assert done.returncode == 0, done.stderr
    assert f"going on from step {done_before} of 200" in done.stdout
    assert [row["step"] for row in history(run)] == [40, 80, 120, 160, 200]
    assert (run / "model.keras").exists()


@pytest.mark.slow
def test_two_devices_compute_what_one_does(photos, tmp_path):
    few = epochs_of(3)
    two = (
        "import tensorflow as tf\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)\n"
        "one = tf.distribute.MirroredStrategy\n"
        "tf.distribute.MirroredStrategy = lambda: one(['CPU:0', 'CPU:1'])\n"
    )
    options = ["--data", photos, "--val", photos, "--architecture", "filters=4", "blocks=1", "--steps", 6, "--batch", 4]
    for name, code, more in (("one", few, ()), ("two", two + few, ("--strategy", "mirrored"))):
        done = run_train(*options, "--patch", 48, "--out", tmp_path / name, *more, code=code)
        assert done.returncode == 0, done.stderr
    one, two = ([row["loss"] for row in history(tmp_path / name)] for name in ("one", "two"))
    assert len(one) == 2
    assert one == pytest.approx(two, rel=1e-5)
    one, two = ([row["psnr_y"] for row in history(tmp_path / name)] for name in ("one", "two"))
    assert one == pytest.approx(two, abs=0.02)


@pytest.mark.slow  # tests/datasets has a training step on JAX
def test_jax_trains_without_tensorflow(photos, tmp_path):
    blocked = "sys.modules['tensorflow'] = None"
    options = ["--data", photos, "--val", photos, "--architecture", "filters=4", "blocks=1", "--steps", 8, "--batch", 2]
    few = f"{blocked}\n{epochs_of(5)}"
    jax = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = run_train(*options, "--patch", 48, "--out", tmp_path / "jax", code=few, env=jax)
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in history(tmp_path / "jax")] == [5, 8]
    # The file is Keras's, whatever trained it.
    model = keras.saving.load_model(tmp_path / "jax" / "model.keras")
    assert model.predict_on_batch(np.zeros((1, 16, 16, 1), np.float32)).shape == (1, 24, 24, 1)


AMONG_ALL = ("linear", "realtime", "edsr")  # the default run trains these, `-m slow` the others


# `strided` takes whole frames of 720p: test_the_network_of_whole_frames.
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n not in AMONG_ALL)) for n in MODELS if n != "strided"],
)
def test_every_network_trains(name, photos, tmp_path):
    own = {"scale": OWN_SCALES.get(name, "2"), "architecture": SMALL.get(name, {})}
    settings = config(photos, model=name, **own, steps=4, learning_rate=1e-3)
    train(settings, tmp_path / "run")
    loss = history(tmp_path / "run")[0]["loss"]
    assert 0 < loss < 1


@pytest.mark.slow
def test_the_network_of_whole_frames(tmp_path):
    for i in range(2):
        Image.fromarray(picture(1920, 1080, shift=100 * i)).save(tmp_path / f"{i}.png")
    Image.fromarray(picture(640, 480)).save(tmp_path / "small.png")  # left out
    train(config(tmp_path, model="strided", architecture={}, steps=2, batch=1), tmp_path / "run")
    assert (tmp_path / "run" / "model.keras").exists()


@pytest.mark.parametrize("precision", ["mixed_float16", slow("mixed_bfloat16")])
def test_mixed_precision_leaves_nothing_behind(precision, photos, tmp_path):
    model = train(config(photos, precision=precision, scale="2", model="espcn", architecture={}), tmp_path / "run")
    assert keras.config.dtype_policy().name == "float32"
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_a_loss_that_is_no_number_stops_the_run(photos, tmp_path, capfd):
    arguments = ["--data", photos, "--val", photos, "--model", "espcn", "--learning-rate", "1e30", "--steps", 12]
    assert main([*map(str, arguments), "--batch", "2", "--patch", "48", "--out", str(tmp_path / "run")]) == 4
    assert "lower --learning-rate" in capfd.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "run" / "model.keras").exists()
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_run_is_repeated_by_its_file(photos, tmp_path):
    first = train(config(photos), tmp_path / "first")
    arguments = ["--config", tmp_path / "first" / "config.json", "--out", tmp_path / "second"]
    assert main([*map(str, arguments)]) == 0
    second = keras.saving.load_model(tmp_path / "second" / "model.keras")
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert Config.read(tmp_path / "second" / "config.json") == Config.read(tmp_path / "first" / "config.json")


def test_data_of_a_config_file_may_be_in_a_store(photos, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("imagesr.datasets.remote.fetch", lambda url: asked.append(url) or "/cache/one")
    data, val = ["div2k=s3://bucket/data@0.5", str(photos)], ["b100=s3://bucket/data#0a"]
    file = tmp_path / "best.json"
    file.write_text(json.dumps({"data": data, "val": val, "steps": 7}))
    taken = []
    monkeypatch.setattr("imagesr.train.training.train", lambda config, run, **more: taken.append(config))
    assert main(["--config", str(file), "--out", str(tmp_path / "a")]) == 0
    assert asked == ["s3://bucket/data", "s3://bucket/data#0a"]
    assert taken[-1].data == ("div2k=/cache/one@0.5", f"folder={photos.absolute()}")
    assert (taken[-1].val, taken[-1].steps) == (("b100=/cache/one",), 7)
    asked.clear()
    assert main(["--config", str(file), "--val", str(photos), "--out", str(tmp_path / "b")]) == 0
    assert asked == ["s3://bucket/data"], "what the command line replaces is not fetched"


@pytest.mark.parametrize("name", ["edsr_baseline", *(slow(n) for n in ("srresnet", "fsrcnn"))])
def test_a_warm_start_takes_what_does_not_depend_on_the_scale(name, photos, tmp_path):
    settings = config(photos, model=name, scale="2", architecture={"filters": 4, "blocks": 2})
    first = train(settings, tmp_path / "x2")
    same, by_file = settings.build(), settings.build()
    warm_start(same, tmp_path / "x2", settings)
    warm_start(by_file, tmp_path / "x2" / "model.keras", settings)
    for a, b, c in zip(first.get_weights(), same.get_weights(), by_file.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    larger = Config(**vars(settings) | {"scale": "3"})
    other = larger.build()
    warm_start(other, tmp_path / "x2", larger)
    inside = next(layer.name for layer in first.layers if layer.name in ("body_1_1", "mapping_1"))
    np.testing.assert_array_equal(*(model.get_layer(inside).get_weights()[0] for model in (other, first)))
    wider = Config(**vars(settings) | {"architecture": {"filters": 6, "blocks": 2}})
    with pytest.raises(ValueError, match=rf"Expected weights for {name} .*filters.* 6.* Received: .*x2.*differs"):
        warm_start(wider.build(), tmp_path / "x2", wider)


def test_a_checkpoint_of_another_architecture_is_one_line(photos, tmp_path, capfd):
    train(config(photos, steps=0), tmp_path / "first")
    options = ["--data", photos, "--val", photos, "--out", tmp_path / "second", "--init", tmp_path / "first"]
    assert main([*map(str, options), "--architecture", "filters=6", "blocks=1", "--patch", "48"]) == 2
    assert "Expected weights for realtime" in capfd.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "second").exists()


def test_a_config_with_an_unknown_key(photos, tmp_path, capfd):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"data": ["a"], "val": ["b"], "momentum": 0.9}))
    assert main(["--resume", "--out", str(run)]) == 2
    assert "momentum" in capfd.readouterr().err.strip().splitlines()[-1]


def test_a_finished_run_is_not_overwritten(photos, tmp_path):
    # Long enough for a moving average that is not the last weights.
    settings = config(photos, steps=40, model="espcn", architecture={}, learning_rate=1e-2)
    first = train(settings, tmp_path / "run").get_weights()
    with pytest.raises(SystemExit) as exit:
        main(["--data", str(photos), "--val", str(photos), "--out", str(tmp_path / "run")])
    assert exit.value.code == 2
    with pytest.raises(ValueError, match="Expected the config of the run"):
        train(config(photos, steps=41), tmp_path / "run")
    (tmp_path / "run" / "model.keras").unlink()  # as if killed before it was written
    assert main(["--resume", "--out", str(tmp_path / "run")]) == 0
    again = keras.saving.load_model(tmp_path / "run" / "model.keras").get_weights()
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_finished_run_is_made_longer(photos, tmp_path, capfd):
    run = tmp_path / "run"
    train(config(photos, model="espcn", scale="2", architecture={}), run)
    with pytest.raises(SystemExit):
        main(["--resume", "--steps", "5", "--out", str(run)])
    assert "expected at least the 6 steps" in capfd.readouterr().err
    assert main(["--resume", "--steps", "9", "--out", str(run)]) == 0
    assert "going on from step 6 of 9" in capfd.readouterr().out
    assert [row["step"] for row in history(run)] == [6, 9]
    assert Config.read(run / "config.json").steps == 9


def test_a_white_picture_to_measure_on(photos, tmp_path):
    Image.new("RGB", (200, 200), "white").save(tmp_path / "white.png")
    settings = Config(**vars(config(photos)) | {"val": (f"folder={tmp_path}",)})
    train(settings, tmp_path / "run")
    assert history(tmp_path / "run")[0]["psnr_y"] <= 100


def test_a_torn_history_is_no_obstacle(photos, tmp_path):
    settings = config(photos)
    train(settings, tmp_path / "run")
    for torn in ("", "step,lo", "0.3"):
        (tmp_path / "run" / "history.csv").write_text(torn)
        train(settings, tmp_path / "run")


def test_a_warm_start_of_the_default_network_solves_for_its_anchor(photos, tmp_path, capfd):
    train(config(photos), tmp_path / "x1.5")
    capfd.readouterr()
    settings = config(photos, scale="2", init=str(tmp_path / "x1.5"), steps=0)
    train(settings, tmp_path / "x2")
    bicubic, before = map(
        float, re.search(r"bicubic ([\d.]+) dB, before .* ([\d.]+) dB", capfd.readouterr().out).groups()
    )
    assert before > bicubic


def test_losses_are_their_formulas():
    hr, sr = (np.random.default_rng(i).random((2, 24, 20, 3), np.float32) for i in range(2))
    assert set(LOSSES) == set(get_args(Config.model_fields["loss"].annotation))
    np.testing.assert_allclose(LOSSES["mse"](hr, sr), ((hr - sr) ** 2).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(LOSSES["mae"](hr, sr), np.abs(hr - sr).mean((1, 2, 3)), rtol=1e-5)
    logarithm = np.log(((hr - sr) ** 2).mean((1, 2, 3)) + 1e-5) - np.log(1e-5)
    np.testing.assert_allclose(LOSSES["log_mse"](hr, sr), logarithm, rtol=1e-5)
    both = logarithm + 20 * LOSSES["ssim"](hr, sr)
    np.testing.assert_allclose(LOSSES["log_mse_ssim"](hr, sr), both, rtol=1e-5)
    charbonnier = np.sqrt((hr - sr) ** 2 + 1e-6).mean((1, 2, 3))
    np.testing.assert_allclose(LOSSES["charbonnier"](hr, sr), charbonnier, rtol=1e-5)
    wanted = [1 - np.mean([ssim(a[..., c], b[..., c], peak=1) for c in range(3)]) for a, b in zip(hr, sr, strict=True)]
    np.testing.assert_allclose(LOSSES["ssim"](hr, sr), wanted, rtol=1e-3)


def test_trainings_that_fail_are_not_value_errors():
    # main answers them with exit codes of their own.
    assert not issubclass(TrainingError, ValueError)


def test_exif_orientation_is_applied(tmp_path):
    image = Image.fromarray(picture(30, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    assert read_rgb(tmp_path / "turned.png").shape == (30, 20, 3)


def test_the_help_states_the_defaults_and_choices_of_the_config():
    texts = {action.dest: action.help for action in _parser()._actions}
    for name, setting in Config.model_fields.items():
        if default := re.search("default: ([^ ,)]+)", texts[name]):
            assert default[1] == str(setting.default) or name in ("perceptual", "curriculum", "features"), name
    for name in ("loss", "precision"):
        assert all(choice in texts[name] for choice in get_args(Config.model_fields[name].annotation))
    assert f"epochs of {EPOCH} steps" in texts["epochs"]


def test_a_network_learns_how_much_was_lost(photos, tmp_path):
    degrade = ("h264=12:40@0.5", "mpeg2=3:20@0.5", "noise=1:6@0.3")
    options = {"degrade": degrade, "loss": "film", "patch": 96, "learning_rate": 1e-2}
    small = {"filters": 4, "blocks": 1, "clean": True}
    film = config(photos, architecture=small, **options).changed(data=(f"film={photos}",), val=(f"film={photos}",))
    plain = train(film, tmp_path / "run")
    assert [entry.name for entry in plain.inputs] == ["lr", "clean"]
    assert np.abs(plain.get_layer("clean_shift").get_weights()[0]).max() > 1e-4
    saved = Run(Config.read(tmp_path / "run/config.json"), tmp_path / "run")
    assert saved.validation.lost and 0 < max(saved.validation.lost) <= 1


def test_clean_and_depth_do_not_go_together(photos):
    with pytest.raises(ValueError, match="clean without depth"):
        config(photos, architecture={"clean": True}, depth=("maps",))
