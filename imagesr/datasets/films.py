"""Films of photographs as lossless clips, to measure on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from imagesr.datasets.film import camera
from imagesr.datasets.pairs import shape
from imagesr.files import whole
from imagesr.media.clips import write_clip
from imagesr.media.images import read_rgb


def write_films(
    photos: Sequence[Path], folder: Path, frames: int, progress: Callable[[Iterable], Iterable] = iter
) -> list[Path]:
    """Write a lossless clip of `frames` frames of every photograph into a new folder, and return the files.

    Raises ValueError for photographs that are too small, and for two of one name.
    """
    # A seventh of the photograph is left for the camera to move; multiples of 24 suit every scale.
    sizes = {photo: tuple(n * 6 // 7 // 24 * 24 for n in shape(photo)) for photo in photos}
    for photo, size in sizes.items():
        if not all(size):
            raise ValueError(f"Expected photographs of at least 28 pixels a side. Received: {photo}")
    if len({photo.stem for photo in photos}) < len(photos):
        raise ValueError(f"Expected photographs of different names, endings aside. Received: {photos[0].parent}")
    folder.mkdir(parents=True)
    for number, photo in enumerate(progress(photos)):
        pictures = camera(read_rgb(photo), sizes[photo], frames, np.random.default_rng(number))
        with whole(folder / f"{photo.stem}.mp4") as part:
            write_clip(part, map(Image.fromarray, pictures), 25, crf=0)
    return [folder / f"{photo.stem}.mp4" for photo in photos]
