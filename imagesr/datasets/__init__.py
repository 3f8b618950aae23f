"""Training data: `DATASETS` maps a name to the function that lists a folder's (LR, HR) pairs.

`load` returns a data set as Keras trains on it. `pairs` reads pairs into memory, `crops` cuts batches, `degradations`
makes LR of HR, `batches` and `tfdata` feed Keras. `verify` and `leaks` check folders. Only `tfdata` imports TensorFlow,
and only `leaks` OpenCV.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from imagesr.datasets.davis import davis
from imagesr.datasets.div2k import div2k, flickr2k
from imagesr.datasets.folders import BENCHMARKS, benchmark, clips, film, folder
from imagesr.models import import_keras
from imagesr.scale import Scale

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# Each takes the folder, the scale and the split, "train" or "val".
DATASETS = {
    "folder": folder,
    "clips": clips,
    "film": film,
    "div2k": div2k,
    "flickr2k": flickr2k,
    "davis": davis,
    **{name: benchmark(name) for name in BENCHMARKS},
}


class DataSource(NamedTuple):
    """Name a data set, its folder, and its weight, the relative frequency of its crops; None is one per picture."""

    name: str
    place: Path
    weight: float | None = None

    @classmethod
    def parse(cls, text: str) -> DataSource:
        """Read `NAME=DIR`, `NAME=DIR@WEIGHT`, or a mere folder of photographs; raises ValueError.

        A folder that exists is taken by its whole name, also where this has `=` or ends in `@NUMBER`.
        """
        name, equals, place = text.partition("=")
        if not equals or (name not in DATASETS and _weighed(text)[0].is_dir()):
            name, place = "folder", text
        if name not in DATASETS:
            raise ValueError(f"Expected NAME=DIR with a data set ({', '.join(DATASETS)}). Received: {text}")
        path, weight = _weighed(place)
        if weight is not None and not weight > 0:
            raise ValueError(f"Expected a weight above 0 behind the @. Received: {text}")
        return cls(name, path, weight)

    def absolute(self) -> DataSource:
        """Return the same data set with an absolute folder; `tfds` stays as it is."""
        return self if str(self.place) == "tfds" else self._replace(place=self.place.absolute())

    def __str__(self):
        return f"{self.name}={self.place}" + ("" if self.weight is None else f"@{self.weight:g}")


def _weighed(text):
    """Return a folder and the weight behind its @, or None."""
    path, _, number = text.rpartition("@")
    if not path or Path(text).is_dir():
        return Path(text), None
    try:
        return Path(path), float(number)
    except ValueError:  # a folder with an @ in its name
        return Path(text), None


def load(
    name: str,
    folder: str | Path,
    *,
    scale: Scale | float | str = 2,
    split: str = "train",
    patch: int | None = None,
    batch: int = 16,
    channels: int = 3,
    degrade: Sequence[str] = ("kernel=bicubic",),
    steps: int = 500,
    seed: int = 0,
) -> tf.data.Dataset | keras.utils.PyDataset:
    """Load a data set as batches of pairs (LR, HR), float32 NHWC in [0, 1].

    Example:
        train = imagesr.datasets.load("div2k", "DIV2K", scale=2, split="train", patch=96, batch=16)
        val = imagesr.datasets.load("set5", "Set5", scale=2, split="val")

    Args:
        name: A key of `DATASETS`; "folder" is any folder of photographs.
        folder: Where the data set is; "tfds" downloads div2k and davis by tensorflow-datasets.
        scale: Factor from LR to HR.
        split: "train" gives random crops, rotated and flipped. "val" gives at most 48 fixed crops; the last batches may
            be smaller, and their crops too, where pictures are.
        patch: Side of a crop in HR pixels. None is 96 to train on and 192 to validate on.
        batch: Crops in a batch.
        channels: 3 for RGB, 1 for luma.
        degrade: How LR is made of HR, the steps of `--degrade`. LR files are used where there are some and this is as
            it is by default.
        steps: Batches in an epoch of training. Every epoch has new crops.
        seed: Of the random crops. A batch depends on the seed and on its number, counted over the epochs, alone. On JAX
            and PyTorch, Keras's own `fit` may read one epoch ahead to see the shapes; `imagesr.train.fit` does not.

    Returns:
        A tf.data.Dataset on Keras's TensorFlow backend, a keras.utils.PyDataset on the others.

    Raises:
        ValueError: For an unknown name, missing or unsuitable pictures, and a patch that does not suit the scale.
    """
    import_keras()
    from imagesr.datasets.batches import load_batches

    return load_batches(
        name,
        folder,
        scale=scale,
        split=split,
        patch=patch,
        batch=batch,
        channels=channels,
        degrade=degrade,
        steps=steps,
        seed=seed,
    )
