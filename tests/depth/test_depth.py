"""Depth maps beside the pictures: read, cropped and turned alike, hidden, missing, estimated; scenes that have them."""

import csv
import json
from itertools import product
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from conftest import SMALL, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from imagesr.datasets.__main__ import main as datasets
from imagesr.datasets.crops import RandomCrops, fixed_crops
from imagesr.datasets.degradations import Degradation
from imagesr.datasets.pairs import SIZES, Pair, load_pairs
from imagesr.depth import scenes
from imagesr.depth.estimator import depth_source, estimator
from imagesr.depth.maps import as_channels, depth_maps, near_edges, normalised, read_depth, resized
from imagesr.depth.network import joint_bilateral, with_depth, without_depth
from imagesr.engines.keras import read_network
from imagesr.engines.tiles import tiled
from imagesr.errors import ModelError
from imagesr.evaluate.__main__ import main as evaluate
from imagesr.evaluate.protocol import load_network
from imagesr.models import build
from imagesr.models.layers import collapsed
from imagesr.scale import Scale
from imagesr.train.__main__ import main
from imagesr.train.config import Config
from imagesr.train.losses import LOSSES, at_edges
from imagesr.train.training import train

X2 = Scale(2)


@pytest.fixture(autouse=True)
def no_benchmark(monkeypatch):
    """Leave out how long frames of 720p take: seconds, after every run."""
    monkeypatch.setattr(
        "imagesr.models.cost.seconds_30_frames", lambda model: (float(len(model.inputs)), "not measured")
    )


