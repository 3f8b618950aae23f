"""Figures of how natural a picture looks: what they say of what is known, ONNX files of others, the command."""

import json
import sys

import numpy as np
import onnx
import pytest
from conftest import picture, write_clip
from onnx import TensorProto, helper
from PIL import Image, ImageFilter

from imagesr.engines.openvino import load_distance
from imagesr.errors import ModelError
from imagesr.evaluate import perceptual as naturalness
from imagesr.evaluate.__main__ import main
from imagesr.evaluate.perceptual import COLUMNS, EXTRACTORS, perceptual_figures
from imagesr.metrics.fidelity import means, spectrum_ratios
from imagesr.metrics.niqe import niqe
from imagesr.pixels import luma

pytestmark = [pytest.mark.usefixtures("handlers"), pytest.mark.keras]
SPECTRUM = [f"spectrum_{high}" for high in (25, 50, 75, 100)]


def photo(width=300, height=212):
    noise = np.random.default_rng(0).normal(0, 9, (height, width, 1))
    return np.clip(picture(width, height) + noise, 0, 255).astype(np.uint8)


def blurred(rgb, sigma):
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(sigma)))


def of(measure, sr, hr, **options):
    return measure(luma(sr), luma(hr), sr, hr, **options)


# the spectrum


def test_the_power_of_a_picture_over_its_own_is_one():
    plane = luma(photo())
    assert list(spectrum_ratios(plane, plane, shave=2).values()) == [1, 1, 1, 1]
    flat = np.full((40, 50), 90, np.uint8)
    assert list(spectrum_ratios(flat, flat).values()) == [1, 1, 1, 1]


def test_blur_takes_power_and_noise_adds_it():
    hr = luma(photo())
    smooth = [spectrum_ratios(luma(blurred(photo(), sigma)), hr) for sigma in (0.6, 1.2)]
    for band in SPECTRUM[1:]:
        assert smooth[1][band] < smooth[0][band] < 1
    noise = np.random.default_rng(1).normal(0, 12, hr.shape)
    invented = spectrum_ratios(hr + noise, hr)
    assert invented["spectrum_100"] > 2 > 1.2 > invented["spectrum_25"] > 1


def test_a_power_is_its_definition():
    noise = np.random.default_rng(0).normal(0, 10, (256, 256))
    for ratio in spectrum_ratios(3 * noise, noise).values():
        assert ratio == pytest.approx(9, rel=0.01)
    y, x = np.mgrid[:128, :128]
    for i, band in enumerate(SPECTRUM):  # a wave in each band, along a diagonal
        frequency = (0.125 * i + 0.06) / 2**0.5
        ratios = spectrum_ratios(noise[:128, :128] + 20 * np.sin(2 * np.pi * frequency * (x + y)), noise[:128, :128])
        assert max(ratios, key=ratios.get) == band
        assert all(ratio == pytest.approx(1, abs=0.05) for key, ratio in ratios.items() if key != band)


def test_means_of_ratios_are_geometric():
    rows = [{"psnr_y": 20.0, "spectrum_25": 0.5}, {"psnr_y": 30.0, "spectrum_25": 2.0, "niqe": 4.0}]
    assert means(rows, ["psnr_y", "niqe", "spectrum_25", "lpips"]) == {
        "psnr_y": 25,
        "niqe": 4,
        "spectrum_25": pytest.approx(1),
    }


# distances that others trained


