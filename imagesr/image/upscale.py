"""Upscale pictures tile by tile, so that any size fits into memory: colour, transparency, borders."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from imagesr.card import models_for, of_own_size
from imagesr.cli import check_interrupted
from imagesr.engines import Engine, checked_clean, tuned
from imagesr.engines.chain import MAX_SCALE, load_chain, native_scale, reach, whole_unit
from imagesr.engines.tiles import TILE, cut
from imagesr.errors import ModelError
from imagesr.image.bounds import SLACK, within_local_range
from imagesr.media.coding import Coding
from imagesr.media.grain import with_grain
from imagesr.media.photo_coding import examine_photo
from imagesr.media.photos import (
    Picture,
    Spool,
    check_size,
    from_array,
    has_alpha,
    mirrored,
    peak,
    reduced,
    region,
    without_hidden_colours,
)
from imagesr.pixels import luma_of, weights
from imagesr.scale import Scale

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
MODEL = "best"
SMALLEST_TILE = 64
_STUDIO = 219 / 255  # full range to studio range, of which luma networks are
_ROUNDED = 1e-3  # what floating point may lie outside [0, 1]; it is cut off
_SEEN = 1024  # pixels a side from the middle of a photograph, whose noise is measured
_FINE = 257  # steps of a 16-bit engine per 8-bit code


def load_photo_engines(model: str, scale: Scale, **options) -> list[Engine]:
    """Load the engines that reach a scale one after another, at 16 bits: RGB goes to luma and back, and rounds once.

    `model` is a name, of which the flavour for photographs is taken, or a folder. `options` are those of `load_engine`.
    Raises ModelError.
    """
    cards = models_for("photographs", model) if scale != Scale(1) else [of_own_size("photographs", model)]
    if any(card.size or card.channels not in (1, 3) for card in cards):
        raise ModelError(f"Expected a network for grey or RGB pictures of any size. Received: {model}")
    return load_chain(cards, scale, bits=16, **options)


def photo_scale(size: tuple[int, int], scale: Scale, box: tuple[int, int] | None = None) -> Scale:
    """Return the scale of a picture of (width, height): `scale`, or that by which it fits into `box`.

    Raises ValueError for a scale below 1 and above MAX_SCALE, and for a box that is not larger than the picture.
    """
    if box:
        factor = min(Fraction(box[0], size[0]), Fraction(box[1], size[1]))
        if not 1 < factor <= MAX_SCALE:
            raise ValueError(
                f"Expected a size above the picture's own, {size[0]}x{size[1]}, and up to {MAX_SCALE} times as large. "
                f"Received: {box[0]}x{box[1]}"
            )
        scale = Scale(factor.numerator, factor.denominator)
    if not 1 <= float(scale) <= MAX_SCALE:
        raise ValueError(f"Expected a scale from 1 to {MAX_SCALE}. Received: {float(scale):g}")
    return scale


def upscaling(
    picture: Picture,
    size: tuple[int, int],
    engines: Sequence[Engine],
    *,
    tta: bool = False,
    tile: int = TILE,
    fixed: bool = False,
    grain: float = 0.0,
    spools: ExitStack,
) -> Generator[float, None, Picture]:
    """Upscale a picture tile by tile: yield the share of the picture that each tile is, return the new picture.

    Luma, and alpha as if it were luma, go through the networks; colours are upscaled by bicubic, as on video. Networks
    of RGB take all of it, but for alpha. Where the networks go beyond `size`, Lanczos brings the result down to it.

    Args:
        picture: Grey or RGB, with or without alpha.
        size: (width, height) of the result in pixels.
        engines: Networks to run one after another, at 16 bits; those that would do nothing (`idle`) are left out.
        tta: Average over the eight turned and mirrored versions of every tile (EDSR, arXiv 1707.02921, section 3.4).
        tile: Longest side of a tile with its margins, in LR pixels.
        fixed: Give every tile the same shape, whatever the picture's size; small pictures are mirrored out to it.
        grain: Painted on the result, from 0 to 1.
        spools: Holds the tiles of the result in a temporary file. Close it when the result is written.
    """
    if has_alpha(picture):
        picture = without_hidden_colours(picture)
    engines = [engine for engine in engines if not idle(engine)]
    scale = native_scale(engines)
    native = scale.grow(picture.width), scale.grow(picture.height)
    check_size(native)
    white = peak(picture)
    # Rounded once, at the very end.
    spool = spools.enter_context(Spool(native, picture, picture.format if native == size else "float"))

    unit = whole_unit([engine.card for engine in engines])
    # With tta lying and upright tiles have one shape: runtimes compile for a shape.
    how = {"unit": unit, "margin": reach(engines), "tile": tile, "fixed": fixed, "square": tta}
    grid = cut((picture.width, picture.height), **how)
    # Beyond its edges the picture is mirrored: zeros beyond a network's own border cost a code or two along it.
    around = mirrored(picture, grid.margin, grid.covered)
    for left, top in grid:
        lr = region(around, left, top, *grid.piece) * np.float32(255 / white)
        sr = _upscale_tile(lr, engines, tta, grid.used(left, top, unit))
        sr, *place = grid.kept(sr, left, top, scale)
        if grain:
            sr = with_grain(sr, place, grain, height=native[1])
        sr = np.clip(sr, 0, 255) * np.float32(white / 255)
        spool.write(sr if spool.dtype == np.float32 else np.rint(sr), *place)
        yield 1 / len(grid)
    result = spool.picture()
    return result if native == size else reduced(result, size, picture.format)


def idle(engine: Engine) -> bool:
    """Say whether an engine keeps the size, takes a clean, and is to take nothing away and to add nothing."""
    cleans = engine.card.scale == Scale(1) and engine.card.clean is not None
    return cleans and not engine.clean and not engine.detail


def _upscale_tile(lr, engines, tta, used):
    """Return a tile (h, w, bands) of samples from 0 to 255 upscaled, in floating point.

    Networks run on all of it, since runtimes compile for a shape. The rest is done for the (width, height) at its
    corner that is used.
    """
    # Behind colours comes alpha, of which no camera and no encoder took anything.
    colours, *alpha = np.split(lr, [lr.shape[2] - 1], 2) if lr.shape[2] in (2, 4) else [lr]
    cleaning = [engine for engine in engines if engine.card.scale == Scale(1)]
    enlarging = [engine for engine in engines if engine.card.scale != Scale(1)]
    colours = _through(cleaning, colours, tta, lr.shape[1::-1])
    # What is to be transparent, or opaque, is so exactly.
    upscaled = [_through(enlarging, colours, tta, used), *(_through(enlarging, a, tta, used, slack=0.0) for a in alpha)]
    return np.concatenate(upscaled, 2)


def _through(engines, whole, tta, used, *, slack=SLACK):
    """Return grey or RGB samples (h, w, 1 or 3) that went through engines, those of the (width, height) at a corner."""
    width, height = used
    part, scale = whole[:height, :width], native_scale(engines)
    if not engines:
        return part

    def run(planes):
        planes = np.rint(np.clip(planes, 0, 255) * _FINE).astype(np.uint16)
        for engine in engines:
            planes = (_self_ensemble(engine) if tta else engine)(np.ascontiguousarray(planes)[np.newaxis])[0]
        return planes[: scale.grow(height), : scale.grow(width)].astype(np.float32) / _FINE

    grey = part.shape[2] == 1
    if engines[0].card.channels == 3:
        sr = run(np.broadcast_to(whole, (*whole.shape[:2], 3)))
        return sr.mean(2, keepdims=True) if grey else sr
    if grey:
        sr = (run(whole * _STUDIO + 16) - 16) / _STUDIO
        return within_local_range(sr, part, scale, slack=slack)
    # In YCbCr a change of luma alone moves red, green and blue by the same amount.
    coarse = _bicubic(part, scale)
    change = run(luma_of(whole)[..., np.newaxis]) - luma_of(coarse)[..., np.newaxis]
    return within_local_range(coarse + change / _STUDIO, part, scale)


def _bicubic(tile, scale):
    """Upscale a tile by bicubic interpolation, in floating point."""
    down, across = (weights(n, scale.grow(n), "bicubic") for n in tile.shape[:2])
    return np.moveaxis(down @ np.moveaxis(tile, 2, 0) @ across.T, 0, 2)


def _self_ensemble(engine):
    """Return a function that runs an engine on a tile in its eight orientations and averages the results."""

    def run(planes):
        total = 0.0
        for turned in (False, True):  # all of one shape first: runtimes compile for a shape
            for flips in ((), (1,), (2,), (1, 2)):
                seen = np.ascontiguousarray(np.flip(planes.swapaxes(1, 2) if turned else planes, flips))
                sr = np.flip(engine(seen), flips).astype(np.float32)
                total = total + (sr.swapaxes(1, 2) if turned else sr)
        return np.rint(total / 8).astype(planes.dtype)

    return run


def clean_of(head: bytes, picture: Picture) -> Coding:
    """Say what was lost of a photograph, by the `coding.HEAD` first bytes of its file and its noise in the middle."""
    width, height = (min(n, _SEEN) for n in (picture.width, picture.height))
    part = region(picture, (picture.width - width) // 2, (picture.height - height) // 2, width, height)
    colours = part[..., : 3 if part.shape[2] > 2 else 1] * np.float32(255 / peak(picture))
    return examine_photo(head, colours)


def last(steps: Generator[Any, None, T], advance: Callable[[Any], Any] = lambda step: None) -> T:
    """Run a generator to its end and return its result; `advance` is called with all that it yields."""
    while True:
        check_interrupted()
        try:
            advance(next(steps))
        except StopIteration as end:
            return end.value


class PhotoUpscaler:
    """Upscale photographs as arrays or Pillow images; the engines stay loaded.

    `model` is a name, of which the flavour for photographs is taken, or a folder. `tta` averages over eight
    orientations. `detail` is from 0 to 1, for models that take it. `clean`, too: how much was lost to compression and
    noise. A scale of 1 keeps the size, and cleans. `scale` is a Scale, `card` and `precision` are those of the first
    engine that enlarges.
    """

    def __init__(
        self,
        model: str = MODEL,
        scale: Scale | float | str = 2,
        *,
        tta: bool = False,
        tile: int = TILE,
        threads: int = 0,
        detail: float | None = None,
        clean: float | None = None,
    ):
        self.scale = photo_scale((1, 1), Scale.parse(scale))
        self._engines = load_photo_engines(model, self.scale, threads=threads, detail=detail, clean=clean)
        own = next((engine for engine in self._engines if engine.card.scale != Scale(1)), self._engines[0])
        self.card, self.precision = own.card, own.precision
        self._options = {"tta": tta, "tile": tile}

    def __call__(self, picture: np.ndarray | Image.Image, *, clean: float | None = None) -> np.ndarray | Image.Image:
        """Return the picture upscaled, of the same kind; see `upscale_image`.

        `clean` is for this picture, None is the one that the model was loaded with.
        """
        if not isinstance(picture, np.ndarray):
            return _on_pillow(partial(self, clean=clean), picture)
        if clean is not None:
            cards = [engine.card for engine in self._engines]
            checked_clean(clean, next((card for card in cards if card.clean is not None), self.card))
        lr = picture[..., np.newaxis] if picture.ndim == 2 else picture
        _check_array(picture, lr)
        source = from_array(lr.astype(np.float32) if lr.dtype.kind == "f" else lr)
        size = self.scale.grow(source.width), self.scale.grow(source.height)
        with ExitStack() as spools:
            sr = last(upscaling(source, size, tuned(self._engines, clean=clean), spools=spools, **self._options))
            result = region(sr, 0, 0, *size).astype(picture.dtype)
        return result[..., 0] if picture.ndim == 2 else result


def _check_array(picture, lr):
    if lr.ndim != 3 or lr.shape[2] > 4 or 0 in lr.shape or lr.dtype.kind not in "uf" or lr.dtype.itemsize > 8:
        raise ValueError(
            "Expected an array (H, W) or (H, W, 1 to 4) of uint8, uint16 or floating point in [0, 1]. "
            f"Received: {picture.dtype} {picture.shape}"
        )
    if lr.dtype.kind == "u" and lr.dtype.itemsize > 2:
        raise ValueError(f"Expected samples of 8 or 16 bits, or floating point. Received: {picture.dtype}")
    if lr.dtype.kind == "f":
        low, high = float(lr.min()), float(lr.max())  # NaN where one of them is
        if not (low >= -_ROUNDED and high <= 1 + _ROUNDED):
            raise ValueError(f"Expected floating point in [0, 1]. Received: {low:g} to {high:g}")


def upscale_image(
    picture: np.ndarray | Image.Image,
    *,
    scale: Scale | float | str = 2,
    model: str = MODEL,
    tta: bool = False,
    tile: int = TILE,
    threads: int = 0,
    detail: float | None = None,
    clean: float | None = None,
) -> np.ndarray | Image.Image:
    """Upscale a picture: an array (H, W) or (H, W, 1 to 4) of uint8, uint16 or floating point in [0, 1], or Pillow's.

    Two and four channels are grey and RGB with alpha. The result is of the same kind. Pillow's palettes become RGB,
    and a transparent colour becomes alpha. `detail` is from 0 to 1, for models that take it. `clean` is how much was
    lost to compression and noise, from 0, the default, to 1; with a scale of 1 the picture is cleaned alone. The
    engines of the last options stay loaded for the next call. Raises ValueError for what is no picture, for floating
    point outside [0, 1] or NaN, and ModelError.

    Example:
        large = imagesr.upscale_image(Image.open("photo.jpg"), scale=2)
    """
    return _kept_upscaler(str(model), Scale.parse(scale), tta, tile, threads, detail)(picture, clean=clean)


@lru_cache(maxsize=1)
def _kept_upscaler(model, scale, tta, tile, threads, detail):
    return PhotoUpscaler(model, scale, tta=tta, tile=tile, threads=threads, detail=detail)


def _on_pillow(upscale, picture):
    from PIL import Image

    if not isinstance(picture, Image.Image):
        raise ValueError(
            f"Expected a NumPy array or a Pillow image. Received: {type(picture).__name__}; "
            "PIL.Image.open reads a file, `imagesr image` upscales files"
        )
    see_through = picture.has_transparency_data
    if see_through and picture.mode == "I;16":
        raise ValueError("Expected no transparent colour in grey of 16 bits. Received one; delete info['transparency']")
    if picture.mode in ("P", "PA", "1") or (see_through and picture.mode in ("L", "RGB")):
        grey = picture.mode in ("1", "L")
        picture = picture.convert(("LA" if grey else "RGBA") if see_through else "L" if grey else "RGB")
    if picture.mode not in ("L", "LA", "RGB", "RGBA", "I;16"):
        raise ValueError(f"Expected a picture of the mode L, LA, RGB, RGBA, I;16, P or 1. Received: {picture.mode}")
    result = Image.fromarray(upscale(np.asarray(picture)))
    result.info = {key: value for key, value in picture.info.items() if key != "transparency"}
    return result
