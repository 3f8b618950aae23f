"""Networks that take a depth map beside LR."""

from __future__ import annotations

import keras
from keras import ops

from imagesr.models.layers import depth_to_space, space_to_depth
from imagesr.scale import Scale

DEPTH_REACH = 4  # times `down`, LR pixels: how far a correction by depth looks


def with_depth(model: keras.Model, scale: Scale, filters: int = 32) -> keras.Model:
    """Return a network that corrects what `model` makes of LR by a depth map: [LR, depth] → SR.

    The map has HR's size, (H·scale, W·scale, 2), as `maps.as_channels` returns it. The correction is computed from the
    map and `joint_bilateral` by two convolutions at LR's size and one at HR's. It is zero before training, and always
    zero where depth is missing.
    """
    (lr,), sr, channels = model.inputs, model.output, model.output.shape[-1]
    depth = keras.Input((None, None, 2), name="depth")
    across = joint_bilateral(lr, depth, scale)

    def conv(x, filters, name, **options):
        return keras.layers.Conv2D(filters, 3, padding="same", name=name, **options)(x)

    zero = {"kernel_initializer": "zeros", "dtype": "float32"}
    x = space_to_depth(ops.concatenate([depth, across], -1), scale.up)
    x = conv(x, filters, "depth_head", activation="relu")
    x = depth_to_space(conv(x, channels * scale.up**2, "depth_tail", **zero), scale.up)
    correction = depth[..., 1:] * (x + conv(across, channels, "depth_skip", use_bias=False, **zero))
    corrected = keras.layers.Add(dtype="float32", name="corrected")([sr, correction])
    return keras.Model([lr, depth], corrected, name=model.name)


def without_depth(model: keras.Model) -> keras.Model:
    """Return the network inside one of `with_depth`, from LR alone, with the same layers; other networks unchanged."""
    if [entry.name for entry in model.inputs] != ["lr", "depth"]:
        return model
    return keras.Model(model.inputs[0], model.get_layer("corrected").input[0], name=model.name)


def joint_bilateral(lr, depth, scale: Scale):
    """Return the mean of the 3×3 LR pixels of the same depth around each HR pixel, less the mean of all nine.

    The result is (H·scale, W·scale, 1): what mixing two objects across a jump of depth takes away. It is zero where
    depth is level or missing. Convolutions would have to learn this product of depth and picture, and in a short
    training they do not. Source: Kopf et al. 2007, Joint bilateral upsampling.
    """

    def around(x):
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
        rows = [x[:, i : i - 2 or None] for i in range(3)]
        return ops.concatenate([row[:, :, i : i - 2 or None] for row in rows for i in range(3)], -1)

    def upscaled(x):
        x = ops.repeat(ops.repeat(x, scale.up, axis=1), scale.up, axis=2)
        return x[:, :: scale.down, :: scale.down]

    far, known = depth[..., :1], depth[..., 1:]
    small = ops.repeat(ops.repeat(far, scale.down, axis=1), scale.down, axis=2)
    small = ops.average_pool(small, scale.up, strides=scale.up)  # depth of LR's pixels
    span = ops.max_pool(small, 5, strides=1, padding="same") + ops.max_pool(-small, 5, strides=1, padding="same")
    apart = (far - upscaled(around(small))) / upscaled(0.15 * span + 0.01)
    weights = ops.exp(-ops.square(apart)) + 1e-6
    values = upscaled(around(ops.mean(lr, -1, keepdims=True)))
    own = ops.sum(weights * values, -1, keepdims=True) / ops.sum(weights, -1, keepdims=True)
    return known * (own - ops.mean(values, -1, keepdims=True))
