"""Pixel Recursive Super Resolution: causal, learning, and drawn at a cost that does not grow."""

import csv
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import picture, run_python
from PIL import Image

from imagesr.datasets.crops import RandomCrops
from imagesr.recursive import __main__ as command_line
from imagesr.recursive import sampler
from imagesr.recursive import train as training
from imagesr.recursive.__main__ import main
from imagesr.recursive.network import pixel_recursive
from imagesr.recursive.sampler import CachedPrior, sample
from imagesr.recursive.train import RecursiveConfig, bits_per_dimension, load, train

SMALL = ["--filters", "6", "--blocks", "0", "--layers", "2", "--batch", "4"]


@pytest.fixture(scope="module", autouse=True)
def small_patches():
    """Train and measure on patches of 16×16, in short epochs."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (
            (training, "SIDE", 16),
            (training, "EPOCH", 20),
            (training, "HELD_OUT", 16),
            (command_line, "HELD_OUT", 32),
        ):
            patch.setattr(module, name, value)
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder with three pictures."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        Image.fromarray(picture(300 + 9 * i, 280, shift=100 * i)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """Return the folder of a run of 40 steps."""
    out = tmp_path_factory.mktemp("run") / "run"
    assert main([*command(photos, out), "--steps", "40", "--learning-rate", "0.02"]) == 0
    return out


@pytest.fixture(scope="module")
def model(run):
    """Return that run's network."""
    return load(run)


def command(photos, out):
    return ["train", "--data", str(photos), "--val", f"folder={photos}", "--out", str(out), *SMALL]


