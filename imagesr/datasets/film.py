"""Short films of photographs, as a camera that pans across them would record them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from imagesr.datasets.degradations import Degradation
from imagesr.media.images import read_rgb
from imagesr.pixels import luma
from imagesr.scale import Scale

SHOTS = 4  # of every photograph
FRAMES, KEPT = 8, 2  # of a shot: encoded, and kept; neighbours show much the same
WINDOW = (320, 480)  # LR pixels at most, in whole macroblocks
MACROBLOCK = 16
SPEED, ZOOM, SHAKE = 6.0, 0.01, 0.7  # at most: HR pixels per frame; share of the window per frame; HR pixels


class PannedPhoto(NamedTuple):
    """Name a photograph and the number of one of the films made of it."""

    photo: Path
    number: int

    def pairs(
        self, scale: Scale, channels: int, degradation: Degradation
    ) -> list[tuple[np.ndarray, np.ndarray, float]]:
        """Return `KEPT` of its frames as (LR, HR, lost), uint8, (H, W) luma for one channel or (H, W, 3).

        `lost`, from 0 to 1, is how much the encoder and noise took.

        Every frame is degraded alike, and an encoder sees them all. Random values depend on the photograph's pixels and
        the number alone.
        """
        photo = read_rgb(self.photo)
        random = np.random.default_rng((self.number, int(photo.sum(dtype=np.int64))))
        if channels == 1:
            photo = luma(photo)
        hr = camera(photo, window(photo.shape[:2], scale), FRAMES, random)
        pairs = degradation.film(hr, scale, random)
        return [pairs[i] for i in sorted(random.choice(FRAMES, KEPT, replace=False))]


def window(size: tuple[int, int], scale: Scale) -> tuple[int, int]:
    """Return the (height, width) in HR pixels of a photograph's films: whole macroblocks of LR, up to `WINDOW`."""
    lr = (
        min(most, n * scale.down // scale.up // MACROBLOCK * MACROBLOCK) for n, most in zip(size, WINDOW, strict=True)
    )
    return tuple(n * scale.up // scale.down for n in lr)


def camera(photo: np.ndarray, size: tuple[int, int], frames: int, random: np.random.Generator) -> list[np.ndarray]:
    """Film a photograph, uint8 (H, W) or (H, W, 3), through a window of `size` (height, width) that fits into it.

    The camera pans. Half of the films are reduced, a quarter zoom, a quarter shake. Photographs are only reduced, or
    moved by whole pixels, so a film is as sharp as its photograph.
    """
    largest = min(n / m for n, m in zip(photo.shape[:2], size, strict=True))
    distance = random.uniform(1, min(largest, 2.5)) if random.random() < 0.5 else 1.0
    zoom = random.uniform(-ZOOM, ZOOM) if random.random() < 0.25 else 0.0
    shake = random.uniform(0, SHAKE) if random.random() < 0.25 else 0.0
    speed = random.normal(0, SPEED / 3, 2).clip(-SPEED, SPEED)
    if zoom or shake:
        distance = min(largest, max(distance, 1 + abs(zoom) * frames))
    centre = None
    pictures = []
    for i in range(frames):
        factor = np.clip(distance * (1 + zoom * (i - frames / 2)), 1.0, largest)
        span = np.minimum(np.array(size) * factor, photo.shape[:2])
        free = photo.shape[:2] - span
        if centre is None:
            centre = random.uniform(0, 1, 2) * free + span / 2
        centre = centre + speed
        corner = np.clip(centre - span / 2 + random.normal(0, shake, 2), 0, free)
        if factor == 1:
            y, x = np.rint(corner).astype(int)
            pictures.append(photo[y : y + size[0], x : x + size[1]])
        else:
            box = (corner[1], corner[0], corner[1] + span[1], corner[0] + span[0])
            image = Image.fromarray(photo).resize(size[::-1], Image.Resampling.BICUBIC, box=box)
            pictures.append(np.asarray(image))
    return pictures
