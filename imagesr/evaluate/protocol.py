"""Measure a model on pictures: HR to LR, upscaled, compared; and load models for that."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imagesr.card import ModelCard, find_model, with_cleaner
from imagesr.cli import check_interrupted
from imagesr.depth.maps import DepthSource, as_channels, near_edges
from imagesr.engines import Engine, Following, Tuned, checked_clean, checked_detail, import_engine, load_engine
from imagesr.engines.tiles import tiled
from imagesr.errors import ModelError
from imagesr.evaluate.clips import Condition, See
from imagesr.evaluate.sheet import Worst
from imagesr.evaluate.table import COLUMNS
from imagesr.image.upscale import PhotoUpscaler
from imagesr.media.frames import Frame, Resizer, VideoInfo
from imagesr.media.images import read_rgb
from imagesr.metrics.fidelity import CEILING, figures, means, psnr
from imagesr.pixels import downscale, luma, resize, with_luma
from imagesr.scale import Scale
from imagesr.video.upscaler import Upscaler

BASELINES = ("bicubic", "lanczos")
_PLAIN = Condition()


def evaluate(
    upscale: Callable[[np.ndarray], np.ndarray],
    paths: Sequence[Path],
    scale: Scale,
    *,
    condition: Condition = _PLAIN,
    measure: Callable[..., dict[str, float]] = figures,
    worst: Worst | None = None,
    depth: DepthSource | None = None,
    edges: DepthSource | None = None,
    see: See | None = None,
) -> dict:
    """Measure `upscale`, a function from LR RGB to SR, luma (H, W) or RGB (H, W, 3), on HR pictures.

    LR is an RGB picture of 8 bits, as in the benchmarks since EDSR; earlier papers upscale luma that was never
    rounded, 0.02 dB better. PSNR-Y and SSIM-Y compare BT.601 luma of 8 bits, PSNR-RGB all three samples, without `up`
    border pixels. Where SR is luma, its colours are LR's chroma upscaled by bicubic, as papers show it: PSNR-RGB then
    says what is left of the gain in colour. `measure` may be the result of `perceptual_figures`. With `depth`,
    `upscale` is given the map as well. `see` is given LR as a frame before it is upscaled. With `edges`, PSNR-Y is also
    that of the pixels within `up` of a jump of depth, `psnr_edges`. Returns the means under `psnr_y`, `ssim_y`,
    `psnr_rgb` …, and a list with each picture's as `images`.
    """
    images = []
    for path in paths:
        check_interrupted()
        lr, hr = downscale(picture := read_rgb(path), scale, condition.kernel)
        lr, hr_y = condition.coded_picture(lr, see), luma(hr)
        sources = {depth, edges} - {None}
        maps = {source: source(path, lr, picture.shape[:2])[: len(hr), : hr.shape[1]] for source in sources}
        sr = upscale(lr, maps[depth]) if depth else upscale(lr)
        sr_y, sr = (sr, with_luma(resize(lr, hr_y.shape[::-1]), sr)) if sr.ndim == 2 else (luma(sr), sr)
        images.append({"image": path.name, **measure(sr_y, hr_y, sr, hr, shave=scale.up)})
        if edges and (near := near_edges(maps[edges], scale.up))[scale.up : -scale.up, scale.up : -scale.up].any():
            images[-1]["psnr_edges"] = min(psnr(sr_y, hr_y, shave=scale.up, where=near), CEILING)
        if worst:
            worst.see(path.name, str(condition), sr_y, hr_y, lambda pictures=(lr, sr, hr): pictures)
    return means(images, COLUMNS) | {"images": images}


def upscaler(model: str, scale: Scale, **options) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from LR RGB to SR of a model: luma (H, W) of a luma network, else RGB (H, W, 3).

    `model` and `options` are those of `load_network`. Raises ModelError.
    """
    return on_pictures(model, load_network(model, scale, **options), scale)


def load_network(
    model: str,
    scale: Scale | None,
    *,
    engine: str | None = None,
    precision: str = "auto",
    detail: float | None = None,
    clean: float | str | None = None,
) -> Engine | None:
    """Load a saved model by name or folder, or a .keras file; None for `bicubic` and `lanczos`.

    The scale of a .keras file may be None, its own. `engine`, `precision`, `detail` and `clean` are those of
    `load_engine`; a .keras file is run by Keras in float32, at detail 0 and clean 0 unless others are given. With the
    clean `auto` the engine is a `Following`, which `measure_clip` and `evaluate` set by what they see of LR; a model
    that takes no clean runs as it is. For photographs, whose cleaning is a network of its own, it is `Photographs`.
    Raises ModelError.
    """
    if model in BASELINES:
        return None
    if clean is not None and not model.endswith(".keras") and cleaned_before(find_model(model, scale)):
        if engine or precision != "auto":
            raise ModelError(
                f"Expected no engine and no precision with a clean of {model}. Received: {engine or precision}"
            )
        auto = clean == "auto"
        upscaler = PhotoUpscaler(model, scale, detail=detail, clean=None if auto else clean)
        return Photographs(upscaler, detail, 0.0 if auto else clean, auto=auto)
    if clean == "auto":
        loaded = load_network(model, scale, engine=engine, precision=precision, detail=detail)
        return loaded if loaded.card.clean is None else Following(loaded)
    if model.endswith(".keras"):
        if engine not in (None, "keras") or precision not in ("auto", "fp32"):
            raise ModelError(f"Expected the engine keras and fp32 for a .keras file. Received: {engine}, {precision}")
        return _load_keras(Path(model), scale, detail, clean)
    card = find_model(model, scale)
    if card.size:
        raise _fixed_size(model, card.size)
    return load_engine(card, engine=engine, precision=precision, detail=detail, clean=clean)


