"""Keras, running the source file of a saved model: the reference for the other engines."""

from __future__ import annotations

import json
import zipfile
from importlib import import_module
from pathlib import Path

import keras
import numpy as np

from imagesr.card import ModelCard
from imagesr.depth.network import without_depth
from imagesr.engines import Engine
from imagesr.engines.batching import Batching
from imagesr.errors import ModelError
from imagesr.models import cost
from imagesr.models.layers import at_detail, collapsed, numbers_of

_CPU = "cpu:0"


def devices() -> set[str]:
    """Return Keras's names of the devices that its backend finds on this machine: cpu:0, gpu:0."""
    if keras.config.backend() == "torch":  # Keras does not ask PyTorch
        return {_CPU, "gpu:0"} if import_module("torch").cuda.is_available() else {_CPU}
    return {_CPU, *keras.distribution.list_devices()}  # which lists the fastest kind alone


def load(
    card: ModelCard,
    *,
    precision: str,
    bits: int,
    threads: int,
    parallel: int,
    detail: float,
    clean: float,
    device: str = _CPU,
) -> Engine:
    """Load a saved model; it runs at fp32 whatever its depth, on the threads that its backend chooses.

    Beside the CPU, the frames of concurrent calls are computed in batches. GPUs may convolve in less than float32.
    """
    if precision not in ("auto", "fp32"):
        raise ModelError(f"The engine keras runs at fp32 only. Received: {precision}")
    with keras.device(device):
        model = keras.saving.load_model(card.folder / "model.keras")
    return _Keras(card, model, device, 255 if bits == 8 else 65535, detail, clean)


def read_network(file: Path, *, depth: bool = False) -> keras.Model:
    """Read a network from LR to SR out of a `.keras` file, as `checked_network` returns it; raises ModelError."""
    try:
        network = keras.saving.load_model(file, compile=False)
    except Exception as error:  # Keras raises whatever its zip and JSON readers do
        if own := _own_classes(file):
            raise ModelError(
                f"Expected built-in layers in {file}. Received: {', '.join(own)}. In Python, load it by keras.saving."
                f"load_model(FILE, custom_objects={{'{own[0]}': {own[0]}}}), and give the model to imagesr.evaluate"
            ) from None
        raise _no_network(file, error) from None
    return checked_network(network, file, depth=depth)


def _own_classes(file):
    """Return the names of the classes of layers in a `.keras` file that are not Keras's; none of a broken file."""
    try:
        with zipfile.ZipFile(file) as archive:
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
        names = [layer["class_name"] for layer in layers if not str(layer.get("module")).startswith("keras")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        return []
    ours = keras.saving.get_custom_objects().values()
    return sorted({*names} - {known.__name__ for known in ours})


def checked_network(network: keras.Model, place: Path | str, *, depth: bool = True) -> keras.Model:
    """Return a network from LR to SR in float32, of built-in layers alone; `place` is where it comes from.

    A network with two ends is returned as one from [LR, detail] to SR, with `clean` behind these where it takes that. A
    network that takes a depth map is returned as one from [LR, depth] to SR; without `depth`, as it works without a
    map. Raises ModelError, in one line, for any other network.
    """
    try:
        whole = collapsed(network)
        model = without_depth(whole)
        if len(model.inputs) != 1 + len(numbers_of(model)) or len(model.outputs) != 1:
            raise ValueError(f"{len(model.inputs)} inputs, {len(model.outputs)} outputs")
        shapes = model.inputs[0].shape, model.output.shape
        if any(getattr(layer, "data_format", "") == "channels_first" for layer in model.layers):
            raise ValueError(f"channels first, {shapes[0]}; build it with data_format='channels_last'")
        if any(len(shape) != 4 for shape in shapes) or shapes[0][3] != shapes[1][3] or shapes[0][3] not in (1, 3):
            raise ValueError(f"input {shapes[0]}, output {shapes[1]}")
        scale = cost.model_scale(model)
        odd = cost.multiple(model) * 17
        height, width = cost.input_size(model, (odd, 3 * odd))
        sr = at_detail(model, 0)(np.zeros((1, height, width, shapes[0][3]), np.float32))
        if float(scale) < 1 or sr.shape[1:3] != (scale.grow(height), scale.grow(width)):
            raise ValueError(f"{sr.shape[2]}x{sr.shape[1]} pixels from {width}x{height}")
    except Exception as error:  # layers raise whatever they like
        raise _no_network(place, error) from None
    return whole if depth else model


def _no_network(place, error):
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(f"Expected a Keras network from LR to SR in {place}. Received: {reason}")


class _Keras:
    precision = "fp32"

    def __init__(self, card, model, device, peak, detail, clean):
        self.card, self.detail, self.clean = card, detail, clean
        self._model, self._device, self._peak = model, device, peak
        # On a CPU batches gain nothing, and frames side by side keep its cores busier.
        self._run = self._compute if device == _CPU else Batching(self._compute)

    def __call__(self, planes, detail=None, clean=None):
        numbers = (self.detail if detail is None else detail, self.clean if clean is None else clean)
        # Conversions stay in the callers' threads, beside the batch that is computed.
        sr = self._run(planes.astype(np.float32) / self._peak, *numbers)
        return np.rint(np.clip(sr * self._peak, 0, self._peak)).astype(planes.dtype)

    def _compute(self, lr, detail, clean):
        with keras.device(self._device):
            return keras.ops.convert_to_numpy(at_detail(self._model, detail, clean)(lr, training=False))
