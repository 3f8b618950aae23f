"""Train a network with two ends: one faithful to the pixels, one that looks like the original."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from imagesr.metrics.perceptual import Extractor
from imagesr.metrics.texture import cells
from imagesr.scale import Scale

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


def mesh(sr, periods: Sequence[int]):
    """Return by how much the spectrum stands out at the periods of the network's cells, as an amplitude: the mesh.

    What `metrics.texture.mesh` measures, over a batch: of one crop alone the picture itself may stand out anywhere. An
    amplitude, not a ratio, whose gradient is largest where there is next to nothing to see. The neighbours are those 3
    to 8 bins away; rows, columns and periods are added up.
    """
    total = 0.0
    for lines in (sr[..., 0], ops.transpose(sr[..., 0], (0, 2, 1))):
        length = lines.shape[-1]
        window = np.hanning(length).astype(np.float32)
        real, imaginary = ops.rfft((lines - ops.mean(lines, -1, keepdims=True)) * window)
        power = ops.mean(ops.square(real) + ops.square(imaginary), (0, 1))
        amplitude = 2 * ops.sqrt(power + 1e-8) / window.sum()
        for period in periods:
            at = length // period
            around = ops.concatenate([amplitude[at - 8 : at - 2], amplitude[at + 3 : at + 9]], 0)
            total += ops.relu(amplitude[at] - ops.mean(around))
    return total


def grit(hr, sr):
    """Return by how much the local contrast of SR is above HR's, a mean: grit on skin and sky, and halos."""

    def contrast(picture):
        mean, square = (ops.average_pool(x, _WINDOW, 1, "valid") for x in (picture, picture * picture))
        return ops.sqrt(ops.relu(square - mean * mean) + 1e-6)

    times, plus = _GRIT
    return ops.mean(ops.relu(contrast(sr) - times * contrast(hr) - plus))


@keras.saving.register_keras_serializable("imagesr")
class TwoEnds(keras.Model):
    """Train both ends of a network that takes `detail`.

    The faithful end, detail 0, learns by `loss`, one of `imagesr.train.losses`. The detailed end, detail 1, learns to
    have HR's texture and structure in the eyes of the network `features`, near HR's pixels by the same loss, and to
    draw no grit; both ends learn to draw no mesh. All parts are weighted by `weights`.
    """

    def __init__(self, generator, features: Extractor, *, loss: Callable, weights: Mapping[str, float], scale: Scale):
        super().__init__(name="two_ends")
        self.generator, self.shares, self.scale = generator, dict(weights), scale
        self.pixel_loss, self.extractor = loss, features
        self.means = {name: keras.metrics.Mean(name) for name in ("loss", *weights)}
        self.built = True

    @property
    def metrics(self):
        """List the means over an epoch: the whole loss, and every part of it, unweighted."""
        return [*self.means.values()]

    def call(self, lr, training=None):
        """Return the faithful end's SR."""
        return self.generator([lr, ops.zeros(ops.shape(lr)[:1])], training=training)

    def train_step(self, data):
        """Move the network by one batch (LR, HR)."""
        lr, hr = data
        with tf.GradientTape() as tape:
            count = ops.shape(lr)[0]
            ends = ops.concatenate([ops.zeros(count), ops.ones(count)])
            both = self.generator([ops.concatenate([lr, lr]), ends], training=True)
            border = BORDER * self.scale.up // self.scale.down
            hr, faithful, detailed = (x[:, border:-border, border:-border] for x in (hr, both[:count], both[count:]))
            parts = self.parts(hr, faithful, detailed)
            loss = sum(self.shares[name] * value for name, value in parts.items())
            scaled = self.generator.optimizer.scale_loss(loss)
        self.generator.optimizer.apply(tape.gradient(scaled, self.generator.trainable_variables))
        for name, mean in self.means.items():
            mean.update_state((parts | {"loss": loss})[name])
        return {name: mean.result() for name, mean in self.means.items()}

    def parts(self, hr, faithful, detailed) -> dict:
        """Return the parts of the loss of a batch by their names, unweighted."""
        grey = ops.concatenate([hr, ops.clip(detailed, 0, 1)])
        texture, structure = texture_terms(self.extractor(grey), ops.shape(hr)[0])
        at = cells(self.scale)
        return {
            "faithful": ops.mean(self.pixel_loss(hr, faithful)),
            "pixel": ops.mean(self.pixel_loss(hr, detailed)),
            "texture": texture,
            "structure": structure,
            "mesh": mesh(faithful, at) + mesh(detailed, at),
            "grit": grit(hr, detailed),
        }
