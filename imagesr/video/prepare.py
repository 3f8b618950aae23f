"""A video opened, and what upscales and encodes it: models found and loaded, sizes and encoders chosen."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from imagesr.card import ModelCard, models_for, of_own_size
from imagesr.engines import Engine, checked_clean, checked_detail, load_engine
from imagesr.engines.chain import chain, load_chain
from imagesr.errors import ModelError
from imagesr.media.coding import Coding, examine_film, examine_frames
from imagesr.media.containers import FORMATS, TURNS
from imagesr.media.encoders import played_format
from imagesr.media.frames import VideoInfo, halved
from imagesr.media.grain import Grain
from imagesr.media.opening import PIPE
from imagesr.media.source import Source
from imagesr.scale import Scale
from imagesr.video.encoding import check_target, choose_encoders, keeps_transparency
from imagesr.video.options import LADDER, OWN, Options
from imagesr.video.realtime import Ladder, Pace, ladders
from imagesr.video.upscaler import Upscaler, pixel_shape, target_size

MAX_PARALLEL = 4  # each frame in the works takes memory
MAX_SIDE = 16_384  # pixels, of a result


@dataclass(frozen=True)
class Tools:
    """What is known before the input is opened: the models' cards, how engines are loaded, encoders that work."""

    cards: Sequence[ModelCard]
    loading: dict[str, Any]
    encoders: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Prepared:
    """An open input and what is made of it; `encoding` are the keyword arguments of a Writer, {} for a pipe.

    `reopen` opens the input once more. `pace` chooses among models where a rate is held. `expected` counts frames, None
    where that is unknown. `clean` is what models that take it run at, None where none does, and `coding` what it
    follows from, where it was not given.
    """

    source: Source
    reopen: Callable[[], Source]
    target: tuple[int, int]
    engines: Sequence[Engine]
    upscalers: Sequence[Upscaler | Ladder]
    pace: Pace | None
    encoding: dict[str, Any]
    expected: int | None
    clean: float | None = None
    coding: Coding | None = None

    @property
    def info(self) -> VideoInfo:
        """The input, with the tags that the output gets."""
        return self.source.info


def find_tools(out: Path, options: Options) -> Tools:
    """Find models and encoders and try them out; raises ValueError where one is missing or does not work here."""
    cards, loading = _find_cards(options.model), _loading(options)
    if cards and not options.size and options.scale == Scale(1):
        cards = [of_own_size("video", options.model)]
    encoders = choose_encoders(options, out.suffix.lower()) if out != PIPE else {"": {}}
    # Those of another scale may take no detail, and with a rate to hold, other models of the ladder may take a clean.
    first = next((card for card in cards if card.detail is not None), cards[0]) if cards else None
    able = [*cards, *(card for some in _ladder(options, []) for card in some)]
    checked_detail(options.detail, next((card for card in able if card.detail is not None), first))
    if options.clean not in ("auto", None):
        checked_clean(options.clean, next((card for card in able if card.clean is not None), first))
    if first:
        own = loading if first.detail is not None else loading | {"detail": None}
        load_engine(first, **own)  # so that a precision that this CPU lacks is told before the input is opened
    return Tools(cards, loading, encoders)


def prepare(stack: ExitStack, path: Path, out: Path, options: Options, tools: Tools) -> Prepared:
    """Open an input until the stack is closed, and load what upscales it; raises ValueError or InputError."""
    source, reopen, encoders = _source(stack, path, out, options, tools.encoders)
    info = source.info
    pix_fmt = _pixel_format(source, encoders, options) if out != PIPE else None
    sampled = replace(info, halved=halved(pix_fmt)) if pix_fmt else info
    target = target_size(sampled, scale=options.scale, box=options.size, square=options.square)
    _check_target(target, info, options, tools.cards)
    source.tag_for(target[1])
    info = source.info
    clean, coding = _clean(path, source, options, tools.cards, factor_of(info, target, options))
    loading = tools.loading | {"clean": clean}
    engines = _load(tools.cards, info, target, options, loading)
    upscalers, pace = _upscalers(info, target, engines, options, loading)
    encoding = _encoding(source, target, encoders, options) | {"pix_fmt": pix_fmt} if out != PIPE else {}
    expected = _expected_frames(info, options)
    return Prepared(source, reopen, target, engines, upscalers, pace, encoding, expected, clean, coding)


def _clean(path, source, options, cards, factor):
    """Return the clean that models run at, None where none takes it, and the Coding that it follows from.

    It is that of the whole film, whichever part is upscaled: a preview shows what the film will be.
    """
    if options.clean != "auto":
        return options.clean, None
    if not any(card.clean is not None for some in _ladder(options, cards) if some for card in chain(some, factor)):
        return None, None
    coding = examine_frames([source.first]) if path == PIPE else examine_film(path, rate=options.rate)
    return coding.clean, coding


def _ladder(options, cards):
    """Return the cards of each model that may run: with a rate to hold, of the whole ladder."""
    return [cards] if options.realtime is None else [models_for("live", name) for name in LADDER[:-1]]