@dataclass
class Photographs(Tuned):
    """Upscale RGB (H, W, 3) as `imagesr image` does, cleaned first; with `auto`, `clean` is set by what is seen."""

    auto: bool = False

    def __call__(self, lr: np.ndarray, depth: np.ndarray | None = None) -> np.ndarray:
        return self.engine(lr, clean=self.clean)


def cleaned_before(card: ModelCard) -> bool:
    """Say whether pictures are cleaned by another network before a model enlarges them: one for photographs."""
    return card.flavour == "photo" and any(other.clean is not None for other in with_cleaner([card])[1:])


def _fixed_size(model, size):
    height, width = size
    return ModelError(f"Expected a network for pictures of any size. Received: {model}, for {width}x{height} alone")


def _load_keras(path, scale, detail, clean):
    """Load a network that has no card."""
    if not path.is_file():
        raise ModelError(f"Expected a .keras file. There is none at {path}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow prints details of the machine
    network = import_engine("keras").read_network(path, depth=True)
    return keras_engine(network, path.stem, scale, detail, clean, place=path)


def keras_engine(
    network: Callable,
    name: str,
    scale: Scale | None,
    detail: float | None,
    clean: float | None = None,
    *,
    place: Path | str | None = None,
) -> Engine:
    """Return an engine that runs a keras.Model that `checked_network` returned, with a card that is made for it.

    `place` is where the network comes from, for messages. Raises ModelError for another scale than `scale`, unless that
    is None, and for a network of one size.
    """
    runtime = import_engine("keras")
    from imagesr.depth.network import DEPTH_REACH, without_depth
    from imagesr.models import cost
    from imagesr.models.layers import at_detail, numbers_of

    model, place = without_depth(network), place or name
    takes_depth = model is not network
    _, *size, channels = model.inputs[0].shape
    if size != [None, None]:
        raise _fixed_size(place, size)
    own = cost.model_scale(model)
    if scale not in (None, own):
        raise ModelError(f"Expected the scale of {place} ({own}). Received: {scale}")
    card = ModelCard(
        name=name,
        scale=own,
        channels=channels,
        multiple=cost.multiple(model),
        receptive_field=max(cost.receptive_field(model), 2 * DEPTH_REACH * own.down * takes_depth),
        parameters=cost.parameters(model),
        multiply_accumulates=cost.multiply_accumulates(model),
        config={},
        config_sha256="",
        data=[],
        measured={},
        sha256={},
        **dict.fromkeys(numbers_of(model), 0.0),
    )
    own = checked_detail(detail, card) or 0.0, checked_clean(clean, card) or 0.0

    def run(planes, *guide):
        lr = planes.astype(np.float32) / 255
        if guide and takes_depth:
            sr = network([lr, *guide], training=False)
        else:
            detail, clean = (mine if given is None else given for mine, given in zip(own, guide or own, strict=True))
            sr = at_detail(model, detail, clean)(lr, training=False)
        return np.rint(np.clip(runtime.keras.ops.convert_to_numpy(sr) * 255, 0, 255)).astype(np.uint8)

    run.card, run.precision, run.takes_depth = card, "fp32", takes_depth
    run.detail, run.clean = own
    return run


def on_pictures(model: str, engine: Engine | None, scale: Scale) -> Callable[..., np.ndarray]:
    """Return the function from LR RGB, and a depth map where there is one, to SR; `engine` is None for a baseline."""
    if isinstance(engine, Photographs):
        return engine
    if engine is None:
        return lambda lr, depth=None: resize(lr, (scale.grow(lr.shape[1]), scale.grow(lr.shape[0])), model)
    card = engine.card
    halo = card.receptive_field // 2 + card.multiple

    def upscale(lr, depth=None):
        planes = luma(lr) if card.channels == 1 else lr
        guide = None if depth is None or not getattr(engine, "takes_depth", False) else as_channels(depth)
        return tiled(engine, planes, scale=scale, multiple=card.multiple, halo=halo, guide=guide)

    return upscale


def on_frames(model: str, engine: Engine | None) -> Callable[[VideoInfo, tuple[int, int]], Callable[[Frame], Frame]]:
    """Return the function that makes an upscaler of a clip's frames; `engine` is None for a baseline.

    It takes the LR clip's info and HR's (width, height).
    """

    if isinstance(engine, Photographs):
        raise ModelError(f"Expected pictures with a clean of {model}, which is for photographs. Received: clips")

    def make(info: VideoInfo, size: tuple[int, int]) -> Callable[[Frame], Frame]:
        if model == "bicubic":
            return Resizer(*size, info.pix_fmt, kernel="bicubic")
        return Upscaler(info, size, [engine] if engine else [])

    return make