def ramp(height, width):
    """Return what grows to the right and down, 40 to 215."""
    y, x = np.mgrid[:height, :width]
    return 40 + 175 * (x + 2 * y) / (width + 2 * height - 3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder with three pictures of odd sizes, and their maps in depth/: one PNG, one TIFF, one NPY."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "depth").mkdir()
    for i, name in enumerate(("a.png", "b.tif", "c.npy")):
        size = (101 + 4 * i, 91)
        Image.fromarray(picture(*size, shift=100 * i)).save(folder / f"{name[0]}.png")
        depth = ramp(*size[::-1]).astype(np.float32)
        depth[20:50, 30:70] = 10
        if name.endswith("npy"):
            np.save(folder / "depth" / name, depth)
        else:
            Image.fromarray(depth.astype(np.uint16) if name.endswith("png") else depth).save(folder / "depth" / name)
    return folder


def config(photos, **options):
    small = {"scale": "2", "architecture": {"filters": 4, "blocks": 1}, "steps": 6, "batch": 2, "patch": 48}
    places = {"data": (str(photos),), "val": (str(photos),), "depth": (str(photos / "depth"),)}
    return Config(**small | places | options)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([Scale(3, 2), X2, Scale(3)]),
    size=st.sampled_from([(24, 24), (24, 36)]),
    degrade=st.sampled_from([(), ("blur=0:1", "noise=0:4")]),
)
def test_depth_is_cropped_flipped_and_turned_with_its_picture(seed, scale, size, degrade):
    hr = np.random.default_rng(seed).integers(1, 256, (60, 72), np.uint8)  # every pixel's depth is its own value
    lr = hr[:: scale.up, :: scale.up].repeat(scale.down, 0).repeat(scale.down, 1)
    pair = (None if degrade else lr, hr, (hr / 255).astype(np.float16))
    options = {"batch": 8, "size": size, "steps": 1, "seed": seed, "degradation": Degradation.parse(degrade)}
    (small, guide), crops = RandomCrops([([pair], 1)], scale, **options).numbered(0)
    np.testing.assert_allclose(guide[..., :1], crops, atol=1e-3)
    assert (guide[..., 1] == 1).all()
    assert small.shape[1:3] == tuple(n * scale.down // scale.up for n in size)
    for _, crop, depth in fixed_crops([(lr, hr, pair[2])], scale, size=size, most=4):
        np.testing.assert_allclose(depth, crop / 255, atol=1e-3)


def test_depth_is_reduced_with_its_picture(tmp_path):
    Image.fromarray(ramp(131, 147).astype(np.uint8)).convert("RGB").save(tmp_path / "a.png")
    (tmp_path / "depth").mkdir()
    whole = ramp(131, 147)
    for values in (whole, (whole[:130, :146:2] + whole[:130, 1:146:2]).reshape(65, 2, 73).mean(1) / 2):  # HR's, LR's
        np.save(tmp_path / "depth/a.npy", values)
        source = depth_maps([tmp_path / "depth"], X2)
        shown = load_pairs([Pair(None, tmp_path / "a.png")], X2, sizes=SIZES, depth=source)
        assert [hr.shape for _, hr, _ in shown] == [(130, 146), (92, 102), (66, 74)]
        for _, hr, depth in shown:
            assert depth.dtype == np.float16
            assert depth.shape == hr.shape
            luma = (hr.astype(float) - 16) * 255 / 219
            middle = (slice(8, -8), slice(8, -8))  # the tails are clipped
            slope, offset = np.polyfit(depth[middle].ravel(), luma[middle].ravel(), 1)
            assert np.abs(slope * depth[middle] + offset - luma[middle]).max() < 2  # of 175: less than a pixel's step


def test_depth_is_hidden_in_some_crops():
    hr = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    pair = (hr[::2, ::2], hr, np.full(hr.shape, 0.5, np.float16))
    for share in (0, 0.3, 1):
        crops = RandomCrops([([pair], 1)], X2, batch=200, size=(24, 24), steps=1, depth_dropout=share)
        (lr, guide), _ = crops.numbered(0)
        hidden = (guide == 0).all((1, 2, 3))
        assert np.logical_or(hidden, (guide == (0.5, 1)).all((1, 2, 3))).all()
        assert abs(hidden.mean() - share) < 0.1
        plain, _ = RandomCrops([([pair[:2]], 1)], X2, batch=200, size=(24, 24), steps=1).numbered(0)
        assert lr.min() >= 0
        assert plain.shape == lr.shape


def test_every_kind_of_file_is_the_same_map(tmp_path):
    depth = np.rint(ramp(20, 30)).astype(np.uint8)
    Image.fromarray(depth).save(tmp_path / "8.png")
    Image.fromarray(depth.astype(np.uint16) * 100).save(tmp_path / "16.png")
    Image.fromarray(depth.astype(np.uint16) * 100).save(tmp_path / "16.tif")
    Image.fromarray(depth.astype(np.float32) / 7).save(tmp_path / "f.tiff")
    np.save(tmp_path / "d.npy", depth * 1e3 - 1e6)
    maps = [normalised(read_depth(file), file.name) for file in sorted(tmp_path.iterdir())]
    assert len(maps) == 5
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], atol=1e-4)
    assert maps[0].min() == 0
    assert maps[0].max() == 1


def test_what_is_missing_is_masked(tmp_path):
    depth = ramp(20, 30)
    depth[0, :3] = 0, np.nan, np.inf
    depth[10:14, 10:16] = 0
    np.save(tmp_path / "a.npy", depth)
    read = normalised(read_depth(tmp_path / "a.npy"), "a")
    guide = as_channels(read)
    gone = np.isin(depth, (0, np.inf)) | np.isnan(depth)
    np.testing.assert_array_equal(guide[..., 1], ~gone)
    assert (guide[gone] == 0).all()
    assert guide[..., 0][~gone].std() > 0.2
    small = resized(read, (10, 15))
    np.testing.assert_array_equal(np.isnan(small[5:7, 5:8]), True)
    # What is known beside it is not dragged towards zero.
    np.testing.assert_allclose(small[4, 4:9], read[8:10, 8:18].reshape(2, 5, 2).mean((0, 2)), atol=0.05)


def test_outliers_do_not_flatten_a_map():
    depth = np.random.default_rng(0).uniform(2, 4, (50, 50))
    depth[0, :5] = 1e6
    assert normalised(depth, "a")[10:].std() > 0.25


