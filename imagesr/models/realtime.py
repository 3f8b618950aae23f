"""The network that runs at frame rate on a CPU: half resolution, a linear anchor, a short trunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import ops

from imagesr.models.layers import CollapsibleConv2D, depth_to_space, picture, space_to_depth
from imagesr.scale import Scale

OWN = 16  # features that are the second end's own


def realtime(
    scale,
    *,
    filters: int = 32,
    blocks: int = 2,
    anchor: int = 5,
    unshuffle: int = 2,
    channels: int = 1,
    detail: bool = False,
    clean: bool = False,
) -> keras.Model:
    """Build the real-time network: `space_to_depth` → head, `blocks` of 3×3 + ReLU, tail → `depth_to_space`.

    The trunk runs at 1/`unshuffle` of the input's resolution: at half of it 32 filters cost what 16 do at the whole.
    Input and output are float32 NHWC in [0, 1]; height and width must be even, and at least 6. What the trunk adds is a
    correction to a learned linear filter, the anchor, of 3×3 or 5×5 at half resolution, so that training starts from
    the best linear upscaler. Collapsible convolutions train better (SESR, arXiv 2103.09404); `layers.collapsed`
    makes the network of plain ones, which is what is saved and run.

    With `detail` the network has two ends: a second input, one number from 0 to 1 per picture, blends from the faithful
    picture to one that looks more like the original. The last block then has `OWN` features more, which are multiplied
    by the number. Since the tail is linear, its part for them is a second tail, times `detail`, at next to no cost: two
    tails whose results are added take a third more time in int8, because that sum is not fused. The trunk's skip is
    left out, since an anchor of 5×5 can hold it, and the convolutions are plain ones: all but the second end is taken
    from a network of one end (`second_end`) and stays.
    """
    scale = Scale.parse(scale)
    if (scale.up * unshuffle) % scale.down:
        raise ValueError(f"Expected a scale that is a multiple of 1/{unshuffle}. Received: {scale}")
    if detail and not blocks:
        raise ValueError("Expected at least one block for two ends. Received: 0")
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
    conv = keras.layers.Conv2D if detail else CollapsibleConv2D
    head = x = conv(filters, kernel_size=3, padding="valid", name="head")(x)
    inputs = [lr]
    if detail:
        inputs.append(keras.Input((), name="detail"))
    if clean:
        inputs.append(keras.Input((), name="clean"))
        shift = keras.layers.Dense(filters, use_bias=False, kernel_initializer="zeros", name="clean_shift")
        x = x + ops.reshape(shift(ops.reshape(inputs[-1], (-1, 1))), (-1, 1, 1, filters))
    residual = {} if detail else {"residual": True}
    for i in range(blocks - detail):
        x = conv(filters, kernel_size=3, padding="same", activation="relu", name=f"body_{i}", **residual)(x)
    if detail:
        x = conv(filters + OWN, kernel_size=3, padding="same", activation="relu", name=f"body_{blocks - 1}")(x)
        x = _times(x, inputs[1])
    else:
        x = x + head
    padding = "valid" if anchor == 5 else "same"
    x = conv(channels * shuffle**2, kernel_size=3, padding=padding, name="tail")(x)
    sr = depth_to_space(picture(x) + linear, shuffle)
    return keras.Model(inputs if len(inputs) > 1 else lr, sr, name="realtime")


def _times(features, detail):
    """Multiply the last `OWN` of the features (N, H, W, C) by `detail` (N,), and the others by one."""
    own = np.zeros((1, features.shape[-1], 1, 1), np.float32)
    own[:, -OWN:] = 1
    gate = ops.reshape(detail, (-1, 1, 1, 1)) * own + (1 - own)
    # By way of NCHW, in which graphs are exported: a transpose on both sides of a product cancels out there, one on the
    # features' side alone stays, and takes longer than a convolution.
    return features * ops.cast(ops.transpose(gate, (0, 2, 3, 1)), features.dtype)


def second_end(weights: Mapping[str, Sequence[np.ndarray]], wanted: Mapping[str, Sequence[np.ndarray]]) -> dict:
    """Return the weights with which a network of two ends begins as what one of one end is, at any detail.

    `weights` are the kernels and biases of the one by the layers' names, `wanted` the random ones of the other, of
    which it keeps those of the new features; the tail's part for these is zero. The skip from head to tail is two
    convolutions of 3×3, so it goes into the anchor of 5×5. Raises ValueError where the two do not go together.
    """
    last = max((name for name in wanted if name.startswith("body_")), key=lambda name: int(name[5:]))
    if wanted.keys() - {"anchor"} != weights.keys() - {"anchor"} or len(wanted["anchor"][0]) != 5:
        raise ValueError("an anchor of 5 and the same number of blocks make a second end")
    result = {name: [np.array(w) for w in own] for name, own in wanted.items()}
    (head, shift), (tail, bias), (kernel, offset) = weights["head"], weights["tail"], weights[last]
    for name in weights.keys() - {"anchor", "tail", last}:
        _same(weights[name], wanted[name])
        result[name] = [np.array(w) for w in weights[name]]
    features = tail.shape[2]
    _same([kernel, tail], [wanted[last][0][..., :features], wanted["tail"][0][:, :, :features]])
    result[last][0][..., :features], result[last][1][:features] = kernel, offset
    result["tail"][0][:] = 0
    result["tail"][0][:, :, :features] = tail
    result["tail"][1][:] = bias + np.einsum("yxcp,c->p", tail, shift)
    anchor = weights["anchor"][0]
    whole, cut = np.zeros((5, 5, *anchor.shape[2:]), np.float32), (5 - len(anchor)) // 2
    whole[cut : 5 - cut, cut : 5 - cut] = anchor
    for y, x in np.ndindex(3, 3):
        whole[y : y + 3, x : x + 3] += np.einsum("yxic,cp->yxip", head, tail[y, x])
    result["anchor"] = [whole]
    return result


def _same(weights, wanted):
    if (have := [w.shape for w in weights]) != (want := [w.shape for w in wanted]):
        raise ValueError(f"weights of {have} in the place of {want}")
