"""The main job, run as a user runs it and read back by ffmpeg."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import ffmpeg, frame_times, packet_hashes, run_video, slow, thumbnails, write_clip
from PIL import Image
from running import until

import imagesr
from imagesr.media.containers import FORMATS
from imagesr.video import demo

NTSC = Fraction(30000, 1001)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def probe(path):
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        return context.width, context.height, context.pix_fmt


def assert_same_film(source, result, *, pix_fmt, codes=3, times=True):
    """Check frames, times (unless the source has none), sound and looks of an upscaled film against its source."""
    before, tick = frame_times(source)
    after, tick_out = frame_times(result)
    assert len(before) == len(after)
    if times:
        assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= max(tick, tick_out)
    assert packet_hashes(source) == packet_hashes(result)
    with av.open(str(source)) as container:
        video = container.streams.video[0]
        size = max(8, video.width // 32 * 2), max(8, video.height // 32 * 2)
    before, after = thumbnails(source, size, pix_fmt), thumbnails(result, size, pix_fmt)
    scale = 4 if "10" in pix_fmt else 1
    for i in (0, len(before) // 2, len(before) - 1):
        for plane, (a, b) in enumerate(zip(before[i], after[i], strict=True)):
            assert np.abs(a - b).max() <= codes * scale, f"frame {i}, plane {plane}"


CLIPS = {
    "25 fps": {},
    "29.97 fps": {"rate": NTSC, "size": (160, 96)},
    "odd size": {"size": (150, 90)},
    "odder size": {"size": (154, 98), "rate": NTSC},
    "4:2:2": {"pix_fmt": "yuv422p", "size": (158, 91)},
    "4:4:4": {"pix_fmt": "yuv444p", "size": (151, 97)},
    "grey": {"pix_fmt": "gray", "sound": None},
    "variable rate": {"pts": [0, 3000, 4500, 12000, 12001, 30000, 33003, 36000, 50000, 53000, 70000, 90000]},
    "no sound": {"sound": None},
    "mp3": {"sound": "libmp3lame"},
    "B-frames": {"options": {"bf": "3", "b-adapt": "0"}, "frames": 20},
}


@pytest.mark.parametrize("options", CLIPS.values(), ids=CLIPS)
def test_film_is_the_same_but_larger(tmp_path, options):
    source = write_clip(tmp_path / "in.mp4", **options)
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="fast")
    width, height, pix_fmt = probe(source)
    out_width, out_height, out_pix_fmt = probe(report.output)
    assert pix_fmt == out_pix_fmt
    for length, grown, halved in ((width, out_width, "42" in pix_fmt), (height, out_height, "420" in pix_fmt)):
        assert grown == (2 * int(length * 0.75 + 0.5) if halved else int(length * 1.5 + 0.5))
    assert_same_film(source, report.output, pix_fmt=pix_fmt)
    assert report.frames == options.get("frames", 12)
    assert (report.model, report.flavour) == ("fast x1.5", "film")
    assert "by fast x1.5 (film, " in str(report)
    assert not report.dropped
    assert names(tmp_path) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_container(tmp_path, suffix):
    sound = "libopus" if suffix == ".webm" else "aac"
    source = write_clip(tmp_path / f"in{suffix if suffix != '.webm' else '.mkv'}", sound=sound)
    report = imagesr.upscale_video(source, tmp_path / f"out{suffix}", model="lanczos")
    assert_same_film(source, report.output, pix_fmt="yuv420p")


def test_ten_bits_stay_ten_bits(tmp_path):
    source = write_clip(tmp_path / "in.mkv", pix_fmt="yuv420p10le", options={"profile": "high10"})
    report = imagesr.upscale_video(source, tmp_path / "out.mkv", model="fast", crf=12)
    assert probe(report.output)[2] == "yuv420p10le"
    assert report.precision == "fp32"
    assert "libx265" in report.kept[0]
    assert_same_film(source, report.output, pix_fmt="yuv420p10le")


def test_tags_pass(tmp_path):
    colors = {"colorspace": 9, "color_trc": 14, "color_primaries": 9, "color_range": 2}
    source = write_clip(tmp_path / "in.mp4", sample_aspect_ratio=Fraction(4, 3), **colors)
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="fast")
    with av.open(report.output) as container:
        context = container.streams.video[0].codec_context
        assert {name: getattr(context, name) for name in colors} == colors
        assert context.sample_aspect_ratio == Fraction(4, 3)
        assert container.metadata["title"] == "A title"
    head = (tmp_path / "out.mp4").read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")  # playable while it downloads


def test_rotation_passes(tmp_path):
    source = tmp_path / "in.mp4"
    write_clip(tmp_path / "upright.mp4", size=(160, 96))
    with av.open(str(tmp_path / "upright.mp4")) as upright, av.open(str(source), "w") as turned:
        stream = upright.streams.video[0]
        copy = turned.add_stream_from_template(stream, opaque=True)
        copy.set_display_rotation(-90)
        for packet in upright.demux(stream):
            if packet.size:
                packet.stream = copy
                turned.mux(packet)
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="fast", size=(144, 1000))
    with av.open(report.output) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation == -90
        assert (frame.width, frame.height) == (240, 144)  # 144 wide as it is seen
    assert report.size == "96x160 to 144x240"
    with pytest.raises(ValueError, match="at least the input's 96x160; 90x150 gives 90x150"):
        imagesr.upscale_video(source, tmp_path / "small.mp4", model="fast", size=(90, 150))
    same = imagesr.upscale_video(source, tmp_path / "same.mp4", model="fast", size=(96, 160))
    assert "the output has the input's size: it is upscaled 1.5 times, and reduced again" in same.notes


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"scale": 2}, (384, 216)),
        ({"scale": "9/4"}, (432, 244)),
        ({"scale": 3.5}, (672, 378)),
        ({"size": (300, 300)}, (300, 168)),
        ({"size": (1000, 162)}, (288, 162)),
        ({"size": (100, 60), "model": "lanczos"}, (100, 56)),
        ({"scale": 0.5, "model": "lanczos"}, (96, 54)),
    ],
)
def test_sizes(tmp_path, clip, options, expected):
    report = imagesr.upscale_video(clip, tmp_path / "out.mp4", **{"model": "fast"} | options)
    assert probe(report.output)[:2] == expected
    assert_same_film(clip, report.output, pix_fmt="yuv420p")


def test_a_part_of_the_film(tmp_path):
    source = write_clip(tmp_path / "in.mp4", frames=75, size=(96, 64), options={"g": "10"})
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos", start=1.2, duration=1)
    assert report.frames == 25
    times, _ = frame_times(report.output)
    assert times == [Fraction(i, 25) for i in range(25)]
    whole, part = thumbnails(source, (24, 16), "yuv420p"), thumbnails(report.output, (24, 16), "yuv420p")
    for i in (0, 24):
        assert all(np.abs(a - b).max() <= 3 for a, b in zip(whole[30 + i], part[i], strict=True))
    sound = packet_hashes(report.output)
    assert 45 <= len(sound) <= 48
    whole = packet_hashes(source)
    assert sound in [whole[i : i + len(sound)] for i in range(len(whole))]


@pytest.mark.parametrize("suffix", [".ts", ".264", ".mkv"])
def test_a_part_of_a_film_without_an_index(tmp_path, suffix):
    # Long groups of pictures: a seek lands where nothing can be decoded yet. And .ts files do not begin at zero.
    write_clip(tmp_path / "whole.mp4", frames=75, size=(96, 64), sound=None, options={"g": "50"})
    source = tmp_path / f"in{suffix}"
    ffmpeg("-i", tmp_path / "whole.mp4", "-c", "copy", source)
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos", start=1.2, duration=1)
    assert report.frames == 25
    whole, part = thumbnails(source, (24, 16), "yuv420p"), thumbnails(report.output, (24, 16), "yuv420p")
    for i in (0, 24):
        assert all(np.abs(a - b).max() <= 3 for a, b in zip(whole[30 + i], part[i], strict=True))


def test_a_name_with_a_colon(tmp_path, clip, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(clip, "Alien: in.mp4")
    assert imagesr.upscale_video("Alien: in.mp4", "Alien: out.mp4", model="lanczos").frames == 12
    assert names(tmp_path) == ["Alien: in.mp4", "Alien: out.mp4"]


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".mov"])
def test_another_container(tmp_path, clip, suffix):
    report = imagesr.upscale_video(clip, tmp_path / f"out{suffix}", model="lanczos")
    before, after = frame_times(clip)[0], frame_times(report.output)[0]
    steps = [b - a for a, b in zip(before, after, strict=True)]
    assert max(steps) - min(steps) <= Fraction(1, 1000)  # sound and picture may move together, and then it is said
    assert abs(steps[0]) <= Fraction(1, 1000) or any("moved by" in note for note in report.notes)
    assert [size for size, _ in packet_hashes(clip)][:5] == [size for size, _ in packet_hashes(report.output)][:5] or (
        suffix == ".ts"  # which wraps every packet of AAC in a header
    )


def test_damaged_sound_does_not_end_the_film(tmp_path, clip):
    ffmpeg("-i", clip, "-c", "copy", tmp_path / "whole.ts")
    content = (tmp_path / "whole.ts").read_bytes()
    cells = [content[i : i + 188] for i in range(0, len(content), 188)]
    (tmp_path / "in.ts").write_bytes(b"".join(cells[: len(cells) // 2] + cells[len(cells) // 2 + 40 :]))
    done = run_video(tmp_path / "in.ts", tmp_path / "out.mkv", "-n", "lanczos")
    assert done.returncode == 5, (done.returncode, done.stderr)
    assert thumbnails(tmp_path / "out.mkv", (16, 8), "yuv420p")


def test_chapters_move_with_the_start(tmp_path):
    write_clip(tmp_path / "plain.mkv", frames=50, sound=None)
    (tmp_path / "meta.txt").write_text(
        ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/10\nSTART=0\nEND=8\ntitle=A\n"
        "[CHAPTER]\nTIMEBASE=1/10\nSTART=8\nEND=20\ntitle=B\n"
    )
    source = tmp_path / "in.mkv"
    ffmpeg("-i", tmp_path / "plain.mkv", "-i", tmp_path / "meta.txt", "-map_chapters", "1", "-c", "copy", source)
    report = imagesr.upscale_video(source, tmp_path / "out.mkv", model="lanczos", start=1.0, duration=0.5)
    with av.open(report.output) as container:
        (chapter,) = container.chapters()
    assert chapter["metadata"]["title"] == "B"
    assert [float(chapter[k] * chapter["time_base"]) for k in ("start", "end")] == pytest.approx([0, 0.5], abs=0.01)


def test_threads_begin_together_without_locking_up(tmp_path):
    # OpenVINO's bindings deadlock when threads of a fresh process make their first inference at once.
    code = (
        "import numpy, threading\n"
        "from imagesr.card import find_models\n"
        "from imagesr.engines import load_engine\n"
        "engine = load_engine(find_models('fast')[0], parallel=3)\n"
        "threads = [threading.Thread(target=engine, args=(numpy.zeros((1, 64, 64, 1), 'uint8'),)) for _ in range(3)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]"
    )
    for _ in range(4):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_preview_is_three_seconds_from_the_middle(tmp_path):
    source = write_clip(tmp_path / "in.mp4", frames=350, size=(32, 32), sound=None, options={"preset": "ultrafast"})
    report = imagesr.upscale_video(source, tmp_path / "out.mp4", model="lanczos", preview=True)
    assert report.frames == 75


def test_raw_stream_is_timed_at_its_declared_rate(tmp_path):
    write_clip(tmp_path / "in.mp4", sound=None, options={"bf": "2"})
    raw = tmp_path / "in.264"
    with av.open(str(tmp_path / "in.mp4")) as source, av.open(str(raw), "w", format="h264") as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    report = imagesr.upscale_video(raw, tmp_path / "out.mp4", model="lanczos")
    assert frame_times(report.output)[0] == [Fraction(i, 25) for i in range(12)]
    assert any("no timestamps" in note for note in report.notes)


def test_chroma_keeps_its_siting(tmp_path):
    # At H.264's left siting, chroma lies on luma's columns but between its rows. Enlarged 1.5 times, column j shows the
    # input's column j / 1.5 - 1 / 12, and row i its row i / 1.5 - 1 / 6; treated as centred, both would be 1 / 6.
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        frame = av.VideoFrame(256, 256, "yuv420p")
        y, x = np.mgrid[:128, :128]
        ramp = np.floor(40 + 1.2 * x + (y % 20) / 20).astype(np.uint8)  # dithered: finer than a code on average
        for plane, samples in zip(frame.planes, (np.full((256, 256), 100, np.uint8), ramp, ramp.T), strict=True):
            padded = np.zeros((plane.height, plane.line_size), np.uint8)
            padded[:, : samples.shape[1]] = samples
            plane.update(padded)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    imagesr.upscale_video(source, tmp_path / "out.mkv", model="fast", crf=0)
    with av.open(str(tmp_path / "out.mkv")) as container:
        u, v = next(container.decode(video=0)).to_ndarray()[384:].reshape(2, 192, 192).astype(float)
    columns, rows = (plane[30:150, 30:150].mean() / 1.2 for plane in (u, v))
    assert columns - rows == pytest.approx(1 / 12, abs=0.03)


def test_default_run_on_the_command_line(tmp_path, clip):
    record = tmp_path / "report.json"
    done = run_video(clip, tmp_path / "out.mp4", "--json", record, "--progress", "json")
    assert done.returncode == 0, done.stderr
    assert "12 frames, 192x108 to 288x162, by balanced" in done.stdout
    report = json.loads(record.read_text())
    assert {"frames", "fps", "first_frame_s", "stages", "bottleneck", "kept", "dropped"} <= set(report)
    assert report["frames"] == 12
    assert set(report["stages"]) == {"decode", "upscale", "encode"}
    assert json.loads(done.stderr.splitlines()[-1])["frames"] == 12
    assert_same_film(clip, tmp_path / "out.mp4", pix_fmt="yuv420p")


def test_imagesr_video_is_the_same_command(tmp_path, clip):
    command = [sys.executable, "-m", "imagesr", "video", clip, tmp_path / "out.mp4", "-q", "-n", "lanczos"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("engine", ["onnx", "keras"])
def test_other_engines(tmp_path, clip, engine):
    report = imagesr.upscale_video(clip, tmp_path / "out.mp4", model="fast", engine=engine)
    assert report.precision == "fp32"
    assert_same_film(clip, report.output, pix_fmt="yuv420p")


@pytest.mark.parametrize("seconds", [1, slow(4)])
def test_demo(tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(demo, "SECONDS", seconds)
    done = run_video("--demo", tmp_path / "out.mp4", "-n", "fast")
    assert done.returncode == 0, done.stderr
    assert probe(tmp_path / "out.mp4")[:2] == (1920, 1080)
    assert len(packet_hashes(tmp_path / "out.mp4")) > 25 * seconds
    with Image.open(tmp_path / "out.png") as sheet:
        picture = np.asarray(sheet.convert("L"), float)
    left, right = picture[60:, :900], picture[60:, 912:]
    # The same motif on both sides, but not the same pixels, and ours with the finer detail.
    assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.9
    assert np.abs(np.diff(right)).mean() > np.abs(np.diff(left)).mean()


@pytest.mark.slow
def test_the_demo_shows_both_ends_of_a_model(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SECONDS", 1)
    report = demo.run_demo(tmp_path / "out.mp4", model="balanced")
    assert report.detail
    with Image.open(tmp_path / "out.png") as sheet:
        picture = np.asarray(sheet.convert("L"), float)
    assert picture.shape == (40 + 2 * 480 + 12, 3 * 600 + 2 * 12)
    columns = [picture[60:, left : left + 600] for left in (0, 612, 1224)]
    # The same motif in all, and the more detail the further to the right.
    assert all(np.corrcoef(columns[0].ravel(), column.ravel())[0, 1] > 0.9 for column in columns)
    edges = [np.abs(np.diff(column)).mean() for column in columns]
    assert edges == sorted(edges) and edges[2] > edges[1] > edges[0]


# Bad input: one line, the right exit code, nothing left behind.


def assert_refused(done, code, folder, expected_files, *words):
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert names(folder) == sorted(expected_files)


@pytest.mark.skipif(os.name != "posix", reason="limits file sizes as POSIX does")
def test_an_output_that_cannot_be_written(tmp_path, clip):
    import resource

    command = [sys.executable, "-m", "imagesr.video", clip, tmp_path / "out.mp4", "-n", "lanczos"]
    done = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000)),  # a full disk, so to say
    )
    assert_refused(done, 4, tmp_path, [], "Cannot write")


def test_somebody_elses_part_file_is_not_overwritten(tmp_path, clip):
    part = tmp_path / "out.mp4.part"
    part.write_bytes(b"another run's")
    assert_refused(run_video(clip, tmp_path / "out.mp4"), 2, tmp_path, ["out.mp4.part"], "in the way")
    assert part.read_bytes() == b"another run's"
    shutil.copy(clip, part)
    assert_refused(run_video(part, tmp_path / "out.mp4", "-y"), 2, tmp_path, ["out.mp4.part"], "another name")
    assert part.read_bytes() == clip.read_bytes()


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(tmp_path, kind, code):
    source = write_clip(tmp_path / "in.mp4", frames=500, size=(96, 64), sound=None, options={"preset": "ultrafast"})
    command = [sys.executable, "-m", "imagesr.video", source, tmp_path / "out.mp4", "-s", "4", "--preset", "slow"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until((tmp_path / "out.mp4.part").exists, process)
    process.send_signal(kind)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code
    assert len(stderr.strip().splitlines()) == 1
    assert names(tmp_path) == ["in.mp4"]


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_while_input_stalls(tmp_path, kind, code):
    command = [sys.executable, "-m", "imagesr.video", "-", tmp_path / "out.mp4", "-n", "lanczos"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        process.stdin.write(b"YUV4MPEG2 W96 H64 F25:1 Ip A1:1 C420jpeg\n" + (b"FRAME\n" + bytes(96 * 64 * 3 // 2)) * 30)
        process.stdin.flush()
        until((tmp_path / "out.mp4.part").exists, process)
        time.sleep(1)  # most often it waits for the next frame then
        process.send_signal(kind)
        assert process.wait(timeout=120) == code
        stderr = process.stderr.read().decode()
    finally:
        process.kill()
        process.communicate()
    assert len(stderr.strip().splitlines()) == 1, stderr
    assert names(tmp_path) == []


def damage(source, target, places, length=400):
    """Overwrite bytes of the media data with others."""
    content = bytearray(source.read_bytes())
    start, noise = content.index(b"mdat"), np.random.default_rng(0)
    for place in places:
        at = start + int(place * (len(content) - start))
        content[at : at + length] = noise.integers(0, 256, length, np.uint8).tobytes()
    target.write_bytes(content)


@pytest.fixture(scope="module")
def streamable(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streamable")
    write_clip(folder / "in.mp4", frames=60, size=(192, 108), options={"g": "10"})
    imagesr.upscale_video(folder / "in.mp4", folder / "fast.mp4", model="lanczos")  # its index comes first
    return folder / "fast.mp4"


def test_a_film_that_breaks_off(tmp_path, streamable):
    content = streamable.read_bytes()
    source = tmp_path / "in.mp4"
    source.write_bytes(content[: len(content) * 6 // 10])
    done = run_video(source, tmp_path / "out.mp4", "-n", "fast", "--json", tmp_path / "report.json")
    assert done.returncode == 5, done.stderr
    assert "missing" in done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    frames = thumbnails(tmp_path / "out.mp4", (16, 8), "yuv420p")
    assert 10 < len(frames) == report["frames"] < 60
    assert f"{60 - report['frames']} frames missing" in report["missing"]
    assert run_video(source, tmp_path / "out.mp4", "-n", "fast", "-y", "--allow-truncated").returncode == 0


def test_a_film_damaged_inside(tmp_path, streamable):
    damage(streamable, tmp_path / "in.mp4", [0.3, 0.5, 0.7])
    done = run_video(tmp_path / "in.mp4", tmp_path / "out.mp4", "-n", "fast")
    assert done.returncode == 5, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert len(thumbnails(tmp_path / "out.mp4", (16, 8), "yuv420p")) > 30


@pytest.mark.parametrize(("suffix", "codec", "sound"), [(".mkv", "libx264", "aac"), (".avi", "mpeg4", None)])
@pytest.mark.parametrize("cut", [0.9, 0.995])
def test_a_film_that_lacks_its_last_moments(tmp_path, suffix, codec, sound, cut):
    whole = write_clip(tmp_path / f"whole{suffix}", frames=60, codec=codec, sound=sound)
    source = tmp_path / f"in{suffix}"
    source.write_bytes(whole.read_bytes()[: int(cut * whole.stat().st_size)])
    report = imagesr.upscale_video(source, tmp_path / "out.mkv", model="lanczos")
    assert "the file ends earlier than its header says" in report.missing
    assert not imagesr.upscale_video(source, tmp_path / "part.mkv", model="lanczos", duration=1.0).missing
    assert not imagesr.upscale_video(whole, tmp_path / "all.mkv", model="lanczos").missing


def test_a_matroska_stream_that_knows_no_size_is_whole(tmp_path):
    ffmpeg("-i", write_clip(tmp_path / "in.mp4"), "-c", "copy", "-f", "matroska", "-live", "1", tmp_path / "live.mkv")
    assert not imagesr.upscale_video(tmp_path / "live.mkv", tmp_path / "out.mkv", model="lanczos").missing


def test_an_avi_that_knows_no_size_is_whole(tmp_path):
    clip = write_clip(tmp_path / "in.avi", codec="mpeg4", sound=None)
    live = ffmpeg("-i", clip, "-c", "copy", "-f", "avi", "-")
    assert live[4:8] == b"\xff" * 4
    (tmp_path / "live.avi").write_bytes(live)
    report = imagesr.upscale_video(tmp_path / "live.avi", tmp_path / "out.mkv", model="lanczos")
    assert (report.frames, report.missing) == (12, "")
    clip.write_bytes(clip.read_bytes()[:4] + b"\xff" * 4 + clip.read_bytes()[8:])  # nothing else is unknown
    assert not imagesr.upscale_video(clip, tmp_path / "all.mkv", model="lanczos").missing


def test_a_matroska_film_that_breaks_off(tmp_path):
    whole = write_clip(tmp_path / "whole.mkv", frames=60, sound="aac")
    content = whole.read_bytes()
    (tmp_path / "in.mkv").write_bytes(content[: len(content) * 6 // 10])
    done = run_video(tmp_path / "in.mkv", tmp_path / "out.mkv", "-n", "lanczos")
    assert done.returncode == 5, done.stderr
    assert "s missing" in done.stderr
