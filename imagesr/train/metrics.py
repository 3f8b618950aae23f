"""Metrics for `compile`."""

from __future__ import annotations

import keras
from keras import ops

from imagesr.metrics.fidelity import CEILING


@keras.saving.register_keras_serializable("imagesr")
class PSNR(keras.metrics.Mean):
    """Measure PSNR-Y in dB, one value per picture, then their mean, as the papers do.

    HR and SR, float NHWC in [0, 1], are rounded to 8 bits. Of three channels BT.601 luma is compared, of one channel
    that one. `shave` border pixels are left out; papers leave out as many as the scale.

    Example:
        model.compile("adam", loss=imagesr.train.losses.log_mse, metrics=[imagesr.train.PSNR(shave=2)])
    """

    def __init__(self, shave: int = 0, name: str = "psnr", **options):
        super().__init__(name, **options)
        self.shave = shave
        self._direction = "up"  # where EarlyStopping is not told

    def update_state(self, hr, sr, sample_weight=None):
        """Add the values of a batch."""
        error = ops.mean(ops.square(self._plane(hr) - self._plane(sr)), (1, 2, 3))
        floor = 255**2 * 10 ** (-CEILING / 10)  # equal pictures
        super().update_state(10 * ops.log10(255**2 / ops.maximum(error, floor)), sample_weight)

    def get_config(self):
        """Return what the metric is made of."""
        return super().get_config() | {"shave": self.shave}

    def _plane(self, pictures):
        codes = ops.round(ops.clip(ops.cast(pictures, "float32"), 0, 1) * 255)
        if codes.shape[-1] == 3:
            red, green, blue = (codes[..., i : i + 1] for i in range(3))
            codes = ops.round((65.481 * red + 128.553 * green + 24.966 * blue) / 255 + 16)
        return codes[:, self.shave : -self.shave, self.shave : -self.shave] if self.shave else codes