def _find_cards(model):
    """Return the cards of a model; none for plain Lanczos. Raises ModelError."""
    if model == "lanczos":
        return []
    try:
        return models_for("video", model)
    except ModelError as error:
        raise ModelError(f"{error}; or lanczos, for plain resizing") from None


def _loading(options):
    """Return the options of `load_engine`."""
    # Frames are upscaled side by side: no core waits for another at the end of every layer. One more than there are
    # cores, so that a core is not idle while a frame is handed over.
    parallel = min((options.threads or os.cpu_count() or 1) + 1, MAX_PARALLEL)
    names = ("engine", "device", "precision", "threads", "detail")
    return {name: getattr(options, name) for name in names} | {"parallel": parallel}


def _source(stack, path, out, options, encoders):
    """Open the input; return it, what opens it once more, and the encoders, which may have to keep transparency."""
    suffix = out.suffix.lower()
    reopen = partial(_open, path, options, suffix)
    source = stack.enter_context(reopen())
    if source.has_alpha and out != PIPE:
        encoders = choose_encoders(options, suffix, alpha=True)
        if keeps_transparency(encoders, suffix):
            stack.close()
            reopen = partial(reopen, alpha=True)
            source = stack.enter_context(reopen())
    return source, reopen, encoders


def _open(path, options, suffix, *, alpha=False):
    part = {"start": options.start, "duration": options.duration, "threads": options.threads, "rate": options.rate}
    upright = FORMATS.get(suffix) not in TURNS
    return Source(
        path, **part, deinterlace=options.deinterlace, upright=upright, alpha=alpha, sound=options.audio != "none"
    )


def _encoder(info, encoders):
    """Return the name of the encoder: of those that may be needed, the last is for deeper video."""
    return list(encoders)[-1 if info.bits > 8 else 0]


def _pixel_format(source, encoders, options):
    """Return the pixel format to encode; None is the closest to the frames'. RGB becomes what players show."""
    if options.pix_fmt or not source.is_rgb:
        return options.pix_fmt
    return played_format(_encoder(source.info, encoders), source.info.pix_fmt)


def _check_target(target, info, options, cards):
    """Raise ValueError for a size that no encoder takes, or that is smaller than the input where networks upscale."""
    if max(target) > MAX_SIDE:
        raise ValueError(
            f"Expected an output of at most {MAX_SIDE} pixels a side. Received: {shown_size(info, target)}"
        )
    if cards and (target[0] < info.width or target[1] < info.height):
        given = "x".join(map(str, options.size)) if options.size else f"scale {options.scale}"
        raise ValueError(
            f"Expected a size of at least the input's {shown_size(info)}; {given} gives {shown_size(info, target)}. "
            "To make a video smaller, use --model lanczos"
        )


def shown_size(info: VideoInfo, size: tuple[int, int] | None = None) -> str:
    """Return the size of a video, or another one, in words, as it is displayed: 1080x1920 for a turned 1920x1080."""
    return "x".join(map(str, info.upright(size or (info.width, info.height))))


def _load(cards, info, target, options, loading):
    """Load the engines that reach the target size; none for plain Lanczos."""
    if not cards:
        return []
    factor = factor_of(info, target, options)
    chosen = chain(cards, factor)
    if options.realtime is not None:  # what these do not take is that of other models
        loading = loading | {
            name: None for name in ("detail", "clean") if all(getattr(c, name) is None for c in chosen)
        }
    return load_chain(cards, factor, bits=16 if info.bits > 8 else 8, **loading)


def factor_of(info, target, options):
    """Return the factor that engines have to reach."""
    if not options.size and not options.square:
        return options.scale
    return max(Fraction(target[0], info.width), Fraction(target[1], info.height))


def _upscalers(info, target, engines, options, loading):
    """Return what upscales frames, one of each thread, and the pace that chooses among models, None without."""
    threads = range(loading["parallel"] if engines else 1)
    grain = Grain(options.grain, target, info.bits) if options.grain else None
    if options.realtime is None:
        return [Upscaler(info, target, engines, grain=grain) for _ in threads], None
    fps = float(info.rate if options.realtime == OWN else options.realtime)
    return ladders(info, target, factor_of(info, target, options), fps, grain=grain, **loading)


def _encoding(source, size, encoders, options):
    """Return how a Writer encodes frames: its keyword arguments."""
    info = source.info
    name = _encoder(info, encoders)
    sounds = 0 if options.audio == "none" else len(source.container.streams.audio)
    check_target(options.target_size, length_of(info, options), sounds)
    return {
        "size": size,
        "codec": name,
        "options": encoders[name],
        "threads": options.threads,
        "shape": pixel_shape(info, square=options.square),
    }


def length_of(info, options):
    """Return how long the part that is read is; None where that is unknown."""
    left = (info.duration or float("inf")) - options.start
    seconds = min(options.duration or float("inf"), left)
    return seconds if 0 < seconds < float("inf") else None


def _expected_frames(info: VideoInfo, options):
    if options.duration is None and not options.start:
        return info.frames
    seconds = length_of(info, options)
    return round(seconds * info.rate) if seconds else None
