"""From folders to batches: every data set, every degradation, both loaders."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import picture, write_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imagesr.datasets import DATASETS, DataSource
from imagesr.datasets.crops import RandomCrops, fixed_crops
from imagesr.datasets.degradations import DEGRADATIONS, Degradation, blur, h264, hevc, jpeg, noise, softness
from imagesr.datasets.folders import BENCHMARKS
from imagesr.datasets.pairs import SIZES, Pair, load_pairs
from imagesr.metrics.fidelity import psnr
from imagesr.pixels import KERNELS, downscale, luma, resize
from imagesr.scale import Scale

SCALE = Scale(3, 2)


def random():
    return np.random.default_rng(0)


def texture(width, height):
    """Return a picture with detail at every scale, as photographs have it, (height, width, 3) uint8."""
    layers = [np.kron(random().normal(0, 6 * size**0.7, (9, 10)), np.ones((size, size))) for size in (1, 2, 4, 8)]
    detail = sum(np.tile(layer, (9, 9))[:height, :width] for layer in layers)
    return np.clip(picture(width, height) * 0.5 + 60 + detail[..., np.newaxis], 0, 255).astype(np.uint8)


def photos(folder, count=4, size=(180, 150), suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(picture(*size, shift=100 * i)).save(folder / f"{i:04}{suffix}")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def loaded(folder):
    return load_pairs(DATASETS["folder"](folder, SCALE, "train"), SCALE)


# ── where pairs come from


def test_div2k_in_its_official_folders(tmp_path):
    for part, count in (("train", 3), ("valid", 2)):
        hr = photos(tmp_path / f"DIV2K_{part}_HR", count, (96, 72))
        for factor in (2, 3):
            lr = tmp_path / f"DIV2K_{part}_LR_bicubic" / f"X{factor}"
            lr.mkdir(parents=True)
            for file in hr.iterdir():
                Image.open(file).resize((96 // factor, 72 // factor), Image.Resampling.BICUBIC).save(
                    lr / f"{file.stem}x{factor}.png"
                )
    for split, count in (("train", 3), ("val", 2)):
        pairs = DATASETS["div2k"](tmp_path, Scale(2), split)
        assert len(pairs) == count
        assert {(pair.lr.name, pair.hr.name) for pair in pairs} == {
            (f"{i:04}x2.png", f"{i:04}.png") for i in range(count)
        }
        assert [lr.shape for lr, _ in load_pairs(pairs, Scale(2), channels=3)] == [(36, 48, 3)] * count
    assert all(pair.lr is None for pair in DATASETS["div2k"](tmp_path, SCALE, "train"))  # no such reduction
    (tmp_path / "DIV2K_train_LR_bicubic/X2/0001x2.png").unlink()
    with pytest.raises(ValueError, match=r"LR of .*0001\.png"):
        DATASETS["div2k"](tmp_path, Scale(2), "train")


def test_flickr2k_in_its_own_folders(tmp_path):
    photos(tmp_path / "Flickr2K_HR", 2)
    assert [pair.lr for pair in DATASETS["flickr2k"](tmp_path, Scale(2), "train")] == [None, None]


def davis_folders(root, sequences, frames=2):
    for name in sequences:
        photos(root / "JPEGImages" / "480p" / name, frames, (96, 64), ".jpg")
    return root


def test_davis_is_split_by_sequence(tmp_path):
    davis_folders(tmp_path, [f"s{i}" for i in range(7)])
    sides = {
        split: {pair.hr.parent.name for pair in DATASETS["davis"](tmp_path, SCALE, split)} for split in ("train", "val")
    }
    assert sides["train"] | sides["val"] == {f"s{i}" for i in range(7)}
    assert not sides["train"] & sides["val"]
    assert sides["val"] == {"s1", "s6"}


def test_davis_goes_by_its_own_lists(tmp_path):
    davis_folders(tmp_path, ["bear", "dog", "cows"])
    lists = tmp_path / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("bear\ncows\n")
    (lists / "val.txt").write_text("dog\n")
    assert {pair.hr.parent.name for pair in DATASETS["davis"](tmp_path, SCALE, "train")} == {"bear", "cows"}
    assert {pair.hr.parent.name for pair in DATASETS["davis"](tmp_path, SCALE, "val")} == {"dog"}


def test_davis_is_real(data):
    train, val = (DATASETS["davis"](data / "davis", SCALE, split) for split in ("train", "val"))
    assert {pair.hr.parent.name for pair in val} == {"scooter-black"}
    assert {pair.hr.parent.name for pair in train} == {"blackswan", "dog"}
    lr, hr = load_pairs(train[:1], SCALE)[0]
    assert (lr.shape, hr.shape) == ((320, 568), (480, 852))


@pytest.mark.slow
def test_through_tensorflow_datasets():
    script = """
