"""Before a run: a dry run and a preview say what the whole will take. After it: `--verify full` compares all."""

import json
import re
import tempfile
from types import SimpleNamespace

import av
import pytest
from conftest import ffmpeg, write_clip

from imagesr.errors import OutputError
from imagesr.media import verify
from imagesr.video import segments, upscale, upscaler
from imagesr.video.__main__ import main
from imagesr.video.estimate import dry_run
from imagesr.video.report import Report


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Return a film of six seconds with sound, and subtitles that have nothing in its middle."""
    folder = tmp_path_factory.mktemp("film")
    write_clip(folder / "plain.mp4", frames=150, size=(96, 54))
    (folder / "words.srt").write_text("1\n00:00:00,100 --> 00:00:00,900\nHello\n")
    both = ["-i", folder / "plain.mp4", "-i", folder / "words.srt", "-map", "0", "-map", "1", "-c", "copy"]
    language = ["-metadata:s:a:0", "language=ger", "-metadata:s:s:0", "language=eng"]
    ffmpeg(*both, *language, folder / "film.mkv")
    return folder / "film.mkv"


@pytest.fixture
def only(monkeypatch, tmp_path):
    """Let temporary files lie in a folder of their own, and return it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_dry_run_tells_the_whole_and_writes_nothing(tmp_path, film, only, capfd):
    there = tmp_path / "there"
    there.mkdir()
    assert main([str(film), str(there / "out.mp4"), "-n", "lanczos", "--dry-run", "--progress", "none"]) == 0
    told, errors = capfd.readouterr()
    assert not errors
    assert re.search(r"out\.mp4: 1[23] frames tried, nothing written, 96x54 to 144x82, by lanczos", told)
    assert re.search(r"the whole video would take about \d\d:\d\d:\d\d at [\d.]+ fps, and [\d.]+ MB", told)
    assert "kept: audio 1 (aac), copied" in told
    assert "kept: subtitle 2 (subrip), converted to mov_text" in told
    assert "dropped" not in told
    assert not [*there.iterdir(), *only.iterdir()]


def test_a_dry_run_is_near_to_what_a_run_takes(tmp_path, film):
    report = dry_run(film, tmp_path / "out.mkv", model="lanczos")
    assert report.whole_s == pytest.approx(6, abs=0.1)
    assert report.tried
    whole = upscale.upscale_video(film, tmp_path / "out.mkv", model="lanczos")
    times = report.whole_s / report.video_s
    assert 0.5 < times * report.megabytes / whole.megabytes < 2
    assert times * report.frames == pytest.approx(whole.frames, rel=0.05)


def test_a_dry_run_of_a_part(tmp_path, film):
    report = dry_run(film, tmp_path / "out.mkv", model="lanczos", start=1.0, duration=2.0)
    assert report.whole_s == 2.0
    assert report.frames == pytest.approx(12, abs=1)


def test_a_dry_run_refuses_what_a_run_refuses(tmp_path, film, capfd):
    (tmp_path / "out.mp4").write_bytes(b"the old one")
    assert main([str(film), str(tmp_path / "out.mp4"), "--dry-run"]) == 2
    assert "exists already" in capfd.readouterr().err
    assert main([str(film), str(tmp_path / "out.mp4"), "-n", "bset", "--dry-run", "-y"]) == 2
    assert main([str(tmp_path / "none.mp4"), str(tmp_path / "new.mp4"), "--dry-run"]) == 3
    assert main(["-", str(tmp_path / "new.mp4"), "--dry-run"]) == 2
    with pytest.raises(SystemExit):
        main([str(film), str(tmp_path / "new.mp4"), "--dry-run", "--preview"])
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out.mp4", b"the old one")]


def test_a_dry_run_of_several_makes_no_folder(tmp_path, film, capfd):
    record = tmp_path / "report.json"
    arguments = [film, tmp_path / "made", "-n", "lanczos", "--dry-run", "--progress", "none", "--json", record]
    assert main([*map(str, (film.parent / "plain.mp4", *arguments))]) == 0
    assert "2 of 2 would be made" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert [report["tried"] for report in json.loads(record.read_text())] == [True, True]


