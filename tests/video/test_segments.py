"""Runs in segments: killed and gone on with, joined, refused; by real processes, read back by ffmpeg."""

import contextlib
import errno
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import weakref
from fractions import Fraction
from pathlib import Path

import av
import pytest
from conftest import ffmpeg, frame_times, packet_hashes, slow, write_clip
from faults import small_disk
from running import until

from imagesr.cli import Interrupted
from imagesr.errors import InputError, OutputError
from imagesr.media.encoded import SegmentWriter, frames_in, joined, packets_in
from imagesr.media.frames import VideoInfo
from imagesr.scale import Scale
from imagesr.video import segments, upscale
from imagesr.video.__main__ import main
from imagesr.video.options import Options

LENGTH = 40
# Slow, and without what makes two runs of x264 differ.
SLOW = ["-n", "lanczos", "-s", "4", "--preset", "slow", "-e", "x264-params=mbtree=0", "--threads", "1"]

INFO = VideoInfo(
    *(96, 54, "yuv420p", 8, (True, True), Fraction(1, 12800), Fraction(25), None),
    *({}, None, 0, None, None),
)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(segments, "LENGTH", LENGTH)
    monkeypatch.setattr(segments, "LONG_S", 0)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("film") / "in.mp4", frames=210, size=(96, 54))


def start(*arguments, **more):
    """Start the command as a user does, with segments of 40 frames for every run."""
    code = f"""import sys
from imagesr.video import segments
segments.LENGTH, segments.LONG_S = {LENGTH}, 0
from imagesr.video.__main__ import main
sys.exit(main(sys.argv[1:]))"""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def finished(process, seconds=300):
    out, told = process.communicate(timeout=seconds)
    return process.returncode, out, told


def hashes(path):
    """Return the checksum and time of every decoded frame."""
    how = ["-map", "0:v:0", "-fps_mode", "passthrough", "-enc_time_base", "demux", "-f", "framemd5"]
    lines = ffmpeg("-copyts", "-i", path, *how, "-").decode().splitlines()
    return [(line.split(",")[2], line.split(",")[-1]) for line in lines if line[0] != "#"]


def decoding_times(path):
    with av.open(str(path)) as container:
        return [packet.dts for packet in container.demux(container.streams.video[0]) if packet.dts is not None]


def count(folder):
    return len(list(folder.glob("*.segment")))


CASES = {
    "mp4": ("in.mp4", "out.mp4", {}),
    "ts": ("in.mp4", "out.ts", {}),
    "mkv, x265": ("in.mp4", "out.mkv", {"codec": "libx265", "preset": "ultrafast"}),
    "webm": ("in.mp4", "out.webm", {"preset": "12"}),
    "webm, VP9": ("in.mp4", "out.webm", {"codec": "libvpx-vp9"}),
    "variable rate": ("variable.mkv", "out.mp4", {}),
    "a part": ("in.mp4", "out.mp4", {"start": 1.0, "duration": 3.0}),
}


GOING_ON = CASES | {
    "fields": ("in.mp4", "out.mp4", {"deinterlace": "field"}),
    "a network": ("in.mp4", "out.mp4", {"model": "fast"}),
    "a slower preset": ("in.mp4", "out.mp4", {"preset": "medium", "encoder": {"x264-params": "mbtree=0"}}),
}


@pytest.fixture(scope="module")
def variable(tmp_path_factory):
    times = [3000 * i + (37 * i * i) % 1500 - (1400 if i % 7 == 0 and i else 0) for i in range(130)]
    return write_clip(tmp_path_factory.mktemp("variable") / "variable.mkv", frames=130, size=(96, 54), pts=times)


