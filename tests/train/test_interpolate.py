"""Blends of two networks: exact at both ends, in between what the weights say, refused for two architectures."""

import json
from functools import lru_cache

import keras
import numpy as np
import pytest
from conftest import picture

from imagesr.errors import ModelError
from imagesr.evaluate.protocol import upscaler
from imagesr.models import build
from imagesr.models.layers import collapsed
from imagesr.scale import Scale
from imagesr.train.__main__ import main
from imagesr.train.blend import interpolate
from imagesr.train.runs import read_run

SMALL = {"filters": 4, "blocks": 1}


@lru_cache
def network(seed, model="srresnet", scale=2, **options):
    """Return a network whose weights are all random, the means and variances of its norms too."""
    keras.utils.set_random_seed(seed)
    net, random = build(model, scale, **SMALL | options), np.random.default_rng(seed)
    net.set_weights([w + np.float32(0.1 * random.random(w.shape)) for w in net.get_weights()])
    return collapsed(net)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with two runs of one architecture, and a network of another."""
    folder = tmp_path_factory.mktemp("runs")
    for i, name in enumerate("ab"):
        (folder / name).mkdir()
        network(i).save(folder / name / "model.keras")
        config = {"data": [f"folder=/somewhere/photos/{name}"], "val": ["folder=/somewhere/val"], "scale": "2"}
        (folder / name / "config.json").write_text(json.dumps(config))
    network(2, filters=8).save(folder / "wider.keras")
    return folder


def command(capsys, *arguments):
    """Run the command and return its exit code, and what it says."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as error:
        code = error.code
    return code, *capsys.readouterr()


@pytest.mark.parametrize("model", ["srresnet", "realtime"])
def test_the_ends_are_the_two_themselves(model):
    a, b = network(0, model), network(1, model)
    for alpha, end in ((0, a), (1, b)):
        blend = interpolate(a, b, alpha)
        for weight, expected in zip(blend.get_weights(), end.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)
        lr = np.random.default_rng(0).random((1, 12, 16, end.input.shape[-1]), np.float32)
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(net(lr)) for net in (blend, end)))


def test_between_them_weights_are_weighed():
    a, b = network(0), network(1)
    before = [weight.copy() for weight in a.get_weights()]
    for blended, x, y in zip(interpolate(a, b, 0.3).get_weights(), a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(blended, 0.7 * x + 0.3 * y, rtol=1e-6, atol=1e-7)
    for weight, old in zip(a.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_alpha_outside_is_refused(alpha):
    with pytest.raises(ValueError, match="from 0 to 1"):
        interpolate(None, None, alpha)


@pytest.mark.parametrize("other", [{"filters": 8}, {"blocks": 2}, {"scale": 3}, {"model": "realtime"}], ids=str)
def test_two_architectures_are_refused(other):
    with pytest.raises(ModelError, match="one architecture") as error:
        interpolate(network(0), network(2, **other), 0.5)
    assert "\n" not in str(error.value)


def test_names_of_another_session_do_not_matter(runs):
    keras.layers.Add()([keras.Input((2,)), keras.Input((2,))])  # so that this session's numbers run on
    interpolate(read_run(runs / "a")[0], network(7), 0.5)


def test_the_command_leaves_a_run_to_measure_and_to_export(runs, tmp_path, capsys):
    out = tmp_path / "blend"
    given = ["--interpolate", runs / "a", runs / "b" / "model.keras", "--alpha", "0.25", "--out", out]
    code, said, _ = command(capsys, *given)
    assert code == 0
    assert f"{out / 'model.keras'}: 0.75 of {runs / 'a'}, 0.25 of" in said
    assert list(tmp_path.iterdir()) == [out]
    (ours, config), (a, _), (b, _) = (read_run(place) for place in (out, runs / "a", runs / "b"))
    for weight, wanted in zip(ours.get_weights(), interpolate(a, b, 0.25).get_weights(), strict=True):
        np.testing.assert_array_equal(weight, wanted)
    assert (config["scale"], config["alpha"], config["data"]) == ("2", 0.25, ["folder=photos/a"])
    sr = upscaler(str(out / "model.keras"), Scale(2))(picture(60, 45))
    assert sr.shape == (90, 120, 3)
    code, _, told = command(capsys, *given)
    assert (code, "exists" in told) == (2, True)
    code, _, told = command(capsys, "--resume", "--out", out)
    assert (code, "interpolate" in told) == (2, True)
