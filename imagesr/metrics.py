"""PSNR and SSIM between two pictures, by the protocol of the super-resolution papers."""

from __future__ import annotations

import numpy as np

# BT.601 studio luma of RGB in [0, 255]: what MATLAB's rgb2ycbcr gives and the papers' tables are made with.
_BT601 = np.array([65.481, 128.553, 24.966]) / 255


def luma(rgb: np.ndarray) -> np.ndarray:
    """Return the BT.601 studio luma, uint8 in [16, 235], of an (H, W, 3) uint8 RGB picture."""
    return np.rint(rgb @ _BT601 + 16).astype(np.uint8)


def _shaved(a, b, shave):
    if a.shape != b.shape:
        raise ValueError(f"Expected two pictures of one size. Received: {a.shape} and {b.shape}")
    inside = (slice(shave, -shave or None),) * 2
    return a[inside].astype(np.float64), b[inside].astype(np.float64)


def psnr(sr: np.ndarray, hr: np.ndarray, *, shave: int = 0, peak: float = 255) -> float:
    """Return the peak signal-to-noise ratio in dB, `shave` border pixels left out; inf for equal pictures."""
    sr, hr = _shaved(sr, hr, shave)
    error = np.mean((sr - hr) ** 2)
    return float(10 * np.log10(peak**2 / error)) if error else float("inf")


def ssim(sr: np.ndarray, hr: np.ndarray, *, shave: int = 0, peak: float = 255) -> float:
    """Return the mean structural similarity of two planes, `shave` border pixels left out.

    Gaussian window 11×11, sigma 1.5, valid positions only (Wang et al. 2004, section III-C).
    """
    sr, hr = _shaved(sr, hr, shave)
    window = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(plane):
        for axis in (0, 1):
            plane = np.lib.stride_tricks.sliding_window_view(plane, 11, axis=axis) @ window
        return plane

    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_sr, mean_hr = blur(sr), blur(hr)
    var_sr, var_hr = blur(sr * sr) - mean_sr**2, blur(hr * hr) - mean_hr**2
    covariance = blur(sr * hr) - mean_sr * mean_hr
    numerator = (2 * mean_sr * mean_hr + c1) * (2 * covariance + c2)
    return float(np.mean(numerator / ((mean_sr**2 + mean_hr**2 + c1) * (var_sr + var_hr + c2))))