@pytest.mark.parametrize(
    ("name", "out", "options"),
    [*CASES.values(), ("variable.mkv", "out.mp4", {"preset": "medium"})],
    ids=[*CASES, "variable rate, more frames reordered"],
)
def test_a_run_in_segments_makes_what_a_run_at_once_makes(tmp_path, film, variable, monkeypatch, name, out, options):
    source = film if name == "in.mp4" else variable
    upscale.upscale_video(source, tmp_path / out, model="lanczos", **options)
    assert [path.name for path in tmp_path.iterdir()] == [out]
    monkeypatch.setattr(segments, "LONG_S", 1e9)
    at_once = tmp_path / f"once{(tmp_path / out).suffix}"
    upscale.upscale_video(source, at_once, model="lanczos", **options)
    assert frame_times(tmp_path / out) == frame_times(at_once)
    assert packet_hashes(tmp_path / out) == packet_hashes(at_once)
    times = decoding_times(tmp_path / out)
    assert all(a < b for a, b in itertools.pairwise(times))


def test_an_encoder_is_gone_before_its_memory_is_given_back(tmp_path, film, monkeypatch):
    """Neither the first encoder, which only says what is lost, nor those of earlier segments stay."""
    made, left = [], []
    for module, name in ((segments, "SegmentWriter"), (segments, "Writer")):

        class Watched(getattr(module, name)):
            def __init__(self, *arguments, **options):
                super().__init__(*arguments, **options)
                made.append(weakref.ref(self))

        monkeypatch.setattr(module, name, Watched)
    monkeypatch.setattr(segments, "give_back_memory", lambda: left.append([writer() for writer in made if writer()]))
    assert main([str(film), str(tmp_path / "out.mp4"), "-q", "-n", "lanczos"]) == 0
    assert left == [[]] * 6  # 210 frames


