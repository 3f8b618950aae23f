"""Train the second end of a network: the one that looks like the original, beside the one faithful to its pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from imagesr.metrics.perceptual import Extractor
from imagesr.metrics.texture import cells
from imagesr.models.realtime import OWN
from imagesr.scale import Scale
from imagesr.train.losses import mesh

BORDER = 8  # LR pixels of a crop at each side that are not compared: the network saw too little around them
_FLOOR = 1e-2  # of a variance of features, as in `metrics.texture`
_WINDOW = 7  # pixels a side, of what has a local contrast
_GRIT = 1.1, 0.002  # how much more local contrast than HR's is let pass: times, plus, on a scale from 0 to 1


def texture_terms(maps: Sequence, count: int):
    """Return DISTS's texture and structure terms, a mean each, of feature maps of `count` pictures and as many others.

    The same as `metrics.texture.Texture` has over a patch.
    """
    texture = structure = 0.0
    for features in maps:
        features = features - ops.mean(features, (1, 2), keepdims=True)
        x, y = features[:count], features[count:]
        of_x, of_y, both = (ops.mean(product, (1, 2)) for product in (x * x, y * y, x * y))
        total = of_x + of_y + _FLOOR
        # Without the small number the root has no gradient where a channel is silent.
        texture += ops.mean(1 - (2 * ops.sqrt(of_x * of_y + 1e-12) + _FLOOR) / total)
        structure += ops.mean(1 - (2 * both + _FLOOR) / total)
    return texture / len(maps), structure / len(maps)


def grit(hr, sr):
    """Return by how much the local contrast of SR is above HR's, a mean: grit on skin and sky, and halos."""

    def contrast(picture):
        mean, square = (ops.average_pool(x, _WINDOW, 1, "valid") for x in (picture, picture * picture))
        return ops.sqrt(ops.relu(square - mean * mean) + 1e-6)

    times, plus = _GRIT
    return ops.mean(ops.relu(contrast(sr) - times * contrast(hr) - plus))


@keras.saving.register_keras_serializable("imagesr")
class SecondEnd(keras.Model):
    """Train the second end of a network that takes `detail`; the faithful one, and all that both share, stays.

    It learns to have HR's texture and structure in the eyes of the network `features`, to stay near HR's pixels by
    `loss`, one of `imagesr.train.losses`, and to draw neither a mesh nor grit. All parts are weighted by `weights`.
    """

    def __init__(self, generator, features: Extractor, *, loss: Callable, weights: Mapping[str, float], scale: Scale):
        super().__init__(name="second_end")
        self.generator, self.shares, self.scale = generator, dict(weights), scale
        self.pixel_loss, self.extractor = loss, features
        self.tail = generator.get_layer("tail")
        self.last = max((x for x in generator.layers if x.name.startswith("body_")), key=lambda x: int(x.name[5:]))
        for layer in generator.layers:
            layer.trainable = layer in (self.last, self.tail)
        # One for the weights of the end's own features, zero for those of the others, in the order of the variables.
        own = (np.arange(self.last.filters) >= self.last.filters - OWN).astype(np.float32)
        by_variable = {
            id(self.last.kernel): own,
            id(self.last.bias): own,
            id(self.tail.kernel): own[:, np.newaxis],
            id(self.tail.bias): np.float32(0),
        }
        self.level = own[:, np.newaxis]
        self.own = [by_variable[id(variable)] for variable in generator.trainable_variables]
        self.means = {name: keras.metrics.Mean(name) for name in ("loss", *weights)}
        self.built = True

    @property
    def metrics(self):
        """List the means over an epoch: the whole loss, and every part of it, unweighted."""
        return [*self.means.values()]

    def call(self, lr, training=None):
        """Return the second end's SR of LR, or of (LR, lost)."""
        lr, *clean = lr if isinstance(lr, list | tuple) else (lr,)
        return self.generator([lr, ops.ones(ops.shape(lr)[:1]), *clean], training=training)

    def train_step(self, data):
        """Move the second end by one batch (LR, HR)."""
        lr, hr = data
        optimizer = self.generator.optimizer
        with tf.GradientTape() as tape:
            border = BORDER * self.scale.up // self.scale.down
            hr, sr = (x[:, border:-border, border:-border] for x in (hr, self(lr, training=True)))
            parts = self.parts(hr, sr)
            loss = sum(self.shares[name] * value for name, value in parts.items())
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.generator.trainable_variables)
        optimizer.apply([gradient * own for gradient, own in zip(gradients, self.own, strict=True)])
        self.settle()
        for name, mean in self.means.items():
            mean.update_state((parts | {"loss": loss})[name])
        return {name: mean.result() for name, mean in self.means.items()}

    def settle(self) -> None:
        """Let each of the tail's kernels for the end's own features sum up to zero.

        Where features are level, they then change nothing: no mesh on flat areas, and no other brightness.
        """
        kernel = self.tail.kernel
        kernel.assign(kernel - self.level * ops.mean(kernel, (0, 1), keepdims=True))

    def release(self) -> None:
        """Let all layers of the network be trained again, and count as parameters."""
        for layer in self.generator.layers:
            layer.trainable = True

    def parts(self, hr, sr) -> dict:
        """Return the parts of the loss of a batch by their names, unweighted."""
        texture, structure = texture_terms(self.extractor(ops.concatenate([hr, ops.clip(sr, 0, 1)])), ops.shape(hr)[0])
        return {
            "pixel": ops.mean(self.pixel_loss(hr, sr)),
            "texture": texture,
            "structure": structure,
            "mesh": mesh(sr, cells(self.scale)),
            "grit": grit(hr, sr),
        }
