"""Figures: a run's curves, sample crops, and the trade between two measures over several models."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from imagesr.files import whole

LABELS = {"psnr_y": "PSNR-Y of the moving average, dB", "learning_rate": "learning rate"}
ANSWERS = {"d_real": "D(real)", "d_fake": "D(fake)"}  # a discriminator's answers share one figure


def draw_curves(history: Path, folder: Path, bicubic: float | None = None) -> None:
    """Draw every column of a run's `history.csv` over the steps: `loss.png`, `psnr_y.png`, `learning_rate.png` …

    `bicubic` is the PSNR-Y to compare with, in dB, drawn as a line; None draws none. A GAN's D(real) and D(fake) are
    in `d.png`.
    """
    with history.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    keys = [key for key in rows[0] if key != "step" and key not in ANSWERS] if rows else []
    figures = {key: {key: LABELS.get(key, key)} for key in keys}
    if rows and ANSWERS.keys() <= rows[0].keys():
        figures["d"] = ANSWERS
    for key, curves in figures.items():
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for column, label in curves.items():
            values = [float(row[column]) for row in rows]
            axes.plot(steps, values, marker="." if len(rows) < 40 else None, label=label if len(curves) > 1 else None)
        if len(curves) > 1:
            axes.set_ylim(0, 1)
            axes.legend()
        if key == "psnr_y" and bicubic is not None:
            axes.axhline(bicubic, color="grey", linestyle="--", label=f"bicubic, {bicubic:.2f} dB")
            axes.set_ylim(bottom=max(axes.get_ylim()[0], bicubic - 3))  # the first values tell little
            axes.legend()
        if key == "loss":
            axes.set_yscale("log")
        axes.set(xlabel="step", ylabel=", ".join(curves.values()))
        axes.grid(alpha=0.3)
        _save(figure, folder / f"{key}.png")


def draw_samples(samples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], path: Path, title: str) -> None:
    """Draw crops as rows of LR | SR | HR, each uint8, (H, W) or (H, W, 3)."""
    figure = Figure(figsize=(9, 3 * len(samples)), layout="constrained")
    figure.suptitle(title)
    for row, crops in zip(figure.subplots(len(samples), 3, squeeze=False), samples, strict=True):
        for axes, crop, name in zip(row, crops, ("LR", "SR", "HR"), strict=True):
            axes.imshow(crop, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(f"{name} {crop.shape[1]}x{crop.shape[0]}", fontsize=9)
            axes.axis("off")
    _save(figure, path)


def draw_trade(points: Sequence[tuple[str, float, float]], path: Path, x: str, y: str) -> None:
    """Draw points, each a name and two figures, over axes labelled `x` and `y`."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name, *point in points:
        axes.plot(*point, "o")
        axes.annotate(name, point, (6, 6), textcoords="offset points")
    axes.margins(0.15)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    _save(figure, path)


def _save(figure, path):
    FigureCanvasAgg(figure)
    with whole(path) as part:
        figure.savefig(part, format="png", dpi=100)