@pytest.mark.parametrize(
    ("name", "out", "options"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name not in ("mp4", "a network", "variable rate")))
        for name, case in GOING_ON.items()
    ],
)
def test_a_run_that_goes_on_makes_what_one_run_makes(tmp_path, film, variable, name, out, options):
    source, options = film if name == "in.mp4" else variable, {"model": "lanczos"} | options
    whole, out = tmp_path / f"whole{(tmp_path / out).suffix}", tmp_path / out
    upscale.upscale_video(source, whole, **options)
    for last in (LENGTH // 2, LENGTH + 5, LENGTH + 25):

        def stop(done, expected, last=last):
            if done == last:
                raise OutputError("enough")

        with pytest.raises(OutputError, match="enough"):
            upscale.upscale_video(source, out, progress=stop, **options)
    upscale.upscale_video(source, out, **options)
    assert hashes(out) == hashes(whole)
    assert packet_hashes(out) == packet_hashes(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([out.name, whole.name])


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_killed_again_and_again_it_ends_as_if_it_had_not_been(tmp_path, film):
    whole, out = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    assert finished(start(film, whole, *SLOW))[0] == 0
    chance, kills, folder = random.Random(0), 0, tmp_path / "out.mp4.segments"
    for _ in range(5):
        before, process = count(folder), start(film, out, *SLOW)
        while count(folder) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        assert not out.exists() or hashes(out) == hashes(whole)
    code, _, told = finished(start(film, out, *SLOW, "-y"))
    assert code == 0, told
    assert kills
    assert hashes(out) == hashes(whole)
    assert packet_hashes(out) == packet_hashes(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "whole.mp4"]


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_at_most_one_segment_is_done_again(tmp_path, film):
    out, folder = tmp_path / "out.mp4", tmp_path / "out.mp4.segments"
    process = start(film, out, *SLOW)
    until(lambda: count(folder) >= 2, process)
    process.kill()
    process.communicate()
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.segment")}
    process = start(film, out, *SLOW)
    until(lambda: count(folder) > len(kept), process)
    assert kept == {name: (folder / name).stat().st_mtime_ns for name in kept}
    code, said, _ = finished(process)
    assert code == 0
    assert f"going on: {LENGTH * len(kept)} frames are done" in said
    assert f"note: {LENGTH * len(kept)} frames were done by earlier runs" in said
    assert len(frame_times(out)[0]) == 210


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    ("kind", "code"),
    [("SIGINT", 130), *(slow(*case) for case in (("SIGTERM", 143), ("SIGHUP", 129)))],
)
def test_a_signal_keeps_what_is_done_and_says_how_to_go_on(tmp_path, film, kind, code):
    out, folder = tmp_path / "out.mp4", tmp_path / "out.mp4.segments"
    process = start(film, out, *SLOW, "-q")
    until(lambda: count(folder) >= 1, process)
    process.send_signal(getattr(signal, kind))
    got, _, told = finished(process)
    assert (got, len(told.splitlines())) == (code, 1)
    assert "frames are kept in out.mp4.segments; the same command goes on, --restart begins anew" in told
    assert count(folder) < 6  # it did not go on to the end
    assert all(frames_in(path) == LENGTH for path in folder.glob("*.segment"))
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("removed", [0, 2])
def test_a_signal_after_the_output_is_made_leaves_nothing_else(tmp_path, film, monkeypatch, capfd, removed):
    remove, left = segments.Folder.remove, [removed]

    def interrupted_at_first(folder):
        if left:
            for _ in range(left.pop()):
                next(iter(folder.path.glob("*.segment"))).unlink()
            raise Interrupted(signal.SIGINT)
        remove(folder)

    monkeypatch.setattr(segments.Folder, "remove", interrupted_at_first)
    assert main([str(film), str(tmp_path / "out.mp4"), "-n", "lanczos", "-q"]) == 130
    assert capfd.readouterr().err == f"imagesr video: interrupted; {tmp_path / 'out.mp4'} is made\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert len(frame_times(tmp_path / "out.mp4")[0]) == 210


@pytest.fixture
def interrupted(tmp_path, film):
    """Return an output whose run was interrupted after its first segment, and its input."""
    source, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    source.write_bytes(film.read_bytes())
    left = [LENGTH + 10]

    def progress(done, expected):
        left[0] -= 1
        if not left[0]:
            raise OutputError("enough")

    with pytest.raises(OutputError, match=r"enough\. 40 frames are kept in out\.mp4\.segments"):
        upscale.upscale_video(source, out, model="lanczos", progress=progress)
    return source, out


@pytest.mark.parametrize("long_s", [0, 1e9], ids=["in segments", "at once"])
def test_a_signal_at_the_very_end_says_that_the_output_is_made(tmp_path, film, monkeypatch, capfd, long_s):
    monkeypatch.setattr(segments, "LONG_S", long_s)

    def stop(*_, **__):
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(upscale, "_conclude", stop)
    out = tmp_path / "out.mp4"
    out.write_bytes(b"the old one")
    assert main([str(film), str(out), "-n", "lanczos", "-q", "-y"]) == 143
    assert capfd.readouterr().err == f"imagesr video: terminated; {out} is made\n"
    assert len(frame_times(out)[0]) == 210


@pytest.mark.parametrize("when", ["plan", "_one"])
def test_a_signal_before_a_run_goes_on_says_that_it_may(interrupted, monkeypatch, capfd, when):
    def stop(*_, **__):
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr("imagesr.video.batch.plan" if when == "plan" else "imagesr.video.__main__._one", stop)
    source, out = map(str, interrupted)
    assert main([source, out, "-n", "lanczos"]) == 143
    assert capfd.readouterr().err.endswith("what is done is kept; the same command goes on, --restart begins anew\n")
    assert main([source, out.replace("out", "other"), "-n", "lanczos"]) == 143
    assert capfd.readouterr().err == "imagesr video: terminated; nothing was written\n"


def test_another_command_or_input_is_refused(interrupted):
    source, out = interrupted
    with pytest.raises(ValueError, match=r"crf was None and is 30\.0.*--restart"):
        upscale.upscale_video(source, out, model="lanczos", crf=30.0)
    with pytest.raises(ValueError, match=r"model was lanczos and is fast"):
        upscale.upscale_video(source, out, model="fast")
    os.utime(source, (1, 1))
    with pytest.raises(ValueError, match="has changed; --restart"):
        upscale.upscale_video(source, out, model="lanczos")
    assert count(out.with_name("out.mp4.segments")) == 1
    report = upscale.upscale_video(source, out, model="lanczos", crf=30.0, restart=True)
    assert report.frames == 210
    assert not any("earlier" in note for note in report.notes)
    assert sorted(path.name for path in out.parent.iterdir()) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("in.mp4", {"model": "bset"}),
        ("no.mp4", {}),
        ("in.mp4", {"codec": "libnone"}),
        ("in.mp4", {"size": (20_000, 20_000)}),
    ],
    ids=["model", "input", "encoder", "size"],
)
def test_a_restart_that_cannot_begin_keeps_what_is_done(interrupted, name, options):
    source, out = interrupted
    with pytest.raises((ValueError, InputError, OutputError)):
        upscale.upscale_video(source.with_name(name), out, restart=True, **{"model": "lanczos"} | options)
    assert count(out.with_name("out.mp4.segments")) == 1


