"""What the gate's figures are made of: time on a disturbed machine, and pictures that leak."""

import dataclasses
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2", reason="needs OpenCV (pip install 'imagesr[train]')")

from imagesr.card import sha256
from imagesr.mlops import measures
from imagesr.mlops.gate import Limits, decide

LIMITS = dataclasses.replace(Limits.read(), seconds_size=(48, 32))


def cards():
    return [SimpleNamespace(name=name, multiple=2, channels=1) for name in ("challenger", "champion")]


@pytest.mark.parametrize(
    ("disturbed", "slower", "pairs", "passed"), [(0, 1.0, 9, True), (9, 1.0, 27, True), (0, 1.1, 45, False)]
)
def test_a_challenger_that_looks_too_slow_is_timed_again(disturbed, slower, pairs, passed, monkeypatch):
    count = {"challenger": 0, "champion": 0}

    def timed(card, frame, frames):
        assert frame.shape == (1, 32, 48, 1)
        if frames == 1:  # to warm up
            return 0
        count[card.name] += 1
        if card.name == "champion":
            return 1.0
        return 2.0 if count[card.name] <= disturbed else slower

    monkeypatch.setattr(measures, "_timed", timed)
    monkeypatch.setattr(measures, "load_engine", lambda card: card)
    found = measures._seconds(*cards(), LIMITS)
    assert len(found) == pairs
    figures = measures.Figures({}, {}, {}, found, None, [])
    (check,) = [check for check in decide(figures, LIMITS).checks if check.name == "seconds"]
    assert check.passed == passed


@pytest.fixture
def photos(tmp_path):
    """Return four pictures: two to train on, a mirrored one of those, and one that is like no other."""
    paths = []
    for number, seed in enumerate((1, 2, 1, 3)):
        small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8))
        large = np.asarray(small.resize((128, 128), Image.Resampling.BICUBIC))
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(large[:, ::-1] if number == 2 else large).save(paths[-1])
    return paths


def lineage(files, *, split="train", parent=None):
    return {"data": [{"source": f"folder=x ({split})", "files": {str(f): sha256(f) for f in files}}], "parent": parent}


def test_pictures_that_were_trained_on_are_named(photos):
    trained, other, mirrored, fresh = photos
    (told,) = measures.leaked(lineage([trained, other]), [mirrored, fresh])
    assert told.startswith(f"{mirrored} is {trained}: same picture, mirrored")
    assert measures.leaked(lineage([other]), [mirrored, fresh]) == []


def test_what_parents_were_trained_on_counts_and_validation_does_not(photos):
    trained, other, _, fresh = photos
    child = lineage([other], parent={"lineage": lineage([trained])})
    assert measures.leaked(child, [trained, fresh]) == [f"{trained} is {trained}"]
    assert measures.leaked(lineage([trained], split="val"), [trained]) == []


def test_training_pictures_that_are_gone_are_known_by_their_digest(photos, tmp_path):
    record = lineage(photos[:1])
    copy = tmp_path / "copy.png"
    photos[0].rename(copy)
    assert measures.leaked(record, [copy]) == [f"{copy} is {photos[0]}"]


def test_both_sides_get_the_same_film():
    frames = [measures.Frame.from_ndarray(np.full((64, 48, 3), level, np.uint8)) for level in (20, 90, 200)]
    condition = measures._Coded("bicubic", "libx264", 23)
    first = [*condition.coded((frame.reformat(format="yuv420p") for frame in frames), Fraction(25))]
    second = [*condition.coded(iter(()), Fraction(25))]
    assert len(first) == 3 and all(a is b for a, b in zip(first, second, strict=True))
