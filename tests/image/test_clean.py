"""Photographs that were compressed or are noisy: what the network that cleans them takes away, and what it leaves."""

import dataclasses
import io
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from PIL import Image

import imagesr
from imagesr.card import SAVED_MODELS, ModelCard, models_for, of_own_size, with_cleaner
from imagesr.errors import ModelError
from imagesr.image.__main__ import main
from imagesr.image.upscale import last, upscaling
from imagesr.media.photo_coding import examine_photo
from imagesr.media.photos import from_array, region
from imagesr.metrics.fidelity import psnr
from imagesr.pixels import downscale
from imagesr.scale import Scale

WIDTH, HEIGHT = 160, 120


def run(*arguments):
    """Run the command; returns its exit code."""
    return main([str(argument) for argument in arguments])


def rgb(path):
    """Return a file's samples."""
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def hr():
    """Return a picture of level colours and edges, RGB, twice as large as those that are spoilt."""
    y, x = np.mgrid[: 2 * HEIGHT, : 2 * WIDTH]
    shapes = [(x // 37 + y // 53) % 3 * 60 + 50, (x + 2 * y) // 90 % 2 * 90 + 70, (x - y) // 61 % 2 * 70 + 80]
    return np.stack(shapes, -1).astype(np.uint8)


@pytest.fixture
def lr(hr):
    """Return the picture that is spoilt."""
    return downscale(hr, Scale(2))[0]


def noisy(lr, sigma=12):
    """Return a picture with noise of its own in every channel."""
    return np.rint(np.clip(lr + np.random.default_rng(0).normal(0, sigma, lr.shape), 0, 255)).astype(np.uint8)


@pytest.mark.parametrize("spoilt", ["jpeg", "noise"])
def test_what_was_lost_is_cleaned_by_default(spoilt, hr, lr, tmp_path, capsys):
    if spoilt == "jpeg":
        Image.fromarray(lr).save(file := tmp_path / "a.jpg", quality=30)
    else:
        Image.fromarray(noisy(lr)).save(file := tmp_path / "a.png")
    assert run(file, tmp_path / "auto.png") == 0
    told = capsys.readouterr().err
    assert "clean 0." in told and ("JPEG, quality 30" in told if spoilt == "jpeg" else "(noise 1" in told)
    assert run(file, tmp_path / "as_it_is.png", "--clean", 0) == 0
    assert ", clean" not in capsys.readouterr().err
    cleaned, plain = (psnr(rgb(tmp_path / f"{name}.png"), hr) for name in ("auto", "as_it_is"))
    assert cleaned > plain + 0.5


def test_a_good_picture_is_left_as_it_is(lr, tmp_path, capsys):
    Image.fromarray(lr).save(tmp_path / "a.png")
    for name, options in {"auto": [], "0": ["--clean", 0]}.items():
        assert run(tmp_path / "a.png", tmp_path / f"{name}.png", *options) == 0
    np.testing.assert_array_equal(rgb(tmp_path / "auto.png"), rgb(tmp_path / "0.png"))
    assert ", clean" not in capsys.readouterr().err
    assert run(tmp_path / "a.png", tmp_path / "same.png", "-s", 1) == 0
    np.testing.assert_array_equal(rgb(tmp_path / "same.png"), lr)
    assert "clean 0" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["fast", "balanced", "best", "linear"])
@pytest.mark.parametrize("scale", ["1", "1.5", "3"])
def test_every_model_for_photographs_is_cleaned_for(model, scale, lr, tmp_path):
    Image.fromarray(noisy(lr)[:40, :48]).save(tmp_path / "a.png")
    results = []
    for clean in (0, 0.7):
        assert run(tmp_path / "a.png", tmp_path / f"{clean}.png", "-s", scale, "-n", model, "--clean", clean) == 0
        results.append(rgb(tmp_path / f"{clean}.png").astype(int))
    assert np.abs(results[1] - results[0]).mean() > 2


def test_its_own_size_is_cleaned_and_transparency_stays(lr, tmp_path):
    alpha = np.random.default_rng(1).integers(0, 256, lr.shape[:2], np.uint8)
    Image.fromarray(np.dstack([noisy(lr), alpha])).save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", tmp_path / "b.png", "-s", 1, "--clean", 0.7) == 0
    result = rgb(tmp_path / "b.png")
    np.testing.assert_array_equal(result[..., 3], alpha)
    opaque = alpha > 0
    assert psnr(result[opaque][:, :3], lr[opaque]) > psnr(noisy(lr)[opaque], lr[opaque]) + 2


def test_grey_deep_and_turned_pictures(lr):
    grey = noisy(lr)[..., 0]
    cleaned = imagesr.upscale_image(grey, scale=1, clean=0.7)
    assert cleaned.shape == grey.shape and psnr(cleaned, lr[..., 0]) > psnr(grey, lr[..., 0]) + 2
    deep = imagesr.upscale_image(noisy(lr).astype(np.uint16) * 257, scale=2, clean=0.7)
    shallow = imagesr.upscale_image(noisy(lr), scale=2, clean=0.7)
    assert np.abs(deep / 257 - shallow).max() < 1
    turned = imagesr.upscale_image(np.rot90(noisy(lr)), scale=1, clean=0.7, tta=True)
    np.testing.assert_allclose(
        np.rot90(turned, -1), imagesr.upscale_image(noisy(lr), scale=1, clean=0.7, tta=True), atol=1
    )


def test_a_large_picture_has_no_seams(lr):
    wide = np.tile(noisy(lr), (2, 2, 1))
    whole, tiles = (imagesr.upscale_image(wide, scale=2, model="fast", clean=0.7, tile=tile) for tile in (1000, 128))
    assert np.abs(whole.astype(int) - tiles).max() <= 1


def test_pictures_beyond_the_second_time_are_not_cleaned_again(lr, tmp_path):
    Image.fromarray(noisy(lr)[:40, :48]).save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", tmp_path / "twice.png", "--times", 2) == 0
    assert run(tmp_path / "a.png", tmp_path / "once.png") == 0
    assert run(tmp_path / "once.png", tmp_path / "again.png", "--clean", 0) == 0
    assert np.abs(rgb(tmp_path / "twice.png").astype(int) - rgb(tmp_path / "again.png")).max() <= 1


def test_a_model_of_ones_own_is_not_cleaned_for(lr, tmp_path, capsys):
    card = next(card for card in models_for("photographs", "linear") if card.scale == Scale(2))
    (tmp_path / "mine").mkdir()
    for file in card.folder.iterdir():
        (tmp_path / "mine" / file.name).write_bytes(file.read_bytes())
    own = ModelCard.read(tmp_path / "mine")
    assert with_cleaner([own]) == [own]
    Image.fromarray(noisy(lr)).save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", tmp_path / "b.png", "-n", tmp_path / "mine") == 0
    assert ", clean" not in capsys.readouterr().err
    assert run(tmp_path / "a.png", tmp_path / "c.png", "-n", tmp_path / "mine", "--clean", 0.5) == 2
    assert "a model that takes a clean (" in capsys.readouterr().err
    with pytest.raises(ModelError, match=r"or a model of scale 1 \(best-photo\)\. Received: 1"):
        of_own_size("photographs", str(tmp_path / "mine"))


def test_a_shipped_model_is_the_same_by_any_path(monkeypatch):
    monkeypatch.chdir(SAVED_MODELS.parent)
    for folder in (SAVED_MODELS / "fast-photo_x2", Path(SAVED_MODELS.name, "fast-photo_x2")):
        assert [card.name for card in models_for("photographs", str(folder))] == ["fast-photo", "best-photo"]


def test_only_what_takes_a_clean_is_idle_at_none():
    """A network of one's own may keep the size and do something else, and has nothing to be told."""
    card = of_own_size("photographs", "best")
    other = dataclasses.replace(card, clean=None)
    plane = np.full((40, 48, 3), 90, np.uint8)
    for own, level in ((card, 90), (other, 91)):

        def brighter(planes, detail=None, clean=None):
            return planes + np.uint16(257)

        brighter.card, brighter.clean, brighter.detail = own, 0.0, 0.0
        with ExitStack() as spools:
            result = last(upscaling(from_array(plane), (48, 40), [brighter], spools=spools))
            assert (region(result, 0, 0, 48, 40) == level).all()


def test_a_detail_that_nothing_takes_is_refused_by_the_name_of_what_enlarges(lr, tmp_path, capsys):
    Image.fromarray(lr).save(tmp_path / "a.png")
    found = (("fast", 2, "fast-photo x2"), ("best", 3, "best-photo x3"), ("fast", 1, "best-photo x1"))
    for model, scale, name in found:
        assert run(tmp_path / "a.png", tmp_path / "b.png", "-n", model, "-s", scale, "--detail", 0.5) == 2
        assert "takes a detail (" in (told := capsys.readouterr().err) and told.endswith(f"Received: {name}\n")


def test_the_noise_of_a_picture_is_that_of_its_channels(lr):
    large = np.tile(lr, (3, 3, 1))
    noise = examine_photo(b"", noisy(large)).noise
    assert noise == pytest.approx(12, rel=0.15)
    # Where all channels have the same noise, luma has as much of it as where they have more, each its own.
    grey = np.random.default_rng(0).normal(128, 12, (480, 640, 1))
    assert examine_photo(b"", grey).noise == pytest.approx(12 / 0.668, rel=0.15)
    assert examine_photo(b"", np.repeat(grey, 3, 2)).noise == pytest.approx(12 / 0.668, rel=0.15)
    assert examine_photo(b"", picture(64, 48)[:8, :8]).noise is None


def test_texture_and_patterns_are_no_noise():
    y, x = np.mgrid[:240, :320]
    smooth = np.random.default_rng(0).normal(0, 60, (242, 322))
    smooth = sum(smooth[i : i + 240, j : j + 320] for i in range(3) for j in range(3)) / 3
    dither = np.where((x // 8 + y // 8) % 2, (x + y) % 2 * 60 + 90, 120)
    for pattern in (smooth.clip(-90, 90) + 128, (x + y) % 2 * 60 + 90, dither):
        assert examine_photo(b"", pattern[..., np.newaxis]).clean == 0


def test_what_is_lost_and_what_a_file_tells_agree(lr):
    """Noise and JPEG, as training spoils crops, are seen as the `clean` that the network was trained with."""
    from imagesr.datasets.degradations import Degradation

    large = np.tile(lr, (3, 3, 1))
    for steps, quality in ((["noise=12"], None), (["noise=25"], None), (["jpeg=30"], 30), (["jpeg=60"], 60)):
        spoilt, _, lost = Degradation.parse(steps).measured(large, Scale(1), np.random.default_rng(0))
        file = io.BytesIO()
        if quality:
            Image.fromarray(large).save(file, "JPEG", quality=quality)
        assert examine_photo(file.getvalue(), spoilt).clean == pytest.approx(lost, abs=0.06), steps


def behind(picture, quality):
    """Return a picture behind JPEG, and the file."""
    Image.fromarray(picture).save(file := io.BytesIO(), "JPEG", quality=quality)
    return np.asarray(Image.open(file)), file.getvalue()


@pytest.mark.parametrize("quality", [20, 40])
def test_a_jpeg_that_was_saved_as_another_file_is_seen(quality):
    lively = np.random.default_rng(0).normal(picture(720, 560), 2).clip(0, 255).astype(np.uint8)
    decoded, file = behind(lively, quality)
    told, seen = examine_photo(file, decoded), examine_photo(b"", decoded[3:, 5:])
    assert "blocks of a JPEG, quality about" in str(seen) and f"JPEG, quality {quality}" in str(told)
    assert seen.clean == pytest.approx(told.clean, abs=0.25)
    again = behind(decoded, 95)
    assert "blocks of a JPEG" in str(examine_photo(again[1], again[0]))


def test_grids_of_a_pictures_own_are_no_jpeg():
    grid = np.full((560, 720, 3), 200, np.uint8)
    grid[::8] -= 6
    grid[:, ::8] -= 6
    squares = np.kron(np.random.default_rng(0).integers(0, 256, (70, 90, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    for still in (picture(720, 560), grid, squares):
        assert "JPEG" not in str(examine_photo(b"", still))


@pytest.mark.parametrize("quality", [85, 92])
def test_noise_behind_a_jpeg_is_seen_in_a_large_picture(quality):
    decoded, file = behind(noisy(picture(720, 560), 10), quality)
    assert 6 < examine_photo(file, decoded).noise < 14
