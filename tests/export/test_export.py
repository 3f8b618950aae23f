"""Every network through imagesr.export: all formats agree with Keras, and nothing half-made is left."""

import contextlib
import dataclasses
import io
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import keras
import numpy as np
import onnx
import pytest
from conftest import picture, slow
from PIL import Image

from imagesr.card import ModelCard
from imagesr.engines import load_engine
from imagesr.errors import ModelError
from imagesr.export import export as exporting
from imagesr.export import int8
from imagesr.export.__main__ import main
from imagesr.export.export import ALSO, export
from imagesr.export.graph import integer_graph
from imagesr.export.int8 import calibration_pairs
from imagesr.metrics.fidelity import psnr
from imagesr.models import MODELS, OWN_SCALES, build
from imagesr.models.layers import at_detail, collapsed, takes_clean
from imagesr.pixels import downscale
from imagesr.scale import Scale

OPTIONS = {
    "realtime": {"filters": 8, "blocks": 1},
    "srcnn": {"filters": 8},
    "espcn": {"filters": 8},
    "fsrcnn": {"filters": 8, "shrunk": 4, "blocks": 1},
    "vdsr": {"depth": 4, "filters": 8},
    "ffdnet": {"depth": 3, "filters": 8},
    "edsr_baseline": {"filters": 8, "blocks": 1},
    "edsr": {"filters": 8, "blocks": 2},
    "rdn": {"filters": 8, "blocks": 2, "convolutions": 2, "growth": 8},
    "srresnet": {"filters": 8, "blocks": 1},
}
# channels, multiple, receptive field and parameters of these, by hand
FIGURES = {
    "linear": (1, 1, 11, 11 * 11 * 4),
    "realtime": (1, 2, 14, 8 * 4 * 9 + 8 + 8 * 8 * 9 + 8 + 16 * 8 * 9 + 16 + 16 * 4 * 25),
    "srcnn": (1, 1, 11, 81 * 8 + 8 + 8 * 4 + 4 + 25 * 4 + 1),
    "espcn": (1, 1, 9, 25 * 8 + 8 + 9 * 8 * 4 + 4 + 9 * 4 * 4 + 4),
    "fsrcnn": (1, 1, 11, 25 * 8 + 8 + 8 * 4 + 4 + 9 * 4 * 4 + 4 + 4 * 8 + 8 + 25 * 8 * 4 + 4 + 8 + 4 + 4 + 8),
    "edsr": (3, 1, 16, 27 * 8 + 8 + 5 * (72 * 8 + 8) + 72 * 32 + 32 + 72 * 3 + 3),
}
CALIBRATED = ("linear", "realtime", "srcnn", "rdn")
CLEAN = 0.3  # of a network that takes it
IN_ALL_FORMATS = ("espcn", "edsr")  # one of luma, one of RGB
# Of luma with an anchor, plain, and of RGB; `-m slow` has the others.
NETWORKS = [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in ("realtime", "espcn", "edsr_baseline")))
    for name in MODELS
    if name != "strided"
]
FILES = {"model.keras", "model.onnx", "model_u16.onnx"}


