import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imagesr.evaluate import evaluate, upscaler
from imagesr.images import find_images
from imagesr.metrics import luma, psnr, ssim
from imagesr.scale import Scale

planes = arrays(np.uint8, (24, 20))


@given(planes)
def test_equal_pictures_are_perfect(plane):
    assert psnr(plane, plane) == float("inf")
    assert ssim(plane, plane) == pytest.approx(1)


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


@pytest.mark.parametrize(("scale", "published"), [(2, 33.66), (3, 30.39), (4, 28.42)])
def test_bicubic_set5_is_the_published_row(data, scale, published):
    scale = Scale(scale)
    result = evaluate(upscaler("bicubic", scale), find_images([data / "set5"]), scale)
    # Luma of LR is made before enlarging it in the papers, after it here: some hundredths.
    assert result["psnr_y"] == pytest.approx(published, abs=0.05)
