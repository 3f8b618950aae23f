"""SRCNN: the first convolutional network for super-resolution (Dong et al. 2014, arXiv 1501.00092)."""

from __future__ import annotations

import keras

from imagesr.models.layers import bicubic, picture
from imagesr.scale import Scale


def srcnn(scale, *, kernels: tuple[int, int, int] = (9, 1, 5), filters: int = 64, channels: int = 1) -> keras.Model:
    """Build SRCNN, three convolutions on the picture upscaled by bicubic (section 3.1; 9-1-5 in section 4)."""
    scale = Scale.parse(scale)
    lr = keras.Input((None, None, channels), name="lr")
    x = bicubic(lr, scale)
    x = keras.layers.Conv2D(filters, kernels[0], padding="same", activation="relu", name="patches")(x)
    x = keras.layers.Conv2D(filters // 2, kernels[1], padding="same", activation="relu", name="mapping")(x)
    x = keras.layers.Conv2D(channels, kernels[2], padding="same", name="reconstruction")(x)
    return keras.Model(lr, picture(x), name="srcnn")