def test_what_a_run_left_while_it_joined_is_swept(interrupted):
    source, out = interrupted
    out.with_name("out.mp4.part").write_bytes(b"half a film")
    out.with_name("other.mp4.part").write_bytes(b"another's")
    folder = out.with_name("out.mp4.segments")
    (folder / "000001.segment.part").write_bytes(b"half a segment")
    (folder / "000002.segment").write_bytes(b"damaged")
    assert upscale.upscale_video(source, out, model="lanczos").frames == 210
    assert len(frame_times(out)[0]) == 210
    assert sorted(path.name for path in out.parent.iterdir()) == ["in.mp4", "other.mp4.part", "out.mp4"]


def test_a_damaged_segment_is_made_again(interrupted):
    source, out = interrupted
    segment = out.with_name("out.mp4.segments") / "000000.segment"
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 255
    segment.write_bytes(content)
    assert frames_in(segment) == 0
    with pytest.raises(OutputError, match="checksum"):
        list(joined([segment]))
    report = upscale.upscale_video(source, out, model="lanczos")
    assert (report.frames, [note for note in report.notes if "earlier" in note]) == (210, [])
    assert len(frame_times(out)[0]) == 210


@pytest.mark.parametrize(
    "header", ["[1, 2]", '{"time_base": [1, 0]}', '{"time_base": 5}', '{"time_base": [null]}', "{}"]
)
def test_a_damaged_header_is_told_in_a_sentence(tmp_path, header):
    (tmp_path / "000000.segment").write_bytes(b"imagesr packets 1\n" + header.encode() + b"\n")
    with pytest.raises(OutputError, match="header is damaged"):
        list(packets_in(tmp_path / "000000.segment"))
    assert frames_in(tmp_path / "000000.segment") == 0
    assert frames_in(tmp_path / "000001.segment") == 0


def test_a_segment_that_cannot_be_read_is_told_and_stays(interrupted, monkeypatch):
    source, out = interrupted
    read = Path.open

    def fails(path, *how, **more):
        if path.suffix == ".segment":
            raise OSError(errno.EIO, "Input/output error")
        return read(path, *how, **more)

    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(OutputError, match=r"000000\.segment.*Input/output error"):
        upscale.upscale_video(source, out, model="lanczos")
    assert count(out.with_name("out.mp4.segments")) == 1


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="schedulers as Linux has them")
def test_the_encoder_of_a_segment_leaves_the_scheduling_as_it_was(tmp_path):
    encoding = {"size": (96, 54), "codec": "libsvtav1", "options": {"preset": "12"}}
    before = os.sched_getscheduler(0)
    writer = SegmentWriter(tmp_path / "000000.segment", ".mp4", INFO, **encoding)
    try:
        assert {os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()} == {before}
    finally:
        writer.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_segment_that_cannot_be_begun_leaves_nothing(tmp_path, monkeypatch, error):
    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            raise error

        def close(self):
            self.file.close()
            raise OSError(errno.ENOSPC, "No space left on device")

    begin = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *how: Full(begin(path, *how)))
    encoding = {"size": (96, 54), "codec": "libx264", "options": {}}
    with pytest.raises((OutputError, KeyboardInterrupt)):
        SegmentWriter(tmp_path / "000000.segment", ".mp4", INFO, **encoding)
    assert not list(tmp_path.iterdir())


