"""ONNX Runtime: it runs the same files as OpenVINO, on the CPU to compare with, and on what its providers drive."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnxruntime

from imagesr.card import ModelCard
from imagesr.cli import hidden_stderr
from imagesr.engines import Engine, onnx_file
from imagesr.errors import ModelError

_CPU = "CPUExecutionProvider"


def devices() -> set[str]:
    """Return the names of the providers that this installation of ONNX Runtime has."""
    return set(onnxruntime.get_available_providers())


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
    """Load a saved model; `auto` is fp32. `device` is a provider, which leaves to the CPU what it cannot do."""
    if precision == "bf16":
        raise ModelError(
            "The engine onnx does not compute in bf16. Choose --engine openvino, or --precision int8 or fp32"
        )
    precision = "fp32" if precision == "auto" else precision
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    file = onnx_file(card, precision, bits)
    if device == _CPU:
        session = onnxruntime.InferenceSession(file, options, providers=[_CPU])
    else:
        with hidden_stderr(), redirect_stdout(io.StringIO()):  # where a library is missing it prints that in many lines
            session = onnxruntime.InferenceSession(file, options, providers=[device, _CPU])
    if device not in session.get_providers():
        told = "Expected a device whose driver and libraries are installed, such as cpu"
        raise ModelError(f"{told}. Received: {device}, which does not start")
    return _ONNX(card, session, precision, detail, clean)


def run_file(file: Path, samples: np.ndarray) -> np.ndarray:
    """Return the first output of an ONNX file with one input."""
    session = onnxruntime.InferenceSession(file, providers=[_CPU])
    return session.run(None, {session.get_inputs()[0].name: samples})[0]


class _ONNX:
    def __init__(self, card, session, precision, detail, clean):
        self.card, self._session, self.precision, self.detail, self.clean = card, session, precision, detail, clean
        self._inputs = [entry.name for entry in session.get_inputs()]

    def __call__(self, planes, detail=None, clean=None):
        first, *more = self._inputs
        numbers = {"detail": self.detail if detail is None else detail, "clean": self.clean if clean is None else clean}
        values = {name: np.array([numbers[name]], np.float32) for name in more}
        return self._session.run(None, {first: planes} | values)[0]
