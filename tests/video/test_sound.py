"""Sound in the output: copied, converted, never lost silently; read back by ffmpeg."""

import re
import tracemalloc
import zlib

import av
import numpy as np
import pytest
from conftest import ffmpeg, packet_hashes, run_video

import imagesr
from imagesr.media import acm
from imagesr.media.audio import SoundConverter
from imagesr.media.containers import FORMATS
from imagesr.media.samples import sound


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


ACM = {
    "wma": ("in.wmv", ["wmav2"]),
    "wma 1, stereo": ("in.wmv", ["wmav1", "-ac", "2", "-ar", "44100"]),
    "adpcm": ("in.mkv", ["adpcm_ms"]),
    "adpcm of IMA": ("in.mkv", ["adpcm_ima_wav"]),
    "a-law": ("in.mkv", ["pcm_alaw", "-ar", "8000"]),
}


@pytest.mark.parametrize("kind", ACM)
def test_matroska_holds_sound_that_windows_has_a_number_for(tmp_path, kind):
    name, codec = ACM[kind]
    source, picture = film(tmp_path / name, "-c:a", *codec), b"\x89PNG" + bytes(100)
    both = tmp_path / "both.mkv"  # with a track of PCM before it, and more in the head of the file
    (tmp_path / "a.txt").write_bytes(picture)
    more = ["-f", "lavfi", "-i", "sine=f=880:d=1", "-i", source, "-map", "1:v", "-map", "0:a", "-map", "1:a"]
    attached = ["-attach", tmp_path / "a.txt", "-metadata:s:t", "mimetype=text/plain"]
    ffmpeg(*more, "-c", "copy", "-c:a:0", "pcm_s16le", *attached, both)
    for given in (source, both):
        report = imagesr.upscale_video(given, tmp_path / "out.mkv", model="lanczos", overwrite=True)
        tracks = [line for line in report.kept if line.startswith("audio")]
        assert len(tracks) == 1 + (given is both)
        assert all(line.endswith("copied") for line in tracks)
        assert not (report.dropped or report.notes)
        for number in range(len(tracks)):
            samples = ["-map", f"0:a:{number}", "-f", "md5", "-"]
            assert ffmpeg("-i", report.output, *samples) == ffmpeg("-i", given, *samples)
            copied = ["-c", "copy", *samples]
            assert ffmpeg("-i", report.output, *copied) == ffmpeg("-i", given, *copied)


def test_the_checksum_of_the_tracks_fits_a_name_that_was_put_in(tmp_path):
    source = film(tmp_path / "in.wmv", "-c:a", "wmav2")
    data = (tmp_path / imagesr.upscale_video(source, tmp_path / "out.mkv", model="lanczos").output).read_bytes()
    (tracks,) = acm._find(data, 0, len(data), [acm._SEGMENT, acm._TRACKS])
    content = data[slice(*tracks)]
    assert content[:2] == acm._CRC
    assert int.from_bytes(content[2:6], "little") == zlib.crc32(content[6:])
    assert b"A_MS/ACM" in content


@pytest.mark.parametrize("left", range(1, 7))
def test_an_element_may_begin_just_before_the_end_of_what_is_read(tmp_path, left):
    cluster, private = b"\x1f\x43\xb6\x75\x01" + bytes(7), b"header"
    entry = b"\x86\x8d" + acm._PCM + b"\x63\xa2" + bytes([0x80 | len(private)]) + private
    entry = b"\xae" + bytes([0x80 | len(entry)]) + entry
    head = b"\x18\x53\x80\x67\x01" + b"\xff" * 7 + b"\x16\x54\xae\x6b" + bytes([0x80 | len(entry)]) + entry
    space = acm._HEAD - left - len(head) - 9
    path = tmp_path / "out.mkv"
    path.write_bytes(head + b"\xec\x01" + space.to_bytes(7, "big") + bytes(space) + cluster)
    acm.finish(path, [private])
    assert acm._ACM in path.read_bytes()[: len(head)]
    assert path.stat().st_size == acm._HEAD - left + len(cluster)


def first_times(path):
    """Return when the first packet of each stream begins, in seconds."""
    with av.open(str(path)) as container:
        firsts = {}
        for packet in container.demux():
            if packet.pts is not None:
                firsts.setdefault(packet.stream.type, float(packet.pts * packet.time_base))
        return firsts


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".webm"])
def test_converted_sound_begins_where_its_stream_does(tmp_path, suffix):
    # WMA's decoder gives nothing for the first packets, and ffmpeg puts the film behind them.
    source = film(tmp_path / "in.wmv", "-c:a", "wmav2", filters="aevalsrc='0.8*lt(mod(t,0.25),0.002)':d=1:s=48000")
    before, report = first_times(source), imagesr.upscale_video(source, tmp_path / f"out{suffix}", model="lanczos")
    after = first_times(report.output)
    assert before["audio"] == 0
    assert before["video"] > 0.03
    assert after["video"] == pytest.approx(before["video"], abs=0.002)
    assert -0.05 < after["audio"] < 0.002  # an encoder of its own begins before zero with what is not played
    assert len(heard(report.output)) == pytest.approx(len(heard(source)), abs=2000)