def test_what_a_user_puts_beside_segments_stays(interrupted):
    source, out = interrupted
    folder, own = out.with_name("out.mp4.segments"), {"notes.txt", "a.segment.txt", "journal.json.old"}
    for name in own:
        (folder / name).write_text("mine")
    assert upscale.upscale_video(source, out, model="lanczos").frames == 210
    assert {path.name for path in folder.iterdir()} == own


@pytest.mark.parametrize("command", [["crf"], "crf", 5, None])
def test_a_damaged_journal_is_told_in_a_sentence(interrupted, command):
    source, out = interrupted
    journal = out.with_name("out.mp4.segments") / "journal.json"
    journal.write_text(json.dumps(json.loads(journal.read_text()) | {"command": command}))
    with pytest.raises(ValueError, match="It is damaged; --restart begins anew"):
        upscale.upscale_video(source, out, model="lanczos")


@pytest.mark.skipif(os.name != "posix", reason="locks as POSIX does")
def test_a_second_run_to_the_same_output_is_refused(tmp_path, film):
    out, folder = tmp_path / "out.mp4", tmp_path / "out.mp4.segments"
    process = start(film, out, *SLOW)
    until(lambda: (folder / "journal.json").exists(), process)
    process.send_signal(signal.SIGSTOP)
    for more in (["-y"], ["--restart"]):
        code, _, told = finished(start(film, out, *SLOW, *more))
        assert (code, "in use" in told) == (2, True), told
    process.send_signal(signal.SIGCONT)
    assert finished(process)[0] == 0
    assert len(frame_times(out)[0]) == 210


@pytest.mark.skipif(os.name != "posix", reason="locks as POSIX does")
def test_a_second_short_run_to_the_same_output_is_refused(tmp_path, film, monkeypatch):
    monkeypatch.setattr(segments, "LONG_S", 1e9)
    refused = []

    def progress(done, expected):
        if done == 5:
            code, _, told = finished(start(film, tmp_path / "out.mp4", *SLOW, "-y"))
            refused.append((code, "in use" in told))

    upscale.upscale_video(film, tmp_path / "out.mp4", model="lanczos", progress=progress)
    assert refused == [(2, True)]
    assert len(frame_times(tmp_path / "out.mp4")[0]) == 210


def test_a_disk_that_is_too_small_is_told_with_what_is_needed(tmp_path, film, monkeypatch):
    usage, folder = segments.shutil.disk_usage(tmp_path), tmp_path / "out.mp4.segments"
    monkeypatch.setattr(
        segments.shutil, "disk_usage", lambda path: usage._replace(free=1000 if count(folder) else usage.free)
    )
    with pytest.raises(OutputError, match=r"Expected \S+ GB of space for .*out\.mp4 and its segm.*40 frames are kept"):
        upscale.upscale_video(film, tmp_path / "out.mp4", model="lanczos")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4.segments"]


def test_a_disk_that_is_much_too_small_is_told_before_anything_is_made(tmp_path, film, monkeypatch):
    (tmp_path / "out.mp4").write_bytes(b"the old one")
    usage = segments.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(segments.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OutputError, match=r"Expected about \S+ GB of space for .*out\.mp4 and its segments\. 0\.00 GB"):
        upscale.upscale_video(film, tmp_path / "out.mp4", model="lanczos", overwrite=True)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out.mp4", b"the old one")]


