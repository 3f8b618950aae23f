"""Spoil folders of pictures on purpose, and see that the commands say so, and nothing else."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import picture
from PIL import Image, ImageOps

from imagesr.datasets.__main__ import main
from imagesr.datasets.leaks import leaks
from imagesr.datasets.verify import read_sums, verify


def texture(seed, size=(320, 240)):
    """Return a picture of random spots, coarse and fine, as a PIL image."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (size[1] // cell, size[0] // cell, 3), np.uint8)).resize(size)
        for cell in (40, 16, 6)
    ]
    return Image.blend(Image.blend(*layers[:2], 0.5), layers[2], 0.4)


def run(capsys, *arguments):
    """Run the command; returns its exit code, the lines that it printed, and what it said on stderr."""
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err


def found(folder):
    """Return (file, kind) of every problem in a folder."""
    return {(problem.path, problem.kind) for problem in verify(folder).problems}


@pytest.fixture
def tidy(tmp_path):
    """Return a folder with three different pictures, one of them deeper."""
    folder = tmp_path / "tidy"
    (folder / "deeper").mkdir(parents=True)
    Image.fromarray(picture(64, 48)).save(folder / "a.png")
    texture(1, (80, 48)).save(folder / "b.jpg")
    texture(2, (64, 64)).save(folder / "deeper/c.webp")
    return folder


def test_a_tidy_folder_is_described(tidy, capsys):
    code, lines, said = run(capsys, "verify", tidy)
    assert (code, said) == (0, "")
    assert lines[:2] == [".: 2 pictures, 64-80 x 48", "deeper: 1 picture, 64 x 64"]
    assert lines[2:] == ["3 pictures decoded, 3 files hashed (no SHA256SUMS to compare with): no problem."]


def test_pictures_other_than_rgb_are_named(tidy):
    rgb = texture(3, (32, 32))
    rgb.convert("L").save(tidy / "grey.png")
    rgb.convert("P").save(tidy / "palette.png")
    rgb.convert("CMYK").save(tidy / "print.jpg")
    Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32)).save(tidy / "deep.png")
    half = rgb.copy()
    half.putalpha(128)
    half.save(tidy / "half.png")
    kinds = verify(tidy).folders[0].kinds
    assert kinds.pop("RGB") == ["a.png", "b.jpg"]
    assert kinds == {
        "grey": ["grey.png"],
        "palette": ["palette.png"],
        "CMYK": ["print.jpg"],
        "16-bit grey": ["deep.png"],
        "RGB with alpha": ["half.png"],
    }


