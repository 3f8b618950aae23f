"""A network with two ends, and one that is told how much was lost, from their builder to the commands."""

import asyncio
import dataclasses
import io
import json
import shutil

import httpx
import keras
import numpy as np
import pytest
from conftest import picture, run_video, write_clip
from PIL import Image

import imagesr
import imagesr.card
from imagesr.card import ModelCard, models_with
from imagesr.engines import Tuned, load_engine
from imagesr.errors import ModelError, OutputError
from imagesr.evaluate.protocol import load_network, on_frames
from imagesr.export.export import export
from imagesr.image.__main__ import main as image_main
from imagesr.live.loop import LiveUpscaler
from imagesr.media.coding import examine_film, examine_frames
from imagesr.media.frames import Frame, plane
from imagesr.media.source import Source
from imagesr.metrics.perceptual import Extractor
from imagesr.models import cost
from imagesr.models.layers import at_detail, collapsed, takes_detail
from imagesr.models.realtime import OWN, realtime
from imagesr.pixels import luma
from imagesr.scale import Scale
from imagesr.serve.app import create_app
from imagesr.serve.service import Service
from imagesr.train import training
from imagesr.train.config import DETAIL, SHARP, Config
from imagesr.train.detail import SecondEnd, sharpened, trust
from imagesr.train.losses import log_mse
from imagesr.train.optimizers import adam
from imagesr.train.start import warm_start
from imagesr.video import prepare, segments
from imagesr.video.options import Options


def lively(model, seed=0):
    """Give the convolutions weights that let both ends be seen."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([random.normal(0, 0.3 / w[..., 0].size ** 0.5, w.shape) for w in layer.get_weights()])
    return model


def planes(height=24, width=32):
    return luma(picture(width, height))[np.newaxis, ..., np.newaxis]


def lr(seed=0):
    return np.random.default_rng(seed).random((2, 16, 20, 1), np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return the card of an exported network with two ends, which takes a clean, and an int8 file."""
    folder = tmp_path_factory.mktemp("detail")
    (folder / "photos").mkdir()
    for i in range(4):
        Image.fromarray(picture(160, 160, i)).save(folder / f"photos/{i}.png")
    model = lively(collapsed(realtime("1.5", filters=16, blocks=2, anchor=3, detail=True, clean=True)))
    shift = model.get_layer("clean_shift")
    shift.set_weights([5 * weight for weight in shift.get_weights()])
    model.save(folder / "model.keras")
    calibration = sorted((folder / "photos").glob("*.png"))
    return export(folder / "model.keras", "two", folder, calibration=calibration, detail=0.5)


@pytest.mark.parametrize(("scale", "anchor"), [("1.5", 3), ("1.5", 5), ("2", 5)])
def test_between_the_ends_lies_a_blend(scale, anchor):
    model = lively(collapsed(realtime(scale, filters=8, blocks=2, anchor=anchor, detail=True)))
    assert takes_detail(model)
    faithful, middle, detailed = (np.asarray(at_detail(model, detail)(lr())) for detail in (0, 0.25, 1))
    assert np.abs(detailed - faithful).max() > 1e-3
    np.testing.assert_allclose(middle, 0.75 * faithful + 0.25 * detailed, atol=1e-5)


def test_each_picture_of_a_batch_has_its_own_detail():
    model = lively(collapsed(realtime("1.5", filters=8, blocks=1, detail=True)))
    both = np.asarray(model([lr(), np.array([0, 1], np.float32)]))
    np.testing.assert_allclose(both[1], np.asarray(at_detail(model, 1)(lr()))[1], atol=1e-6)


def test_what_a_second_end_costs():
    one, two = (realtime("1.5", filters=16, blocks=4, anchor=3, **ends) for ends in ({}, {"detail": True}))
    more = (9 * 16 * OWN + 9 * OWN * 9) / 4  # the last block's and the tail's
    assert cost.multiply_accumulates(collapsed(two)) == cost.multiply_accumulates(collapsed(one)) + more
    assert cost.multiple(two) == 2 and str(cost.model_scale(two)) == "1.5"
    assert cost.receptive_field(two) == cost.receptive_field(one)


