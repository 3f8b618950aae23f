"""Losses: functions of (hr, sr), float NHWC in [0, 1], that return one value per picture, on keras.ops.

`model.compile(loss=...)` takes them and their names. A model that is saved with one can be loaded again where this
module has been imported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

_ROUNDING = 1e-4  # the power that rounding to 8 bits has in a line of 96 pixels behind a Hann window, twice over
_CHANCE, _NEIGHBOURS = 0.5, 9  # bins
_BORDER = 12  # HR pixels of a crop at each side whose mesh is not looked at: the network saw too little around them


def mae(hr, sr):
    """Return the mean absolute error, L1, which EDSR and RDN use."""
    return ops.mean(ops.abs(hr - sr), axis=(1, 2, 3))


def mse(hr, sr):
    """Return the mean squared error, L2, which PSNR measures."""
    return ops.mean(ops.square(hr - sr), axis=(1, 2, 3))


def log_mse(hr, sr, floor: float = 1e-5):
    """Return the logarithm of the mean squared error, as in PSNR: soft pictures count as much as sharp ones.

    Errors below `floor`, 50 dB, count little: rounding to 8 bits alone is at 59 dB. Source: NAFNet (arXiv 2204.04676).
    """
    return ops.log1p(mse(hr, sr) / floor)


def charbonnier(hr, sr, epsilon: float = 1e-3):
    """Return L1 that is smooth at zero: sqrt(e² + ε²) (LapSRN, arXiv 1704.03915, section 3.3)."""
    return ops.mean(ops.sqrt(ops.square(hr - sr) + epsilon**2), axis=(1, 2, 3))


def ssim(hr, sr):
    """Return one minus the structural similarity: 11×11 Gaussian, sigma 1.5 (Wang et al. 2004)."""
    distance = ops.cast(ops.arange(11), "float32") - 5
    line = ops.exp(-ops.square(distance) / (2 * 1.5**2))
    window = ops.expand_dims(ops.outer(line, line) / ops.sum(line) ** 2, (2, 3))
    window = ops.tile(window, (1, 1, hr.shape[-1], 1))

    def blur(x):
        return ops.depthwise_conv(x, window, padding="valid", data_format="channels_last")

    c1, c2 = 0.01**2, 0.03**2
    mean_hr, mean_sr = blur(hr), blur(sr)
    var_hr, var_sr = blur(hr * hr) - mean_hr**2, blur(sr * sr) - mean_sr**2
    covariance = blur(hr * sr) - mean_hr * mean_sr
    numerator = (2 * mean_hr * mean_sr + c1) * (2 * covariance + c2)
    similarity = numerator / ((mean_hr**2 + mean_sr**2 + c1) * (var_hr + var_sr + c2))
    return 1 - ops.mean(similarity, axis=(1, 2, 3))


def log_mse_ssim(hr, sr, weight: float = 20.0):
    """Return `log_mse` plus the weighted structural dissimilarity: for film.

    Where an encoder blurs, the error is small and much structure is lost. The second term raises VMAF-NEG and PSNR.
    """
    return log_mse(hr, sr) + weight * ssim(hr, sr)


def mesh(sr, periods: Sequence[int] = (2, 3, 4)):
    """Return by how much the logarithm of the spectrum stands out at the periods of the network's cells: the mesh.

    What `metrics.texture.mesh` measures, over crops: the logarithm of the power at a period less the mean of its
    neighbours 3 to 8 bins away, where it is above them by more than chance has it; rows, columns and periods added up.
    """
    total = 0.0
    for lines in (sr[..., 0], ops.transpose(sr[..., 0], (0, 2, 1))):
        length = lines.shape[-1]
        lines = (lines - ops.mean(lines, -1, keepdims=True)) * np.hanning(length).astype(np.float32)
        real, imaginary = ops.rfft(lines)
        power = ops.log(ops.mean(ops.square(real) + ops.square(imaginary), 1) + _ROUNDING)
        for period in periods:
            at = length // period
            if at < _NEIGHBOURS:  # too short for what is compared with
                continue
            around = ops.concatenate([power[:, at - 8 : at - 2], power[:, at + 3 : at + 9]], 1)
            total += ops.mean(ops.relu(power[:, at] - ops.mean(around, 1) - _CHANCE))
    return total


def film(hr, sr, weight: float = 0.1):
    """Return `log_mse_ssim` plus the weighted mesh of the batch: for film whose encoder left little.

    Where little is left, PSNR does not see a faint grid of the network's cells, and the eye does.
    """
    edge = _BORDER if min(sr.shape[1:3]) >= 4 * _BORDER else 0  # what is smaller is all border
    inside = slice(edge, -edge or None)
    return log_mse_ssim(hr, sr) + weight * mesh(sr[:, inside, inside])


def at_edges(loss):
    """Return a loss of (target, sr) that weights pixels; the weights are the target's last channel.

    Errors are multiplied by the weight before the loss is computed.
    """

    def weighted(target, sr):
        hr, times = target[..., :-1], target[..., -1:]
        return loss(hr, hr + times * (sr - hr))

    return weighted


LOSSES = {
    "mse": mse,
    "log_mse": log_mse,
    "log_mse_ssim": log_mse_ssim,
    "film": film,
    "mae": mae,
    "charbonnier": charbonnier,
    "ssim": ssim,
}

for _loss in LOSSES.values():
    keras.saving.register_keras_serializable("imagesr")(_loss)

# Keras looks names up in this table alone, which it keeps to itself. `mse` and `mae` are there, and mean the same.
with contextlib.suppress(ImportError):
    from keras.src.losses import ALL_OBJECTS_DICT

    for _name, _loss in LOSSES.items():
        ALL_OBJECTS_DICT.setdefault(_name, _loss)
