"""VDSR: twenty layers that predict what bicubic lacks (Kim et al. 2016, arXiv 1511.04587)."""

from __future__ import annotations

import keras

from imagesr.models.layers import bicubic, picture
from imagesr.scale import Scale


def vdsr(scale, *, depth: int = 20, filters: int = 64, channels: int = 1) -> keras.Model:
    """Build VDSR: `depth` 3×3 convolutions on the picture upscaled by bicubic, to which they add (section 3.1).

    The last layer starts at zero, so that training starts from bicubic. The paper's gradient clipping, which made its
    depth trainable, is in the optimizer that `imagesr.train` gives to every network.
    """
    scale = Scale.parse(scale)
    lr = keras.Input((None, None, channels), name="lr")
    skip = x = bicubic(lr, scale)
    for i in range(depth - 1):
        conv = keras.layers.Conv2D(
            filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"body_{i}"
        )
        x = conv(x)
    x = keras.layers.Conv2D(channels, 3, padding="same", kernel_initializer="zeros", name="residual")(x)
    return keras.Model(lr, picture(x) + skip, name="vdsr")
