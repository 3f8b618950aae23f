"""The pieces that networks are built from; all of them on keras.ops, so any Keras backend trains them."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable("imagesr")
class CollapsibleConv2D(keras.layers.Layer):
    """Train a convolution as a wide k×k followed by a 1×1, and run it as the one k×k that the two amount to.

    Both are linear, so their product is a single kernel; it is formed at every training step, which costs
    next to nothing beside convolving with the wide one. With `residual`, the identity is added to the
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
            identity = ops.reshape(ops.eye(self.filters), (1, 1, self.filters, self.filters))
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
