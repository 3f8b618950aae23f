"""Film frames as NumPy arrays or Pillow images: what `imagesr.load` returns for film."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from imagesr.card import models_for, of_own_size
from imagesr.engines import checked_clean, tuned
from imagesr.engines.chain import MAX_SCALE, load_chain
from imagesr.media.frames import Frame, VideoInfo, from_rgb, rgb
from imagesr.scale import Scale
from imagesr.video.upscaler import Upscaler

if TYPE_CHECKING:
    from PIL import Image


class FilmUpscaler:
    """Upscale frames one by one, at frame rate; the engines stay loaded.

    A frame goes the way of video: its luma through the network in 8 bits, its colours through swscale at half the
    resolution. `detail` and `clean` are from 0 to 1, for models that take them. A scale of 1 keeps the
    size, and cleans. `scale` is a Scale, `card` and `precision` are the first engine's.
    """

    def __init__(self, model: str = "balanced", scale: Scale | float | str = "1.5", **options):
        self.scale = Scale.parse(scale)
        if not 1 <= float(self.scale) <= MAX_SCALE:
            raise ValueError(f"Expected a scale from 1 to {MAX_SCALE}. Received: {self.scale}")
        cards = [of_own_size("video", model)] if self.scale == Scale(1) else models_for("video", model)
        self._engines = load_chain(cards, self.scale, **options)
        self.card, self.precision = self._engines[0].card, self._engines[0].precision
        self._cards = [engine.card for engine in self._engines]
        self._upscaler: tuple[tuple, Upscaler] | None = None

    def __call__(self, picture: np.ndarray | Image.Image, *, clean: float | None = None) -> np.ndarray | Image.Image:
        """Return the frame upscaled, of the same kind: uint8 RGB (H, W, 3) or grey (H, W), or a Pillow image.

        The size of the result is the input's times `scale`, rounded. `clean` is for this frame, None is the one that
        the model was loaded with. Raises ValueError for other arrays.
        """
        if not isinstance(picture, np.ndarray):
            return _on_pillow(partial(self, clean=clean), picture)
        if clean is not None:
            checked_clean(clean, next((card for card in self._cards if card.clean is not None), self.card))
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
            what = f"{picture.dtype} {picture.shape}"
            raise ValueError(f"Expected a uint8 array, RGB (H, W, 3) or grey (H, W). Received: {what}")
        if 0 in picture.shape:
            raise ValueError(f"Expected a picture with pixels. Received: {picture.shape}")
        grey = picture.ndim == 2
        lr = from_rgb(np.repeat(picture[..., np.newaxis], 3, 2) if grey else picture, pix_fmt=self._format(picture))
        sr = rgb(self._upscaler_for(lr, clean)(lr), exact=False)
        return sr[..., 1] if grey else sr

    def _format(self, picture):
        """Return yuv420p where every size is even, as video has it, else yuv444p."""
        sizes = [n for length in picture.shape[:2] for n in (length, self.scale.grow(length))]
        return "yuv444p" if any(n % 2 for n in sizes) else "yuv420p"

    def _upscaler_for(self, frame: Frame, clean: float | None) -> Upscaler:
        size = frame.width, frame.height
        if not self._upscaler or self._upscaler[0] != (size, clean):
            halved = (frame.format.name == "yuv420p",) * 2
            info = VideoInfo(
                *size,
                pix_fmt=frame.format.name,
                bits=8,
                halved=halved,
                time_base=Fraction(1, 90_000),
                rate=Fraction(30),
                sample_aspect_ratio=None,
                color={},
                display_matrix=None,
                rotation=0,
                duration=None,
                frames=None,
            )
            engines = tuned(self._engines, clean=clean)
            self._upscaler = (size, clean), Upscaler(info, tuple(self.scale.grow(n) for n in size), engines)
        return self._upscaler[1]


def _on_pillow(upscale, picture):
    from PIL import Image

    if picture.mode not in ("L", "RGB"):
        picture = picture.convert("L" if picture.mode in ("1", "I;16") else "RGB")
    return Image.fromarray(upscale(np.asarray(picture)))
