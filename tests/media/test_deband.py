from fractions import Fraction

import numpy as np
import pytest

from imagesr.media.deband import _FORMATS, Deband
from imagesr.media.frames import Frame, plane


def blocky(height=270, width=480, fmt="yuv420p"):
    """Return a slope as an encoder leaves it: blocks of 24 pixels, one code apart, and one sharp edge."""
    blocks = np.add.outer(np.arange(height) // 24, np.arange(width) // 24)
    luma = (90 + blocks).astype(np.uint8)
    luma[:, -60:] = 30
    frame = Frame(width, height, fmt)
    for i in range(len(frame.planes)):
        plane(frame, i)[:] = 128
    plane(frame, 0)[:] = luma
    frame.pts, frame.time_base, frame.colorspace, frame.color_range = 7, Fraction(1, 25), 1, 1
    return frame


def test_faint_steps_dissolve_and_edges_stay():
    frame = blocky()
    before = plane(frame, 0).copy()
    result = Deband()(frame, 0.4)
    after = plane(result, 0).astype(int)
    np.testing.assert_array_equal(plane(frame, 0), before)  # what the next frame is compared with stays
    assert (result.pts, result.time_base, int(result.colorspace), int(result.color_range)) == (7, Fraction(1, 25), 1, 1)
    assert 1 <= np.abs(after - before).max() <= 3
    middle = after[60:200, 60:360]
    inside = (np.diff(middle, axis=1) != 0)[:, np.arange(60, 359) % 24 != 23].mean()
    assert inside > 0.05  # codes change within the blocks too, not at their borders alone
    np.testing.assert_array_equal(after[:, -50:], before[:, -50:])
    assert (
        np.abs(np.diff(after[:, -80:], axis=1)).max() >= np.abs(np.diff(before[:, -80:].astype(int), axis=1)).max() - 2
    )


@pytest.mark.parametrize("fmt", ["yuv420p", "yuv444p"])
def test_blocks_of_chroma_dissolve_where_luma_is_level_and_stay_elsewhere(fmt):
    frame = blocky(fmt=fmt)
    plane(frame, 0)[:, :200] = 90
    plane(frame, 0)[:, 280:] = np.random.default_rng(0).integers(60, 200, (270, 200))
    chroma = plane(frame, 1)
    height, width = chroma.shape
    chroma[:] = 120 + 4 * (np.add.outer(np.arange(height) // 12, np.arange(width) // 12) % 2)
    after, target = plane(Deband()(frame, 0.4), 1).astype(int), chroma.astype(int)
    level, uneven = slice(20, width * 150 // 480), slice(width * 330 // 480, None)
    np.testing.assert_array_equal(after[:, uneven], target[:, uneven])
    assert after[30:-30, level].std() < target[30:-30, level].std() / 2


@pytest.mark.parametrize("clean, fmt", [(0, "yuv420p"), (0.05, "yuv420p"), (0.5, "yuv420p10le"), (0.5, "yuva420p")])
def test_other_frames_stay_as_they_are(clean, fmt):
    frame = Frame(64, 48, fmt)
    assert Deband()(frame, clean) is frame


def test_a_film_that_changes_gets_another_graph():
    deband = Deband()
    for size in ((270, 480), (96, 128)):
        for fmt in sorted(_FORMATS):
            result = deband(blocky(*size, fmt), 0.4)
            assert (result.height, result.width, result.format.name) == (*size, fmt)
            assert int(result.color_range) == (2 if "j" in fmt else 1)


@pytest.mark.parametrize("matrix", [3, 9, 100])
def test_a_matrix_that_ffmpeg_does_not_know_is_kept(matrix):
    frame = blocky()
    frame.colorspace = matrix
    result = Deband()(frame, 0.4)
    assert int(result.colorspace) == int(frame.colorspace) == matrix
