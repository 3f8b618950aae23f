"""The most that this CPU computes in int8: a 3x3 convolution large enough that nothing else matters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openvino as ov
from openvino import opset13 as ops

_CHANNELS, _SIDE = 256, 96


def int8_convolution(*, threads: int = 1) -> tuple[Callable[[], None], float]:
    """Return what runs the convolution once, and how many operations that is: two for each multiply-accumulate."""
    random = np.random.default_rng(0)
    shape = [1, _CHANNELS, _SIDE, _SIDE]
    given = ops.parameter(shape, np.uint8)
    weights = ops.constant(random.integers(-127, 128, (_CHANNELS, _CHANNELS, 3, 3)).astype(np.int8))
    weights = ops.multiply(ops.convert(weights, "f32"), np.float32(1 / 127))
    x = _quantised(ops.convert(given, "f32"), 255.0)
    x = ops.relu(ops.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
    x = ops.convert(_quantised(x, 1e4), "u8")
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = ov.Core().compile_model(ov.Model([x], [given]), "CPU", options).create_infer_request()
    samples = random.integers(0, 256, shape).astype(np.uint8)
    return lambda: request.infer([samples], share_inputs=True), 2.0 * 9 * _CHANNELS**2 * _SIDE**2


def _quantised(x, top):
    low, high, end = (np.float32(number) for number in (0, top, 255))
    return ops.fake_quantize(x, low, high, low, end, 256)
