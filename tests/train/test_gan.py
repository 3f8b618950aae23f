"""Stage two: what it starts from, what it stops at, how it goes on; and the feature spaces it compares pictures in."""

import csv
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from conftest import picture, slow
from keras import ops
from PIL import Image

from imagesr.datasets.crops import RandomCrops
from imagesr.datasets.degradations import Degradation
from imagesr.errors import TrainingError
from imagesr.metrics import perceptual
from imagesr.metrics.perceptual import content_loss, distance, load_extractor, vgg19
from imagesr.pixels import resize
from imagesr.scale import Scale
from imagesr.train import extractors
from imagesr.train.__main__ import main
from imagesr.train.config import Config
from imagesr.train.gan import adversarial_losses, discriminator
from imagesr.train.plots import draw_curves
from imagesr.train.start import warm_start
from imagesr.train.training import Run, train

SMALL = {"filters": 4, "blocks": 1}


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Leave out the timing of 30 frames, 3 seconds of every run, and the curves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imagesr.train.plots.draw_curves", lambda *_: None)
        patch.setattr("imagesr.models.cost.seconds_30_frames", lambda model: (1.0, "not measured"))
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder with three pictures."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        Image.fromarray(picture(150 + 7 * i, 130, shift=100 * i)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def stage_one(photos, tmp_path_factory):
    """Return the folder of a stage one at x2, and its network."""
    out = tmp_path_factory.mktemp("runs") / "stage_one"
    return out, train(config(photos), out)


def config(photos, **options):
    small = {"model": "srresnet", "scale": "2", "architecture": SMALL, "steps": 6, "batch": 2, "patch": 48}
    return Config(data=(f"folder={photos}",), val=(f"folder={photos}",), **small | options)


def gan(photos, stage_one, **options):
    return config(photos, **{"gan": {"filters": 4}, "init": str(stage_one[0]), "perceptual": "photos"} | options)


