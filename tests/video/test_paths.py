"""Names and places of files that are unusual, and several videos at once."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import frame_times, run_python, run_video, write_clip
from running import until


@pytest.fixture
def folder(tmp_path):
    write_clip(tmp_path / "in.mp4", size=(96, 64), frames=5)
    return tmp_path


def one_line(done, code):
    assert done.returncode == code, (done.returncode, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_dashes(folder):
    (folder / "-in.mp4").write_bytes((folder / "in.mp4").read_bytes())
    command = [sys.executable, "-m", "imagesr.video", "-n", "lanczos", "--", "-in.mp4", "-out.mp4"]
    assert subprocess.run(command, cwd=folder, capture_output=True).returncode == 0
    assert (folder / "-out.mp4").exists()


@pytest.mark.parametrize("length", [250, 251, 255, 256, 260, 5000])
def test_long_names(folder, length):
    out = folder / ("x" * (length - 4) + ".mp4")
    done = run_video(folder / "in.mp4", out, "-n", "lanczos")
    if length <= 255:
        assert done.returncode == 0, done.stderr
    else:
        one_line(done, 2)
    one_line(run_video(folder / ("y" * 300 + ".mp4"), folder / "out.mp4", "-n", "lanczos"), 3)
    one_line(run_video(folder / "in.mp4", folder / "out.mp4", "-n", "lanczos", "--json", folder / ("z" * 300)), 2)


@pytest.mark.skipif(os.name != "posix", reason="modes of files are of POSIX")
def test_folders_that_cannot_be_read(folder):
    closed = folder / "closed"
    closed.mkdir()
    closed.chmod(0)
    if os.access(closed, os.X_OK):
        closed.chmod(0o755)
        pytest.skip("this user may read everything")
    try:
        one_line(run_video(closed / "in.mp4", folder / "out.mp4", "-n", "lanczos"), 3)
        one_line(run_video(folder / "in.mp4", closed / "out.mp4", "-n", "lanczos"), 2)
        one_line(run_video(folder / "in.mp4", folder / "out.mp4", "-n", "lanczos", "--json", closed / "r.json"), 2)
    finally:
        closed.chmod(0o700)


def test_folders_that_cannot_be_read_by_any_user(folder, monkeypatch):
    from pathlib import Path

    from imagesr.errors import InputError
    from imagesr.media.source import Source
    from imagesr.video.options import check_paths

    def refuse(self, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(ValueError, match="Permission denied"):
        check_paths(folder / "in.mp4", folder / "out.mp4", overwrite=False)
    with pytest.raises(InputError, match="Permission denied"):
        Source(folder / "in.mp4")


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need rights elsewhere")
def test_an_output_that_is_a_link_stays_one(folder):
    (folder / "there").mkdir()
    (folder / "there" / "film.mp4").write_bytes(b"old")
    (folder / "out.mp4").symlink_to(folder / "there" / "film.mp4")
    assert run_video(folder / "in.mp4", folder / "out.mp4", "-n", "lanczos").returncode == 2
    assert run_video(folder / "in.mp4", folder / "out.mp4", "-n", "lanczos", "-y").returncode == 0
    assert (folder / "out.mp4").is_symlink()
    assert len(frame_times(folder / "there" / "film.mp4")[0]) == 5
    (folder / "own.mp4").symlink_to(folder / "in.mp4")
    one_line(run_video(folder / "in.mp4", folder / "own.mp4", "-n", "lanczos", "-y"), 2)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="POSIX")
def test_hang_up_leaves_nothing(tmp_path):
    source = write_clip(tmp_path / "in.mp4", frames=500, size=(96, 64), sound=None, options={"preset": "ultrafast"})
    command = [sys.executable, "-m", "imagesr.video", source, tmp_path / "out.mp4", "-s", "4", "--preset", "slow"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until((tmp_path / "out.mp4.part").exists, process)
    process.send_signal(signal.SIGHUP)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 129
    assert len(stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4"]


def test_several_videos_into_a_folder(folder):
    write_clip(folder / "b.mkv", size=(96, 64), frames=5)
    (folder / "broken.avi").write_bytes(b"nothing")
    files = [folder / "in.mp4", folder / "b.mkv"]
    done = run_video(*files, folder / "out", "-n", "lanczos")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["b.mkv", "in.mp4"]
    done = run_video(*files, folder / "broken.avi", f"{folder / 'two'}/", "-n", "lanczos")
    assert done.returncode == 1
    assert "broken.avi" in done.stderr
    assert len(list((folder / "two").iterdir())) == 2
    one_line(run_video(*files, folder / "out.mp4", "-n", "lanczos"), 2)
    one_line(run_video(folder / "in.mp4", folder / "out" / "in.mp4", folder / "same", "-n", "lanczos"), 2)


def test_a_signal_waits_for_a_block_that_is_not_to_be_interrupted():
    program = """
import signal
from imagesr.cli import Interrupted, interrupts, uninterrupted
try:
    with interrupts(), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        print("done")
except Interrupted:
    print("told")
"""
    assert run_python("-c", program).stdout.split() == ["done", "told"]
