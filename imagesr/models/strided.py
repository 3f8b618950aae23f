"""The first network of 2020: it strides over a whole 720p frame and shuffles out a 1080p one."""

from __future__ import annotations

import keras
from keras import ops

from imagesr.models.layers import picture
from imagesr.scale import Scale

LR_SIZE = (720, 1280)  # the one (height, width) at which its valid convolutions come out at 1080p


def strided(scale="3/2", *, channels: int = 3) -> keras.Model:
    """Build the strided network: 5×5 stride 5, 4×4 and 7×14 valid, then `depth_to_space(8)`; 720p → 1080p alone.

    One position holds 5×5 input pixels and becomes 8×8 output pixels, 1.6 times, and the valid convolutions cut
    that down to 1.5: a position's input and output lie up to 30 rows and 64 columns apart.
    """
    if Scale.parse(scale) != Scale(3, 2):
        raise ValueError(f"Expected a scale of 1.5, the only one of the strided network. Received: {scale}")
    lr = keras.Input((*LR_SIZE, channels), name="lr")
    x = keras.layers.Conv2D(128, 5, strides=5, activation="relu", name="head")(lr)
    x = keras.layers.Conv2D(150, 4, activation="relu", name="body")(x)
    x = keras.layers.Conv2D(64 * channels, (7, 14), name="tail")(x)
    return keras.Model(lr, picture(ops.depth_to_space(x, 8)), name="strided")
