"""Crops of loaded pairs: random batches for training, fixed crops for validation."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from imagesr.datasets.degradations import Degradation
from imagesr.depth.maps import as_channels, near_edges
from imagesr.scale import Scale

MARGIN = 8  # LR pixels around a crop that is degraded by itself: as far as kernels, blurs and deblocking reach
CROP, CROPS = 192, 48  # of the fixed crops: HR pixels a side, and the number


class RandomCrops(keras.utils.PyDataset):
    """Yield batches of aligned random crops (LR, HR), float32 NHWC in [0, 1], HR of `size` (height, width).

    `sets` are lists of loaded pairs with their weights, the relative frequencies at which they are drawn. Square crops
    are rotated and flipped in one of eight ways, others in one of four. A batch depends on the seed and its number in
    the run alone, so a run of `steps` that goes on at `start` draws the batches of an uninterrupted run. `curriculum`
    is the share of `steps` over which degradations rise from never to their full frequency.

    Pairs with depth maps give ((LR, depth), HR), depth as `maps.as_channels` returns it. In a share of `depth_dropout`
    of the crops all depth is missing, so that a network learns to do without. With an `edge_weight` other than 1, HR
    has one channel more for `losses.at_edges`: that weight where depth jumps, and 1 elsewhere.

    With `clean`, pairs are (LR, HR, lost), and batches ((LR, lost), HR): how much was lost, from 0 to 1, of each crop.
    """

    def __init__(
        self,
        sets: Sequence[tuple[Sequence, float]],
        scale: Scale,
        *,
        batch: int,
        size: tuple[int, int],
        steps: int,
        degradation: Degradation | None = None,
        seed: int = 0,
        curriculum: float = 0.0,
        depth_dropout: float = 0.0,
        edge_weight: float = 1.0,
        clean: bool = False,
    ):
        super().__init__()
        if any(n % scale.up for n in size):
            raise ValueError(f"Expected a patch that is a multiple of {scale.up} at scale {scale}. Received: {size[0]}")
        self.sets, self.scale, self.batch, self.size = [pairs for pairs, _ in sets], scale, batch, size
        self.shares = np.array([weight for _, weight in sets]) / sum(weight for _, weight in sets)
        self.start, self.steps = 0, steps
        self.degradation, self.seed = degradation or Degradation(), seed
        self.easy = curriculum * steps
        self.depth_dropout, self.edge_weight, self.clean = depth_dropout, edge_weight, clean

    def __len__(self):
        return self.steps - self.start

    def __getitem__(self, index):
        return self.numbered(self.start + index)

    def numbered(self, step: int) -> tuple[np.ndarray | tuple[np.ndarray, np.ndarray], np.ndarray]:
        """Return the batch of one step of the run."""
        random = np.random.default_rng((self.seed, step))
        share = min(1.0, step / self.easy) if self.easy else 1.0
        lr, hr, *more = zip(*(self._crop(random, share) for _ in range(self.batch)), strict=True)
        lr, hr = as_batch(lr), as_batch(hr)
        if self.clean:
            return (lr, np.array(more[0], np.float32)), hr
        if not more:
            return lr, hr
        if self.edge_weight != 1:
            times = [np.where(near_edges(crop, self.scale.up), self.edge_weight, 1) for crop in more[0]]
            hr = np.concatenate([hr, np.stack(times)[..., np.newaxis]], -1, dtype=np.float32)
        guide = as_channels(np.stack(more[0]))
        return (lr, guide * (random.random((self.batch, 1, 1, 1)) >= self.depth_dropout).astype(np.float32)), hr

    def _crop(self, random, share):
        pairs = self.sets[random.choice(len(self.sets), p=self.shares) if len(self.sets) > 1 else 0]
        lr, hr, *more = pairs[random.integers(len(pairs))]
        lost = [more.pop()] if self.clean else []
        up, down = self.scale.up, self.scale.down
        cells = [n // up for n in self.size]  # the grid on which LR and HR pixels meet
        corner = [random.integers(n // up - c + 1) for n, c in zip(hr.shape[:2], cells, strict=True)]
        depth = [_cut(plane, corner, cells, up) for plane in more]
        if lr is None:
            # Degraded with a margin around it, so that it looks as if cut out of the degraded picture.
            margin = -(-MARGIN // down)
            first = [max(0, c - margin) for c in corner]
            window = tuple(slice(f * up, (c + n + margin) * up) for f, c, n in zip(first, corner, cells, strict=True))
            lr, hr, own = self.degradation.measured(hr[window], self.scale, random, share)
            lost = [own] if self.clean else []
            corner = [c - f for c, f in zip(corner, first, strict=True)]
        lr, hr = _cut(lr, corner, cells, down), _cut(hr, corner, cells, up)
        rotations = random.integers(4) if self.size[0] == self.size[1] else 2 * random.integers(2)
        flip = random.integers(2)
        return (*(np.rot90(side[:, ::-1] if flip else side, rotations) for side in (lr, hr, *depth)), *lost)


def _cut(picture, corner, cells, side):
    """Cut a crop at a corner out of a picture, both in cells of `side` pixels a side."""
    return picture[tuple(slice(c * side, (c + n) * side) for c, n in zip(corner, cells, strict=True))]


def as_batch(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Stack uint8 pictures, (H, W) or (H, W, 3), into a float32 NHWC batch in [0, 1]."""
    batch = np.stack(pictures)
    return (batch if batch.ndim == 4 else batch[..., np.newaxis]).astype(np.float32) / 255


def crop_side(scale: Scale) -> int:
    """Return the side of a fixed crop in HR pixels: near `CROP`, and even in LR pixels."""
    return CROP - CROP % (2 * scale.up)


def fixed_crops(
    pairs: Sequence,
    scale: Scale,
    *,
    size: tuple[int, int],
    most: int,
    degradation: Degradation | None = None,
    clean: bool = False,
) -> list[tuple[np.ndarray, ...]]:
    """Cut the same crops out of loaded pairs every time: up to four a picture, `most` in all, as uint8 (LR, HR).

    A picture smaller than `size` (height, width in HR pixels) gives one crop of what it has. Pairs with depth maps give
    (LR, HR, map), those with `clean` (LR, HR, lost).
    """
    up, down = scale.up, scale.down
    crops = []
    # Pictures spread over the whole set, where there are more than crops.
    for index in np.unique(np.linspace(0, len(pairs) - 1, min(most, len(pairs))).astype(int)):
        lr, hr, *more = pairs[index]
        if lr is None:
            lr, hr, own = degradation.measured(hr, scale, np.random.default_rng(int(index)))
            more = [own] if clean else []
        cells = [min(n // up, s // up) // 2 * 2 for n, s in zip(hr.shape[:2], size, strict=True)]
        free = [n // up - c for n, c in zip(hr.shape[:2], cells, strict=True)]
        shares = ((1, 1), (3, 3), (1, 3), (3, 1)) if max(free) >= 4 else ((2, 2),)
        for shift in shares[: max(1, most // len(pairs))]:
            corner = [r * s // 4 for r, s in zip(free, shift, strict=True)]
            sides = (hr,) if clean else (hr, *more)
            cut = (_cut(side, corner, cells, up) for side in sides)
            crops.append((_cut(lr, corner, cells, down), *cut, *(more if clean else ())))
    return crops
