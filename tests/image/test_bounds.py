"""Thin lines of pure colours keep their colour, and flat surroundings stay flat beside them."""

import numpy as np
import pytest
from conftest import picture

import imagesr
from imagesr.image.bounds import SLACK, within_local_range
from imagesr.pixels import luma_of
from imagesr.scale import Scale

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}


def lines(ground):
    """Return a picture with a lying line of one pixel in every colour, and an upright one, and where they lie."""
    lr = np.full((12 * len(COLOURS) + 12, 40, 3), ground, np.uint8)
    places = {name: 12 + 12 * i for i, name in enumerate(COLOURS)}
    for name, y in places.items():
        lr[y], lr[y - 5 : y + 6, 10] = COLOURS[name], COLOURS[name]
    return lr, places


@pytest.mark.parametrize("scale", [1.5, 2, 2.5, 4])
@pytest.mark.parametrize("ground", [0, 255])
def test_thin_lines_keep_their_colour(ground, scale):
    lr, places = lines(ground)
    sr = imagesr.upscale_image(lr, scale=scale).astype(int)[:, round(30 * scale)]
    rows = (np.arange(len(sr)) + 0.5) / scale - 0.5  # of LR
    for name, y in places.items():
        near = np.abs(rows - y) < 1
        assert np.abs(sr[near] - COLOURS[name]).max(1).min() <= 6, name
        beside = (np.abs(rows - y) > 1.6) & (np.abs(rows - y) < 5.5)
        assert np.abs(sr[beside] - ground).max() <= 1, name  # no ghost


@pytest.mark.parametrize("scale", [1.5, 2, 3])
def test_grey_lines_have_no_ghosts(scale):
    lr = np.full((40, 30), 255, np.uint8)
    lr[20] = 0
    column = imagesr.upscale_image(lr, scale=scale)[:, 20]
    assert column.min() <= 6
    assert set(column[: round(18 * scale)]) == {255}


@pytest.mark.parametrize("scale", [Scale(3, 2), Scale(2), Scale(3)])
def test_samples_stay_within_their_surroundings_and_luma_is_the_networks(scale):
    random = np.random.default_rng(0)
    lr = picture(30, 20).astype(np.float32)
    rows, columns = (np.arange(scale.grow(n)) * scale.down // scale.up for n in lr.shape[:2])
    change = random.normal(0, 6, (len(rows), len(columns), 1)).astype(np.float32)
    sr = lr[rows][:, columns] + change
    bounded = within_local_range(sr, lr, scale)
    assert bounded.dtype == sr.dtype
    assert bounded.min() >= 0
    assert bounded.max() <= 255
    padded = np.pad(lr, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    low, high = around.min((3, 4))[rows][:, columns], around.max((3, 4))[rows][:, columns]
    room = SLACK * (high - low) + 1e-3
    assert (bounded >= low - room).all()
    assert (bounded <= high + room).all()
    kept = (sr >= low - room).all(2) & (sr <= high + room).all(2)
    np.testing.assert_allclose(bounded[kept], sr[kept], atol=2e-3)
    free = ((bounded > np.maximum(low - room, 0) + 0.01) & (bounded < np.minimum(high + room, 255) - 0.01)).all(2)
    np.testing.assert_allclose(luma_of(bounded)[free], luma_of(sr)[free], atol=0.05)


def test_nothing_is_lost_on_photographs(data):
    """The mean of Set5 loses less than 0.01 dB of PSNR-Y."""
    from imagesr.image import upscale
    from imagesr.media.images import find_images, read_rgb
    from imagesr.metrics.fidelity import psnr
    from imagesr.pixels import downscale, luma

    def mean():
        values = []
        for path in find_images([data / "set5"]):
            lr, hr = downscale(read_rgb(path), Scale(2))
            values.append(psnr(luma(imagesr.upscale_image(lr)), luma(hr), shave=2))
        return np.mean(values)

    bounded = mean()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upscale, "within_local_range", lambda sr, lr, scale, **more: sr)
        assert bounded > mean() - 0.01
