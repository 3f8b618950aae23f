"""DIV2K and Flickr2K: 2K photographs, HR and their reductions (Agustsson and Timofte 2017, NTIRE)."""

from __future__ import annotations

from pathlib import Path

from imagesr.datasets.pairs import Pair
from imagesr.media.images import find_images
from imagesr.scale import Scale

DIV2K = "https://data.vision.ee.ethz.ch/cvl/DIV2K/ (DIV2K_train_HR.zip, DIV2K_valid_HR.zip, …_LR_bicubic_X2.zip)"
FLICKR2K = "https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar"


def div2k(place: Path, scale: Scale, split: str) -> list[Pair]:
    """Pair HR with `LR_bicubic` in the official folders; at scales without one, and where it is missing, HR alone.

    `place` holds `DIV2K_train_HR`, `DIV2K_valid_HR`, `DIV2K_train_LR_bicubic/X2` …, or it is a tree of
    `imagesr datasets transform`; `tfds` takes it from tensorflow-datasets, which downloads it on first use. Raises
    ValueError where it is missing or incomplete.
    """
    if str(place) == "tfds":
        return _from_tfds(scale, split)
    if (tree := place / "div2k" / {"train": "train", "val": "validation"}[split]).is_dir():
        return [Pair(None, hr) for hr in find_images([tree])]
    part = {"train": "train", "val": "valid"}[split]
    return _official(place, f"DIV2K_{part}_HR", f"DIV2K_{part}_LR_bicubic", scale, "DIV2K", DIV2K)


def flickr2k(place: Path, scale: Scale, split: str) -> list[Pair]:
    """Pair HR with `LR_bicubic` in Flickr2K's own folders, `Flickr2K_HR` and `Flickr2K_LR_bicubic/X2` …; one split."""
    return _official(place, "Flickr2K_HR", "Flickr2K_LR_bicubic", scale, "Flickr2K", FLICKR2K)


def _official(place, hr_folder, lr_folder, scale, name, source):
    if not (place / hr_folder).is_dir():
        raise ValueError(f"Expected {name} in {place}. Received: no folder {hr_folder} there; it is from {source}")
    factor = str(scale)
    lr_place = place / lr_folder / f"X{factor}"
    pairs = []
    for hr in find_images([place / hr_folder]):
        lr = lr_place / f"{hr.stem}x{factor}{hr.suffix}"
        if lr_place.is_dir() and not lr.is_file():
            raise ValueError(f"Expected the LR of {hr} in {lr}. Received: no such file")
        pairs.append(Pair(lr if lr_place.is_dir() else None, hr))
    return pairs


def _from_tfds(scale, split):
    from imagesr.datasets.tfds import load

    has_lr = str(scale) in ("2", "3", "4")
    examples = load(f"div2k/bicubic_x{scale if has_lr else 2}", {"train": "train", "val": "validation"}[split], DIV2K)
    return [Pair(example["lr"] if has_lr else None, example["hr"]) for example in examples]