def history(run):
    with (run / "history.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def network(**options):
    """Return a network whose every weight is random, biases too."""
    keras.utils.set_random_seed(3)
    model, random = pixel_recursive(**options), np.random.default_rng(3)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(random.normal(scale=0.3, size=weight.shape))
    return model


def pictures(count, side):
    """Return LR and HR of noise: (count, side / 4, side / 4, 3) in [0, 1] and (count, side, side, 3) uint8."""
    random = np.random.default_rng(5)
    hr = random.integers(0, 256, (count, side, side, 3)).astype(np.uint8)
    return random.random((count, side // 4, side // 4, 3), np.float32), hr


def results(model, lr, hr):
    """Return the logits of the two networks together, and of the conditioning network alone."""
    return [keras.ops.convert_to_numpy(logits) for logits in model([lr, hr / np.float32(255)])]


def prior_of(model, hr):
    """Return the prior's logits."""
    prior = keras.Model(model.inputs[1], model.get_layer("prior").output)
    return keras.ops.convert_to_numpy(prior(hr / np.float32(255)))


def test_a_sample_depends_on_all_before_it_and_on_nothing_else():
    side, count = 8, 4
    model = network(side=side, filters=24, blocks=0, layers=4, reach=2)
    lr, hr = (tf.constant(x, tf.float32) for x in pictures(count, side))
    values = tf.random.normal((256,))
    with tf.GradientTape() as tape:
        tape.watch(hr)
        logits, _ = model([lr, hr / 255])
        # One number for every sample; pictures do not mix, so their sum has each one's gradients.
        numbers = tf.reshape(tf.reduce_sum(tf.tensordot(logits, values, 1), 0), (-1,))
    jacobian = tape.jacobian(numbers, hr).numpy()
    depends = (jacobian != 0).any(1).reshape(side * side * 3, -1)  # in some picture: a ReLU may be shut in one
    np.testing.assert_array_equal(depends, np.tri(side * side * 3, k=-1, dtype=bool))


def test_both_networks_are_added(model):
    lr, hr = pictures(2, 16)
    first, second = (results(model, lr, side) for side in (hr, hr[::-1]))
    np.testing.assert_array_equal(first[1], second[1])  # LR alone says it
    assert np.abs(first[1][0] - first[1][1]).max() > 1e-3
    prior = prior_of(model, hr)
    np.testing.assert_allclose(first[0], first[1] + prior, atol=1e-5)
    assert np.abs(prior[0] - prior[1]).max() > 1e-3


@pytest.mark.parametrize(("layers", "reach"), [(1, 1), (3, 2)])
def test_the_sampler_works_out_the_networks_logits(layers, reach):
    side, count = 12, 3
    model = network(side=side, filters=12, blocks=0, layers=layers, reach=reach)
    _, hr = pictures(count, side)
    whole = prior_of(model, hr)
    prior, one_by_one = CachedPrior(model, count), np.empty_like(whole)
    for y, x, colour in np.ndindex(side, side, 3):
        one_by_one[:, y, x, colour] = prior.logits()
        prior.append(hr[:, y, x, colour])
    np.testing.assert_allclose(one_by_one, whole, rtol=1e-4, atol=1e-5)
    assert whole.std() > 0.1


def test_no_pixel_costs_more_than_another(monkeypatch):
    spent = []

    def counted(x, kernel, bias):
        spent.append(x.size * kernel.shape[-1])
        return x @ kernel + bias

    monkeypatch.setattr(sampler, "product", counted)
    for side in (8, 16):
        model = network(side=side, filters=6, blocks=0, layers=2)
        named = ("vertical_", "above_", "horizontal_", "residual_", "tail_")
        once = sum(layer.kernel.shape.num_elements() for layer in model.layers if layer.name.startswith(named))
        prior, rows = CachedPrior(model, 1), []
        for _ in range(side):
            for _ in range(3 * side):
                prior.logits()
                prior.append(np.zeros(1, np.uint8))
            rows.append(sum(spent))
            spent.clear()
        # Every weight is multiplied once for every pixel. A row's vertical features are worked out at the end of the
        # one above it, so the first pays for two, the last for none.
        assert sum(rows) == once * side**2
        assert len(set(rows[1:-1])) == 1
        assert rows[1] == once * side


def test_training_learns(run):
    rows = history(run)
    assert [row["step"] for row in rows] == [20, 40]
    for key in ("bits", "val_bits", "val_bits_conditioning"):
        values = [row[key] for row in rows]
        assert values == sorted(values, reverse=True)
        assert values[-1] < 7.5
    assert json.loads((run / "config.json").read_text())["filters"] == 6


@pytest.mark.slow
def test_training_learns_on_photographs(data, tmp_path):
    small = {"filters": 6, "blocks": 0, "layers": 1, "batch": 4}
    config = RecursiveConfig(
        data=(str(data / "set14"),), val=(str(data / "set5"),), steps=40, learning_rate=0.01, **small
    )
    train(config, tmp_path / "run")
    assert history(tmp_path / "run")[-1]["val_bits"] < 7.8


@pytest.mark.slow
def test_a_run_that_was_interrupted_goes_on_along_the_same_curve(run, photos, tmp_path, monkeypatch, capfd):
    numbered = RandomCrops.numbered

    def interrupted(crops, step):
        if step == 31:
            raise KeyboardInterrupt
        return numbered(crops, step)

    again = [*command(photos, tmp_path / "run"), "--steps", "40", "--learning-rate", "0.02"]
    monkeypatch.setattr(RandomCrops, "numbered", interrupted)
    assert main(again) == 130
    assert [row["step"] for row in history(tmp_path / "run")] == [20]
    assert not (tmp_path / "run" / "model.keras").exists()
    monkeypatch.setattr(RandomCrops, "numbered", numbered)
    capfd.readouterr()
    assert main([*again, "--steps", "50"]) == 2  # not the run that it is
    assert "config of the run" in capfd.readouterr().err
    assert main(again) == 0
    assert history(tmp_path / "run") == [pytest.approx(row, rel=1e-3) for row in history(run)]
    for a, b in zip(load(run).get_weights(), load(tmp_path / "run").get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)
    assert {file.name for file in (tmp_path / "run").iterdir()} == {
        *("config.json", "history.csv", "checkpoint.weights.h5", "model.keras")
    }


def test_bits_per_dimension_are_those_of_the_values():
    model = network(side=4, filters=6, blocks=0, layers=1)
    model.set_weights([np.zeros(weight.shape) for weight in model.weights])
    lr, hr = pictures(2, 4)
    assert bits_per_dimension(model, lr, hr / np.float32(255)) == pytest.approx((8, 8))
    # The prior draws 7 half of the time, and anything else as often as the rest.
    bias = np.zeros((3, 256))
    bias[:, 7] = np.log(255)
    model.get_layer("tail_1").bias.assign(bias.ravel())
    total, alone = bits_per_dimension(model, lr, np.full_like(hr, 7) / np.float32(255))
    assert (total, alone) == pytest.approx((1, 8))


def test_samples_differ_and_are_not_their_mean(model):
    lr, _ = pictures(2, 16)
    first, same, other = (sample(model, lr, count=3, seed=seed) for seed in (0, 0, 1))
    assert first.shape == (2, 3, 16, 16, 3)
    np.testing.assert_array_equal(first, same)
    assert (first != other).mean() > 0.5
    assert (first[:, 0] != first[:, 1]).mean() > 0.5
    spread = np.abs(first - first.mean(1, keepdims=True)).mean()
    assert spread > 5
    cooler = sample(model, lr, count=3, temperature=0.3)
    assert np.abs(cooler - cooler.mean(1, keepdims=True)).mean() < spread


def test_at_temperature_zero_the_likeliest_is_drawn(model):
    lr, _ = pictures(2, 16)
    drawn = sample(model, lr, count=2, temperature=0, seed=0)
    np.testing.assert_array_equal(drawn, sample(model, lr, count=2, temperature=0, seed=1))
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 1])
    # Given what was drawn, the network as a whole finds the same values the likeliest.
    logits, _ = results(model, lr, drawn[:, 0])
    chosen = np.take_along_axis(logits, drawn[:, 0, ..., None].astype(int), -1)[..., 0]
    np.testing.assert_allclose(chosen, logits.max(-1), atol=1e-4)


def test_values_are_drawn_as_often_as_they_are_likely():
    model, count, temperature = network(side=4, filters=6, blocks=0, layers=1), 1500, 0.25
    lr, hr = pictures(1, 4)
    likely = results(model, lr, hr)[0][0, 0, 0, 0] / temperature
    likely = np.exp(likely - likely.max())
    likely /= likely.sum()
    often = np.bincount(sample(model, lr, count=count, temperature=temperature)[0, :, 0, 0, 0], minlength=256) / count
    assert np.all(np.abs(often - likely) < 5 * np.sqrt(likely / count))
    assert likely.max() > 5 / 256


def test_the_command_measures_and_draws(run, photos, tmp_path, capfd):
    sheet = tmp_path / "sheet.png"
    options = ["sample", str(run), "--data", str(photos), "--patches", "2", "--samples", "2"]
    assert main([*options, "--sheet", str(sheet)]) == 0
    out = capfd.readouterr().out
    bits = float(out.partition("32 patches: ")[2].split(",")[0])
    assert 4 < bits < 7.5
    assert "bicubic" in out
    assert "the mean of 2" in out
    assert "4 pictures of 16x16" in out
    with Image.open(sheet) as image:
        assert image.size[0] > 6 * 128  # LR | bicubic | two samples | their mean | HR
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]


