"""Every command with arguments that cannot be: one line, the documented exit code, and nothing changed on the disk."""

import argparse
import json
import os
import shutil
import socket

import av
import numpy as np
import pytest
from conftest import picture, run_command, write_clip
from PIL import Image

from imagesr import cli
from imagesr.__main__ import COMMANDS, find_main
from imagesr.card import SAVED_MODELS

NAMES = ("photo0", "photo1", "photo2")
WHOLE = "name = 'x'\nstore = 's'\n[train]\ndata = ['a']\nval = ['b']\n"  # a config of retrain
CONFIGS = {
    "empty.toml": "",
    "broken.toml": "=",
    "number.toml": "name = 'x'\nstore = 'store'\ntrain = 3\n",
    "name.toml": "name = 'x'",
    "key.toml": "name = 'x'\nstore = 's'\nother = 1\n[train]\n",
    "no-data.toml": "name = 'x'\nstore = 's'\n[train]\nsteps = 1\n",
    "name-1.toml": "name = 1\nstore = 's'\n[train]\n",
    "pictures.toml": f"pictures = 'b100'\n{WHOLE}",
    "no-pictures.toml": f"pictures = []\n{WHOLE}",
    "calibrate.toml": f"calibrate = 'no'\n{WHOLE}",
    "limits.toml": f"limits = 'none.toml'\n{WHOLE}",
    "val.toml": WHOLE.replace("['b']", "'b'"),
    "numbers.toml": "train = 3\nsearch = 3",
    "no-search.toml": "[train]",
    "word.toml": "[train]\n[search]\nloss = 'mse'",
    "letters.toml": "[train]\n[search]\nbatch = { low = 'a', high = 'b' }\n",
    "high.toml": "[train]\n[search]\nbatch = { low = 4, high = 2 }",
    **{
        f"{word}.json": json.dumps({"data": ["folder=photos"], "val": ["folder=photos"]} | settings)
        for word, settings in {
            "loss": {"loss": "l1"},
            "steps": {"steps": "2"},
            "patch": {"patch": 6},
            "channels": {"architecture": {"channels": 2}},
            "strategy": {"strategy": "parameter_server"},
            "precision": {"precision": "float8"},
            "learning_rate": {"learning_rate": -1},
        }.items()
    },
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a folder with inputs of every kind, most of which are none."""
    folder = tmp_path_factory.mktemp("files")
    write_clip(folder / "in.mp4")
    shutil.copy(folder / "in.mp4", folder / "other.mp4")
    os.link(folder / "in.mp4", folder / "same.mp4")
    write_clip(folder / "444.mp4", pix_fmt="yuv444p", frames=2, sound=None)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        audio = container.add_stream("aac", rate=48000, layout="stereo")
        samples = av.AudioFrame.from_ndarray(np.zeros((2, 4800), np.float32), "fltp", "stereo")
        samples.sample_rate = 48000
        container.mux(audio.encode(samples))
        container.mux(audio.encode())
    for name in ("folder.mp4", "empty", "films", "tiny", "garbled"):
        (folder / name).mkdir()
    shutil.copy(folder / "in.mp4", folder / "films" / "a.mp4")
    for name in ("text.mp4", "text.png", "junk.keras"):
        (folder / name).write_text("This is not what its name says.\n" * 50)
    for name, text in CONFIGS.items():
        (folder / name).write_text(text)
    (folder / "empty.mp4").touch()
    (folder / "there.mp4").write_bytes(b"somebody's film")
    (folder / "vector.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    (folder / "garbled" / "SHA256SUMS").write_text("MD5 (a.png) = 0\n")
    Image.fromarray(picture(90, 60)).save(folder / "in.png")
    Image.fromarray(picture(90, 60)).save(folder / "there.png")
    Image.fromarray(picture(20, 14)).save(folder / "tiny" / "a.png")
    Image.fromarray(picture(90, 60)[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    noise.save(folder / "broken.jpg")
    (folder / "broken.jpg").write_bytes((folder / "broken.jpg").read_bytes()[:20_000])
    for name in ("photos", "A", "B", "fewer", "smaller", "twice"):
        (folder / name).mkdir()
        for number, photo in enumerate(NAMES[: 1 if name == "fewer" else 3]):
            size = (50, 40) if name == "smaller" else (120, 100)
            Image.fromarray(picture(*size, shift=number)).save(folder / name / f"{photo}.png")
    Image.fromarray(picture(120, 100)).save(folder / "twice" / "photo0.jpg")
    shutil.copytree(SAVED_MODELS / "linear_x1.5", folder / "linear")
    shutil.copytree(folder / "A", folder / "maps")
    shutil.copytree(SAVED_MODELS / "fast_x1.5", folder / "changed")
    model = folder / "changed" / "model_int8.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    return folder


@pytest.fixture(scope="module")
def networks(files):
    """Add networks to the folder: a run to start from, networks of another kind, and some that are none."""
    import keras

    from imagesr.models import build
    from imagesr.recursive.network import pixel_recursive
    from imagesr.train.config import Config

    options = {"model": "srresnet", "scale": "2", "architecture": {"filters": 4, "blocks": 1}}
    stage = Config(**options, data=("folder=photos",), val=("folder=photos",))
    (files / "stage").mkdir()
    (files / "stage" / "config.json").write_text(stage.model_dump_json())
    network = stage.build()
    network.save_weights(files / "stage" / "training.weights.h5")
    network.save(files / "stage" / "model.keras")
    build("srresnet", "2", filters=8, blocks=1).save(files / "wider.keras")
    pixel_recursive(filters=3, blocks=1, layers=1).save(files / "pixels.keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(files / "other.weights.h5")
    x = keras.Input((None, None, 1))
    two = keras.layers.UpSampling2D(2)(x)
    keras.Model(x, [two, two]).save(files / "two.keras")
    keras.Model(x, keras.layers.UpSampling2D(2)(keras.layers.Conv2D(1, 3)(x))).save(files / "valid.keras")
    x = keras.Input((8, 8, 1))
    keras.Model(x, keras.layers.Dense(10)(keras.layers.Flatten()(x))).save(files / "classes.keras")
    keras.Model(x, keras.layers.UpSampling2D(2)(x)).save(files / "fixed.keras")


@pytest.fixture
def refused(files, monkeypatch):
    """Return a function that runs a command in that folder; it must say in one line why it does nothing."""
    monkeypatch.chdir(files)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)

    def contents():
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files.rglob("*")}

    def run(command, arguments, code, *words):
        before = contents()
        done = run_command(command, *arguments)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
        lines = lines[-1:] if command in WITH_KERAS else lines
        assert len(lines) == 1 and lines[0].startswith(("imagesr", "usage: ")), done.stderr
        assert all(str(word) in lines[0] for word in words), lines[0]
        assert contents() == before

    return run


def parsers(command, monkeypatch):
    """Return the parser of a command and those of its own commands."""
    found = []

    def parse(parser, *_, **__):
        found.append(parser)
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(cli.Parser, "parse_known_args", parse)
        find_main(command)([])
    inner = [action.choices for action in found[0]._actions if isinstance(action, argparse._SubParsersAction)]
    return [found[0], *(parser for choices in inner for parser in choices.values())]


def is_checked(action):
    """Tell whether an option takes a number, a choice, or a type of this package's own."""
    ours = getattr(action.type, "__module__", "").startswith("imagesr")
    return bool(action.option_strings and (action.choices or action.type in (int, float) or ours))


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_of_the_wrong_type_is_one_line(command, monkeypatch, capsys):
    for parser in parsers(command, monkeypatch):
        for action in filter(is_checked, parser._actions):
            with pytest.raises(SystemExit) as end:
                parser.parse_args([action.option_strings[-1], "nonsense"])
            (line,) = capsys.readouterr().err.strip().splitlines()
            assert end.value.code == 2
            assert action.option_strings[-1] in line and "nonsense" in line


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("datasets", "blind", "recursive")])
def test_an_option_that_there_is_not_is_one_line(command, refused):
    needed = {
        "video": ["in.mp4", "out.mp4"],
        "image": ["in.png", "out.png"],
        "send": ["photos", "--to", "http://x", "--out", "out"],
        "export": ["junk.keras"],
        "shaders": ["shaders"],
        "train": ["--data", "photos", "--val", "photos", "--out", "run"],
        "compare": ["in.mp4", "other.mp4"],
        "evaluate": ["--model", "fast", "--data", "photos"],
        "play": ["in.mp4"],
        "promote": ["run", "--name", "x"],
        "retrain": ["config.json"],
        "track": ["sync", "run"],
        "tune": ["search.toml"],
    }
    refused(command, [*needed.get(command, []), "--nonsense"], 2, "--nonsense")


