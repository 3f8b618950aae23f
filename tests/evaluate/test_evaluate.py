import json
import shutil
import sys
import tempfile

import numpy as np
import pytest
from conftest import ffmpeg, picture, slow, write_clip
from PIL import Image

from imagesr.card import find_model
from imagesr.engines import load_engine
from imagesr.engines.tiles import TILE
from imagesr.errors import ModelError
from imagesr.evaluate import __main__ as command
from imagesr.evaluate import clips, protocol, sheet
from imagesr.evaluate.clips import Condition, measure_clip
from imagesr.evaluate.sheet import Worst
from imagesr.media.frames import fitted, plane
from imagesr.media.images import find_images, read_rgb
from imagesr.metrics.fidelity import psnr, ssim
from imagesr.metrics.vmaf import vmaf_ffmpeg
from imagesr.pixels import luma, resize, weights
from imagesr.scale import Scale

pytestmark = pytest.mark.usefixtures("handlers")
X15 = Scale(3, 2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return a folder of two pictures whose sizes are not multiples of anything."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, size in (("a", (101, 73)), ("b", (140, 97))):
        noise = np.random.default_rng(0).normal(0, 6, (*size[::-1], 3))
        Image.fromarray(np.clip(picture(*size) + noise, 0, 255).astype(np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Return a clip without sound of 12 frames; 194x110 pixels are 192x108 at x1.5."""
    return write_clip(tmp_path_factory.mktemp("film") / "film.mp4", size=(194, 110), sound=None)


def run(capsys, *arguments):
    """Run the command and return its exit code, and what it says."""
    try:
        code = command.main([str(argument) for argument in arguments])
    except SystemExit as error:
        code = error.code
    said = capsys.readouterr()
    return code, said.out, said.err


def measured(capsys, tmp_path, *arguments):
    """Run the command, which must do well, and return its record and its table."""
    record = tmp_path / "record.json"
    code, out, err = run(capsys, *arguments, "--json", record)
    assert code == 0, err
    return json.loads(record.read_text("utf-8")), out


def test_pictures_are_measured_by_the_protocol(pictures, tmp_path, capsys):
    record, table = measured(capsys, tmp_path, "--model", "bicubic", "--data", pictures)
    for row, file in zip(record["images"], sorted(pictures.iterdir()), strict=True):
        image = Image.open(file)
        image = image.crop((0, 0, image.width // 3 * 3, image.height // 3 * 3))
        lr = image.resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.BICUBIC)
        sr, hr = (np.asarray(i).astype(float) for i in (lr.resize(image.size, Image.Resampling.BICUBIC), image))
        sr_y, hr_y = (np.rint(i @ [65.481, 128.553, 24.966] / 255 + 16) for i in (sr, hr))
        for key, a, b in (("psnr_y", sr_y, hr_y), ("psnr_rgb", sr, hr)):
            error = np.mean((a[3:-3, 3:-3] - b[3:-3, 3:-3]) ** 2)
            assert row[key] == pytest.approx(10 * np.log10(255**2 / error), abs=2e-3)  # halves round either way
        assert row["ssim_y"] == pytest.approx(ssim(sr_y[3:-3, 3:-3], hr_y[3:-3, 3:-3]), abs=1e-4)
        assert f"{row['psnr_y']:.2f}" in table
    for key in ("psnr_y", "ssim_y", "psnr_rgb"):
        assert record[key] == pytest.approx(np.mean([row[key] for row in record["images"]]))
    assert [row["image"] for row in record["images"]] == ["a.png", "b.png"]
    assert table.splitlines()[-1].startswith("mean of 2")


def test_a_luma_network_is_shown_in_the_colours_of_bicubic(pictures):
    file = pictures / "a.png"
    hr = read_rgb(file)[:72, :99]
    lr = resize(hr, (66, 48))
    flat = np.full(hr.shape[:2], 90, np.uint8)
    result = protocol.evaluate(lambda given: flat if (given == lr).all() else None, [file], X15)
    assert result["psnr_y"] == pytest.approx(psnr(flat, luma(hr), shave=3))
    enlarged = resize(lr, (99, 72)).astype(float)
    shown = enlarged + (90 - (enlarged @ [65.481, 128.553, 24.966] / 255 + 16))[..., None] * 255 / 219
    assert result["psnr_rgb"] == pytest.approx(psnr(np.rint(shown.clip(0, 255)), hr, shave=3))


def test_what_is_perfect_leaves_the_mean_finite(tmp_path):
    Image.new("RGB", (60, 60)).save(tmp_path / "black.png")
    result = protocol.evaluate(protocol.upscaler("lanczos", X15), [tmp_path / "black.png"], X15)
    assert (result["psnr_y"], result["ssim_y"], result["psnr_rgb"]) == (100, pytest.approx(1), 100)


def test_a_large_picture_goes_through_in_tiles(monkeypatch):
    shapes = []

    def spied(card, **options):
        engine = load_engine(card, **options)

        def run(planes):
            shapes.append(planes.shape)
            return engine(planes)

        run.card = engine.card
        return run

    monkeypatch.setattr(protocol, "load_engine", spied)
    lr = picture(301, 290)
    sr = protocol.upscaler("fast", X15, precision="fp32")(lr)
    assert len(shapes) == 4
    assert len(set(shapes)) == 1
    assert max(shapes[0]) <= TILE
    border = np.pad(luma(lr), ((20, 20), (20, 21)), mode="symmetric")
    whole = load_engine(find_model("fast", X15), precision="fp32")(border[None, ..., None])[0, 30:465, 30:482, 0]
    assert sr.shape == whole.shape == (435, 452)
    assert np.abs(sr.astype(int) - whole).max() <= 1


def test_a_table_over_kernels_and_crfs(pictures, tmp_path, capsys):
    given = ["--kernel", "bicubic", "area", "--codec", "libx264", "--crf", "10", "35"]
    record, table = measured(capsys, tmp_path, "--model", "lanczos", "--data", pictures, *given)
    conditions = record["conditions"]
    expected = [(k, "libx264", crf) for k in ("bicubic", "area") for crf in (10, 35)]
    assert [(c["kernel"], c["codec"], c["crf"]) for c in conditions] == expected
    assert conditions[0]["psnr_y"] > conditions[1]["psnr_y"] + 1
    assert conditions[0]["psnr_y"] != conditions[2]["psnr_y"]
    assert record["psnr_y"] == pytest.approx(np.mean([c["psnr_y"] for c in conditions]))
    for i in range(2):
        of_file = [c["images"][i]["psnr_rgb"] for c in conditions]
        assert record["images"][i]["psnr_rgb"] == pytest.approx(np.mean(of_file))
    for title in ("bicubic, libx264 CRF 10", "area, libx264 CRF 35", "mean of all"):
        assert title in table


def test_several_models_are_compared_with_the_first(film, pictures, tmp_path, capsys):
    given = ["--codec", "libx264", "--crf", "12", "34", "--frames", "3", "--data", film, pictures / "a.png"]
    record, table = measured(capsys, tmp_path, "--model", "lanczos", "fast", *given)
    alone, _ = measured(capsys, tmp_path, "--model", "fast", *given)
    (lanczos, fast), (own,) = record["models"], record["own_vmaf_neg"]
    assert 95 < own <= 100
    assert (lanczos["model"], fast) == ("lanczos", alone)
    _, header, *rows = table[table.index("PSNR-Y of fast over lanczos") :].splitlines()
    assert header.split() == ["bicubic", "12", "bicubic", "34"]
    cells = {row[:24].strip(): row[24:].split() for row in rows}
    assert list(cells) == ["film.mp4", "a.png", "mean", "worst", "VMAF-NEG, of the way"]
    for column, (ours, theirs) in enumerate(zip(fast["conditions"], lanczos["conditions"], strict=True)):
        gains = [a["psnr_y"] - b["psnr_y"] for a, b in zip(ours["images"], theirs["images"], strict=True)]
        shown = [float(row[column]) for row in list(cells.values())[:4]]
        assert shown == pytest.approx([*gains, np.mean(gains), min(gains)], abs=0.006)
        share = (ours["vmaf_neg"] - theirs["vmaf_neg"]) / (own - theirs["vmaf_neg"])
        assert float(cells["VMAF-NEG, of the way"][column].rstrip("%")) == pytest.approx(100 * share, abs=0.06)


def test_photographs_are_spoilt_and_cleaned_before_they_are_enlarged(tmp_path, capsys):
    Image.fromarray(picture(320, 240)).save(tmp_path / "a.png")
    arguments = ["--model", "fast-photo", "--scale", 2, "--data", tmp_path / "a.png", "--clean", 0, "auto"]
    arguments += ["--spoil", "jpeg=10", "noise=20,jpeg=97"]
    record, table = measured(capsys, tmp_path, *arguments)
    as_it_is, auto = ([one["psnr_rgb"] for one in model["conditions"]] for model in record["models"])
    assert auto[0] > as_it_is[0] + 0.3 and auto[1] > as_it_is[1] + 3
    assert "bicubic, noise=20,jpeg=97" in table


def test_files_of_one_name_are_told_apart(pictures, tmp_path, capsys):
    for folder in ("dog", "swan"):
        (tmp_path / folder).mkdir()
        shutil.copy(pictures / "a.png", tmp_path / folder / "0.png")
    files = [tmp_path / "dog" / "0.png", pictures / "a.png", tmp_path / "swan" / "0.png"]
    record, table = measured(capsys, tmp_path, "--model", "lanczos", "--data", *files)
    assert [row["image"] for row in record["images"]] == ["dog/0.png", "a.png", "swan/0.png"]
    assert "swan/0.png" in table


def test_one_condition_is_the_mean(pictures, tmp_path, capsys):
    record, _ = measured(capsys, tmp_path, "--model", "fast", "--data", pictures / "a.png", "--kernel", "bilinear")
    (condition,) = record["conditions"]
    assert {key: condition[key] for key in ("psnr_y", "images")} == {key: record[key] for key in ("psnr_y", "images")}
    assert (condition["kernel"], condition["codec"], condition["crf"]) == ("bilinear", None, None)
    assert record["precision"] in ("int8", "bf16", "fp32")


@pytest.mark.parametrize("size", [(80, 60), (67, 45)])
def test_a_picture_passes_a_fine_codec_unharmed(size):
    lr = resize(picture(200, 150), size)
    coded = Condition(codec="libx264", crf=1).coded_picture(lr)
    assert coded.shape == lr.shape
    assert psnr(luma(coded), luma(lr)) > 48
    # Halving chroma blurs, but must not tint.
    assert np.abs((coded.astype(float) - lr).mean((0, 1))).max() < 0.5


def test_a_codec_without_crf_works_at_its_own_quality(pictures, tmp_path, capsys):
    given = ["--model", "bicubic", "--data", pictures / "a.png"]
    plain, _ = measured(capsys, tmp_path, *given)
    coded, _ = measured(capsys, tmp_path, *given, "--codec", "mpeg4")
    assert coded["psnr_y"] < plain["psnr_y"] - 0.1


class Oracle:
    """Give the HR frames back, in order, plus `offset` codes of luma; remember the LR frames."""

    def __init__(self, film, offset=0):
        self.seen, self._offset = [], offset
        with clips.Source(film) as source:
            self.hr = [fitted(frame, 192, 108) for frame in source]

    def __call__(self, info, size):
        assert ((info.width, info.height), size) == ((128, 72), (192, 108))

        def upscale(lr):
            sr = fitted(self.hr[len(self.seen)], 192, 108)
            self.seen.append(lr)
            plane(sr, 0)[:] = plane(sr, 0) + self._offset
            return sr

        return upscale


@pytest.mark.parametrize("condition", [Condition(), Condition("area", "libx264", 30)], ids=str)
def test_frames_meet_their_own(film, condition):
    for offset, expected in ((0, 100), (2, 10 * np.log10(255**2 / 4))):
        row = measure_clip(film, Oracle(film, offset), X15, condition, frames=99)
        assert row["psnr_y"] == pytest.approx(expected)
        assert row["frames"] == 12


@pytest.mark.parametrize(("border", "perfect"), [(3, True), (4, False)])
def test_the_border_of_a_clip_is_left_out(film, border, perfect):
    oracle = Oracle(film)

    def upscaler(info, size):
        upscale = oracle(info, size)

        def function(lr):
            sr = upscale(lr)
            plane(sr, 0)[:border] ^= 64
            plane(sr, 0)[:, -border:] ^= 64
            return sr

        return function

    row = measure_clip(film, upscaler, X15, Condition(), frames=2)
    assert (row["psnr_y"] == 100) == perfect
    assert (row["psnr_rgb"] == 100) == perfect


def test_lr_of_a_clip_is_made_by_the_kernel(film):
    for kernel in ("bicubic", "area"):
        oracle = Oracle(film)
        measure_clip(film, oracle, X15, Condition(kernel), frames=5)
        assert len(oracle.seen) == 5
        for lr, hr in zip(oracle.seen, oracle.hr, strict=False):
            np.testing.assert_array_equal(plane(lr, 0), resize(plane(hr, 0).copy(), (128, 72), kernel))
            for i in (1, 2):
                assert plane(lr, i).mean() == pytest.approx(plane(hr, i).mean(), abs=0.6)


def test_a_clip_agrees_with_ffmpeg(film, tmp_path, capsys):
    record, _ = measured(capsys, tmp_path, "--model", "lanczos", "--data", film)
    small, large = "128:72:flags=bicubic+accurate_rnd:param0=0:param1=0.5", "192:108:flags=lanczos+accurate_rnd"
    chains = ("crop=192:108:0:0", f"crop=192:108:0:0,scale={small},scale={large}")
    hr, sr = (
        np.frombuffer(ffmpeg("-i", film, "-vf", chain, "-f", "rawvideo", "-"), np.uint8).reshape(12, 162, 192)[:, :108]
        for chain in chains
    )
    expected = np.mean([psnr(a, b, shave=3) for a, b in zip(sr, hr, strict=True)])
    assert record["psnr_y"] == pytest.approx(expected, abs=0.1)
    bicubic, _ = measured(capsys, tmp_path, "--model", "bicubic", "--data", film)
    assert 0.05 < abs(record["psnr_y"] - bicubic["psnr_y"]) < 3


def test_clips_and_pictures_side_by_side(film, pictures, tmp_path, capsys, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    given = ["--model", "fast", "--frames", "3", "--codec", "libx264", "--crf", "18", "38"]
    record, table = measured(capsys, tmp_path, *given, "--data", film, pictures)
    assert not list((tmp_path / "temporary").iterdir())
    fine, coarse = record["conditions"]
    for figure in ("psnr_y", "ssim_y", "psnr_rgb", "vmaf_neg"):
        assert fine["images"][0][figure] > coarse["images"][0][figure]
    clip, *others = fine["images"]
    assert clip["frames"] == 3
    assert 20 < clip["vmaf_neg"] < 100
    assert all("vmaf_neg" not in row for row in others)
    assert fine["vmaf_neg"] == clip["vmaf_neg"]
    assert "VMAF-NEG" in table


def test_vmaf_of_the_original_is_nearly_full(film):
    tool = vmaf_ffmpeg()
    best = measure_clip(film, Oracle(film), X15, Condition(), frames=6, ffmpeg=tool)["vmaf_neg"]
    less = measure_clip(film, Oracle(film, 20), X15, Condition(), frames=6, ffmpeg=tool)["vmaf_neg"]
    assert best > 95
    assert less != best


@pytest.mark.parametrize("missing", ["package", "libvmaf", "ffmpeg"])
def test_without_vmaf_there_is_a_sentence(missing, film, tmp_path, capsys, monkeypatch):
    if missing == "package":
        monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    else:
        program = sys.executable if missing == "libvmaf" else str(tmp_path / "none")
        monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: program)
    record = tmp_path / "record.json"
    code, out, err = run(capsys, "--model", "lanczos", "--data", film, "--frames", "1", "--json", record)
    assert code == 0
    assert err.startswith("imagesr evaluate: VMAF-NEG needs")
    assert err.count("\n") == 1
    assert "VMAF" not in out
    assert "vmaf_neg" not in json.loads(record.read_text("utf-8"))


def test_a_folder_says_what_it_leaves_out(pictures, film, tmp_path, capsys):
    folder = tmp_path / "mixed"
    (folder / "deeper").mkdir(parents=True)
    (folder / "a.png").write_bytes((pictures / "a.png").read_bytes())
    (folder / "film.mp4").write_bytes(film.read_bytes())
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken.mkv").write_bytes(b"no clip")
    write_clip(folder / "full.mp4", pix_fmt="yuv444p", frames=2, sound=None)
    write_clip(folder / "deep.mp4", pix_fmt="yuv420p10le", frames=2, sound=None)
    code, out, err = run(capsys, "--model", "lanczos", "--data", folder, "--frames", "1")
    assert code == 0
    left_out = [line for line in err.splitlines() if "left out" in line]
    assert len(left_out) == len(err.splitlines()) == 5
    for name in ("notes.txt", "broken.mkv", "deep.mp4", "deeper", "full.mp4"):
        assert sum(f"{folder / name}" in line for line in left_out) == 1
    assert [line.split()[0] for line in out.splitlines()] == ["bicubic", "a.png", "film.mp4", "mean"]


@pytest.mark.keras
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["not.keras"], "not.keras"),
        (["none.keras"], "none.keras"),
        (["not.keras", "--engine", "onnx"], "onnx"),
    ],
)
def test_a_file_that_is_no_network_is_told_in_one_sentence(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "not.keras").write_bytes(b"no network")
    Image.fromarray(picture(90, 60)).save(tmp_path / "a.png")
    code, out, err = run(capsys, "--data", "a.png", "--model", *arguments)
    (line,) = [line for line in err.splitlines() if line.startswith("imagesr evaluate: ")]
    assert (code, out) == (2, "")
    assert words in line


def test_an_interrupt_ends_it(pictures, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_measure", interrupted)
    assert run(capsys, "--model", "lanczos", "--data", pictures) == (130, "", "imagesr evaluate: interrupted\n")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Return a folder of Keras networks that repeat every pixel: luma and RGB at x2, and one of a fixed size."""
    keras = pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("networks")
    for name, channels, size in (("luma", 1, None), ("rgb", 3, None), ("fixed", 1, 32)):
        lr = keras.Input((size, size, channels))
        conv = keras.layers.Conv2D(4 * channels, 1, use_bias=False)
        keras.Model(lr, keras.ops.depth_to_space(conv(lr), 2)).save(folder / f"{name}.keras")
        conv.set_weights([np.tile(np.eye(channels), 4)[None, None]])
        keras.Model(lr, keras.ops.depth_to_space(conv(lr), 2)).save(folder / f"{name}.keras")
    return folder


@pytest.mark.parametrize("name", ["luma", "rgb"])
def test_a_keras_file_is_run(networks, name, pictures, film, tmp_path, capsys):
    given = ["--model", networks / f"{name}.keras", "--scale", "2", "--data", pictures / "b.png"]
    record, _ = measured(capsys, tmp_path, *given)
    hr = read_rgb(pictures / "b.png")[:96, :140]
    lr = resize(hr, (70, 48))
    repeated = (lr if name == "rgb" else luma(lr)).repeat(2, 0).repeat(2, 1)
    expected = luma(repeated) if name == "rgb" else repeated
    assert record["psnr_y"] == pytest.approx(psnr(expected, luma(hr), shave=2))
    assert record["precision"] == "fp32"
    if name == "rgb":
        assert record["psnr_rgb"] == pytest.approx(psnr(repeated, hr, shave=2))
    code, out, err = run(capsys, *given[:4], "--data", film, "--frames", "1")
    assert code == (0 if name == "luma" else 2), err
    assert "film.mp4" in out or "luma" in err


def test_a_keras_file_that_does_not_fit_is_refused(networks):
    for name, scale, words in (("fixed", 2, "32x32"), ("luma", 3, "2")):
        with pytest.raises(ModelError, match=words):
            protocol.upscaler(str(networks / f"{name}.keras"), Scale(scale))


def test_the_worst_blocks_are_kept():
    worst, hr = Worst(Scale(2)), np.full((128, 200), 100, np.uint8)
    made = []

    def show(file, *errors):
        sr = hr.copy()
        for row, column, error in errors:
            sr[64 * row : 64 * row + 64, 64 * column : 64 * column + 64] += np.uint8(error)
        colour = [np.repeat(p[..., None], 3, -1) for p in (resize(hr, (100, 64)), sr, hr)]
        worst.see(file, "note", sr, hr, lambda: made.append(file) or colour)

    show("a", (0, 0, 30), (1, 2, 10), (1, 1, 20))
    show("a", (0, 0, 15), (0, 1, 25))
    for i in range(6):
        show(f"c{i}", (0, 1, 5 + i))
    show("d", (0, 2, 40), (1, 0, 4))
    found = [(crop.file, crop.place, round(crop.error**0.5)) for crop in worst.crops]
    rest = [(f"c{i}", (0, 1), 5 + i) for i in (5, 4, 3, 2, 1)]
    assert found == [("d", (0, 2), 40), ("a", (0, 0), 30), ("a", (0, 1), 25), *rest]
    show("e", (0, 0, 2))
    assert made[-1] == "d"  # nothing was drawn for what is not kept
    for crop in worst.crops:
        assert [picture.size for picture in crop.pictures] == [(32, 32), (64, 64), (64, 64), (64, 64)]
        assert np.asarray(crop.pictures[2]).mean() == 100 + round(crop.error**0.5)


@pytest.mark.parametrize("scale", ["3/2", "2", "3", "4"])
def test_crops_show_one_place(scale):
    scale = Scale.parse(scale)
    hr = picture(264, 264)
    lr = resize(hr, (264 * scale.down // scale.up,) * 2)
    sr = resize(lr, (264, 264), "lanczos")
    worst = Worst(scale)
    worst.see("a", "", luma(sr), luma(hr), lambda: (lr, sr, hr))
    for crop in worst.crops:
        small, lanczos, ours, original = map(np.asarray, crop.pictures)
        side = len(original)
        y, x = (side * n for n in crop.place)
        np.testing.assert_array_equal(original, hr[y : y + side, x : x + side])
        assert np.abs(lanczos.astype(int) - ours).max() <= 2  # the same resize, of a part
        assert len(small) == side * scale.down // scale.up
        assert psnr(resize(small, (side, side)), original) > 20


def test_the_sheet_is_drawn(pictures, film, tmp_path, capsys):
    file = tmp_path / "sheet.png"
    given = ["--model", "fast", "--frames", "2", "--data", pictures, film, "--codec", "libx264", "--crf", "20", "30"]
    code, _, err = run(capsys, *given, "--sheet", file)
    assert code == 0, err
    drawn = np.asarray(Image.open(file))
    rows = 1 + 2 + 2  # of 66 pixels, four times as large, with two lines above and margins
    assert drawn.shape == (rows * (2 * 24 + 264 + 2 * 14) + 14, 4 * (264 + 14) + 14, 3)
    cells = drawn[14 + 48 : 14 + 48 + 264, 14 : 14 + 264]
    assert (cells[::6, ::6] == cells[5::6, 5::6]).all()  # LR by nearest, six by six
    assert cells.std() > 10


def test_a_picture_smaller_than_a_crop_leaves_an_empty_sheet():
    worst, plain = Worst(Scale(2)), np.zeros((60, 90), np.uint8)
    worst.see("a", "", plain + 1, plain, lambda: pytest.fail("there is nothing to show"))
    assert worst.draw("fast").size == (4 * (256 + 14) + 14, 2 * 24 + 256 + 3 * 14)
    assert sheet.CROPS == 8


PUBLISHED = [("set5", 2, 33.66), ("set5", 3, 30.39), ("set5", 4, 28.42)]
PUBLISHED += [slow("bsds500/val", 2, 29.56)]


@pytest.mark.parametrize(("folder", "scale", "published"), PUBLISHED)
def test_bicubic_is_the_published_row(data, folder, scale, published):
    scale, files = Scale(scale), find_images([data / folder])
    result = protocol.evaluate(protocol.upscaler("bicubic", scale), files, scale)
    assert result["psnr_y"] == pytest.approx(published, abs=0.03)


@pytest.mark.parametrize(("folder", "scale", "published"), PUBLISHED)
def test_bicubic_in_the_order_of_the_papers_is_the_row_itself(data, folder, scale, published):
    """SRCNN, A+ and VDSR reduce and enlarge luma in floating point, and round once, at the end."""

    def through(plane, size):
        return weights(plane.shape[0], size[0], "bicubic") @ plane @ weights(plane.shape[1], size[1], "bicubic").T

    found = []
    for file in find_images([data / folder]):
        hr = read_rgb(file)
        hr = luma(hr[: len(hr) // scale * scale, : hr.shape[1] // scale * scale])
        sr = through(through(hr.astype(np.float32), [n // scale for n in hr.shape]), hr.shape)
        found.append(psnr(np.rint(sr.clip(0, 255)), hr, shave=scale))
    assert np.mean(found) == pytest.approx(published, abs=0.005)


@pytest.mark.slow
def test_networks_gain_on_a_sharp_clip(data, tmp_path, capsys):
    """The clip is reduced, compressed and measured as by ffmpeg alone: 37.40 dB and 79.5 by Lanczos, 60 frames."""
    given = ["--data", data / "clips" / "sowt-with-video.mov", "--codec", "libx264", "--crf", "23", "--frames", "12"]
    lanczos, _ = measured(capsys, tmp_path, "--model", "lanczos", *given)
    ours, _ = measured(capsys, tmp_path, "--model", "balanced", *given)
    assert lanczos["psnr_y"] == pytest.approx(37.4, abs=1)
    assert ours["psnr_y"] > lanczos["psnr_y"] + 0.5
    assert ours["vmaf_neg"] > lanczos["vmaf_neg"] + 2
