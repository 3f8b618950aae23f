"""The tables that `imagesr evaluate` prints: a row for each file, and gains of a model over another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from imagesr.evaluate.perceptual import COLUMNS as PERCEPTUAL
from imagesr.evaluate.perceptual import EXTRACTORS
from imagesr.evaluate.texture import COLUMNS as TEXTURE

COLUMNS = {
    "psnr_y": "PSNR-Y",
    "ssim_y": "SSIM-Y",
    "psnr_rgb": "PSNR-RGB",
    "psnr_edges": "at edges",
    "vmaf_neg": "VMAF-NEG",
    "vmaf_v1": "VMAF v1",
    "cambi": "CAMBI",
    **PERCEPTUAL,
    **TEXTURE,
}
FINE = {"ssim_y", "lpips", "dists", "texture", "structure", *EXTRACTORS.values()}  # figures that need four digits


class Table:
    """Print rows of figures under the titles of `columns`, keys of `COLUMNS`; `write` prints one line."""

    def __init__(self, columns: Sequence[str], names: Iterable[object], write: Callable[[str], None]):
        self._columns, self._write = columns, write
        self._width = max(28, *(len(str(name)) + 2 for name in names))

    def title(self, text: str) -> None:
        """Print the head of a table."""
        self._line(text, (COLUMNS[key] for key in self._columns))

    def row(self, name: str, figures: dict[str, float]) -> None:
        """Print a row; figures that are not there leave their cells empty."""
        self._line(name, cells(self._columns, figures))

    def _line(self, name, texts):
        self._write(f"{name:{self._width}}{''.join(f'{text:>10}' for text in texts)}".rstrip())


def cells(columns: Sequence[str], figures: dict[str, float]) -> list[str]:
    """Return figures as text; those that are not there are empty."""
    return [f"{figures[key]:.{4 if key in FINE else 2}f}" if key in figures else "" for key in columns]


def print_gains(record: dict, first: dict, own: float | None) -> None:
    """Print the gain in PSNR-Y of a model over the first: a row for each file, a column for each condition.

    `own` is the mean VMAF-NEG of the original clips compared with themselves. The last row says which share of the way
    from the first model's VMAF-NEG to `own` the other model goes.
    """
    names = [row["image"] for row in record["images"]]
    gains, titles, shares = [], [], []
    for ours, theirs in zip(record["conditions"], first["conditions"], strict=True):
        spoilt = "" if ours["spoil"] is None else f" {ours['spoil']}"
        titles.append(ours["kernel"] + ("" if ours["crf"] is None else f" {ours['crf']:g}") + spoilt)
        gains.append([a["psnr_y"] - b["psnr_y"] for a, b in zip(ours["images"], theirs["images"], strict=True)])
        if own is not None and theirs["vmaf_neg"] < own:
            shares.append(f"{(ours['vmaf_neg'] - theirs['vmaf_neg']) / (own - theirs['vmaf_neg']):.1%}")
    width, wide = max(24, *(len(name) + 2 for name in names)), max(8, *(len(title) + 2 for title in titles))

    def line(name, cells):
        print(f"{name:{width}}{''.join(f'{cell:>{wide}}' for cell in cells)}")

    print(f"\nPSNR-Y of {record['model']} over {first['model']}, dB")
    line("", titles)
    for i, name in enumerate(names):
        line(name, (f"{column[i]:+.2f}" for column in gains))
    line("mean", (f"{np.mean(column):+.2f}" for column in gains))
    line("worst", (f"{min(column):+.2f}" for column in gains))
    if shares:
        line("VMAF-NEG, of the way", shares)
