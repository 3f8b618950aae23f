"""The exported graph: the network on integer samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras


def integer_graph(model: keras.Model, bits: int) -> keras.Model:
    """Return the network on integer samples: uint8 or uint16 NHWC in, the same out, rounded and clipped.

    `detail` and `clean`, of a network that takes them, are float32 numbers beside them, in arrays of one.
    """
    import keras
    from keras import ops

    from imagesr.models.cost import input_size, multiple

    peak, middle, dtype = 2**bits - 1, 2 ** (bits - 1), f"uint{bits}"
    lr = keras.Input(model.inputs[0].shape[1:], batch_size=1, dtype=dtype, name="lr")
    samples = ops.cast(lr, "float32")
    more = [keras.Input((), batch_size=1, name=entry.name) for entry in model.inputs[1:]]

    def run(network, picture):
        return network([picture, *more] if more else picture)

    anchored = _is_anchored(model)
    sr = run(_on_samples(model, peak, middle), samples - middle) if anchored else run(model, samples / peak) * peak
    # 65535 is exact in float32, so the clip is exact too.
    sr = ops.cast(ops.clip(ops.round(sr), 0, peak), dtype)
    graph = keras.Model([lr, *more] if more else lr, sr, name=f"{model.name}_u{bits}")
    size = input_size(model, (16 * multiple(model),) * 2)
    # The exporter needs a model that was called once.
    samples = np.zeros((1, *size, lr.shape[-1]), dtype)
    graph([samples, *(np.zeros(1, np.float32) for _ in more)] if more else samples)
    return graph


def _is_anchored(model):
    """Tell whether a network has an anchor and otherwise only convolutions and ReLU: it commutes with scaling.

    So does a product of features with the detail.
    """
    import keras

    plain = (keras.layers.InputLayer, keras.layers.Conv2D, keras.layers.Dense, keras.layers.Activation)
    linear = (keras.activations.linear, keras.activations.relu)
    return any(layer.name == "anchor" for layer in model.layers) and all(
        isinstance(layer, plain) and getattr(layer, "activation", linear[0]) in linear for layer in model.layers
    )


def _on_samples(model, peak, middle):
    """Return an anchored network that reads undivided samples relative to mid-grey, its biases scaled by `peak`.

    A division would be rounded at low precision, and low precision is finest around zero. Biases compensate for
    mid-grey: the head's bias for the head, the tail's for the anchor, the anchor's own where there is no tail.
    """
    import keras

    names = [layer.name for layer in model.layers]
    readers = {"head": "head", "tail": "anchor"} if "tail" in names else {"anchor": "anchor"}

    def with_bias(layer):
        bias = {"use_bias": True} if layer.name in readers else {}
        return type(layer).from_config(layer.get_config() | bias)

    scaled = keras.models.clone_model(model, clone_function=with_bias)
    for layer in scaled.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, *biases = model.get_layer(layer.name).get_weights()
            weights = [kernel, *(bias * peak for bias in biases)]
            if layer.name in readers:
                reader = model.get_layer(readers[layer.name]).get_weights()[0]
                weights[1:] = [sum(weights[1:]) + middle * reader.sum((0, 1, 2))]
            layer.set_weights(weights)
        elif isinstance(layer, keras.layers.Dense):  # what `clean` adds to features
            layer.set_weights([peak * weight for weight in model.get_layer(layer.name).get_weights()])
    return scaled
