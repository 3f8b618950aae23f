"""The documents: their links lead somewhere, their commands parse, many of them run, and the site builds."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ffmpeg, picture, write_clip
from needs import needs_keras
from PIL import Image

from imagesr import cli
from imagesr.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "deploy").rglob("*.md"))

# Commands that run on small files within seconds. Others need a camera, a window, a service, data or minutes.
RUN = ("video", "image")
# Parts of commands and blocks that are only parsed and compiled, and the reason.
NOT_RUN = {
    "h264_nvenc": "needs an NVIDIA GPU",
    "--device gpu": "needs a GPU",
    "--dry-run": "writes nothing, and has tests of its own",
    "--demo": "renders a clip, and has a test of its own",
    "large.mkv": "is a command twice, for an interrupted run",
    "pairs/": "needs films, and takes several",
    "upscaled": "takes several videos, and has tests of its own",
    "-c libx265": "takes long on small machines",
    "saved_models/mine": "needs a trained network",
    "import torch": "needs PyTorch",
    '"DIV2K"': "needs DIV2K; test_a_run_folder_alone does the same",
}
SHORTER = {"20_000": "2", "filters=16, blocks=4": "filters=4, blocks=1", "batch=16": "batch=2"}


def name_of(page):
    """Return a page's name among all pages."""
    return page.relative_to(ROOT).with_suffix("").as_posix().removeprefix("docs/")


def blocks(page, language):
    """Return the text of every block of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def commands(text):
    """Return the command lines of a block of shell code as lists of words, with its variables put in."""
    text = text.replace("\\\n", " ")
    values = {}
    for name, quoted, word in re.findall(r'^(\w+)=(?:"([^"]*)"|(\S+))$', text, re.M):
        values[name] = quoted or word
    for name, value in values.items():
        text = re.sub(rf"\${name}\b", value, text)
    found = []
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&><")
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            if re.fullmatch(r"[|;&><]+", word):
                found.append(words)
                words = []
            else:
                words.append(word)
    return [words for words in found if words]


def ours(words):
    """Return (module, arguments) of a command of this package, None of another's."""
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    program = words[0].rpartition("/")[2] if words else ""
    if program == "imagesr":
        return COMMANDS[words[1]][0], words[2:]
    if program in ("python", "python3") and words[1:2] == ["-m"] and words[2].startswith("imagesr."):
        package = (ROOT / words[2].replace(".", "/")).is_dir()
        return f"{words[2]}.__main__" if package else words[2], words[3:]
    return None


LINES = [(page, words) for page in PAGES for text in blocks(page, "sh") for words in commands(text) if ours(words)]
TRAINING = re.compile(r"keras|imagesr\.(train|models|datasets|evaluate)")
PYTHON = [
    pytest.param(text, id=f"{name_of(page)}-{number}", marks=[pytest.mark.keras] * bool(TRAINING.search(text)))
    for page in PAGES
    for number, text in enumerate(blocks(page, "python"), 1)
]


def slug(heading):
    """Return the anchor that GitHub and mkdocs make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def anchors(page):
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def test_readme_is_short_and_has_the_command_of_the_tests():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 150
    command = next(line for line in lines if "bin/pytest" in line)  # CI takes this line
    assert command.startswith("python3 -m venv .venv-dev && ")
    assert len((ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()) <= 80


def test_a_change_in_the_documents_is_seen():
    assert len(LINES) > 60
    assert len(PYTHON) > 8


@pytest.fixture
def parse(monkeypatch):
    """Return a function that parses a command line by its own command, and does nothing with it."""
    running, parsing = cli.run_command, True

    def run_command(*arguments):
        # A module that is imported meanwhile keeps this function.
        return 0 if parsing else running(*arguments)

    def parse(module, arguments):
        main = import_module(module).main
        for name, loaded in list(sys.modules.items()):
            if name.startswith("imagesr.") and hasattr(loaded, "run_command"):
                monkeypatch.setattr(loaded, "run_command", run_command)
        return main(arguments)

    yield parse
    parsing = False


def with_marks(page):
    """Return a page as a parameter, marked where its commands' modules need Keras."""
    keras = needs_keras(*(ours(words)[0] for where, words in LINES if where == page))
    return pytest.param(page, id=name_of(page), marks=[pytest.mark.keras] * keras)


def write_preset(folder):
    """Write the preset file that a page shows."""
    (text,) = blocks(ROOT / "docs/servers.md", "toml")
    (folder / "films.toml").write_text(text, "utf-8")


