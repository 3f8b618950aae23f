"""The network: logits from LR plus logits from the pixels before."""

from __future__ import annotations

import keras
from keras import ops

from imagesr.models.layers import MaskedConv2D, subpixel_conv

FACTOR = 4  # HR pixels for one of LR, each way
VALUES = 256  # of a sample


def pixel_recursive(*, side: int = 32, filters: int = 36, blocks: int = 1, layers: int = 5, reach: int = 1):
    """Build the network of Dahl et al. 2017 (arXiv 1702.00783, section 3): (lr, hr) → (logits, conditioning).

    `lr` is (side / 4, side / 4, 3) and `hr` (side, side, 3), both in [0, 1]; the results are (side, side, 3, 256),
    logits of the value of every sample: of both networks together, and of the conditioning network alone. At no
    sample do they depend on that or a later sample of `hr`, in the order of rows, then pixels, then red, green, blue.

    `blocks` are residual ones of the conditioning network at each of its three sizes, `layers` those of the gated
    PixelCNN (van den Oord et al. 2016, arXiv 1606.05328), whose kernels look `reach` pixels up, left and right.
    """
    if side % FACTOR or side < FACTOR:
        raise ValueError(f"Expected a side that is a multiple of {FACTOR}. Received: {side}")
    if filters % 3 or filters < 3:
        raise ValueError(f"Expected filters that are a multiple of 3, a third for each colour. Received: {filters}")
    if min(blocks, layers - 1, reach - 1) < 0:
        received = f"{blocks}, {layers} and {reach}"
        raise ValueError(f"Expected 0 blocks or more, 1 of layers and reach or more. Received: {received}")
    lr = keras.Input((side // FACTOR, side // FACTOR, 3), name="lr")
    hr = keras.Input((side, side, 3), name="hr")
    shape = (side, side, 3, VALUES)
    conditioning = keras.layers.Reshape(shape, name="conditioning")(_conditioning(lr, filters, blocks))
    prior = keras.layers.Reshape(shape, name="prior")(_prior(hr, filters, layers, reach))
    return keras.Model([lr, hr], [keras.layers.Add(name="logits")([conditioning, prior]), conditioning])


def _conditioning(lr, filters, blocks):
    """Return (N, side, side, 768) logits from LR: residual blocks at three sizes, upscaled by two between them."""

    def conv(x, name, **options):
        return keras.layers.Conv2D(filters, 3, padding="same", name=f"conditioning_{name}", **options)(x)

    x = conv(2 * lr - 1, "head")
    for size in range(3):
        for i in range(blocks):
            x = x + conv(conv(x, f"{size}_{i}_0", activation="relu"), f"{size}_{i}_1")
        if size < 2:
            x = subpixel_conv(x, filters, 2, name=f"conditioning_upsample_{size}")
    return keras.layers.Conv2D(3 * VALUES, 1, name="conditioning_tail")(keras.layers.ReLU()(x))


def _prior(hr, filters, layers, reach):
    """Return (N, side, side, 768) logits from the HR pixels before: two stacks, so that there is no blind spot.

    The vertical stack sees the rows above, whole; it is moved down by one at its start, once. The horizontal one sees
    what is on the left, and the vertical one's features.
    """
    side = hr.shape[1]

    def gate(x, name):
        """Halve the channels of each colour: one half opens and closes the other (arXiv 1606.05328, equation 2)."""
        x = ops.reshape(x, (-1, side, side, 3, 2, filters // 3))
        return ops.reshape(ops.tanh(x[..., 0, :]) * ops.sigmoid(x[..., 1, :]), (-1, side, side, filters))

    pad, left = keras.layers.ZeroPadding2D, ((0, 0), (reach, 0))
    horizontal = 2 * hr - 1  # no Rescaling layer: under JAX it asks for TensorFlow
    vertical = keras.layers.Cropping2D(((0, 1), (0, 0)))(pad(((1, 0), (0, 0)))(horizontal))
    for i in range(layers):
        vertical = pad(((reach, 0), (reach, reach)))(vertical)
        vertical = keras.layers.Conv2D(2 * filters, (reach + 1, 2 * reach + 1), name=f"vertical_{i}")(vertical)
        above = keras.layers.Conv2D(2 * filters, 1, name=f"above_{i}")(vertical)
        conv = MaskedConv2D(2 * filters, (1, reach + 1), mask="B" if i else "A", name=f"horizontal_{i}")
        x = gate(conv(pad(left)(horizontal)) + above, i)
        x = MaskedConv2D(filters, 1, mask="B", name=f"residual_{i}")(x)
        horizontal = horizontal + x if i else x
        vertical = gate(vertical, i)
    x = keras.layers.ReLU()(horizontal)
    x = MaskedConv2D(filters, 1, mask="B", activation="relu", name="tail_0")(x)
    return MaskedConv2D(3 * VALUES, 1, mask="B", name="tail_1")(x)
