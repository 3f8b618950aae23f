"""(LR, HR) pairs: a data set is a list of them; `load_pairs` reads them into memory."""

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
from imagesr.errors import cause, together
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
    clean: bool = False,
) -> list[tuple[np.ndarray | None, ...]]:
    """Read pictures into memory as (LR, HR): uint8, (H, W) luma for one channel or (H, W, 3).

    LR comes from its file, or is made by a fixed `degradation`. It is None where crops are degraded one by one.

    Args:
        sizes: HR without an LR file is also shown at these relative sizes: a reduced picture has finer detail per
            pixel, and is as good as a new one.
        size: HR's least (height, width). Reduced pictures that are smaller are left out.
        colour: refuse grey pictures.
        depth: returns depth maps. Pairs are then (LR, HR, map): float16 (H, W) of HR's size in [0, 1], NaN where depth
            is missing.
        clean: Pairs are then (LR, HR, lost): from 0 to 1, how much an encoder and noise took of a film's frame.

    Raises ValueError for items that are not pairs; for pictures that do not decode, are deeper than 8 bits or smaller
    than `size`; for an LR whose size does not fit its HR; and for more pictures than fit into memory. The error names
    every file that is wrong.
    """
    degradation = degradation or Degradation()
    faults = [_fault(_check, pair, scale, size, colour=colour, depth=bool(depth)) for pair in pairs]
    if not any(faults):
        _check_memory(pairs, scale, channels + 2 * bool(depth), sizes)  # a map's numbers have 16 bits

    def read(pair):
        if isinstance(pair.hr, PannedPhoto):
            return [frame if clean else frame[:2] for frame in pair.hr.pairs(scale, channels, degradation)]
        shown = _shown(pair, scale, channels, degradation, sizes, size)
        if not depth:
            return [(lr, hr, 0.0) if clean else (lr, hr) for lr, hr, _ in shown]
        hr = _read(pair.hr, 3)
        rgb = _read(pair.lr, 3) if pair.lr is not None else downscale(hr, scale)[0]
        whole = depth(pair.hr, rgb, hr.shape[:2])
        maps = (resized(whole, size)[: len(hr), : hr.shape[1]] for _, hr, size in shown)
        return [(lr, hr, m.astype(np.float16)) for (lr, hr, _), m in zip(shown, maps, strict=True)]

    def attempt(pair, fault):
        if any(faults):  # nothing will be trained: what decodes need not be kept
            return [], fault or _fault(_read, pair.hr, channels)
        loaded = []
        return loaded, _fault(lambda: loaded.extend(read(pair)))

    with ThreadPoolExecutor() as pool:
        results = pool.map(attempt, pairs, faults)
        bar = tqdm(results, "reading pictures", len(pairs), unit="", leave=False, disable=None)
        loaded, wrong = zip(*bar, strict=True) if pairs else ((), ())
    if any(wrong):
        raise ValueError(together(filter(None, wrong)))
    return [pair for shown in loaded for pair in shown]


def _fault(function, *arguments, **options):
    """Call a function and return the text of its ValueError; "" where there is none."""
    try:
        function(*arguments, **options)
    except ValueError as error:
        return str(error)
    return ""


def _check(pair, scale, size, *, colour, depth):
    """Raise ValueError for a pair that cannot be loaded; its files are not decoded yet."""
    if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Picture)):
        raise ValueError(
            f"Expected a data set of pairs (lr, hr). Received: {_words(pair)}; HR without LR is (None, hr)"
        )
    panned, have = isinstance(pair.hr, PannedPhoto), shape(pair.hr, colour)
    if panned:
        have = window(have, scale)
    if min(n - m for n, m in zip(have, size, strict=True)) < 0 or not all(have):
        wanted, found = (f"{w}x{h}" for h, w in (size, have))
        raise ValueError(f"Expected HR pictures of at least {wanted} pixels. Received: {_words(pair.hr)} of {found}")
    if depth and panned:
        raise ValueError(f"Expected photographs for depth maps, not films of them. Received: {_words(pair.hr)}")


def _shown(pair, scale, channels, degradation, sizes, size):
    """Return (LR, HR, size) for each size at which a pair is shown; HR is cropped from a picture of that size."""
    hr = _read(pair.hr, channels)
    if pair.lr is not None and degradation == Degradation():
        lr = _read(pair.lr, channels)
        height, width = (n * scale.up // scale.down for n in lr.shape[:2])
        if not (0 <= hr.shape[0] - height < scale.up and 0 <= hr.shape[1] - width < scale.up):
            raise ValueError(
                f"Expected a LR picture {scale} times smaller than HR ({hr.shape[1]}x{hr.shape[0]}). "
                f"Received: {_words(pair.lr)} of {lr.shape[1]}x{lr.shape[0]}"
            )
        return [(lr, hr[:height, :width], hr.shape[:2])]
    shown = []
    for relative in sizes:
        height, width = (round(n * relative) for n in hr.shape[:2])
        if relative == 1 or (height >= size[0] and width >= size[1]):
            smaller = hr if relative == 1 else resize(hr, (width, height))
            lr, smaller = downscale(smaller, scale, degradation.kernels[0])
            shown.append((lr if degradation.fixed else None, smaller, (height, width)))
    return shown


def _read(picture, channels):
    if isinstance(picture, PannedPhoto):
        picture = picture.photo
    if isinstance(picture, Path):
        picture = read_rgb(picture)
    return luma(picture) if channels == 1 else picture


def shape(picture, colour=False):
    """Return the (height, width) of a picture, read from a file's header; of a panned photograph, its photograph's.

    Raises ValueError for a file deeper than 8 bits, and with `colour` for a grey one.
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
        raise ValueError(f"Expected a picture that can be read. Received: {picture} ({cause(error)})") from None
    if "-bit" in what or (colour and what.startswith(("grey", "bilevel"))):
        raise ValueError(
            f"Expected RGB pictures of 8 bits; convert others or take them out. Received: {picture} ({what})"
        )
    return (width, height) if turned else (height, width)


def _check_memory(pairs, scale, channels, sizes):
    try:
        meminfo = Path("/proc/meminfo").read_text("utf-8")
        free = 1024 * int(meminfo.partition("MemAvailable:")[2].split()[0])
    except (OSError, IndexError, ValueError):  # a system without /proc/meminfo
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
