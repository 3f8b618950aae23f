"""What people see and PSNR does not: texture, structure, a mesh, grit on flat areas, flicker."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from imagesr.scale import Scale

PATCH = 96  # pixels a side, of what texture is compared over
FLAT = 2.0  # codes: the standard deviation below which an area is flat
_BLOCK = 16  # pixels a side, of what may be flat
_FEW = 8  # fewer flat blocks say nothing
_BATCH = 32  # patches that go through the network together
# Variances below a hundredth of what features are scaled to say nothing about texture; the floor lets them agree.
_FLOOR = 1e-2
_NEAR, _FAR = 4, 12  # bins of the spectrum around a period that it is compared with
_LOST = 1.0  # pixels: where flow there and back differ by more, something was hidden


class Texture:
    """Compare luma planes over the features of a network from RGB in [0, 1] to feature maps.

    DISTS's two terms (arXiv 2004.07728, equations 5 and 6) without its learnt weights, over patches of 96 pixels, each
    a mean over channels, then over maps. `texture` is 1 − 2σxσy/(σx² + σy²): how far the strength of what is there
    is from HR's. `structure` is 1 − 2σxy/(σx² + σy²): how far it lies from where HR has it, which punishes invention.
    """

    def __init__(self, network: Callable):
        self._network = network

    def __call__(self, sr: np.ndarray, hr: np.ndarray) -> dict[str, float]:
        """Return `texture` and `structure`, 0 for equal planes, of uint8 planes (H, W) of at least 96 pixels a side."""
        pairs = zip(*(_batches(_blocks(plane, PATCH)) for plane in (hr, sr)), strict=True)
        texture, structure = np.concatenate([self._patches(*pair) for pair in pairs], 1).mean(1)
        return {"texture": float(texture), "structure": float(structure)}

    def _patches(self, hr, sr):
        grey = np.concatenate([hr, sr])[..., np.newaxis].astype(np.float32) / 255
        maps = [np.asarray(features) for features in self._network(np.repeat(grey, 3, -1))]
        return np.mean([_terms(features) for features in maps], 0)


def _terms(features):
    """Return (2, N), the texture and structure terms of N patches whose features follow those of N others."""
    x, y = np.split(features.reshape(len(features), -1, features.shape[-1]), 2)
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    of_x, of_y, both = (x * x).mean(1), (y * y).mean(1), (x * y).mean(1)
    total = of_x + of_y + _FLOOR
    return np.stack([(1 - (2 * shared + _FLOOR) / total).mean(1) for shared in (np.sqrt(of_x * of_y), both)])


def cells(scale: Scale) -> list[int]:
    """Return the periods in pixels of a mesh, for networks at half resolution: a cell, and half of an even one."""
    cell = 2 * scale.up // scale.down
    return [cell, cell // 2] if cell % 2 == 0 and cell > 2 else [cell]


def mesh(plane: np.ndarray, periods: Sequence[int]) -> float:
    """Return how far the spectrum stands out at the periods of a network's cells, in pixels: about 1 without a mesh.

    It is the power at a period along rows, averaged over the plane (H, W) behind a Hann window, over the median of its
    neighbours 4 to 12 bins away; the largest of the periods, and of rows and columns. `depth_to_space` draws such a
    mesh where the phases of a cell differ.
    """
    found = []
    for lines in (plane, plane.T):
        for period in periods:
            length = lines.shape[1] // (2 * period) * 2 * period  # so that the period is one whole bin
            cut = lines[:, :length].astype(np.float32)
            cut = (cut - cut.mean(1, keepdims=True)) * np.hanning(length).astype(np.float32)
            power = np.mean(np.abs(np.fft.rfft(cut, axis=1)) ** 2, 0)
            at = length // period
            around = np.r_[power[max(0, at - _FAR) : at - _NEAR + 1], power[at + _NEAR : at + _FAR + 1]]
            found.append(power[at] / max(np.median(around), 1e-9))
    return float(max(found))


def flat(sr: np.ndarray, hr: np.ndarray) -> float | None:
    """Return the variance of SR over that of HR where HR is flat: above 1 is grit. None where next to nothing is.

    Flat is a block of 16 pixels a side of luma with a standard deviation below 2 codes. A twelfth of a code, the
    variance of rounding, is added to both.
    """
    of_hr, of_sr = (_blocks(plane, _BLOCK).astype(np.float32).var((1, 2)) for plane in (hr, sr))
    if (where := of_hr < FLAT**2).sum() < _FEW:
        return None
    return float((of_sr[where].mean() + 1 / 12) / (of_hr[where].mean() + 1 / 12))


class Flicker:
    """Compare how much a film's frames differ from the frame before, moved along HR's flow, with what HR's do.

    What was hidden in the frame before, where flow there and back disagree, is left out.
    """

    def __init__(self):
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        self._sr = self._hr = 0.0

    def add(self, sr: np.ndarray, hr: np.ndarray) -> None:
        """See the next frame: uint8 luma planes (H, W)."""
        now = np.array(sr), np.array(hr)
        if self._before:
            flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
            back = flow.calc(now[1], self._before[1], None)
            there = flow.calc(self._before[1], now[1], None)
            seen = np.abs(back + _moved(there, back)).sum(-1) < _LOST
            self._sr, self._hr = (
                total + float(np.mean(np.abs(after - _moved(before.astype(np.float32), back)), where=seen))
                for total, before, after in zip((self._sr, self._hr), self._before, now, strict=True)
            )
        self._before = now

    def figure(self) -> float | None:
        """Return SR's difference over HR's; None where HR stands still, and all is nothing."""
        return self._sr / self._hr if self._hr > 1e-3 else None


def _moved(picture, flow):
    """Return a picture as it lies after `flow`, which says for each pixel where it was."""
    rows, columns = np.indices(flow.shape[:2], np.float32)
    return cv2.remap(picture, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR)


def _blocks(plane, side):
    """Cut a plane into (N, side, side); what is left over at the right and below is left out."""
    rows, columns = (n // side for n in plane.shape)
    cut = plane[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return cut.transpose(0, 2, 1, 3).reshape(-1, side, side)


def _batches(patches):
    return [patches[i : i + _BATCH] for i in range(0, len(patches), _BATCH)]
