"""Time: where it begins, how it goes on, and what counts as damage; read back by ffmpeg."""

from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import ffmpeg, frame_times, packet_hashes, run_video, write_clip

import imagesr
from imagesr.media import source as module
from imagesr.media.frames import fitted
from imagesr.media.source import Source


def steps(path):
    times, _ = frame_times(path)
    return np.diff([float(time) for time in times])


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """Return a clip of one second with sound."""
    return write_clip(tmp_path_factory.mktemp("second") / "in.mp4", frames=25, size=(96, 64))


@pytest.mark.parametrize(
    ("suffix", "offset"), [(".ts", 40_000), (".mkv", 3600), (".mpg", 20_000), (".flv", 500), (".mp4", 100)]
)
def test_a_clock_that_begins_anywhere_begins_at_zero(tmp_path, second, suffix, offset):
    source = tmp_path / f"in{suffix}"
    codec = ["-c:v", "mpeg2video", "-c:a", "mp2"] if suffix == ".mpg" else ["-c", "copy"]
    ffmpeg("-i", second, *codec, "-output_ts_offset", offset, "-copyts", source)
    report = imagesr.upscale_video(source, tmp_path / "out.mkv", model="lanczos")
    with av.open(report.output) as container:
        assert container.start_time < 100_000
        assert 900_000 < container.duration < 1_200_000
    assert frame_times(report.output)[0][0] < 0.1


@pytest.mark.parametrize("suffix", [".ts", ".vob"])
@pytest.mark.parametrize("later", [0, 5000])
def test_a_clock_that_begins_anew_goes_on(tmp_path, second, suffix, later):
    parts = []
    for i in range(2):
        codec = ["-c", "copy"] if suffix == ".ts" else ["-c:v", "mpeg2video", "-c:a", "mp2"]
        ffmpeg("-i", second, *codec, "-output_ts_offset", i * later, tmp_path / f"{i}{suffix}")
        parts.append((tmp_path / f"{i}{suffix}").read_bytes())
    source = tmp_path / f"in{suffix}"
    source.write_bytes(b"".join(parts))
    report = imagesr.upscale_video(source, tmp_path / "out.mkv", model="lanczos")
    assert 49 <= report.frames <= 50
    assert steps(report.output).min() > 0.02
    assert steps(report.output).max() < 0.15
    with av.open(report.output) as container:
        assert 1_900_000 < container.duration < 2_300_000
    assert len(packet_hashes(report.output)) > 0.95 * 2 * len(packet_hashes(tmp_path / f"0{suffix}"))
    assert not report.missing


@pytest.mark.parametrize("rate", ["30000/1001", "24", "50"])
@pytest.mark.parametrize(("codec", "raw"), [("libx264", "264"), ("libx265", "hevc"), ("mpeg2video", "m2v")])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_raw_streams_have_the_rate_of_their_codec(tmp_path, rate, codec, raw, suffix):
    source = tmp_path / f"in.{raw}"
    quiet = ["-x265-params", "log-level=error"] if codec == "libx265" else []
    ffmpeg("-f", "lavfi", "-i", f"testsrc=s=96x64:r={rate}:d=0.5", "-pix_fmt", "yuv420p", "-c:v", codec, *quiet, source)
    report = imagesr.upscale_video(source, tmp_path / f"out{suffix}", model="lanczos")
    step = float(1 / Fraction(rate))
    assert np.abs(steps(report.output) - step).max() <= 0.0011
    with av.open(report.output) as container:
        assert abs(container.duration / 1e6 - report.frames * step) < 0.02


