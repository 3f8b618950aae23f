"""Contact sheets: rows of crops side by side, such as the worst crops of an upscaler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imagesr.metrics.fidelity import psnr
from imagesr.pixels import luma
from imagesr.scale import Scale

CROPS, CROPS_PER_FILE = 8, 2
_SIDE, _ZOOM = 64, 4  # HR pixels a side of a crop, and how large each is drawn
_MARGIN, _LINE = 14, 24
_PAPER, _INK, _FAINT = "#15171a", "#f4f4f4", "#9aa0a6"

Row = tuple[str, str, Sequence[tuple[str, Image.Image]]]
Pictures = tuple[np.ndarray, np.ndarray, np.ndarray]  # LR, SR, HR in RGB


@dataclass
class Crop:
    """Hold a block of a grid: the mean squared error of its luma, where it is, and LR, Lanczos, SR and HR of it."""

    error: float
    file: str
    note: str
    place: tuple[int, int]
    pictures: tuple[Image.Image, ...] = ()


class Worst:
    """Collect the worst blocks of all pictures, at most two from a file; `draw` puts them on a sheet.

    Blocks have 64 HR pixels a side, or the next multiple of `up`. Smaller pictures are ignored.
    """

    def __init__(self, scale: Scale):
        self._scale, self._side = scale, -(-_SIDE // scale.up) * scale.up
        self.crops: list[Crop] = []

    def see(self, file: str, note: str, sr: np.ndarray, hr: np.ndarray, pictures: Callable[[], Pictures]) -> None:
        """Compare SR and HR luma; `pictures` is called when one of their blocks is among the worst so far."""
        side = self._side
        rows, columns = (n // side for n in hr.shape)
        inside = (slice(rows * side), slice(columns * side))
        errors = (sr[inside].astype(np.int32) - hr[inside]) ** 2
        errors = errors.reshape(rows, side, columns, side).mean((1, 3))
        places = [np.unravel_index(i, errors.shape) for i in np.argsort(-errors, axis=None)[:CROPS_PER_FILE]]
        found = [Crop(float(errors[place]), file, note, place) for place in places]
        self.crops = _worst([*self.crops, *found])
        new = [crop for crop in self.crops if not crop.pictures]
        for crop in new:
            crop.pictures = self._cut(*(Image.fromarray(picture) for picture in pictures()), crop.place)

    def _cut(self, lr, sr, hr, place):
        scale, side = self._scale, self._side
        top, left = (int(n) * side for n in place)
        in_hr = (left, top, left + side, top + side)
        in_lr = tuple(n * scale.down // scale.up for n in in_hr)
        # Lanczos reads beyond its box, so the crop is the same as in the whole picture.
        lanczos = lr.resize((side, side), Image.Resampling.LANCZOS, in_lr)
        return lr.crop(in_lr), lanczos, sr.crop(in_hr), hr.crop(in_hr)

    def draw(self, name: str) -> Image.Image:
        """Return the sheet, the worst crop on top; `name` is the upscaler's."""
        cell, rows = self._side * _ZOOM, []
        for i, crop in enumerate(self.crops):
            hr, pictures = luma(np.asarray(crop.pictures[-1])), []
            for column, (title, picture) in enumerate(zip(("LR", "Lanczos", name, "HR"), crop.pictures, strict=True)):
                title += f"   {psnr(luma(np.asarray(picture)), hr):.2f} dB" if column in (1, 2) else ""
                pictures.append((title, picture.resize((cell, cell), Image.Resampling.NEAREST)))
            rows.append((f"{i + 1}   {crop.file}", crop.note, pictures))
        return draw_rows(rows, cell, columns=4)


def draw_rows(rows: Sequence[Row], cell: int, *, columns: int) -> Image.Image:
    """Return a sheet of rows: a title, a note at its right, and pictures of up to `cell` pixels with their captions."""
    row = 2 * _LINE + cell + 2 * _MARGIN
    size = (columns * (cell + _MARGIN) + _MARGIN, max(1, len(rows)) * row + _MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    pen, large, small = ImageDraw.Draw(sheet), ImageFont.load_default(17), ImageFont.load_default(14)
    for i, (title, note, pictures) in enumerate(rows):
        y = _MARGIN + i * row
        pen.text((_MARGIN, y), title, fill=_INK, font=large)
        pen.text((size[0] - _MARGIN, y + 2), note, fill=_FAINT, font=small, anchor="ra")
        for column, (caption, picture) in enumerate(pictures):
            x = _MARGIN + column * (cell + _MARGIN)
            pen.text((x, y + _LINE), caption, fill=_FAINT, font=small)
            sheet.paste(picture, (x, y + 2 * _LINE))
    return sheet


def _worst(crops: Iterable[Crop]) -> list[Crop]:
    """Return the worst crops in order, one of a place and two of a file at most."""
    kept = []
    for crop in sorted(crops, key=lambda crop: -crop.error):
        same = [other for other in kept if other.file == crop.file]
        if len(same) < CROPS_PER_FILE and all(other.place != crop.place for other in same):
            kept.append(crop)
    return kept[:CROPS]
