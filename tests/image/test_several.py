"""Several photographs: folders, sub-folders, what is there already, clashes, and one that fails alone."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from PIL import Image

import imagesr
from imagesr.errors import InputError, OutputError
from imagesr.files import part_of, whole, whole_folder
from imagesr.image import files
from imagesr.image.__main__ import main
from imagesr.media.images import find_images


@pytest.fixture
def photo():
    return Image.fromarray(picture(24, 18))


def run(*arguments):
    return main([str(argument) for argument in arguments] + ["-n", "linear"])


def names(folder):
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


@pytest.fixture
def folder(photo, tmp_path):
    """Return a folder of pictures of many suffixes, other files, a sub-folder and hidden files."""
    place = tmp_path / "in"
    (place / "sub" / "deep").mkdir(parents=True)
    (place / ".hidden").mkdir()
    for name in ("1.jpg", "2.jfif", "3.jpe", "sub/4.jpg", "sub/deep/5.JPG"):
        photo.save(place / name, "JPEG")
    photo.save(place / "6.bmp")
    photo.save(place / ".hidden" / "7.png")
    (place / "._1.jpg").write_bytes(b"\0\5\x16\7 of macOS")
    (place / "odd.png").mkdir()
    (place / "notes.txt").write_text("no picture")
    (place / "b.txt").write_text("no picture")
    (place / "clip.mp4").write_bytes(bytes(100))
    return place


def test_what_is_left_out_is_counted_and_said(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "out") == 0
    assert names(tmp_path / "out") == ["1.jpg", "2.jfif", "3.jpe", "6.png"]
    told = capsys.readouterr().err
    assert "left out: 3 files (2 .txt, 1 .mp4), 2 sub-folders (-r takes them)" in told
    assert "4 of 4 made" in told
    for name in ("2.jfif", "3.jpe"):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.format == "JPEG"


def test_sub_folders_are_taken_when_asked_for(folder, tmp_path, capsys):
    for _ in range(2):  # a result within is no picture to make
        assert run(folder, folder / "out", "-r", "-y") == 0
        made = ["1.jpg", "2.jfif", "3.jpe", "6.png", "sub/4.jpg", "sub/deep/5.JPG"]
        assert names(folder / "out") == made
        assert "sub-folder" not in capsys.readouterr().err


def test_what_is_there_is_skipped(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "out") == 0
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in names(tmp_path / "out")}
    (tmp_path / "out" / "2.jfif").unlink()
    assert run(folder, tmp_path / "out") == 2
    assert "--skip-existing makes what is missing" in capsys.readouterr().err
    assert run(folder, tmp_path / "out", "-r", "--skip-existing") == 0
    assert "3 of 3 made, 3 there already" in capsys.readouterr().err
    after = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in names(tmp_path / "out")}
    assert {name for name in before if before[name] != after[name]} == {"2.jfif"}
    assert run(folder, tmp_path / "out", "-r", "--skip-existing") == 0
    assert run(folder / "1.jpg", tmp_path / "out" / "1.jpg", "--skip-existing") == 0
    with pytest.raises(SystemExit):
        run(folder, tmp_path / "out", "-y", "--skip-existing")


def test_an_input_that_is_missing_does_not_stop_the_others(photo, tmp_path, capsys):
    photo.save(tmp_path / "a.png")
    assert run(tmp_path / "none.png", tmp_path / "a.png", tmp_path / "out") == 1
    assert names(tmp_path / "out") == ["a.png"]
    told = capsys.readouterr().err
    assert f"There is none at {tmp_path / 'none.png'}\n" in told
    assert "1 of 2 made" in told
    assert run(tmp_path / "none.png", tmp_path / "nothing", tmp_path / "out") == 3


@pytest.mark.parametrize(("error", "code"), [(ValueError, 2), (InputError, 3), (OutputError, 4), (OSError, 4)])
def test_where_every_picture_fails_the_code_is_that_of_the_error(error, code, photo, tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        photo.save(tmp_path / name)

    def failing(source, **more):
        raise error("no")

    monkeypatch.setattr(files, "read_photo", failing)
    assert run(tmp_path / "a.png", tmp_path / "b.png", tmp_path / "out") == code
    assert run(tmp_path / "a.png", tmp_path / "out") == code


def test_a_clash_is_refused_alone(photo, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.jpg", "b.jpg"):
        photo.save(tmp_path / "in" / name)
    assert run(tmp_path / "in", tmp_path / "out", "--format", "png") == 1
    assert names(tmp_path / "out") == ["b.png"]
    told = capsys.readouterr().err
    assert "a.jpg: not the only one that would become" in told
    assert "1 of 3 made" in told
    assert run(tmp_path / "in", tmp_path / "out2") == 0
    assert names(tmp_path / "out2") == ["a.jpg", "a.png", "b.jpg"]


@pytest.mark.parametrize("error", [AttributeError("no loader"), KeyError("x"), MemoryError(), OSError(28, "No space")])
def test_any_error_fails_one_picture_alone(error, photo, tmp_path, capsys, monkeypatch):
    (tmp_path / "in").mkdir()
    for name in ("1.png", "2.png", "3.png"):
        photo.save(tmp_path / "in" / name)
    read = files.read_photo

    def failing(source, **more):
        if "2.png" in str(source):
            raise error
        return read(source, **more)

    monkeypatch.setattr(files, "read_photo", failing)
    assert run(tmp_path / "in", tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert names(tmp_path / "out") == ["1.png", "3.png"]
    assert "2.png" in told
    assert "Traceback" not in told
    assert run(tmp_path / "in" / "2.png", tmp_path / "x.png") in (3, 4)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("imagesr image: ")
    assert "disk full" in told or not isinstance(error, OSError)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a.png", "b.png", "two.png"], "write two.png/ for a folder of that name"),
        (["a.png", "OUT.png", "--size", "20x20"], "a size above the picture's own, 24x18, and up to 8 times"),
        (["a.png", "OUT.png", "--size", "2000x2000"], "up to 8 times as large. Received: 2000x2000"),
        (["a.png", "nowhere/deep/OUT.png"], "Expected an existing folder for the output"),
    ],
)
def test_what_is_asked_for_is_what_is_answered(arguments, says, photo, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo.save("a.png")
    photo.save("b.png")
    assert run(*arguments) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
    assert names(tmp_path) == ["a.png", "b.png"]


@pytest.mark.parametrize(("out", "made"), [("new/b.png", "new/b.png"), ("new/", "new/a.png"), ("new", "new/a.png")])
def test_the_folder_of_one_picture_is_made(out, made, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo.save("a.png")
    assert run("a.png", out) == 0
    assert names(tmp_path) == ["a.png", made]


# Long names


@pytest.mark.parametrize("letter", ["x", "ä", "字"])
@pytest.mark.parametrize("length", [200, 246, 250, 255])
def test_long_names_have_a_part_file(letter, length, photo, tmp_path):
    name = letter * ((length - 4) // len(letter.encode())) + ".png"
    photo.save(tmp_path / name, "PNG")
    (tmp_path / "out").mkdir()
    assert run(tmp_path / name, tmp_path / "out") == 0
    assert names(tmp_path / "out") == [name]
    other = tmp_path / ("y" + name[1:])
    assert part_of(other) != part_of(tmp_path / name)
    assert len(os.fsencode(part_of(other, ending=".keras").name)) <= 255
    with whole(other, ending=".keras") as part:
        part.write_text("data")
    assert other.read_text() == "data"
    for text in "ab":
        with whole_folder(tmp_path / (name + "x")[-length:]) as part:
            (part / text).write_text(text)
    assert names(tmp_path / (name + "x")[-length:]) == ["b"]


@pytest.mark.parametrize("there", [True, False])
def test_what_a_killed_write_of_a_folder_left_is_no_hindrance(tmp_path, there):
    for name in ["model.replaced.part", "model.part", "model.old"] + ["model"] * there:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "model"):
        raise KeyboardInterrupt
    assert (tmp_path / "model" / "file").read_text() == ("model" if there else "model.replaced.part")
    with whole_folder(tmp_path / "model") as part:
        (part / "new").write_text("new")
    assert names(tmp_path) == ["model.old/file", "model/new"]


def test_a_folder_that_another_process_makes_meanwhile(tmp_path):
    place = tmp_path / "model"
    with whole_folder(place, shared=True) as mine:
        (mine / "a").write_text("mine")
        with whole_folder(place, shared=True) as other:
            (other / "a").write_text("other")
        assert (place / "a").read_text() == "other"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.read_text() for path in place.iterdir()] == ["mine"]


@pytest.mark.parametrize("there", [False, True])
def test_another_process_is_first_at_the_last_moment(tmp_path, monkeypatch, there):
    """The other one puts its folder there just before ours gets its name."""
    place, rename = tmp_path / "model", Path.rename
    if there:
        place.mkdir()

    def late(self, target):
        if self.suffix == ".part" and Path(target) == place:
            place.mkdir()
            (place / "a").write_text("other")
        return rename(self, target)

    with whole_folder(place, shared=True) as mine:
        (mine / "a").write_text("mine")
        monkeypatch.setattr(Path, "rename", late)
    assert (place / "a").read_text() == "other"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_file_that_another_process_writes_meanwhile(tmp_path):
    with whole(tmp_path / "a", shared=True) as mine:
        mine.write_text("mine")
        with whole(tmp_path / "a", shared=True) as other:
            other.write_text("o")
        assert (tmp_path / "a").read_text() == "o"
    assert (tmp_path / "a").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_name_that_is_too_long_fails_alone(photo, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    photo.save(tmp_path / "in" / ("x" * 251 + ".jpg"))
    photo.save(tmp_path / "in" / "a.jpg")
    assert run(tmp_path / "in", tmp_path / "out", "--format", "webp") == 1
    assert names(tmp_path / "out") == ["a.webp"]
    assert "File name too long" in capsys.readouterr().err


# Training and measuring


def test_hidden_files_are_no_pictures_for_training(photo, tmp_path):
    photo.save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7 of macOS")
    (tmp_path / "b.png").mkdir()
    assert find_images([tmp_path]) == [tmp_path / "a.png"]
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match="Expected a folder with pictures"):
        find_images([tmp_path])


# Arrays


@pytest.mark.parametrize("value", ["photo.png", b"\x89PNG", None, 7, [[1, 2]]])
def test_what_is_no_picture_is_refused_in_a_sentence(value):
    with pytest.raises(ValueError, match=r"Expected a NumPy array or a Pillow image. Received: \w+"):
        imagesr.upscale_image(value, model="linear")


@pytest.mark.parametrize("value", [1.5, -0.5, 255.0, np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_point_outside_its_range_is_refused(value, dtype):
    array = np.full((8, 8, 3), 0.5, dtype)
    array[2, 3, 1] = value
    with pytest.raises(ValueError, match=r"Expected floating point in \[0, 1\]. Received: "):
        imagesr.upscale_image(array, model="linear")


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_a_transparent_colour_becomes_alpha(mode):
    key = {"RGB": (255, 0, 255), "L": 255, "P": 1, "1": 255}[mode]
    small = Image.new(mode, (24, 18), {"RGB": (20, 90, 40), "L": 60, "P": 0, "1": 0}[mode])
    if mode == "P":
        small.putpalette([20, 90, 40, 255, 0, 255])
    small.paste(key, (6, 4, 14, 12))
    small.info["transparency"] = key
    large = imagesr.upscale_image(small, model="linear")
    assert large.mode == ("LA" if mode in "L1" else "RGBA")
    assert "transparency" not in large.info
    seen = np.asarray(large.convert("RGBA")).astype(int)
    assert seen[14, 20, 3] == 0
    assert seen[2, 2, 3] == 255
    ground = seen[2, 2, :3]
    assert np.abs(seen[seen[..., 3] > 0][:, :3] - ground).max() <= 3


def test_a_transparent_grey_of_sixteen_bits_is_refused():
    small = Image.fromarray(np.full((8, 8), 1000, np.uint16))
    small.info["transparency"] = 1000
    with pytest.raises(ValueError, match="no transparent colour"):
        imagesr.upscale_image(small, model="linear")
