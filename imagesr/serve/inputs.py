"""Input drift: figures of the pictures that come, compared with those of the pictures that a network was trained on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from imagesr.errors import InputError
from imagesr.media.images import find_images
from imagesr.media.photos import Picture, has_alpha, peak, read_photo, region
from imagesr.serve.votes import PROPERTIES

LEAST = 100  # pictures, of either kind: with fewer PSI is noise
LOSSLESS = 101.0  # the JPEG quality of a picture that is no JPEG
LIMIT = 0.25  # PSI above it is called a large change
_SIDE = 512  # pixels of the part, from the middle, that is looked at
_BINS = 10
# ITU-T T.81, annex K.1: the table of luma at quality 50, row by row.
_TABLE = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_LUMA = np.array(_TABLE.split(), float)


def jpeg_quality(source: Path) -> float:
    """Return the quality of a JPEG on libjpeg's scale, 1 to 100, by its table for luma; LOSSLESS for other files.

    Only the head is read. Raises InputError for a file that is none.
    """
    try:
        with Image.open(source, formats=("JPEG", "PNG")) as file:
            tables = getattr(file, "quantization", None)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"Expected a picture, PNG or JPEG. Received: {source} ({type(error).__name__})") from None
    if not tables:
        return LOSSLESS
    percent = 100 * float(np.median(np.array(tables[min(tables)], float) / _LUMA))
    return float(np.clip(5000 / percent if percent > 100 else (200 - percent) / 2, 1, 100))


def measure(picture: Picture, quality: float) -> tuple[float, ...]:
    """Return the figures of a picture, in the order of PROPERTIES.

    Size is log2 of the pixels. Sharpness is the deviation of the Laplacian over that of luma; noise is the deviation of
    the finest diagonal detail, by its median (Donoho & Johnstone, 1994), in codes of 8 bits. Both are of the middle.
    """
    width, height = min(picture.width, _SIDE), min(picture.height, _SIDE)
    part = region(picture, (picture.width - width) // 2, (picture.height - height) // 2, width, height)
    bands = part.shape[2] - has_alpha(picture)
    luma = part[..., :bands].astype(np.float32).mean(2) * (255 / peak(picture))
    padded = np.pad(luma, 1, mode="edge")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * luma
    sharpness = float(laplacian.std() / (luma.std() + 1))
    even = luma[: height // 2 * 2, : width // 2 * 2]
    diagonal = (even[::2, ::2] - even[1::2, ::2] - even[::2, 1::2] + even[1::2, 1::2]) / 2
    noise = float(np.median(np.abs(diagonal)) / 0.6745) if diagonal.size else 0.0
    return math.log2(picture.width * picture.height), sharpness, noise, quality


def record_of(figures: Sequence[Sequence[float]]) -> str:
    """Return the record of a training set as JSON: of each property the edges of its bins, and how many are in each.

    Raises ValueError for too few pictures.
    """
    if len(figures) < LEAST:
        raise ValueError(f"Expected at least {LEAST} pictures, as the network is given them. Received: {len(figures)}")
    table = np.array(figures, float)
    record = {"pictures": len(table)}
    for name, values in zip(PROPERTIES, table.T, strict=True):
        quantiles = np.quantile(values, np.linspace(0, 1, _BINS + 1))
        # What is below all of them, or above, is a bin of its own.
        edges = np.unique([np.nextafter(quantiles[0], -np.inf), *quantiles])
        record[name] = {"edges": edges.tolist(), "counts": _counts(values, edges).tolist()}
    return json.dumps(record)


def drift(record: str, figures: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the population stability index (PSI) of each property, 0 for the same distribution.

    It is the sum over the bins of (a - b) ln(a / b), a and b the shares there. Half a picture is added to each bin.
    """
    known, table = json.loads(record), np.array(figures, float)
    found = {}
    for name, values in zip(PROPERTIES, table.T, strict=True):
        before, after = np.array(known[name]["counts"], float), _counts(values, np.array(known[name]["edges"]))
        a, b = ((counts + 0.5) / (counts + 0.5).sum() for counts in (after, before))
        found[name] = float(((a - b) * np.log(a / b)).sum())
    return found


def _counts(values, edges):
    # An edge may be the only value that there is: one bin is at the edge and below, the next above.
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)


def measure_files(paths: Sequence[Path]) -> list[tuple[float, ...]]:
    """Return the figures of picture files, PNG and JPEG, and of those in folders; raises InputError."""
    files = [file for path in paths for file in (find_images([path]) if path.is_dir() else [path])]
    return [measure(read_photo(file).picture, jpeg_quality(file)) for file in files]
