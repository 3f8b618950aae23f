import json
import sys

from imagesr.card import find_model
from imagesr.evaluate import bench
from imagesr.evaluate.bench import network_seconds, table
from imagesr.evaluate.speed import Ran, run_ffmpeg
from imagesr.scale import Scale


def test_every_model_and_lanczos_are_measured(tmp_path, clip, monkeypatch, capsys):
    monkeypatch.setattr(bench, "SIZE", (64, 36))
    assert bench.main([str(clip), "--frames", "30", "--json", str(tmp_path / "bench.json")]) == 0
    record = json.loads((tmp_path / "bench.json").read_text())
    rows = {row["model"]: row for row in record["rows"]}
    assert list(rows)[-5:] == ["lanczos", "linear", "fast", "balanced", "best"]
    for name in ("lanczos", "fast", "balanced"):
        row = rows[name]
        assert row["fps"] > 0
        assert row["first_frame_s"] > 0
        assert row["peak_memory_mb"] is None or row["peak_memory_mb"] > 50
        assert abs(row["seconds_30_end_to_end"] * row["fps"] - 30) < 1
    assert rows["fast"]["seconds_30_network"] > 0
    assert rows["fast"]["psnr_y"]["B100"] > 34
    assert rows["balanced"]["parameters"] > rows["fast"]["parameters"]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + len(rows)


def test_a_round_in_which_ffmpeg_fails_is_left_out(tmp_path, monkeypatch):
    report = {"first_frame_s": 1.0, "peak_memory_mb": 1, "cpu_ms": 1.0, "bottleneck": "", "stages": {}}
    rounds, own = iter([None, Ran(30.0, 5.0), Ran(50.0, 7.0)]), iter([1.0, 10.0, 10.0])
    monkeypatch.setattr(bench, "first_frames_repeated", lambda *arguments: None)
    monkeypatch.setattr(bench, "film_cards", lambda scale: [])
    monkeypatch.setattr(bench, "run_ffmpeg", lambda *arguments: next(rounds))
    monkeypatch.setattr(bench, "end_to_end", lambda *arguments: report | {"fps": next(own)})
    row = bench.bench(tmp_path / "clip.mkv", 30, repeat=3, tell=lambda line: None)[0]
    assert (row["model"], row["fps"], row["cpu_ms"], row["over_lanczos"]) == (bench.FFMPEG, 40.0, 6.0, 4.0)


def test_the_ffmpeg_in_path_is_measured_where_imageio_ffmpeg_is_missing(tmp_path, clip, monkeypatch):
    from imageio_ffmpeg import get_ffmpeg_exe

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ffmpeg").symlink_to(get_ffmpeg_exe())
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert min(run_ffmpeg(clip, 3, tmp_path, "scale=64:36")) > 0
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_ffmpeg(clip, 3, tmp_path, "scale=64:36") is None


def test_the_network_alone_is_timed_at_the_precision_asked_for(monkeypatch):
    monkeypatch.setattr(bench, "SIZE", (64, 36))
    seconds, precision = network_seconds(find_model("fast", Scale(3, 2)), precision="fp32", threads=0, repeat=1)
    assert seconds > 0
    assert precision == "fp32"


def test_a_table_leaves_out_what_was_not_measured():
    text = table([{"model": "ffmpeg lanczos", "fps": 100.0, "seconds_30_end_to_end": 0.3}])
    assert "| ffmpeg lanczos |" in text
    assert "0.30 s" in text
