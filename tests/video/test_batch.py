"""Several videos: into a folder, out of folders, what exists already, and a folder that fills."""

import errno
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from conftest import frame_times, run_video, write_clip
from running import until

import imagesr
from imagesr.cli import Interrupted
from imagesr.errors import InputError
from imagesr.video import __main__ as command
from imagesr.video import batch
from imagesr.video.__main__ import _code_of_several
from imagesr.video.batch import arriving, plan, result_name

FAST = ["-n", "lanczos", "-q", "--preset", "ultrafast"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("small") / "small.mp4", frames=4, size=(96, 54), sound=None)


@pytest.fixture
def films(tmp_path, small):
    """Return a folder with two videos, one of them in a sub-folder, and other files."""
    folder = tmp_path / "films"
    (folder / "old").mkdir(parents=True)
    shutil.copy(small, folder / "a.mp4")
    shutil.copy(small, folder / "old" / "b.mkv")
    (folder / "notes.txt").write_text("notes")
    (folder / "._a.mp4").write_text("what macOS leaves")
    return folder


def made(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_and_its_sub_folders(tmp_path, films):
    out = tmp_path / "out"
    todo = plan([str(films), str(out)], recursive=True)
    assert todo.pairs == [(films / "a.mp4", out / "a.mp4"), (films / "old" / "b.mkv", out / "old" / "b.mkv")]
    assert todo.left == "left out: 1 file (1 .txt)"
    todo = plan([str(films), str(out)])
    assert todo.pairs == [(films / "a.mp4", out / "a.mp4")]
    assert "1 sub-folder (-r takes them)" in todo.left
    assert plan([str(films / "*.mp4"), f"{out}/"]).pairs == [(films / "a.mp4", out / "a.mp4")]
    assert plan([str(films / "a.mp4"), str(tmp_path / "out.mp4")]).several is False
    inside = plan([str(films), str(films / "out")], recursive=True)
    (films / "out").mkdir()
    shutil.copy(films / "a.mp4", films / "out" / "a.mp4")
    assert plan([str(films), str(films / "out")], recursive=True, overwrite=True).pairs == inside.pairs


@pytest.fixture
def locked(films, monkeypatch):
    """Return a sub-folder between others that cannot be read, also by root."""
    (films / "locked").mkdir()
    (films / "new").mkdir()
    shutil.copy(films / "a.mp4", films / "new" / "c.mp4")
    read = Path.iterdir

    def iterdir(path):
        if path.name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    return films / "locked"


def test_a_sub_folder_that_cannot_be_read_is_left_out(tmp_path, films, locked):
    todo = plan([str(films), str(tmp_path / "out")], recursive=True)
    assert [path.name for path, _ in todo.pairs] == ["a.mp4", "c.mp4", "b.mkv"]
    assert f"{locked}, which cannot be read" in todo.left
    with pytest.raises(InputError, match=r"folder that can be read\. .*locked: Permission denied"):
        plan([str(locked), str(tmp_path / "out")])


def test_a_watched_folder_goes_on_beside_one_that_cannot_be_read(tmp_path, films, locked):
    now, told = [0.0], []

    def sleep(seconds):
        now[0] += seconds
        assert now[0] < 60

    out = str(tmp_path / "out")
    how = {"recursive": True, "clock": lambda: now[0], "sleep": sleep}
    coming = arriving([str(locked), str(films), out], tell=told.append, **how)
    assert {path.name for path, _ in itertools.islice(coming, 3)} == {"a.mp4", "b.mkv", "c.mp4"}
    assert told == [f"{locked} cannot be read; it is passed over until it can"] * 2  # as a place, and within the other


def test_what_is_refused(tmp_path, films):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="none at"):
        plan([str(tmp_path / "missing"), str(out)])
    with pytest.raises(InputError, match="none in"):
        plan([str(films / "*.avi"), str(out)])
    with pytest.raises(InputError, match="folder as output"):
        plan([str(films), str(tmp_path / "out.mp4")])
    with pytest.raises(ValueError, match=r"name of a file"):
        plan([str(films / "a.mp4"), str(films / "old" / "b.mkv"), str(tmp_path / "out.mp4")])
    with pytest.raises(ValueError, match="another file"):
        plan([str(films), str(films)], overwrite=True)
    with pytest.raises(ValueError, match="folder"):
        plan([str(films), str(films / "notes.txt")])
    out.mkdir()
    (out / "a.mp4").write_bytes(b"somebody's film")
    with pytest.raises(ValueError, match="--skip-existing"):
        plan([str(films), str(out)])


