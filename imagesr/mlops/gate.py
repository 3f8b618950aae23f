"""The gate: whether a challenger becomes the champion, decided by figures and limits alone."""

from __future__ import annotations

import math
import statistics
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from imagesr.errors import cause

LIMITS = Path(__file__).with_name("gate.toml")
MEASURES = ("psnr_y", "ssim_y", "psnr_rgb")
_LEAST_PAIRS = 9


@dataclass(frozen=True)
class Limits:
    """Hold the limits of `gate.toml`, which says what each means."""

    measure: str
    confidence: float
    least_pictures: int
    set_fall_db: float
    film_fall_db: float
    crf: Sequence[float]
    frames: int
    films: int
    texture_rise: float
    structure_rise: float
    flicker_rise: float
    seconds_ratio: float
    seconds_pairs: int
    seconds_size: Sequence[int]
    int8_loss_db: float

    @classmethod
    def read(cls, file: Path = LIMITS) -> Limits:
        """Read a file of limits; those that it lacks are the default ones. Raises ValueError."""
        try:
            given = tomllib.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"Expected a file of limits in TOML. Received: {file} ({cause(error)})") from None
        known = {field.name for field in fields(cls)}
        if unknown := sorted(given.keys() - known):
            raise ValueError(f"Expected limits ({', '.join(sorted(known))}) in {file}. Received: {unknown[0]}")
        default = tomllib.loads(LIMITS.read_text("utf-8"))
        for name, value in given.items():
            if _kind(value) != _kind(default[name]):
                raise ValueError(f"Expected {_kind(default[name])} for {name} in {file}. Received: {value!r}")
        limits = cls(**default | given)
        if limits.measure not in MEASURES or not 0.5 <= limits.confidence < 1 or limits.seconds_pairs < _LEAST_PAIRS:
            received = f"{limits.measure}, {limits.confidence}, {limits.seconds_pairs}"
            raise ValueError(
                f"Expected a measure ({', '.join(MEASURES)}), a confidence from 0.5 to below 1, and at least "
                f"{_LEAST_PAIRS} seconds_pairs in {file}. Received: {received}"
            )
        return limits


def _kind(value):
    if isinstance(value, list):
        return "a list of numbers" if value and all(_kind(one) == "a number" for one in value) else "a list"
    return "a number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


@dataclass(frozen=True)
class Figures:
    """Hold what was measured of a challenger and of the champion, in this order in every pair.

    `pictures` has, by set and measure, a pair of lists with a value for each picture, the same pictures in both; `film`
    has by CRF a pair of lists with PSNR-Y of each clip; `natural` has pairs of texture, structure and flicker at the
    default detail, none for models without one. `seconds` are pairs of times. `int8_loss` is what int8 costs the
    challenger in dB, None where it has none; `leaks` names training pictures that are measured on.

    The champion is bicubic interpolation where there was none: then film, time and `natural` are compared with nothing.
    """

    pictures: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]
    film: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    natural: Mapping[str, tuple[float, float]]
    seconds: Sequence[tuple[float, float]]
    int8_loss: float | None
    leaks: Sequence[str]


@dataclass(frozen=True)
class Check:
    """Hold one condition: what was measured, its limit, and whether it holds."""

    name: str
    value: float
    limit: float
    passed: bool
    told: str


@dataclass(frozen=True)
class Decision:
    """Hold whether the challenger passed, every condition, and all figures."""

    passed: bool
    checks: Sequence[Check]
    figures: Figures
    limits: Limits

    def record(self) -> dict[str, Any]:
        """Return the decision as JSON takes it."""
        return asdict(self)

    def refusals(self) -> list[str]:
        """Say which conditions did not hold."""
        return [check.told for check in self.checks if not check.passed]


def decide(figures: Figures, limits: Limits) -> Decision:
    """Decide on a challenger by all of its figures; a figure that is no number never passes."""
    checks = [*_better(figures, limits), *_sets(figures, limits), *_film(figures, limits), *_natural(figures, limits)]
    checks += [*_cost(figures, limits), _no_leak(figures)]
    return Decision(all(check.passed for check in checks), checks, figures, limits)


def _better(figures, limits) -> Iterator[Check]:
    pairs = [named[limits.measure] for named in figures.pictures.values()]
    differences = [a - b for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True)]
    count = len(differences)
    told = f"{count} pictures, at least {limits.least_pictures} are needed"
    yield Check("pictures", count, limits.least_pictures, count >= max(2, limits.least_pictures), told)
    mean, low, high = interval(differences, limits.confidence)
    told = f"{limits.measure} {mean:+.4f}, its {100 * limits.confidence:g} % interval from {low:+.4f} to {high:+.4f}"
    yield Check(limits.measure, low, 0.0, low > 0, told)


def _sets(figures, limits) -> Iterator[Check]:
    for name, measures in figures.pictures.items():
        change = _change(measures["psnr_y"])
        told = f"{name}: PSNR-Y {change:+.3f} dB, {-limits.set_fall_db:g} is the least"
        yield Check(f"set {name}", change, -limits.set_fall_db, change >= -limits.set_fall_db, told)


def _film(figures, limits) -> Iterator[Check]:
    for crf, pair in figures.film.items():
        change = _change(pair)
        told = f"film at CRF {crf}: PSNR-Y {change:+.3f} dB, {0 - limits.film_fall_db:g} is the least"
        yield Check(f"film {crf}", change, -limits.film_fall_db, change >= -limits.film_fall_db, told)


def _natural(figures, limits) -> Iterator[Check]:
    for name, (ours, theirs) in figures.natural.items():
        limit = getattr(limits, f"{name}_rise")
        rise = ours / theirs - 1 if theirs else math.inf * (ours > 0) if ours else 0.0
        told = f"{name} {100 * rise:+.1f} %, {100 * limit:g} % is the most"
        yield Check(name, rise, limit, rise <= limit, told)


def _cost(figures, limits) -> Iterator[Check]:
    if figures.seconds:
        ratio = statistics.median(ours / theirs for ours, theirs in figures.seconds)
        count = len(figures.seconds)
        told = f"time for 30 frames x{ratio:.3f} over {count} pairs, x{limits.seconds_ratio:g} is the most"
        enough = count >= limits.seconds_pairs
        yield Check("seconds", ratio, limits.seconds_ratio, enough and ratio <= limits.seconds_ratio, told)
    if figures.int8_loss is not None:
        told = f"int8 costs {figures.int8_loss:.3f} dB, {limits.int8_loss_db:g} is the most"
        yield Check("int8", figures.int8_loss, limits.int8_loss_db, figures.int8_loss <= limits.int8_loss_db, told)


def _no_leak(figures):
    count = len(figures.leaks)
    told = f"{count} of the pictures are in the training data: {figures.leaks[0]}" if count else "no leak"
    return Check("leaks", count, 0, not count, told)


def _change(pair):
    ours, theirs = pair
    return statistics.fmean(a - b for a, b in zip(ours, theirs, strict=True)) if len(ours) else math.nan


def interval(differences: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """Return the mean of paired differences and its interval by Student's t; NaN for fewer than two, or for a NaN."""
    if len(differences) < 2 or not all(map(math.isfinite, differences)):
        return (math.nan,) * 3
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    reach = error * student_t((1 + confidence) / 2, len(differences) - 1)
    return mean, mean - reach, mean + reach


def student_t(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution, by bisection over its distribution function."""
    low, high = 0.0, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _distribution(middle, freedom) < probability else (low, middle)
    return high


def _distribution(t, freedom):
    """Return P(T <= t) for t >= 0 and whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + within / 2