def test_the_least_that_an_output_may_come_to():
    least, size = upscale._least_megabytes, (1920, 1080)
    assert least((100.0, 400.0), size, 50_000, Options()) == 100.0
    raw = least((90_000.0, 360_000.0), size, 50_000, Options())  # an input that is not compressed says little
    assert 50 < raw < 500
    assert least((90_000.0, 360_000.0), size, 50_000, Options(bitrate=9e5)) == 90_000.0
    assert least(None, size, 50_000, Options()) is None


@pytest.mark.skipif(os.name != "posix", reason="elsewhere files that are open stay")
@pytest.mark.parametrize("cut", [True, False], ids=["in segments", "at once"])
@pytest.mark.parametrize("what", ["files", "folder"])
def test_an_output_that_is_removed_on_the_way_is_one_sentence(tmp_path, film, monkeypatch, capfd, cut, what):
    monkeypatch.setattr(segments, "LONG_S", 0 if cut else 1e9)
    folder, out = tmp_path / "made", tmp_path / "made" / "out.mp4"
    folder.mkdir()
    out.write_bytes(b"the old one")
    removed = []

    def progress(done, expected):
        if done == LENGTH + 5:
            removed.extend(path.name for path in folder.iterdir())
            for path in (folder / "out.mp4.segments", *([folder] if what == "folder" else [])):
                shutil.rmtree(path, ignore_errors=True)
            (folder / "out.mp4.part").unlink(missing_ok=True)

    monkeypatch.setattr("imagesr.video.__main__._progress", lambda *_: contextlib.nullcontext(progress))
    assert main([str(film), str(out), "-n", "lanczos", "-y", "-q"]) == 4
    told = capfd.readouterr().err.strip().splitlines()
    assert (len(told), told[0][:28]) == (1, "imagesr video: Cannot write "), told
    assert "kept" not in told[0]
    assert ("out.mp4.segments" in removed) == cut
    left = {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}
    assert left == ({"out.mp4": b"the old one"} if what == "files" else {})


@pytest.fixture
def read_only(tmp_path):
    """Return a folder with an output in which nothing can be written."""
    folder = tmp_path / "locked"
    folder.mkdir()
    if os.name == "posix" and os.geteuid():
        (folder / "out.mp4").write_bytes(b"the old one")
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    try:
        with small_disk(tmp_path, 100) as (disk, _):
            (disk / "out.mp4").write_bytes(b"the old one")
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            yield disk
    except PermissionError as error:
        pytest.skip(f"needs a file system of its own: {error}")


@pytest.mark.parametrize("long_s", [0, 1e9], ids=["in segments", "at once"])
def test_a_read_only_folder_is_one_sentence(film, read_only, monkeypatch, capfd, long_s):
    monkeypatch.setattr(segments, "LONG_S", long_s)
    for name in ("out.mp4", "other.mp4"):
        assert main([str(film), str(read_only / name), "-n", "lanczos", "-y", "-q"]) == 4
        told = capfd.readouterr().err.strip().splitlines()
        assert (len(told), told[0][:28]) == (1, "imagesr video: Cannot write "), told
    assert [(path.name, path.read_bytes()) for path in read_only.iterdir()] == [("out.mp4", b"the old one")]


@pytest.mark.parametrize("mode", ["film", "field"])
def test_deinterlacing_carries_its_state_across_a_cut(tmp_path, monkeypatch, mode):
    source = tmp_path / "in.mkv"
    moving = "testsrc2=s=96x64:r={}:d=5".format("24000/1001" if mode == "film" else "50")
    how = "telecine=first_field=top:pattern=23" if mode == "film" else "interlace=scan=tff:lowpass=0"
    coded = ["-c:v", "mpeg2video", "-q:v", "2", "-flags", "+ildct+ilme"]
    ffmpeg("-f", "lavfi", "-i", moving, "-vf", how, *coded, source)
    options = {"model": "lanczos", "scale": 1, "deinterlace": mode, "codec": "ffv1"}  # every frame by itself, exactly
    upscale.upscale_video(source, tmp_path / "cut.mkv", **options)
    monkeypatch.setattr(segments, "LONG_S", 1e9)
    upscale.upscale_video(source, tmp_path / "once.mkv", **options)
    assert len(hashes(tmp_path / "cut.mkv")) > 2 * LENGTH
    assert hashes(tmp_path / "cut.mkv") == hashes(tmp_path / "once.mkv")


