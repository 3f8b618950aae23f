"""Data sets that are folders: any photographs, any clips, and the benchmarks of the papers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from imagesr.datasets.film import SHOTS, PannedPhoto
from imagesr.datasets.pairs import Pair
from imagesr.errors import InputError
from imagesr.media.containers import FORMATS
from imagesr.media.images import find_images, is_picture
from imagesr.media.source import rgb_frames
from imagesr.scale import Scale

FRAMES_PER_CLIP = 24  # spread over it: neighbouring frames show the same

# name: (pictures, where they come from)
BENCHMARKS = {
    "set5": (5, "the page of Bevilacqua et al. 2012, or the test sets of EDSR, RCAN and others"),
    "set14": (14, "the page of Zeyde et al. 2010, or the test sets of EDSR, RCAN and others"),
    "b100": (100, "BSDS300, the folder images/test: https://www.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/"),
    "urban100": (100, "https://github.com/jbhuang0604/SelfExSR"),
    "kodak24": (24, "https://r0k.us/graphics/kodak/"),
    "manga109": (109, "http://www.manga109.org (on request)"),
    "div2k-val": (100, "https://data.vision.ee.ethz.ch/cvl/DIV2K/ (DIV2K_valid_HR.zip)"),
}


# Where the trees of `imagesr datasets transform` have some of them, with LR for x2 and x4.
_IN_TREES = {"urban100": "test/urban100", "b100": "eval/bsd100"}


def folder(place: Path, scale: Scale, split: str) -> list[Pair]:
    """List the photographs directly inside a folder; both splits are the whole of it."""
    return [Pair(None, file) for file in find_images([place])]


def film(place: Path, scale: Scale, split: str) -> list[Pair]:
    """List films of the photographs directly inside a folder: `SHOTS` of each, one to measure on."""
    shots = SHOTS if split == "train" else 1
    return [Pair(None, PannedPhoto(photo, i)) for photo in find_images([place]) for i in range(shots)]


def benchmark(name: str) -> Callable[[Path, Scale, str], list[Pair]]:
    """Return the data set of a benchmark's HR pictures: the folder, which must be complete, or a tree with it."""
    count, source = BENCHMARKS[name]

    def pairs(place: Path, scale: Scale, split: str) -> list[Pair]:
        if not place.is_dir():
            raise ValueError(
                f"Expected {name} ({count} HR pictures) in {place}. Received: no such folder; it is from {source}"
            )
        if name in _IN_TREES and (pairs := _in_tree(place, _IN_TREES[name], scale)):
            return pairs
        found = sorted(filter(is_picture, place.iterdir()))  # that it has none is told with the benchmark's name, too
        if len(found) != count:
            raise ValueError(f"Expected the {count} HR pictures of {name} in {place}. Received: {len(found)}")
        return [Pair(None, file) for file in found]

    return pairs


def _in_tree(place, name, scale):
    """Return a benchmark's pairs in a tree, whose numbers were checked; at scales without LR, HR alone."""
    if not (paired := place / f"{name}_x{scale}").is_dir():
        hr = place / f"{name}_x2/hr"
        return [Pair(None, picture) for picture in find_images([hr])] if hr.is_dir() else []
    return [Pair(paired / "lr" / f"{hr.stem}.png", hr) for hr in find_images([paired / "hr"])]


def clips(place: Path, scale: Scale, split: str) -> list[Pair]:
    """Take frames out of the video files directly inside a folder, spread over each clip.

    Raises ValueError for a folder without videos, and for a video that cannot be read.
    """
    files = sorted(f for f in place.iterdir() if is_picture(f, FORMATS)) if place.is_dir() else []
    if not files:
        raise ValueError(f"Expected a folder with videos ({', '.join(FORMATS)}). Received: {place}")
    try:
        return [Pair(None, frame) for file in files for frame in rgb_frames(file, FRAMES_PER_CLIP)]
    except InputError as error:
        raise ValueError(str(error)) from None
