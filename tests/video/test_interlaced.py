"""Interlaced and telecined video: what is done with it, and that no comb is left."""

from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import ffmpeg, frame_times

import imagesr
from imagesr.errors import InputError
from imagesr.media.source import Source

# A bar that moves by some pixels a frame, so that combs are wide.
MOVING = (
    "nullsrc=s=192x112:r={rate}:d={seconds},"
    "geq=lum='60+160*between(X,mod(N*{step},150),mod(N*{step},150)+30)*between(Y,16,96)':cb=128:cr=128"
)


def moving(rate, step, seconds=1.6):
    return ["-f", "lavfi", "-i", MOVING.format(rate=rate, step=step, seconds=seconds)]


def mpeg2(path, *filters, flags=True, source=None):
    """Write MPEG-2 as DVDs have it, flagged as interlaced where asked."""
    interlaced = ["-flags", "+ildct+ilme"] if flags else []
    chain = ["-vf", ",".join(filters)] if filters else []
    ffmpeg("-y", *(source or moving(50, 6)), *chain, "-c:v", "mpeg2video", "-q:v", "2", *interlaced, path)
    return path


def combs(path):
    """Return how much the lines of each frame alternate where neighbouring frames show that they should not."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="gray").astype(int) for frame in container.decode(video=0)]
    found = []
    for frame in frames:
        odd = np.abs(frame[1:-1] - (frame[:-2] + frame[2:]) / 2)
        even = np.abs(frame[:-2] - frame[2:])
        found.append(((odd > 40) & (even < 15)).mean())
    return np.array(found)


INTERLACE = "interlace=scan=tff:lowpass=0"


def test_interlaced_becomes_one_frame_for_each(tmp_path):
    source = mpeg2(tmp_path / "in.vob", INTERLACE)
    assert combs(source).mean() > 0.01
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="fast")
    assert combs(report.output).max() < 0.001
    assert abs(report.frames - 40) <= 1
    assert any(note.startswith("deinterlaced, one frame for each: it is interlaced") for note in report.notes)
    assert any("--deinterlace field" in note for note in report.notes)


def test_every_field_becomes_a_frame(tmp_path):
    source = mpeg2(tmp_path / "in.mpg", INTERLACE)
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos", deinterlace="field")
    assert combs(report.output).max() < 0.001
    assert abs(report.frames - 80) <= 2
    times, _ = frame_times(report.output)
    assert np.diff([float(time) for time in times]) == pytest.approx(0.02, abs=1e-4)


@pytest.mark.parametrize("mode", ["auto", "film"])
def test_telecine_becomes_film(tmp_path, mode):
    film = moving("24000/1001", 5, 4)
    source = mpeg2(tmp_path / "in.vob", "telecine=first_field=top:pattern=23", source=film)
    assert combs(source).mean() > 0.003
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos", deinterlace=mode)
    assert any("telecine" in note for note in report.notes)
    assert combs(report.output).max() < 0.001
    times, _ = frame_times(report.output)
    assert np.median(np.diff([float(time) for time in times])) == pytest.approx(1001 / 24000, abs=1e-3)
    assert abs(report.frames - 95) <= 2
    with av.open(report.output) as container:
        assert container.streams.video[0].average_rate == pytest.approx(Fraction(24000, 1001), rel=0.02)


def test_progressive_frames_under_interlaced_flags_pass(tmp_path):
    source = mpeg2(tmp_path / "in.vob", "setfield=tff", source=moving(25, 6))
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos")
    assert any("its frames are progressive" in note for note in report.notes)
    assert 39 <= report.frames <= 40


def test_a_change_to_interlaced_on_the_way_is_seen(tmp_path):
    first = mpeg2(tmp_path / "a.mpg", flags=False, source=moving(25, 6, 0.56))
    second = mpeg2(tmp_path / "b.mpg", INTERLACE, source=moving(50, 6, 1))
    source = tmp_path / "in.vob"
    source.write_bytes(first.read_bytes() + second.read_bytes())
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos")
    assert any("it becomes interlaced on the way" in note for note in report.notes)
    assert combs(report.output).max() < 0.001
    assert report.frames >= 37
    with Source(source) as read:
        frames = [frame for frame in read if isinstance(frame, av.VideoFrame)]
        assert {frame.time_base for frame in frames} == {read.info.time_base}
    with av.open(report.output) as container:
        lengths = [float(packet.duration * packet.time_base) for packet in container.demux(video=0) if packet.size]
    assert np.median(lengths) == pytest.approx(0.04, abs=1e-3)
    assert np.mean(np.abs(np.array(lengths) - 0.04) < 1e-3) > 0.9, lengths


def test_filters_that_fail_are_one_line(tmp_path, monkeypatch):
    source = mpeg2(tmp_path / "in.vob", INTERLACE)
    monkeypatch.setattr("imagesr.media.source.filters_of", lambda verdict: [("scale", "w=0.5:h=nothing")])
    with pytest.raises(InputError, match=r"in\.vob"):
        list(Source(source))


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
def test_interlaced_h264(tmp_path, suffix):
    source = tmp_path / f"in{suffix}"
    ffmpeg(*moving(50, 6), "-vf", INTERLACE, "-c:v", "libx264", "-flags", "+ildct+ilme", "-pix_fmt", "yuv420p", source)
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos")
    assert combs(report.output).max() < 0.001
    assert 39 <= report.frames <= 40


@pytest.mark.parametrize("scan", ["tff", "bff"])
def test_interlaced_frames_without_flags_are_seen(tmp_path, scan):
    source, larger = tmp_path / "in.avi", [*moving(50, 6)[:3], moving(50, 6)[3].replace("192x112", "320x480")]
    ffmpeg(*larger, "-vf", f"interlace=scan={scan}:lowpass=0,setfield=prog", "-c:v", "mpeg4", "-q:v", "2", source)
    assert combs(source).mean() > 0.001
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos")
    assert any("not flagged as interlaced, but" in note for note in report.notes)
    assert combs(report.output).max() < 0.001


def test_off_leaves_it_as_it_is_and_says_so(tmp_path):
    source = mpeg2(tmp_path / "in.vob", INTERLACE)
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos", scale=1, deinterlace="off", crf=5)
    assert combs(report.output).mean() > 0.01
    assert any("not deinterlaced, as asked" in note for note in report.notes)
