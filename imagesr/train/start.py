"""The weights that a training starts from: those of another run, or the best linear filter."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import keras
import numpy as np
from keras import ops

from imagesr.datasets.crops import RandomCrops
from imagesr.models.layers import collapsed, takes_detail
from imagesr.models.realtime import second_end
from imagesr.scale import Scale
from imagesr.train.config import Config


def warm_start(model: keras.Model, source: Path, config: Config) -> list[str]:
    """Give a network the weights of a run folder, a `.keras` file or a `.weights.h5` file.

    From a run at another scale it takes the layers that do not depend on the scale. Returns the names of the layers
    that it does not have. Raises ValueError where the weights are of another architecture.
    """
    wanted = f"{config.model} {dict(config.architecture) or ''} at scale {config.scale}".replace("  ", " ")
    try:
        if source.is_dir():
            theirs = Config.read(source / "config.json")
            other = theirs.build()
            other.load_weights(source / "training.weights.h5")
            same_scale = Scale.parse(theirs.scale) == Scale.parse(config.scale)
        elif source.name.endswith(".weights.h5"):
            model.load_weights(source)
            return []
        else:
            other, same_scale = keras.saving.load_model(source, compile=False), False
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"Expected weights for {wanted} to start from. Received: {source} ({reason:.200})") from None
    if takes_detail(model) and not takes_detail(other):
        return _take_first_end(model, other, wanted, source)
    named = {layer.name: layer for layer in other.layers}
    fitting, odd = [], []
    for layer in (layer for layer in model.layers if layer.weights):
        twin = named.get(layer.name)
        fits = twin is not None and [w.shape for w in twin.weights] == [w.shape for w in layer.weights]
        (fitting if fits else odd).append(layer)
    # At one scale, layers may be new, as in a deeper network, but not of another shape.
    if odd and (len(fitting) < len(odd) or (same_scale and any(layer.name in named for layer in odd))):
        names = ", ".join(layer.name for layer in odd[:3])
        raise ValueError(f"Expected weights for {wanted} to start from. Received: {source}, which differs in {names}")
    for layer in fitting:
        layer.set_weights(named[layer.name].get_weights())
    return [layer.name for layer in odd]


def _take_first_end(model, other, wanted, source):
    """Give a network with two ends the weights of one with one; none of its layers is left as it was."""
    theirs, ours = ({layer.name: layer.get_weights() for layer in collapsed(m).layers} for m in (other, model))
    try:
        weights = second_end(*({name: w for name, w in layers.items() if w} for layers in (theirs, ours)))
    except (KeyError, ValueError) as error:
        raise ValueError(f"Expected weights for {wanted} to start from. Received: {source} ({error})") from None
    for name, values in weights.items():
        model.get_layer(name).set_weights(values)
    return []


def start_from_linear(model: keras.Model, train, batches: int = 40) -> None:
    """Make `realtime` or `linear` the best linear upscaler of its anchor's size: what the trunk adds is zero at first.

    The anchor, one filter per output phase, solves the normal equations over `batches` batches of `train`, which is
    what `fit` takes, or `RandomCrops`. Raises ValueError for a network without an anchor.
    """
    if all(layer.name != "anchor" for layer in model.layers):
        raise ValueError(f"Expected a network with a linear anchor, realtime or linear. Received: {model.name}")
    anchor = model.get_layer("anchor")
    side, _, channels, outputs = anchor.kernel.shape
    features = keras.Model(model.inputs[0], anchor.input)
    gram, moments = 0.0, 0.0
    for lr, hr in _first(train, batches):
        lr = lr[0] if isinstance(lr, list | tuple) else lr  # without its depth
        hr = ops.convert_to_numpy(hr)[..., : model.output.shape[-1]]  # without the weights of edges
        x = np.lib.stride_tricks.sliding_window_view(ops.convert_to_numpy(features(lr)), (side, side), axis=(1, 2))
        x = np.moveaxis(x, 3, -1).reshape(-1, side * side * channels).astype(np.float64)
        y = ops.convert_to_numpy(ops.space_to_depth(hr, round((outputs / hr.shape[-1]) ** 0.5))).reshape(-1, outputs)
        gram, moments = gram + x.T @ x, moments + x.T @ y
    ridge = 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram))
    anchor.set_weights([np.linalg.solve(gram + ridge, moments).reshape(side, side, channels, outputs)])
    for layer in model.layers:
        if layer.name == "tail":
            layer.project.assign(np.zeros(layer.project.shape))


def _first(train, count) -> Iterable[tuple]:
    """Yield the first batches of random crops, or of any other data."""
    if isinstance(crops := getattr(train, "crops", train), RandomCrops):
        return map(crops.numbered, range(count))
    if isinstance(train, keras.utils.PyDataset):
        return map(train.__getitem__, range(min(count, len(train))))
    return islice(train, count)
