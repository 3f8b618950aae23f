"""Draw HR sample by sample in NumPy; every pixel costs the same.

The whole network would have to run for all pixels once per sample. Here the features of earlier pixels are kept, and
every feature is computed once. NumPy is used because there are tens of thousands of small products, and a framework's
overhead per call would be larger than the products.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

BATCH = 16  # LR pictures that the conditioning network takes at once


def sample(
    model: keras.Model, lr: np.ndarray, *, count: int = 1, temperature: float = 1.0, seed: int = 0
) -> np.ndarray:
    """Draw `count` HR pictures for every LR: (N, h, w, 3) floats in [0, 1] to (N, count, 4h, 4w, 3) uint8.

    `temperature` divides the logits: below 1 likely values are drawn more often, at 0 always the likeliest. Raises
    ValueError for LR that the network does not take.
    """
    if lr.shape[1:] != model.inputs[0].shape[1:]:
        wanted = model.inputs[0].shape[1:]
        raise ValueError(f"Expected LR of shape {wanted}, as the network was built for. Received: {lr.shape[1:]}")
    if count < 1 or not 0 <= temperature < np.inf:
        raise ValueError(f"Expected a count above 0 and a temperature of 0 or more. Received: {count}, {temperature}")
    from_lr = keras.Model(model.inputs[0], model.outputs[1])
    conditioning = np.concatenate([ops.convert_to_numpy(from_lr(lr[i : i + BATCH])) for i in range(0, len(lr), BATCH)])
    random, prior = np.random.default_rng(seed), CachedPrior(model, count * len(lr))
    side = conditioning.shape[1]
    hr = np.empty((count * len(lr), side, side, 3), np.uint8)
    # disable=None: no bar where nobody watches.
    with tqdm(total=side**2, unit=" pixels", desc="drawing", leave=False, disable=None) as bar:
        for y, x, colour in np.ndindex(side, side, 3):
            logits = prior.logits() + np.repeat(conditioning[:, y, x, colour], count, axis=0)
            # The largest of logits with Gumbel noise is a draw from their softmax.
            hr[:, y, x, colour] = np.argmax(logits + temperature * random.gumbel(size=logits.shape), axis=-1)
            prior.append(hr[:, y, x, colour])
            bar.update(colour == 2)
    return hr.reshape(len(lr), count, side, side, 3)


class CachedPrior:
    """Compute the prior's logits of one sample after another, for `count` pictures at once.

    `logits` returns those of the next sample, in the order of rows, pixels, then red, green, blue; `append` takes its
    value. The vertical stack moves on by a row at a time, the horizontal one by a pixel, a colour at a time.
    """

    def __init__(self, model: keras.Model, count: int):
        self.side = model.inputs[1].shape[1]
        self.row, self.column, self.colour = 0, 0, 0
        number = sum(layer.name.startswith("vertical_") for layer in model.layers)
        self.layers = [_Layer(model, i, count, self.side) for i in range(number)]
        self.tail = [_thirds(*_weights(model.get_layer(name))) for name in ("tail_0", "tail_1")]
        filters = self.layers[0].gated.shape[-1]
        self.features, self.hidden = np.zeros((2, count, filters), np.float32)
        self._next_row(np.zeros((count, self.side, 3), np.float32))

    def logits(self) -> np.ndarray:
        """Return the logits, (count, 256), of the next sample's value."""
        colour, column = self.colour, self.column
        third = self._third()
        for layer, following in zip(self.layers, [*self.layers[1:], None], strict=True):
            features = layer.features(column, colour)
            if following:
                following.line[:, column + following.reach, third] = features
        self.features[:, third] = np.maximum(features, 0)
        self.hidden[:, third] = np.maximum(product(self.features, *self.tail[0][colour]), 0)
        return product(self.hidden, *self.tail[1][colour])

    def append(self, values: np.ndarray) -> None:
        """Take the sample's values, (count,) uint8, and move on to the next."""
        first = self.layers[0]
        first.line[:, self.column + first.reach, self.colour] = values / np.float32(127.5) - 1
        self.colour += 1
        if self.colour == 3:
            self.colour, self.column = 0, self.column + 1
        if self.column == self.side:
            self.column, self.row = 0, self.row + 1
            if self.row < self.side:
                self._next_row(first.line[:, first.reach :])

    def _third(self):
        size = self.features.shape[-1] // 3
        return slice(self.colour * size, (self.colour + 1) * size)

    def _next_row(self, pixels):
        for layer in self.layers:
            pixels = layer.next_row(pixels)


class _Layer:
    """Hold a gated layer's weights and what it keeps of the pixels before."""

    def __init__(self, model, index, count, side):
        up, across, channels, outputs = model.get_layer(f"vertical_{index}").kernel.shape
        self.reach, self.residual = up - 1, index > 0
        self.vertical, self.above = (_weights(model.get_layer(f"{name}_{index}")) for name in ("vertical", "above"))
        self.horizontal, self.mix = (
            _thirds(*_weights(model.get_layer(f"{name}_{index}"))) for name in ("horizontal", "residual")
        )
        self.rows = np.zeros((count, up, side + across - 1, channels), np.float32)  # the vertical stack's last ones
        self.line = np.zeros((count, self.reach + side, channels), np.float32)  # the horizontal stack's, of this row
        self.gated = np.zeros((count, outputs // 2), np.float32)  # of this pixel

    def next_row(self, pixels):
        """Move the vertical stack on by a row of its input, (count, side, channels), and return its output."""
        count, side, _ = pixels.shape
        self.rows = np.roll(self.rows, -1, axis=1)
        self.rows[:, -1, self.reach : self.reach + side] = pixels
        windows = np.lib.stride_tricks.sliding_window_view(self.rows, self.rows.shape[2] - side + 1, axis=2)
        x = product(windows.transpose(0, 2, 1, 4, 3).reshape(count, side, -1), *self.vertical)
        self.from_above = product(x, *self.above).reshape(count, side, 3, -1)
        return gate(x.reshape(count, side, 3, -1)).reshape(count, side, -1)

    def features(self, column, colour):
        """Return the horizontal stack's features of one colour of the pixel at hand, (count, filters / 3)."""
        window = self.line[:, column : column + self.reach + 1].reshape(len(self.line), -1)
        x = gate(product(window, *self.horizontal[colour]) + self.from_above[:, column, colour])
        third = slice(colour * x.shape[-1], (colour + 1) * x.shape[-1])
        self.gated[:, third] = x
        x = product(self.gated, *self.mix[colour])
        return x + self.line[:, column + self.reach, third] if self.residual else x


def product(x, kernel, bias):
    """Return x times a kernel, and its bias: all that costs anything here."""
    return x @ kernel + bias


def gate(x):
    """Let the second half of the last axis open and close the first; a sigmoid is a tanh, and overflows less."""
    features, opening = np.split(x, 2, axis=-1)
    return np.tanh(features) * (0.5 + 0.5 * np.tanh(0.5 * opening))


def _weights(layer):
    """Return a convolution's kernel as the matrix that its windows are multiplied by, and its bias."""
    kernel, bias = layer.get_weights()
    if hasattr(layer, "allowed"):
        kernel = kernel * layer.allowed()
    return kernel.reshape(-1, kernel.shape[-1]), bias


def _thirds(kernel, bias):
    """Return the kernel and bias of each colour's outputs."""
    return list(zip(*(np.split(weights, 3, axis=-1) for weights in (np.ascontiguousarray(kernel), bias)), strict=True))
