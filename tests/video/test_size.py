"""How large the output becomes: said before and after, and as asked."""

import json

import pytest
from conftest import run_video, write_clip

import imagesr


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Return a clip of four seconds with sound."""
    return write_clip(tmp_path_factory.mktemp("clip") / "in.mp4", frames=100, size=(320, 180))


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("megabytes", [0.2, 0.4])
def test_target_size(tmp_path, clip, codec, megabytes):
    out = tmp_path / "out.mp4"
    report = imagesr.upscale_video(clip, out, model="lanczos", target_size=megabytes, codec=codec, scale=3)
    assert 0.6 * megabytes < out.stat().st_size / 1e6 < 1.1 * megabytes  # a short clip leaves little time to balance
    assert report.megabytes == pytest.approx(out.stat().st_size / 1e6, abs=0.001)
    assert report.megabytes_expected[0] < megabytes < report.megabytes_expected[1]


def test_bitrate(tmp_path, clip):
    out = tmp_path / "out.mkv"
    imagesr.upscale_video(clip, out, model="lanczos", bitrate=600, audio="none", scale=3)
    assert out.stat().st_size * 8 / 4 / 1000 == pytest.approx(600, rel=0.35)


def test_the_size_is_said_before_and_after(tmp_path, clip):
    lines = []
    report = imagesr.upscale_video(clip, tmp_path / "out.mp4", model="lanczos", announce=lines.append)
    assert "MB" in lines[0]
    low, high = report.megabytes_expected
    assert low < high
    assert f"{report.megabytes:.1f} MB (the input has {report.megabytes_in:.1f} MB)" in str(report)


def test_a_preview_says_what_the_whole_will_take(tmp_path):
    source = write_clip(tmp_path / "in.mp4", frames=200, size=(64, 64), sound=None)
    done = run_video(source, tmp_path / "out.mp4", "-n", "lanczos", "--preview", "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    assert "the whole video would take about 00:00:0" in done.stdout
    assert json.loads((tmp_path / "r.json").read_text())["whole_s"] == pytest.approx(8, abs=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bitrate", "500", "--crf", "20"], ["--bitrate", "--crf"]),
        (["--target-size", "0.0001"], ["target size"]),
        (["--target-size", "0.01"], ["larger target size"]),
        (["--bitrate", "1"], ["bitrate", "kbit/s"]),
        (["-n", "besst"], ["lanczos", "balanced"]),
        (["--encoder", "hardware"], ["hardware encoder", "GPU"]),
        (["-c", "h264_nvenc"], ["NVIDIA"]),
        (["--size", "1080q"], ["1920x1080"]),
        (["--start", "1:xx"], ["1:30"]),
        (["--deinterlace", "maybe"], ["film"]),
        (["--audio", "loud"], ["convert"]),
        (["--rate", "0"], ["rate"]),
        (["-s", "8", "--size", "20000x20000"], ["--size"]),
        (["--size", "20000x20000"], ["16384"]),
    ],
)
def test_requests_that_cannot_be_right(tmp_path, clip, options, words):
    done = run_video(clip, tmp_path / "out.mp4", *options)
    if options[-1] == "hardware" and done.returncode == 0:
        pytest.skip("there is a hardware encoder here")
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "out.mp4").exists()
