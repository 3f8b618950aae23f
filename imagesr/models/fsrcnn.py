"""FSRCNN: shrink, map, expand on the small picture (Dong et al. 2016, arXiv 1608.00367)."""

from __future__ import annotations

import keras

from imagesr.models.layers import picture, prelu, space_to_depth, subpixel_conv
from imagesr.scale import Scale


def fsrcnn(scale, *, filters: int = 56, shrunk: int = 12, blocks: int = 4, channels: int = 1) -> keras.Model:
    """Build FSRCNN(d=`filters`, s=`shrunk`, m=`blocks`) of section 3.4.

    The paper's 9×9 deconvolution is written as the sub-pixel convolution that it amounts to: 9 taps of a stride `up`
    are ⌈9 / up⌉ taps per output phase, made odd (5 at x2, 3 at x3 and x4; at x3 the very same weights).
    """
    scale = Scale.parse(scale)

    def conv(x, filters, size, name):
        x = keras.layers.Conv2D(filters, size, padding="same", kernel_initializer="he_normal", name=name)(x)
        return prelu(x, name=f"{name}_prelu")

    lr = keras.Input((None, None, channels), name="lr")
    x = conv(space_to_depth(lr, scale.down), filters, 5, "features")
    x = conv(x, shrunk, 1, "shrink")
    for i in range(blocks):
        x = conv(x, shrunk, 3, f"mapping_{i}")
    x = conv(x, filters, 1, "expand")
    taps = -(-9 // scale.up)
    small = keras.initializers.RandomNormal(stddev=0.001)  # the paper's, section 4.1
    x = subpixel_conv(x, channels, scale.up, taps + 1 - taps % 2, name="tail", kernel_initializer=small)
    return keras.Model(lr, picture(x), name="fsrcnn")