import numpy as np, tensorflow as tf, tensorflow_datasets as tfds
import imagesr
from pathlib import Path
from imagesr.datasets import DATASETS
from imagesr.scale import Scale

for name, scale, lr in (("div2k", "2", True), ("div2k", "3/2", False), ("davis", "2", False)):
    def examples(self, *args, **kwargs):
        hr = np.full((48, 64, 3), 9, np.uint8)
        if name == "div2k":
            rows = [dict(hr=hr, lr=hr[::2, ::2])] * 2
        else:
            rows = [dict(metadata=dict(num_frames=2), video=dict(frames=np.stack([hr] * 2)))]
        return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(lambda *x: np.stack(x), *rows, *rows[:0]))

    with tfds.testing.mock_data(as_dataset_fn=examples):
        pairs = DATASETS[name](Path("tfds"), Scale.parse(scale), "train")
    assert len(pairs) == 2, pairs
    assert all(pair.hr.shape == (48, 64, 3) and pair.hr.dtype == np.uint8 for pair in pairs)
    assert all((pair.lr is not None) == lr for pair in pairs)
    with tfds.testing.mock_data(as_dataset_fn=examples):
        train = imagesr.datasets.load(name, "tfds", scale=scale, patch=24, batch=2, steps=1)
    assert [side.shape[-1] for side in next(iter(train))] == [3, 3]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_clips_give_frames_spread_over_them(tmp_path):
    write_clip(tmp_path / "a.mp4", size=(96, 64), frames=60, sound=None)
    write_clip(tmp_path / "b.mp4", size=(96, 64), frames=5)
    pairs = DATASETS["clips"](tmp_path, SCALE, "train")
    assert len(pairs) == 30 + 5
    # The colours come through the right matrix.
    assert np.abs(pairs[0].hr.astype(int) - picture(96, 64)).mean() < 4
    assert np.abs(pairs[29].hr.astype(int) - picture(96, 64, shift=2 * 58)).mean() < 4


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_are_complete_or_refused(name, tmp_path):
    count = BENCHMARKS[name][0]
    photos(tmp_path / "sr", count, (12, 12))
    assert len(DATASETS[name](tmp_path / "sr", SCALE, "val")) == count
    (tmp_path / "sr" / "0001.png").unlink()
    with pytest.raises(ValueError, match=f"the {count} HR pictures of {name}.*Received: {count - 1}"):
        DATASETS[name](tmp_path / "sr", SCALE, "val")


@pytest.mark.parametrize("name", DATASETS)
def test_missing_data_says_where_it_comes_from(name, tmp_path):
    with pytest.raises(ValueError) as error:
        DATASETS[name](tmp_path / "nothing", SCALE, "train")
    assert "\n" not in str(error.value)
    assert str(tmp_path / "nothing") in str(error.value)
    if name not in ("folder", "film", "clips"):
        assert any(word in str(error.value) for word in ("http", "test sets"))


@given(name=st.sampled_from(list(DATASETS)), place=st.text("ab/@.", min_size=1, max_size=8), weight=st.floats(0.1, 9))
def test_a_source_is_read_as_it_is_written(name, place, weight):
    source = DataSource.parse(f"{name}={place}@{weight:g}")
    assert str(source.place) == str(type(source.place)(place))
    assert DataSource.parse(str(source)) == source


@pytest.mark.parametrize("text", ["imagenet=x", "folder=x@0", "folder=x@-1"])
def test_a_source_that_is_none(text):
    with pytest.raises(ValueError, match="Expected"):
        DataSource.parse(text)


# ── what comes into memory


