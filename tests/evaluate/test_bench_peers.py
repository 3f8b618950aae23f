"""What is measured beside our models, how fast this machine is, and what holds here; on small clips."""

import json
import sys
from itertools import pairwise

import numpy as np
import pytest
from conftest import ffmpeg, write_clip
from torchfile import write_weights

from imagesr.card import find_model
from imagesr.engines.peak import int8_convolution
from imagesr.errors import ModelError
from imagesr.evaluate import bench, fit, peers, screen, speed
from imagesr.evaluate.peers import Method, Target, methods, target_table, targets
from imagesr.media.frames import Frame, plane
from imagesr.media.source import Source
from imagesr.pixels import resize
from imagesr.scale import Scale

X2 = Scale(2)


@pytest.fixture
def nearest(tmp_path):
    """Return a file of ECBSR whose convolutions are all zero: what is left is its input, repeated."""
    weights = {"backbone.0.0.weight": np.zeros((4, 3, 3, 3), "<f4"), "backbone.0.0.bias": np.zeros(4, "<f4")}
    weights |= {"backbone.1.0.weight": np.zeros((12, 4, 3, 3), "<f4"), "backbone.1.0.bias": np.zeros(12, "<f4")}
    write_weights(tmp_path / "nearest.pth", weights)
    return tmp_path / "nearest.pth"


def first_frame(clip):
    with Source(clip) as source:
        return source.info, next(item for item in source if isinstance(item, Frame))


def test_an_rgb_network_gives_back_the_luma_that_it_was_given(clip, nearest):
    found = methods([nearest], [], X2, precision="auto")
    info, frame = first_frame(clip)
    luma = plane(frame, 0).copy()
    result = found["nearest"].make(info, (2 * info.width, 2 * info.height))(frame)
    assert (result.pts, result.time_base) == (frame.pts, frame.time_base)
    error = plane(result, 0).astype(int) - luma.repeat(2, 0).repeat(2, 1)
    assert np.abs(error).mean() < 0.6  # RGB of 8 bits does not hold every luma
    assert found["nearest"].card.multiply_accumulates == 9 * (3 * 4 + 4 * 12)


def test_every_plain_method_upscales_and_sharpening_sharpens(clip):
    info, frame = first_frame(clip)
    size, found = (2 * info.width, 2 * info.height), methods([], [], X2, precision="auto")
    assert {"ffmpeg bicubic", "ffmpeg lanczos", "OpenCV cubic", "lanczos", "lanczos + CAS"} <= set(found)
    expected = resize(plane(frame, 0), size, "bicubic").astype(int)
    slopes = {}
    for name, method in found.items():
        result = method.make(info, size)(frame)
        assert (result.width, result.height, result.pts) == (*size, frame.pts)
        sr = plane(result, 0).astype(int)
        assert np.abs(sr - expected).mean() < 8, name
        slopes[name] = np.abs(np.diff(sr)).mean()
    assert slopes["lanczos + CAS"] > 1.02 * slopes["lanczos"]


def test_opencv_is_left_out_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert not any("OpenCV" in name for name in methods([], [], X2, precision="auto"))


def test_a_network_of_another_scale_is_refused(nearest):
    with pytest.raises(ModelError, match="Expected networks of x3"):
        methods([nearest], [], Scale(3), precision="auto")


