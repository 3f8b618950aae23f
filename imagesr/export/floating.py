"""The ONNX file on float samples in NCHW, for programs that bring their own pictures: FFmpeg, VapourSynth, NVEnc."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

FLOAT_FILE = "model_float.onnx"


def run_keras(model: keras.Model, pictures: np.ndarray, detail: float = 0.0, clean: float = 0.0) -> np.ndarray:
    """Return what Keras makes of (N, H, W, channels) uint8, rounded and clipped to codes from 0 to 255."""
    import keras

    from imagesr.models.layers import at_detail

    with keras.device("cpu"):
        sr = at_detail(model, detail, clean)(pictures.astype(np.float32) / 255, training=False)
    return np.rint(np.clip(keras.ops.convert_to_numpy(sr) * 255, 0, 255)).astype(int)


def write_float(model: keras.Model, file: Path, *, detail: float = 0.0, clean: float = 0.0) -> None:
    """Write a network as ONNX from `input` to `output`: float32 (1, channels, H, W) in [0, 1], the result clipped.

    A network that takes `detail` or `clean` is written at those. Raises ValueError for one that cannot be written.
    """
    import keras
    from keras import ops

    from imagesr.models.layers import numbers_of

    height, width, channels = model.inputs[0].shape[1:]
    lr = keras.Input((channels, height, width), batch_size=1, name="input")
    x = ops.transpose(lr, (0, 2, 3, 1))
    # Made of the picture, because the converter takes a constant tensor for one more input.
    numbers = [{"detail": detail, "clean": clean}[name] for name in numbers_of(model)]
    sr = model([x, *(ops.zeros_like(x[:, 0, 0, 0]) + number for number in numbers)] if numbers else x)
    graph = keras.Model(lr, ops.transpose(ops.clip(sr, 0, 1), (0, 3, 1, 2)), name=model.name)
    graph(np.zeros((1, channels, height or 32, width or 32), np.float32))
    try:
        graph.export(str(file), format="onnx", verbose=False)
    except ImportError:
        raise
    except Exception as error:  # the converter raises exceptions of many classes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"Expected a network that can be written as ONNX on floats. Received: {reason}") from error
    _name_output(file)


def _name_output(file):
    """Call the output of an ONNX file `output`, whatever the converter called it."""
    import onnx

    model = onnx.load(file)
    old = model.graph.output[0].name
    model.graph.output[0].name = "output"
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["output" if name == old else name for name in names]
    onnx.save(model, file)


def check_float(
    model: keras.Model, file: Path, pictures: Sequence[np.ndarray], *, detail: float = 0.0, clean: float = 0.0
) -> None:
    """Compare the file with Keras on (1, H, W, channels) uint8, and print the difference; ValueError above one code."""
    from imagesr.engines.onnx import run_file

    worst = 0
    for picture in pictures:
        sr = run_file(file, np.moveaxis(picture.astype(np.float32) / 255, 3, 1))
        codes = np.rint(np.moveaxis(sr, 1, 3) * 255)
        worst = max(worst, int(np.abs(codes - run_keras(model, picture, detail, clean)).max()))
    if worst > 1:
        raise ValueError(f"Expected {file.name} within one code of Keras. Received: {worst}")
    print(f"{file.name}: within {worst} of Keras", flush=True)