def test_pairs_are_aligned_and_reduced(folder):
    pairs = load_pairs(DATASETS["folder"](folder, SCALE, "train"), SCALE, sizes=(1.0, 0.7))
    assert len(pairs) == 8
    lr, hr = pairs[0]
    assert lr.dtype == hr.dtype == np.uint8
    assert (lr.shape, hr.shape) == ((100, 120), (150, 180))
    np.testing.assert_array_equal(lr, np.asarray(Image.fromarray(hr).resize((120, 100), Image.Resampling.BICUBIC)))


def save(path, mode):
    image = Image.fromarray(picture(90, 60))
    if mode == "I;16":
        image = Image.fromarray(picture(90, 60)[..., 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert(mode)
    image.save(path)
    return path


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: save(path, "L"), "grey"),
        (lambda path: save(path, "I;16"), "16-bit"),
        (lambda path: path.write_bytes(b"no picture"), "can be read"),
        (lambda path: path.write_bytes(save(path, "RGB").read_bytes()[:2000]), "can be read"),
        (lambda path: Image.fromarray(picture(90, 30)).save(path), "at least 48x48"),
    ],
)
def test_a_picture_that_cannot_be_trained_on(spoil, words, tmp_path):
    photos(tmp_path)
    spoil(tmp_path / "odd.png")
    with pytest.raises(ValueError, match=words) as error:
        load_pairs(DATASETS["folder"](tmp_path, SCALE, "train"), SCALE, size=(48, 48), colour=True)
    assert "odd.png" in str(error.value)


def test_lr_and_hr_that_disagree():
    pair = Pair(picture(50, 40), picture(96, 72))
    with pytest.raises(ValueError, match="2 times smaller than HR"):
        load_pairs([pair], Scale(2))


@pytest.mark.parametrize(
    "item", [picture(8, 8), (picture(8, 8),), (picture(8, 8), None), "a.png", {"hr": picture(8, 8)}]
)
def test_a_data_set_that_is_not_pairs_is_refused(item):
    with pytest.raises(ValueError, match=r"pairs \(lr, hr\)"):
        load_pairs([item], SCALE)


def test_grey_pictures_can_be_measured_on(tmp_path):
    save(tmp_path / "grey.png", "L")
    (_, hr), *_ = load_pairs(DATASETS["folder"](tmp_path, SCALE, "val"), SCALE)
    assert hr.shape == (60, 90)


def test_deep_colour_is_refused(tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "deep.png"), picture(90, 60).astype(np.uint16) * 257)  # Pillow calls it RGB
    with pytest.raises(ValueError, match=r"16-bit RGB"):
        load_pairs(DATASETS["folder"](tmp_path, SCALE, "val"), SCALE)


def test_more_than_the_memory_holds_is_refused(folder, monkeypatch):
    monkeypatch.setattr("imagesr.datasets.pairs.shape", lambda *_: (400_000, 400_000))
    with pytest.raises(ValueError, match=r"fit into memory.*4 pictures"):
        load_pairs(DATASETS["folder"](folder, SCALE, "train"), SCALE)


# ── from HR to LR


