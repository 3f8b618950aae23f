"""Grain: what it depends on, how strong it is, and that it never wraps."""

import numpy as np
import pytest

from imagesr.media.grain import Grain, with_grain


def painted(level, seed=1, amount=0.5, bits=8, size=(200, 120)):
    luma = np.full(size[::-1], level, np.uint8 if bits == 8 else np.uint16)
    target = np.empty_like(luma)
    Grain(amount, size, bits).paint(luma, target, seed)
    return target.astype(int) - level


def test_the_pattern_is_that_of_the_seed():
    np.testing.assert_array_equal(painted(120, 7), painted(120, 7))
    one, other = painted(120, 7), painted(120, 8)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.05
    np.testing.assert_array_equal(painted(120, -(2**63)), painted(120, -(2**63)))


@pytest.mark.parametrize("amount", [0.25, 1])
def test_its_strength_is_what_is_asked_for_and_its_mean_zero(amount):
    grain = painted(125, amount=amount)
    assert grain.std() == pytest.approx(8 * amount, rel=0.1)
    assert abs(grain.mean()) < 0.2 * amount


def test_there_is_less_in_black_and_white():
    assert painted(40).std() > painted(24).std() > 0
    for level in (0, 16, 235, 255):
        assert not painted(level).any()


def test_grains_grow_with_the_picture():
    def neighbours(grain):
        return np.corrcoef(grain[:, 1:].ravel(), grain[:, :-1].ravel())[0, 1]

    small, large = (neighbours(painted(125, size=(64, height))) for height in (540, 2160))
    assert small < 0.5 < large


def test_deep_samples_get_the_same_share():
    assert painted(500, bits=10).std() == pytest.approx(4 * painted(125).std(), rel=0.1)


def test_a_frame_may_be_painted_in_its_place():
    luma = np.random.default_rng(0).integers(0, 256, (120, 200), np.uint8)
    target, grain = np.empty_like(luma), Grain(1, (200, 120))
    grain.paint(luma, target, 3)
    assert np.abs(target.astype(int) - luma).max() < 30
    grain.paint(luma, luma, 3)
    np.testing.assert_array_equal(luma, target)


def test_a_photograph_has_no_seams_and_its_alpha_no_grain():
    picture = np.full((60, 80, 4), 120, np.float32)
    whole = with_grain(picture, (1000, 1010), 0.5, height=1080)
    part = with_grain(picture[20:], (1000, 1030), 0.5, height=1080)
    np.testing.assert_array_equal(whole[20:], part)
    assert whole[..., 0].std() > 2 and (whole[..., 3] == 120).all()
    np.testing.assert_allclose(whole[..., 0], whole[..., 2])
