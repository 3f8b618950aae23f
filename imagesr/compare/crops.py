"""Where two pictures differ most."""

from __future__ import annotations

import numpy as np


def worst_window(squares: np.ndarray, side: int) -> tuple[slice, slice]:
    """Return the window of `side` pixels, or of the picture's size, with the largest sum of squared errors (H, W)."""
    height, width = (min(side, n) for n in squares.shape)
    sums = np.pad(squares.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # so that a window's sum is that of four corners
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    y, x = (int(n) for n in np.unravel_index(windows.argmax(), windows.shape))
    return slice(y, y + height), slice(x, x + width)