@pytest.mark.parametrize("scale", ["3/2", "2", "3", "4"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_plain_degradation_is_pillows_bicubic(scale, channels):
    scale = Scale.parse(scale)
    hr = picture(96, 72)[..., : 1 if channels == 1 else 3].squeeze()
    lr, same = Degradation()(hr, scale, random())
    size = (96 * scale.down // scale.up, 72 * scale.down // scale.up)
    np.testing.assert_array_equal(lr, np.asarray(Image.fromarray(hr).resize(size, Image.Resampling.BICUBIC)))
    np.testing.assert_array_equal(same, hr)


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_are_what_others_compute(kernel):
    import cv2

    from imagesr import pixels

    hr = picture(96, 72)
    small = resize(hr, (64, 48), kernel)
    assert small.shape == (48, 64, 3)
    if kernel == "area":
        assert np.abs(small.astype(int) - cv2.resize(hr, (64, 48), interpolation=cv2.INTER_AREA)).max() <= 1
    ours = pixels.weights(96, 64, kernel)
    np.testing.assert_allclose(ours.sum(1), 1, rtol=1e-5)
    if kernel in pixels._IN_PILLOW:
        by_hand = pixels.weights(72, 48, kernel) @ hr.transpose(2, 0, 1).astype(np.float32) @ ours.T
        assert np.abs(np.rint(np.clip(by_hand, 0, 255)).transpose(1, 2, 0) - small).max() <= 1
    if kernel.startswith("bicubic"):
        # OpenCV enlarges with a = -0.75; a kernel's sharpness shows at an edge.
        step = np.repeat(np.uint8([[50, 200]]), [8, 8], axis=1)
        overshoot = int(resize(np.repeat(step, 8, 0), (32, 16), kernel)[8].max()) - 200
        assert overshoot == {"bicubic": 11, "bicubic-0.6": 13, "bicubic-0.75": 16}[kernel]
        if kernel == "bicubic-0.75":
            theirs = cv2.resize(np.repeat(step, 8, 0), (32, 16), interpolation=cv2.INTER_CUBIC)
            assert np.abs(theirs.astype(int) - resize(np.repeat(step, 8, 0), (32, 16), kernel)).max() <= 1


@pytest.mark.parametrize(
    ("step", "weak", "strong"),
    [(blur, 0.5, 2.0), (noise, 2, 10), (jpeg, 95, 20), (h264, 16, 40), (hevc, 12, 40), (softness, 1.3, 3)],
)
@pytest.mark.parametrize("shape", [(57, 64), (57, 64, 3)])
def test_a_step_has_a_strength_and_keeps_the_size(step, weak, strong, shape):
    sharp = texture(64, 57)
    sharp = sharp if len(shape) == 3 else sharp[..., 1]
    weakly, strongly = (step(sharp, strength, random()) for strength in (weak, strong))
    assert weakly.shape == strongly.shape == shape
    assert weakly.dtype == np.uint8
    assert 48 > psnr(weakly, sharp) > psnr(strongly, sharp) + 2
    np.testing.assert_array_equal(step(sharp, strong, random()), strongly)


def test_a_codec_does_not_shift_the_picture():
    sharp = texture(64, 57)
    for step in (h264, hevc):
        result = step(sharp, 10, random())
        here = psnr(result, sharp)
        assert here > 30
        assert all(
            psnr(np.roll(result, (dy, dx), (0, 1)), sharp, shave=2) < here
            for dy, dx in ((1, 0), (0, 1), (-1, 0), (0, -1))
        )


def test_a_chain_is_seeded_and_every_crop_its_own():
    chain = Degradation.parse(
        ["kernel=bicubic,area", "softness=1:1.5", "blur=0:1", "noise=1:4", "jpeg=40:90@0.5", "h264=18:30"]
    )
    assert not chain.fixed
    hr = picture(96, 72)
    lr, soft = chain(hr, SCALE, np.random.default_rng(7))
    again, _ = chain(hr, SCALE, np.random.default_rng(7))
    other, _ = chain(hr, SCALE, np.random.default_rng(8))
    np.testing.assert_array_equal(lr, again)
    assert not np.array_equal(lr, other)
    assert lr.shape == (48, 64, 3)
    assert soft.shape == hr.shape
    assert not np.array_equal(soft, hr)  # a soft source is soft in HR too


def test_how_often_a_step_happens():
    hr = picture(24, 24)
    clean, _ = Degradation()(hr, SCALE, random())
    half = Degradation.parse(["noise=8@0.25"])
    draws = np.random.default_rng(1)
    touched = sum(not np.array_equal(half(hr, SCALE, draws)[0], clean) for _ in range(400))
    assert 70 < touched < 130


@pytest.mark.parametrize(
    "text",
    ["kernel=mitchell", "rain=1", "blur=x", "blur=2:1", "blur=8", "jpeg=0:50", "h264=18:60", "noise=1@2", "blur"],
)
def test_a_degradation_that_is_none(text):
    with pytest.raises(ValueError, match="Expected"):
        Degradation.parse([text])


def test_every_step_is_on_the_list():
    assert list(DEGRADATIONS) == ["softness", "blur", "noise", "jpeg", "h264", "hevc", "mpeg2", "mpeg4"]


# ── batches


def crops_of(pairs, **options):
    return RandomCrops([(pairs, 1.0)], SCALE, **{"batch": 16, "size": (48, 48), "steps": 8, "seed": 0} | options)


def test_crops_are_cut_and_turned_together(loaded):
    crops = crops_of(loaded)
    lr, hr = crops[1]
    assert (lr.shape, hr.shape) == ((16, 32, 32, 1), (16, 48, 48, 1))
    assert lr.dtype == np.float32
    for small, large in zip(lr, hr, strict=True):
        again = Image.fromarray(large[..., 0]).resize((32, 32), Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(again) - small[..., 0])[2:-2, 2:-2].max() < 0.02
    np.testing.assert_array_equal(crops[1][0], lr)
    assert not np.array_equal(crops[2][0], lr)
    assert not np.array_equal(crops_of(loaded, seed=1)[1][0], lr)


def test_all_eight_ways_to_see_a_crop():
    hr = np.arange(36, dtype=np.uint8).reshape(6, 6) * 7
    crops = RandomCrops([([(hr[:4, :4], hr)], 1.0)], SCALE, batch=64, size=(6, 6), steps=4)
    seen = {tuple(np.rint(c * 255).astype(int).ravel()) for i in range(4) for c in crops[i][1]}
    wanted = {tuple(np.rot90(side, k).ravel()) for side in (hr, hr[:, ::-1]) for k in range(4)}
    assert seen == wanted


def test_crops_that_are_not_square_stay_upright(loaded):
    lr, hr = crops_of(loaded, size=(48, 96))[0]
    assert (lr.shape, hr.shape) == ((16, 32, 64, 1), (16, 48, 96, 1))


def test_sets_are_mixed_by_weight():
    dark, light = ([(np.full((8, 8), v, np.uint8), np.full((12, 12), v, np.uint8))] for v in (0, 255))
    crops = RandomCrops([(dark, 1.0), (light, 3.0)], SCALE, batch=200, size=(12, 12), steps=5)
    share = np.mean([crops[i][0].mean() for i in range(5)])
    assert share == pytest.approx(0.75, abs=0.05)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from(["3/2", "2", "3", "4"]), kernel=st.sampled_from(KERNELS))
def test_a_crop_degraded_by_itself_is_cut_out_of_the_degraded_picture(seed, scale, kernel):
    # The margin around a crop is what makes this so; without it a crop's border would be another picture.
    scale = Scale.parse(scale)
    hr = picture(144, 120)[..., 1]
    whole, _ = downscale(hr, scale, kernel)
    crops = RandomCrops(
        [([(None, hr)], 1.0)], scale, batch=1, size=(24, 24), steps=1, seed=seed, degradation=Degradation((kernel,))
    )
    precomputed = RandomCrops([([(whole, hr)], 1.0)], scale, batch=1, size=(24, 24), steps=1, seed=seed)
    # The draws differ, so compare by where the HR crop lies.
    lr, hr_crop = (np.rint(side[0, ..., 0] * 255).astype(int) for side in crops[0])
    views = [(np.rot90(v, k)) for v in (hr_crop, hr_crop[:, ::-1]) for k in range(4)]
    smalls = [(np.rot90(v, k)) for v in (lr, lr[:, ::-1]) for k in range(4)]
    places = np.lib.stride_tricks.sliding_window_view(hr, (24, 24))[:: scale.up, :: scale.up]
    found = False
    for view, small in zip(views, smalls, strict=True):
        for y, x in np.argwhere((places == view).all((2, 3))):
            cut = whole[y * scale.down :, x * scale.down :][: small.shape[0], : small.shape[1]]
            found = found or np.abs(cut.astype(int) - small).max() <= 1
    assert found
    assert precomputed[0][0].shape == crops[0][0].shape


def test_fixed_crops_are_the_same_every_time(loaded):
    chain = Degradation.parse(["noise=3"])
    plain = [(None, hr) for _, hr in loaded]
    first, second = (fixed_crops(plain, SCALE, size=(48, 48), most=16, degradation=chain) for _ in range(2))
    assert len(first) == 16
    assert {(lr.shape, hr.shape) for lr, hr in first} == {((32, 32), (48, 48))}
    for (a, _), (b, _) in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(fixed_crops(loaded, SCALE, size=(48, 48), most=2)) == 2
    assert fixed_crops(loaded, SCALE, size=(960, 960), most=8)[0][1].shape == (150, 180)


def test_tf_data_yields_what_the_crops_are(loaded):
    from imagesr.datasets.tfdata import pipeline

    crops = crops_of(loaded, degradation=Degradation(), steps=6)
    crops.start = 2
    batches = list(pipeline(crops).as_numpy_iterator())
    assert len(batches) == len(crops) == 4
    for i, (lr, hr) in enumerate(batches):
        np.testing.assert_array_equal(lr, crops.numbered(2 + i)[0])
        np.testing.assert_array_equal(hr, crops.numbered(2 + i)[1])
    assert pipeline(crops).element_spec[0].shape == (16, 32, 32, 1)


def test_luma_is_what_luma_networks_are_trained_on(folder, loaded):
    file = DATASETS["folder"](folder, SCALE, "train")[0].hr
    rgb = np.asarray(Image.open(file))
    np.testing.assert_array_equal(loaded[0][1], luma(rgb))
    lr, hr = load_pairs([Pair(None, file)], SCALE, channels=3)[0]
    np.testing.assert_array_equal(hr, rgb)
    assert lr.shape == (100, 120, 3)


# ── what Keras trains on


@pytest.mark.parametrize(("name", "channels"), [("div2k", 3), ("davis", 1)])
def test_a_data_set_is_a_tf_data_of_pairs(name, channels, tmp_path):
    import tensorflow as tf

    import imagesr

    if name == "davis":
        davis_folders(tmp_path, ["bear", "dog"])
    else:
        for part in ("train", "valid"):
            photos(tmp_path / f"DIV2K_{part}_HR", 2, (96, 72))
    options = {"scale": 2, "batch": 3, "channels": channels, "seed": 5}
    train = imagesr.datasets.load(name, tmp_path, split="train", patch=32, steps=3, **options)
    spec = tuple(tf.TensorSpec((3, side, side, channels), tf.float32) for side in (16, 32))
    assert (train.element_spec, len(train)) == (spec, 3)

    scale = Scale(2)
    pairs = load_pairs(DATASETS[name](tmp_path, scale, "train"), scale, channels=channels, sizes=SIZES, size=(32, 32))
    crops = RandomCrops([(pairs, 1)], scale, batch=3, size=(32, 32), steps=9, seed=5)
    next(iter(train))  # a look at it takes nothing away
    for epoch in range(2):
        for step, batch in enumerate(train.as_numpy_iterator(), 3 * epoch):
            for ours, theirs in zip(batch, crops.numbered(step), strict=True):
                np.testing.assert_array_equal(ours, theirs)

    val = imagesr.datasets.load(name, tmp_path, split="val", **options)
    first, second = (list(val.as_numpy_iterator()) for _ in range(2))
    assert len(first) == len(val)
    for lr, hr in first:
        assert hr.dtype == np.float32
        assert hr.shape == (len(lr), 2 * lr.shape[1], 2 * lr.shape[2], channels)
        assert 0 <= hr.min() < hr.max() <= 1
    np.testing.assert_array_equal(first[-1][1], second[-1][1])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "imagenet"}, "a data set"),
        ({"split": "test"}, "a split"),
        ({"channels": 2}, "1 channel"),
        ({"batch": 0}, "at least 1"),
        ({"patch": 33}, "multiple of 2"),
        ({"patch": 500}, "at least 500x500"),
        ({"degrade": ["rain=1"]}, "a degradation"),
    ],
)
def test_a_data_set_that_cannot_be_loaded(wrong, words, folder):
    import imagesr

    with pytest.raises(ValueError, match=words):
        imagesr.datasets.load(**{"name": "folder", "folder": folder} | wrong)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_data_set_without_tensorflow_is_a_pydataset(backend, folder):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"needs {backend}")
    script = f"""
import sys
sys.modules["tensorflow"] = None
import imagesr, keras, numpy as np
train = imagesr.datasets.load("folder", {str(folder)!r}, patch=32, batch=2, steps=2, channels=1)
val = imagesr.datasets.load("folder", {str(folder)!r}, split="val", channels=1)
assert isinstance(train, keras.utils.PyDataset) and isinstance(val, keras.utils.PyDataset)
assert [side.shape for side in train[0]] == [(2, 16, 16, 1), (2, 32, 32, 1)]
before = train[0][1]
train.on_epoch_end()
assert (train[0][1] == train.crops.numbered(2)[1]).all() and not (train[0][1] == before).all()
model = imagesr.models.build("espcn", 2)
model.compile("adam", "mse")
model.fit(train, validation_data=val, epochs=2, verbose=0)
assert train.first > 4, train.first  # Keras may have read one epoch to see the shapes
"""
    env = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stderr
