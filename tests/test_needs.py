"""Marks say what a test needs; they are found in the sources."""

import subprocess
from types import SimpleNamespace

import pytest
from conftest import chromium, ffmpeg, run_python
from needs import TESTS, imports_keras, needs
from running import Running


def starts():
    subprocess.run(["true"])


def starts_by_another():
    return [starts() for _ in range(2)]


def starts_inside():
    def inside():
        return run_python("-c", "")

    return inside()


class Service(Running):
    def url(self):
        return self.process


def runs_a_service():
    return Service()


def looks():
    return chromium()


def reads():
    return ffmpeg("-version")


def trains():
    from imagesr.train.loop import train

    return train


def imports():
    import keras

    return keras


def runs_an_engine():
    return {"engine": "keras"}


def computes():
    return SimpleNamespace(subprocess=None)


@pytest.mark.parametrize(
    ("function", "marks"),
    [
        (starts, {"process"}),
        (starts_by_another, {"process"}),
        (starts_inside, {"process"}),
        (runs_a_service, {"process"}),
        (looks, {"browser"}),
        (trains, {"keras"}),
        (imports, {"keras"}),
        (runs_an_engine, {"keras"}),
        (reads, {"process"}),
        (computes, set()),
    ],
)
def test_what_a_function_needs(function, marks):
    assert needs([function]) == marks


def test_what_fixtures_and_files_need():
    assert needs([computes], ["data", "browser", "tmp_path"]) == {"data", "browser"}
    assert needs([computes], file=TESTS / "train" / "test_train.py") == {"keras"}
    assert needs([computes], file=TESTS / "test_scale.py") == set()
    assert needs([computes], parameters={"options": {"engine": "keras"}}) == {"keras"}
    assert not imports_keras(TESTS / "conftest.py")
    assert imports_keras(TESTS / "models" / "test_presets.py")  # by importorskip


def test_a_test_that_starts_something_has_its_mark(request):
    assert request.node.get_closest_marker("process"), starts()


def test_another_has_none(request):
    assert not list(request.node.iter_markers())
