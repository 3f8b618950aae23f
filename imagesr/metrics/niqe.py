"""NIQE: the distance of a picture's statistics from those of photographs. It needs no original.

Source: Mittal, Soundararajan and Bovik, "Making a completely blind image quality analyzer", 2013; section and equation
numbers are the paper's. `python -m imagesr.metrics.niqe FOLDER … --out FILE.npz` fits the statistics of photographs.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imagesr.cli import Parser, check_record, run_command
from imagesr.files import write_whole
from imagesr.media.images import find_images, read_rgb
from imagesr.pixels import luma, weights

BLOCK = 96  # pixels a side
SHARP = 0.75  # of the sharpest block of a picture: less sharp blocks are left out of the fit (equation 11)
NATURAL = Path(__file__).with_name("niqe.npz")


class Statistics(NamedTuple):
    """Hold the multivariate Gaussian of a set of blocks: `mean` (36,) and `covariance` (36, 36) of their features."""

    mean: np.ndarray
    covariance: np.ndarray


def niqe(plane: np.ndarray, natural: Statistics | None = None) -> float:
    """Return NIQE of luma, (H, W) in [0, 255]: about 3 for a good photograph, higher for less natural pictures.

    `natural` are the statistics to compare with, by default the shipped ones. Other statistics rank pictures alike, but
    give other values. Raises ValueError for a picture with fewer than two blocks of 96×96 pixels that are not flat.
    """
    found = _statistics([features(plane)[0]])
    natural = natural or shipped()
    apart = found.mean - natural.mean
    pooled = (found.covariance + natural.covariance) / 2
    return float(np.sqrt(apart @ np.linalg.pinv(pooled) @ apart))  # equation 12


def fit(planes: Iterable[np.ndarray]) -> tuple[Statistics, int]:
    """Return the statistics of the sharp blocks of photographs' luma, and the number of these blocks."""
    chosen = []
    for plane in planes:
        found, sharpness = features(plane)
        chosen.append(found[sharpness > SHARP * sharpness.max(initial=0)])
    return _statistics(chosen), sum(map(len, chosen))


@cache
def shipped() -> Statistics:
    """Return the statistics of the photographs that `niqe.npz` names under `source`."""
    with np.load(NATURAL, allow_pickle=False) as file:
        return Statistics(file["mean"], file["covariance"])


def features(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 36 features of every block of 96×96 pixels, (N, 36), and the sharpness of each block, (N,).

    18 features are the block's, 18 those of the same block in the picture reduced by two (section II-B).
    """
    height, width = (n - n % BLOCK for n in plane.shape)
    plane = plane[:height, :width].astype(np.float32)
    both, sharpness = [], None
    for side in (BLOCK, BLOCK // 2):
        normalized, deviation = _normalized(plane)
        both.append(_of_blocks(_cut(normalized, side)))
        if sharpness is None:
            sharpness = _cut(deviation, side).mean((1, 2))
            plane = weights(height, height // 2, "bicubic") @ plane @ weights(width, width // 2, "bicubic").T
    return np.concatenate(both, 1), sharpness


def _statistics(found):
    rows = np.concatenate(found)
    rows = rows[np.isfinite(rows).all(1)]  # flat blocks have no statistics
    if len(rows) < 2:
        raise ValueError(f"Expected two blocks of {BLOCK}x{BLOCK} pixels that are not flat. Received: {len(rows)}")
    return Statistics(rows.mean(0), np.cov(rows, rowvar=False))


def _normalized(plane):
    """Return luma less its local mean, divided by its local deviation (equation 1), and this deviation."""
    window = np.exp(-((np.arange(7) - 3) ** 2) / (2 * (7 / 6) ** 2)).astype(np.float32)
    window /= window.sum()

    def blur(plane):
        height, width = plane.shape
        wide = np.pad(plane, 3, mode="edge")
        rows = sum(weight * wide[i : i + height] for i, weight in enumerate(window))
        return sum(weight * rows[:, i : i + width] for i, weight in enumerate(window))

    mean = blur(plane)
    deviation = np.sqrt(np.abs(blur(plane * plane) - mean * mean))
    return (plane - mean) / (deviation + 1), deviation


def _cut(plane, side):
    height, width = plane.shape
    blocks = plane.reshape(height // side, side, width // side, side).swapaxes(1, 2)
    return blocks.reshape(-1, side, side)


def _of_blocks(blocks):
    """Return the 18 features of blocks: the shape of their samples' distribution, and of neighbours' products."""
    alpha, left, right, _ = _fit(blocks)
    columns = [alpha, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):  # along rows, columns and both diagonals (equations 5 to 8)
        alpha, left, right, mean = _fit(blocks * np.roll(blocks, shift, (1, 2)))
        columns += [alpha, mean, left, right]
    return np.stack(columns, 1)


def _fit(blocks):
    """Fit an asymmetric generalized Gaussian (equation 7) to each block by its moments (Lasmar et al. 2009).

    Returns its shape alpha, the spreads beta of its left and right half, and its mean (equation 9).
    """
    flat = blocks.reshape(len(blocks), -1).astype(np.float64)
    squares = flat**2
    with np.errstate(invalid="ignore", divide="ignore"):  # a flat block becomes nan
        left, right = (np.sqrt((squares * side).sum(1) / side.sum(1)) for side in (flat < 0, flat > 0))
        skew = left / right
        ratio = np.abs(flat).mean(1) ** 2 / squares.mean(1)
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
        shapes, ratios, spreads, centres = _table()
        alpha = np.interp(ratio, ratios, shapes)
        spread, centre = (np.interp(alpha, shapes, column) for column in (spreads, centres))
        left, right = left * spread, right * spread
        return alpha, left, right, (right - left) * centre


@cache
def _table():
    """Return shapes alpha from 0.2 to 10, and of each the ratio of moments, beta over deviation, mean over beta."""
    shapes = np.linspace(0.2, 10, 9801)
    one, two, three = (np.array([math.lgamma(n / shape) for shape in shapes]) for n in (1, 2, 3))
    return shapes, np.exp(2 * two - one - three), np.exp((one - three) / 2), np.exp(two - one)


def _fit_photographs(options):
    check_record(options.out, [], what="the statistics")
    files = find_images(options.folders)
    natural, blocks = fit(luma(read_rgb(file)) for file in files)
    file = io.BytesIO()
    source = f"{blocks} blocks of {len(files)} pictures: {options.source}"
    np.savez(file, mean=natural.mean, covariance=natural.covariance, source=source)
    write_whole(options.out, file.getvalue())
    print(f"{options.out}: {source}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Fit the statistics of photographs, and return the exit code."""
    parser = Parser(prog="python -m imagesr.metrics.niqe", description="Fit the statistics that NIQE compares with.")
    add = parser.add_argument
    add("folders", type=Path, nargs="+", metavar="FOLDER", help="photographs without blur, noise or block artefacts")
    add("--out", type=Path, required=True, metavar="FILE", help="the .npz file for the statistics")
    add("--source", required=True, metavar="TEXT", help="a description of the photographs and their licences")
    return run_command("niqe", _fit_photographs, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
