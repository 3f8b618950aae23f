"""Real clips from cameras, phones and encoders of all kinds, where the shared data is at hand."""

import av
import pytest
from conftest import packet_hashes, run_video
from test_video import assert_refused, assert_same_film, probe

import imagesr

WHOLE = {
    "02_cups.mp4": "mp4",
    "04_coffee.mp4": "mp4",
    "VID_1920x1080_cavlc_temporal_direct.264": "mp4",
    "cockatoo.mp4": "mp4",
    "cockatoo_yuv420.mp4": "mkv",
    "hlg10-color-test.mp4": "mp4",
    "roadtrip-vp92-10bit.webm": "webm",
    "rotate-buck-bunny.mp4": "mp4",
    "small_bunny_1080p_30fps.mp4": "mp4",
    "sowt-with-video.mov": "mov",
}


# The default run has one of a phone that is turned, one of VP9 with 10 bits, and one of ProRes or the like.
SHORT = {"rotate-buck-bunny.mp4", "roadtrip-vp92-10bit.webm", "sowt-with-video.mov"}


@pytest.mark.parametrize(
    ("name", "suffix"),
    [pytest.param(*item, marks=[pytest.mark.slow] * (item[0] not in SHORT)) for item in WHOLE.items()],
)
def test_a_real_clip_is_the_same_but_larger(data, tmp_path, name, suffix):
    source = data / "clips" / name
    report = imagesr.upscale_video(source, tmp_path / f"out.{suffix}", model="fast", preset="ultrafast")
    with av.open(str(source)) as before, av.open(report.output) as after:
        a, b = before.streams.video[0], after.streams.video[0]
        for old, new in ((a.width, b.width), (a.height, b.height)):
            assert new == 2 * int(old * 0.75 + 0.5)
        assert len(before.streams.audio) == len(after.streams.audio)
        tags = ("colorspace", "color_trc", "color_primaries")
        assert [getattr(a.codec_context, t) for t in tags] == [getattr(b.codec_context, t) for t in tags]
        assert a.codec_context.sample_aspect_ratio in (b.codec_context.sample_aspect_ratio, None)
        assert next(before.decode(video=0)).rotation == next(after.decode(video=0)).rotation
    pix_fmt = probe(source)[2].replace("yuvj", "yuv")
    assert probe(report.output)[2].replace("yuvj", "yuv") == pix_fmt
    assert_same_film(source, report.output, pix_fmt=pix_fmt, times=source.suffix != ".264")
    assert not report.dropped
    assert not report.missing


def test_a_corrupted_clip(data, tmp_path):
    done = run_video(data / "clips" / "corrupted.mp4", tmp_path / "out.mp4")
    assert done.returncode == 5, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "missing" in done.stderr


def test_a_malformed_file(data, tmp_path):
    done = run_video(data / "clips" / "sample_malformed_free_box.mp4", tmp_path / "out.mp4")
    assert_refused(done, 3, tmp_path, [], "Cannot read")


def test_an_interlaced_clip(data, tmp_path):
    report = imagesr.upscale_video(data / "clips" / "test1.mp4", tmp_path / "out.mp4", model="lanczos")
    assert report.frames == 21
    assert any("flagged as interlaced, but its frames are progressive" in note for note in report.notes)
    assert packet_hashes(data / "clips" / "test1.mp4") == packet_hashes(tmp_path / "out.mp4")
