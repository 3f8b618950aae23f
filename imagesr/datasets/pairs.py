"""(LR, HR) pairs: what a data set is a list of, and how it comes into memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from imagesr.datasets.degradations import Degradation
from imagesr.datasets.film import KEPT, PannedPhoto, window
from imagesr.depth.maps import DepthSource, resized
from imagesr.media.images import kind, read_rgb
from imagesr.pixels import downscale, luma, resize
from imagesr.scale import Scale

SIZES = (1.0, 0.7, 0.5)  # scale augmentation: relative sizes at which every HR picture is shown

Picture = Path | np.ndarray | PannedPhoto  # a file, RGB uint8 (H, W, 3), or a film of a photograph


class Pair(NamedTuple):
    """Name a HR picture and its LR picture; None where LR is to be made from HR."""

    lr: Picture | None
    hr: Picture


def load_pairs(
    pairs: Sequence[Pair],
    scale: Scale,
    *,
    channels: int = 1,
    sizes: Sequence[float] = (1.0,),
    size: tuple[int, int] = (0, 0),
    degradation: Degradation | None = None,
    colour: bool = False,
    depth: DepthSource | None = None,
) -> list[tuple[np.ndarray | None, ...]]:
    """Read the pictures into memory once, as (LR, HR): uint8, (H, W) luma for one channel or (H, W, 3).

    LR comes from its file, or is made by a fixed `degradation`; it is None where crops are degraded one by one. HR is
    shown at every one of the relative `sizes` too (a reduced picture is as good as a new one: its detail is finer per
    pixel), but for pairs with a LR of their own. What is smaller than `size` (height, width) there is left out.
    With `depth` they are (LR, HR, map): float16 (H, W) of HR's size, in [0, 1], NaN where depth is missing.

    Raises ValueError for what is not a list of pairs, a picture that does not decode, is deeper than 8 bits, grey where
    `colour` is asked for, or smaller than `size`, a LR whose size does not go with its HR, and more than memory holds.
    """
    degradation = degradation or Degradation()
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Picture)):
            raise ValueError(
                f"Expected a data set of pairs (lr, hr). Received: {_words(pair)}; HR without LR is (None, hr)"
            )
        have = shape(pair.hr, colour)
        if isinstance(pair.hr, PannedPhoto):
            have = window(have, scale)
        if min(n - m for n, m in zip(have, size, strict=True)) < 0 or not all(have):
            wanted, found = (f"{w}x{h}" for h, w in (size, have))
            raise ValueError(
                f"Expected HR pictures of at least {wanted} pixels. Received: {_words(pair.hr)} of {found}"
            )
        if depth and isinstance(pair.hr, PannedPhoto):
            raise ValueError(f"Expected photographs for depth maps, not films of them. Received: {_words(pair.hr)}")
    _check_memory(pairs, scale, channels + 2 * bool(depth), sizes)  # a map's numbers have 16 bits

    def read(pair):
        if isinstance(pair.hr, PannedPhoto):
            return pair.hr.pairs(scale, channels, degradation)
        hr = _read(pair.hr, channels)
        shown = []  # LR, HR, and the size of the picture that HR is cropped from
        if pair.lr is not None and degradation == Degradation():
            lr = _read(pair.lr, channels)
            height, width = (n * scale.up // scale.down for n in lr.shape[:2])
            if not (0 <= hr.shape[0] - height < scale.up and 0 <= hr.shape[1] - width < scale.up):
                raise ValueError(
                    f"Expected a LR picture {scale} times smaller than HR ({hr.shape[1]}x{hr.shape[0]}). "
                    f"Received: {_words(pair.lr)} of {lr.shape[1]}x{lr.shape[0]}"
                )
            shown.append((lr, hr[:height, :width], hr.shape[:2]))
        else:
            for relative in sizes:
                height, width = (round(n * relative) for n in hr.shape[:2])
                if relative == 1 or (height >= size[0] and width >= size[1]):
                    smaller = hr if relative == 1 else resize(hr, (width, height))
                    lr, smaller = downscale(smaller, scale, degradation.kernels[0])
                    shown.append((lr if degradation.fixed else None, smaller, (height, width)))
        if not depth:
            return [pictures[:2] for pictures in shown]
        rgb = _read(pair.lr, 3) if pair.lr is not None else downscale(_read(pair.hr, 3), scale)[0]
        whole = depth(pair.hr, rgb, hr.shape[:2])
        maps = (resized(whole, size)[: len(hr), : hr.shape[1]] for _, hr, size in shown)
        return [(lr, hr, m.astype(np.float16)) for (lr, hr, _), m in zip(shown, maps, strict=True)]

    with ThreadPoolExecutor() as pool:
        read = tqdm(pool.map(read, pairs), "reading pictures", len(pairs), unit="", leave=False, disable=None)
        return [pair for shown in read for pair in shown]


def _read(picture, channels):
    if isinstance(picture, Path):
        picture = read_rgb(picture)
    return luma(picture) if channels == 1 else picture


def shape(picture, colour=False):
    """Return (height, width), of a file from its header alone; raises ValueError for one deeper than 8 bits.

    Of a film it is its photograph's.
    With `colour`, also for one without: among colour pictures it is a mistake.
    """
    if isinstance(picture, PannedPhoto):
        picture = picture.photo
    if not isinstance(picture, Path):
        return picture.shape[:2]
    try:
        with Image.open(picture) as image:
            what, (width, height) = kind(image), image.size
            turned = image.getexif().get(0x0112, 1) >= 5
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"Expected a picture that can be read. Received: {picture} ({error})") from None
    if "-bit" in what or (colour and what.startswith(("grey", "bilevel"))):
        raise ValueError(f"Expected RGB pictures of 8 bits. Received: {picture} ({what}); convert it or take it out")
    return (width, height) if turned else (height, width)


def _check_memory(pairs, scale, channels, sizes):
    try:
        meminfo = Path("/proc/meminfo").read_text("utf-8")
        free = 1024 * int(meminfo.partition("MemAvailable:")[2].split()[0])
    except (OSError, IndexError, ValueError):  # a system that does not tell
        return

    def pixels(hr):
        if isinstance(hr, PannedPhoto):
            return KEPT * np.prod(window(shape(hr), scale))
        return np.prod(shape(hr)) * sum(s**2 for s in sizes)

    needed = sum(pixels(pair.hr) for pair in pairs) * channels * 1.5
    if needed > 0.9 * free:
        raise ValueError(
            f"Expected pictures that fit into memory, {free / 1e9:.1f} GB free. Received: {len(pairs)} pictures, "
            f"{needed / 1e9:.1f} GB; train on fewer"
        )


def _words(item):
    if isinstance(item, np.ndarray):
        return f"an array of shape {item.shape}"
    item = getattr(item, "photo", item)
    return str(item) if isinstance(item, Path) else f"{type(item).__name__} {item!r:.60}"