def test_edges_are_where_depth_jumps():
    depth = np.full((12, 20), 0.2, np.float32)
    depth[:, 10:] = 0.6
    for reach in (1, 3):
        near = near_edges(depth, reach)
        np.testing.assert_array_equal(near[0], (np.arange(20) >= 10 - reach) & (np.arange(20) < 10 + reach))
        assert (near == near[0]).all()
    depth[:, 10] = 0.4  # antialiased
    assert near_edges(depth, 2)[:, 8:13].all()
    depth[:, 8:12] = np.nan  # what is missing is no edge
    assert not near_edges(depth, 1).any()
    assert not near_edges(np.full((5, 5), np.nan), 1).any()
    assert not near_edges(np.float32(ramp(40, 50) / 255 * 10), 4).any()  # nor is a slope, however steep


def test_errors_at_edges_count_more():
    hr, sr = (np.random.default_rng(i).random((2, 24, 24, 1), np.float32) for i in range(2))
    for loss in LOSSES.values():
        target = np.concatenate([hr, np.ones_like(hr)], -1)
        np.testing.assert_allclose(at_edges(loss)(target, sr), loss(hr, sr), rtol=1e-4)
    times = np.ones_like(hr)
    times[:, :12] = 3
    weighted = at_edges(LOSSES["mae"])(np.concatenate([hr, times], -1), sr)
    np.testing.assert_allclose(weighted, (times * np.abs(hr - sr)).mean((1, 2, 3)), rtol=1e-5)
    depth = np.repeat((hr[0] > 2).astype(np.float16), 2, 0)[..., 0]
    depth[:, 12:] = 1
    pair = (np.zeros((24, 12), np.uint8), np.zeros((48, 24), np.uint8), depth)
    options = {"batch": 4, "size": (24, 24), "steps": 1, "depth_dropout": 1.0, "edge_weight": 3.0}
    _, target = RandomCrops([([pair], 1)], X2, **options).numbered(0)  # depth that is hidden has edges, too
    assert target.shape == (4, 24, 24, 2)
    assert set(np.unique(target[..., 1])) == {1, 3}
    assert (target[..., 1] == 3).mean() == pytest.approx(4 / 24)


def learn(model):
    """Give the layers that begin at zero some weights."""
    for name in ("depth_tail", "depth_skip"):
        layer = model.get_layer(name)
        layer.set_weights([np.random.default_rng(i).normal(size=w.shape) for i, w in enumerate(layer.weights)])


@pytest.mark.parametrize(("name", "scale"), [("edsr_baseline", "2"), ("realtime", "3/2"), ("vdsr", "3")])
def test_without_depth_a_network_is_the_ordinary_one(name, scale, tmp_path):
    scale = Scale.parse(scale)
    ordinary = build(name, scale, **SMALL.get(name, {}))
    model, channels = with_depth(ordinary, scale), ordinary.output.shape[-1]
    lr = np.random.default_rng(0).random((1, 18, 24, channels), np.float32)
    depth = np.random.default_rng(1).random((1, scale.grow(18), scale.grow(24), 2), np.float32)
    sr = ordinary(lr)
    np.testing.assert_allclose(model([lr, depth]), sr, atol=1e-6)  # before training
    learn(model)
    plain = without_depth(model)
    assert plain.count_params() == ordinary.count_params()
    assert [layer.name for layer in plain.layers] == [layer.name for layer in ordinary.layers]
    np.testing.assert_allclose(plain(lr), sr, atol=1e-6)
    np.testing.assert_allclose(model([lr, 0 * depth]), sr, atol=1e-5)
    assert np.abs(model([lr, depth]) - sr).max() > 0.01
    collapsed(model).save(tmp_path / "model.keras")
    both = read_network(tmp_path / "model.keras", depth=True)
    np.testing.assert_allclose(both([lr, depth]), model([lr, depth]), atol=1e-4)
    np.testing.assert_allclose(read_network(tmp_path / "model.keras")(lr), sr, atol=1e-5)


def test_depth_moves_what_it_belongs_to():
    for name in ("espcn", "realtime"):
        model = with_depth(build(name, "3/2", **SMALL.get(name, {})), Scale(3, 2))
        learn(model)
        lr = np.zeros((1, 40, 60, model.inputs[0].shape[-1]), np.float32)
        guide = np.zeros((1, 60, 90, 2), np.float32)
        before = model([lr, guide])
        guide[0, 30, 45] = 1
        moved = np.abs(model([lr, guide]) - before)[0].max(-1) > 1e-6
        rows, columns = moved.nonzero()
        assert abs((rows.min() + rows.max()) / 2 - 30) <= 3  # a cell is three pixels of HR, or six... of which it is in
        assert abs((columns.min() + columns.max()) / 2 - 45) <= 3
        assert moved.sum() < moved.size / 2


