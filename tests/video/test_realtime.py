"""A rate is held: by what is cheap enough, and a cheaper model while frames are late."""

import types
from fractions import Fraction

import numpy as np
import pytest
from conftest import write_clip

import imagesr
from imagesr.scale import Scale
from imagesr.video import realtime
from imagesr.video.realtime import LADDER, Late, Pace, fast_enough
from imagesr.video.report import Report


class Clock:
    """Tell a time that tests set."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def played(pace, clock, seconds_of, *, fps, frames):
    """Return the step of every frame of a machine that takes `seconds_of` a step for a frame, one after another."""
    late, steps = Late(fps, clock=clock), []
    for _ in range(frames):
        steps.append(pace.step(late()))
        clock.now += seconds_of[steps[-1]]
    return steps


def test_what_holds_the_rate_stays(clock):
    pace = Pace(30, ["best", "fast"], clock=clock)
    assert set(played(pace, clock, [1 / 31, 1 / 60], fps=30, frames=3000)) == {0}
    assert pace.shares == {"best": 1.0}


def test_a_cheaper_step_is_taken_while_late_and_the_better_one_tried_ever_more_rarely(clock):
    pace = Pace(30, ["best", "balanced", "fast"], clock=clock)
    begun = clock.now
    steps = played(pace, clock, [1 / 20, 1 / 22, 1 / 60], fps=30, frames=30 * 120)
    assert clock.now - begun < 120 * 1.02  # the rate is held
    assert steps[:4] == [0] * 4
    assert steps.index(1) < 40
    assert steps.index(2) > steps.index(1)
    early, late = (np.count_nonzero(np.diff(part)) for part in (steps[:900], steps[-900:]))
    assert late < early
    assert sum(pace.shares.values()) == pytest.approx(1, abs=0.01)
    assert pace.shares["fast"] > 0.5


def test_a_short_load_is_forgotten(clock):
    pace = Pace(25, ["best", "fast"], clock=clock)
    late = Late(25, clock=clock)
    steps = []
    for number in range(500):
        steps.append(pace.step(late()))
        loaded = 50 <= number < 80
        clock.now += (0.1 if steps[-1] == 0 else 0.02) if loaded else 0.03
    assert 1 in steps[50:120]
    assert set(steps[-100:]) == {0}


def test_a_lead_of_more_than_a_second_is_forgotten(clock):
    late = Late(10, clock=clock)
    for _ in range(100):
        early = late()
    assert early == pytest.approx(-1, abs=0.11)
    clock.now += 2
    assert late() == pytest.approx(0.9, abs=0.11)


@pytest.mark.parametrize(
    ("seconds", "fps", "names"),
    [
        ({"best": 0.05, "fast": 0.01}, 30, ["fast"]),
        ({"best": 0.03, "fast": 0.01}, 30, ["best", "fast"]),
        ({"best": 5.0, "fast": 5.0}, 30, ["fast"]),
    ],
)
def test_what_is_too_slow_from_the_first_is_left_out(seconds, fps, names):
    assert fast_enough(seconds, fps) == names


def test_a_video_in_time_has_all_its_frames(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "in.mp4", size=(96, 54), frames=40)
    monkeypatch.setattr(realtime, "frame_seconds", lambda upscaler, info: 1e-4)
    report = imagesr.upscale_video(clip, tmp_path / "slow.mp4", realtime=0.5)
    assert report.by_model == {"best": 1.0}
    assert report.frames == 40
    assert "in time: best 100%" in str(report)
    assert (report.flavour, report.detail) == ("film", 0.6) and report.clean is not None
    monkeypatch.setattr(realtime, "_STAY_S", 0)
    report = imagesr.upscale_video(clip, tmp_path / "fast.mp4", realtime=1000, detail=0.5)
    assert report.frames == 40
    assert set(report.by_model) <= set(LADDER)
    assert len(report.by_model) > 1
    monkeypatch.setattr(realtime, "frame_seconds", lambda upscaler, info: 1.0)
    report = imagesr.upscale_video(clip, tmp_path / "plain.mp4", realtime=30)
    assert (report.by_model, report.model) == ({"lanczos": 1.0}, "lanczos")
    assert (report.flavour, report.precision, report.detail, report.clean, report.coding) == ("", "", None, None, "")
    monkeypatch.setattr(Report, "paced", lambda self: 940.0)
    report = imagesr.upscale_video(clip, tmp_path / "late.mp4", realtime=1000)
    assert "1000 frames a second were not held" in report.notes
    assert report.pace == 940.0


def test_the_start_is_no_part_of_a_rate_that_is_held(tmp_path, monkeypatch):
    """Models are loaded and timed first: for a second or more, in which a film has no frame yet."""
    clip = write_clip(tmp_path / "in.mp4", size=(96, 54), frames=3, sound=None)
    monkeypatch.setattr(realtime, "frame_seconds", lambda upscaler, info: 1e-4)
    monkeypatch.setattr(Report, "paced", lambda self: 25.0)
    report = imagesr.upscale_video(clip, tmp_path / "out.mp4", realtime="own")
    assert not any("not held" in note for note in report.notes)


@pytest.mark.parametrize("fps", [0, -1, 1001, float("nan")])
def test_a_rate_that_no_film_has_is_refused(tmp_path, fps):
    with pytest.raises(ValueError, match=r"^Expected a realtime from 0.01 to 1000 fps\. Received: \S+$"):
        imagesr.upscale_video(tmp_path / "in.mp4", tmp_path / "out.mp4", realtime=fps)


@pytest.mark.parametrize(
    ("given", "expected"), [(["--realtime"], "own"), (["--realtime=own"], "own"), (["--realtime", "12.5"], 12.5)]
)
def test_a_rate_alone_is_that_of_the_video(given, expected):
    from imagesr.video.__main__ import _parser

    assert _parser().parse_intermixed_args(["in.mp4", "out.mp4", *given]).realtime == expected


def test_no_rate_is_one_sentence(tmp_path, capsys):
    from imagesr.video.__main__ import main as video

    assert video([str(tmp_path / "in.mp4"), str(tmp_path / "out.mp4"), "--realtime", "0"]) == 2
    assert capsys.readouterr().err == "imagesr video: Expected a realtime from 0.01 to 1000 fps. Received: 0\n"


def test_a_clean_goes_to_the_models_of_the_ladder_that_take_it(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "in.mp4", size=(96, 54), frames=3, sound=None)
    monkeypatch.setattr(realtime, "frame_seconds", lambda upscaler, info: 1e-4)
    given, load_chain = {}, realtime.load_chain
    monkeypatch.setattr(
        realtime,
        "load_chain",
        lambda cards, *a, **k: given.update({cards[0].name: k["clean"]}) or load_chain(cards, *a, **k),
    )
    report = imagesr.upscale_video(clip, tmp_path / "out.mp4", realtime=25, clean=0.5)
    assert report.frames == 3
    assert given == {"best": 0.5, "balanced": 0.5, "fast": None}
    with pytest.raises(ValueError, match="Expected a clean from 0 to 1"):
        imagesr.upscale_video(clip, tmp_path / "much.mp4", realtime=25, clean=1.5)
    with pytest.raises(ValueError, match="Expected a model that takes a clean"):
        imagesr.upscale_video(clip, tmp_path / "fast.mp4", model="fast", clean=0.5)


class Named:
    """Stand in for an engine: what it costs is set by the test."""

    def __init__(self, name):
        self.card = self
        self.name = name


@pytest.fixture
def costs(monkeypatch):
    """Let models take set seconds for a frame, without loading any."""
    seconds = {"best": 0.10, "balanced": 0.05, "fast": 0.03, "lanczos": 0.01}
    monkeypatch.setattr(realtime, "load_model", lambda name, factor, **loading: [Named(name)])
    monkeypatch.setattr(realtime, "Upscaler", lambda info, size, engines: engines[0].name)
    monkeypatch.setattr(realtime, "frame_seconds", lambda upscaler, info: seconds[upscaler])
    return seconds


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (24, "16.0 frames a second, the video has 24; balanced would have held them, with about 27"),
        (30, "16.0 frames a second, the video has 30; fast would have held them, with about 36"),
        (90, "16.0 frames a second, the video has 90; no model would have held them here, lanczos comes to about 57"),
    ],
)
def test_a_slow_run_says_what_would_have_held(costs, rate, said):
    info = types.SimpleNamespace(rate=rate, bits=8)
    assert realtime.would_hold(info, (96, 54), [Named("best")], Scale(3, 2), 16.0, parallel=3) == said


def test_a_run_of_some_length_that_is_slower_than_its_video_has_the_note(tmp_path, monkeypatch):
    from imagesr.video import upscale
    from imagesr.video.__main__ import main as video

    clip = write_clip(tmp_path / "clip.mp4", size=(32, 32), frames=30, rate=Fraction(1000), sound=None)
    given = []
    monkeypatch.setattr(upscale, "would_hold", lambda *arguments, **loading: given.append(arguments) or "said so")
    monkeypatch.setattr(upscale, "_LONG_S", 0.01)
    report = imagesr.upscale_video(clip, tmp_path / "out.mp4", model="fast")
    assert "said so" in report.notes
    assert given[0][3] == Scale(3, 2)
    assert "said so" not in imagesr.upscale_video(clip, tmp_path / "quiet.mp4", model="fast", advise=False).notes
    record = tmp_path / "quiet.json"
    assert video([str(clip), str(tmp_path / "told.mp4"), "-n", "fast", "--quiet", "--json", str(record)]) == 0
    assert "said so" not in record.read_text("utf-8")
    assert "said so" not in imagesr.upscale_video(clip, tmp_path / "plain.mp4", model="lanczos").notes
    monkeypatch.setattr(upscale, "_LONG_S", 1.0)
    assert "said so" not in imagesr.upscale_video(clip, tmp_path / "short.mp4", model="fast").notes


def test_the_note_is_no_part_of_the_seconds_of_the_run(tmp_path, monkeypatch):
    from imagesr.video import upscale

    clip = write_clip(tmp_path / "clip.mp4", size=(32, 32), frames=30, rate=Fraction(1000), sound=None)
    read, noting = upscale.time.perf_counter, []

    def would_hold(*arguments, **loading):
        noting.append(True)
        return "said so"

    monkeypatch.setattr(upscale, "would_hold", would_hold)
    monkeypatch.setattr(upscale, "_LONG_S", 0.01)
    later = types.SimpleNamespace(perf_counter=lambda: read() + 1e6 * len(noting))
    monkeypatch.setattr(upscale, "time", later)  # the note takes a million seconds
    report = imagesr.upscale_video(clip, tmp_path / "out.mp4", model="fast")
    assert "said so" in report.notes
    assert report.seconds < 1e5
