"""Keras itself, running the source file of a saved model: the reference for the others."""

from __future__ import annotations

import keras
import numpy as np

from imagesr.card import ModelCard, ModelError
from imagesr.engines import Engine


def load(card: ModelCard, *, precision: str, bits: int, threads: int, parallel: int) -> Engine:
    """Load a saved model; it runs at fp32 whatever its depth, on the threads that its backend chooses."""
    if precision not in ("auto", "fp32"):
        raise ModelError(f"The engine keras runs at fp32 only. Received: {precision}")
    return _Keras(keras.saving.load_model(card.folder / "model.keras"), 255 if bits == 8 else 65535)


class _Keras:
    precision = "fp32"

    def __init__(self, model, peak):
        self._model, self._peak = model, peak

    def __call__(self, planes):
        sr = keras.ops.convert_to_numpy(self._model(planes.astype(np.float32) / self._peak, training=False))
        return np.rint(np.clip(sr * self._peak, 0, self._peak)).astype(planes.dtype)
