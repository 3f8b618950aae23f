"""(LR, HR) pairs in memory, and random batches of crops out of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np

from imagesr.images import degrade, read_rgb, resize
from imagesr.metrics import luma
from imagesr.scale import Scale

Pair = tuple[np.ndarray, np.ndarray]  # LR and HR luma, uint8 (H, W)


def load_pairs(paths: Iterable[Path], scale: Scale, *, sizes: Sequence[float] = (1.0,), patch: int = 0) -> list[Pair]:
    """Read the pictures, each at every one of the relative `sizes`, into memory once.

    A reduced picture is as good as a new one: its detail is finer per pixel. Those with a side under `patch`
    HR pixels are left out, but a picture that is too small at its own size raises ValueError.
    """

    def read(path):
        rgb = read_rgb(path)
        if min(rgb.shape[:2]) < patch:
            raise ValueError(f"Expected pictures of at least {patch} pixels a side. Received: {path} {rgb.shape[:2]}")
        shapes = [(s, *(round(n * s) for n in rgb.shape[:2])) for s in sizes]
        shown = [rgb if s == 1 else resize(rgb, (w, h)) for s, h, w in shapes if min(h, w) >= patch]
        return [tuple(luma(side) for side in degrade(picture, scale)) for picture in shown]

    with ThreadPoolExecutor() as pool:
        return [pair for pairs in pool.map(read, paths) for pair in pairs]


class RandomCrops(keras.utils.PyDataset):
    """Yield batches of aligned random crops (LR, HR), float32 NHWC in [0, 1], HR `patch` pixels a side.

    Every crop is one of the eight flips and turns. A batch is drawn from (seed, `epoch`, its index) alone, so that a
    resumed run that sets `epoch` draws what an uninterrupted one would.
    """

    epoch = 0

    def __init__(self, pairs: Sequence[Pair], scale: Scale, *, batch: int, patch: int, steps: int, seed: int):
        super().__init__()
        if patch % scale.up:
            raise ValueError(f"Expected a patch that is a multiple of {scale.up} at scale {scale}. Received: {patch}")
        self.pairs, self.scale, self.batch, self.patch, self.steps, self.seed = pairs, scale, batch, patch, steps, seed

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        rng = np.random.default_rng((self.seed, self.epoch, index))
        lr, hr = zip(*(self._crop(rng) for _ in range(self.batch)), strict=True)
        return tuple(np.stack(side)[..., np.newaxis].astype(np.float32) / 255 for side in (lr, hr))

    def on_epoch_end(self):
        self.epoch += 1

    def _crop(self, rng):
        lr, hr = self.pairs[rng.integers(len(self.pairs))]
        up, down = self.scale.up, self.scale.down
        cells = self.patch // up  # the grid on which LR and HR pixels meet
        y, x = (rng.integers(n // up - cells + 1) for n in hr.shape)
        lr = lr[y * down :, x * down :][: cells * down, : cells * down]
        hr = hr[y * up :, x * up :][: cells * up, : cells * up]
        turns, flip = rng.integers(4), rng.integers(2)
        return tuple(np.rot90(plane[:, ::-1] if flip else plane, turns) for plane in (lr, hr))