def test_an_input_that_is_missing_does_not_stop_the_others(tmp_path, films, monkeypatch):
    monkeypatch.setattr(imagesr, "STARTED", imagesr.STARTED - 1000)
    inputs = [films / "none.mp4", films / "a.mp4", films / "old" / "b.mkv", films / "*.avi"]
    done = run_video(*inputs, f"{tmp_path / 'out'}/", "-n", "lanczos", "--json", tmp_path / "report.json")
    assert done.returncode == 1
    assert made(tmp_path / "out") == ["a.mp4", "b.mkv"]
    told = done.stderr.splitlines()
    assert [line for line in told if line.startswith("imagesr video: Expected")] == [
        f"imagesr video: Expected videos, a folder or a pattern. There is none at {inputs[0]}",
        f"imagesr video: Expected videos. There is none in {inputs[3]}",
    ]
    assert told[-1].startswith("imagesr video: 2 of 4 made")
    # Each video counts from its own start; a video that is alone counts from that of the process.
    assert all(report["first_frame_s"] < 500 for report in json.loads((tmp_path / "report.json").read_text()))
    assert run_video(*inputs[::3], f"{tmp_path / 'none'}/").returncode == 3
    run_video(inputs[1], tmp_path / "one.mp4", "-n", "lanczos", "--json", tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["first_frame_s"] > 1000


def test_videos_that_become_one_file_are_refused_and_the_others_made(tmp_path, films):
    shutil.copy(films / "a.mp4", films / "a.avi")
    shutil.copy(films / "a.mp4", films / "c.mp4")
    todo = plan([str(films), str(tmp_path / "out")])
    assert [path.name for path, _ in todo.pairs] == ["c.mp4"]
    assert sorted(path.name for path, _ in todo.clashes) == ["a.avi", "a.mp4"]


def test_a_file_that_is_named_twice_is_taken_once(tmp_path, films):
    out = tmp_path / "out"
    for places in ([films, films / "a.mp4"], [films / "*.mp4", films / "a*"], [films, films / "old" / ".." / "a.mp4"]):
        todo = plan([*map(str, places), str(out)])
        assert ([pair[1] for pair in todo.pairs], todo.clashes) == ([out / "a.mp4"], [])
    todo = plan([str(films), str(films / "old"), str(out)], recursive=True)
    assert [pair[1] for pair in todo.pairs] == [out / "a.mp4", out / "old" / "b.mkv"]


def test_two_arriving_videos_that_become_one_file_are_told(tmp_path, films):
    shutil.copy(films / "a.mp4", films / "a.avi")
    now, told = [0.0], []

    def sleep(seconds):
        now[0] += seconds
        if now[0] > 20:
            raise TimeoutError

    coming = arriving([str(films), str(tmp_path / "out")], tell=told.append, clock=lambda: now[0], sleep=sleep)
    assert next(coming)[0] == films / "a.avi"
    with pytest.raises(TimeoutError):
        next(coming)
    assert told == [
        f"{films / 'a.mp4'}: not the only one that would become {tmp_path / 'out' / 'a.mp4'}; {films / 'a.avi'} does"
    ]


def test_names_of_results():
    names = ["a.MKV", "a.avi", "-", "shot_%04d.png", "%05d.png"]
    assert [result_name(Path(name)) for name in names] == ["a.MKV", "a.mp4", "stdin.mp4", "shot.mp4", "pictures.mp4"]


def test_one_that_fails_does_not_end_the_others(tmp_path, films):
    (films / "bad.mp4").write_text("This is not a film.\n" * 50)
    done = run_video(films, tmp_path / "out", "-r", "--json", tmp_path / "r.json", *FAST[:2])
    assert done.returncode == 1
    assert made(tmp_path / "out") == ["a.mp4", "old/b.mkv"]
    assert "bad.mp4: Expected a video file" in done.stderr
    assert f"2 of 3 made, in {tmp_path / 'out'}" in done.stderr
    assert len(json.loads((tmp_path / "r.json").read_text())) == 2
    assert len(frame_times(tmp_path / "out" / "old" / "b.mkv")[0]) == 4


@pytest.mark.parametrize(
    ("codes", "there", "expected"),
    [
        ([0, 0], False, 0),
        ([5, 5], False, 5),
        ([5, 0], False, 5),
        ([5], True, 5),
        ([2, 2], False, 2),
        ([4, 3], False, 4),
        ([3, 0], False, 1),
        ([3, 5], False, 1),
        ([3], True, 1),
        ([], True, 0),
    ],
)
def test_exit_codes_of_several(codes, there, expected):
    assert _code_of_several(codes, there=there) == expected


def test_a_size_that_no_video_can_have_is_told_for_each(tmp_path, films):
    done = run_video(films, tmp_path / "out", "-r", *FAST[:2], "--size", "20000x20000")
    assert (done.returncode, done.stderr.count("Expected an output of at most")) == (2, 2)


def test_what_is_whole_is_skipped(tmp_path, films):
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(films / "a.mp4", out / "a.mp4")
    (out / "old").mkdir()
    (out / "old" / "b.mkv").write_bytes((films / "a.mp4").read_bytes()[:2000])  # a copy that broke off
    done = run_video(films, out, "-r", "--skip-existing", "-n", "lanczos")
    assert done.returncode == 0, done.stderr
    assert (out / "a.mp4").read_bytes() == (films / "a.mp4").read_bytes()
    assert len(frame_times(out / "old" / "b.mkv")[0]) == 4
    assert "1 of 1 made, 1 exist already" in done.stderr
    done = run_video(films, out, "-r", "--skip-existing", "-n", "lanczos")
    assert (done.returncode, "0 of 0 made, 2 exist already" in done.stderr) == (0, True)
    done = run_video(films / "a.mp4", out / "a.mp4", "--skip-existing", "-n", "lanczos")
    assert (done.returncode, (out / "a.mp4").read_bytes()) == (0, (films / "a.mp4").read_bytes())


def test_a_file_is_taken_when_it_has_stopped_growing(tmp_path, small):
    folder, now = tmp_path / "in", [0.0]
    folder.mkdir()
    shutil.copy(small, folder / "first.mp4")

    def sleep(seconds):
        now[0] += seconds
        if now[0] < 8:
            with (folder / "growing.mp4").open("ab") as file:
                file.write(b"more")
        assert now[0] < 60

    (tmp_path / "out").mkdir()
    shutil.copy(small, tmp_path / "out" / "done.mp4")
    shutil.copy(small, folder / "done.mp4")
    coming = arriving([str(folder), str(tmp_path / "out")], clock=lambda: now[0], sleep=sleep)
    first, at_first = next(coming), now[0]
    second, at_second = next(coming), now[0]
    assert (first, second) == tuple((folder / n, tmp_path / "out" / n) for n in ("first.mp4", "growing.mp4"))
    assert at_first >= batch.SETTLED_S
    assert at_second >= 7 + batch.SETTLED_S
    (folder / "growing.mp4").write_bytes(small.read_bytes())  # it failed, and is put there again
    assert next(itertools.islice(coming, 1))[0] == folder / "growing.mp4"


@pytest.mark.skipif(os.name != "posix", reason="ends it by a signal")
def test_a_folder_that_fills(tmp_path, small):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    soon = "import imagesr.video.batch as batch; batch.SETTLED_S = 0.5; import imagesr.video.__main__ as command"
    watch = f"import sys; {soon}; sys.exit(command.main(sys.argv[1:]))"
    command = [sys.executable, "-c", watch, folder, out, "--watch", "-n", "lanczos"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    shutil.copy(small, folder / "a.mp4")
    until((out / "a.mp4").exists, process)
    shutil.copy(small, folder / "b.mp4")
    until((out / "b.mp4").exists, process)  # it may not be counted yet, the first one is
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert re.search("[12] made, 0 failed", told)
    assert len(frame_times(out / "a.mp4")[0]) == 4


def test_a_damaged_video_that_was_made_has_not_failed(tmp_path, monkeypatch, capsys):
    made = types.SimpleNamespace(missing="1 frame missing")
    monkeypatch.setattr(command, "_one", lambda *given: made)
    monkeypatch.setattr(batch, "arriving", lambda *given, **more: iter([(tmp_path / "a.avi", tmp_path / "a.mp4")]))
    command.main([str(tmp_path), str(tmp_path / "out"), "--watch"])
    assert "1 made, 0 failed" in capsys.readouterr().err


def test_an_interrupted_batch_says_how_many_were_made(tmp_path, small, monkeypatch, capsys):
    made = []

    def upscale(path, out, *given):
        if made:
            raise Interrupted(signal.SIGINT, "nothing was written")
        made.append(out)
        return types.SimpleNamespace(missing="")

    monkeypatch.setattr(command, "_one", upscale)
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(small, tmp_path / name)
    (tmp_path / "out").mkdir()
    assert command.main([str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"), str(tmp_path / "out")]) == 130
    assert "interrupted; 1 of 2 made, in" in capsys.readouterr().err
