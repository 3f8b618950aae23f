"""SRGAN's stage two: a generator trained for PSNR learns natural pictures (Ledig et al. 2017, arXiv 1609.04802)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import tensorflow as tf
from keras import ops

from imagesr.metrics.perceptual import Extractor, content_loss


def discriminator(*, filters: int = 64, channels: int = 3) -> keras.Model:
    """Build the paper's discriminator (section 2.1.1, figure 4): HR or SR in [0, 1] → logit, positive for real.

    Eight 3×3 convolutions of `filters` to 8 · `filters`, four of them strided, batch norm behind all but the first,
    leaky ReLUs, a dense layer of 16 · `filters` units, one output. The paper flattens the last features of its 96×96
    patches. Here they are averaged, so any patch size works, the position of texture does not matter, and the network
    has half a million weights instead of 18 million.
    """

    def leaky(x, name):
        return keras.layers.LeakyReLU(0.2, name=name)(x)

    picture = keras.Input((None, None, channels), name="picture")
    x = keras.layers.Rescaling(2.0, -1.0, dtype="float32", name="centred")(picture)
    x = leaky(keras.layers.Conv2D(filters, 3, padding="same", name="conv_0")(x), "relu_0")
    for i in range(1, 8):
        width, strides = filters * 2 ** (i // 2), 1 + i % 2
        x = keras.layers.Conv2D(width, 3, strides, padding="same", use_bias=False, name=f"conv_{i}")(x)
        x = leaky(keras.layers.BatchNormalization(name=f"norm_{i}")(x), f"relu_{i}")
    x = leaky(keras.layers.Dense(16 * filters, name="dense")(keras.layers.GlobalAveragePooling2D()(x)), "relu_dense")
    return keras.Model(picture, keras.layers.Dense(1, dtype="float32", name="logit")(x), name="discriminator")


def adversarial_losses(real, fake, *, relativistic: bool = False) -> tuple:
    """Return the generator's and the discriminator's loss for logits of real and fake pictures, and D(real), D(fake).

    Both are binary cross entropy, the generator's in its non-saturating form (SRGAN, section 2.2.2). With
    `relativistic` D judges how much more real a picture is than the mean of the others (RaGAN, arXiv 1807.00734;
    ESRGAN, arXiv 1809.00219).
    """
    if relativistic:
        real, fake = real - ops.mean(fake), fake - ops.mean(real)

    def entropy(logits, is_real):
        return ops.mean(ops.softplus(-logits if is_real else logits))

    d_loss = entropy(real, True) + entropy(fake, False)
    g_loss = entropy(fake, True) + (entropy(real, False) if relativistic else 0.0)
    return g_loss, d_loss, ops.mean(ops.sigmoid(real)), ops.mean(ops.sigmoid(fake))


@keras.saving.register_keras_serializable("imagesr")
class SRGAN(keras.Model):
    """Train a generator against a discriminator; both are compiled, each with its own optimizer.

    `pixel_loss` is one of `losses.LOSSES`; `extractor` compares content, and may be None; `weights` are those of the
    `pixel`, `perceptual` and `adversarial` parts of the generator's loss.
    Both networks learn from the same pictures at every step, so the generator runs once. The discriminator sees real
    and fake pictures in separate batches: the batch statistics of mixed ones would tell it which are which. The moving
    statistics of its batch norm are never used.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        *,
        pixel_loss: Callable,
        extractor: Extractor | None,
        weights: Mapping[str, float],
        relativistic: bool = False,
    ):
        super().__init__(name="srgan")
        self.generator, self.discriminator = generator, discriminator
        self.pixel_loss, self.extractor, self.relativistic = pixel_loss, extractor, relativistic
        self.shares = dict(weights)
        names = ("loss", "pixel", "perceptual", "adversarial", "d_loss", "d_real", "d_fake")
        self.means = {name: keras.metrics.Mean(name) for name in names if extractor or name != "perceptual"}
        self.built = True

    @property
    def metrics(self):
        """Return the means over an epoch: every loss, unweighted, and the discriminator's answers."""
        return [*self.means.values()]

    def call(self, lr, training=None):
        """Return SR."""
        return self.generator(lr, training=training)

    def train_step(self, data):
        """Train both networks on one batch (LR, HR)."""
        lr, hr = data
        networks = (self.generator, self.discriminator)
        with tf.GradientTape(persistent=True) as tape:
            sr = self.generator(lr, training=True)
            real, fake = self.discriminator(hr, training=True), self.discriminator(sr, training=True)
            g_loss, d_loss, d_real, d_fake = adversarial_losses(real, fake, relativistic=self.relativistic)
            parts = {"pixel": ops.mean(self.pixel_loss(hr, sr)), "adversarial": g_loss}
            if self.extractor:
                parts["perceptual"] = content_loss(self.extractor(hr), self.extractor(sr))
            loss = sum(self.shares[name] * value for name, value in parts.items())
            scaled = [network.optimizer.scale_loss(x) for network, x in zip(networks, (loss, d_loss), strict=True)]
        gradients = [tape.gradient(x, n.trainable_variables) for x, n in zip(scaled, networks, strict=True)]
        for network, gradient in zip(networks, gradients, strict=True):
            network.optimizer.apply(gradient)
        shown = parts | {"loss": loss, "d_loss": d_loss, "d_real": d_real, "d_fake": d_fake}
        for name, mean in self.means.items():
            mean.update_state(shown[name])
        return {name: mean.result() for name, mean in self.means.items()}
