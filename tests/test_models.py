"""What every network of MODELS must do, and the pieces they are built from."""

import keras
import numpy as np
import pytest
from keras import ops

from imagesr.layers import CollapsibleConv2D
from imagesr.models import MODELS
from imagesr.models.realtime import realtime
from imagesr.scale import Scale

SCALES = ["3/2", "2", "3", "4"]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", MODELS)
def test_output_is_scale_times_the_input(name, scale):
    model = MODELS[name](scale)
    up = Scale.parse(scale)
    for height, width in ((16, 16), (18, 34), (50, 22)):
        lr = np.random.default_rng(0).random((2, height, width, 1), np.float32)
        assert model(lr).shape == (2, height * up.up // up.down, width * up.up // up.down, 1)


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_loads_in_plain_keras(name, tmp_path):
    model = MODELS[name]("3/2", collapsible=False)
    model.save(tmp_path / "model.keras")
    lr = np.random.default_rng(0).random((1, 20, 24, 1), np.float32)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(lr), model(lr))
    assert {type(layer).__module__.split(".")[0] for layer in loaded.layers} == {"keras"}


@pytest.mark.parametrize(
    ("options", "parameters"),
    [({"filters": 16, "blocks": 4, "anchor": 3}, 11_501), ({"filters": 32, "blocks": 2, "anchor": 5}, 23_181)],
)
def test_parameters_of_what_ships(options, parameters):
    model = realtime("3/2", **options, collapsible=False)
    assert model.count_params() == parameters
    assert model(np.zeros((1, 10, 8, 1), np.float32)).shape == (1, 15, 12, 1)


def test_an_anchor_is_3_or_5():
    with pytest.raises(ValueError, match="3 or 5"):
        realtime("3/2", anchor=4)


def test_a_scale_that_the_architecture_does_not_have():
    with pytest.raises(ValueError, match="multiple of 1/2"):
        realtime("4/3")


def test_a_picture_has_no_dark_frame():
    # A grey picture through a network whose anchor sums to one stays grey up to its very edge.
    model = realtime("3/2", filters=4, blocks=1, collapsible=False)
    for layer in model.layers:
        layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    anchor = model.get_layer("anchor")
    anchor.set_weights([np.full(anchor.kernel.shape, 1 / np.prod(anchor.kernel.shape[:3]), np.float32)])
    np.testing.assert_allclose(model(np.full((1, 12, 14, 1), 0.5, np.float32)), 0.5, rtol=1e-5)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("residual", [False, True])
def test_collapsible_conv_is_the_convolution_of_its_kernel(padding, residual):
    layer = CollapsibleConv2D(5, 3, expansion=17, residual=residual, padding=padding, activation="relu")
    x = np.random.default_rng(0).standard_normal((2, 9, 8, 5)).astype(np.float32)
    out = layer(x)
    assert out.shape == layer.compute_output_shape(x.shape)
    plain = keras.layers.Conv2D(5, 3, padding=padding, activation="relu")
    plain.build(x.shape)
    plain.set_weights([layer.kernel(), layer.bias])
    np.testing.assert_allclose(out, plain(x), atol=1e-5)
    wide = ops.conv(ops.conv(x, layer.expand, padding=padding), ops.reshape(layer.project, (1, 1, 17, 5)))
    identity = x if padding == "same" else x[:, 1:-1, 1:-1]
    np.testing.assert_allclose(out, ops.relu(wide + identity if residual else wide), atol=1e-5)


def test_a_residual_kernel_keeps_its_channels():
    with pytest.raises(ValueError, match=r"Expected 4 input channels.* Received: 5"):
        CollapsibleConv2D(4, residual=True)(np.zeros((1, 4, 4, 5), np.float32))
