"""TensorFlow, running a SavedModel: the format of TensorFlow Serving."""

from __future__ import annotations

import keras

from imagesr.card import ModelCard
from imagesr.engines import Engine, model_file, only_fp32


def load(
    card: ModelCard, *, precision: str, bits: int, threads: int, parallel: int, detail: float, clean: float
) -> Engine:
    """Load a saved model that was exported with `--also saved_model`, on threads that TensorFlow chooses."""
    only_fp32("saved_model", precision, bits, detail=detail, clean=clean)
    folder = model_file(card, "saved_model/saved_model.pb").parent
    with keras.device("cpu"):  # GPUs convolve in less than float32
        return _SavedModel(card, keras.layers.TFSMLayer(folder, call_endpoint="serve"))


class _SavedModel:
    precision, detail, clean = "fp32", 0.0, 0.0

    def __init__(self, card, layer):
        self.card, self._layer = card, layer

    def __call__(self, planes, detail=None, clean=None):
        with keras.device("cpu"):
            return keras.ops.convert_to_numpy(self._layer(planes))