@pytest.mark.parametrize("anchor", [3, 5])
def test_a_network_of_two_ends_begins_as_one_of_one(anchor, tmp_path):
    source = lively(collapsed(realtime("1.5", filters=8, blocks=3, anchor=anchor)))
    source.save(tmp_path / "one.keras")
    model = two_ends(tmp_path / "one.keras", blocks=3)
    large = np.random.default_rng(0).random((1, 48, 48, 1), np.float32)
    wanted, inside = np.asarray(source(large)), (slice(None), slice(30, -30), slice(30, -30))  # borders differ
    for detail in (0, 1):
        np.testing.assert_allclose(np.asarray(at_detail(model, detail)(large))[inside], wanted[inside], atol=1e-4)


def two_ends(source, scale="1.5", **architecture):
    options = {"filters": 8, "anchor": 5} | architecture
    config = Config(data=("x",), val=("y",), scale=scale, architecture=options, init=str(source), detail={})
    model = config.build()
    assert warm_start(model, source, config) == []
    return model


@pytest.mark.parametrize("other", [{"blocks": 2}, {"anchor": 3}, {"filters": 16}, {"scale": "2"}])
def test_a_second_end_for_another_network_is_refused(other, tmp_path):
    collapsed(realtime("1.5", filters=8, blocks=3)).save(tmp_path / "one.keras")
    with pytest.raises(ValueError, match="Expected weights for realtime"):
        two_ends(tmp_path / "one.keras", **{"blocks": 3} | other)


@pytest.mark.parametrize("weights", [DETAIL, SHARP | {"pixel": 0.0}])
def test_training_moves_the_second_end_alone(weights, tmp_path):
    keras.utils.set_random_seed(0)
    source = lively(collapsed(realtime("1.5", filters=8, blocks=2)))
    source.save(tmp_path / "one.keras")
    model = two_ends(tmp_path / "one.keras", blocks=2)
    rgb = keras.Input((None, None, 3))
    features = Extractor(keras.Model(rgb, [keras.layers.Conv2D(8, 3)(rgb)])) if "texture" in weights else None
    trainer = SecondEnd(model, features, loss=log_mse, weights=weights, scale=Scale(3, 2))
    model.compile(adam(4, 1e-2))
    model.optimizer.build(model.trainable_variables)
    hr = np.random.default_rng(0).random((2, 120, 120, 1), np.float32)
    small = np.random.default_rng(1).random((2, 80, 80, 1), np.float32)
    before = [np.asarray(at_detail(model, detail)(small)) for detail in (0, 1)]
    for _ in range(4):
        shown = trainer.train_step((keras.ops.convert_to_tensor(small), keras.ops.convert_to_tensor(hr)))
    assert {"loss", *(name for name, weight in weights.items() if weight)} == {*shown}
    assert all(np.isfinite(float(value)) for value in shown.values())
    after = [np.asarray(at_detail(model, detail)(small)) for detail in (0, 1)]
    np.testing.assert_array_equal(before[0], after[0])
    assert np.abs(before[1] - after[1]).max() > 1e-5
    level = np.full((1, 40, 40, 1), 0.6, np.float32)  # where nothing is, the second end adds nothing
    ends = (np.asarray(at_detail(model, detail)(level))[0, 24:-24, 24:-24] for detail in (0, 1))
    np.testing.assert_allclose(*ends, atol=1e-5)
    trainer.release()
    assert cost.parameters(model) == model.count_params()


def test_a_sharp_end_steepens_edges_without_halos():
    edge = (0.5 + 0.2 * np.tanh((np.arange(48, dtype=np.float32) - 23.5) / 1.5))[None, None, :, None].repeat(40, 1)
    result = np.asarray(sharpened(edge))[0, 20, :, 0]
    assert np.diff(result).max() > 1.15 * np.diff(edge[0, 20, :, 0]).max()
    assert result.min() >= 0.3 - 0.01 and result.max() <= 0.7 + 0.01
    level = np.full((1, 24, 24, 1), 0.4, np.float32)
    np.testing.assert_allclose(sharpened(level), level, atol=1e-5)


def test_a_sharp_end_follows_hr_only_where_the_faithful_one_is_right():
    hr, other = np.random.default_rng(0).random((2, 1, 48, 96, 1), np.float32)
    sr = np.concatenate([hr[:, :, :48], other[:, :, 48:]], 2)
    share = np.asarray(trust(hr, sr))[0, :, :, 0]
    assert share[8:-8, 8:32].min() > 0.99 and share[8:-8, 64:-8].mean() < 0.2
    target = np.asarray(SecondEnd.target(hr, sr))
    np.testing.assert_allclose(target[:, 8:-8, 8:32], np.asarray(sharpened(hr))[:, 8:-8, 8:32], atol=0.02)