def test_a_film_without_its_sound_begins_at_zero(tmp_path):
    source = film(tmp_path / "in.wmv", "-c:a", "wmav2")
    report = imagesr.upscale_video(source, tmp_path / "out.mkv", model="lanczos", audio="none")
    assert first_times(report.output) == {"video": 0}


@pytest.mark.parametrize("allow", [False, True])
def test_damaged_sound_that_is_converted_counts_as_damage(tmp_path, allow):
    whole = film(tmp_path / "whole.mkv", "-c:a", "aac")
    source = tmp_path / "in.mkv"
    with av.open(str(whole)) as read, av.open(str(source), "w") as write:
        streams = {stream: write.add_stream_from_template(stream, opaque=True) for stream in read.streams}
        for number, packet in enumerate(packet for packet in read.demux() if packet.size):
            data = bytearray(bytes(packet))
            if packet.stream.type == "audio" and number > 20:
                data = bytearray(byte ^ 0xA5 for byte in data)
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.duration, copy.time_base = (
                packet.pts,
                packet.dts,
                packet.duration,
                packet.time_base,
            )
            copy.is_keyframe, copy.stream = packet.is_keyframe, streams[packet.stream]
            write.mux(copy)
    more = ["--allow-truncated"] * allow
    done = run_video(source, tmp_path / "out.webm", "-n", "lanczos", "-c", "libvpx-vp9", *more)
    assert done.returncode == (0 if allow else 5), done.stderr
    assert re.search(r"\d+ packets of audio 1 \(aac\) cannot be decoded", done.stderr)
    assert (tmp_path / "out.webm").exists()
    done = run_video(whole, tmp_path / "whole.webm", "-n", "lanczos", "-c", "libvpx-vp9")
    assert done.returncode == 0, done.stderr


def with_a_leap(path, seconds):
    """Write a clip whose sound leaps after half a second; the film goes on below it."""
    whole = film(path.with_name("whole.mkv"), "-c:a", "pcm_s16le", "-ar", "8000")
    with av.open(str(whole)) as read, av.open(str(path), "w") as write:
        streams = {stream: write.add_stream_from_template(stream, opaque=True) for stream in read.streams}
        for packet in read.demux():
            if packet.size:
                if packet.stream.type == "audio" and packet.pts * packet.time_base > 0.5:
                    packet.pts = packet.dts = packet.pts + round(seconds / packet.time_base)
                packet.stream = streams[packet.stream]
                write.mux(packet)
    return path


def test_a_long_leap_of_the_sound_takes_no_memory(tmp_path):
    peaks = []
    for seconds in (10, 600):
        source = with_a_leap(tmp_path / "in.mkv", seconds)
        with av.open(str(source)) as read, av.open(str(tmp_path / "out.mp4"), "w") as write:
            stream = read.streams.audio[0]
            converter, made = SoundConverter(stream, write), 0
            tracemalloc.start()
            for packet in read.demux(stream):
                if packet.size:
                    made += sum(1 for _ in converter.packets(packet))
            made += sum(1 for _ in converter.flush())
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert made * 1024 / 8000 == pytest.approx(seconds + 1, abs=1)
    assert peaks[1] < 1.5 * peaks[0] + 100_000
    sizes = [len(block) for block in sound(source)]
    assert max(sizes) <= 48_000
    assert sum(sizes) / 48_000 == pytest.approx(seconds + 1, abs=0.2)


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
    both = tmp_path / "both.mkv"
    tracks = ["-map", "0", "-map", "1", "-c", "copy", "-c:a:1", "libvorbis", "-metadata:s:a:1", "language=deu"]
    ffmpeg("-i", source, *tone, *tracks, both)
    report = imagesr.upscale_video(both, tmp_path / "out.mp4", model="lanczos")
    with av.open(report.output) as container:
        assert [stream.language for stream in container.streams.audio][1] == "deu"
        assert len(container.streams.audio) == 2


def test_formats_are_those_that_were_tried():
    assert set(FORMATS) == {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".ts"}


UNEVEN = {
    "a last packet of silence": ("in.avi", ["-c:v", "mpeg4"], ["adpcm_ms"], [".mp4", ".mov"]),
    "pcm in large packets": ("in.mxf", ["-c:v", "mpeg2video"], ["pcm_s16le"], [".mov"]),
    "pcm in small packets": ("in.flv", ["-c:v", "flv"], ["pcm_mulaw", "-ar", "8000", "-ac", "1"], [".mov"]),
}


@pytest.mark.parametrize("kind", UNEVEN)
def test_a_file_is_whole_though_its_sound_is_cut_into_other_packets(tmp_path, kind):
    name, picture, codec, outs = UNEVEN[kind]
    both = ["-f", "lavfi", "-i", "testsrc=s=96x64:r=25:d=1", "-f", "lavfi", "-i", "sine=f=440:d=1:r=48000"]
    ffmpeg(*both, *picture, "-c:a", *codec, tmp_path / name)
    for out in outs:
        report = imagesr.upscale_video(tmp_path / name, tmp_path / f"out{out}", model="lanczos")
        assert not report.missing
        assert len(heard(report.output)) == pytest.approx(48_000, abs=2500)
