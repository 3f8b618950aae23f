"""Train the second end of a network, beside the one faithful to pixels: one sharper than it, or one with HR's texture.

The sharper one is what viewers of films prefer, and is taught to sharpen only what the network got right.
"""

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

_SIGMA, _AMOUNT = 1.2, 1.0  # of unsharp masking, in HR pixels
_BEYOND = 0.1  # how far a sharpened pixel may leave the range of its 3×3: times that range, so halos stay small
_FINE = 2.0  # sigma in HR pixels: what is finer than this is compared to see whether SR is right
_AROUND = 9  # HR pixels a side, over which it is compared


def sharpened(hr):
    """Return HR (N, H, W, 1) after unsharp masking with small halos at most."""
    highest, lowest = ops.max_pool(hr, 3, 1, "same"), -ops.max_pool(-hr, 3, 1, "same")
    beyond = _BEYOND * (highest - lowest)
    return ops.clip(hr + _AMOUNT * (hr - _blurred(hr, _SIGMA)), lowest - beyond, highest + beyond)


def trust(hr, sr):
    """Return how much of SR's fine structure is HR's, around each pixel, from 0 to 1: their correlation."""
    fine_hr, fine_sr = (x - _blurred(x, _FINE) for x in (hr, sr))
    both, of_hr, of_sr = (_around(x) for x in (fine_hr * fine_sr, fine_hr * fine_hr, fine_sr * fine_sr))
    return _around(ops.relu(both) / (ops.sqrt(of_hr * of_sr) + 1e-5))


def _around(x):
    return ops.average_pool(x, _AROUND, 1, "same")


def _blurred(x, sigma):
    reach = int(3 * sigma + 1)
    bell = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2)).astype(np.float32)
    bell /= bell.sum()
    x = ops.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "symmetric")
    return ops.conv(ops.conv(x, bell[:, None, None, None], padding="valid"), bell[None, :, None, None], padding="valid")


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

    It learns to be `sharp`: like HR sharpened where the faithful end can be trusted, and like the faithful end
    elsewhere. Or it learns HR's `texture` and `structure` in the eyes of the network `features`, and HR's `pixel`s.
    `loss`, one of `imagesr.train.losses`, compares pixels. `mesh` and `grit` are what it must not draw. The parts are
    weighted by `weights`; one of weight 0 is left out, and `features` may be None where texture and structure are.
    """

    def __init__(
        self, generator, features: Extractor | None, *, loss: Callable, weights: Mapping[str, float], scale: Scale
    ):
        super().__init__(name="second_end")
        self.generator, self.shares, self.scale = generator, {k: v for k, v in weights.items() if v}, scale
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
        self.means = {name: keras.metrics.Mean(name) for name in ("loss", *self.shares)}
        self.built = True

    @property
    def metrics(self):
        """List the means over an epoch: the whole loss, and every part of it, unweighted."""
        return [*self.means.values()]

    def call(self, lr, training=None, detail=1.0):
        """Return the second end's SR of LR, or of (LR, lost); at detail 0 the faithful one."""
        lr, *clean = lr if isinstance(lr, list | tuple) else (lr,)
        return self.generator([lr, ops.full(ops.shape(lr)[:1], detail), *clean], training=training)

    def train_step(self, data):
        """Move the second end by one batch (LR, HR)."""
        lr, hr = data
        optimizer = self.generator.optimizer
        with tf.GradientTape() as tape:
            target = self.target(hr, ops.stop_gradient(self(lr, detail=0.0))) if "sharp" in self.shares else hr
            border = BORDER * self.scale.up // self.scale.down
            hr, target, sr = (x[:, border:-border, border:-border] for x in (hr, target, self(lr, training=True)))
            parts = self.parts(hr, sr, target)
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

    @staticmethod
    def target(hr, faithful):
        """Return what a sharp end is to draw: HR sharpened where the faithful SR is right, that SR where it is not.

        So what a network can only guess, grass in motion or what an encoder broke, is not made harder.
        """
        return faithful + trust(hr, faithful) * (sharpened(hr) - faithful)

    def parts(self, hr, sr, target) -> dict:
        """Return the parts of the loss of a batch by their names, unweighted; `target` is that of `sharp`."""
        compute = {
            "sharp": lambda: ops.mean(self.pixel_loss(target, sr)),
            "pixel": lambda: ops.mean(self.pixel_loss(hr, sr)),
            "mesh": lambda: mesh(sr, cells(self.scale)),
            "grit": lambda: grit(hr, sr),
        }
        parts = {name: part() for name, part in compute.items() if name in self.shares}
        if {"texture", "structure"} & {*self.shares}:
            maps = self.extractor(ops.concatenate([hr, ops.clip(sr, 0, 1)]))
            both = dict(zip(("texture", "structure"), texture_terms(maps, ops.shape(hr)[0]), strict=True))
            parts |= {name: value for name, value in both.items() if name in self.shares}
        return parts
