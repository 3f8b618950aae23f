"""Quantisers as decoders tell them, and what they mean."""

from fractions import Fraction

import numpy as np
import pytest

from imagesr.media.clips import compressed
from imagesr.media.frames import Frame, plane
from imagesr.media.quantiser import lost, quantiser_of, step_of


def frames(count=3):
    random = np.random.default_rng(0)
    for _ in range(count):
        frame = Frame(64, 64, "yuv420p")
        plane(frame, 0)[:] = random.integers(60, 190, (64, 64))
        plane(frame, 1)[:] = plane(frame, 2)[:] = 128
        yield frame


@pytest.mark.parametrize("quantiser", [20, 38])
def test_h264_tells_its_quantiser(quantiser):
    options = {"qp": str(quantiser), "x264-params": "ipratio=1:pbratio=1", "threads": "1"}
    told = [quantiser_of(frame) for frame in compressed(frames(), "libx264", options, Fraction(25), tells=True)]
    assert told == pytest.approx([quantiser] * 3, abs=0.5)


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg4"])
def test_mpeg_tells_twice_its_quantiser(codec):
    options = {"qmin": "6", "qmax": "6"}
    told = [quantiser_of(frame) for frame in compressed(frames(), codec, options, Fraction(25), tells=True)]
    assert told[0] == 12


def test_a_decoder_that_is_not_asked_tells_none():
    assert {quantiser_of(frame) for frame in compressed(frames(), "libx264", {"qp": "30"}, Fraction(25))} == {None}


def test_equal_steps_mean_an_equal_loss():
    assert lost(step_of("h264", 30)) == pytest.approx(0.5)
    assert lost(step_of("mpeg2video", 20)) == pytest.approx(0.5)
    assert (lost(step_of("h264", 0)), lost(step_of("h264", 51))) == (0, 1)
