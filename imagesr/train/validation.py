"""Validation: the fixed crops that a run is measured on."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras.ops import convert_to_numpy

from imagesr.datasets.crops import CROPS, as_batch, crop_side, fixed_crops
from imagesr.datasets.degradations import Degradation
from imagesr.depth.maps import as_channels
from imagesr.metrics.fidelity import CEILING, psnr
from imagesr.models.layers import at_detail
from imagesr.pixels import luma, resize
from imagesr.scale import Scale

WHOLE_FRAMES = 4  # the number for a network that takes whole frames only
BATCH = 8


class Validation:
    """Hold fixed crops out of loaded pairs, and measure networks on them.

    `crops` are (LR, HR) uint8, `depth` their depth maps, none for a network that takes none; `lost` how much of each
    was lost, likewise, for pairs with `clean`; `bicubic` is the PSNR-Y
    of bicubic interpolation in dB. `frame` is the HR (height, width) of a network of one size, None for others, whose
    crops are squares, smaller where a picture is.
    """

    def __init__(
        self,
        pairs: Sequence[tuple],
        scale: Scale,
        *,
        degradation: Degradation,
        frame: tuple[int, int] | None = None,
        clean: bool = False,
    ):
        size = frame or (crop_side(scale),) * 2
        most = WHOLE_FRAMES if frame else CROPS
        crops = fixed_crops(pairs, scale, size=size, most=most, degradation=degradation, clean=clean)
        self.scale = scale
        self.crops = [crop[:2] for crop in crops]
        more = [crop[2] for crop in crops if len(crop) > 2]
        self.depth, self.lost = ([], more) if clean else (more, [])
        self.bicubic = self._mean([resize(lr, hr.shape[1::-1]) for lr, hr in self.crops])

    def psnr_y(self, model: keras.Model) -> float:
        """Return the mean PSNR-Y in dB of a network over the crops, by the papers' protocol."""
        return self._mean(self.upscaled(model))

    def upscaled(self, model: keras.Model) -> list[np.ndarray]:
        """Return SR of every crop, uint8, (H, W) or (H, W, 3)."""
        results = [None] * len(self.crops)
        by_shape: dict[tuple, list[int]] = {}
        for i, (lr, _) in enumerate(self.crops):
            by_shape.setdefault(lr.shape, []).append(i)
        for indices in by_shape.values():
            for i in range(0, len(indices), BATCH):
                some = indices[i : i + BATCH]
                for j, picture in zip(some, self._run(model, some), strict=True):
                    results[j] = picture
        return results

    def _run(self, model, indices):
        lr = as_batch([self.crops[i][0] for i in indices])
        inputs = [lr, as_channels(np.stack([self.depth[i] for i in indices]))] if self.depth else lr
        clean = np.array([self.lost[i] for i in indices], np.float32) if self.lost else 0.0
        sr = convert_to_numpy(at_detail(model, 0, clean)(inputs, training=False))
        sr = np.rint(np.clip(sr * 255, 0, 255)).astype(np.uint8)
        return sr if sr.shape[-1] == 3 else sr[..., 0]

    def _mean(self, pictures):
        values = []
        for (_, hr), sr in zip(self.crops, pictures, strict=True):
            planes = (sr, hr) if hr.ndim == 2 else (luma(sr), luma(hr))
            values.append(min(psnr(*planes, shave=self.scale.up), CEILING))  # a flat crop is perfect
        return float(np.mean(values))