def test_training_tells_the_second_end_how_much_was_lost(tmp_path):
    keras.utils.set_random_seed(0)
    source = lively(collapsed(realtime("1.5", filters=8, blocks=2, clean=True)))
    source.save(tmp_path / "one.keras")
    model = two_ends(tmp_path / "one.keras", blocks=2, clean=True)
    trainer = SecondEnd(model, None, loss=log_mse, weights=DETAIL, scale=Scale(3, 2))
    lr = keras.ops.convert_to_tensor(np.random.default_rng(0).random((2, 48, 48, 1), np.float32))
    sr = trainer((lr, keras.ops.convert_to_tensor([0.0, 1.0])))
    for i, clean in enumerate((0.0, 1.0)):
        np.testing.assert_allclose(sr[i : i + 1], at_detail(model, 1.0, clean)(np.asarray(lr)[i : i + 1]), atol=1e-5)


def test_a_second_end_needs_a_network_to_start_from():
    with pytest.raises(ValueError, match="Expected --init RUN"):
        Config(data=("x",), val=("y",), detail={})
    with pytest.raises(ValueError, match="Expected a detail without"):
        Config(data=("x",), val=("y",), init="z", detail={}, gan={})


def test_the_card_knows_the_default(exported, tmp_path):
    assert (exported.detail, exported.clean) == (0.5, 0.0)
    old = json.loads((exported.folder / "card.json").read_text())
    del old["clean"]
    (tmp_path / "card.json").write_text(json.dumps(old | {"sha256": {}}))
    assert ModelCard.read(tmp_path).clean is None
    assert (exported.folder / "model_int8.onnx").exists()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_no_value_of_detail_needs_another_graph(exported, precision):
    reference = load_engine(exported, engine="keras")
    engine = load_engine(exported, precision=precision)
    assert engine.detail == 0.5
    pairs = [(0, 0), (0.3, 0), (0.5, 0), (1, 0), (0, 1), (0.7, 0.4)]
    results = {pair: engine(planes(), *pair).astype(int) for pair in pairs}
    np.testing.assert_array_equal(results[0.5, 0], engine(planes()))
    assert min(np.abs(results[pair] - results[0, 0]).max() for pair in ((1, 0), (0, 1))) > 3
    for pair, sr in results.items():
        difference = np.abs(sr - reference(planes(), *pair))
        assert difference.max() <= 1 if precision == "fp32" else difference.mean() < 2


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_every_engine_takes_the_detail_when_loaded_or_called(exported, engine):
    faithful, detailed = (load_engine(exported, engine=engine, precision="fp32", detail=detail) for detail in (0, 1))
    np.testing.assert_array_equal(faithful(planes(), 1), detailed(planes()))
    cleaned = load_engine(exported, engine=engine, precision="fp32", clean=0.5)
    np.testing.assert_array_equal(Tuned(faithful, detail=0.5, clean=0.5)(planes()), cleaned(planes()))
    assert np.abs(cleaned(planes()).astype(int) - cleaned(planes(), clean=0)).max() > 2