def test_a_loss_that_is_no_number_stops_the_run(photos, tmp_path, capfd):
    options = ["--steps", "20", "--learning-rate", "1e30", "--layers", "1"]
    assert main([*command(photos, tmp_path / "run"), *options]) == 4
    assert "lower --learning-rate" in capfd.readouterr().err.strip().splitlines()[-1]
    assert not list((tmp_path / "run").glob("*.h5"))


def test_what_cannot_be_drawn_is_refused(model):
    lr, _ = pictures(1, 16)
    with pytest.raises(ValueError, match=r"Expected LR of shape \(4, 4, 3\).*Received: \(8, 4, 3\)"):
        sample(model, np.zeros((1, 8, 4, 3), np.float32))
    for options in ({"temperature": -0.1}, {"temperature": np.inf}, {"count": 0}):
        with pytest.raises(ValueError, match="Expected a count above 0 and a temperature of 0 or more"):
            sample(model, lr, **options)


@pytest.mark.slow
def test_jax_trains_and_samples_without_tensorflow(photos, tmp_path):
    blocked = "import sys; sys.modules['tensorflow'] = None; from imagesr.recursive.__main__ import main; "
    for arguments in (
        [*command(photos, tmp_path / "run"), "--steps", "5"],
        ["sample", str(tmp_path / "run"), "--data", str(photos), "--patches", "1", "--samples", "2"],
    ):
        done = run_python(
            "-c", f"{blocked}sys.exit(main({arguments}))", timeout=300, environment={"KERAS_BACKEND": "jax"}
        )
        assert done.returncode == 0, done.stderr
    assert "bits per dimension" in done.stdout
