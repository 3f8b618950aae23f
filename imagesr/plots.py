"""Pictures of a run: its curves, and what the network makes of a few crops; and of many: what each trades for what."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

CURVES = {"loss": "loss", "psnr_y": "PSNR-Y of the moving average, dB", "learning_rate": "learning rate"}


def draw_curves(history: Path, folder: Path, bicubic: float) -> None:
    """Draw `loss.png`, `psnr_y.png` and `learning_rate.png` over the steps from a run's `history.csv`.

    `bicubic` is the PSNR-Y to compare with, in dB, drawn as a line.
    """
    with history.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    for key, label in CURVES.items():
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(steps, [float(row[key]) for row in rows], marker="." if len(rows) < 40 else None)
        if key == "psnr_y":
            axes.axhline(bicubic, color="grey", linestyle="--", label=f"bicubic, {bicubic:.2f} dB")
            axes.set_ylim(bottom=max(axes.get_ylim()[0], bicubic - 3))  # how a network begins tells little
            axes.legend()
        if key == "loss":
            axes.set_yscale("log")
        axes.set(xlabel="step", ylabel=label)
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
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="png", dpi=100)
    part.replace(path)
