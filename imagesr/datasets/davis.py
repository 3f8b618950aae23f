"""DAVIS: short sequences of real video (Perazzi et al. 2016, Pont-Tuset et al. 2017)."""

from __future__ import annotations

from pathlib import Path

from imagesr.datasets.pairs import Pair
from imagesr.media.images import find_images
from imagesr.scale import Scale

SOURCE = "https://davischallenge.org (DAVIS-2017-trainval-480p.zip or …-Full-Resolution.zip)"


def davis(place: Path, scale: Scale, split: str) -> list[Pair]:
    """List the frames of the sequences of one split, in the official layout, `JPEGImages/{Full-Resolution,480p}`.

    The splits are those of `ImageSets/2017`; without these lists every fifth sequence, by name, is for validation. A
    sequence is never on both sides. `tfds` takes it from tensorflow-datasets. Raises ValueError where it is missing.
    """
    if str(place) == "tfds":
        from imagesr.datasets.tfds import load

        examples = load("davis/480p", {"train": "train", "val": "validation"}[split], SOURCE)
        return [Pair(None, frame) for example in examples for frame in example["video"]["frames"]]
    frames = next((f for size in ("Full-Resolution", "480p") if (f := place / "JPEGImages" / size).is_dir()), None)
    if frames is None:
        raise ValueError(f"Expected DAVIS in {place}. Received: no folder JPEGImages/480p there; it is from {SOURCE}")
    sequences = sorted(f.name for f in frames.iterdir() if f.is_dir())
    names = place / "ImageSets" / "2017" / f"{split}.txt"
    if names.is_file():
        chosen = names.read_text("utf-8").split()
    else:
        held_out = sequences[::-5]  # from the last one back, so that there is one however few they are
        chosen = [name for name in sequences if (name in held_out) == (split == "val")]
    if not chosen:
        raise ValueError(
            f"Expected sequences of DAVIS to {split} in {frames}. Received: {', '.join(sequences) or 'none'}"
        )
    return [Pair(None, file) for name in chosen for file in find_images([frames / name])]
