"""Where training pairs come from: `DATASETS`, from a name to the function that lists a folder's pairs."""

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


class Source(NamedTuple):
    """Name a data set, where it lies, and its weight: how often it is drawn from; None for once per picture."""

    name: str
    place: Path
    weight: float | None = None

    @classmethod
    def parse(cls, text: str) -> Source:
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

    def __str__(self):
        return f"{self.name}={self.place}" + ("" if self.weight is None else f"@{self.weight:g}")