@pytest.mark.parametrize("page", map(with_marks, sorted({page for page, _ in LINES})))
def test_commands_parse(page, parse, capsys, tmp_path):
    write_preset(tmp_path)
    for where, words in LINES:
        if where != page:
            continue
        module, arguments = ours([str(tmp_path / word) if word == "films.toml" else word for word in words])
        try:
            code = parse(module, arguments)
        except SystemExit as error:
            code = error.code
        assert code == 0, f"{' '.join(words)}: {capsys.readouterr().err}"


PARTS = {
    "datasets": ("verify", "leaks", "film", "scenes", "extract", "transform", "load", "prune"),
    "track": ("sync", "lineage"),
    "recursive": ("train", "sample"),
    "blind": ("page", "count"),
}
HELPS = [*COMMANDS, *(f"{command} {part}" for command, parts in PARTS.items() for part in parts)]


@pytest.mark.parametrize("command", HELPS)
def test_every_help_has_examples_first_and_they_parse(command, parse, capsys):
    name, *part = command.split()
    with pytest.raises(SystemExit):
        parse(COMMANDS[name][0], [*part, "--help"])
    text = capsys.readouterr().out
    lines = text.splitlines()
    shown = next(i for i, line in enumerate(lines) if line.lower() == "examples:")
    assert shown < next((i for i, line in enumerate(lines) if line.endswith(":") and i != shown), len(lines))
    assert lines[0].startswith(f"usage: imagesr {command}")
    assert len(max(lines[:shown], key=len)) <= 120
    for words in commands("\n".join(line for line in text.splitlines() if line.startswith("  imagesr "))):
        if found := ours(words):
            assert parse(*found) == 0, words


@pytest.mark.parametrize("text", PYTHON)
def test_python_compiles(text):
    compile(text, "example", "exec")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a folder with what the examples read."""
    folder = tmp_path_factory.mktemp("examples")
    # Ten frames in 100 seconds: long enough for --start 60, and quickly upscaled.
    options = {"crf": "18", "bf": "0"}
    clip = write_clip(folder / "in.mp4", size=(320, 180), frames=10, rate=Fraction(1, 10), sound=None, options=options)
    for name in ("a.mp4", "b.mp4"):
        shutil.copyfile(clip, folder / name)
    ffmpeg("-i", clip, "-t", "1", "-r", "25", "-target", "pal-dvd", folder / "dvd.vob")
    Image.fromarray(picture(320, 240)).save(folder / "photo.jpg")
    write_preset(folder)
    (folder / "photos").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(picture(48, 40)).save(folder / "photos" / name)
    for name in ("train", "val"):
        (folder / name).mkdir()
        Image.fromarray(picture(120, 100)).save(folder / name / "a.png")
    return folder


def reason_not_to_run(text):
    """Return why a command or a block is not run, "" where it is."""
    return next((reason for part, reason in NOT_RUN.items() if part in text), "")


def runnable():
    """Return the command lines that are run, each once. Those in pipes are not among them."""
    found = {shlex.join(words): words for _, words in LINES if words[0] == "imagesr" and words[1] in RUN}
    return [pytest.param(words, id=line) for line, words in found.items() if "-" not in words]


@pytest.mark.parametrize("words", runnable())
def test_commands_run(words, files, tmp_path, monkeypatch):
    if reason := reason_not_to_run(" ".join(words)):
        pytest.skip(reason)
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    module, arguments = ours(words)
    assert import_module(module).main(arguments) == 0, shlex.join(words)
    written = {file for file in tmp_path.rglob("*") if file.is_file()} - before
    assert bool(written) != ("--dry-run" in words), "it has written nothing, or what it should not"


@pytest.mark.parametrize("text", PYTHON)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_python_runs(text, files, tmp_path, monkeypatch):
    if reason := reason_not_to_run(text):
        pytest.skip(reason)
    if "TensorBoard" in text:
        pytest.importorskip("tensorboard")
    if "import cv2" in text:  # no window is opened
        cv2 = pytest.importorskip("cv2")
        shown = []
        monkeypatch.setattr(cv2, "imshow", lambda title, large: shown.append(large.shape))
        monkeypatch.setattr(cv2, "waitKey", lambda delay: -1)
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "example", "exec"), {"__name__": "example"})
    if "import cv2" in text:
        assert shown == [(270, 480, 3)] * 10


@pytest.mark.skipif(not find_spec("mkdocs"), reason="needs mkdocs (pip install 'imagesr[dev]')")
def test_the_site_builds(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")  # it fetches nothing
    environment = os.environ | nowhere | {"NO_MKDOCS_2_WARNING": "true"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "upscale_video" in (tmp_path / "reference.html").read_text("utf-8")
    for page in tmp_path.glob("*.html"):
        assert not re.search(r'<(script|link|img)[^>]*(src|href)="?https?:', page.read_text("utf-8")), page.name
