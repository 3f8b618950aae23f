"""Layers and functions that networks are built from, on keras.ops, so that any Keras backend trains them."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from imagesr.pixels import weights
from imagesr.scale import Scale


@keras.saving.register_keras_serializable("imagesr")
class CollapsibleConv2D(keras.layers.Layer):
    """Train a convolution as a wide k×k followed by a 1×1, and run it as the single k×k that equals both.

    Both are linear, so their product is a single kernel. It is computed at every training step, which is much cheaper
    than convolving with the wide one. With `residual`, the identity is added to the
    kernel (input and output channels must agree). Source: SESR (arXiv 2103.09404, section 3).
    """

    def __init__(
        self, filters, kernel_size=3, *, expansion=128, residual=False, padding="same", activation=None, **kwargs
    ):
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.expansion = filters, kernel_size, expansion
        self.residual, self.padding = residual, padding
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        channels = input_shape[-1]
        if self.residual and channels != self.filters:
            raise ValueError(f"Expected {self.filters} input channels for a residual kernel. Received: {channels}")
        k = self.kernel_size
        self.expand = self.add_weight((k, k, channels, self.expansion), "glorot_uniform", name="expand")
        self.project = self.add_weight((self.expansion, self.filters), "glorot_uniform", name="project")
        self.bias = self.add_weight((self.filters,), "zeros", name="bias")

    def kernel(self):
        """Return the collapsed kernel, (k, k, channels, filters)."""
        kernel = ops.matmul(self.expand, self.project)
        if self.residual:
            centre = (k := self.kernel_size) // 2
            identity = ops.reshape(ops.eye(self.filters, dtype=kernel.dtype), (1, 1, self.filters, self.filters))
            kernel += ops.pad(identity, ((centre, k - 1 - centre),) * 2 + ((0, 0), (0, 0)))
        return kernel

    def call(self, x):
        x = ops.conv(x, ops.cast(self.kernel(), x.dtype), padding=self.padding, data_format="channels_last")
        return self.activation(x + ops.cast(self.bias, x.dtype))

    def compute_output_shape(self, input_shape):
        lost = 0 if self.padding == "same" else self.kernel_size - 1
        height, width = (None if n is None else n - lost for n in input_shape[1:3])
        return (input_shape[0], height, width, self.filters)

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "expansion": self.expansion,
            "residual": self.residual,
            "padding": self.padding,
            "activation": keras.activations.serialize(self.activation),
        }


@keras.saving.register_keras_serializable("imagesr")
class MaskedConv2D(keras.layers.Conv2D):
    """Convolve the pixels up to the current one, which is the last tap, with its channels masked.

    Channels are thirds for red, green and blue. With mask A, a third of the output sees the thirds before it, with B
    also itself. Padding is valid: the caller pads above and on the left. Source: arXiv 1601.06759, section 3.4.
    """

    def __init__(self, filters, kernel_size, *, mask, **kwargs):
        super().__init__(filters, kernel_size, **kwargs)
        if mask not in ("A", "B"):
            raise ValueError(f"Expected a mask of A or B. Received: {mask}")
        self.mask = mask

    def allowed(self) -> np.ndarray:
        """Return the mask of the kernel, ones and zeros in its shape."""
        *_, inputs, outputs = shape = self._kernel.shape
        source, target = (np.arange(n) * 3 // n for n in (inputs, outputs))
        compare = np.less if self.mask == "A" else np.less_equal
        mask = np.ones(shape, np.float32)
        mask[-1, -1] = compare.outer(source, target)
        return mask

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel * ops.cast(self.allowed(), kernel.dtype))

    def get_config(self):
        return super().get_config() | {"mask": self.mask}


def collapsed(model: keras.Model) -> keras.Model:
    """Return an equal network in float32 with built-in layers alone: the one that is saved and run."""

    def plain(layer):
        config = layer.get_config()
        if not isinstance(layer, keras.layers.Layer):  # an operation such as a sum
            return type(layer).from_config(config)
        config["dtype"] = "float32"
        if not isinstance(layer, CollapsibleConv2D):
            return type(layer).from_config(config)
        kept = ("filters", "kernel_size", "padding", "activation", "name", "dtype")
        return keras.layers.Conv2D(**{key: config[key] for key in kept})

    # Without an optimizer, which cloning would copy.
    bare = keras.Model(model.inputs if len(model.inputs) > 1 else model.input, model.output, name=model.name)
    result = keras.models.clone_model(bare, clone_function=plain)
    for layer in model.layers:
        if isinstance(layer, CollapsibleConv2D):
            result.get_layer(layer.name).set_weights([ops.convert_to_numpy(w) for w in (layer.kernel(), layer.bias)])
        elif layer.weights:
            result.get_layer(layer.name).set_weights(layer.get_weights())
    return result


def takes_detail(model: keras.Model) -> bool:
    """Say whether a network has two ends, and takes `detail` beside LR."""
    return "detail" in numbers_of(model)


def takes_clean(model: keras.Model) -> bool:
    """Say whether a network takes `clean` beside LR: how much of the source was lost to compression and noise."""
    return "clean" in numbers_of(model)


def numbers_of(model: keras.Model) -> list[str]:
    """Return the names of the numbers that a network takes beside LR, in its order: of `detail` and `clean`."""
    first, *names = (entry.name for entry in model.inputs)
    return names if first == "lr" and {*names} <= {"detail", "clean"} else []


def at_detail(model: keras.Model, detail: float, clean: float = 0.0) -> Callable:
    """Return a function from LR to SR of a network, at a detail and a degree of cleaning where it takes them."""
    if not (names := numbers_of(model)):
        return lambda lr, **options: model(lr, **options)
    values = [{"detail": detail, "clean": clean}[name] for name in names]
    return lambda lr, **options: model([lr, *(np.full(len(lr), value, np.float32) for value in values)], **options)


def subpixel_conv(x, filters: int, factor: int, kernel_size: int = 3, *, name: str, **options):
    """Upscale feature maps `factor` times: a convolution, then `depth_to_space` (ESPCN, arXiv 1609.05158)."""
    x = keras.layers.Conv2D(filters * factor**2, kernel_size, padding="same", name=name, **options)(x)
    return depth_to_space(x, factor)


def upsample(x, filters: int, factor: int, **options):
    """Upscale feature maps as EDSR does (arXiv 1707.02921, figure 3): by 4 in two steps of 2, otherwise in one."""
    if factor == 4:
        x = subpixel_conv(x, filters, 2, name="upsample_0", **options)
        return subpixel_conv(x, filters, 2, name="upsample_1", **options)
    return subpixel_conv(x, filters, factor, name="upsample_0", **options)


def space_to_depth(x, factor: int):
    """Fold pixels into channels; with a factor of 1 return `x`, so that whole scales are no special case."""
    return ops.space_to_depth(x, factor) if factor > 1 else x


def depth_to_space(x, factor: int):
    """Unfold channels into pixels; with a factor of 1 return `x`."""
    return ops.depth_to_space(x, factor) if factor > 1 else x


def bicubic(lr, scale: Scale):
    """Upscale a picture by bicubic interpolation (a = -0.5): a fixed convolution, then `depth_to_space`.

    It is a convolution because backends and exporters disagree on resizing. Edges are reflected.
    """
    channels, down, up = lr.shape[-1], scale.down, scale.up
    reach = 1 if scale.down > 1 else 2  # cells on either side of one that its output pixels depend on
    side = 2 * reach + 1
    # Rows of the middle cell's output pixels in the matrix that upscales a line of `side` cells.
    line = weights(side * down, side * up, "bicubic")[reach * up : (reach + 1) * up]
    taps = np.einsum("pi,qj->ijpq", line, line).reshape(side, down, side, down, up, up)
    kernel = np.zeros((side, side, down, down, channels, up, up, channels), np.float32)
    for channel in range(channels):
        kernel[..., channel, :, :, channel] = taps.transpose(0, 2, 1, 3, 4, 5)
    kernel = kernel.reshape(side, side, down**2 * channels, up**2 * channels)
    border = (reach * down,) * 2
    x = ops.pad(lr, ((0, 0), border, border, (0, 0)), mode="reflect")
    # float32 under any policy: a picture in bfloat16 has eight significant bits.
    conv = keras.layers.Conv2D(kernel.shape[-1], side, use_bias=False, trainable=False, dtype="float32", name="bicubic")
    x = conv(space_to_depth(x, down))
    conv.set_weights([kernel])
    return depth_to_space(x, up)


def prelu(x, *, name: str):
    """Apply a ReLU whose negative slope is learned, one per channel (He et al. 2015, arXiv 1502.01852)."""
    slope = keras.initializers.Constant(0.25)
    return keras.layers.PReLU(slope, shared_axes=[1, 2], name=name)(x)


def shifted(x, offset: float, *, name: str):
    """Add a constant to a picture, in float32."""
    return keras.layers.Rescaling(1.0, offset, dtype="float32", name=name)(x)


def picture(x):
    """End a network in float32, whatever the precision of its body (Keras's guide to mixed precision)."""
    return keras.layers.Activation("linear", dtype="float32", name="sr")(x)