def test_a_preview_lists_the_streams_of_the_whole(tmp_path, film):
    report = upscale.upscale_video(film, tmp_path / "out.mkv", model="lanczos", preview=True)
    assert report.frames == 75
    assert "subtitle 2 (subrip), copied" in report.kept
    assert not report.dropped
    assert re.search(r"would take about \d\d:\d\d:\d\d at", str(report))


def test_a_wanted_size_is_that_of_the_whole(tmp_path, film):
    report = dry_run(film, tmp_path / "out.mkv", model="lanczos", target_size=1.0)
    assert report.megabytes < 0.3
    report = upscale.upscale_video(film, tmp_path / "out.mkv", model="lanczos", target_size=1.0, preview=True)
    assert 0.1 < report.megabytes < 1.0
    with pytest.raises(ValueError, match="Expected a larger target size for 6 s"):
        dry_run(film, tmp_path / "out.mkv", model="lanczos", target_size=0.05)


def test_a_result_of_a_wanted_size_is_verified(tmp_path, film):
    report = upscale.upscale_video(film, tmp_path / "out.mkv", model="lanczos", target_size=0.5, verify="full")
    assert any(note.startswith("verified: 150 frames") for note in report.notes)


def test_only_the_file_that_is_kept_is_verified(tmp_path, monkeypatch):
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=96x64:r=10:d=0.5", "-c:v", "ffv1", tmp_path / "in.mkv")
    options, seen = {"model": "lanczos", "target_size": 0.2, "verify": "full"}, []
    monkeypatch.setattr(upscale, "verify_output", lambda writer, **more: seen.append(writer))
    report = upscale.upscale_video(tmp_path / "in.mkv", tmp_path / "out.mp4", **options)
    assert any("it was encoded 2 times" in note for note in report.notes)
    assert len(seen) == 1

    def refuse(writer, **more):
        raise OutputError("it differs")

    monkeypatch.setattr(upscale, "verify_output", refuse)
    with pytest.raises(OutputError, match="it differs"):
        upscale.upscale_video(tmp_path / "in.mkv", tmp_path / "new.mp4", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mp4"]


def test_the_start_counts_once_in_an_estimate():
    report = Report(frames=15, seconds=2.0, pace=30.0, video_s=0.5, whole_s=3600.0, megabytes=0.1)
    assert "about 01:00:02 at 30.0 fps, and 720.0 MB" in str(report)


# Verified


CASES = {
    "mkv": ("out.mkv", {}),
    "mp4": ("out.mp4", {}),
    "mov": ("out.mov", {}),
    "ts": ("out.ts", {}),
    "webm": ("out.webm", {"preset": "12"}),
    "10 bits": ("out.mkv", {"codec": "libx265", "pix_fmt": "yuv420p10le", "preset": "ultrafast"}),
    "a part": ("out.mp4", {"start": 1.0, "duration": 2.0}),
    "fields": ("out.mkv", {"deinterlace": "field"}),
    "square": ("out.mp4", {"square": True}),
}


@pytest.mark.parametrize(("out", "options"), CASES.values(), ids=CASES)
def test_a_result_is_what_its_input_says(tmp_path, film, out, options):
    report = upscale.upscale_video(film, tmp_path / out, model="lanczos", verify="full", **options)
    told = next(note for note in report.notes if note.startswith("verified"))
    assert f"verified: {report.frames} frames" in told
    assert float(re.search(r"drift by ([\d.]+) of 255", told)[1]) < 0.5


def test_segments_are_verified_when_they_are_joined(tmp_path, film, monkeypatch):
    monkeypatch.setattr(segments, "LENGTH", 40)
    monkeypatch.setattr(segments, "LONG_S", 0)
    report = upscale.upscale_video(film, tmp_path / "out.mp4", model="lanczos", verify="full")
    assert any(note.startswith("verified: 150 frames") for note in report.notes)
    (tmp_path / "out.mp4").unlink()
    monkeypatch.setattr(verify, "_DRIFT", -1)
    with pytest.raises(OutputError, match=r"drifts by .*150 frames are kept"):
        upscale.upscale_video(film, tmp_path / "out.mp4", model="lanczos", verify="full")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4.segments"]
    assert (
        upscale.upscale_video(film, tmp_path / "out.mp4", model="lanczos").frames == 150
    )  # whoever wants it all the same


def spoiled(monkeypatch, change):
    """Let every frame be changed before it is encoded; `change` takes it and its number."""
    write, numbers = upscaler.Upscaler.__call__, iter(range(10**6))

    def upscaled(self, item):
        result = write(self, item)
        if isinstance(result, av.VideoFrame):
            change(result, next(numbers))
        return result

    monkeypatch.setattr(upscaler.Upscaler, "__call__", upscaled)


def brighter(frame, number):
    verify.plane(frame, 0)[:] += 3


def redder(frame, number):
    verify.plane(frame, 2)[:] += 3


def one_grey(frame, number):
    if number == 70:
        verify.plane(frame, 0)[:] = 30


def late(frame, number):
    frame.pts += 2 if number == 33 else 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (brighter, r"luma or chroma drifts by 3\.\d of 255"),
        (redder, r"luma or chroma drifts by \d\.\d of 255"),
        (one_grey, r"luma or chroma of frame 71 differs by \d+\.\d of 255"),
        (late, r"frame 34 is at 1\.320 s in the input and at 1\.322 s"),
    ],
    ids=["brighter", "redder", "one frame", "late"],
)
def test_what_differs_is_told_and_nothing_is_written(tmp_path, film, monkeypatch, capfd, change, words):
    (tmp_path / "out.mkv").write_bytes(b"the old one")
    spoiled(monkeypatch, change)
    arguments = [film, tmp_path / "out.mkv", "-n", "lanczos", "-q", "-y", "--verify", "full"]
    assert main([*map(str, arguments)]) == 4
    told = capfd.readouterr().err
    assert len(told.strip().splitlines()) == 1
    assert re.search(words, told), told
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out.mkv", b"the old one")]
    assert main([*map(str, arguments[:-2])]) == 0


