"""Every shipped model in every engine, held against Keras."""

import dataclasses
import shutil

import numpy as np
import pytest

from imagesr.card import SAVED_MODELS, ModelCard, find_model, models_for, saved_models
from imagesr.engines import load_engine
from imagesr.errors import ModelError
from imagesr.metrics.fidelity import psnr
from imagesr.metrics.texture import cells, mesh
from imagesr.scale import Scale

MODELS = [folder.name for folder in saved_models()]
# Multiply-accumulates per LR pixel at most, at x2 half as many again for 1.8 times the pixels to draw; and PSNR-Y on
# B100 at least, in dB, as it runs, of photographs' flavour.
TIERS = {
    "fast": (3100, {"1.5": 34.20, "2": 31.20}),
    "balanced": (7000, {"1.5": 34.55, "2": 31.30}),
    "best": (14500, {"1.5": 34.80, "2": 31.50, "3": 28.30, "4": 26.75}),
}
NETWORKS = [name for name in MODELS if not name.startswith("linear")]
LARGER = [name for name in NETWORKS if not name.endswith("_x1")]  # the others keep the size
QUANTISED = [name for name in NETWORKS if (SAVED_MODELS / name / "model_int8.onnx").exists()]  # the others run in bf16


def card_of(name):
    return next(ModelCard.read(folder) for folder in saved_models() if folder.name == name)


