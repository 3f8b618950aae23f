"""Depth maps of pictures: reading, normalising and resizing them, and finding where depth jumps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from imagesr.errors import cause
from imagesr.media.images import is_picture
from imagesr.scale import Scale

SUFFIXES = (".png", ".tif", ".tiff", ".npy")
TAILS = (1, 99)  # percentiles: nearer and farther pixels are noise, or so few that they may be clipped
JUMP = 0.05  # of a picture's range of depth; a larger change within a few pixels is an edge

# Takes a picture (its file, or RGB), its LR in RGB, uint8, and HR's (height, width); returns the map for HR.
DepthSource = Callable[[Path | np.ndarray, np.ndarray, tuple[int, int]], np.ndarray]


def read_depth(file: Path) -> np.ndarray:
    """Read a map, (H, W) float32 in the file's own units; NaN where depth is missing: 0, NaN or infinite in the file.

    PNG and TIFF of one channel, of 8 or 16 bits or floating point, and NumPy arrays. Raises ValueError for others.
    """
    try:
        if file.suffix.lower() == ".npy":
            depth = np.load(file, allow_pickle=False)
        else:
            with Image.open(file) as image:
                depth = np.asarray(image)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"Expected a depth map that can be read. Received: {file} ({cause(error)})") from None
    if depth.ndim != 2 or depth.dtype.kind not in "uif":
        what = f"shape {depth.shape} of {depth.dtype}"
        raise ValueError(f"Expected a depth map of one channel, (H, W) numbers. Received: {file}, {what}")
    with np.errstate(over="ignore"):
        depth = depth.astype(np.float32)
    return np.where(np.isfinite(depth) & (depth != 0), depth, np.float32(np.nan))


def normalised(depth: np.ndarray, name: str) -> np.ndarray:
    """Bring a map to [0, 1] by its 1st and 99th percentile, NaN kept; raises ValueError for a constant or empty one."""
    known = depth[np.isfinite(depth)].astype(np.float64)
    if not known.size:
        raise ValueError(f"Expected depth somewhere. Received: {name}, all missing (0, NaN or infinite)")
    low, high = np.percentile(known, TAILS)
    if low == high:
        low, high = known.min(), known.max()
    if low == high:
        raise ValueError(f"Expected depth that varies. Received: {name}, {low:g} everywhere; take its picture out")
    return np.clip((depth - low) / (high - low), 0, 1).astype(np.float32)


def resized(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map to (height, width), antialiased; a pixel is missing where most of what it covers is."""
    if depth.shape == tuple(size):
        return depth
    known = np.isfinite(depth)
    planes = (Image.fromarray(plane.astype(np.float32)) for plane in (np.where(known, depth, 0), known))
    total, share = (np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR)) for plane in planes)
    return np.where(share > 0.5, total / np.maximum(share, 0.5), np.float32(np.nan))


def depth_maps(folders: Iterable[Path], scale: Scale) -> DepthSource:
    """Return a function that finds a picture's map in the folders: the file of the same stem, of HR's size or LR's.

    Raises ValueError for a folder without maps. The function raises it for a picture without a map, or with two, and
    for a map of another size, a constant one and one without depth.
    """
    files: dict[str, list[Path]] = {}
    for folder in folders:
        found = sorted(f for f in folder.iterdir() if is_picture(f, SUFFIXES)) if folder.is_dir() else []
        if not found:
            raise ValueError(f"Expected a folder with depth maps ({', '.join(SUFFIXES)}). Received: {folder}")
        for file in found:
            files.setdefault(file.stem, []).append(file)

    def look_up(picture, lr, size):
        if not isinstance(picture, Path):
            raise ValueError(f"Expected pictures in files, each with a depth map. Received: {_kind(picture)}")
        found = files.get(picture.stem, ())
        if len(found) != 1:
            listed = ", ".join(map(str, found)) or "none"
            raise ValueError(f"Expected one depth map of the name {picture.stem} for {picture}. Received: {listed}")
        depth = read_depth(found[0])
        if depth.shape not in (tuple(size), lr.shape[:2]):
            wanted, small, have = (f"{w}x{h}" for h, w in (size, lr.shape[:2], depth.shape))
            raise ValueError(f"Expected a depth map of {wanted} or, as LR, {small}. Received: {found[0]} of {have}")
        depth = normalised(depth, str(found[0]))
        return depth if depth.shape == tuple(size) else on_hr(depth, lr.shape[:2], size, scale)

    return look_up


def on_hr(depth: np.ndarray, lr: tuple[int, int], size: tuple[int, int], scale: Scale) -> np.ndarray:
    """Resize a map of LR's view to HR's `size`; pixels of HR beyond a multiple of `up` repeat the edge."""
    depth = resized(depth, tuple(n * scale.up // scale.down for n in lr))
    return np.pad(depth, [(0, n - m) for n, m in zip(size, depth.shape, strict=True)], mode="edge")


def as_channels(depth: np.ndarray) -> np.ndarray:
    """Return a network's input, float32 (…, H, W, 2): depth in [0, 1], and 1 where it is known; zeros elsewhere."""
    known = np.isfinite(depth)
    return np.stack([np.where(known, depth, 0), known], -1).astype(np.float32)


def near_edges(depth: np.ndarray, reach: int) -> np.ndarray:
    """Tell, (H, W) bool, where a map in [0, 1] jumps within `reach` pixels, by more than `JUMP`; slopes are no jumps.

    Depth jumps where a pixel is not half-way between those `reach` before and after it, in a row or a column.
    """
    near = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        border = [(reach, reach) if i == axis else (0, 0) for i in (0, 1)]
        # Odd: a slope goes on beyond the edge of the picture.
        padded = np.moveaxis(np.pad(depth.astype(np.float32), border, "reflect", reflect_type="odd"), axis, 0)
        bend = padded[: -2 * reach] + padded[2 * reach :] - 2 * padded[reach:-reach]
        found = np.abs(bend) > JUMP
        found[1:-1] |= found[:-2] & found[2:]  # on the very border a pixel that has half of each is half-way
        near |= np.moveaxis(found, 0, axis)
    return near


def _kind(picture):
    return f"an array of shape {picture.shape}" if isinstance(picture, np.ndarray) else f"a {type(picture).__name__}"
