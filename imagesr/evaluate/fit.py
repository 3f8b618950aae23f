"""Which model holds which rate on this machine, within about ten seconds and without TensorFlow."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from imagesr.evaluate.speed import Maker, run_film
from imagesr.media.clips import first_frames_repeated, write_clip
from imagesr.scale import Scale
from imagesr.video.options import LADDER
from imagesr.video.realtime import load_model
from imagesr.video.upscaler import Upscaler

SCALE = Scale(3, 2)
SIZES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080)}
RATES = (24, 30, 60)
_TIMED = "720p"
_SECONDS = 1.2  # that a model is timed
_PICTURES = 12  # that move
_MOST = 500  # frames a second, of 720p; a faster machine ends before the time


def fit(*, seconds: float = _SECONDS, size: tuple[int, int] = SIZES[_TIMED], precision: str = "auto") -> dict:
    """Return the frames per second of every model at x1.5 on a made clip, decoder and encoder included."""
    with tempfile.TemporaryDirectory() as folder:
        clip, looped = Path(folder) / "clip.mp4", Path(folder) / "looped.mkv"
        write_clip(clip, _pictures(size), 30)
        first_frames_repeated(clip, max(_PICTURES, int(_MOST * seconds)), looped)
        return {
            name: run_film(looped, _maker(name, precision), SCALE, Path(folder) / "fit.mp4", seconds=seconds).fps
            for name in LADDER
        }


def _maker(name, precision) -> Maker:
    engines = load_model(name, SCALE, parallel=4, precision=precision) if name != LADDER[-1] else []
    return lambda info, size: Upscaler(info, size, engines)


def _pictures(size):
    """Yield pictures that move, smooth and sharp, with noise, as a camera's do."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).normal(0, 4, (height, width))
    grey = 128 + 60 * np.sin(x / 31) * np.cos(y / 23) + 30 * ((x // 24 + y // 18) % 2) + noise
    grey = np.clip(grey, 0, 255).astype(np.uint8)
    for i in range(_PICTURES):
        yield Image.fromarray(np.roll(grey, 3 * i, 1)).convert("RGB")


def holds(fps: dict[str, float], pixels: float, rate: float) -> str:
    """Return the best model that holds a rate, with frames of `pixels` times those that were timed; "" where none."""
    return next((name for name in LADDER if name in fps and fps[name] / pixels >= rate), "")


def table(fps: dict[str, float], *, size: tuple[int, int] = SIZES[_TIMED], rates: Sequence[int] = RATES) -> str:
    """Format what holds as a Markdown table; the time of a frame grows with its pixels."""
    heads = [f"best at {rate} fps" for rate in rates]
    lines = [["input, x1.5", *(f"{name}, fps" for name in fps), *heads]]
    lines.append(["---"] * len(lines[0]))
    for name, (width, height) in SIZES.items():
        pixels = width * height / (size[0] * size[1])
        held = [holds(fps, pixels, rate) or "none" for rate in rates]
        lines.append([name, *(f"{rate / pixels:.0f}" for rate in fps.values()), *held])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