def packed(path, clip):
    """Write MPEG-4 with B-frames to an AVI as DivX did: P and B in one chunk, an empty frame later."""
    ffmpeg("-i", clip, "-c:v", "mpeg4", "-bf", "2", "-b_strategy", "0", "-q:v", "3", "-an", path.with_suffix(".mp4"))
    with av.open(str(path.with_suffix(".mp4"))) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream, opaque=True)
        copy.time_base = Fraction(1, 25)
        coded = [bytes(packet) for packet in source.demux(stream) if packet.size]
        header = b"\x00\x00\x01\xb2DivX503b1393p\x00" + bytes(stream.codec_context.extradata or b"")
        chunks = [header + coded[0]]
        empty = b"\x00\x00\x01\xb6\x56\xc0\x00"
        for i in range(1, len(coded) - 2, 3):
            chunks += [coded[i] + coded[i + 1], coded[i + 2], empty]
        for i, chunk in enumerate(chunks):
            packet = av.Packet(chunk)
            packet.stream, packet.pts, packet.dts, packet.time_base = copy, i, i, Fraction(1, 25)
            target.mux(packet)
    return path


def test_packed_b_frames_have_even_steps(tmp_path, second):
    source = packed(tmp_path / "in.avi", second)
    done = run_video(source, tmp_path / "out.mp4", "-n", "lanczos")
    assert done.returncode == 0, done.stderr
    assert len(steps(tmp_path / "out.mp4")) >= 22
    assert np.abs(steps(tmp_path / "out.mp4") - 0.04).max() < 1e-4


def test_empty_chunks_of_an_avi_repeat_the_frame_before(tmp_path, second):
    source = tmp_path / "in.avi"
    with av.open(str(second)) as clip, av.open(str(source), "w") as target:
        stream = target.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i, frame in enumerate(clip.decode(video=0)):
            if i not in (3, 4, 10):
                frame.pts, frame.time_base, frame.pict_type = i, Fraction(1, 25), 0
                target.mux(stream.encode(frame))
        target.mux(stream.encode())
    done = run_video(source, tmp_path / "out.mp4", "-n", "lanczos")
    assert done.returncode == 0, done.stderr
    assert len(steps(tmp_path / "out.mp4")) == 24
    assert np.abs(steps(tmp_path / "out.mp4") - 0.04).max() < 1e-4


def test_a_long_gap_of_an_avi_is_filled_one_frame_at_a_time(tmp_path, monkeypatch):
    source = tmp_path / "in.avi"
    with av.open(str(source), "w") as target:
        stream = target.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for pts in (0, 1, 400):
            frame = av.VideoFrame(640, 480, "yuv420p")
            frame.pts, frame.time_base = pts, Fraction(1, 25)
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    made = []
    monkeypatch.setattr(module, "fitted", lambda *arguments: made.append(0) or fitted(*arguments))
    with Source(source) as frames:
        for number, frame in enumerate(frames):
            assert round(frame.time * 25) == number
            assert len(made) <= number
    assert number == 400


@pytest.mark.parametrize("codec", ["mjpeg", "mpeg4"])  # MPEG-4's frames can be decoded in parallel
def test_packets_of_an_avi_that_cannot_be_decoded_move_no_later_frame(tmp_path, codec):
    source, bad = tmp_path / "in.avi", (3, 8, 9, 15, 20, 21, 30, 37)
    how = ["-c:v", codec, "-g", 1]
    ffmpeg("-f", "lavfi", "-i", "nullsrc=s=96x64:r=25:d=1.6,geq=lum='20+5*N':cb=128:cr=128", *how, source)
    content = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux() if packet.size]
    for number in bad:
        at = content.index(packets[number])
        content[at : at + len(packets[number])] = bytes(len(packets[number]))
    source.write_bytes(content)
    with Source(source, threads=4) as frames:
        found = {round(frame.time * 25): frame.to_ndarray(format="gray").mean() for frame in frames}
    assert sorted(found) == list(range(40))
    for number in set(found) - set(bad):
        assert found[number] == pytest.approx((5 * number + 4) * 255 / 219, abs=4), number