def test_a_file_that_repeats_a_value_for_ever_is_refused_in_one_line(tmp_path, clip, capsys):
    """A stride of 0 lets a file of a kilobyte ask for a tensor of terabytes."""
    huge = np.broadcast_to(np.zeros(1, "<f4"), (2**20, 2**20, 3, 3))
    write_weights(tmp_path / "huge.pth", {"backbone.0.0.weight": huge})
    assert (tmp_path / "huge.pth").stat().st_size < 2000
    assert bench.main([str(clip), "--frames", "2", "--peers", str(tmp_path / "huge.pth")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("Received: a tensor of size 1048576x1048576x3x3 of 1 values")


def test_peers_have_speed_and_quality_and_texture_says_what_it_lacks(tmp_path, clip, nearest, monkeypatch):
    def missing(*arguments):
        raise ModelError("no weights")

    monkeypatch.setattr(peers, "texture_figures", missing)
    every = methods([nearest], [find_model("fast", X2)], X2, precision="int8")
    found = {name: every[name] for name in ("ffmpeg lanczos", "lanczos", "fast", "nearest")}
    said = []
    how = {"looped": clip, "frames": 6, "repeat": 1, "quality_frames": 2, "tell": said.append}
    rows = {row["model"]: row for row in peers.measure(clip, found, X2, tmp_path, **how)}
    assert list(rows) == list(found)
    assert all(row["fps"] > 0 and row["psnr_y"] > 15 and row["texture"] is None for row in rows.values())
    assert rows["ffmpeg lanczos"]["psnr_y"] == rows["lanczos"]["psnr_y"]  # the same filter
    assert len({row["psnr_y"] for row in rows.values()}) == 3
    assert rows["fast"]["precision"] == "int8"
    assert "without texture: no weights" in said
    text = peers.table(list(rows.values()))
    assert "| nearest (fp32) |" in text and len({line.count("|") for line in text.splitlines()}) == 1


def test_the_plot_shows_every_method_that_has_both_figures(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    drawn = []
    monkeypatch.setattr("imagesr.train.plots.draw_trade", lambda points, *rest: drawn.append((points, rest)))
    monkeypatch.setattr(peers.os, "cpu_count", lambda: 2)
    rows = [{"model": "a", "cpu_ms": 40.0, "texture": 0.2, "psnr_y": 30.0}]
    peers.plot([*rows, {"model": "b", "cpu_ms": None, "texture": 0.3, "psnr_y": 31.0}], tmp_path / "plot.png")
    assert drawn[-1][0] == [("a", 0.2, 50.0)]
    peers.plot([*rows, {"model": "c", "cpu_ms": 80.0, "texture": None, "psnr_y": 31.0}], tmp_path / "plot.png")
    assert drawn[-1][0] == [("a", 30.0, 50.0), ("c", 31.0, 25.0)] and "PSNR-Y" in drawn[-1][1][1]


def test_points_that_lie_close_together_share_a_label():
    points = [("a", 0.0, 60.0), ("b", 0.01, 60.5), ("c", 0.5, 61.0), ("d", 1.0, 0.0)]
    assert peers._labelled(points) == [("a, b", 0.0, 60.0), ("", 0.01, 60.5), ("c", 0.5, 61.0), ("d", 1.0, 0.0)]
    assert peers._labelled(points[:1]) == points[:1]


def test_most_of_a_screen_recording_stays_as_it_was():
    shown = [np.asarray(picture.convert("L")) for picture in screen.pictures(120, (320, 180))]
    assert len(shown) == 120 and shown[0].shape == (180, 320)
    changed = [(a != b).mean() for a, b in pairwise(shown)]
    assert sum(share > 0.05 for share in changed) == 3  # scrolls of a frame each
    assert 0 < np.median([share for share in changed if share <= 0.05]) < 0.02 or changed.count(0) > 30


def test_a_screen_recording_is_timed_beside_the_clip(clip, tmp_path, monkeypatch):
    ran = []
    speeds = iter([90.0, 30.0, 80.0, 40.0, 75.0, 30.0])
    monkeypatch.setattr(bench, "SIZE", (320, 180))
    monkeypatch.setattr(
        bench, "end_to_end", lambda model, film, *rest: ran.append((model, film.name)) or {"pace": next(speeds)}
    )
    how = {"repeat": 3, "precision": "auto", "threads": 0, "tell": lambda line: None}
    assert bench.still_areas(clip, 12, tmp_path, **how) == 2.5
    assert ran == [("balanced", "screen.mp4"), ("balanced", clip.name)] * 3


def test_the_table_of_targets_says_what_is_met():
    rows = [{"model": "ffmpeg lanczos", "over_lanczos": 1.25}, {"model": "fast", "over_lanczos": 0.65}]
    rows.append({"model": "balanced", "fps": 34.5})
    found = list(targets(rows, {"peak": {"share": 1}, "best": {"share": 0.71}}, {"copies": 1.2}, 2.5))
    lines = target_table(found).splitlines()
    assert "| fast over own lanczos | 0.65 | 0.70, missed | 0.60, met |" in lines
    assert "| best over own lanczos | not measured | 0.40, missed | 0.28, missed |" in lines
    assert "| own lanczos over ffmpeg's | 0.80 | 0.97, missed | 0.97, missed |" in lines
    assert "| network of best, share of the int8 peak | 0.71 | 0.70, met | 0.70, met |" in lines
    assert "| copies and conversions, CPU-ms a frame | 1.20 | 1.00, missed | 1.00, missed |" in lines
    assert "| balanced, frames per second | 34.50 | | 33.00, met |" in [line.replace("|  |", "| |") for line in lines]
    assert "| a screen recording with still areas over the clip | 2.50 | 3.00, missed | 3.00, missed |" in lines
    assert Target("x", 1.0, 1.0, 1.0, least=False).met(1.0)


def test_the_stages_of_a_frame_and_the_share_of_the_peak_are_measured(clip, tmp_path):
    card = find_model("fast", Scale(3, 2))
    figures = speed.stages(clip, card, tmp_path)
    assert list(figures) == ["decode", "network", "chroma", "copies", "encode", "network, 10-bit video"]
    assert figures["network"] > 0 and figures["encode"] > 0 and figures["chroma"] > 0
    found = speed.shares([card], (64, 36))
    assert found["peak"]["share"] == 1
    assert 0 < found["fast"]["share"] < 1  # so small a frame is far from the peak


def test_the_convolution_of_the_peak_counts_its_operations():
    run, operations = int8_convolution()
    run()
    assert operations == 2 * 256 * 256 * 9 * 96 * 96


def test_a_film_ends_with_its_frames_or_with_the_time(clip, tmp_path):
    make = Method(lambda info, size: methods([], [], X2, precision="auto")["lanczos"].make(info, size)).make
    assert min(speed.run_film(clip, make, X2, tmp_path / "out.mp4", frames=4)) > 0
    counted = []
    items = speed._until(iter(range(10**6)), 0.0)
    counted.extend(items)
    assert counted == [0]


def test_fit_names_the_best_model_that_holds_each_rate(monkeypatch):
    fps = fit.fit(seconds=0.01, size=(96, 54))
    assert list(fps) == ["best", "balanced", "fast", "lanczos"]
    assert min(fps.values()) > 0
    fps = {"best": 26.0, "balanced": 40.0, "fast": 55.0, "lanczos": 100.0}
    row = fit.table(fps).splitlines()[3]
    assert row == "| 720p | 26 | 40 | 55 | 100 | best | balanced | lanczos |"
    assert fit.table(fps).splitlines()[4].endswith("| fast | lanczos | none |")
    assert fit.holds(fps, 0.4, 60) == "best"


def test_fit_needs_no_tensorflow(monkeypatch, capsys):
    monkeypatch.setattr(fit, "fit", lambda precision: {"best": 26.0, "lanczos": 100.0})
    before = set(sys.modules)
    assert bench.main(["--fit"]) == 0
    assert "| 720p | 26 | 100 |" in capsys.readouterr().out
    assert not {"tensorflow", "keras"} & (set(sys.modules) - before)


def test_bench_peers_prints_every_table_and_writes_them(tmp_path, clip, nearest, monkeypatch, capsys):
    rows = [{"model": "lanczos", "fps": 9.0, "seconds_30_end_to_end": 3.3, "over_lanczos": 1.0}]
    monkeypatch.setattr(bench, "still_areas", lambda *arguments, **options: 2.5)
    monkeypatch.setattr(bench, "bench", lambda *arguments, **options: rows)
    monkeypatch.setattr(speed, "shares", lambda cards, size: {"peak": {"tops": 1.0, "share": 1.0, "cpu_ms": 1.0}})
    monkeypatch.setattr(speed, "stages", lambda *arguments: {"network": 9.0, "copies": 0.5})
    row = {"model": "nearest", "precision": "fp32", "fps": 5.0, "cpu_ms": 9.9, "psnr_y": 30.0, "texture": 0.2}
    given = []
    monkeypatch.setattr(peers, "measure", lambda clip, found, *rest, **options: given.extend(found) or [row])
    record = tmp_path / "peers.json"
    assert bench.main([str(clip), "--frames", "12", "--peers", str(nearest), "--json", str(record)]) == 0
    out = capsys.readouterr().out
    for text in (
        "| network | 9.0 |",
        "| peak |",
        "| nearest (fp32) | 5.0 | 9.9 | 30.00 | 0.200 |",
        "not measured",
        "for --frames 600",
    ):
        assert text in out
    assert {"nearest", "fast", "lanczos + CAS"} <= set(given)
    written = json.loads(record.read_text())
    assert [target["reached"] for target in written["targets"][-2:]] == [0.5, 2.5] and written["peers"] == [row]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plot", "a.png"], "--plot"),
        (["--fit", "--peers"], "one of"),
        (["--peers", "missing.pth"], "Received: there is no such file"),
        (["--peers", "clip.mp4"], "Received: a file ending in .mp4"),
        (["--fit"], "Expected --fit without a clip"),
        (["--threads", "-1"], "Expected --threads from 0 to 256"),
    ],
)
def test_what_cannot_be_is_refused(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", frames=3)
    assert bench.main(["clip.mp4", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1


def test_a_clip_that_quality_cannot_be_measured_on_is_refused_before_anything_runs(tmp_path, capsys, monkeypatch):
    deep = tmp_path / "deep.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.2", "-c:v", "ffv1", "-pix_fmt", "yuv420p10le", deep)
    monkeypatch.setattr(bench, "bench", lambda *arguments, **options: pytest.fail("it was run"))
    assert bench.main([str(deep), "--peers"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"imagesr bench: Expected a clip in 8-bit 4:2:0. Received: {deep} (yuv420p10le)"
