"""The network that runs at frame rate on a CPU: half resolution, a linear anchor, a short trunk."""

from __future__ import annotations

import keras
from keras import ops

from imagesr.models.layers import CollapsibleConv2D, depth_to_space, picture, space_to_depth
from imagesr.scale import Scale


def realtime(
    scale, *, filters: int = 32, blocks: int = 2, anchor: int = 5, unshuffle: int = 2, channels: int = 1
) -> keras.Model:
    """Build the real-time network: `space_to_depth` → head, `blocks` of 3×3 + ReLU, tail → `depth_to_space`.

    The trunk runs at 1/`unshuffle` of the input's resolution: at half of it 32 filters cost what 16 do at the whole.
    Input and output are float32 NHWC in [0, 1]; height and width must be even, and at least 6. What the trunk adds is a
    correction to a learned linear filter, the anchor, of 3×3 or 5×5 at half resolution, so that training starts from
    the best linear upscaler. Collapsible convolutions train better (SESR, arXiv 2103.09404); `layers.collapsed`
    makes the network of plain ones, which is what is saved and run.
    """
    scale = Scale.parse(scale)
    if (scale.up * unshuffle) % scale.down:
        raise ValueError(f"Expected a scale that is a multiple of 1/{unshuffle}. Received: {scale}")
    if anchor not in (3, 5):
        raise ValueError(f"Expected an anchor of 3 or 5. Received: {anchor}")
    shuffle = scale.up * unshuffle // scale.down

    lr = keras.Input((None, None, channels), name="lr")
    # Reflected, not zero: a linear filter that reads zeros beyond the edge would draw a dark frame. The border is what
    # the anchor uses up, and so do head and tail, or the head alone.
    border = (anchor // 2 * unshuffle,) * 2
    x = ops.pad(lr, ((0, 0), border, border, (0, 0)), mode="reflect")
    x = space_to_depth(x, unshuffle)
    # The picture passes through the anchor: float32 even where the trunk is not.
    conv = keras.layers.Conv2D(channels * shuffle**2, anchor, use_bias=False, dtype="float32", name="anchor")
    linear = conv(x)
    head = x = CollapsibleConv2D(filters, padding="valid", name="head")(x)
    for i in range(blocks):
        x = CollapsibleConv2D(filters, activation="relu", residual=True, name=f"body_{i}")(x)
    padding = "valid" if anchor == 5 else "same"
    x = CollapsibleConv2D(channels * shuffle**2, padding=padding, name="tail")(x + head)
    sr = depth_to_space(picture(x) + linear, shuffle)
    return keras.Model(lr, sr, name="realtime")
