"""EDSR: residual blocks without batch norm (Lim et al. 2017, arXiv 1707.02921)."""

from __future__ import annotations

import keras

from imagesr.models.layers import shifted, space_to_depth, upsample
from imagesr.scale import Scale


def edsr(scale, *, filters: int = 256, blocks: int = 32, residual_scale: float = 0.1, channels: int = 3) -> keras.Model:
    """Build EDSR (section 3, table 1): head, `blocks` residual blocks with a skip over all, upsampler, tail.

    The paper takes the training set's mean colour off the input and adds it again at the end; here it is mid-grey.
    """
    scale = Scale.parse(scale)

    def conv(x, filters, name, activation=None):
        return keras.layers.Conv2D(filters, 3, padding="same", activation=activation, name=name)(x)

    lr = keras.Input((None, None, channels), name="lr")
    head = x = conv(space_to_depth(shifted(lr, -0.5, name="centre"), scale.down), filters, "head")
    for i in range(blocks):
        residual = conv(x, filters, f"body_{i}_0", "relu")
        x = x + conv(residual, filters, f"body_{i}_1") * residual_scale
    x = upsample(conv(x, filters, "body_end") + head, filters, scale.up)
    sr = shifted(conv(x, channels, "tail"), 0.5, name="sr")
    return keras.Model(lr, sr, name="edsr")


def edsr_baseline(scale, *, filters: int = 64, blocks: int = 16, channels: int = 3) -> keras.Model:
    """Build the baseline of the EDSR paper: 64 filters, 16 blocks, nothing scaled (table 1)."""
    return edsr(scale, filters=filters, blocks=blocks, residual_scale=1.0, channels=channels)
