"""The pictures and clips to measure on: found in folders, opened once, checked before the long work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagesr.depth.maps import DepthSource
from imagesr.errors import InputError, together
from imagesr.evaluate import clips
from imagesr.evaluate.clips import clip_info
from imagesr.media.frames import VideoInfo
from imagesr.media.images import SUFFIXES, read_rgb
from imagesr.pixels import downscale
from imagesr.scale import Scale


@dataclass(frozen=True)
class Item:
    """Hold a file to measure on; `info` describes a clip as `clip_info` does, and is None for a picture."""

    path: Path
    info: VideoInfo | None = None


def find_items(places: Sequence[Path], scale: Scale) -> tuple[list[Item], list[str]]:
    """List the pictures and clips in `places`, folders or files, and say why files of a folder are left out.

    A clip that cannot be measured is left out where it lies in a folder. Raises ValueError or InputError where such a
    clip is named itself, and for places that are missing or hold nothing.
    """
    found, left_out = [], []
    for place in places:
        if not place.exists():
            raise ValueError(f"Expected a folder or a file with pictures or clips. There is none at {place}")
        if not place.is_dir():
            found.append(_item(place, scale))
            continue
        for file in sorted(place.iterdir()):
            if file.name.startswith("."):  # such as macOS's ._NAME
                continue
            if file.is_dir() or file.suffix.lower() not in SUFFIXES | clips.SUFFIXES:
                left_out.append(f"{file}: neither a picture nor a clip")
                continue
            try:
                found.append(_item(file, scale))
            except (ValueError, InputError) as error:
                left_out.append(str(error))
    if not found:
        raise ValueError(f"Expected a folder with pictures or clips. Received: {', '.join(map(str, places))}")
    return found, left_out


def _item(file, scale):
    return Item(file) if file.suffix.lower() in SUFFIXES else Item(file, clip_info(file, scale))


def check_each(items: Iterable[Item], check: Callable[[Item], None]) -> None:
    """Call `check` on every item; raises its first ValueError or InputError, with what it says of the others, too."""
    errors = []
    for item in items:
        try:
            check(item)
        except (ValueError, InputError) as error:
            errors.append(error)
    if errors:
        raise type(errors[0])(together(map(str, errors)))


def check_picture(path: Path, scale: Scale) -> None:
    """Raise ValueError for a picture too small for the borders and SSIM's window, InputError for a broken one."""
    least = 2 * scale.up + 11
    height, width = (n - n % scale.up for n in read_rgb(path).shape[:2])
    if min(height, width) < least:
        raise ValueError(f"Expected pictures of at least {least + scale.up} pixels a side. Received: {path}")


def check_maps(path: Path, scale: Scale, sources: Iterable[DepthSource | None]) -> None:
    """Raise ValueError or InputError where a source has no depth map for a picture."""
    picture = read_rgb(path)
    lr, _ = downscale(picture, scale)
    for source in sources:
        if source:
            source(path, lr, picture.shape[:2])


def labels(items: Sequence[Item]) -> list[str]:
    """Return the files' names; where two files share a name, as numbered frames do, with their folders' names."""
    files = [item.path for item in items]
    names = [file.name for file in files]
    return [f"{file.parent.name}/{file.name}" if names.count(file.name) > 1 else file.name for file in files]
