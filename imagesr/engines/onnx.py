"""ONNX Runtime on the CPU: it runs the same files as OpenVINO, to compare with."""

from __future__ import annotations

import onnxruntime

from imagesr.card import ModelCard
from imagesr.engines import Engine, onnx_file
from imagesr.errors import ModelError


def load(card: ModelCard, *, precision: str, bits: int, threads: int, parallel: int) -> Engine:
    """Load a saved model; `auto` is fp32."""
    if precision == "bf16":
        raise ModelError(
            "The engine onnx does not compute in bf16. Choose --engine openvino, or --precision int8 or fp32"
        )
    precision = "fp32" if precision == "auto" else precision
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    file = onnx_file(card, precision, bits)
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return _ONNX(card, session, precision)


class _ONNX:
    def __init__(self, card, session, precision):
        self.card, self._session, self.precision = card, session, precision
        self._input = session.get_inputs()[0].name

    def __call__(self, planes):
        return self._session.run(None, {self._input: planes})[0]
