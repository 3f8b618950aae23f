"""How models for film are measured: clips that no network saw, three kernels, x264, and what people see beside PSNR."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imagesr.media.images import find_images

KERNELS, CODEC, CRF, FRAMES = ("bicubic", "lanczos", "area"), "libx264", (23.0,), 3
DATA = "IMAGESR_DATA"  # the environment variable that names the folder with `photos/val` and `clips`
CLIPS = (
    *("small_bunny_1080p_30fps.mp4", "VID_1920x1080_cavlc_temporal_direct.264", "sowt-with-video.mov"),
    *("02_cups.mp4", "04_coffee.mp4", "cockatoo_yuv420.mp4"),
)


class Target(NamedTuple):
    """Hold a figure of a film model, and what it should be at most, or at least where `least` is true."""

    name: str
    value: float
    limit: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Say whether the figure is what it should be."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    def __str__(self):
        limit = f"{'≥' if self.least else '≤'} {self.limit:g}"
        return f"{self.name:44}{self.value:>8.2f}   {limit:8}{'met' if self.met else 'missed'}"


def film_clips(folder: Path) -> list[Path]:
    """Return the clips that models for film are measured on; films of held-out photographs are made in `folder`.

    They are made of what lies in the folder that `IMAGESR_DATA` names. Raises ValueError where it names none.
    """
    if not os.environ.get(DATA):
        raise ValueError(
            f"Expected --data with --film, or {DATA}, a folder with photos/val and clips. Received: neither"
        )
    from imagesr.datasets.films import write_films  # heavy, and needed here alone

    data = Path(os.environ[DATA])
    films = write_films(find_images([data / "photos/val"]), folder / "films", FRAMES)
    return [*films, *(data / "clips" / name for name in CLIPS)]


def print_film(records: Sequence[dict]) -> None:
    """Print a row for each model: PSNR-Y, texture and structure beside the first model's, and mesh, flat, flicker.

    Of PSNR-Y it has the mean gain and the worst of a file under a condition, of the mesh the mean and the most.
    Structure is relative to the model's own first record, which is that of detail 0 where it takes a detail.
    """
    width = max(24, *(len(record["model"]) + 2 for record in records))
    titles = ("PSNR-Y", "worst", "TEXTURE", "STRUCTURE", "MESH", "most", "FLAT", "FLICKER")
    print(f"\n{'beside ' + records[0]['model']:{width}}{''.join(f'{title:>10}' for title in titles)}")
    for record in records:
        own = next(other for other in records if other["name"] == record["name"])
        cells = "".join(f"{cell:>10}" for cell in _summary(record, records[0], own))
        print(f"{record['model']:{width}}{cells}".rstrip())


def _summary(record, first, own):
    gains = np.subtract(*(_each(one, "psnr_y") for one in (record, first)))
    cells = [f"{gains.mean():+.2f}", f"{gains.min():+.2f}"]
    for key, other in ("texture", first), ("structure", own):
        cells.append(f"{record[key] / other[key]:.2f}" if other.get(key) else "")
    meshes = _each(record, "mesh")
    cells += [f"{np.mean(meshes):.2f}", f"{max(meshes):.2f}"]
    return cells + [f"{record[key]:.2f}" if key in record else "" for key in ("flat", "flicker")]


def _each(record, key):
    """Return a figure of every file under every condition."""
    return [image[key] for condition in record["conditions"] for image in condition["images"]]


def film_targets(lanczos: dict, faithful: dict | None, own: dict) -> list[Target]:
    """Return what is asked of a film model: from the records of Lanczos, of its detail 0, and of its own detail.

    Two targets compare the model with its detail 0. They are left out where `faithful` is None.
    Flicker is that of clips that were filmed: in those panned across a photograph nothing changes but the place.
    """
    psnr = np.array(_each(own, "psnr_y"))
    filmed = [row["flicker"] for row in own["images"] if "flicker" in row and row["image"] in CLIPS]
    found = [Target("texture, Lanczos = 1", own["texture"] / lanczos["texture"], 0.62)]
    if faithful:
        given_up = float(np.mean(_each(faithful, "psnr_y") - psnr))
        found += [
            Target("structure, detail 0 = 1", own["structure"] / faithful["structure"], 1.08),
            Target("PSNR-Y given up against detail 0, dB", given_up, 0.4),
        ]
    found += [
        Target("worst PSNR-Y over Lanczos, dB", float(np.min(psnr - _each(lanczos, "psnr_y"))), -0.2, True),
        Target("mesh, the most", max(_each(own, "mesh")), 1.5),
    ]
    found += [Target("flat over HR's", own["flat"], 1.1)] if "flat" in own else []
    return found + ([Target("flicker over HR's, filmed clips", float(np.mean(filmed)), 1.1)] if filmed else [])


def print_targets(records: Sequence[dict]) -> list[Target]:
    """Print the targets of the last model, and return them; none where the first is not Lanczos, or has no texture."""
    first, own = records[0], records[-1]
    if first["model"] != "lanczos" or own is first or not all("texture" in record for record in (first, own)):
        return []
    faithful = next(other for other in records if other["name"] == own["name"])
    targets = film_targets(first, None if faithful is own else faithful, own)
    print(f"\ntargets of {own['model']}", *targets, sep="\n")
    return targets
