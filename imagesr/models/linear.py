"""The best single linear filter, which every network must beat."""

from __future__ import annotations

import keras
from keras import ops

from imagesr.models.layers import depth_to_space, space_to_depth
from imagesr.scale import Scale


def linear(scale, *, size: int = 10, channels: int = 1) -> keras.Model:
    """Build one linear filter per output phase, about `size`×`size` LR pixels wide; training solves for it.

    The least-squares solution beats bicubic and Lanczos by 1 to 2 dB on clean reductions: what a network adds to
    *it* is what the network is worth. Edges are reflected.
    """
    scale = Scale.parse(scale)
    side = size // scale.down // 2 * 2 + 1  # cells of `down` pixels, an odd number of them
    lr = keras.Input((None, None, channels), name="lr")
    border = (side // 2 * scale.down,) * 2
    x = space_to_depth(ops.pad(lr, ((0, 0), border, border, (0, 0)), mode="reflect"), scale.down)
    x = keras.layers.Conv2D(channels * scale.up**2, side, use_bias=False, dtype="float32", name="anchor")(x)
    return keras.Model(lr, depth_to_space(x, scale.up), name="linear")
