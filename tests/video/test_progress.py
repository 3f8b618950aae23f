"""What is said while a run goes on, where there is no terminal."""

import json

import pytest

from imagesr.video import __main__ as command


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that stands still until it is set: a list of one time in seconds."""
    now = [100.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])
    return now


def run(clock, kind, *, quiet=False, done=0):
    """Say that a frame is done every half second, 100 of them after those that are `done`."""
    with command._progress(kind, quiet) as progress:
        for frame in range(1, 101):
            clock[0] += 0.5
            if progress:
                progress(done + frame, done + 100)


def test_outside_a_terminal_there_is_a_line_every_ten_seconds(clock, capsys):
    run(clock, "auto")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "imagesr video: frame 20 of 100, 40 s left, 2.0 fps"
    assert [line.split()[3] for line in lines] == ["20", "40", "60", "80", "100"]


def test_frames_of_earlier_runs_count_for_nothing(clock, capsys):
    run(clock, "auto", done=1000)
    assert capsys.readouterr().err.splitlines()[0] == "imagesr video: frame 1020 of 1100, 40 s left, 2.0 fps"


def test_json_comes_every_second_and_at_the_end(clock, capsys):
    run(clock, "json")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(lines) == 50
    assert lines[-1] == {"frames": 100, "expected": 100, "fps": 2.0, "eta_s": 0.0}


@pytest.mark.parametrize(("kind", "quiet"), [("none", False), ("auto", True)])
def test_nothing_is_said_where_that_was_asked_for(clock, capsys, kind, quiet):
    run(clock, kind, quiet=quiet)
    assert capsys.readouterr().err == ""
