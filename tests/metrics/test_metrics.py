import numpy as np
import pytest
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imagesr.metrics.fidelity import figures, psnr, ssim
from imagesr.pixels import luma, with_luma

planes = arrays(np.uint8, (24, 20))


@settings(deadline=None)
@given(planes)
def test_equal_pictures_are_perfect(plane):
    assert psnr(plane, plane) == float("inf")
    assert ssim(plane, plane) == pytest.approx(1)


@settings(deadline=None)
@given(planes, planes, st.integers(0, 5))
def test_psnr_is_its_definition_and_symmetric(a, b, shave):
    inside = (slice(shave, 24 - shave), slice(shave, 20 - shave))
    error = np.mean((a[inside].astype(float) - b[inside]) ** 2)
    if error:
        assert psnr(a, b, shave=shave) == pytest.approx(10 * np.log10(255**2 / error))
        assert psnr(a, b, shave=shave) == psnr(b, a, shave=shave)


def test_luma_has_studio_range():
    ends = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    assert luma(ends).tolist() == [[16, 235, 81]]


def test_ssim_punishes_structure_more_than_brightness():
    y, x = np.mgrid[:64, :64]
    hr = (128 + 50 * np.sin(x / 3) * np.sin(y / 4)).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 10, hr.shape)
    assert ssim(hr + 10, hr) > 0.95 > ssim(np.clip(hr + noise, 0, 255).astype(np.uint8), hr)


def test_pictures_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="one size"):
        psnr(np.zeros((4, 4)), np.zeros((4, 5)))


@pytest.mark.keras
def test_ssim_is_that_of_tensorflow():
    tf = pytest.importorskip("tensorflow")
    random = np.random.default_rng(0)
    hr = random.integers(0, 256, (60, 47)).astype(np.uint8)
    sr = np.clip(hr + random.normal(0, 20, hr.shape), 0, 255).astype(np.uint8)
    expected = float(tf.image.ssim(sr[4:-4, 4:-4, None], hr[4:-4, 4:-4, None], 255))
    assert ssim(sr, hr, shave=4) == pytest.approx(expected, abs=1e-5)


@settings(deadline=None)
@given(
    arrays(np.uint8, (6, 5, 3), elements=st.integers(60, 195)), arrays(np.uint8, (6, 5), elements=st.integers(80, 160))
)
def test_a_new_luma_leaves_chroma(rgb, plane):
    grown = with_luma(rgb, plane)
    inside = (grown > 0).all(-1) & (grown < 255).all(-1)  # what was not clipped
    assert np.abs(luma(grown).astype(int) - plane)[inside].max(initial=0) <= 1
    for a, b in ((0, 1), (1, 2)):
        change = (grown[..., a].astype(int) - grown[..., b]) - (rgb[..., a].astype(int) - rgb[..., b])
        assert np.abs(change[inside]).max(initial=0) <= 1


def test_the_luma_it_has_changes_nothing():
    rgb = picture(40, 30)
    assert np.abs(with_luma(rgb, luma(rgb)).astype(int) - rgb).max() <= 1


def test_figures_are_finite_and_of_what_they_say():
    hr, other = picture(40, 30), picture(40, 30, shift=3)
    same = figures(luma(hr), luma(hr), hr, hr)
    assert same == {"psnr_y": 100, "ssim_y": pytest.approx(1), "psnr_rgb": 100}
    apart = figures(luma(hr), luma(other), hr, other, shave=2)
    assert apart["psnr_y"] == psnr(luma(hr), luma(other), shave=2)
    assert apart["psnr_rgb"] == psnr(hr, other, shave=2)
