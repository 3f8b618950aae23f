import math

import numpy as np
import pytest
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st

from imagesr.card import find_model
from imagesr.engines import load_engine
from imagesr.engines.tiles import cut, tiled
from imagesr.scale import Scale

SCALES = [Scale(3, 2), Scale(2), Scale(3)]


def network(scale, multiple, reach, seen=None):
    """Return a stand-in that minds what networks mind: neighbours up to `reach`, zeros beyond the edge, where its
    grid of `multiple` pixels begins."""

    def run(planes):
        assert planes.ndim == 4
        assert len(planes) == 1
        assert not planes.shape[1] % multiple
        assert not planes.shape[2] % multiple
        if seen is not None:
            seen.append(planes.shape)
        height, width = planes.shape[1:3]
        padded = np.pad(planes[0].astype(int) + 1, ((reach, reach), (reach, reach), (0, 0)))
        total = sum(
            (i + 2 * j + 1) * padded[i : i + height, j : j + width]
            for i in range(2 * reach + 1)
            for j in range(2 * reach + 1)
        )
        rows, columns = (np.arange(n * scale.up // scale.down) for n in (height, width))
        period = multiple * scale.up // scale.down
        grid = (rows % period)[:, None] + 7 * (columns % period)
        return (total[rows * scale.down // scale.up][:, columns * scale.down // scale.up] + grid[..., None])[None]

    return run


def whole(run, lr, scale, unit, margin=8):
    """Return what `run` makes of a picture in one piece, mirrored at its borders."""
    margin = -(-margin // unit) * unit
    planes = lr.reshape(*lr.shape[:2], -1)
    grow = [(margin, margin + -n % unit) for n in lr.shape[:2]]
    sr = run(np.pad(planes, [*grow, (0, 0)], mode="symmetric")[None])[0]
    corner = scale.grow(margin)
    sr = sr[corner:, corner:][: scale.grow(lr.shape[0]), : scale.grow(lr.shape[1])]
    return sr if lr.ndim == 3 else sr[..., 0]


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    channels=st.sampled_from([None, 1, 3]),
    scale=st.sampled_from(SCALES),
    multiple=st.integers(1, 4),
    reach=st.integers(0, 4),
    tile=st.integers(4, 40),
)
def test_tiles_make_the_whole_picture(size, channels, scale, multiple, reach, tile):
    lr = np.random.default_rng(0).integers(0, 256, size if channels is None else (*size, channels), np.uint8)
    unit = math.lcm(multiple, scale.down)  # SR pixels are whole where LR is a multiple of `down`
    run = network(scale, unit, reach)
    sr = tiled(run, lr, scale=scale, multiple=multiple, halo=reach, tile=tile)
    assert sr.shape == (scale.grow(size[0]), scale.grow(size[1]), *lr.shape[2:])
    np.testing.assert_array_equal(sr, whole(run, lr, scale, unit))


def test_a_halo_that_is_too_narrow_shows():
    lr = picture(60, 50)
    run = network(Scale(2), 1, 6)
    assert (tiled(run, lr, scale=Scale(2), halo=5, tile=20) != whole(run, lr, Scale(2), 1)).any()


def test_tiles_have_one_size_and_bound_the_work():
    shapes = []
    tiled(network(Scale(3, 2), 2, 1, shapes), picture(101, 77), scale=Scale(3, 2), multiple=2, halo=4, tile=32)
    # 101 pixels take five tiles of at most 24 pixels without their margins, 77 take four: 22 and 20 share them evenly.
    assert set(shapes) == {(1, 20 + 8, 22 + 8, 3)}
    assert len(shapes) == 4 * 5


def test_a_small_picture_is_one_piece():
    shapes = []
    tiled(network(Scale(2), 1, 1, shapes), picture(40, 20), scale=Scale(2), halo=4, tile=48)
    assert shapes == [(1, 28, 48, 3)]


def test_tiles_are_wider_than_their_halos():
    shapes = []
    tiled(network(Scale(2), 1, 9, shapes), picture(80, 70), scale=Scale(2), halo=9, tile=16)
    assert set(shapes) == {(1, 18 + 18, 16 + 18, 3)}


@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    unit=st.integers(1, 6),
    margin=st.integers(0, 20),
    tile=st.integers(64, 100),
    fixed=st.booleans(),
    square=st.booleans(),
)
def test_a_grid_covers_every_pixel_once(size, unit, margin, tile, fixed, square):
    grid = cut(size, unit=unit, margin=margin, tile=tile, fixed=fixed, square=square)
    assert grid.margin >= margin
    assert not any(n % unit for n in (*grid.tile, grid.margin))
    assert max(grid.piece) <= tile
    if fixed or square:
        assert grid.tile[0] == grid.tile[1]
    seen = np.zeros(size[::-1], int)
    for left, top in grid:
        part, x, y = grid.kept(np.ones(grid.piece[::-1], int), left, top, Scale(1))
        seen[y : y + part.shape[0], x : x + part.shape[1]] += part
    assert (seen == 1).all()
    assert len(grid) == len(list(grid))


@pytest.mark.parametrize("size", [(150, 97), (61, 140)])
def test_a_real_network_leaves_no_seam(size):
    scale = Scale(3, 2)
    run = load_engine(card := find_model("fast", scale), precision="fp32")
    lr = picture(*size)[..., 1]
    halo = card.receptive_field // 2 + card.multiple
    parts, one = (tiled(run, lr, scale=scale, multiple=card.multiple, halo=halo, tile=tile) for tile in (48, 1000))
    assert np.abs(parts.astype(int) - one).max() <= 1
    assert parts.dtype == np.uint8