@pytest.mark.parametrize("number", ["detail", "clean"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_number_outside_is_refused(exported, number, value):
    with pytest.raises(ModelError, match=f"Expected a {number} from 0 to 1"):
        load_engine(exported, **{number: value})


def test_a_model_of_one_end_names_those_that_have_two(monkeypatch, exported):
    monkeypatch.setattr(imagesr.card, "SAVED_MODELS", exported.folder.parent)
    assert models_with("detail") == ["two x1.5"]
    with pytest.raises(ModelError, match=r"Expected a model that takes a detail \(two x1.5\). Received: two x1.5"):
        load_engine(dataclasses.replace(exported, detail=None), detail=0.5)
    with pytest.raises(ModelError, match=r"Expected a model that takes a clean \(two x1.5\). Received: two x1.5"):
        load_engine(dataclasses.replace(exported, clean=None), clean=0.5)


def test_the_video_command_takes_it(exported, tmp_path):
    write_clip(tmp_path / "in.mp4", frames=3)
    sizes = {}
    for detail in ("0", "1"):
        out = tmp_path / f"{detail}.mp4"
        done = run_video(tmp_path / "in.mp4", out, "-n", exported.folder, "--detail", detail)
        assert done.returncode == 0, done.stderr
        assert f"detail {detail}" in done.stdout + done.stderr
        sizes[detail] = out.read_bytes()
    assert sizes["0"] != sizes["1"]


@pytest.fixture(scope="module")
def starved(tmp_path_factory):
    """Return a clip of which much was lost."""
    options = {"crf": "36", "g": "10"}
    return write_clip(tmp_path_factory.mktemp("starved") / "in.mp4", frames=60, size=(96, 64), options=options)


def test_a_film_is_cleaned_as_its_source_asks(exported, starved, tmp_path):
    how = {"model": str(exported.folder), "encoder": {"threads": "1"}}
    report = imagesr.upscale_video(starved, tmp_path / "auto.mp4", **how)
    found = examine_film(starved)
    assert report.clean == found.clean > 0.4 and report.coding == found.reasons
    assert f"  clean {found.clean:g} (H.264, quantiser {found.quantiser:.0f}; noise" in str(report)
    own = imagesr.upscale_video(starved, tmp_path / "own.mp4", clean=found.clean, **how)
    assert own.coding == "" and f"clean {found.clean:g})" in str(own)
    imagesr.upscale_video(starved, tmp_path / "none.mp4", clean=0, **how)
    auto, own, none = ((tmp_path / f"{name}.mp4").read_bytes() for name in ("auto", "own", "none"))
    assert auto == own != none
    part = imagesr.upscale_video(starved, tmp_path / "part.mp4", start=1.0, duration=0.2, **how)
    assert part.clean == report.clean  # that of the whole film


def test_auto_is_silent_for_models_that_take_none(starved, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "examine_film", None)
    report = imagesr.upscale_video(starved, tmp_path / "out.mp4", model="lanczos")
    assert report.clean is None and "clean" not in str(report)
    with pytest.raises(ModelError, match=r"Expected a model that takes a clean \(.*\). Received: lanczos"):
        imagesr.upscale_video(starved, tmp_path / "out2.mp4", model="lanczos", clean=0.5)


def test_a_run_that_goes_on_cleans_and_paints_alike(exported, starved, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "LONG_S", 0)
    monkeypatch.setattr(segments, "LENGTH", 20)
    how = {"model": str(exported.folder), "grain": 0.5, "encoder": {"x264-params": "mbtree=0"}, "threads": 1}
    imagesr.upscale_video(starved, tmp_path / "whole.mp4", **how)

    def stop(done, expected):
        if done == 30:
            raise OutputError("enough")

    with pytest.raises(OutputError, match="enough"):
        imagesr.upscale_video(starved, tmp_path / "out.mp4", progress=stop, **how)
    with pytest.raises(ValueError, match="clean was"):
        imagesr.upscale_video(starved, tmp_path / "out.mp4", clean=0.9, **how)
    report = imagesr.upscale_video(starved, tmp_path / "out.mp4", **how)
    assert "20 frames were done by earlier runs" in str(report)
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_pipe_is_judged_by_its_first_frame(exported):
    noise = np.random.default_rng(0).normal(0, 9, (96, 128)) + 128
    frame = Frame.from_ndarray(np.clip(noise, 0, 255).astype(np.uint8), "gray")
    found = examine_frames([frame])
    assert found.quantiser is None and found.noise == pytest.approx(9, rel=0.2) and found.clean > 0.5


@pytest.mark.parametrize("clean", [-0.1, 1.5, float("nan"), "much"])
def test_a_clean_outside_is_refused(clean):
    with pytest.raises(ValueError, match="Expected a clean from 0 to 1, or auto"):
        Options(clean=clean)


def test_a_photograph_is_cleaned_as_its_file_asks(exported, tmp_path, capsys):
    Image.fromarray(picture(96, 80)).save(tmp_path / "in.jpg", quality=20)
    results = {}
    for clean in ("auto", "0", "0.5"):
        arguments = [str(tmp_path / "in.jpg"), str(tmp_path / f"{clean}.png"), "-s", "1.5", "--clean", clean]
        assert image_main([*arguments, "-n", str(exported.folder)]) == 0
        results[clean] = np.asarray(Image.open(tmp_path / f"{clean}.png")).astype(int)
    boxed = ["--size", "120x100", "-n", "linear", "-q"]  # another scale than the one that is tried first
    assert image_main([str(tmp_path / "in.jpg"), str(tmp_path / "boxed.png"), *boxed]) == 0
    assert "(JPEG, quality 20)" in capsys.readouterr().err
    assert np.abs(results["auto"] - results["0"]).max() > 2
    up = imagesr.load(exported.folder, scale=1.5, kind="photo")
    with Image.open(tmp_path / "in.jpg") as opened:
        array = np.asarray(opened)
    np.testing.assert_array_equal(up(array, clean=0.5), results["0.5"])
    np.testing.assert_array_equal(up(array), results["0"])
    with pytest.raises(ModelError, match="Expected a clean from 0 to 1"):
        up(array, clean=2)


def test_the_image_command_takes_it(exported, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)  # colours of any range around them
    Image.fromarray(noise).save(tmp_path / "in.png")
    results = []
    for detail in ("0", "1"):
        out = tmp_path / f"{detail}.png"
        arguments = [str(tmp_path / "in.png"), str(out), "-s", "1.5", "-n", str(exported.folder), "--detail", detail]
        assert image_main(arguments) == 0
        results.append(np.asarray(Image.open(out)).astype(int))
    assert np.abs(results[0] - results[1]).max() > 2


def test_live_frames_take_it_and_go_on_with_a_model_that_takes_none(exported, tmp_path):
    write_clip(tmp_path / "in.mp4", frames=2)
    with Source(tmp_path / "in.mp4") as source:
        info, frame = source.info, next(item for item in source if isinstance(item, Frame))
    faithful, detailed = (LiveUpscaler(info, str(exported.folder), "1.5", detail=detail) for detail in (0, 1))
    first, second = (np.array(plane(live(frame)[0], 0)).astype(int) for live in (faithful, detailed))
    assert np.abs(first - second).max() > 2
    cleaned = LiveUpscaler(info, str(exported.folder), "1.5", detail=0, clean=1)
    assert np.abs(np.array(plane(cleaned(frame)[0], 0)).astype(int) - first).max() > 2
    assert detailed.change(model="linear")
    detailed.close()
    assert (detailed.model, detailed.error) == ("linear", "")
    with pytest.raises(ModelError, match="Expected a model that takes a detail"):
        LiveUpscaler(info, "linear", "1.5", detail=0.5)


@pytest.fixture
def only(exported, monkeypatch):
    """Have two models shipped: `two`, and `linear` at x2, which takes no detail."""
    shutil.copytree(imagesr.card.SAVED_MODELS / "linear_x2", exported.folder.parent / "linear_x2", dirs_exist_ok=True)
    monkeypatch.setattr(imagesr.card, "SAVED_MODELS", exported.folder.parent)


def test_requests_take_it(only):
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    queries = ["", "&detail=0", "&detail=5e-1", "&detail=1"]
    others = ["scale=1.5&clean=auto", "scale=1.5&clean=1", "scale=1.5&clean=2", "scale=1.5&clean=x"]
    others += ["scale=2&model=linear&clean=auto", "scale=2&model=linear&clean=0.5"]
    others += ["scale=2&model=linear&detail=0.5", "scale=2&model=linear"]

    async def ask():
        app = create_app(Service(model="two", queue=1, megapixels=1, threads=1))
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
            await app.state.service.warming
            models = await client.get("http://localhost/models")
            every = [f"scale=1.5{query}" for query in queries] + others
            return models, [
                await client.post(f"http://localhost/supersizeme?{query}", content=file.getvalue()) for query in every
            ]

    models, (*made, auto, clean, outside, word, silent, none, refused, plain) = asyncio.run(ask())
    assert {one["name"]: one["scales"][0]["detail"] for one in models.json()["models"]} == {"linear": None, "two": 0.5}
    own, faithful, middle, detailed, auto, clean = (
        np.asarray(Image.open(io.BytesIO(answer.content))).astype(int) for answer in (*made, auto, clean)
    )
    np.testing.assert_array_equal(clean, imagesr.upscale_image(noise, model="two", scale=1.5, clean=1))
    assert np.abs(clean - own).max() > 2
    np.testing.assert_array_equal(auto, own)  # too small to have noise, and no JPEG
    assert [answer.status_code for answer in (outside, word, silent, none)] == [422, 422, 200, 422]
    assert "from 0 to 1" in outside.json()["error"] and "or auto" in word.json()["error"]
    assert none.json() == {"error": "Expected a model that takes a clean (two x1.5). Received: linear x2"}
    assert np.array_equal(own, middle) and np.abs(faithful - detailed).max() > 2
    np.testing.assert_array_equal(detailed, imagesr.upscale_image(noise, model="two", scale=1.5, detail=1))
    expected = "Expected a model that takes a detail (two x1.5). Received: linear x2"
    assert (refused.status_code, refused.json()) == (422, {"error": expected})
    assert plain.status_code == 200


def test_a_service_has_a_default_for_it(only):
    options = {"queue": 1, "megapixels": 1, "threads": 1}
    service = Service(model="two", detail=0.75, **options)
    assert service.detail_of(None, "two", Scale(3, 2)) == 0.75
    assert service.detail_of(0.25, "two", Scale(3, 2)) == 0.25
    assert service.detail_of(None, "linear", Scale(2)) is None
    with pytest.raises(ModelError, match=r"Expected a model that takes a detail \(two x1.5\). Received: linear x2"):
        Service(model="linear", detail=0.75, **options)
    with pytest.raises(ModelError, match=r"Expected a detail from 0 to 1. Received: 2"):
        Service(model="two", detail=2, **options)


def test_a_model_of_scale_1_keeps_the_size(tmp_path, monkeypatch):
    model = lively(collapsed(realtime("1", filters=8, blocks=1, detail=True, clean=True)))
    model.save(tmp_path / "model.keras")
    card = export(tmp_path / "model.keras", "two", tmp_path / "models")
    assert (str(card.scale), card.clean) == ("1", 0)
    shutil.copytree(imagesr.card.SAVED_MODELS / "linear_x2", tmp_path / "models/linear_x2")
    monkeypatch.setattr(imagesr.card, "SAVED_MODELS", tmp_path / "models")
    write_clip(tmp_path / "in.mp4", frames=4)
    made = {}
    for clean in (0.5, 0):
        report = imagesr.upscale_video(
            tmp_path / "in.mp4", tmp_path / f"{clean}.mp4", scale=1, model="two", clean=clean
        )
        assert report.size == "192x108 to 192x108" and report.model == "two x1"
        made[clean] = (tmp_path / f"{clean}.mp4").read_bytes()
    assert made[0.5] != made[0]
    Image.fromarray(picture(48, 32)).save(tmp_path / "in.png")
    assert image_main([str(tmp_path / "in.png"), str(tmp_path / "o.png"), "-s", "1", "-n", "two", "--clean", "1"]) == 0
    with Image.open(tmp_path / "o.png") as result:
        assert result.size == (48, 32)
    expected = r"Expected a scale above 1, or a model of scale 1 \(two\). Received: 1, linear has x2"
    with pytest.raises(ModelError, match=expected):
        imagesr.upscale_video(tmp_path / "in.mp4", tmp_path / "x.mp4", scale=1, model="linear")
    with pytest.raises(ModelError, match=expected):
        imagesr.load("linear", scale=1, kind="photo")


def test_film_arrays_take_it(exported):
    faithful, detailed = (imagesr.load(exported.folder, scale=1.5, kind="film", detail=detail) for detail in (0, 1))
    frame = picture(64, 48)
    assert np.abs(faithful(frame).astype(int) - detailed(frame)).max() > 2
    assert np.abs(faithful(frame).astype(int) - faithful(frame, clean=1)).max() > 2
    np.testing.assert_array_equal(faithful(frame, clean=0), faithful(frame))


def test_a_network_without_a_card_cleans_films(exported, tmp_path):
    engine = load_network(str(exported.folder / "model.keras"), Scale(3, 2), clean=0.5)
    assert (engine.detail, engine.clean) == (0.0, 0.5)
    with Source(write_clip(tmp_path / "in.mp4", frames=1)) as source:
        size = source.info.width * 3 // 2, source.info.height * 3 // 2
        sr = on_frames("network", engine)(source.info, size)(source.first)
    assert (sr.width, sr.height) == size


def test_a_sharp_end_needs_no_features(tmp_path, monkeypatch):
    monkeypatch.setattr("imagesr.metrics.efficientnet.features", None)
    collapsed(realtime("1.5", filters=8, blocks=2)).save(tmp_path / "one.keras")
    architecture = {"filters": 8, "blocks": 2}
    config = Config(data=("x",), val=("y",), scale="1.5", architecture=architecture, init="z", detail={"sharp": 1.0})
    trainer, _ = training._trainer(config, two_ends(tmp_path / "one.keras", blocks=2))
    assert trainer.shares == SHARP and trainer.extractor is None
