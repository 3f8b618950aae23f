"""What every network of MODELS must do, and the pieces they are built from."""

import keras
import numpy as np
import pytest
from conftest import SMALL
from keras import ops
from PIL import Image

import imagesr.models.__main__
from imagesr.models import MODELS, OWN_SCALES, build
from imagesr.models.cost import model_scale, multiple, multiply_accumulates, parameters, receptive_field
from imagesr.models.layers import CollapsibleConv2D, at_detail, bicubic, collapsed
from imagesr.models.realtime import realtime
from imagesr.scale import Scale

SCALES = ["3/2", "2", "3", "4"]


def networks():
    for name in MODELS:
        for scale in [OWN_SCALES[name]] if name in OWN_SCALES else SCALES:
            yield name, scale


@pytest.mark.parametrize(("name", "scale"), networks())
def test_output_is_scale_times_the_input(name, scale):
    model = build(name, scale, **SMALL.get(name, {}))
    channels = model.inputs[0].shape[-1]
    assert channels in (1, 3)
    assert model_scale(model) == (wanted := Scale.parse(scale))
    sizes = [(720, 1280)] if name == "strided" else [(16, 16), (18, 34), (50, 22)]
    for height, width in sizes:
        assert height % multiple(collapsed(model)) == width % multiple(collapsed(model)) == 0
        lr = np.random.default_rng(0).random((2, height, width, channels), np.float32)
        sr = at_detail(model, 0.0, 0.5)(lr, training=False)
        assert sr.shape == (2, wanted.grow(height), wanted.grow(width), channels)
        assert np.isfinite(sr).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_loads_in_plain_keras(name, tmp_path):
    model = build(name, OWN_SCALES.get(name, "3/2"), **SMALL.get(name, {}))
    plain = collapsed(model)
    plain.save(tmp_path / "model.keras")
    lr = np.random.default_rng(0).random((1, *(n or 20 for n in model.inputs[0].shape[1:])), np.float32)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    own, again, first = (np.asarray(at_detail(one, 0.0, 0.5)(lr, training=False)) for one in (plain, loaded, model))
    np.testing.assert_array_equal(again, own)
    np.testing.assert_allclose(own, first, atol=1e-5)
    assert {type(layer).__module__.split(".")[0] for layer in loaded.layers} == {"keras"}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "strided"])
