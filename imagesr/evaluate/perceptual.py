"""Figures for how natural a picture looks; PSNR rewards the average of all possible pictures."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from imagesr.cli import install
from imagesr.engines import import_engine
from imagesr.errors import ModelError
from imagesr.metrics.fidelity import BANDS, figures, spectrum_ratios
from imagesr.metrics.niqe import niqe

# The feature space in which networks are trained, and one in which none is: it judges them.
EXTRACTORS = {"photos": "distance_photos", "views": "distance_views"}
JUDGE = "distance_views"
COLUMNS = {
    "distance_photos": "PHOTOS",
    "distance_views": "VIEWS",
    "lpips": "LPIPS",
    "dists": "DISTS",
    "niqe": "NIQE",
    "niqe_hr": "NIQE-HR",
    **{f"spectrum_{high}": f"≤{high} %" for high in BANDS},
}
PIECE = 512  # pixels a side: features of more at once would fill the memory

Figures = Callable[..., dict[str, float]]


def perceptual_figures(*, lpips: Path | None = None, dists: Path | None = None) -> Figures:
    """Return a function as `metrics.figures` whose result holds the figures of `COLUMNS`, too.

    `lpips` and `dists` are ONNX files of these networks, each a distance between two pictures, NCHW, in [-1, 1] for
    LPIPS and in [0, 1] for DISTS; without them their figures are left out. NIQE is left out for a picture of less
    than two blocks of 96 pixels. Raises ModelError for a missing network or package.
    """
    if not importlib.util.find_spec("keras"):
        raise ModelError(f"Perceptual figures need the package keras: {install('train')}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow prints details of the machine
    from imagesr.metrics.perceptual import distance, load_extractor

    extractors = {key: load_extractor(name) for name, key in EXTRACTORS.items()}
    load = import_engine("openvino").load_distance
    graphs = {key: load(file) for key, file in (("lpips", lpips), ("dists", dists)) if file}

    def measure(sr, hr, sr_rgb, hr_rgb, *, shave=0):
        row = figures(sr, hr, sr_rgb, hr_rgb, shave=shave)
        inside = (slice(shave, -shave or None),) * 2
        batches = [np.float32(rgb[inside])[np.newaxis] / 255 for rgb in (hr_rgb, sr_rgb)]
        for key, extractor in extractors.items():
            row[key] = _in_pieces(lambda *pieces, by=extractor: float(distance(by, *pieces)[0]), *batches)
        for key, graph in graphs.items():
            planes = [np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) for batch in batches]
            row[key] = graph(*(2 * p - 1 if key == "lpips" else p for p in planes))
        for key, plane in (("niqe", sr), ("niqe_hr", hr)):
            try:
                row[key] = niqe(plane[inside])
            except ValueError:  # too small, or flat
                continue
        return row | spectrum_ratios(sr, hr, shave=shave)

    return measure


def _in_pieces(measure, a, b):
    """Return the mean of a measure on pieces of two NHWC pictures, weighted by their pixels."""
    total = 0.0
    rows, columns = (np.array_split(np.arange(n), -(-n // PIECE)) for n in a.shape[1:3])
    for row in rows:
        for column in columns:
            piece = np.s_[:, row[0] : row[-1] + 1, column[0] : column[-1] + 1]
            total += len(row) * len(column) * measure(a[piece], b[piece])
    return total / (a.shape[1] * a.shape[2])
