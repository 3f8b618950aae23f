"""Training data: `DATASETS` maps a name to the function that lists a folder's (LR, HR) pairs.

`pairs` reads them into memory, `crops` cuts batches, `degradations` makes LR of HR, `tfdata` feeds TensorFlow. `verify`
and `leaks` check folders. Only `tfdata` imports TensorFlow, and only `leaks` OpenCV.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from imagesr.datasets.davis import davis
from imagesr.datasets.div2k import div2k, flickr2k
from imagesr.datasets.folders import BENCHMARKS, benchmark, clips, film, folder

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
        """Read `NAME=DIR`, `NAME=DIR@WEIGHT`, or a mere folder of photographs; raises ValueError."""
        name, equals, place = text.partition("=")
        if not equals:
            name, place = "folder", text
        if name not in DATASETS:
            raise ValueError(f"Expected NAME=DIR with a data set ({', '.join(DATASETS)}). Received: {text}")
        path, _, number = place.rpartition("@")
        try:
            weight = float(number) if path else None
        except ValueError:  # a folder with an @ in its name
            path, weight = "", None
        if weight is not None and not weight > 0:
            raise ValueError(f"Expected a weight above 0 behind the @. Received: {text}")
        return cls(name, Path(path or place), weight)

    def absolute(self) -> DataSource:
        """Return the same data set with an absolute folder; `tfds` stays as it is."""
        return self if str(self.place) == "tfds" else self._replace(place=self.place.absolute())

    def __str__(self):
        return f"{self.name}={self.place}" + ("" if self.weight is None else f"@{self.weight:g}")
