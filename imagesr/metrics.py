"""PSNR and SSIM between two pictures, by the protocol of the super-resolution papers."""

from __future__ import annotations

import numpy as np

# BT.601 studio luma of RGB in [0, 255]: what MATLAB's rgb2ycbcr gives and the papers' tables are made with.
_BT601 = np.array([65.481, 128.553, 24.966]) / 255
CEILING = 100.0  # dB


def luma(rgb: np.ndarray) -> np.ndarray:
    """Return the BT.601 studio luma, uint8 in [16, 235], of an (H, W, 3) uint8 RGB picture."""
    return np.rint(luma_of(rgb)).astype(np.uint8)


def luma_of(rgb: np.ndarray) -> np.ndarray:
    """Return the BT.601 studio luma, floating point from 16 to 235, of (…, 3) RGB from 0 to 255."""
    return rgb @ _BT601.astype(rgb.dtype if rgb.dtype.kind == "f" else float) + 16


def with_luma(rgb: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Return an (H, W, 3) uint8 RGB picture with its BT.601 studio luma replaced by a plane, its chroma kept.

    In YCbCr a change of luma alone moves red, green and blue by the same amount.
    """
    change = (plane - luma_of(rgb)) * (255 / 219)
    return np.rint(np.clip(rgb + change[..., np.newaxis], 0, 255)).astype(np.uint8)


def _shaved(a, b, shave):
    if a.shape != b.shape:
        raise ValueError(f"Expected two pictures of one size. Received: {a.shape} and {b.shape}")
    inside = (slice(shave, -shave or None),) * 2
    return a[inside].astype(np.float64), b[inside].astype(np.float64)


def psnr(
    sr: np.ndarray, hr: np.ndarray, *, shave: int = 0, peak: float = 255, where: np.ndarray | None = None
) -> float:
    """Return the peak signal-to-noise ratio in dB, `shave` border pixels left out; inf for equal pictures.

    `where`, bool (H, W), says which pixels of two planes count; some must.
    """
    sr, hr = _shaved(sr, hr, shave)
    counted = True if where is None else where[shave : -shave or None, shave : -shave or None]
    error = np.mean((sr - hr) ** 2, where=counted)
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
    squares, product = mean_sr**2 + mean_hr**2, mean_sr * mean_hr
    variances, covariance = blur(sr * sr + hr * hr) - squares, blur(sr * hr) - product
    numerator = (2 * product + c1) * (2 * covariance + c2)
    return float(np.mean(numerator / ((squares + c1) * (variances + c2))))


def figures(
    sr: np.ndarray, hr: np.ndarray, sr_rgb: np.ndarray, hr_rgb: np.ndarray, *, shave: int = 0
) -> dict[str, float]:
    """Return `psnr_y` and `ssim_y` of two luma planes and `psnr_rgb` of two RGB pictures, all uint8.

    PSNR ends at 100 dB, so that one black frame, which anything upscales without an error, leaves a mean its sense.
    """
    return {
        "psnr_y": min(psnr(sr, hr, shave=shave), CEILING),
        "ssim_y": ssim(sr, hr, shave=shave),
        "psnr_rgb": min(psnr(sr_rgb, hr_rgb, shave=shave), CEILING),
    }
