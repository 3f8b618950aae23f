"""The page of a comparison, one HTML file with both videos, their figures and the worst frames; and its sheet."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from imagesr.compare.crops import worst_window
from imagesr.evaluate.sheet import draw_rows
from imagesr.media.frames import Frame, plane, rgb

UNITS = {"psnr_y": "PSNR-Y, dB", "ssim_y": "SSIM", "vmaf_neg": "VMAF-NEG"}
_CROP, _ZOOM = 128, 2  # pixels a side of a crop, and the factor by which the sheet shows it larger
_GAIN = 4  # differences are shown that much stronger

FrameFigures = dict[str, dict[str, list[float]]]  # of every frame: {"psnr_y": {"a": [...], "b": [...]}, ...}


@dataclass
class Piece:
    """Hold the part of a frame with the largest error: the number of the frame, its corner (x, y), titled pictures."""

    frame: int
    place: tuple[int, int]
    pictures: dict[str, Image.Image]


def cut(number: int, frames: Sequence[Frame], names: tuple[str, str]) -> Piece:
    """Cut the piece with the largest error out of frames of A, of B and, where there is one, of the reference."""
    lumas = [plane(frame, 0).astype(np.int16) for frame in frames]
    if len(frames) == 3:
        differences = {f"{name} - reference": luma - lumas[2] for name, luma in zip(names, lumas, strict=False)}
    else:
        differences = {"difference": lumas[0] - lumas[1]}
    squares = sum(difference.astype(np.float64) ** 2 for difference in differences.values())
    piece = rows, columns = worst_window(squares, _CROP)
    titles = [*names, "reference"][: len(frames)]
    pictures = {title: rgb(frame)[piece] for title, frame in zip(titles, frames, strict=True)}
    pictures |= {
        f"{title}, x{_GAIN}": np.clip(_GAIN * np.abs(difference[piece]), 0, 255).astype(np.uint8)
        for title, difference in differences.items()
    }
    return Piece(
        number, (columns.start, rows.start), {title: Image.fromarray(picture) for title, picture in pictures.items()}
    )


def caption(crop: Piece, rows: FrameFigures, names: tuple[str, str]) -> str:
    """Return a crop's place and its frame's figures in words."""
    parts = [f"frame {crop.frame} at {crop.place[0]}, {crop.place[1]}"]
    for key, both in rows.items():
        if key == "difference":
            parts.append(f"difference {both['a'][crop.frame]:.2f} codes")
        else:
            a, b = (both[of][crop.frame] for of in "ab")
            places = 4 if key == "ssim_y" else 2
            parts.append(f"{UNITS[key]} {a:.{places}f} | {b:.{places}f}")
    return "   ".join(parts)


def draw_sheet(crops: Sequence[Piece], rows: FrameFigures, names: tuple[str, str]) -> Image.Image:
    """Return one picture of all crops, each with its figures."""

    def large(picture):
        return picture.resize([n * _ZOOM for n in picture.size], Image.Resampling.NEAREST)

    def short(title):
        return title if len(title) < 34 else f"…{title[-32:]}"

    lines = [
        (caption(crop, rows, names), "", [(short(title), large(p)) for title, p in crop.pictures.items()])
        for crop in crops
    ]
    return draw_rows(lines, _CROP * _ZOOM, columns=max(len(crop.pictures) for crop in crops))


def make_page(result, size: tuple[int, int], video: bytes, crops: Sequence[Piece]) -> str:
    """Return the page of a VideoComparison; `video` is an MP4 of A above B, `size` the (width, height) of each."""

    def png(picture):
        data = io.BytesIO()
        picture.save(data, "png")
        return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()

    record = {
        "names": result.names,
        "size": size,
        "rate": result.rate,
        "count": len(next(iter(result.frames.values()))["a"]),
        "units": UNITS | {"difference": "difference of luma, codes (root mean square)"},
        "frames": {k: {of: [round(x, 4) for x in v] for of, v in both.items()} for k, both in result.frames.items()},
        "notes": result.notes,
        "worst": [
            {
                "frame": crop.frame,
                "caption": caption(crop, result.frames, result.names),
                "pictures": {title: png(picture) for title, picture in crop.pictures.items()},
            }
            for crop in crops
        ],
        "video": "data:video/mp4;base64," + base64.b64encode(video).decode(),
    }
    template = Path(__file__).with_name("compare.html").read_text("utf-8")
    # Markup in a file's name would end the script that the record stands in, or the page.
    return template.replace("__RECORD__", json.dumps(record).replace("<", "\\u003c"))