@pytest.mark.skipif(os.name != "posix", reason="limits file sizes as POSIX does")
def test_a_full_disk_keeps_what_is_done(tmp_path, film):
    import resource

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    out = tmp_path / "out.mp4"
    out.write_bytes(b"the old one")
    code, _, told = finished(start(film, out, *SLOW, "-y", "--crf", "0", preexec_fn=limit))
    assert (code, len(told.splitlines())) == (4, 1), told
    assert out.read_bytes() == b"the old one"


def test_which_runs_are_cut(tmp_path, monkeypatch):
    class Info:
        width, height, pix_fmt = 1280, 720, "yuv420p"

    class Card:
        scale, multiply_accumulates = Scale(3, 2), 5769.0

    class Engine:
        card = Card()

    def job(frames, *, codec="libx264", path="in.mp4", out="out.mp4", **options):
        encoding = {"codec": codec, "size": (1920, 1080)}
        return segments.Job(Path(path), Path(out), Options(**options), [Engine()], encoding, frames)

    folder = segments.Folder(tmp_path / "out.mp4")
    monkeypatch.setattr(segments, "LONG_S", 60)
    assert segments.wanted(folder, job(25 * 120), Info)
    assert not segments.wanted(folder, job(25 * 20), Info)
    assert segments.wanted(folder, job(None), Info)
    for exempt in (
        {"codec": "h264_nvenc"},
        {"codec": "hevc_qsv"},
        {"path": "-"},
        {"target_size": 100.0},
        {"preview": True},
    ):
        assert not segments.wanted(folder, job(25 * 120, **exempt), Info), exempt
    assert segments.exempt(job(99, codec="libvpx-vp9"), "yuva420p")


def test_numbers_of_threads_are_fixed():
    numbers = [segments.encoder_threads(*given) for given in (("libx264", 0, 2), ("libx264", 0, 64), ("libx265", 0, 8))]
    assert numbers == [3, 16, 3]
    assert segments.encoder_threads("libx264", 5, 2) == 5


def test_packets_come_back_as_they_were_written(interrupted):
    folder = interrupted[1].with_name("out.mp4.segments")
    packets = list(packets_in(folder / "000000.segment"))
    assert len(packets) == frames_in(folder / "000000.segment") == LENGTH
    assert packets[0].is_keyframe
    assert {packet.time_base for packet in packets} == {Fraction(1, 12800)}
    assert [p.dts for p in joined([folder / "000000.segment"])] == [p.dts for p in packets]
    assert json.loads((folder / "journal.json").read_text())["command"]["segment length"] == LENGTH


def test_what_comes_through_a_pipe_is_not_what_an_earlier_run_began_with(tmp_path, film):
    out, begun, frames = tmp_path / "out.mp4", tmp_path / "out.mp4.segments", tmp_path / "in.y4m"
    ffmpeg("-i", film, "-pix_fmt", "yuv420p", frames)
    begun.mkdir()
    (begun / "journal.json").write_text(json.dumps({"threads": 1, "input": {"bytes": 1}, "command": {}}))
    for more, expected in (([], 2), (["--restart"], 0)):
        with frames.open() as file:
            code, _, told = finished(start("-", out, "-n", "lanczos", *more, stdin=file))
        assert code == expected, told
        assert (out.exists(), begun.exists()) == ((True, False) if more else (False, True))
        assert more or "--restart begins anew" in told