def test_two_frames_per_second_with_b_frames_are_whole(tmp_path):
    source = tmp_path / "in.mp4"
    slow = "testsrc=s=64x64:r=2:d=5"
    ffmpeg("-f", "lavfi", "-i", slow, "-c:v", "libx264", "-bf", "2", "-pix_fmt", "yuv420p", source)
    assert run_video(source, tmp_path / "out.mp4", "-n", "lanczos").returncode == 0


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
def test_a_start_within_an_open_group_of_pictures_is_no_damage(tmp_path, codec):
    source, moving = tmp_path / "in.mkv", "testsrc2=s=96x64:r=25:d=4"
    how = {"libx264": ["-x264-params", "open-gop=1:keyint=25:bframes=3:b-adapt=0:scenecut=0"]}
    how["libx265"] = ["-x265-params", "open-gop=1:keyint=25:bframes=3:log-level=error"]
    how["mpeg2video"] = ["-bf", "2", "-g", "12"]
    ffmpeg("-f", "lavfi", "-i", moving, "-pix_fmt", "yuv420p", "-c:v", codec, *how[codec], source)
    for start in ("0.9", "1", "2.04"):
        done = run_video(source, tmp_path / "out.mp4", "-n", "lanczos", "-y", "--start", start, "--duration", "0.5")
        assert done.returncode == 0, done.stderr
        assert len(frame_times(tmp_path / "out.mp4")[0]) in (12, 13)


def test_frames_that_an_edit_list_leaves_out_are_no_damage(tmp_path):
    whole = write_clip(tmp_path / "whole.mp4", frames=50, size=(96, 64), options={"g": "25"})
    ffmpeg("-ss", "0.5", "-i", whole, "-t", "0.8", "-c", "copy", tmp_path / "in.mp4")
    done = run_video(tmp_path / "in.mp4", tmp_path / "out.mp4", "-n", "lanczos")
    assert done.returncode == 0, done.stderr


def test_a_recording_that_begins_within_a_group_of_pictures_is_no_damage(tmp_path):
    moving = "testsrc2=s=96x64:r=25:d=2"
    open_gop = "open-gop=1:keyint=25:bframes=3:b-adapt=0:scenecut=0"
    whole = tmp_path / "whole.ts"
    ffmpeg("-f", "lavfi", "-i", moving, "-pix_fmt", "yuv420p", "-c:v", "libx264", "-x264-params", open_gop, whole)
    content = whole.read_bytes()
    cut = len(content) // 188 * 30 // 100 * 188
    head = content[: 188 * 3]  # the tables that say what is in it
    (tmp_path / "in.ts").write_bytes(head + content[cut:])
    done = run_video(tmp_path / "in.ts", tmp_path / "out.mp4", "-n", "lanczos")
    assert done.returncode == 0, done.stderr


def test_a_start_beyond_the_end_says_how_long_the_video_is(tmp_path, second):
    done = run_video(second, tmp_path / "out.mp4", "-n", "lanczos", "--start", "1:00")
    assert done.returncode == 3
    assert "1.0 s long" in done.stderr


def test_a_duration_is_the_films_where_the_sound_runs_ahead(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", frames=100, size=(96, 64))
    source = tmp_path / "in.mkv"
    with av.open(str(clip)) as whole, av.open(str(source), "w", options={"max_interleave_delta": "1"}) as target:
        streams = {stream: target.add_stream_from_template(stream) for stream in whole.streams}
        packets = [packet for packet in whole.demux() if packet.size]
        for packet in sorted(packets, key=lambda packet: packet.stream.type):  # all the sound comes first
            packet.stream = streams[packet.stream]
            target.mux(packet)
    with Source(source, duration=1.0) as read:
        items = list(read)
    frames = [item for item in items if isinstance(item, av.VideoFrame)]
    assert len(frames) == 25
    sound = [item for item in items if isinstance(item, av.Packet)]
    assert 0.9 < max(packet.pts * packet.time_base for packet in sound) < 1.0


@pytest.mark.parametrize("offset", [0.5, 1000])
def test_a_matroska_file_whose_clock_begins_late_is_not_damaged(tmp_path, second, offset):
    source = tmp_path / "in.mkv"
    ffmpeg("-i", second, "-c", "copy", "-output_ts_offset", offset, source)
    report = imagesr.upscale_video(source, tmp_path / "out.mkv", model="lanczos")
    assert not report.missing
    assert report.video_s == pytest.approx(1, abs=0.05)
    with Source(source) as read:
        assert read.info.duration == pytest.approx(1, abs=0.1)
