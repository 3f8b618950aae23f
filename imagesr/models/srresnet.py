"""SRResNet: the generator of SRGAN (Ledig et al. 2017, arXiv 1609.04802)."""

from __future__ import annotations

import keras

from imagesr.models.layers import depth_to_space, picture, prelu, space_to_depth
from imagesr.scale import Scale


def srresnet(scale, *, filters: int = 64, blocks: int = 16, channels: int = 3) -> keras.Model:
    """Build SRResNet (section 2.1.1, figure 4): `blocks` residual ones of batch norm and PReLU, 9×9 at both ends."""
    scale = Scale.parse(scale)

    def conv(x, filters, size, name):
        return keras.layers.Conv2D(filters, size, padding="same", name=name)(x)

    def norm(x, name):
        return keras.layers.BatchNormalization(name=f"{name}_norm")(x)

    lr = keras.Input((None, None, channels), name="lr")
    head = x = prelu(conv(space_to_depth(lr, scale.down), filters, 9, "head"), name="head_prelu")
    for i in range(blocks):
        residual = prelu(norm(conv(x, filters, 3, f"body_{i}_0"), f"body_{i}_0"), name=f"body_{i}_prelu")
        x = x + norm(conv(residual, filters, 3, f"body_{i}_1"), f"body_{i}_1")
    x = norm(conv(x, filters, 3, "body_end"), "body_end") + head
    for i, factor in enumerate((2, 2) if scale.up == 4 else (scale.up,)):
        x = prelu(depth_to_space(conv(x, filters * factor**2, 3, f"upsample_{i}"), factor), name=f"upsample_{i}_prelu")
    return keras.Model(lr, picture(conv(x, channels, 9, "tail")), name="srresnet")