@pytest.mark.parametrize("scale", ["3/2", "2", "3"])
def test_across_a_jump_the_pixels_of_the_other_side_do_not_count(scale):
    scale = Scale.parse(scale)
    height, width = 12 * scale.up // scale.down, 24 * scale.up // scale.down
    edge = width // 2 + 1  # within a LR pixel
    hr = np.where(np.arange(width) < edge, 0.2, 0.8) * np.ones((height, 1))
    lr = np.asarray(Image.fromarray(hr.astype(np.float32)).resize((24, 12), Image.Resampling.BOX))
    depth = np.where(hr < 0.5, 0.3, 0.6)
    lr, maps = lr[None, ..., None], as_channels(depth)[None]
    change = np.asarray(joint_bilateral(lr, maps, scale))[0, ..., 0]
    assert change.shape == hr.shape
    around = np.pad(lr[0, ..., 0], 1, mode="edge")
    around = sum(around[i : i + 12, j : j + 24] for i in range(3) for j in range(3)) / 9
    rows, columns = (np.arange(n) * scale.down // scale.up for n in hr.shape)
    np.testing.assert_allclose(around[rows][:, columns] + change, hr, atol=0.015)
    assert np.abs(change).max() > 0.15
    assert np.abs(change[:, : edge - 3 * scale.up]).max() < 1e-4
    assert np.abs(np.asarray(joint_bilateral(lr, 0 * maps, scale))).max() == 0
    level = as_channels(np.full_like(depth, 0.4))[None]
    assert np.abs(np.asarray(joint_bilateral(lr, level, scale))).max() < 1e-6


def test_tiles_take_their_piece_of_the_map():
    scale, random = Scale(3, 2), np.random.default_rng(0)
    lr, guide = random.integers(0, 256, (53, 71), np.uint8), random.random((79, 106, 2))

    def run(planes, piece):
        assert piece.shape[1:3] == tuple(n * 3 // 2 for n in planes.shape[1:3])
        padded = np.pad(piece, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1]

    whole = tiled(run, lr[..., None], scale=scale, multiple=2, halo=2, guide=guide)
    parts = tiled(run, lr[..., None], scale=scale, multiple=2, halo=2, guide=guide, tile=16)
    assert whole.shape[:2] == (80, 107)
    np.testing.assert_array_equal(whole[:78], parts[:78])


@pytest.mark.parametrize("scale", ["3/2", "2"])
def test_a_correction_looks_no_farther_than_a_halo(scale, tmp_path):
    scale = Scale.parse(scale)
    keras.utils.set_random_seed(0)
    model = with_depth(build("espcn", scale), scale)
    learn(model)
    model.save(tmp_path / "model.keras")
    engine = load_network(str(tmp_path / "model.keras"), scale)
    card = engine.card
    lr = np.random.default_rng(0).integers(0, 256, (102, 92), np.uint8)
    depth = np.random.default_rng(1).random((scale.grow(102), scale.grow(92))).round(1)
    where = {"scale": scale, "multiple": card.multiple, "halo": card.receptive_field // 2 + card.multiple}
    whole = tiled(engine, lr, **where, guide=as_channels(depth))
    parts = tiled(engine, lr, **where, guide=as_channels(depth), tile=24)
    assert whole.std() > 20
    assert np.abs(whole.astype(int) - parts).max() <= 1


def history(run):
    with (run / "history.csv").open(newline="") as file:
        return [[float(value) for value in row.values()] for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_run_with_depth_that_was_interrupted_keeps_its_curve(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("imagesr.train.loop.EPOCH", 4)
    run = config(photos, steps=10, model="espcn", architecture={}, edge_weight=2.0)
    whole = train(run, tmp_path / "whole")

    class StopError(Exception):
        pass

    def stop(self, step):
        if step >= 7:
            raise StopError
        return numbered(self, step)

    numbered = RandomCrops.numbered
    with monkeypatch.context() as patch, pytest.raises(Exception, match="StopError"):
        patch.setattr(RandomCrops, "numbered", stop)
        train(run, tmp_path / "parts")
    resumed = train(run, tmp_path / "parts")
    np.testing.assert_allclose(history(tmp_path / "whole"), history(tmp_path / "parts"), rtol=1e-4)
    assert len(history(tmp_path / "whole")) == 3
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    assert np.abs(whole.get_layer("depth_tail").get_weights()[0]).max() > 0  # it learns


@pytest.mark.slow
def test_train_and_evaluate_by_their_commands(photos, tmp_path, capfd):
    maps = ["--depth", str(photos / "depth")]
    start = config(photos, depth=(), steps=0)
    plain = train(start, tmp_path / "plain")
    data = ["--data", str(photos), "--val", str(photos), "--scale", "2", "--architecture", "filters=4", "blocks=1"]
    some = ["--steps", "6", "--batch", "2", "--patch", "48", "--edge-weight", "3", "--learning-rate", "0.005"]
    assert main([*data, *some, *maps, "--init", str(tmp_path / "plain"), "--out", str(tmp_path / "run")]) == 0
    out = capfd.readouterr().out
    assert "30 frames 1.00 s" in out  # without depth, as it would run
    more = (9 * 4 * 3 * 32 + 32) + (9 * 32 * 4 + 4) + 9
    assert f"{plain.count_params() + more:,} parameters" in out
    assert json.loads((tmp_path / "run/config.json").read_text())["depth"] == maps[1:]
    model = str(tmp_path / "run/model.keras")
    results = {}
    for name, options in (("with", maps), ("without", ["--edges", *maps[1:]]), ("plain", [])):
        file = tmp_path / f"{name}.json"
        assert evaluate(["--model", model, "--scale", "2", "--data", str(photos), *options, "--json", str(file)]) == 0
        results[name] = json.loads(file.read_text())
    assert "at edges" in capfd.readouterr().out
    assert results["with"]["psnr_edges"] != results["without"]["psnr_edges"]
    assert results["without"]["psnr_y"] == results["plain"]["psnr_y"] != results["with"]["psnr_y"]
    assert "psnr_edges" not in results["plain"]


def spoil(folder, what):
    """Return the options that a bad map or model needs, having made it."""
    target = folder / "depth" / "a.png"
    if what == "size":
        Image.fromarray(ramp(40, 40).astype(np.uint16)).save(target)
    elif what == "colour":
        Image.fromarray(picture(101, 91)).save(target)
    elif what == "constant":
        Image.fromarray(np.full((91, 101), 7, np.uint16)).save(target)
    elif what == "missing":
        Image.fromarray(np.zeros((91, 101), np.uint16)).save(target)
    elif what == "none":
        target.unlink()
    elif what == "two":
        np.save(folder / "depth" / "a.npy", ramp(91, 101))
    elif what == "torn":
        target.write_bytes(target.read_bytes()[:60])


BAD_MAPS = [
    ("size", "depth map of 101x91 or, as LR, 50x45"),
    ("colour", "one channel"),
    ("constant", "7 everywhere"),
    ("missing", "all missing"),
    ("none", "one depth map of the name a for"),
    ("two", "a.npy"),
    ("torn", "that can be read"),
]


@pytest.mark.parametrize(("what", "words"), BAD_MAPS)
def test_a_bad_map_is_one_line(what, words, tmp_path, photos, capfd):
    (tmp_path / "depth").mkdir()
    for file in ("a.png", "depth/a.png"):
        (tmp_path / file).write_bytes((photos / file).read_bytes())
    np.save(tmp_path / "depth" / "z.npy", ramp(9, 9))  # a map too many is none of our business
    spoil(tmp_path, what)
    both = ["--scale", "2", "--data", str(tmp_path), "--depth", str(tmp_path / "depth")]
    small = ["--val", str(tmp_path), "--architecture", "filters=4", "blocks=1", "--patch", "48"]
    assert main([*both, *small, "--out", str(tmp_path / "run")]) == 2
    assert words in capfd.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()
    assert evaluate([*both, "--model", "bicubic"]) == 2
    assert words in capfd.readouterr().err.strip().splitlines()[-1]


def test_films_and_arrays_have_no_maps(photos, tmp_path):
    with pytest.raises(ValueError, match="not films"):
        train(config(photos, data=(f"film={photos}",)), tmp_path / "run")
    with pytest.raises(ValueError, match="pictures in files"):
        load_pairs([Pair(None, picture(60, 60))], X2, depth=depth_maps([photos / "depth"], X2))


def network(path, shape, nodes, dtype=TensorProto.FLOAT, outputs=1, entry="rgb"):
    """Write an ONNX file of some nodes from `rgb` to `depth`."""
    results = [helper.make_tensor_value_info("depth", TensorProto.FLOAT, None) for _ in range(outputs)]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info(entry, dtype, shape)], results)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def mean(axis, keepdims=1):
    return helper.make_node("ReduceMean", ["rgb"], ["depth"], axes=[axis], keepdims=keepdims)


@pytest.mark.parametrize("options", [{"gan": {}, "from_scratch": True}, {"perceptual": "photos"}])
def test_what_knows_of_no_depth_is_refused_beside_it(photos, options):
    with pytest.raises(ValueError, match="depth without a GAN"):
        config(photos, **options)


@pytest.mark.parametrize(
    ("shape", "nodes", "dtype", "size"),
    [
        ([1, 3, 64, 48], [mean(1)], TensorProto.FLOAT, (64, 48)),
        ([1, "height", "width", 3], [mean(3, 0)], TensorProto.FLOAT, (96, 128)),
        (["n", 3, "h", "w"], [mean(1, 0)], TensorProto.FLOAT16, (96, 128)),
        (
            [1, 3, "h", "w"],  # takes multiples of 14 alone
            [
                helper.make_node("SpaceToDepth", ["rgb"], ["a"], blocksize=14),
                helper.make_node("DepthToSpace", ["a"], ["b"], blocksize=14),
                helper.make_node("ReduceMean", ["b"], ["depth"], axes=[1], keepdims=1),
            ],
            TensorProto.FLOAT,
            (98, 126),
        ),
        (
            [1, 64, 64, 3],
            [
                helper.make_node("Cast", ["rgb"], ["a"], to=TensorProto.FLOAT),
                helper.make_node("ReduceMean", ["a"], ["depth"], axes=[3], keepdims=1),
            ],
            TensorProto.UINT8,
            (64, 64),
        ),
    ],
)
def test_any_estimator_is_run(shape, nodes, dtype, size, tmp_path):
    file = network(tmp_path / "m.onnx", shape, nodes, dtype)
    if dtype == TensorProto.FLOAT16:
        model = onnx.load(file)
        model.graph.output[0].type.tensor_type.elem_type = dtype
        onnx.save(model, file)
    rgb = np.repeat(ramp(100, 130).astype(np.uint8)[..., None], 3, 2)  # of which its brightness is the depth
    assert estimator(file)(rgb).shape == size
    depth = depth_source([], file, X2)(Path("x.png"), rgb, (201, 260))
    assert depth.shape == (201, 260)
    assert np.corrcoef(depth[:200].ravel(), ramp(200, 260).ravel())[0, 1] > 0.999
    assert depth.min() == 0
    assert depth.max() == 1


@pytest.mark.parametrize(
    ("shape", "nodes", "outputs", "words"),
    [
        ([1, 1, 64, 64], [helper.make_node("Identity", ["rgb"], ["depth"])], 1, r"\[1, 1, 64, 64\]"),
        ([1, 3, 64, 64], [helper.make_node("Identity", ["rgb"], ["depth"])], 1, r"output of shape \(1, 3, 64, 64\)"),
        ([1, 3, 64, 64], [helper.make_node("Flatten", ["rgb"], ["depth"])], 1, r"output of shape \(1, 12288\)"),
        ([3, 64], [helper.make_node("Identity", ["rgb"], ["depth"])], 1, r"\[3, 64\]"),
        ([2, 3, 64, 64], [mean(1)], 1, "rgb"),
    ],
)
def test_what_is_no_estimator_is_one_line(shape, nodes, outputs, words, tmp_path):
    file = network(tmp_path / "m.onnx", shape, nodes, outputs=outputs)
    with pytest.raises(ModelError, match=f"^Expected an ONNX file that turns RGB into one map .*{words}.*") as error:
        estimator(file)
    assert len(str(error.value).splitlines()) == 1
    (tmp_path / "text.onnx").write_text("depth")
    with pytest.raises(ModelError, match="Expected an ONNX file"):
        estimator(tmp_path / "text.onnx")


def test_the_folder_of_the_maps_is_not_told_as_left_out(photos, tmp_path, capsys):
    (photos / "notes.txt").write_text("mine")
    options = ["--model", "bicubic", "--scale", "2", "--data", str(photos), "--depth", str(photos / "depth")]
    assert evaluate(options) == 0
    told = capsys.readouterr().err
    assert "notes.txt" in told
    assert "depth:" not in told
    (photos / "notes.txt").unlink()


def test_a_run_with_an_estimator(photos, tmp_path, capfd):
    file = network(tmp_path / "m.onnx", [1, 3, "h", "w"], [mean(1)])
    train(config(photos, depth=(), depth_model=str(file), steps=2, edge_weight=2.0), tmp_path / "run")
    assert evaluate(["--model", "bicubic", "--scale", "2", "--data", str(photos), "--depth-model", str(file)]) == 0
    assert "at edges" in capfd.readouterr().out


def test_scenes_repeat(tmp_path, capfd):
    for name in ("one", "made/two"):
        command = ["scenes", str(tmp_path / name), "--count", "2", "--seed", "3", "--size", "64x48"]
        assert datasets(command) == 0
    files = sorted(file.relative_to(tmp_path / "one") for file in (tmp_path / "one").rglob("*.png"))
    names = ["scene-3-0000.png", "scene-3-0001.png"]
    assert files == sorted(Path(place) / name for place in ("", "depth") for name in names)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "made" / "two" / file).read_bytes()
    pictures = [np.asarray(Image.open(tmp_path / "one" / name)) for name in names]
    maps = [np.asarray(Image.open(tmp_path / "one/depth" / name)) for name in names]
    assert pictures[0].shape == (48, 64, 3)
    assert maps[0].shape == (48, 64)
    assert maps[0].dtype == np.uint16
    assert not np.array_equal(*pictures)
    assert all(1000 < depth.min() < depth.max() < 16_000 for depth in maps)


def test_depth_jumps_where_one_thing_ends(monkeypatch):
    paints = product((0.1, 0.5, 0.9), repeat=3)  # each thing in one of its own
    monkeypatch.setattr(scenes, "_texture", lambda points, *_: np.full((len(points), 3), next(paints), np.float32))
    rgb, depth = scenes.render((90, 120), np.random.default_rng(5))
    picture_edges = np.any([near_edges(plane, 1) for plane in rgb.transpose(2, 0, 1) / 255], 0)
    assert 0.02 < picture_edges.mean() < 0.5
    steps = [np.abs(np.diff(normalised(depth, "d"), axis=axis)) > 0.1 for axis in (0, 1)]
    jumps = np.pad(steps[0], ((0, 1), (0, 0))) | np.pad(steps[1], ((0, 0), (0, 1)))
    assert jumps.sum() > 100
    assert picture_edges[jumps].mean() > 0.98  # where three things meet, a pixel may be half-way between two


def test_scenes_hide_their_edges_among_others():
    rgb, depth = scenes.render((160, 160), np.random.default_rng(1))
    near = near_edges(normalised(depth, "d"), 1)
    strong = near_edges(rgb.astype(float).mean(2) / 255, 1)
    assert 0.01 < near.mean() < 0.2
    assert strong[near].mean() < 0.9  # much of what is a jump of depth is hardly one of brightness
    assert near[strong].mean() < 0.5  # and most edges are the patterns'


def test_keras_knows_only_its_own_layers():
    model = collapsed(with_depth(build("realtime", "2", **SMALL["realtime"]), X2))
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    assert isinstance(model, keras.Model)