VIDEO = {
    "missing.mp4 out.mp4": (3, "none", "missing.mp4"),
    "folder.mp4 out.mp4": (3, "folder", "folder.mp4"),
    "text.mp4 out.mp4": (3, "read", "text.mp4"),
    "empty.mp4 out.mp4": (3, "read", "empty.mp4"),
    "sound.mp4 out.mp4": (3, "video", "sound.mp4"),
    "in.mp4": (2, "OUT"),
    "in.mp4 none/out.mp4": (2, "folder"),
    "in.mp4 in.mp4": (2, "another file"),
    "in.mp4 same.mp4 -y": (2, "another file"),
    "in.mp4 there.mp4": (2, "exists", "-y"),
    "in.mp4 out.txt": (2, ".mp4"),
    "in.mp4 out.mp4 --start 1e300": (3, "start within the video"),
    "in.mp4 out.webm -c libx264": (2, ".webm"),
    "films out.mp4": (3, "folder as output"),
    "films out --crf 99": (2, "crf"),
    # What is asked is checked before the input is looked at.
    "missing.mp4 out.mp4 -n nothing": (2, "fast"),
    "missing.mp4 there.mp4": (2, "exists"),
    "missing.mp4 out.mp4 -n ./changed": (2, "model_int8.onnx", "card"),
    **{
        f"in.mp4 out.mp4 {options}": (2, *words.split())
        for options, words in {
            "-n nothing": "balanced fast lanczos",
            "-s 0": "scale",
            "-s 1 -n fast": "scale 1",
            "-s 9": "scale",
            "--size big": "1920x1080",
            "--size 1080q": "1920x1080 1080p",
            "--size 90x90": "at least lanczos",
            "--size 20000x20000": "16384",
            "-s 2 --size 300x300": "--size",
            "-s 8 --size 20000x20000": "--size",
            "-c libnothing": "libx264",
            "-c aac": "libx264",
            "-c h264_nvenc": "h264_nvenc NVIDIA",
            "-e nonsense=1": "nonsense=1",
            "-e crf": "KEY=VALUE",
            "--pix-fmt nonsense": "nonsense",
            "--precision int4": "int8",
            "--engine abacus": "openvino",
            "--duration=-1": "duration",
            "--threads=-1": "threads",
            "--threads 100000": "threads",
            "--start inf": "start",
            "--start nan": "start",
            "--start 1:xx": "1:30",
            "--crf 99": "crf",
            "--bitrate 500 --crf 20": "--bitrate --crf",
            "--bitrate 1": "bitrate kbit/s",
            "--target-size 0.0001": "target size",
            "--target-size 0.01": "larger target size",
            "--preset nonsense": "superfast",
            "--preview --start 1": "--preview",
            "--deinterlace maybe": "film",
            "--audio loud": "convert",
            "--rate 0": "rate",
            "-n linear --detail 0.5": "model that takes a detail",
            "-n lanczos --detail 0.5": "model that takes a detail",
            "-n fast --clean 0.5": "model that takes a clean",
            "--detail 1.5": "--detail 0 to 1, 1.5",
            "--clean nan": "--clean auto, nan",
            "--grain=-0.1": "--grain 0 to 1, -0.1",
            "--json none/report.json": "folder",
            "--json in.mp4": "report",
            "--json out.mp4": "report",
            "--json empty": "report",
        }.items()
    },
}
IMAGE = {
    "in.png out.foo": (2, "--format"),
    "in.png in.png": (2, "another file for the output than the input"),
    "in.png there.png": (2, "-y overwrites"),
    "in.png nowhere/deep/out.png": (2, "existing folder"),
    "none.png out.png": (3, "There is none at"),
    "in.png": (2, "IN and OUT"),
    "in.png out.png -s 0": (2, "positive scale"),
    "in.png out.png -s abc": (2, "abc"),
    "in.png out.png -s 9": (2, "from 1 to 8"),
    "in.png out.png -s 0.9": (2, "from 1 to 8"),
    "in.png out.png --detail 1.5": (2, "from 0 to 1"),
    "in.png out.png --detail some": (2, "from 0 to 1, received some"),
    "in.png out.png --clean 2": (2, "from 0 to 1, or auto, received 2"),
    "in.png out.png --grain some": (2, "from 0 to 1, received some"),
    "in.png out.png --size 30x30": (2, "above the picture's own"),
    "in.png out.png --size 1080q": (2, "1920x1080", "1080p"),
    "in.png out.png -n magic": (2, "Expected a model"),
    "in.png out.webp -s 6 --times 3": (2, "16383 pixels a side"),
    "in.png out.png -s 8 --times 9": (2, "megapixels"),
    "in.png out.png --quality 0": (2, "1 to 100"),
    "text.png out.png": (3, "none of them"),
    "vector.svg out.png": (3, "none of them"),
    "broken.jpg out.png": (3, "--allow-truncated"),
}
LIVE = {
    "no.mp4": (3, "no.mp4"),
    "text.mp4": (3, "text.mp4"),
    "empty": (3, "folder"),
    "in.mp4 -n nobody": (2, "nobody"),
    "in.mp4 -s 0": (2, "scale"),
    "in.mp4 -s 9": (2, "scale"),
    "in.mp4 --seconds 0": (2, "above 0 s"),
    "in.mp4 --detail 2": (2, "from 0 to 1, received 2"),
    "in.mp4 --grain nan": (2, "from 0 to 1, received nan"),
    "in.mp4 -n fast --clean 0.5": (2, "a model that takes a clean"),
    "in.mp4 --json in.mp4": (2, "of its own"),
    "in.mp4 --json none/a.json": (2, "folder"),
}
COMPARE = {
    "in.mp4 nothing.mp4 -o page.html": (3, "There is none"),
    "in.mp4 text.png -o page.html": (3, "video"),
    "in.mp4 other.mp4 -o page.txt": (2, ".html"),
    "in.mp4 other.mp4 -o no/page.html": (2, "folder"),
    "in.mp4 other.mp4 -o page.html --start 99": (3, "start within the video"),
    "in.mp4 other.mp4 -o page.html --seconds=-1": (2, "0 s"),
    "in.mp4 other.mp4 -o page.html --json in.mp4": (2, "of its own"),
    "in.mp4 other.mp4 -o page.html --json no/figures.json": (2, "folder"),
}
BLIND = {
    "page A A -o page.html": (2, "two folders"),
    "page A none -o page.html": (2, "none"),
    "page A fewer -o page.html": (2, "photo1"),
    "page A smaller -o page.html": (2, "one size"),
    "page A twice -o page.html": (2, "different names"),
    "page A B -o page.txt": (2, ".html"),
    "page A B -o none/page.html": (2, "folder"),
    "page A B -o page.html --crop 0": (2, "1 pixel"),
    "count none.json": (3, "none.json"),
    "nonsense": (2, "nonsense"),
}
SEND = {
    "photos --to ftp://x --out out": (2, "expected a URL such as"),
    "photos --to http://127.0.0.1:1 --out out": (2, "Expected a running service"),
    "photos --to http://[::::1 --out out": (2, "Expected a running service"),
    "photos --to http://127.0.0.1:1 --out out -s 9": (2, "Expected a scale"),
    "photos --to http://127.0.0.1:1 --out out --jobs 0": (2, "Expected 1 to 64 jobs"),
    "photos --to http://127.0.0.1:1 --out out --patience nan": (2, "Expected a patience"),
    "photos --to http://127.0.0.1:1 --out out --format tiff": (2, "invalid choice"),
}
SERVE = {
    "--port PORT": (2, "a free port"),
    "--port 0 --model magic": (2, "a model for photographs"),
    "--port 0 --queue=-1": (2, "Expected a queue"),
    "--port 0 --threads=-1": (2, "threads"),
    "--port 0 --megapixels 0": (2, "megapixels"),
}
EVALUATE = {
    "--data none": (2, "none"),
    "--data empty": (2, "empty"),
    "--data in.png broken.jpg": (2, "broken.jpg"),
    "--data deep.png": (2, "8 bits"),
    "--data tiny/a.png": (2, "20 pixels"),
    "--data 444.mp4": (2, "444.mp4 (yuv444p)"),
    "--data text.mp4": (3, "text.mp4"),
    **{
        f"--data in.png {options}": (2, *words)
        for options, words in {
            "--model perfect": ["perfect"],
            "--model fast --scale 3": ["1.5"],
            "--scale wide": ["wide"],
            "--scale 0.5": ["0.5"],
            "--scale 9": ["up to 8"],
            "--kernel bicubic round": ["round"],
            "--spoil blur=2": ["noise=SIGMA, jpeg=QUALITY", "blur=2"],
            "--spoil noise=2:30": ["noise=SIGMA, jpeg=QUALITY", "noise=2:30"],
            "--spoil noise=12@0.5": ["noise=SIGMA, jpeg=QUALITY", "noise=12@0.5"],
            "--spoil jpeg=30,jpeg=60": ["noise=SIGMA, jpeg=QUALITY", "jpeg=30,jpeg=60"],
            "--spoil kernel=area": ["noise=SIGMA, jpeg=QUALITY", "kernel=area"],
            "--spoil jpeg=0": ["within 1:100", "jpeg=0"],
            "--spoil jpeg=30 --codec libx264": ["--codec or --spoil"],
            "--codec x42": ["x42"],
            "--codec aac": ["aac"],
            "--codec mpeg4 --crf 20": ["mpeg4"],
            "--crf 20": ["--codec"],
            "--codec libx264 --crf 20 99": ["99"],
            "--frames 0": ["--frames"],
            "--engine steam": ["openvino"],
            "--json none/a.json": ["--json"],
            "--json empty": ["--json"],
            "--json in.png": ["input"],
            "--sheet none/a.png": ["--sheet"],
            "--model fast lanczos --sheet a.png": ["one model"],
            "--sheet a.jpg": [".png"],
            "--plot trade.jpg": [".png"],
            "--plot none/trade.png": ["--plot"],
            "--model linear --detail 0.5": ["Expected a model that takes a detail"],
            "--model lanczos bicubic --detail 0.5": ["Expected a model that takes a detail", "lanczos"],
            "--model lanczos fast --clean 0.5": ["Expected a model that takes a clean", "fast x1.5"],
            "--model balanced --detail 0 2": ["--detail", "from 0 to 1, received 2"],
            "--model fast-photo --detail 0.5": ["Expected a model that takes a detail"],
        }.items()
    },
}
DATASETS = {
    "verify nowhere": (2, "Expected a folder. Received: nowhere"),
    "verify empty": (2, "Expected a folder with pictures"),
    "verify garbled": (2, "Expected lines of a SHA-256"),
    "verify photos --nonsense": (2, "--nonsense"),
    "leaks photos nowhere": (2, "Expected a folder. Received: nowhere"),
    "leaks photos empty": (2, "Expected a folder with pictures"),
    "leaks . photos": (2, "neither inside the other"),
    "leaks photos empty --json nowhere/out.json": (2, "for --json"),
    "film nowhere new": (2, "Expected a folder with pictures"),
    "film photos photos": (2, "Expected a new folder"),
    "film photos new --frames 0": (2, "at least 1"),
    "film tiny new": (2, "at least 28 pixels"),
    "film twice new": (2, "different names"),
    "scenes photos": (2, "Expected a new folder"),
    "scenes new --count 0": (2, "Expected a count of 1"),
    "extract --out new": (2, "NAME=SOURCE"),
    "extract photos --out new": (2, "NAME=SOURCE"),
    "extract div2k=photos": (2, "--out"),
    "extract div2k=none.zip --out new": (3, "none.zip"),
    "extract div2k=in.mp4 --out new": (3, "Expected a whole zip"),
    "extract div2k=empty --out new": (3, "Expected pictures"),
    "extract div2k=photos div2k=photos --out new": (3, "different pictures"),
    "extract div2k=photos --out new --sha256 div2k=12": (2, "64 hexadecimal digits"),
    f"extract div2k=photos --out new --sha256 div2k={64 * '0'}": (3, "SHA-256"),
    "transform photos new": (3, "imagesr datasets extract"),
    "transform photos new --expect faces=1": (2, "SET=NUMBER"),
    "load photos store": (3, "manifest.json"),
    "load nowhere store": (3, "nowhere"),
    "prune nowhere --keep 0": (2, "at least 1 version"),
}
PROMOTE = {
    "": (2, "--name"),
    "--name x": (2, "RUN and --pictures"),
    "empty --name x": (2, "--pictures"),
    "empty --name x --pictures photos": (2, "Expected a run of imagesr train"),
    "--rollback": (2, "--name"),
}
RETRAIN = {
    "": (2, "CONFIG"),
    "nothing.toml": (2, "Expected a config in TOML"),
    "in.png": (2, "Expected a config in TOML"),
    "broken.toml": (2, "Expected a config in TOML"),
    "number.toml": (2, "Expected a table for train"),
    "name.toml": (2, "Expected name, store and train"),
    "key.toml": (2, "Expected keys"),
    "no-data.toml": (2, "Expected data and val"),
    "name-1.toml": (2, "Expected a text for name"),
    "pictures.toml": (2, "Expected a list of texts for pictures"),
    "no-pictures.toml": (2, "Expected a list of texts for pictures"),
    "calibrate.toml": (2, "Expected true or false for calibrate"),
    "limits.toml": (2, "Expected a file of limits"),
    "val.toml": (2, "Expected a list of texts for val under [train]"),
}
TRACK = {
    "sync": (2, "RUN"),
    "sync photos": (3, "which is none"),
    "sync nothing": (3, "which is not there"),
    "lineage photos": (3, "without lineage.json"),
    "lineage nobody": (2, "NAME@ALIAS"),
    "nonsense": (2, "nonsense"),
}
TUNE = {
    "": (2, "SEARCH"),
    "nothing.toml": (2, "[train] and [search]"),
    "number.toml": (2, "[train] and [search]"),
    "empty.toml": (2, "[train] and [search]"),
    "numbers.toml": (2, "[train] and [search]"),
    "no-search.toml": (2, "[train] and [search]"),
    "word.toml": (2, "a list of values, or low and high"),
    "letters.toml": (2, "low and high, with log for batch"),
    "high.toml": (2, "low and high, with log for batch"),
    "search.toml --trials 0": (2, "at least 1 trial"),
}
SMALL = "--data photos --val photos --model srresnet --architecture filters=4 blocks=1 --scale 2 --patch 48 --batch 2"
TRAIN = {
    "--data none --val none": (2, "folder with pictures"),
    "--data photos": (2, "--val"),
    "--config nothing.json": (2, "config"),
    "--resume": (2, "config"),
    "--resume --batch 5": (2, "leave out --batch"),
    "--resume --steps 5": (2, "config"),
    **{
        f"--val photos {options}": (2, words)
        for options, words in {
            "--data imagenet=photos": "div2k",
            "--data div2k=photos": "https://data.vision.ee.ethz.ch/cvl/DIV2K",
            "--data photos --patch 50": "multiple of 3",
            "--data photos --patch 300": "at least 300",
            "--data photos --steps=-1": "greater than or equal to 0",
            "--data photos --batch 0": "greater than or equal to 1",
            "--data photos --steps 5 --epochs 5": "not allowed with",
            "--data photos --scale 4/3": "multiple of 1/2",
            "--data photos --scale big": "scale",
            "--data photos --model gan": "realtime",
            "--data photos --architecture depth=3": "filters",
            "--data photos --architecture filters": "KEY=VALUE",
            "--data photos --architecture filters=wide": "number",
            "--data photos --degrade rain=1": "h264",
            "--data photos --init nowhere": "start from",
        }.items()
    },
    **{f"--config {name}": (2, name.partition(".")[0]) for name in CONFIGS if name.endswith(".json")},
    **{
        f"{SMALL} {options}": (2, words)
        for options, words in {
            "--gan": "--from-scratch",
            "--gan --init stage --scale 4": "whole stage one",
            "--gan --init stage --architecture filters=6 blocks=1": "differs",
            "--gan depth=3 --init stage": "relativistic",
            "--gan --init stage --weights vgg=1": "perceptual",
            "--gan --init stage --perceptual alexnet": "photos, views, vgg19",
            "--perceptual vgg19:block9_conv9": "block5_conv4",
            "--perceptual vgg19=nowhere.h5": "storage.googleapis.com",
            "--perceptual vgg19=other.weights.h5": "another network's",
            "--depth maps --depth-model x.onnx": "both",
            "--depth nowhere": "folder with depth maps",
            "--depth maps --depth-dropout 2": "less than or equal to 1",
            "--depth-model nowhere.onnx": "ONNX",
            "--edge-weight 2": "depth or depth_model",
        }.items()
    },
    "--interpolate stage stage": (2, "--alpha"),
    "--interpolate stage stage --alpha 2": (2, "from 0 to 1"),
    "--interpolate stage stage --alpha 0.5 --steps 9": (2, "leave out --steps"),
    "--interpolate stage wider.keras --alpha 0.5": (2, "one architecture"),
    "--interpolate stage none --alpha 0.5": (2, "none"),
}
EXPORT = {
    "junk.keras": (2, "Keras network from LR to SR"),
    "none.keras": (2, "Keras network from LR to SR"),
    "empty": (2, "run of imagesr train"),
    "photos": (2, "run of imagesr train"),
    "classes.keras": (2, "(None, 10)"),
    "two.keras": (2, "2 outputs"),
    "valid.keras": (2, "pixels from"),
    "fixed.keras --measure waves=photos": (2, "one size"),
    "fixed.keras --measure waves=none": (2, "pictures"),
    "fixed.keras --calibrate none": (2, "pictures"),
    "fixed.keras --also torch": (2, "saved_model"),
    "fixed.keras --name a/b": (2, "without folders"),
    "linear": (2, "--also"),
    "linear --also litert": (2, "mpv"),
    "linear --also mpv --name x": (2, "--also and --clean alone"),
    "linear --also mpv --flavour film": (2, "--also and --clean alone"),
    "fixed.keras --flavour radio": (2, "radio", "film"),
    "linear --also vapoursynth": (2, "whole scale"),
}
RECURSIVE = {
    "train --filters 8": (2, "multiple of 3"),
    "train --layers 0": (2, "Received: 1, 0 and 1"),
    "train --steps 0": (2, "steps to be greater than or equal to 1"),
    "train --learning-rate=-1": (2, "learning_rate to be greater than 0"),
    "train --data nowhere": (2, "folder with pictures"),
    "train --data imagenet=photos": (2, "div2k"),
    "train --data tiny": (2, "32x32"),
    "train --out in.png": (2, "a folder for --out"),
    "train --steps many": (2, "invalid int"),
    "sample nowhere --data photos": (2, "a finished run"),
    "sample in.png --data photos": (2, "a finished run"),
    "": (2, "train|sample"),
    "sample wider.keras --data photos": (2, "which is another"),
    "sample pixels.keras --data photos --temperature nan": (2, "temperature of 0 or more"),
    "sample pixels.keras --data photos --patches 0": (2, "--patches above 0"),
    "sample pixels.keras --data photos --sheet sheet.jpg": (2, ".png"),
    "sample pixels.keras --data photos --sheet nowhere/sheet.png": (2, "existing folder"),
}
BENCH = {"missing.mp4": (3, "missing.mp4"), "--frames 0": (2, "frames"), "--json none/a.json": (2, "folder")}
SHADERS = {"": (2, "DIR"), "in.png": (4, "Expected a file or folder that can be used", "in.png")}
DEVICES = {"-n magic": (2, "Expected a model")}
MODELS = {"--scale 0": (2, "scale"), "--scale abc": (2, "abc")}
WITH_KERAS = ("train", "export", "recursive")  # which may print lines of TensorFlow before
ALSO = {
    "webcam": ["--headless"],
    "play": ["--headless"],
    "train": ["--out", "run"],
    "export": ["--name", "mine", "--folder", "."],
}
CASES = {
    "video": VIDEO,
    "image": IMAGE,
    "webcam": LIVE
    | {"in.mp4 --sink mjpeg --port 99999": (2, "port"), "97": (3, "camera"), "/dev/video97": (3, "camera")},
    "play": LIVE,
    "compare": COMPARE,
    "blind": BLIND,
    "send": SEND,
    "serve": SERVE,
    "evaluate": EVALUATE,
    "datasets": DATASETS,
    "bench": BENCH,
    "shaders": SHADERS,
    "train": TRAIN,
    "export": EXPORT,
    "recursive": RECURSIVE,
    "models": MODELS,
    "devices": DEVICES,
    "promote": PROMOTE,
    "retrain": RETRAIN,
    "track": TRACK,
    "tune": TUNE,
}


@pytest.mark.parametrize(
    ("command", "line", "code", "words"),
    [
        pytest.param(
            command, line, code, words, id=f"{command} {line}", marks=[pytest.mark.keras] * (command in WITH_KERAS)
        )
        for command, cases in CASES.items()
        for line, (code, *words) in cases.items()
    ],
)
def test_what_cannot_be_is_one_line(command, line, code, words, refused, request):
    if command in WITH_KERAS:
        request.getfixturevalue("networks")
    given = line.split()
    if "--sink" not in given and given[:1] != ["linear"]:
        given = [*ALSO.get(command, []), *given]
    if given[:1] == ["train"]:
        given[1:1] = ["--data", "photos", "--val", "photos", "--out", "run"]
    elif command == "evaluate" and "--model" not in given:
        given += ["--model", "lanczos"]
    with socket.create_server(("127.0.0.1", 0)) as place:
        given = [str(place.getsockname()[1]) if part == "PORT" else part for part in given]
        refused(command, given, code, *words)
