"""The function that every server of this comparison has around it: a picture's bytes to one twice as large."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from imagesr.image.upscale import last, load_photo_engines, upscaling
from imagesr.media.photos import encode_photo, read_photo
from imagesr.scale import Scale

MODEL, SCALE = os.environ.get("MODEL", "fast"), Scale(2)
engines = load_photo_engines(MODEL, SCALE)


def upscale(data: bytes) -> bytes:
    """Upscale a PNG or JPEG picture twice, as `imagesr serve` does; returns a PNG."""
    picture = read_photo(data).picture
    size = SCALE.grow(picture.width), SCALE.grow(picture.height)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as spools:
        large = last(upscaling(picture, size, engines, spools=spools))
        out = Path(folder, "large.png")
        encode_photo(large, out, "png", note=lambda text: None)
        return out.read_bytes()
