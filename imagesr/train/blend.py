"""Blend two networks of one architecture, weight by weight: between faithful and natural pictures."""

from __future__ import annotations

import json
from itertools import zip_longest
from pathlib import Path

import keras
import numpy as np

from imagesr.errors import ModelError
from imagesr.files import whole_folder, write_whole
from imagesr.train.runs import read_run


def interpolate(a: keras.Model, b: keras.Model, alpha: float) -> keras.Model:
    """Return a network whose weights are (1 - alpha) of A's and alpha of B's: at 0 exactly A, at 1 exactly B.

    Between a network trained for PSNR and a GAN that started from its weights, artefacts fade before texture does:
    network interpolation (ESRGAN, arXiv 1809.00219, section 3.4). Raises ValueError for an alpha outside [0, 1], and
    ModelError for two architectures.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"Expected an alpha from 0 to 1. Received: {alpha:g}")
    for ours, theirs in zip_longest(_layers(a), _layers(b), fillvalue=("nothing", "")):
        if ours[1] != theirs[1]:
            places = f"{a.name} with {ours[0]}, {b.name} with {theirs[0]}"
            raise ModelError(f"Expected two networks of one architecture. Received: {places} of another kind or size")
    blend = keras.models.clone_model(a)
    blend.set_weights(
        [np.float32((1 - alpha) * x + alpha * y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True)]
    )
    return blend


def _layers(model):
    """Yield the name of each layer, and its kind, inputs and weight shapes as text."""
    config = model.get_config()["layers"]
    numbers = {layer["name"]: i for i, layer in enumerate(config)}  # automatic names differ from session to session

    def plain(value):
        if isinstance(value, dict):
            of_training = ("name", "trainable", "kernel_initializer", "alpha_initializer")
            return {key: plain(item) for key, item in value.items() if key not in of_training}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return numbers.get(value, value) if isinstance(value, str) else value

    shapes = {layer.name: [tuple(weight.shape) for weight in layer.weights] for layer in model.layers}
    for layer in config:
        yield layer["name"], json.dumps([plain(layer), shapes.get(layer["name"])], sort_keys=True)


def interpolate_runs(a: Path, b: Path, alpha: float, out: Path) -> None:
    """Blend the networks of two runs, or `.keras` files, into a folder `out`, which evaluate and export take as a run.

    The folder gets `model.keras`, and a `config.json` with both parents' settings. Raises ModelError or ValueError, and
    leaves no folder then.
    """
    if out.exists():
        raise ValueError(f"Expected a new folder for --out. Received: {out}, which exists")
    if not out.parent.is_dir():
        raise ValueError(f"Expected --out in a folder that exists. Received: {out}")
    (first, *_), (second, *_) = parents = [read_run(place) for place in (a, b)]
    blend = interpolate(first, second, alpha)
    configs = [config for _, config in parents]
    record = {"scale": configs[0]["scale"], "interpolate": configs, "alpha": alpha}
    # The data of both, so that a card names all of it.
    record |= {key: list(dict.fromkeys(text for c in configs for text in c.get(key, ()))) for key in ("data", "val")}
    with whole_folder(out) as part:
        blend.save(part / "model.keras")
        write_whole(part / "config.json", json.dumps(record, indent=1) + "\n")
