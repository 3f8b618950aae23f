"""RDN: dense blocks whose every layer is used at the end (Zhang et al. 2018, arXiv 1802.08797)."""

from __future__ import annotations

import keras
from keras import ops

from imagesr.models.layers import picture, space_to_depth, upsample
from imagesr.scale import Scale


def rdn(
    scale, *, blocks: int = 16, convolutions: int = 8, growth: int = 64, filters: int = 64, channels: int = 3
) -> keras.Model:
    """Build RDN with D=`blocks`, C=`convolutions`, G=`growth`, G0=`filters` (section 3; these in section 5)."""
    scale = Scale.parse(scale)

    def conv(x, filters, size, name, activation=None):
        return keras.layers.Conv2D(filters, size, padding="same", activation=activation, name=name)(x)

    lr = keras.Input((None, None, channels), name="lr")
    shallow = conv(space_to_depth(lr, scale.down), filters, 3, "shallow_0")
    x = conv(shallow, filters, 3, "shallow_1")
    outputs = []
    for i in range(blocks):
        dense = x
        for c in range(convolutions):
            dense = ops.concatenate([dense, conv(dense, growth, 3, f"block_{i}_{c}", "relu")], axis=-1)
        x = x + conv(dense, filters, 1, f"block_{i}_fusion")  # local feature fusion, local residual learning
        outputs.append(x)
    x = conv(conv(ops.concatenate(outputs, axis=-1), filters, 1, "fusion_0"), filters, 3, "fusion_1") + shallow
    x = upsample(x, filters, scale.up)
    return keras.Model(lr, picture(conv(x, channels, 3, "tail")), name="rdn")
