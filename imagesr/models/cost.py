"""The cost of a network: parameters, multiply-accumulates, seconds; and its scale, input size and receptive field."""

from __future__ import annotations

import time

import keras
import numpy as np
from keras import ops

from imagesr.models.layers import at_detail, numbers_of
from imagesr.scale import Scale


def parameters(model: keras.Model) -> int:
    """Count the trainable parameters: without a fixed bicubic filter and batch norm's running averages."""
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def model_scale(model: keras.Model) -> Scale:
    """Return the scale of a network, from the size of its output."""
    height, width = input_size(model, (96, 96))
    return Scale.parse(f"{_sized(model, height, width).output.shape[1]}/{height}")


def _sized(model, height, width):
    """Return the network for pictures of one size; its inputs beside LR stay."""
    lr, *more = model.inputs
    inputs = [keras.Input((height, width, lr.shape[-1]), batch_size=1, name=lr.name)]
    inputs += [keras.Input(entry.shape[1:], batch_size=1, name=entry.name) for entry in more]
    return keras.models.clone_model(model, input_tensors=inputs if more else inputs[0])


def input_size(model: keras.Model, size: tuple[int, int]) -> tuple[int, int]:
    """Return the network's fixed input (height, width), or `size` if it has none."""
    height, width = model.inputs[0].shape[1:3]
    return (height or size[0], width or size[1])


def multiple(model: keras.Model) -> int:
    """Return the number that must divide the height and width of the input."""
    if None not in model.inputs[0].shape[1:3]:
        return 1
    factors = [op.block_size for op in model.operations if type(op).__name__ == "SpaceToDepth"]
    return int(np.prod(factors, dtype=int))


def multiply_accumulates(model: keras.Model) -> float:
    """Count the multiply-accumulates of the convolutions per LR pixel of a large picture."""
    side = 96_000  # so large that the borders of valid convolutions vanish
    height, width = input_size(model, (side, side))
    sized = _sized(model, height, width)
    convolutions = [layer for layer in sized.layers if isinstance(layer, keras.layers.Conv2D)]
    total = sum(np.prod(c.kernel.shape) * np.prod(c.output.shape[1:3], dtype=float) for c in convolutions)
    return float(round(total / (height * width)))


def receptive_field(model: keras.Model) -> int:
    """Measure the width, in LR pixels, of the neighbourhood that an output pixel depends on."""

    def saturated(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.Conv2D):
            config["activation"] = "tanh"  # keeps every dependence near one, however deep the network
        if isinstance(layer, keras.layers.Rescaling):
            config["offset"] = 0.0
        return type(layer).from_config(config)

    probe = keras.models.clone_model(model, clone_function=saturated)
    for layer in probe.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.set_weights([np.full(w.shape, 1e3 if w.ndim > 1 else 0) for w in layer.get_weights()])
    # Columns alone: the networks are as wide as high, but for `strided`, which is wider.
    unit = multiple(model)
    side = 64 * unit
    while True:
        height, width = input_size(model, (16 * unit, side))
        line = np.zeros((1, height, width, model.inputs[0].shape[-1]), np.float32)
        line[:, :, width // 2] = 1
        sr = ops.convert_to_numpy(at_detail(probe, 0)(line))[0]
        touched = sr.any((0, 2)).nonzero()[0]
        per_pixel = sr.shape[1] / width
        inside = touched[0] > 0 and touched[-1] < sr.shape[1] - 1
        if inside or model.inputs[0].shape[2]:
            return int(np.ceil((touched[-1] - touched[0] + 1) / per_pixel))
        side *= 2


def seconds_30_frames(model: keras.Model) -> tuple[float, str]:
    """Return the seconds for 30 frames of 720p in Keras at float32, and a description of the measurement.

    A large network is timed on a piece of a frame.
    """
    budget = 30e9  # multiply-accumulates per call: a second or less
    frame = (720, 1280)
    fits = multiply_accumulates(model) * frame[0] * frame[1] <= budget or None not in model.inputs[0].shape[1:3]
    piece = frame if fits else (96, 96)
    size = input_size(model, piece)
    lr = [np.random.default_rng(0).random((1, *size, model.inputs[0].shape[-1]), np.float32)]
    numbers = [np.zeros(1, np.float32) for _ in numbers_of(model)]
    lr = [*lr, *numbers] if numbers else lr[0]
    model.predict_on_batch(lr)
    times = []
    while len(times) < 3 or (sum(times) < 3 and len(times) < 30):
        begun = time.perf_counter()
        model.predict_on_batch(lr)
        times.append(time.perf_counter() - begun)
    seconds = 30 * float(np.median(times)) * frame[0] * frame[1] / (size[0] * size[1])
    return seconds, f"720p, Keras, float32{'' if fits else ', reckoned from a piece of 96x96'}"
