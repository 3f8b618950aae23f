"""Sound in the output: copied, converted, never lost silently; read back by ffmpeg."""

import av
import numpy as np
import pytest
from conftest import ffmpeg, packet_hashes, run_video

import imagesr
from imagesr.media.containers import FORMATS


def film(path, *sound, filters="sine=f=440:d=1"):
    """Write a clip of one second with a tone, by ffmpeg; `sound` are the options of its encoder."""
    picture = ["-f", "lavfi", "-i", "testsrc=s=96x64:r=25:d=1", "-f", "lavfi", "-i", filters]
    codec = ["-c:v", "mpeg2video"] if path.suffix in (".vob", ".mpg") else ["-c:v", "libx264", "-pix_fmt", "yuv420p"]
    codec = ["-c:v", "wmv2"] if path.suffix == ".wmv" else codec
    ffmpeg("-y", *picture, *codec, *sound, path)
    return path


def heard(path):
    """Return the sound of a file, (samples,) at 48 kHz, as ffmpeg decodes it from time zero on."""
    raw = ffmpeg("-i", path, "-af", "aresample=async=1:first_pts=0", "-ac", 1, "-ar", 48_000, "-f", "f32le", "-")
    return np.frombuffer(raw, np.float32)


KINDS = {
    "aac": ("in.mkv", ["-c:a", "aac"]),
    "mp3": ("in.mkv", ["-c:a", "libmp3lame"]),
    "ac3": ("in.mkv", ["-c:a", "ac3"]),
    "vorbis": ("in.mkv", ["-c:a", "libvorbis"]),
    "opus": ("in.mkv", ["-c:a", "libopus"]),
    "flac": ("in.mkv", ["-c:a", "flac"]),
    "alac": ("in.mkv", ["-c:a", "alac"]),
    "pcm": ("in.mov", ["-c:a", "pcm_s16le"]),
    "truehd": ("in.mkv", ["-c:a", "truehd", "-strict", "-2"]),
    "dts": ("in.mkv", ["-c:a", "dca", "-strict", "-2"]),
    "wma": ("in.wmv", ["-c:a", "wmav2"]),
    "mp2 of a DVD": ("in.vob", ["-c:a", "mp2"]),
    "pcm of a DVD": ("in.vob", ["-c:a", "pcm_dvd", "-ar", "48000"]),
    "5.1": ("in.mkv", ["-c:a", "ac3", "-ac", "6"]),
    "8 kHz mono": ("in.mov", ["-c:a", "pcm_mulaw", "-ar", "8000", "-ac", "1"]),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    name, how = KINDS[request.param]
    return request.param, film(tmp_path_factory.mktemp("sound") / name, *how)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".ts"])
def test_every_sound_is_heard_in_every_container(tmp_path, kind, suffix):
    _, source = kind
    report = imagesr.upscale_video(source, tmp_path / f"out{suffix}", model="lanczos", preset="ultrafast")
    before, after = heard(source), heard(report.output)
    assert abs(len(before) - len(after)) < 48_000 * 0.2
    middle = slice(12_000, 36_000)
    spectrum = np.abs(np.fft.rfft(after[middle] * np.hanning(24_000)))
    assert abs(np.argmax(spectrum) * 2 - 440) <= 4
    assert np.std(after[middle]) == pytest.approx(np.std(before[middle]), rel=0.2)  # mixes of six channels differ
    (line,) = [line for line in report.kept if line.startswith("audio")]
    assert line.endswith("copied") or "converted to" in line
    if line.endswith("copied") and suffix != ".ts" and source.suffix not in (".vob", ".ts"):
        assert [size for size, _ in packet_hashes(source)] == [size for size, _ in packet_hashes(report.output)]


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv", ".ts"])
def test_converted_sound_stays_where_it_is(tmp_path, suffix):
    # A click every quarter of a second, and a hole that the clock leaves open.
    clicks = "aevalsrc='0.8*lt(mod(t,0.25),0.002)':d=2:s=44100"
    source = film(tmp_path / "in.mkv", "-c:a", "truehd", "-strict", "-2", filters=clicks)
    report = imagesr.upscale_video(source, tmp_path / f"out{suffix}", model="lanczos", audio="convert")
    with av.open(report.output) as container:
        shift = (container.streams.video[0].start_time or 0) * container.streams.video[0].time_base
        shift -= (container.start_time or 0) / 1_000_000
    places = [np.flatnonzero(np.abs(sound) > 0.25) for sound in (heard(source), heard(report.output))]
    firsts = [where[np.flatnonzero(np.diff(where, prepend=-10_000) > 4000)] / 48_000 for where in places]
    assert len(firsts[0]) == len(firsts[1]) >= 4
    assert np.abs(firsts[1] - float(shift) - firsts[0]).max() < 0.02


def test_ways_to_ask_for_sound(tmp_path):
    source = film(tmp_path / "in.mkv", "-c:a", "libvorbis")
    copied = imagesr.upscale_video(source, tmp_path / "copy.mkv", model="lanczos", audio="copy")
    assert packet_hashes(source) == packet_hashes(copied.output)
    converted = imagesr.upscale_video(source, tmp_path / "convert.mkv", model="lanczos", audio="convert")
    assert "audio 1 (vorbis), converted to AAC, 96 kbit/s, mono" in converted.kept
    silent = imagesr.upscale_video(source, tmp_path / "none.mkv", model="lanczos", audio="none")
    assert silent.dropped == ["audio 1 (vorbis): no sound was asked for"]
    done = run_video(source, tmp_path / "out.mp4", "-n", "lanczos", "--audio", "copy")
    assert done.returncode == 2
    assert "--audio none" in done.stderr
    assert not (tmp_path / "out.mp4").exists()


def test_conversion_is_said_before_the_start(tmp_path):
    source, lines = film(tmp_path / "in.mkv", "-c:a", "aac"), []
    imagesr.upscale_video(source, tmp_path / "out.webm", model="lanczos", announce=lines.append)
    assert "will be converted: audio 1 (aac), to Opus, 96 kbit/s, mono" in lines


def test_all_streams_of_sound_are_kept_with_their_languages(tmp_path):
    tone = ["-f", "lavfi", "-i", "sine=f=880:d=1"]
    source = film(tmp_path / "one.mkv", "-c:a", "aac")
    both = tmp_path / "in.mkv"
    tracks = ["-map", "0", "-map", "1", "-c", "copy", "-c:a:1", "libvorbis", "-metadata:s:a:1", "language=deu"]
    ffmpeg("-i", source, *tone, *tracks, both)
    report = imagesr.upscale_video(both, tmp_path / "out.mp4", model="lanczos")
    with av.open(report.output) as container:
        assert [stream.language for stream in container.streams.audio][1] == "deu"
        assert len(container.streams.audio) == 2


def test_formats_are_those_that_were_tried():
    assert set(FORMATS) == {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".ts"}