def test_16_bit_rgb_is_seen_though_pillow_calls_it_rgb(tidy):
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tidy / "deep.png"), np.asarray(texture(4, (32, 32))).astype(np.uint16) * 257)
    assert verify(tidy).folders[0].kinds["16-bit RGB"] == ["deep.png"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("lost", [1, 13, 3000])
def test_a_truncated_picture_is_found(tidy, suffix, lost):
    whole = tidy / f"whole{suffix}"
    texture(5).save(whole)
    assert not found(tidy)
    (tidy / f"cut{suffix}").write_bytes(whole.read_bytes()[:-lost])
    assert found(tidy) == {(f"cut{suffix}", "unreadable")}


def test_damage_inside_a_png_and_what_is_no_picture_are_found(tidy):
    whole = (tidy / "a.png").read_bytes()
    middle, checksum = bytearray(whole), bytearray(whole)
    middle[len(whole) // 2] ^= 1
    checksum[-13] ^= 1  # the last byte of the pixels' CRC, before the 12 bytes of IEND
    (tidy / "middle.png").write_bytes(middle)
    (tidy / "checksum.png").write_bytes(checksum)
    (tidy / "page.jpg").write_text("<html>404</html>")
    (tidy / "empty.png").touch()
    (tidy / "gone.png").symlink_to("nowhere.png")
    names = {"middle.png", "checksum.png", "page.jpg", "empty.png", "gone.png"}
    assert found(tidy) == {(name, "unreadable") for name in names}


def test_duplicates_are_found_across_folders(tidy):
    (tidy / "deeper/again.png").write_bytes((tidy / "a.png").read_bytes())
    assert [(p.path, p.what) for p in verify(tidy).problems] == [("deeper/again.png", "the same as a.png")]


def test_hidden_and_unfinished_files_are_left_out(tidy):
    (tidy / ".thumbs").mkdir()
    for name in (".hidden.png", ".thumbs/a.png", "more.png.part"):
        (tidy / name).write_bytes(b"no picture")
    assert not found(tidy) and len(verify(tidy).sha256) == 3


@pytest.fixture(params=["DIV2K_train", "Flickr2K"])
def paired(request, tmp_path):
    """Return a folder in the official layout with two HR pictures and their LR at x2 and x3, and the set's name."""
    name = request.param
    digits = 4 if name == "DIV2K_train" else 6
    for i in (1, 2):
        for folder, suffix, scale in [("HR", "", 1), ("LR_bicubic/X2", "x2", 2), ("LR_bicubic/X3", "x3", 3)]:
            place = tmp_path / f"{name}_{folder}"
            place.mkdir(parents=True, exist_ok=True)
            texture(i, (101 // scale, 64 // scale)).save(place / f"{i:0{digits}}{suffix}.png")
    return tmp_path, name, digits


def test_pairs_in_the_official_layout_agree(paired):
    assert not found(paired[0])


def test_pairs_that_disagree_are_found(paired):
    folder, name, digits = paired
    one, two = f"{1:0{digits}}", f"{2:0{digits}}"
    texture(9, (51, 32)).save(folder / f"{name}_LR_bicubic/X2/{one}x2.png")  # 101 / 2 rounded up
    (folder / f"{name}_LR_bicubic/X3/{two}x3.png").unlink()
    texture(8, (50, 32)).save(folder / f"{name}_LR_bicubic/X2/{9:0{digits}}x2.png")
    texture(7, (50, 32)).save(folder / f"{name}_LR_bicubic/X2/stray.png")
    problems = {problem.path: problem.what for problem in verify(folder).problems}
    assert problems == {
        f"{name}_LR_bicubic/X2/{one}x2.png": (
            f"Expected 50 x 32, 1/2 of {name}_HR/{one}.png (101 x 64). Received: 51 x 32"
        ),
        f"{name}_HR/{two}.png": f"no partner in {name}_LR_bicubic/X3",
        f"{name}_LR_bicubic/X2/{9:0{digits}}x2.png": f"no partner {9:0{digits}} in {name}_HR",
        f"{name}_LR_bicubic/X2/stray.png": "Expected a name like 0001x2",
    }


def test_lr_without_an_hr_folder_is_said_once(paired):
    folder, name, _ = paired
    (folder / f"{name}_HR").rename(folder / "elsewhere")
    assert found(folder) == {(f"{name}_LR_bicubic/X{scale}", "pair") for scale in (2, 3)}


def test_checksums_are_written_once_and_compared(tidy, capsys):
    (tidy / "notes.txt").write_text("where from")
    code, _, said = run(capsys, "verify", tidy, "--write")
    assert (code, said) == (0, "")
    sums = (tidy / "SHA256SUMS").read_text().splitlines()
    assert f"{hashlib.sha256((tidy / 'deeper/c.webp').read_bytes()).hexdigest()}  deeper/c.webp" in sums
    assert len(sums) == 4 and not list(tidy.glob("*.part"))
    code, lines, _ = run(capsys, "verify", tidy)
    assert code == 0 and lines[-1] == "3 pictures decoded, 4 files compared with SHA256SUMS: no problem."

    (tidy / "notes.txt").write_text("elsewhere")
    (tidy / "b.jpg").rename(tidy / "new.jpg")
    code, lines, _ = run(capsys, "verify", tidy)
    assert code == 1 and lines[2:-1] == [
        "b.jpg: missing: in SHA256SUMS, not in the folder",
        "new.jpg: unlisted: not in SHA256SUMS",
        "notes.txt: changed: its SHA-256 is not the one in SHA256SUMS",
    ]
    before = (tidy / "SHA256SUMS").read_bytes()
    code, lines, said = run(capsys, "verify", tidy, "--write")
    assert (code, lines) == (2, []) and "Expected no SHA256SUMS" in said
    assert (tidy / "SHA256SUMS").read_bytes() == before


def test_damaged_pictures_get_no_checksums(tidy, capsys):
    (tidy / "cut.png").write_bytes((tidy / "a.png").read_bytes()[:-50])
    code, _, said = run(capsys, "verify", tidy, "--write")
    assert code == 1 and "not written" in said and not (tidy / "SHA256SUMS").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="names that Windows does not allow, and no sha256sum")
def test_sha256sum_reads_what_is_written_and_the_other_way_round(tidy, capsys):
    for i, name in enumerate(["with space.png", "back\\slash.png", "line\nbreak.png", "größe.png"]):
        texture(10 + i, (16, 16)).save(tidy / name)
    names = [file.relative_to(tidy).as_posix() for file in tidy.rglob("*.*")]
    command = ["sha256sum", *(f"./{name}" for name in names)]
    theirs = subprocess.run(command, cwd=tidy, capture_output=True, check=True).stdout
    assert run(capsys, "verify", tidy, "--write")[0] == 0
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tidy, check=True)
    ours = read_sums(tidy / "SHA256SUMS")
    (tidy / "SHA256SUMS").write_bytes(theirs)
    assert read_sums(tidy / "SHA256SUMS") == ours and ours.keys() == set(names)
    assert not found(tidy)


def test_without_a_command_the_commands_are_listed(capsys):
    code, lines, _ = run(capsys)
    assert code == 0 and any("verify" in line for line in lines) and any("leaks" in line for line in lines)


@pytest.mark.parametrize("package", ["cv2", "imagehash"])
def test_a_missing_package_is_named(tidy, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    code, lines, said = run(capsys, "leaks", tidy, tidy.parent)
    assert (code, lines) == (2, []) and package in said and "pip install " in said
    assert run(capsys, "verify", tidy)[0] == 0


def test_importing_the_commands_loads_nothing_heavy():
    code = "import sys, imagesr.datasets; before = set(sys.modules); import imagesr.datasets.__main__; "
    code += "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "imagesr" in loaded and not {"cv2", "imagehash", "scipy", "keras", "tensorflow"} & loaded


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Return a folder of four pictures of texture and a flat one."""
    folder = tmp_path_factory.mktemp("originals")
    for seed in range(2, 6):
        texture(seed).save(folder / f"{seed}.png")
    Image.new("RGB", (200, 100), (40, 40, 40)).save(folder / "flat.png")
    return folder


def crop(image, left, top):
    """Return a quarter of a picture's area."""
    width, height = image.width // 2, image.height // 2
    return image.crop((left, top, left + width, top + height))


def reduced(image, factor):
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


COPIES = {
    "file": (lambda image: image, ("file", False)),
    "re-encoded": (lambda image: image, ("picture", False)),
    "half": (lambda image: reduced(image, 0.5), ("picture", False)),
    "grey": (lambda image: image.convert("L"), ("picture", False)),
    "mirrored": (ImageOps.mirror, ("picture", True)),
    "crop": (lambda image: crop(image, 31, 57), ("crop", False)),
    "small crop": (lambda image: reduced(crop(image, 120, 15), 0.7), ("crop", False)),
    "mirrored crop": (lambda image: ImageOps.mirror(crop(image, 77, 88)), ("crop", True)),
    "turned crop": (lambda image: crop(image, 60, 60).transpose(Image.Transpose.ROTATE_90), ("crop", False)),
}


@pytest.mark.parametrize("swapped", [False, True])
def test_copies_are_found_and_nothing_else(originals, tmp_path, swapped):
    for seed in (100, 101):
        texture(seed).save(tmp_path / f"other{seed}.jpg")
    Image.new("RGB", (100, 200), (200, 90, 90)).save(tmp_path / "flat.png")
    with Image.open(originals / "3.png") as image:
        for name, (change, _) in COPIES.items():
            change(image.convert("RGB")).save(tmp_path / f"{name}.jpg", quality=80)
    (tmp_path / "file.jpg").write_bytes((originals / "3.png").read_bytes())
    folders = (originals, tmp_path)
    result = leaks(*(folders[::-1] if swapped else folders)).leaks
    pairs = {(leak.b, leak.a) if swapped else (leak.a, leak.b): (leak.how, leak.mirrored) for leak in result}
    source = (originals / "3.png").as_posix()
    assert pairs == {
        (source, (tmp_path / f"{name}.jpg").as_posix()): expected for name, (_, expected) in COPIES.items()
    }


@pytest.mark.parametrize("corner", [(200, 150), (0, 0)], ids=["same corner", "other corner"])
def test_a_watermark_in_common_is_no_leak(tmp_path, corner):
    mark = texture(50, (120, 90))
    for folder, seed, place in (("a", 1, (200, 150)), ("b", 2, corner)):
        (tmp_path / folder).mkdir()
        image = texture(seed)
        image.paste(mark, place)
        image.save(tmp_path / folder / "marked.png")
    assert not leaks(tmp_path / "a", tmp_path / "b").leaks


def test_leaks_are_printed_and_written(originals, tmp_path, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    texture(60).save(folder / "own.png")
    code, lines, said = run(capsys, "leaks", originals, folder)
    assert (code, said) == (0, "")
    assert lines == [f"Compared 5 pictures of {originals} and 1 of {folder}: none of the latter is in the former."]

    (folder / "cut.png").write_bytes((folder / "own.png").read_bytes()[:-99])
    code, _, said = run(capsys, "leaks", originals, folder)
    assert code == 3 and "cut.png was not compared" in said

    (folder / "deeper").mkdir()
    (folder / "deeper/copy.png").write_bytes((originals / "5.png").read_bytes())
    code, lines, _ = run(capsys, "leaks", originals, folder, "--json", tmp_path / "leaks.json")
    assert code == 1 and lines[0] == f"{originals}/5.png  {folder}/deeper/copy.png  same file"
    assert lines[1].endswith(f"and 2 of {folder}: 1 of the latter is in the former.")
    written = json.loads((tmp_path / "leaks.json").read_text())
    assert [(leak["b"], leak["how"]) for leak in written["leaks"]] == [(f"{folder}/deeper/copy.png", "file")]


def test_two_real_leaks_are_found(data):
    found = {
        tuple(path.rsplit("/", 1)[1] for path in (leak.a, leak.b))
        for leak in leaks(data / "set14", data / "set5").leaks
    }
    # Set5's butterfly is cut from Set14's monarch, and its head is Set14's face.
    assert found == {("monarch.png", "butterfly.png"), ("face.png", "head.png")}
