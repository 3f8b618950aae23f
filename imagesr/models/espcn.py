"""ESPCN: convolutions on the small picture, pixels shuffled at the end (Shi et al. 2016, arXiv 1609.05158)."""

from __future__ import annotations

import keras

from imagesr.models.layers import picture, space_to_depth, subpixel_conv
from imagesr.scale import Scale


def espcn(scale, *, filters: int = 64, channels: int = 1) -> keras.Model:
    """Build ESPCN: 5×5 and 3×3 with tanh, then the sub-pixel convolution (section 3.2)."""
    scale = Scale.parse(scale)
    lr = keras.Input((None, None, channels), name="lr")
    x = space_to_depth(lr, scale.down)
    x = keras.layers.Conv2D(filters, 5, padding="same", activation="tanh", name="features")(x)
    x = keras.layers.Conv2D(filters // 2, 3, padding="same", activation="tanh", name="mapping")(x)
    x = subpixel_conv(x, channels, scale.up, name="tail")
    return keras.Model(lr, picture(x), name="espcn")
