"""PSNR and SSIM between two pictures, by the protocol of the super-resolution papers, and the spectrum of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

CEILING = 100.0  # dB
BANDS = (25, 50, 75, 100)  # upper ends of the spectrum's bands, in percent of the highest frequency


def _shaved(a, b, shave):
    if a.shape != b.shape:
        raise ValueError(f"Expected two pictures of one size. Received: {a.shape} and {b.shape}")
    inside = (slice(shave, -shave or None),) * 2
    return a[inside].astype(np.float64), b[inside].astype(np.float64)


def psnr(
    sr: np.ndarray, hr: np.ndarray, *, shave: int = 0, peak: float = 255, where: np.ndarray | None = None
) -> float:
    """Return the peak signal-to-noise ratio in dB without `shave` border pixels; inf for equal pictures.

    `where`, bool (H, W), selects the pixels of two planes that count; at least one must.
    """
    sr, hr = _shaved(sr, hr, shave)
    counted = True if where is None else where[shave : -shave or None, shave : -shave or None]
    error = np.mean((sr - hr) ** 2, where=counted)
    return float(10 * np.log10(peak**2 / error)) if error else float("inf")


def ssim(sr: np.ndarray, hr: np.ndarray, *, shave: int = 0, peak: float = 255) -> float:
    """Return the mean structural similarity of two planes without `shave` border pixels.

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

    PSNR is limited to 100 dB, so that a black frame, which is upscaled without error, does not make the mean infinite.
    """
    return {
        "psnr_y": min(psnr(sr, hr, shave=shave), CEILING),
        "ssim_y": ssim(sr, hr, shave=shave),
        "psnr_rgb": min(psnr(sr_rgb, hr_rgb, shave=shave), CEILING),
    }


def spectrum_ratios(sr: np.ndarray, hr: np.ndarray, *, shave: int = 0) -> dict[str, float]:
    """Return the power of SR over that of HR in four bands of frequencies, `spectrum_25` to `spectrum_100`.

    The inputs are two luma planes, 0 to 255; powers are means over all directions (Hann window). A ratio below 1 means
    that detail of the band is lost, above 1 that it has texture that is not in HR. LR at x4 contains only the first
    band, at x2 the first two. The power of rounding to 8 bits is added to both, so that flat pictures give 1.
    """
    sr, hr = _shaved(sr, hr, shave)
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in hr.shape))
    rounding = np.sum(window**2) / 12
    frequencies = np.hypot(np.fft.fftfreq(hr.shape[0])[:, np.newaxis], np.fft.rfftfreq(hr.shape[1]))
    powers = [np.abs(np.fft.rfft2((plane - plane.mean()) * window)) ** 2 for plane in (sr, hr)]
    ratios = {}
    for low, high in zip((0, *BANDS), BANDS, strict=False):
        inside = (frequencies > low / 200) & (frequencies <= high / 200)
        ratios[f"spectrum_{high}"] = float(np.divide(*(power[inside].mean() + rounding for power in powers)))
    return ratios


def means(rows: Sequence[Mapping], keys: Iterable[str]) -> dict[str, float]:
    """Return the mean of every figure over the rows that have it; spectrum ratios get the geometric mean."""
    columns = {key: [row[key] for row in rows if key in row] for key in keys}
    return {
        key: float(np.exp(np.mean(np.log(values))) if key.startswith("spectrum_") else np.mean(values))
        for key, values in columns.items()
        if values
    }
