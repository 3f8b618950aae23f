"""The gate: what is let through and what is not, by figures alone."""

import dataclasses
import json
import math

import numpy as np
import pytest

from imagesr.mlops.gate import LIMITS, Figures, Limits, decide, interval, student_t

LIMITS_READ = Limits.read()
BASE = [30.0 + 0.7 * number for number in range(12)]


def figures(better=0.1, spread=0.05, **changes):
    """Return figures of a challenger that is better by `better` dB, differently on every picture."""
    random = np.random.default_rng(0)
    ours = [value + better + spread * float(random.normal()) for value in BASE]
    measures = dict.fromkeys(("psnr_y", "ssim_y", "psnr_rgb"), (ours, BASE))
    film = {crf: ([30.1, 31.0], [30.0, 31.0]) for crf in ("18", "23", "28")}
    natural = {"texture": (0.2, 0.2), "structure": (0.3, 0.31), "flicker": (1.0, 1.0)}
    seconds = [(1.0, 1.0), (1.04, 1.0), (1.02, 1.0)] * 3
    whole = Figures({"b100": measures}, film, natural, seconds, 0.05, [])
    return dataclasses.replace(whole, **changes)


def refused(given):
    """Return the names of the conditions that do not hold."""
    decision = decide(given, LIMITS_READ)
    names = [check.name for check in decision.checks if not check.passed]
    assert decision.passed == (not names)
    assert len(decision.refusals()) == len(names)
    return names


def test_a_better_model_passes():
    assert refused(figures()) == []


def test_the_same_model_does_not():
    assert refused(figures(better=0, spread=0)) == ["psnr_y"]


def test_a_difference_within_the_noise_does_not():
    assert refused(figures(better=0.02, spread=0.2)) == ["psnr_y"]


def test_a_worse_model_does_not():
    assert refused(figures(better=-0.1)) == ["psnr_y", "set b100"]


def test_few_pictures_say_too_little():
    measures = {"psnr_y": ([31.0, 32.01, 33.0], [30.0, 31.0, 32.0])}
    assert refused(figures(pictures={"x": measures})) == ["pictures"]
    assert refused(figures(pictures={})) == ["pictures", "psnr_y"]


def test_no_set_may_fall():
    many = {"psnr_y": ([value + 1 + value / 1000 for value in BASE], BASE)}
    few = {"psnr_y": ([29.94], [30.0])}
    assert refused(figures(pictures={"many": many, "few": few})) == ["set few"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"film": {"18": ([30.0], [30.0]), "23": ([29.999], [30.0])}}, "film 23"),
        ({"film": {"18": ([], [])}}, "film 18"),
        ({"natural": {"texture": (0.21, 0.2)}}, "texture"),
        ({"natural": {"structure": (0.3, 0.29)}}, "structure"),
        ({"natural": {"flicker": (1.1, 1.0)}}, "flicker"),
        ({"natural": {"flicker": (0.1, 0.0)}}, "flicker"),
        ({"seconds": [(1.06, 1.0)] * 9}, "seconds"),
        ({"seconds": [(1.0, 1.0)] * 8}, "seconds"),
        ({"int8_loss": 0.11}, "int8"),
        ({"int8_loss": math.nan}, "int8"),
        ({"leaks": ["a.png is b.png"]}, "leaks"),
    ],
)
def test_each_condition_alone_refuses(changes, name):
    assert refused(figures(**changes)) == [name]


def test_one_slow_pair_of_nine_is_chance():
    assert refused(figures(seconds=[(1.0, 1.0)] * 8 + [(9.0, 1.0)])) == []


def test_a_figure_that_is_no_number_never_passes():
    measures = {"psnr_y": ([math.nan] * 12, BASE)}
    assert refused(figures(pictures={"b100": measures})) == ["psnr_y", "set b100"]


def test_the_first_model_is_compared_with_bicubic_alone():
    assert refused(figures(film={}, natural={}, seconds=[], int8_loss=None)) == []


def test_the_most_that_film_may_fall_is_told_as_a_number_that_people_write():
    told = {check.name: check.told for check in decide(figures(), LIMITS_READ).checks}
    assert told["film 18"].endswith(" dB, 0 is the least") and told["set b100"].endswith(" dB, -0.05 is the least")


def test_the_decision_keeps_every_figure():
    decision = decide(figures(better=-1), LIMITS_READ)
    record = json.loads(json.dumps(decision.record()))
    assert record["figures"]["pictures"]["b100"]["psnr_y"][1] == BASE
    assert record["limits"]["set_fall_db"] == 0.05
    assert {check["name"] for check in record["checks"]} >= {"psnr_y", "seconds", "int8", "leaks", "film 18", "texture"}


def test_the_interval_holds_the_mean_as_often_as_it_says():
    random = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        _, low, high = interval((0.3 + random.normal(size=10)).tolist(), 0.95)
        held += low <= 0.3 <= high
    assert 930 <= held <= 970
    assert all(map(math.isnan, interval([1.0], 0.95)))


def test_quantiles_are_those_of_student():
    stats = pytest.importorskip("scipy.stats", reason="needs SciPy")
    for freedom in (1, 2, 3, 7, 10, 99, 100):
        for probability in (0.75, 0.975, 0.995):
            assert student_t(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-9)


def test_limits_are_read_from_one_file(tmp_path):
    assert Limits.read(LIMITS) == LIMITS_READ
    assert (LIMITS_READ.set_fall_db, LIMITS_READ.film_fall_db, LIMITS_READ.seconds_ratio) == (0.05, 0.0, 1.05)
    assert (list(LIMITS_READ.crf), LIMITS_READ.int8_loss_db, LIMITS_READ.seconds_pairs) == ([18, 23, 28], 0.1, 9)
    (tmp_path / "own.toml").write_text("set_fall_db = 1.0\n")
    assert Limits.read(tmp_path / "own.toml") == dataclasses.replace(LIMITS_READ, set_fall_db=1.0)


@pytest.mark.parametrize(
    "text",
    [
        *("x = 1", "seconds_pairs = 8", "measure = 'niqe'", "confidence = 1.0", "=", None),
        *("confidence = 'x'", "crf = 18", "crf = ['18']", "frames = true", "measure = 1"),
    ],
)
def test_limits_that_there_are_not(text, tmp_path):
    if text is not None:
        (tmp_path / "own.toml").write_text(text)
    with pytest.raises(ValueError, match="Expected"):
        Limits.read(tmp_path / "own.toml")