def history(run):
    with (run / "history.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def batch(*sizes, side=48):
    return np.stack([picture(side, side, shift=31 * i) for i in sizes]).astype(np.float32) / 255


def test_stage_two_starts_as_stage_one(photos, stage_one, tmp_path):
    run = Run(gan(photos, stage_one), tmp_path / "run")
    lr = batch(0, 1)
    np.testing.assert_allclose(run.trainer(lr), stage_one[1](lr), atol=1e-6)
    assert run.validation.psnr_y(run.model) == run.validation.psnr_y(stage_one[1])


@pytest.mark.slow
def test_an_interrupted_gan_goes_on_as_if_it_had_not_been(photos, stage_one, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("imagesr.train.loop.EPOCH", 3)
    settings = gan(photos, stage_one, steps=5, gan={"filters": 4, "relativistic": True}, learning_rate=1e-3)
    whole = train(settings, tmp_path / "whole")
    names = ["loss", "pixel", "perceptual", "adversarial", "d_loss", "d_real", "d_fake", "psnr_y", "learning_rate"]
    assert sorted(history(tmp_path / "whole")[0]) == sorted(["step", *names])
    assert [row["step"] for row in history(tmp_path / "whole")] == [3, 5]
    draw_curves(tmp_path / "whole" / "history.csv", tmp_path / "whole" / "statistics", 30.0)
    drawn = {path.name for path in (tmp_path / "whole" / "statistics").iterdir()}
    assert drawn == {
        *(f"{name}.png" for name in names if name not in ("d_real", "d_fake")),
        *("d.png", "samples.png", "samples_000000003.png", "samples_000000005.png"),
    }

    class StopError(Exception):
        pass

    def stop(self, step):
        if step >= 4:
            raise StopError
        return numbered(self, step)

    numbered = RandomCrops.numbered
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch, pytest.raises(Exception, match="StopError"):
        patch.setattr(RandomCrops, "numbered", stop)
        train(settings, parts)
    shutil.copytree(parts, tmp_path / "lost")
    resumed = train(settings, parts)
    for key in ("step", *names):
        curves = [[row[key] for row in history(folder)] for folder in (tmp_path / "whole", parts)]
        assert curves[0] == pytest.approx(curves[1], rel=1e-4), key
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    assert any(np.any(a != b) for a, b in zip(whole.get_weights(), stage_one[1].get_weights(), strict=True))

    # Without its discriminator it would begin another game.
    one = next((stage_one[0] / "checkpoints").iterdir())
    shutil.copy(one, next((tmp_path / "lost" / "checkpoints").glob("0*")))
    capfd.readouterr()
    assert main(["--resume", "--out", str(tmp_path / "lost")]) == 2
    assert "It lacks its" in capfd.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "lost" / "model.keras").exists()


@pytest.mark.slow
def test_a_gan_that_is_killed_goes_on(photos, stage_one, tmp_path):
    def command(*arguments):
        start = "import sys, imagesr.train.loop as loop; loop.EPOCH = 10; from imagesr.train.__main__ import main"
        few = f"{start}; sys.exit(main(sys.argv[1:]))"
        return [sys.executable, "-c", few, *map(str, arguments)]

    options = ["--data", photos, "--val", photos, "--config", stage_one[0] / "config.json", "--init", stage_one[0]]
    options += ["--gan", "filters=4", "--steps", 40]
    assert subprocess.run(command(*options, "--out", tmp_path / "whole"), capture_output=True).returncode == 0
    run = tmp_path / "run"
    process = subprocess.Popen(command(*options, "--out", run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(run.glob("checkpoints/0*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "model.keras").exists()
    assert subprocess.run(command("--resume", "--out", run), capture_output=True).returncode == 0
    for a, b in zip(history(tmp_path / "whole"), history(run), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_no_number_in_either_loss_stops_and_keeps_what_was_good(photos, stage_one, tmp_path, monkeypatch):
    monkeypatch.setattr("imagesr.train.loop.EPOCH", 2)
    numbered = RandomCrops.numbered

    def spoilt(self, step):
        pictures = numbered(self, step)
        if step == 3:  # the last of an epoch
            pictures[1][0, 0, 0] = np.nan
        return pictures

    monkeypatch.setattr(RandomCrops, "numbered", spoilt)
    with pytest.raises(TrainingError, match="that is a number"):
        train(gan(photos, stage_one, perceptual="none"), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["000000002.weights.h5"]
    assert [row["step"] for row in history(tmp_path / "run")] == [2]


@pytest.mark.slow
def test_mixed_precision_scales_both_losses(photos, stage_one, tmp_path):
    settings = config(photos, gan={"filters": 4}, from_scratch=True, precision="mixed_float16", steps=2)
    run = Run(settings, tmp_path / "run")
    keras.config.set_dtype_policy("float32")
    run.compile()
    for network in (run.trainer.generator, run.trainer.discriminator):
        assert isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer)
        assert network.layers[-2].compute_dtype == "float16"
    model = train(settings, tmp_path / "run")
    row = history(tmp_path / "run")[0]
    assert np.isfinite(list(row.values())).all()
    assert "perceptual" not in row
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_the_discriminator_is_the_papers():
    network = discriminator()
    widths = [(layer.filters, layer.strides[0]) for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert widths == [(64, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 2), (512, 1), (512, 2)]
    small = discriminator(filters=4)
    assert [small(batch(0, 1, side=side)).shape for side in (48, 50)] == [(2, 1)] * 2


def test_adversarial_losses_are_their_formulas():
    real, fake = np.float32([[2.0], [-1.0]]), np.float32([[0.5], [-3.0]])

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    d_real, d_fake = sigmoid(real), sigmoid(fake)
    wanted = -np.log(d_fake).mean(), -np.log(d_real).mean() - np.log(1 - d_fake).mean(), d_real.mean(), d_fake.mean()
    np.testing.assert_allclose(adversarial_losses(real, fake), wanted, rtol=1e-5)
    d_real, d_fake = sigmoid(real - fake.mean()), sigmoid(fake - real.mean())
    d_loss = -np.log(d_real).mean() - np.log(1 - d_fake).mean()
    wanted = -np.log(1 - d_real).mean() - np.log(d_fake).mean(), d_loss, d_real.mean(), d_fake.mean()
    np.testing.assert_allclose(adversarial_losses(real, fake, relativistic=True), wanted, rtol=1e-5)


@pytest.mark.parametrize("name", ["photos", "views"])
def test_shipped_extractors_tell_soft_from_crisp(name):
    extractor = load_extractor(name)
    hr = np.stack([picture(96, 96, shift=90 * i) for i in range(2)])
    noise = np.random.default_rng(0).normal(0, 20, hr.shape)
    hr = np.clip(hr + noise, 0, 255).astype(np.uint8)
    soft = [np.stack([resize(resize(p, (96 // n,) * 2), (96, 96)) for p in hr]) for n in (2, 4)]
    hr, half, quarter = (x.astype(np.float32) / 255 for x in (hr, *soft))
    same, less, more = (ops.convert_to_numpy(distance(extractor, hr, x)) for x in (hr, half, quarter))
    assert same == pytest.approx(0, abs=1e-6)
    assert (less > 0.01).all()
    assert (less < more).all()
    for features in extractor(hr):
        assert 0.01 < float(ops.mean(ops.square(features))) < 100
    grey = extractor(hr[..., :1])
    assert [x.shape for x in grey] == [x.shape for x in extractor(hr)]


def test_an_extractor_that_has_changed_is_refused(tmp_path):
    folder = shutil.copytree(perceptual.EXTRACTORS / "photos", tmp_path / "mine")
    assert load_extractor(str(folder)).network.count_params() > 0
    (folder / "model.keras").write_bytes(b"x" + (folder / "model.keras").read_bytes()[1:])
    with pytest.raises(ValueError, match="changed"):
        load_extractor(str(folder))


@pytest.mark.parametrize("task", [slow("photos"), "views"])
def test_an_extractor_is_trained_by_one_command(task, photos, tmp_path, capfd):
    out = tmp_path / "mine"
    assert extractors.main([task, "--data", str(photos), "--steps", "2", "--out", str(out)]) == 0
    pictures = batch(0, 1)
    first = load_extractor(str(out))(pictures)
    assert [x.shape[1] for x in first] == ([48, 24, 12] if task == "photos" else [24, 12, 6])
    assert extractors.main([task, "--data", str(tmp_path / "nothing"), "--out", str(out)]) == 2
    assert "folder with pictures" in capfd.readouterr().err


def test_content_loss_leads_to_the_picture():
    extractor = load_extractor("photos")
    hr = ops.convert_to_tensor(batch(0))
    sr = keras.Variable(np.full(hr.shape, 0.5, np.float32))
    optimizer = keras.optimizers.Adam(0.02)
    import tensorflow as tf

    losses = []
    for _ in range(15):
        with tf.GradientTape() as tape:
            loss = content_loss(extractor(hr), extractor(sr.value))
        optimizer.apply([tape.gradient(loss, sr.value)], [sr])
        losses.append(float(loss))
    assert losses[-1] < 0.6 * losses[0]
    assert not extractor.network.trainable_variables


def test_a_perceptual_loss_needs_no_gan(photos, tmp_path):
    settings = config(photos, perceptual="photos", weights={"pixel": 2, "perceptual": 3}, loss="mae")
    run = Run(settings, tmp_path / "run")
    assert run.trainer is run.model
    hr, sr = batch(0), batch(1)
    extractor = load_extractor("photos")
    wanted = 2 * np.abs(hr - sr).mean() + 3 * float(content_loss(extractor(hr), extractor(sr)))
    assert float(run.loss(hr, sr)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("layer", ["block2_conv2", slow("block5_conv4")])
def test_vgg19_is_the_papers(layer, monkeypatch):
    network = vgg19(layer, weights=None)
    pictures = batch(0, side=32)
    base = network.get_layer("vgg19")
    wanted = base(keras.applications.vgg19.preprocess_input(pictures * 255)) / 12.75
    assert wanted.shape[1:] == ((16, 16, 128) if layer == "block2_conv2" else (2, 2, 512))
    (got,) = perceptual.Extractor(network)(pictures)
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5)

    def offline(*_, **__):
        raise OSError("URL fetch failure")

    monkeypatch.setattr("keras.src.applications.vgg19.file_utils.get_file", offline)
    with pytest.raises(ValueError, match=r"there are none \(URL fetch failure\); .*notop.h5"):
        load_extractor(f"vgg19:{layer}")


def test_vgg19_reads_its_weights_from_a_file(tmp_path, monkeypatch):
    base = keras.applications.VGG19(include_top=False, weights=None)
    base.save_weights(tmp_path / "vgg19.weights.h5")
    pictures = batch(0, side=32)
    extractor = load_extractor(f"vgg19:block2_conv2={tmp_path / 'vgg19.weights.h5'}")
    wanted = keras.Model(base.input, base.get_layer("block2_conv2").output)(
        keras.applications.vgg19.preprocess_input(pictures * 255)
    )
    np.testing.assert_allclose(extractor(pictures)[0], wanted / 12.75, rtol=1e-3, atol=1e-5)


def test_a_curriculum_begins_with_easy_pictures():
    hr = picture(96, 96)
    options = {"batch": 8, "size": (48, 48), "steps": 100, "degradation": Degradation.parse(["noise=40"])}
    clean, hard, growing = (
        RandomCrops([([(None, hr)], 1)], Scale(2), **options | change)
        for change in ({"degradation": Degradation()}, {}, {"curriculum": 0.5})
    )

    def spoilt(crops, step):  # how many of a batch's crops
        rough = [np.abs(np.diff(lr, 2, axis=0)).mean() for lr in crops.numbered(step)[0]]
        return sum(r > 0.1 for r in rough)

    assert [spoilt(clean, 0), spoilt(hard, 0), spoilt(growing, 0)] == [0, 8, 0]
    shares = [np.mean([spoilt(growing, step) for step in range(k, k + 10)]) / 8 for k in (0, 20, 50, 90)]
    assert shares[0] < 0.3 < shares[1] < 0.8 < shares[2] == shares[3] == 1


def test_x4_starts_from_x2(photos, stage_one):
    settings = config(photos, scale="4")
    model = settings.build()
    fresh = warm_start(model, stage_one[0], settings)
    assert set(fresh) == {"upsample_1", "upsample_1_prelu"}
    for name in ("body_0_1", "upsample_0", "tail"):
        for a, b in zip(model.get_layer(name).get_weights(), stage_one[1].get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