def planes(shape, bits, seed=0, channels=1):
    """Return smooth samples with noise and both ends of the range: (1, H, W, channels) integers."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    smooth = 0.5 + 0.35 * np.sin(x / 5) * np.cos(y / 7) + 0.1 * np.random.default_rng(seed).standard_normal(shape)
    smooth[:4, :4], smooth[-4:, -4:] = 0, 1
    peak = 2**bits - 1
    samples = np.clip(np.rint(smooth * peak), 0, peak).astype(f"uint{bits}")[np.newaxis, ..., np.newaxis]
    return np.repeat(samples, channels, 3)


def test_what_ships():
    tiers = [f"{tier}{flavour}" for tier in TIERS for flavour in ("_x1.5", "_x2", "-photo_x1.5", "-photo_x2")]
    tiers += ["best-photo_x1", "best-photo_x3", "best-photo_x4", "balanced_x1"]
    assert sorted([*tiers, *(f"linear_x{scale}" for scale in ("1.5", "2", "3", "4"))]) == MODELS


def loaded(card, precision):
    """Load a model; skipped where the CPU does not compute in bf16, and for no other reason."""
    try:
        return load_engine(card, precision=precision)
    except ModelError as error:
        assert precision == "bf16" and "does not compute in bf16" in str(error), error
        pytest.skip(str(error))


def deployed(card):
    """Return the precision that a model runs in."""
    return "int8" if card.folder.name in QUANTISED else "bf16"


def test_the_linear_filter_is_the_floor():
    # 33.86 dB is what the best filter of 8x8 reaches on B100 at x1.5.
    linear = {scale: card_of(f"linear_x{scale}") for scale in ("1.5", "2", "3", "4")}
    assert linear["1.5"].measured["B100"]["fp32"]["psnr_y"] == pytest.approx(33.86, abs=0.05)
    for card in linear.values():
        for figures in card.measured.values():
            assert figures["fp32"]["psnr_y"] > figures["lanczos"]["psnr_y"] + 0.2
    for card in map(card_of, LARGER):
        for benchmark in ("B100", "Set5", "Set14", "photos-val"):
            floor = linear[str(card.scale)].measured[benchmark]["fp32"]["psnr_y"]
            assert card.measured[benchmark][deployed(card)]["psnr_y"] > floor, (card.folder, benchmark)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
@pytest.mark.parametrize("name", MODELS)
def test_engines_agree_with_keras_to_one_code(name, engine, bits):
    card = card_of(name)
    reference = load_engine(card, engine="keras", bits=bits)
    exported = load_engine(card, engine=engine, precision="fp32", bits=bits)
    for shape in ((48, 64), (36, 20), (48, 64)):
        lr = planes(shape, bits, channels=card.channels)
        sr = exported(lr)
        scale = card.scale
        assert sr.dtype == lr.dtype
        assert sr.shape == (1, scale.grow(shape[0]), scale.grow(shape[1]), card.channels)
        assert np.abs(sr.astype(int) - reference(lr).astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "bf16") for name in NETWORKS), *((name, "int8") for name in QUANTISED)]
)
def test_lower_precision_stays_close(name, precision):
    card = card_of(name)
    low = loaded(card, precision)
    lr = planes((96, 128), 8, channels=card.channels)
    close = psnr(low(lr)[0, ..., 0], load_engine(card, precision="fp32")(lr)[0, ..., 0])
    # `best` is deep, and a second end is strong on noise: int8 adds up.
    sensitive = precision == "int8" and (card.name.startswith("best") or card.detail is not None)
    assert close > (34 if sensitive else 40)


@pytest.mark.parametrize("name", [name for name in MODELS if not name.endswith("_x1")])
def test_bf16_draws_no_mesh(name):
    card = card_of(name)
    y, x = np.mgrid[:240, :240]
    ramp = 40 + x / 2.2 + y / 3 + np.random.default_rng(0).normal(0, 0.7, x.shape)
    lr = np.rint(ramp).astype(np.uint8)[np.newaxis, ..., np.newaxis]
    low, high = (
        mesh(np.array(engine(lr))[0, ..., 0], cells(card.scale))
        for engine in (loaded(card, "bf16"), load_engine(card, precision="fp32"))
    )
    assert low < 1.2 * high + 0.1  # up to 16 where every weight is rounded by itself


def test_weights_in_bf16_keep_the_sum_of_each_filter():
    from imagesr.engines.openvino import keep_sums

    kernel = np.random.default_rng(0).normal(0, 0.1, (9, 4, 5, 5)).astype(np.float32)
    rounded = keep_sums(kernel)
    assert not (rounded.view(np.uint32) & 0xFFFF).any()
    np.testing.assert_allclose(rounded, kernel, rtol=2**-6, atol=2**-12)
    np.testing.assert_allclose(rounded.sum((1, 2, 3)), kernel.sum((1, 2, 3)), atol=1e-5)


@pytest.mark.parametrize("name", LARGER)
def test_cards_keep_the_promises(name):
    card = card_of(name)
    tier, _, flavour = card.name.partition("-")
    most, least = TIERS[tier]
    assert card.multiply_accumulates <= most * (1.5 if card.scale == Scale(2) else 1)
    assert card.channels == 1
    b100 = card.measured["B100"]
    assert b100["fp32"]["psnr_y"] - b100[deployed(card)]["psnr_y"] <= 0.1
    if flavour == "photo":
        assert b100[deployed(card)]["psnr_y"] >= least[str(card.scale)]
        photos = card.measured["photos-val"]
        assert (
            photos["fp32"]["psnr_y"]
            >= photos["lanczos"]["psnr_y"] + {"1.5": 1.5, "2": 1.2, "3": 1.2, "4": 1.1}[str(card.scale)]
        )
    assert card.data
    optional = {"model_int8.onnx", "model.glsl", "model_detail0.glsl"}
    assert set(card.sha256) - optional == {"model.keras", "model.onnx", "model_u16.onnx"}


@pytest.mark.parametrize("name", LARGER)
def test_a_card_says_what_can_be_measured_again(name, data):
    from imagesr.evaluate.protocol import evaluate, upscaler
    from imagesr.media.images import find_images

    card = card_of(name)
    for precision in ("fp32", deployed(card)):
        if precision == "bf16":
            loaded(card, precision)
        scale = card.scale
        options = {"precision": precision} | ({"detail": 0} if card.detail is not None else {})
        result = evaluate(upscaler(str(card.folder), scale, **options), find_images([data / "set5"]), scale)
        assert result["psnr_y"] == pytest.approx(card.measured["Set5"][precision]["psnr_y"], abs=0.02)


def test_auto_asks_the_runtime():
    engine = load_engine(find_model("fast", Scale(3, 2)))
    assert engine.precision in ("int8", "bf16", "fp32")
    assert load_engine(find_model("fast", Scale(3, 2)), bits=16).precision == "fp32"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "abacus"}, "openvino"),
        ({"precision": "int4"}, "int8"),
        ({"precision": "int8", "bits": 16}, "8 bits"),
        ({"engine": "onnx", "precision": "bf16"}, "onnx"),
        pytest.param({"engine": "keras", "precision": "int8"}, "keras", marks=pytest.mark.keras),
        ({"engine": "litert"}, r"model\.tflite"),
        ({"engine": "litert", "bits": 16}, "8 bits"),
        pytest.param({"engine": "saved_model", "precision": "int8"}, "fp32", marks=pytest.mark.keras),
    ],
)
def test_what_an_engine_cannot_do_is_said(options, words):
    with pytest.raises(ModelError, match=words):
        load_engine(find_model("fast", Scale(3, 2)), **options)


def test_a_missing_runtime_names_its_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "imagesr.engines.onnx", raising=False)
    with pytest.raises(ModelError, match=r"pip install .*\[train\]'"):
        load_engine(find_model("fast", Scale(3, 2)), engine="onnx")


def test_cards_and_files_belong_together(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(saved_models()[0], folder)
    assert ModelCard.read(folder).folder == folder
    (folder / "model_u16.onnx").unlink()
    with pytest.raises(ModelError, match=r"model_u16\.onnx.* missing"):
        ModelCard.read(folder)
    (folder / "card.json").write_text("{}")
    with pytest.raises(ModelError, match="model card"):
        ModelCard.read(folder)
    (folder / "card.json").unlink()
    with pytest.raises(ModelError, match=r"card\.json"):
        ModelCard.read(folder)


def test_a_scale_without_a_model():
    with pytest.raises(ModelError, match=r"1\.5, 2.*Received: 3"):
        find_model("fast", Scale(3))


def test_no_model_of_that_name():
    with pytest.raises(ModelError, match="balanced, balanced-photo, best, best-photo, fast, fast-photo, linear"):
        find_model("slow", Scale(2))


def test_chains_reach_the_scale_with_the_least_surplus():
    from fractions import Fraction

    from imagesr.engines.chain import chain

    card = find_model("fast", Scale(3, 2))
    assert [len(chain([card], Fraction(f))) for f in ("5/4", "3/2", "2", "9/4", "4", "8")] == [1, 1, 2, 2, 4, 5]
    photo = find_model("fast-photo", Scale(3, 2))
    assert [len(chain([photo], Fraction(f))) for f in ("3/2", "27/16", "4", "8")] == [1, 2, 4, 6]


@pytest.mark.parametrize(
    "factor, name",
    [
        ("1.25", "fast x1.5"),
        ("1.5", "fast x1.5"),
        ("5/3", "fast x2"),  # 576 lines to 960
        ("1.875", "fast x2"),  # 576 lines to 1080
        ("2", "fast x2"),
        ("2.25", "fast x2"),  # 480 lines to 1080: Lanczos makes the last eighth
        ("2.26", "fast x1.5 then x2"),
        ("3", "fast x1.5 then x2"),  # 360 lines to 1080; the smaller scale first, at fewer pixels
        ("4", "fast x2 then x2"),
        ("8", "fast x2 then x2 then x2"),
    ],
)
def test_with_two_scales_a_factor_takes_the_fewest_runs_and_then_the_least_surplus(factor, name):
    from fractions import Fraction

    from imagesr.engines.chain import chain, chain_name

    card = find_model("fast", Scale(3, 2))
    cards = [dataclasses.replace(card, scale=Scale(2)), card]
    assert chain_name(chain(cards, Fraction(factor))) == name


def test_each_job_has_its_flavour():
    for job, flavour in {"video": "film", "live": "film", "photographs": "photo"}.items():
        assert {card.flavour for card in models_for(job, "best")} == {flavour}
    # A flavour that is asked for by name runs, and so does a model that has none.
    assert {card.name for card in models_for("video", "best-photo")} == {"best-photo"}
    assert {card.name for card in models_for("photographs", "linear") if card.scale != Scale(1)} == {"linear"}
    assert all(card.channels == 1 for card in models_for("video", "best-photo"))


def test_a_detail_goes_to_the_models_of_a_chain_that_take_one(monkeypatch):
    from imagesr.engines import chain

    plain = dataclasses.replace(find_model("fast", Scale(3, 2)), detail=None)
    two_ends = dataclasses.replace(plain, scale=Scale(2), detail=0.8)
    monkeypatch.setattr(chain, "load_engine", lambda card, detail=None, **others: (str(card.scale), detail))
    assert chain.load_chain([plain, two_ends], Scale(3), detail=0.5) == [("1.5", None), ("2", 0.5)]
    assert chain.load_chain([plain, two_ends], Scale(3)) == [("1.5", None), ("2", None)]
    with pytest.raises(ModelError, match=r"takes a detail \(.* Received: fast x1\.5"):
        chain.load_chain([plain, two_ends], Scale(3, 2), detail=0.5)


def test_one_engine_serves_several_threads():
    from concurrent.futures import ThreadPoolExecutor

    engine = load_engine(find_model("fast", Scale(3, 2)), precision="fp32", parallel=3)
    frames = [planes((40, 60), 8, seed) for seed in range(24)]
    alone = [engine(frame).copy() for frame in frames]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda frame: engine(frame).copy(), frames))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NETWORKS)
def test_flat_areas_stay_flat(name):
    levels, low = range(16, 236), deployed(card_of(name))

    def off(precision):
        engine = loaded(card_of(name), precision)
        shape = (1, 48, 48, engine.card.channels)
        flat = [engine(np.full(shape, level, np.uint8))[0, 20:-20, 20:-20].astype(int) for level in levels]
        return [np.abs(plane - level).max() for plane, level in zip(flat, levels, strict=True)]

    assert max(off("fp32")) == 0
    assert max(off(low)) <= 1
    # Of the levels at x1.5, 0.43 when weights are rounded one by one. The more output phases, the likelier is one off.
    most = {"1": 1 / 3, "1.5": 1 / 3, "2": 0.6, "3": 0.7, "4": 0.9}[str(card_of(name).scale)]
    assert np.mean(np.array(off(low)) > 0) < most
