"""NIQE: its features against the paper's formulas by SciPy, worse and worse pictures, the statistics that ship."""

import io
from functools import lru_cache

import numpy as np
import pytest
from conftest import BLAS_THREADS, run_python
from PIL import Image, ImageFilter
from scipy.ndimage import correlate
from scipy.special import gamma

from imagesr.media.images import find_images, read_rgb
from imagesr.metrics import niqe as module
from imagesr.metrics.niqe import features, fit, niqe, shipped
from imagesr.pixels import luma


@lru_cache
def scene(seed, side=288):
    """Return luma that is natural in its statistics: spectrum 1/f, with edges of things in front of one another."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = 1
    plane = np.zeros((side, side))
    y, x = np.mgrid[:side, :side]
    for _ in range(60):  # dead leaves, each with a texture
        texture = np.fft.irfft2(np.fft.rfft2(random.normal(0, 1, (side, side))) / frequency, s=(side, side))
        disc = np.hypot(*(axis - random.uniform(0, side) for axis in (y, x))) < random.uniform(15, 90)
        plane[disc] = (random.uniform(40, 215) + random.uniform(2, 14) * texture / texture.std())[disc]
    return np.rint(np.clip(plane, 16, 235)).astype(np.uint8)


def blurred(plane, sigma):
    return np.asarray(Image.fromarray(plane).filter(ImageFilter.GaussianBlur(sigma)))


def noisy(plane, sigma):
    return np.clip(plane + np.random.default_rng(0).normal(0, sigma, plane.shape), 0, 255)


def blocky(plane, quality):
    Image.fromarray(plane).save(file := io.BytesIO(), "jpeg", quality=quality)
    return np.asarray(Image.open(file))


HARMS = {"blur": (blurred, (0.7, 1, 1.6)), "noise": (noisy, (6, 14, 30)), "blocks": (blocky, (30, 12, 5))}


def test_features_are_the_papers():
    plane = scene(0, 200).astype(float)[:192, :192]
    offsets = np.arange(-3, 4)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    mean = correlate(plane, window, mode="nearest")
    deviation = np.sqrt(np.abs(correlate(plane**2, window, mode="nearest") - mean**2))
    normalized = (plane - mean) / (deviation + 1)
    shapes = np.arange(0.2, 10.001, 0.001)
    ratios = gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))

    def fitted(values):
        left, right = (np.sqrt(np.mean(values[side] ** 2)) for side in (values < 0, values > 0))
        skew = left / right
        ratio = np.mean(abs(values)) ** 2 / np.mean(values**2) * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
        shape = shapes[np.argmin((ratios - ratio) ** 2)]
        spread = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
        left, right = left * spread, right * spread
        return shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right

    found, sharpness = features(plane)
    assert found.shape == (4, 36)
    for i, (y, x) in enumerate(((0, 0), (0, 96), (96, 0), (96, 96))):
        block = normalized[y : y + 96, x : x + 96]
        shape, _, left, right = fitted(block)
        expected = [shape, (left + right) / 2]
        for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
            expected += fitted(block * np.roll(block, shift, (0, 1)))
        np.testing.assert_allclose(found[i, :18], expected, atol=2e-3)
        assert sharpness[i] == pytest.approx(deviation[y : y + 96, x : x + 96].mean(), rel=1e-3)


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_harmed_more_is_less_natural(harm):
    plane, (spoil, strengths) = scene(0), HARMS[harm]
    values = [niqe(plane), *(niqe(spoil(plane, strength)) for strength in strengths)]
    assert 2 < values[0] < 5
    assert values == sorted(values)
    assert values[-1] > 1.5 * values[0]


@pytest.mark.parametrize("harm", HARMS)
def test_photographs_harmed_more_are_less_natural(data, harm):
    planes = [luma(read_rgb(file))[:384, :480] for file in find_images([data / "photos/val"])[1:4]]
    spoil, strengths = HARMS[harm]
    means = [np.mean([niqe(p) for p in planes])]
    means += [np.mean([niqe(spoil(p, strength)) for p in planes]) for strength in strengths]
    assert 2 < means[0] < 5
    assert means == sorted(means)


def test_it_is_the_distance_of_two_gaussians():
    natural, blocks = fit([scene(1), scene(2)])
    assert natural.mean.shape == (36,)
    assert 4 <= blocks <= 18
    found, _ = features(scene(3))
    apart = found.mean(0) - natural.mean
    pooled = (np.cov(found.T) + natural.covariance) / 2
    assert niqe(scene(3), natural) == pytest.approx(np.sqrt(apart @ np.linalg.pinv(pooled) @ apart))


def test_the_shipped_statistics_say_what_they_come_of():
    statistics = shipped()
    assert statistics.covariance.shape == (36, 36)
    assert np.linalg.eigvalsh(statistics.covariance).min() > 0
    with np.load(module.NATURAL) as file:
        assert "CID22" in str(file["source"])
        assert "CC-BY-SA-4.0" in str(file["source"])


@pytest.mark.parametrize("plane", [scene(0, 150), np.full((200, 300), 90, np.uint8)], ids=["small", "flat"])
def test_what_has_no_two_blocks_is_refused(plane):
    with pytest.raises(ValueError, match="two blocks"):
        niqe(plane)


def test_the_command_fits(tmp_path, monkeypatch):
    # On another number of threads it adds up in another order: 2e-5.
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    for key, value in BLAS_THREADS.items():
        monkeypatch.setenv(key, value)
    for seed in range(2):
        Image.fromarray(np.repeat(scene(seed)[..., None], 3, -1)).save(tmp_path / f"{seed}.png")
    out = tmp_path / "own.npz"
    done = run_python("-m", "imagesr.metrics.niqe", tmp_path, "--out", out, "--source", "dead leaves")
    assert done.returncode == 0, done.stderr
    expected, blocks = fit(luma(read_rgb(tmp_path / f"{seed}.png")) for seed in range(2))
    with np.load(out) as file:
        np.testing.assert_allclose(file["mean"], expected.mean)
        np.testing.assert_allclose(file["covariance"], expected.covariance)
        assert str(file["source"]) == f"{blocks} blocks of 2 pictures: dead leaves"
    wrong = run_python("-m", "imagesr.metrics.niqe", tmp_path / "none", "--out", out, "--source", "nothing")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
