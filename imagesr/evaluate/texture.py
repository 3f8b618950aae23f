"""Figures that say whether a film has the texture of the original, beside PSNR, which prefers none."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from imagesr.cli import install
from imagesr.errors import ModelError
from imagesr.scale import Scale

COLUMNS = {"texture": "TEXTURE", "structure": "STRUCTURE", "mesh": "MESH", "flat": "FLAT", "flicker": "FLICKER"}
JUDGE = "lite2"  # networks are trained on the features of lite0

Figures = Callable[..., dict[str, float]]


def texture_figures(measure: Figures, scale: Scale, weights: Path | None = None) -> Figures:
    """Return a function as `measure`, whose result also holds those of `COLUMNS` that a single frame has.

    `weights` is the file of EfficientNet-Lite2's weights; None is that of its package. Pictures of less than 96 pixels
    a side have no texture and no structure. Raises ModelError for what is missing.
    """
    for package in ("keras", "cv2"):
        if not importlib.util.find_spec(package):
            raise ModelError(f"Figures of texture need the package {package}: {install('train')}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow tells what machine it runs on, at length
    from imagesr.metrics.efficientnet import features
    from imagesr.metrics.texture import PATCH, Texture, cells, flat, mesh

    try:
        texture = Texture(features(JUDGE, weights))
    except ValueError as error:
        raise ModelError(str(error)) from None

    def measured(sr, hr, sr_rgb, hr_rgb, *, shave=0):
        row = measure(sr, hr, sr_rgb, hr_rgb, shave=shave)
        inside = (slice(shave, -shave or None),) * 2
        sr, hr = sr[inside], hr[inside]
        if min(hr.shape) >= PATCH:
            row |= texture(sr, hr)
        row["mesh"] = mesh(sr, cells(scale))
        grit = flat(sr, hr)
        return row if grit is None else row | {"flat": grit}

    return measured