def test_a_network_ends_in_float32_whatever_its_precision(name, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = build(name, OWN_SCALES.get(name, "3/2"), **SMALL.get(name, {}))
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.output.dtype == "float32"
    assert collapsed(model).output.dtype == "float32"
    assert all(layer.compute_dtype == "float32" for layer in collapsed(model).layers)


# name, scale, options: the paper's figure, and where it is from.
PAPERS = [
    ("strided", "3/2", {}, 3_139_670),  # the first network of 2020
    ("vdsr", "2", {}, 665_921),  # 20 layers of 64 filters, biases included
    # 12 layers of 96 filters, table 1. Its map of what was lost has nine taps a filter, and our shift has one; our tail
    # also sees the 12 samples of a cell, twice.
    ("ffdnet", "1", {}, 852_108 - 8 * 96 + 24 * 9 * 12),
    ("srcnn", "3", {}, 8_032 + 64 + 32 + 1),  # 8,032 weights in FSRCNN's table 1, and biases
    ("srcnn", "3", {"kernels": (9, 5, 5)}, 57_184 + 64 + 32 + 1),  # SRCNN-Ex in the same table
    ("espcn", "3", {}, 22_624 + 64 + 32 + 9),  # 25*64 + 9*64*32 + 9*32*9, section 3.2, and biases
    # 12,464 weights in FSRCNN's table 1; biases and the slopes of PReLU beside them
    ("fsrcnn", "3", {}, 12_464 + (56 + 12 + 4 * 12 + 56 + 9) + (56 + 12 + 4 * 12 + 56)),
    ("edsr_baseline", "2", {}, 1_369_859),  # 1.37M
    ("edsr_baseline", "4", {}, 1_517_571),  # "1.5M" in EDSR's table 1
    ("edsr", "4", {}, 43_089_923),  # "43M" in the same table
    ("rdn", "2", {}, 22_123_395),  # 22M, RDN's section 5
    ("srresnet", "4", {}, 1_550_659),
    ("realtime", "3/2", {"filters": 16, "blocks": 4, "anchor": 3}, 11_501),  # what ships as fast
    ("realtime", "3/2", {"filters": 32, "blocks": 2, "anchor": 5}, 23_181),  # and as balanced
    ("realtime", "2", {"filters": 16, "blocks": 5, "unshuffle": 1}, 12_440),  # and as best-photo at x2
    ("realtime", "2", {"filters": 12, "blocks": 4, "unshuffle": 1}, 5_888),  # balanced-photo
    ("realtime", "2", {"filters": 8, "blocks": 4, "unshuffle": 1}, 2_808),  # fast-photo
]


@pytest.mark.parametrize(("name", "scale", "options", "count"), PAPERS)
def test_parameters_are_the_papers(name, scale, options, count):
    assert parameters(collapsed(build(name, scale, **options))) == count


@pytest.mark.parametrize(
    ("name", "scale", "options", "macs", "field"),
    [
        ("fsrcnn", "3", {}, 12_464, 15),  # 5 + 4 of 3 + 3
        ("edsr_baseline", "2", {}, 1_372_608, 72),  # 35 convolutions on LR, one on HR
        ("vdsr", "2", {}, 2_658_916, 25),  # 41 HR pixels, and bicubic's 4
        ("realtime", "3/2", {"filters": 16, "blocks": 4, "anchor": 3}, 2853, 26),
        ("realtime", "2", {"filters": 16, "blocks": 5, "unshuffle": 1}, 12_340, 15),  # 3×3 seven times
        ("linear", "2", {}, 484, 11),
    ],
)
def test_cost_is_what_one_reckons(name, scale, options, macs, field):
    model = collapsed(build(name, scale, **options))
    assert multiply_accumulates(model) == macs
    assert receptive_field(model) == field


@pytest.mark.parametrize("scale", SCALES)
def test_bicubic_is_pillows(scale):
    scale = Scale.parse(scale)
    lr = keras.Input((None, None, 3))
    model = keras.Model(lr, bicubic(lr, scale))
    y, x = np.mgrid[:24, :32]
    picture = np.stack([120 + 60 * np.sin(x / 3) * np.cos(y / 4), 100 + 3 * x, 200 - 4 * y], -1).astype(np.uint8)
    sr = np.asarray(model(picture[np.newaxis] / np.float32(255)))[0] * 255
    pillow = np.asarray(Image.fromarray(picture).resize((scale.grow(32), scale.grow(24)), Image.Resampling.BICUBIC))
    inside = slice(4 * scale.up, -4 * scale.up)  # edges are reflected, Pillow's are cut off
    assert np.abs(np.rint(sr) - pillow)[inside, inside].max() <= 1
    assert not model.trainable_weights


@pytest.mark.parametrize(
    "names", [("linear", "strided", "vdsr"), pytest.param(tuple(MODELS), marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_the_table_of_networks_is_printed(names, monkeypatch, capsys):
    monkeypatch.setattr(imagesr.models.__main__, "MODELS", {name: MODELS[name] for name in names})
    assert imagesr.models.__main__.main(["--scale", "3"]) == 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == list(names)
    assert ["vdsr", "3", "luma", "665,921"] in [row[:4] for row in rows]
    assert ["strided", "1.5", "RGB", "3,139,670"] in [row[:4] for row in rows]
    assert all("arXiv" in row[-1] for row in rows if row[0] not in ("linear", "realtime", "strided"))


def test_vdsr_and_its_like_start_from_bicubic():
    model = build("vdsr", "2", depth=3, filters=4)
    lr = np.random.default_rng(0).random((1, 12, 12, 1), np.float32)
    upscaled = keras.Model(model.input, bicubic(model.input, Scale(2)))
    np.testing.assert_allclose(model.predict_on_batch(lr), upscaled.predict_on_batch(lr), atol=1e-6)


def test_parameters_count_what_is_trained():
    model = build("vdsr", "2", depth=3, filters=4)
    assert model.count_params() > parameters(model) == (9 * 4 + 4) + (9 * 16 + 4) + (9 * 4 + 1)


def test_an_anchor_is_3_or_5():
    with pytest.raises(ValueError, match="3 or 5"):
        realtime("3/2", anchor=4)


def test_a_scale_that_the_architecture_does_not_have():
    with pytest.raises(ValueError, match="multiple of 1/2"):
        realtime("4/3")
    with pytest.raises(ValueError, match=r"scale of 1\.5"):
        build("strided", 2)


def test_a_picture_has_no_dark_frame():
    # A grey picture through a network whose anchor sums to one stays grey up to its very edge.
    model = collapsed(realtime("3/2", filters=4, blocks=1))
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


def test_ffdnet_starts_from_the_picture_and_keeps_its_size():
    model = build("ffdnet", 1, filters=8, depth=3)
    assert [entry.name for entry in model.inputs] == ["lr", "clean"]
    model.get_layer("tail").set_weights([np.zeros_like(w) for w in model.get_layer("tail").get_weights()])
    lr = np.random.default_rng(0).random((2, 12, 14, 3), np.float32)
    np.testing.assert_array_equal(at_detail(model, 0.0, 0.7)(lr), lr)
    with pytest.raises(ValueError, match=r"does not enlarge\. Received: 2"):
        build("ffdnet", 2)
