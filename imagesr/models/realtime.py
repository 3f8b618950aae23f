"""The network that runs at frame rate on a CPU: half resolution, a linear anchor, a short trunk."""

from __future__ import annotations

import keras
from keras import ops

from imagesr.layers import CollapsibleConv2D, picture
from imagesr.scale import Scale

UNSHUFFLE = 2  # the trunk runs at half the input's resolution


def realtime(scale, *, filters: int = 32, blocks: int = 2, anchor: int = 5, channels: int = 1) -> keras.Model:
    """Build the real-time network: `space_to_depth(2)` → head, `blocks` of 3×3 + ReLU, tail → `depth_to_space`.

    Input and output are float32 NHWC in [0, 1]; height and width must be even, and at least 6. What the trunk adds is a
    correction to a learned linear filter, the anchor, of 3×3 or 5×5 at half resolution, so that training starts from
    the best linear upscaler. Collapsible convolutions train better (SESR, arXiv 2103.09404); `layers.collapsed`
    makes the network of plain ones, which is what is saved and run.
    """
    scale = Scale.parse(scale)
    if (scale.up * UNSHUFFLE) % scale.down:
        raise ValueError(f"Expected a scale that is a multiple of 1/{UNSHUFFLE}. Received: {scale}")
    if anchor not in (3, 5):
        raise ValueError(f"Expected an anchor of 3 or 5. Received: {anchor}")
    shuffle = scale.up * UNSHUFFLE // scale.down

    lr = keras.Input((None, None, channels), name="lr")
    # Reflected, not zero: a linear filter that reads zeros beyond the edge would draw a dark frame. The border is what
    # the anchor uses up, and so do head and tail, or the head alone.
    border = (anchor // 2 * UNSHUFFLE,) * 2
    x = ops.pad(lr, ((0, 0), border, border, (0, 0)), mode="reflect")
    x = ops.space_to_depth(x, UNSHUFFLE)
    # The picture passes through the anchor: float32 even where the trunk is not.
    conv = keras.layers.Conv2D(channels * shuffle**2, anchor, use_bias=False, dtype="float32", name="anchor")
    linear = conv(x)
    head = x = CollapsibleConv2D(filters, padding="valid", name="head")(x)
    for i in range(blocks):
        x = CollapsibleConv2D(filters, activation="relu", residual=True, name=f"body_{i}")(x)
    padding = "valid" if anchor == 5 else "same"
    x = CollapsibleConv2D(channels * shuffle**2, padding=padding, name="tail")(x + head)
    sr = ops.depth_to_space(picture(x) + linear, shuffle)
    return keras.Model(lr, sr, name="realtime")