def lively(model):
    """Give a network weights, of batch norm too, that let a picture's contrast through."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            spread = [random.uniform(0.5, 1.5, gamma.shape), random.uniform(0.5, 1.5, variance.shape)]
            layer.set_weights([spread[0], *(random.normal(0, 0.1, w.shape) for w in (beta, mean)), spread[1]])
        elif layer.trainable and layer.name != "anchor":
            layer.set_weights([random.normal(0, 1 / np.sqrt(w[..., 0].size), w.shape) for w in layer.get_weights()])
    last = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)][-1]
    if not last.use_bias:  # the linear filter: near the identity, or its mean may lie outside the range
        kernel = random.normal(0, 0.02, last.kernel.shape)
        kernel[last.kernel.shape[0] // 2, last.kernel.shape[1] // 2] += 1
        last.set_weights([kernel])
        return model
    height, width, channels = (n or 24 for n in model.inputs[0].shape[1:])
    sr = expected(model, samples((height, width), channels, 8), 8) / 255
    kernel, bias = last.get_weights()
    gain = 0.25 / sr.std()
    last.set_weights([kernel * gain, bias * gain + 0.5 - gain * sr.mean()])
    return model


def samples(size, channels, bits, seed=1):
    """Return smooth samples with noise and both ends of the range: (1, H, W, channels) integers."""
    y, x, c = np.mgrid[: size[0], : size[1], :channels]
    noise = np.random.default_rng(seed).standard_normal(y.shape)
    smooth = 0.5 + 0.4 * np.sin(x / 5 + c) * np.cos(y / 7 - c) + 0.1 * noise
    peak = 2**bits - 1
    return np.clip(np.rint(smooth * peak), 0, peak).astype(f"uint{bits}")[np.newaxis]


def expected(model, lr, bits):
    peak = 2**bits - 1
    sr = keras.ops.convert_to_numpy(at_detail(model, 0.0, CLEAN)(lr.astype(np.float32) / peak, training=False))
    return np.rint(np.clip(sr.astype(float) * peak, 0, peak)).astype(int)


def build_small(name):
    scale = OWN_SCALES.get(name, 2)
    return lively(collapsed(build(name, scale, **OPTIONS.get(name, {}))))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return four pictures, one of them much brighter than the others."""
    folder, files = tmp_path_factory.mktemp("photos"), []
    for i in range(4):
        files.append(folder / f"{i}.png")
        rgb = picture(230, 210, shift=100 * i)
        Image.fromarray(rgb if i == 0 else rgb // 4).save(files[-1])
    return files


@pytest.fixture(scope="module")
def exported(tmp_path_factory, photos):
    """Return a function from a network's name to its card, the network, and what the export printed; made once."""
    folder, made = tmp_path_factory.mktemp("models"), {}

    def get(name):
        if name not in made:
            model, file = build_small(name), folder / f"{name}.keras"
            model.save(file)
            calibration = photos if name in CALIBRATED else ()
            with contextlib.redirect_stdout(io.StringIO()) as text:
                also = tuple(ALSO) if name in IN_ALL_FORMATS else ()
                card = export(file, name, folder, calibration=calibration, also=also)
            made[name] = SimpleNamespace(card=card, model=model, file=file, text=text.getvalue())
        return made[name]

    return get


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_agrees_with_keras_to_one_code(name, exported):
    card, model = exported(name).card, exported(name).model
    size = (13 * card.multiple, 21 * card.multiple)
    for bits in (8, 16):
        lr = samples(size, card.channels, bits)
        wanted = expected(model, lr, bits)
        assert np.ptp(wanted) > 2**bits / 4
        others = ("litert", "saved_model") if bits == 8 and name in IN_ALL_FORMATS else ()
        numbers = {"clean": CLEAN} if takes_clean(model) else {}
        for engine in ("openvino", "onnx", *others):
            sr = load_engine(card, engine=engine, precision="fp32", bits=bits, **numbers)(lr)
            assert sr.dtype == lr.dtype
            assert np.abs(sr - wanted).max() <= 1, engine


@pytest.mark.parametrize("name", NETWORKS)
def test_a_card_says_what_was_exported(name, exported):
    card = exported(name).card
    scale = OWN_SCALES.get(name, "2")
    assert (card.scale, card.size, card.config) == (Scale.parse(scale), None, {"scale": scale})
    assert set(card.sha256) >= FILES
    assert {type(layer).__module__.split(".")[0] for layer in exported(name).model.layers} == {"keras"}
    if name in FIGURES:
        assert (card.channels, card.multiple, card.receptive_field, card.parameters) == FIGURES[name]


@pytest.mark.parametrize("name", ["espcn", slow("edsr")])
def test_a_card_covers_every_format(name, exported, tmp_path):
    card = exported(name).card
    folder = tmp_path / "copy"
    shutil.copytree(card.folder, folder)
    assert {"model.xml", "model.bin", "model.tflite", "saved_model/saved_model.pb"} <= set(card.sha256)
    variables = next((folder / "saved_model" / "variables").glob("variables.data*"))
    variables.write_bytes(b"changed")
    with pytest.raises(ModelError, match=r"saved_model.variables.variables\.data.*checksum"):
        ModelCard.read(folder)


def test_openvino_runs_its_own_format_where_there_is_one(exported):
    card = exported("espcn").card

    def without(*files):
        kept = {file: digest for file, digest in card.sha256.items() if file not in files}
        return dataclasses.replace(card, sha256=kept)

    load_engine(without("model.onnx"), precision="fp32")
    with pytest.raises(ModelError, match=r"model\.onnx"):
        load_engine(without("model.onnx", "model.xml"), precision="fp32")


def test_weights_of_openvinos_own_format_are_rounded_to_bf16(exported):
    # Weights compressed to float16 would come through a Convert, and the rounding would leave them as they are.
    import openvino as ov

    from imagesr.engines.openvino import _round_filters

    model = ov.Core().read_model(exported("espcn").card.folder / "model.xml")

    def weights():
        convolutions = [node for node in model.get_ops() if node.get_type_name() == "Convolution"]
        return [np.array(node.input_value(1).get_node().data) for node in convolutions]

    before = weights()
    _round_filters(model)
    assert len(before) == 3 and all((w.view(np.uint32) & 0xFFFF).any() for w in before)
    assert not any((w.view(np.uint32) & 0xFFFF).any() for w in weights())


@pytest.mark.parametrize("name", ["edsr_baseline", slow("fsrcnn")])
def test_photographs_go_through_every_kind_of_network(name, exported):
    """RGB networks take colours as they are, also of grey and transparent pictures; the result is Keras's."""
    import imagesr

    card = exported(name).card
    lr = samples((96, 80), 3, 8)[0]
    sr = imagesr.upscale_image(lr, scale=card.scale, model=str(card.folder))
    size = tuple(card.scale.grow(n) for n in lr.shape[:2])
    assert sr.shape == (*size, 3)
    if card.channels == 3:
        whole = load_engine(card, precision="fp32")(lr[np.newaxis])[0]
        inner = (slice(size[0] // 3, -size[0] // 3), slice(size[1] // 3, -size[1] // 3))
        assert np.abs(sr[inner].astype(int) - whole[inner]).max() <= 1
    for channels in (2, 4):
        more = np.dstack([lr[..., :1]] * channels)
        assert imagesr.upscale_image(more, scale=card.scale, model=str(card.folder)).shape == (*size, channels)


def test_litert_serves_several_threads(exported):
    engine = load_engine(exported("espcn").card, engine="litert")
    frames = [samples((20 + i % 3, 30), 1, 8, seed=i) for i in range(12)]
    alone = [engine(frame) for frame in frames]
    with ThreadPoolExecutor(3) as pool:
        for a, b in zip(alone, pool.map(engine, frames), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [slow("linear"), "realtime", "espcn"])
def test_anchored_networks_read_samples_as_they_are(name, exported):
    nodes = [node.op_type for node in onnx.load(exported(name).card.folder / "model.onnx").graph.node]
    # Relative to mid-grey; a quotient by 255 would be rounded by bf16.
    assert nodes[:2] == ["Cast", "Mul" if name == "espcn" else "Sub"]


def test_pairs_are_aligned_and_small_pictures_mirrored(photos):
    scale = Scale(2)
    lr = keras.Input((None, None, 1))
    sr = keras.ops.depth_to_space(keras.layers.Conv2D(100, 1)(keras.ops.space_to_depth(lr, 5)), 10)
    ((lr, hr),) = calibration_pairs([photos[0]], keras.Model(lr, sr), scale)
    assert (lr.shape, hr.shape) == ((1, 95, 95, 1), (1, 190, 190, 1))
    small, _ = downscale(hr[0, ..., 0], scale)
    assert np.abs(small.astype(int) - lr[0, ..., 0]).max() <= 2
    scale = Scale(3)
    ((lr, hr),) = calibration_pairs([photos[0]], build("edsr", scale, filters=4, blocks=1), scale)
    assert (lr.shape, hr.shape) == ((1, 96, 96, 3), (1, 288, 288, 3))
    np.testing.assert_array_equal(hr[0, 210:], hr[0, 209 : 2 * 210 - 288 - 1 : -1])  # the picture has 210 rows


def test_a_training_network_is_collapsed(tmp_path):
    model = build("realtime", 2, **OPTIONS["realtime"])
    model.save(tmp_path / "training.keras")
    card = export(tmp_path / "training.keras", "mine", tmp_path)
    assert card.parameters == FIGURES["realtime"][3] < model.count_params()


@pytest.mark.parametrize("name", ["realtime", *(slow(n) for n in ("srcnn", "rdn"))])
def test_int8_stays_close(name, exported):
    card = exported(name).card
    assert "int8 costs" in exported(name).text
    lr = samples((48, 64), card.channels, 8)
    fp32, int8 = (load_engine(card, precision=precision)(lr) for precision in ("fp32", "int8"))
    # OpenVINO takes signed integers behind a concatenation, which RDN has, for unsigned ones.
    assert psnr(int8, load_engine(card, engine="onnx", precision="int8")(lr)) > 40
    assert psnr(int8, fp32) > 20  # srcnn: 13 with ranges that are averaged over the pictures


@pytest.mark.parametrize(("name", "step"), [("realtime", 1), slow("rdn", 1 / 255)])
def test_int8_takes_samples_as_they_are(name, step, exported):
    graph = onnx.load(exported(name).card.folder / "model_int8.onnx").graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    assert tensors[first.input[1]] == pytest.approx(step, rel=1e-6)
    assert tensors[first.input[2]] == 0


@pytest.mark.slow
def test_a_linear_filter_stays_in_floating_point(exported):
    assert "no int8: it has no convolutions but linear filters" in exported("linear").text
    assert set(exported("linear").card.sha256) == FILES


def test_without_pictures_there_is_no_int8(exported):
    assert "no int8: it needs pictures" in exported("edsr_baseline").text
    assert set(exported("edsr_baseline").card.sha256) == FILES


def test_int8_that_costs_too_much_is_not_kept(exported, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(int8, "INT8_LOSS", -100)
    card = export(exported("espcn").file, "mine", tmp_path, calibration=photos[:2])
    assert "no int8: it costs" in capsys.readouterr().out
    assert set(card.sha256) == {path.name for path in card.folder.iterdir()} - {"card.json"} == FILES


@pytest.mark.slow
def test_a_network_of_one_size_keeps_it(tmp_path, photos):
    lr = keras.Input((24, 32, 1), name="lr")
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(lr)
    sr = keras.ops.depth_to_space(keras.layers.Conv2D(4, 3, padding="same")(x), 2)
    model = lively(keras.Model(lr, sr))
    model.save(tmp_path / "fixed.keras")
    card = export(tmp_path / "fixed.keras", "fixed", tmp_path, also=tuple(ALSO), calibration=photos[:2])
    assert (card.size, card.multiple) == ([24, 32], 1)
    assert "model_int8.onnx" in card.sha256
    lr = samples((24, 32), 1, 8)
    for engine in ("openvino", "onnx", "litert", "saved_model"):
        sr = load_engine(card, engine=engine, precision="fp32")(lr)
        assert np.abs(sr - expected(model, lr, 8)).max() <= 1, engine
    with pytest.raises(ModelError, match=r"24.*32.*Received: \[1, 26, 32, 1\]"):
        load_engine(card)(samples((26, 32), 1, 8))


@pytest.mark.slow
def test_the_network_of_2020(exported, tmp_path):
    card, model = exported("strided").card, exported("strided").model
    assert (card.scale, card.size) == (Scale(3, 2), [720, 1280])
    for bits in (8, 16):
        lr = samples((720, 1280), 3, bits)
        for engine in ("openvino", "onnx"):
            sr = load_engine(card, engine=engine, precision="fp32", bits=bits)(lr)
            assert np.abs(sr - expected(model, lr, bits)).max() <= 1, engine


@pytest.mark.slow
def test_a_scale_that_is_no_whole_number(tmp_path, photos):
    model = lively(build("espcn", "5/4", filters=4))
    model.save(tmp_path / "net.keras")
    card = export(tmp_path / "net.keras", "net", tmp_path, calibration=photos[:2])
    assert card.folder == tmp_path / "net_x1.25"
    assert (card.scale, card.multiple) == (Scale(5, 4), 4)
    lr = samples((28, 36), 1, 8)
    assert np.abs(load_engine(card, precision="fp32")(lr) - expected(model, lr, 8)).max() <= 1


def test_a_card_says_which_data_but_not_where_it_lay(exported, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(exported("espcn").file, run / "model.keras")
    config = {
        "model": "espcn",
        "architecture": {"filters": 8},
        "scale": "2",
        "data": ["folder=/home/secret/photos/train@2", "div2k=/home/secret/div2k"],
        "val": ["folder=/home/secret/photos/val"],
        "init": "/home/secret/runs/first",
    }
    (run / "config.json").write_text(json.dumps(config))
    card = export(run, "mine", tmp_path, data={"waves": "CC0-1.0"})
    assert card.config == config | {
        "data": ["folder=photos/train@2", "div2k=secret/div2k"],
        "val": ["folder=photos/val"],
        "init": "runs/first",
    }
    assert card.data == [{"name": "waves", "licence": "CC0-1.0"}]


def test_a_graph_that_differs_is_refused_and_what_was_there_stays(exported, tmp_path, monkeypatch):
    other = exported("fsrcnn").file
    before = export(exported("espcn").file, "mine", tmp_path)

    def brighter(model, bits):
        clone = keras.models.clone_model(model)
        clone.set_weights([w + 0.01 * (w.ndim == 1) for w in model.get_weights()])
        return integer_graph(clone, bits)

    monkeypatch.setattr(exporting, "integer_graph", brighter)
    with pytest.raises(ValueError, match=r"openvino within one code of Keras at 8 bits\. Received: [2-9]"):
        export(other, "mine", tmp_path)
    assert ModelCard.read(before.folder) == before
    assert list(tmp_path.iterdir()) == [before.folder]
    monkeypatch.undo()
    after = export(other, "mine", tmp_path)
    assert after.parameters == FIGURES["fsrcnn"][3]
    assert list(tmp_path.iterdir()) == [after.folder]


def test_measured_figures_and_the_flavour_go_into_the_card(exported, photos, tmp_path):
    arguments = [exported("linear").file, "--name", "mine", "--folder", tmp_path, "--flavour", "photo", "--measure"]
    assert main([*map(str, arguments), f"waves={photos[0].parent}"]) == 0
    card = ModelCard.read(tmp_path / "mine_x2")
    assert (card.flavour, exported("linear").card.flavour) == ("photo", "")
    measured = card.measured["waves"]
    assert {"fp32", "lanczos"} <= set(measured) <= {"fp32", "bf16", "lanczos"}
    assert measured["lanczos"]["psnr_y"] > measured["fp32"]["psnr_y"] + 5


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """Return a network that takes pictures of one size alone."""
    x, file = keras.Input((8, 8, 1)), tmp_path_factory.mktemp("wrong") / "fixed.keras"
    keras.Model(x, keras.layers.UpSampling2D(2)(x)).save(file)
    return file


@pytest.mark.parametrize(
    ("module", "engine"), [("onnxruntime", "onnx"), ("ai_edge_litert.interpreter", "litert"), ("openvino", "openvino")]
)
def test_a_missing_runtime_says_what_to_install(module, engine, fixed, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"imagesr.engines.{engine}", raising=False)
    arguments = [fixed, "--name", "mine", "--folder", tmp_path, "--also", "litert"]
    assert main([*map(str, arguments)]) == 2
    assert f"needs the package {module}: pip install" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_quantiser_says_what_to_install(fixed, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nncf", None)
    arguments = [fixed, "--name", "mine", "--folder", tmp_path, "--calibrate", photos[0].parent]
    assert main([*map(str, arguments)]) == 2
    assert capsys.readouterr().err.strip().endswith("[train]'")
    assert not list(tmp_path.iterdir())
