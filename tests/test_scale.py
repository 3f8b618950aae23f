from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesr.scale import Scale


@pytest.mark.parametrize("value", ["3/2", "1.5", 1.5, Fraction(3, 2), Scale(3, 2), Scale(6, 4), " 1.5 "])
def test_parse_reads_every_way_to_write_three_halves(value):
    assert Scale.parse(value) == Scale(3, 2)


@pytest.mark.parametrize("value", ["", "two", "1/0", 0, -2, "nan", "inf", None])
def test_parse_refuses_what_is_no_scale(value):
    with pytest.raises(ValueError, match=r"^Expected .* Received: "):
        Scale.parse(value)


def test_decimals_mean_what_they_say():
    assert Scale.parse(1.1) == Scale(11, 10)


@given(up=st.integers(1, 64), down=st.integers(1, 64))
def test_text_reads_back(up, down):
    assert Scale.parse(str(Scale(up, down))) == Scale(up, down)


@given(length=st.integers(1, 10_000), up=st.integers(1, 8), down=st.integers(1, 8))
def test_grow_is_the_nearest_integer_ties_up(length, up, down):
    grown, exact = Scale(up, down).grow(length), Fraction(length * up, down)
    assert Fraction(-1, 2) < grown - exact <= Fraction(1, 2)


@given(a=st.integers(1, 9), b=st.integers(1, 9), c=st.integers(1, 9), d=st.integers(1, 9))
def test_scales_compose(a, b, c, d):
    assert float(Scale(a, b) * Scale(c, d)) == pytest.approx(float(Scale(a, b)) * float(Scale(c, d)))
