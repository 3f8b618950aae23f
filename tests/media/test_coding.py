"""What is found out about a source: its quantiser, its noise, and the one number that follows."""

import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import picture, write_clip
from PIL import Image

from imagesr.datasets.degradations import rounded
from imagesr.media.coding import (
    NOISE,
    Coding,
    _quantiser_by_bits,
    examine_film,
    h264_step,
    lost,
    noise_of,
)
from imagesr.media.photo_coding import examine_photo, jpeg_step


def noisy(sigma, size=(256, 192)):
    """Return a smooth slope with noise on it."""
    slope = np.linspace(60, 180, size[0])[np.newaxis] + np.zeros((size[1], 1))
    return np.clip(np.rint(slope + np.random.default_rng(0).normal(0, sigma, slope.shape)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("crf", [18, 34])
def test_the_quantiser_of_h264_is_read(crf, tmp_path):
    write_clip(tmp_path / "in.mp4", frames=30, options={"crf": str(crf)})
    found = examine_film(tmp_path / "in.mp4")
    assert found.codec == "H.264" and not found.estimated
    assert abs(found.quantiser - crf) < 5
    assert found.clean == round(max(0, found.quantiser - 16) / 28, 2)
    assert re.fullmatch(r"clean 0\.?\d* \(H\.264, quantiser \d+; noise \d\.\d\)", str(found))
    assert examine_film(tmp_path / "in.mp4") == found


@pytest.mark.parametrize(("codec", "name"), [("mpeg2video", "MPEG-2"), ("mpeg4", "MPEG-4")])
@pytest.mark.parametrize("q", [3, 12])
def test_the_quantisers_of_the_older_codecs_are_steps(codec, name, q, tmp_path):
    write_clip(tmp_path / "in.mkv", frames=13, codec=codec, options={"qmin": str(q), "qmax": str(q)})
    found = examine_film(tmp_path / "in.mkv")
    assert found.codec == name
    assert abs(found.quantiser - 6 * np.log2(2 * q / 0.625)) < 1


def by_bits(codec, kilobits, **more):
    """Return the quantiser that 720p at 30 frames a second is thought to have."""
    context = SimpleNamespace(width=1280, height=720)
    stream = SimpleNamespace(codec_context=context, average_rate=30, bit_rate=kilobits * 1000)
    container = SimpleNamespace(**{"duration": None, "size": 0, "streams": SimpleNamespace(audio=[])} | more)
    return _quantiser_by_bits(container, stream, codec)


def test_codecs_that_do_not_tell_are_judged_by_their_bits():
    assert by_bits("hevc", 1327) == pytest.approx(25, abs=0.1)
    assert by_bits("hevc", 1327 / 4) == pytest.approx(37, abs=0.1)
    assert by_bits("vp8", 1327) > 29
    assert by_bits("prores", 60_000) < 16
    assert by_bits("hevc", 0) is None
    silent = SimpleNamespace(audio=[SimpleNamespace(bit_rate=0)])  # of the whole file, without its sound
    assert by_bits("hevc", 0, duration=10_000_000, size=1_818_750, streams=silent) == pytest.approx(25, abs=0.1)


def test_a_film_without_an_index_is_seen_from_its_beginning(tmp_path):
    write_clip(tmp_path / "in.h264", frames=20, sound=None, options={"crf": "30"})
    assert abs(examine_film(tmp_path / "in.h264").quantiser - 30) < 5


def test_of_what_is_no_film_nothing_is_known(tmp_path):
    (tmp_path / "in.mp4").write_bytes(b"nothing")
    assert str(examine_film(tmp_path / "in.mp4")) == "clean 0 (nothing is known)"


@pytest.mark.parametrize("sigma", [1, 3, 6, 12])
def test_noise_is_measured_on_flat_parts(sigma):
    luma = noisy(sigma)
    luma[:, :100] = np.random.default_rng(1).integers(0, 2, (192, 100)) * 180 + 40  # texture
    luma[:32] = 16  # a black bar
    assert noise_of(luma) == pytest.approx(sigma, rel=0.2, abs=0.2)


def test_a_picture_without_flat_parts_has_no_noise_to_measure():
    assert noise_of(np.zeros((100, 100), np.uint8)) is None
    assert noise_of(np.zeros((9, 9), np.uint8)) is None


def test_the_grain_of_a_good_source_stays():
    assert Coding("H.264", 16, NOISE).clean == 0
    assert Coding("H.264", 16, 6).clean > 0.4
    assert Coding("H.264", 60, 0.5).clean == 1


def test_a_jpeg_tells_its_quantiser():
    steps = {}
    for quality in (30, 90):
        file = io.BytesIO()
        Image.fromarray(picture(64, 48)).save(file, "jpeg", quality=quality)
        steps[quality] = jpeg_step(file.getvalue())
        assert examine_photo(file.getvalue(), None).codec == "JPEG"
    table = Image.open(file).quantization[0]
    assert min(table) <= steps[90] <= max(table) and steps[30] > 5 * steps[90]


TABLE = b"\xff\xd8\xff\xdb\x00\x43"
BROKEN = [b"", TABLE[:2], TABLE[:5], TABLE + b"\x10abc", b"\x89PNG", TABLE[:2] + 9 * b"\xff"]


@pytest.mark.parametrize("file", BROKEN)
def test_a_file_that_breaks_off_has_no_step(file):
    assert jpeg_step(file) is None


@pytest.mark.parametrize("quality", [25, 50, 75])
def test_a_jpeg_is_rounded_by_the_step_that_training_takes_it_for(quality):
    Image.new("L", (16, 16)).save(file := io.BytesIO(), "JPEG", quality=quality)
    assert rounded("jpeg", quality) == pytest.approx(jpeg_step(file.getvalue()), rel=0.02)


def test_equal_steps_are_an_equal_loss():
    assert lost(h264_step(30)) == lost(20) == pytest.approx(0.5)
    assert (lost(h264_step(0)), lost(h264_step(51))) == (0, 1)
    assert lost(4 * 12**0.5) == pytest.approx(lost(h264_step(6 * np.log2(4 * 12**0.5 / 0.625))))