def writer_like(folder, beside):
    """Return what a verification sees of a Writer."""
    places = {"path": folder / "out.mkv", "part": folder / "out.mkv.part"}
    return SimpleNamespace(**places, notes=[], dropped=[], lost="", beside=beside)


def checked(writer_of, film, tmp_path):
    """Return what a verification says of a part file that ffmpeg made instead."""

    made = writer_like(tmp_path, beside={1: (1, True), 2: (2, True)})
    ffmpeg("-i", film, *writer_of, "-f", "matroska", made.part)
    verify.verify_output(made, reopen=lambda: verify.Source(film), height=54)
    return made.notes


SAME = ["-map", "0", "-c", "copy"]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ([*SAME, "-frames:v", "140"], "the input has 150 frames and the output 140"),
        (["-map", "0", "-c", "copy", "-af", "atrim=0:4", "-c:a", "aac"], r"audio 1 (has|ends at)"),
        ([*SAME, "-metadata", "title=Another"], "the title is 'A title' in the input and 'Another'"),
        ([*SAME, "-metadata:s:a:0", "language=fra"], "the language of audio 1 is ger in the input and fra"),
        ([*SAME, "-aspect", "2:1"], "pixels are 9/8 as wide as high instead of 1"),
    ],
    ids=["frames", "sound", "title", "language", "aspect"],
)
def test_other_differences_are_told(tmp_path, film, how, words):
    assert checked(SAME, film, tmp_path)[0].startswith("verified: 150 frames")
    (tmp_path / "out.mkv.part").unlink()
    with pytest.raises(OutputError, match=words):
        checked(how, film, tmp_path)


def test_colour_tags_are_compared(tmp_path):
    source = write_clip(tmp_path / "in.mkv", size=(96, 54), sound=None, colorspace=5, color_range=1)
    ffmpeg(
        "-i", source, "-c", "copy", "-bsf:v", "h264_metadata=matrix_coefficients=9", "-f", "matroska", tmp_path / "b"
    )

    class Made:
        path, part, notes, dropped, lost, beside = tmp_path / "out.mkv", tmp_path / "b", [], [], "", {}

    with pytest.raises(OutputError, match="colorspace is 5 in the input and 9 in the output"):
        verify.verify_output(Made, reopen=lambda: verify.Source(source), height=54)


def test_a_pipe_cannot_be_verified(tmp_path, film):
    for paths in (("-", tmp_path / "out.mkv"), (film, "-")):
        with pytest.raises(ValueError, match="Expected files, which can be read again"):
            upscale.upscale_video(*paths, model="lanczos", verify="full")
    with pytest.raises(ValueError, match="quick, full"):
        upscale.upscale_video(film, tmp_path / "out.mkv", verify="some")
