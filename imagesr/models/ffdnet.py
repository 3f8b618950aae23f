"""FFDNet: clean a picture at half resolution, told how much was lost (Zhang et al. 2018, arXiv 1710.04026)."""

from __future__ import annotations

import keras
from keras import ops

from imagesr.models.layers import depth_to_space, picture, space_to_depth
from imagesr.scale import Scale


def ffdnet(scale=1, *, filters: int = 96, depth: int = 12, channels: int = 3) -> keras.Model:
    """Build FFDNet: `space_to_depth`, `depth` 3×3 convolutions at half resolution, `depth_to_space` (section 3.1).

    It keeps the size: `scale` is 1. A second input, `clean`, is how much was lost, one number from 0 to 1 per picture.
    The paper gives it as a map of one value, which behind a convolution is a shift of its features. Here batch
    normalisation is left out, and what the network computes is added to the picture, as DnCNN does (arXiv 1608.03981),
    so that training starts from the picture itself. The tail also sees the picture, as it is and times `clean`: a
    narrow network cannot carry the noise of every sample through its layers to take it away. Height and width must be
    even. Raises ValueError for another scale.
    """
    if Scale.parse(scale) != Scale(1):
        raise ValueError(f"Expected a scale of 1 for ffdnet, which cleans and does not enlarge. Received: {scale}")

    def conv(filters, name, **options):
        return keras.layers.Conv2D(
            filters, 3, padding="same", name=name, **{"kernel_initializer": "he_normal"} | options
        )

    def small(size):
        return keras.initializers.RandomNormal(stddev=size)

    lr, clean = keras.Input((None, None, channels), name="lr"), keras.Input((), name="clean")
    shift = keras.layers.Dense(filters, use_bias=False, kernel_initializer=small(0.1), name="clean_shift")
    shift = ops.reshape(shift(ops.reshape(clean, (-1, 1))), (-1, 1, 1, filters))
    samples = space_to_depth(lr, 2)
    x = ops.relu(conv(filters, "head")(samples) + shift)
    for i in range(depth - 2):
        x = conv(filters, f"body_{i}", activation="relu")(x)
    x = ops.concatenate([x, samples, samples * ops.reshape(clean, (-1, 1, 1, 1))], -1)
    x = conv(4 * channels, "tail", kernel_initializer=small(0.002))(x)
    return keras.Model([lr, clean], lr + picture(depth_to_space(x, 2)), name="ffdnet")