def write_graph(path, *, inputs=2, size=("h", "w"), of="difference"):
    """Write an ONNX graph of two pictures: their mean absolute difference, or the first's mean."""
    shape = [1, 3, *size]
    pictures = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "ab"[:inputs]]
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, [1, 1, 1, 1])
    nodes = [helper.make_node("Sub", ["a", "b"], ["c"]), helper.make_node("Abs", ["c"], ["d"])]
    if of != "difference":
        zero = helper.make_node("Sub", ["b", "b"], ["c"]) if inputs == 2 else helper.make_node("Sub", ["a", "a"], ["c"])
        nodes = [zero, helper.make_node("Add", ["a", "c"], ["d"])]
    nodes.append(helper.make_node("GlobalAveragePool", ["d"], ["e"]))
    nodes.append(helper.make_node("ReduceMean", ["e"], ["result"]))
    graph = helper.make_graph(nodes, "distance", pictures, [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_an_onnx_file_measures_pictures_of_any_size(tmp_path):
    distance = load_distance(write_graph(tmp_path / "distance.onnx"))
    random = np.random.default_rng(0)
    for size in ((40, 31), (64, 64)):
        a, b = random.random((2, 1, 3, *size), np.float32)
        assert distance(a, b) == pytest.approx(np.abs(a - b).mean(), rel=1e-5)


@pytest.mark.parametrize("wrong", ["none", "text", "one input", "one size"])
def test_another_file_is_refused(wrong, tmp_path):
    file = tmp_path / "file.onnx"
    if wrong == "text":
        file.write_text("no network")
    elif wrong != "none":
        write_graph(file, of="mean", **({"inputs": 1} if wrong == "one input" else {"size": (64, 64)}))
    with pytest.raises(ModelError, match=r"file\.onnx") as error:
        load_distance(file)
    assert "\n" not in str(error.value)


def test_lpips_is_shown_samples_around_zero_and_dists_from_zero_on(tmp_path):
    file = write_graph(tmp_path / "mean.onnx", of="mean")
    row = of(perceptual_figures(lpips=file, dists=file), photo(), photo(), shave=4)
    mean = photo()[4:-4, 4:-4].mean() / 255
    assert row["dists"] == pytest.approx(mean, rel=1e-4)
    assert row["lpips"] == pytest.approx(2 * mean - 1, rel=1e-4)


# all together


@pytest.fixture(scope="module")
def measure():
    return perceptual_figures()


def test_equal_pictures_have_no_distance(measure):
    row = of(measure, photo(), photo(), shave=2)
    assert list(row) == ["psnr_y", "ssim_y", "psnr_rgb", *EXTRACTORS.values(), "niqe", "niqe_hr", *SPECTRUM]
    assert [row[key] for key in EXTRACTORS.values()] == [0, 0]
    assert row["niqe"] == row["niqe_hr"] == niqe(luma(photo())[2:-2, 2:-2])


def test_what_is_blurred_more_is_further_away(measure):
    rows = [of(measure, blurred(photo(), sigma), photo()) for sigma in (0.5, 1, 2)]
    for key in EXTRACTORS.values():
        values = [row[key] for row in rows]
        assert 0 < values[0] < values[1] < values[2]


def test_a_large_picture_is_measured_in_pieces(measure, monkeypatch):
    sr = blurred(photo(), 1)
    whole = of(measure, sr, photo())
    monkeypatch.setattr(naturalness, "PIECE", 110)
    pieces = of(measure, sr, photo())
    for key in EXTRACTORS.values():
        assert pieces[key] == pytest.approx(whole[key], rel=0.05)
    assert naturalness._in_pieces(lambda a, b: float((a - b).mean()), sr[None] / 255, photo()[None] / 255) == (
        pytest.approx((sr / 255 - photo() / 255).mean())
    )


def test_a_small_picture_has_no_niqe(measure):
    row = of(measure, photo(90, 80), photo(90, 80))
    assert not {"niqe", "niqe_hr"} & set(row)
    assert row["spectrum_100"] == 1


def test_without_keras_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ModelError, match=r"\[train\]"):
        perceptual_figures()


# the command


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a picture and a clip."""
    folder = tmp_path_factory.mktemp("place")
    Image.fromarray(photo()).save(folder / "photo.png")
    write_clip(folder / "film.mp4", size=(240, 144), frames=4, sound=None)
    return folder


def test_the_command_prints_them_beside_psnr_and_draws_the_trade(place, tmp_path, capsys):
    file, trade = tmp_path / "figures.json", tmp_path / "trade.png"
    lpips = write_graph(tmp_path / "lpips.onnx")
    given = ["--model", "bicubic", "lanczos", "--scale", "2", "--data", place, "--frames", "2", "--lpips", lpips]
    assert main([*map(str, given), "--plot", str(trade), "--json", str(file)]) == 0
    header = capsys.readouterr().out.splitlines()[1].split("   ")
    wanted = [*("PSNR-Y", "PHOTOS", "VIEWS", "LPIPS", "NIQE", "NIQE-HR"), *(f"≤{n} %" for n in (25, 50, 75, 100))]
    assert [name for name in map(str.strip, header) if name in wanted] == wanted
    assert "DISTS" not in header
    bicubic, lanczos = json.loads(file.read_text())["models"]
    for record in (bicubic, lanczos):
        keys = set(COLUMNS) - {"dists"}
        clip, still = record["images"]
        assert keys <= set(still) & set(clip) & set(record)
        assert record["spectrum_100"] == pytest.approx((still["spectrum_100"] * clip["spectrum_100"]) ** 0.5)
    assert bicubic["spectrum_50"] < lanczos["spectrum_50"] < 1
    drawn = np.asarray(Image.open(trade).convert("RGB"))
    assert drawn.shape == (500, 700, 3)
    for colour in ((31, 119, 180), (255, 127, 14)):  # a point each
        assert (np.abs(drawn.astype(int) - colour).sum(-1) < 30).sum() > 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lpips", "none.onnx"], "none.onnx"),
        (["--dists", "photo.png"], "photo.png"),
    ],
)
def test_mistakes_are_told_in_one_sentence(place, arguments, words, capsys):
    option, name = arguments
    assert main(["--model", "lanczos", "--data", str(place), option, str(place / name)]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("imagesr evaluate: ")]
    assert len(told) == 1
    assert words in told[0]
