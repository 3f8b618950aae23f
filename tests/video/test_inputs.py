"""Inputs by kind, as people have them: SD, camcorders, broadcasts, animations, numbered pictures, pipes."""

import subprocess
import sys

import av
import numpy as np
import pytest
from conftest import ffmpeg, frame_times, picture, run_video
from PIL import Image

import imagesr
from imagesr.errors import InputError

PAL, TONE = ["-f", "lavfi", "-i", "testsrc2=s=720x576:r=25:d=0.4"], ["-f", "lavfi", "-i", "sine=d=0.4:r=48000"]
SMALL = ["-f", "lavfi", "-i", "testsrc2=s=176x144:r=25:d=0.4"]
NTSC = ["-f", "lavfi", "-i", "testsrc2=s=720x480:r=30000/1001:d=0.4"]
MPEG2 = ["-c:v", "mpeg2video", "-c:a", "ac3"]
KINDS = {
    "in.vob": [*PAL, *TONE, *MPEG2, "-aspect", "16:9"],
    "in.mpg": [*NTSC, *TONE, "-c:v", "mpeg2video", "-c:a", "mp2", "-aspect", "4:3"],
    "in.m2ts": [*SMALL, *TONE, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "ac3", "-mpegts_m2ts_mode", "1"],
    "in.mts": [*SMALL, *TONE, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "ac3", "-f", "mpegts"],
    "in.avi": [*SMALL, *TONE, "-c:v", "mpeg4", "-c:a", "libmp3lame"],
    "mjpeg.avi": [*SMALL, *TONE, "-c:v", "mjpeg", "-pix_fmt", "yuvj422p", "-c:a", "pcm_s16le"],
    "in.wmv": [*SMALL, *TONE, "-c:v", "wmv2", "-c:a", "wmav2"],
    "in.flv": [*SMALL, *TONE, "-c:v", "flv", "-c:a", "libmp3lame", "-ar", "44100"],
    "in.3gp": [*SMALL, *TONE, "-c:v", "h263", "-c:a", "aac"],
    "in.dv": [*PAL, *TONE, "-c:v", "dvvideo", "-c:a", "pcm_s16le", "-pix_fmt", "yuv420p", "-ar", "48000", "-ac", "2"],
    "in.ogv": [*SMALL, *TONE, "-c:v", "libtheora", "-c:a", "libvorbis"],
    "in.webm": [*SMALL, *TONE, "-c:v", "libvpx-vp9", "-c:a", "libopus"],
    "in.y4m": [*SMALL, "-pix_fmt", "yuv420p"],
    "in.gif": ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=10:d=1"],
    "in.mov": [*SMALL, *TONE, "-c:v", "prores_ks", "-c:a", "pcm_s16le"],
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(tmp_path, name):
    source = tmp_path / name
    ffmpeg(*KINDS[name], source)
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos", size=(1280, 720))
    with av.open(str(source)) as before, av.open(report.output) as after:
        frames = sum(1 for _ in before.decode(video=0))
        assert abs(report.frames - frames) <= 1
        assert len(before.streams.audio) == len(after.streams.audio)
        stream = after.streams.video[0]
        shape = before.streams.video[0].sample_aspect_ratio or 1
        assert (stream.sample_aspect_ratio or 1) == shape
        assert stream.width * shape <= 1281
        assert stream.height == 720 or abs(stream.width * shape - 1280) <= 2
    assert not report.missing
    steps = np.diff([float(time) for time in frame_times(report.output)[0]])
    assert steps.max() - steps.min() < 0.003


def test_square_pixels_of_a_dvd(tmp_path):
    ffmpeg(*KINDS["in.vob"], tmp_path / "in.vob")
    report = imagesr.upscale_video(
        tmp_path / "in.vob", tmp_path / "out.mp4", model="fast", size=(1920, 1080), square=True
    )
    assert report.size == "720x576 to 1920x1080"


def test_animated_webp(tmp_path):
    frames = [Image.new("RGB", (96, 64), (250, 20 * i, 0)) for i in range(8)]
    durations = [100, 100, 300, 100, 100, 100, 50, 100]
    frames[0].save(tmp_path / "in.webp", save_all=True, append_images=frames[1:], duration=durations, lossless=True)
    report = imagesr.upscale_video(tmp_path / "in.webp", tmp_path / "out.mp4", model="lanczos", crf=4)
    assert report.frames == 8
    times = [float(time) for time in frame_times(report.output)[0]]
    assert np.diff(times) == pytest.approx(np.array(durations[:-1]) / 1000, abs=2e-3)
    with av.open(report.output) as container:
        red = [frame.to_ndarray(format="rgb24")[48, 72] for frame in container.decode(video=0)]
    assert abs(int(red[7][1]) - 140) < 8


def test_numbered_pictures(tmp_path):
    for i in range(7, 17):
        Image.new("RGB", (95, 63), (200, 10 * i, 30)).save(tmp_path / f"{i:05d}.png")
    done = run_video(tmp_path / "%05d.png", tmp_path / "out.mp4", "--rate", "24", "-n", "lanczos", "--crf", "4")
    assert done.returncode == 0, done.stderr
    assert "note: RGB becomes yuv420p, which all players show; --pix-fmt yuv444p keeps" in done.stdout
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.pix_fmt, stream.width, stream.height) == ("yuv420p", 142, 94)
    times = [float(time) for time in frame_times(tmp_path / "out.mp4")[0]]
    assert len(times) == 10
    assert np.diff(times) == pytest.approx(1 / 24, abs=1e-4)
    done = run_video(tmp_path / "%05d.png", tmp_path / "444.mp4", "-n", "lanczos", "--pix-fmt", "yuv444p")
    with av.open(str(tmp_path / "444.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.pix_fmt, stream.width, stream.height) == ("yuv444p", 143, 95)
    assert "note: RGB" not in done.stdout
    done = run_video(tmp_path / "x%05d.png", tmp_path / "other.mp4", "-n", "lanczos")
    assert done.returncode == 3
    assert "x%05d.png" in done.stderr


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "gray", "yuv420p10le"])
def test_pipes(tmp_path, pix_fmt):
    source = tmp_path / "in.y4m"
    ffmpeg(*SMALL, "-pix_fmt", pix_fmt, "-strict", "-1", source)
    command = [sys.executable, "-m", "imagesr.video", "-", "-", "-n", "lanczos"]
    done = subprocess.run(command, input=source.read_bytes(), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (tmp_path / "out.y4m").write_bytes(done.stdout)
    with av.open(str(tmp_path / "out.y4m")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (264, 216, 25)
        after = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
        assert stream.codec_context.pix_fmt == pix_fmt
    with av.open(str(source)) as container:
        before = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert len(before) == len(after) == 10
    assert abs(before[3].mean() - after[3].mean()) < 1


def test_a_pipe_into_a_file_and_a_file_into_a_pipe(tmp_path):
    ffmpeg(*SMALL, "-pix_fmt", "yuv420p", tmp_path / "in.y4m")
    command = [sys.executable, "-m", "imagesr.video", "-", tmp_path / "out.mp4", "-n", "fast"]
    with (tmp_path / "in.y4m").open("rb") as file:
        assert subprocess.run(command, stdin=file, capture_output=True, timeout=300).returncode == 0
    assert len(frame_times(tmp_path / "out.mp4")[0]) == 10
    command = [sys.executable, "-m", "imagesr.video", tmp_path / "out.mp4", "-", "-n", "lanczos", "-s", "2"]
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert done.stdout.startswith(b"YUV4MPEG2 W528 H432 F25:1")


def test_a_reader_that_goes_away_is_one_line(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=4", "-pix_fmt", "yuv420p", tmp_path / "in.y4m")
    command = [sys.executable, "-m", "imagesr.video", tmp_path / "in.y4m", "-", "-n", "lanczos"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1000)
        process.stdout.close()
        assert process.wait(timeout=300) == 4
        assert len(process.stderr.read().decode().strip().splitlines()) == 1


def test_pictures_with_exif_are_frames(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    for number in range(3):
        Image.fromarray(picture(96, 64, shift=number)).save(tmp_path / f"{number}.jpg", exif=exif)
    report = imagesr.upscale_video(tmp_path / "%d.jpg", tmp_path / "out.mp4", model="lanczos", rate=25)
    assert report.frames == 3
    ffmpeg("-framerate", 25, "-i", tmp_path / "%d.jpg", "-c:v", "tiff", tmp_path / "in.mov")
    assert imagesr.upscale_video(tmp_path / "in.mov", tmp_path / "tiff.mp4", model="lanczos").frames == 3


def test_a_picture_is_said_to_be_one(tmp_path):
    Image.fromarray(picture(96, 64)).save(tmp_path / "in.png")
    with pytest.raises(InputError, match="imagesr image"):
        imagesr.upscale_video(tmp_path / "in.png", tmp_path / "out.mp4", model="lanczos")
