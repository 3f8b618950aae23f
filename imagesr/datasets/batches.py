"""A data set as batches that Keras trains and validates on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from imagesr.datasets import DATASETS
from imagesr.datasets.crops import CROPS, RandomCrops, as_batch, crop_side, fixed_crops
from imagesr.datasets.degradations import Degradation
from imagesr.datasets.pairs import SIZES, load_pairs
from imagesr.scale import Scale

if TYPE_CHECKING:
    import tensorflow as tf

PATCH = 96  # HR pixels a side of a crop to train on
SPLITS = ("train", "val")


class Batches(keras.utils.PyDataset):
    """Yield batches of random crops, `steps` an epoch. An epoch goes on where the last one ended."""

    def __init__(self, crops: RandomCrops, steps: int):
        super().__init__()
        self.crops, self.steps, self.first = crops, steps, 0

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        return self.crops.numbered(self.first + index)

    def on_epoch_end(self):
        """Go on to the steps of the next epoch."""
        self.first += self.steps


class FixedBatches(keras.utils.PyDataset):
    """Yield the same batches in every epoch."""

    def __init__(self, batches: Sequence[tuple]):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def load_batches(
    name: str,
    folder: str | Path,
    *,
    scale: Scale | float | str,
    split: str,
    patch: int | None,
    batch: int,
    channels: int,
    degrade: Sequence[str],
    steps: int,
    seed: int,
) -> tf.data.Dataset | keras.utils.PyDataset:
    """Return what `imagesr.datasets.load` returns, whose arguments these are."""
    scale = Scale.parse(scale)
    if name not in DATASETS:
        raise ValueError(f"Expected a data set ({', '.join(DATASETS)}). Received: {name}")
    if split not in SPLITS:
        raise ValueError(f"Expected a split, train or val. Received: {split}")
    if channels not in (1, 3):
        raise ValueError(f"Expected 1 channel (luma) or 3 (RGB). Received: {channels}")
    if min(batch, steps) < 1:
        raise ValueError(f"Expected a batch and steps of at least 1. Received: {batch}, {steps}")
    degradation = Degradation.parse(degrade)
    pairs = DATASETS[name](Path(folder), scale, split)
    read = {"channels": channels, "degradation": degradation, "colour": split == "train" and channels == 3}
    if split == "val":
        side = (patch or crop_side(scale),) * 2
        loaded = load_pairs(pairs, scale, **read)
        return _fixed(fixed_crops(loaded, scale, size=side, most=CROPS, degradation=degradation), batch)
    side = (PATCH - PATCH % scale.up if patch is None else patch,) * 2
    loaded = load_pairs(pairs, scale, size=side, sizes=SIZES, **read)
    crops = RandomCrops([(loaded, 1)], scale, batch=batch, size=side, steps=steps, degradation=degradation, seed=seed)
    batches = Batches(crops, steps)
    if keras.backend.backend() != "tensorflow":
        return batches
    from imagesr.datasets.tfdata import epochs

    return epochs(batches)


def _fixed(crops, size):
    """Return fixed crops as batches of up to `size` crops of one shape."""
    shapes = dict.fromkeys(lr.shape for lr, _ in crops)
    alike = [[crop for crop in crops if crop[0].shape == shape] for shape in shapes]
    parts = [group[i : i + size] for group in alike for i in range(0, len(group), size)]
    batches = [tuple(as_batch(side) for side in zip(*part, strict=True)) for part in parts]
    if keras.backend.backend() != "tensorflow":
        return FixedBatches(batches)
    from imagesr.datasets.tfdata import fixed

    return fixed(batches)
