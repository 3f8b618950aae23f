"""LiteRT on the CPU: the TensorFlow Lite file that phones run."""

from __future__ import annotations

import os
import threading

from ai_edge_litert.interpreter import Interpreter

from imagesr.card import ModelCard
from imagesr.engines import Engine, model_file, only_fp32
from imagesr.errors import ModelError


def load(
    card: ModelCard, *, precision: str, bits: int, threads: int, parallel: int, detail: float, clean: float
) -> Engine:
    """Load a saved model that was exported with `--also litert`."""
    only_fp32("litert", precision, bits, detail=detail, clean=clean)
    file = model_file(card, "model.tflite")
    try:
        return _LiteRT(card, Interpreter(str(file), num_threads=threads or os.cpu_count()))
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"Expected a model that LiteRT can run in {file}. Received: {error}") from None


class _LiteRT:
    precision, detail, clean = "fp32", 0.0, 0.0

    def __init__(self, card, interpreter):
        self.card, self._interpreter, self._shape = card, interpreter, None
        self._input = interpreter.get_input_details()[0]["index"]
        self._output = interpreter.get_output_details()[0]["index"]
        self._lock = threading.Lock()  # an interpreter serves one call at a time

    def __call__(self, planes, detail=None, clean=None):
        with self._lock:
            if planes.shape != self._shape:
                self._interpreter.resize_tensor_input(self._input, planes.shape, strict=True)
                self._interpreter.allocate_tensors()
                self._shape = planes.shape
            self._interpreter.set_tensor(self._input, planes)
            self._interpreter.invoke()
            return self._interpreter.get_tensor(self._output)
