"""What `imagesr webcam` and `imagesr play` share: their options, their keys, how a run ends.

Nothing heavy is imported before it is needed: --help works without OpenCV.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagesr.card import models_for
from imagesr.cli import (
    CLEAN_HELP,
    DETAIL_HELP,
    DEVICE_HELP,
    GRAIN_HELP,
    Interrupted,
    clean_argument,
    scale_argument,
    share_argument,
)
from imagesr.engines import DEVICES, PRECISIONS, checked_clean
from imagesr.engines.chain import MAX_SCALE
from imagesr.files import write_whole
from imagesr.scale import Scale

if TYPE_CHECKING:
    from imagesr.live.loop import Live, LiveUpscaler, Sink
    from imagesr.media.coding import Coding
    from imagesr.media.frames import VideoInfo

_MODEL_HELP = "fast, balanced, best, lanczos, or a model's folder (default: auto, the best that holds the rate)"
LIVE_MODELS = ("auto", "fast", "balanced", "best", "lanczos")  # in the order in which the key m changes them
LIVE_SCALES = ("1.5", "2", "3")
KEYS = (
    ("q, Esc", "quit"),
    ("o", "figures on and off"),
    ("s", "split screen: Lanczos on the left; drag the line, or move it with [ and ]"),
    ("a", "A/B: all Lanczos, and back"),
    ("m", "next model: " + ", ".join(LIVE_MODELS)),
    ("z", "next scale: " + ", ".join(LIVE_SCALES)),
    ("f", "full screen and back"),
    ("p", "take a picture, as PNG in this folder"),
    ("r", "start and stop a recording, as MP4 in this folder"),
)


def tell(text: str) -> None:
    """Print a line on stderr: standard output may be a pipe of frames."""
    print(text, file=sys.stderr, flush=True)


def add_live_options(parser: argparse.ArgumentParser, *, clean: str | None = None) -> None:
    """Add the options that a camera and a film share; `clean` is the default of --clean."""
    add = parser.add_argument
    add("-s", "--scale", type=scale_argument, default=Scale(3, 2), help="factor, up to 8 (default: 1.5)")
    add("-n", "--model", default="auto", help=_MODEL_HELP)
    add("--precision", choices=PRECISIONS, default="auto", help="default: auto, the fastest on this CPU")
    add("--detail", type=share_argument, metavar="0..1", help=DETAIL_HELP)
    add(
        "--clean",
        type=clean_argument,
        default=clean,
        metavar="0..1",
        help=CLEAN_HELP.format(default=f"{clean or 0}, where the model takes it"),
    )
    add("--grain", type=share_argument, default=0.0, metavar="0..1", help=GRAIN_HELP)
    add("--device", choices=("auto", *DEVICES), default="auto", help=DEVICE_HELP)
    add("--threads", type=int, default=0, help="threads of the network (default: 0, every core)")
    add("--split", action="store_true", help="begin with the split screen against Lanczos")
    add("--seconds", type=float, metavar="S", help="end after S seconds")
    add("--headless", action="store_true", help="show nothing: to measure")
    add("--json", type=Path, metavar="FILE", help="write the figures to FILE")


def loading_options(options: argparse.Namespace, examine: Callable[[], Coding]) -> dict[str, Any]:
    """Return the options of `LiveUpscaler`.

    Where `--clean auto` is to be chosen, and a model that may run takes it, `examine` is asked, and its answer told.
    Raises ModelError for a number where the model takes none.
    """
    loading = {name: getattr(options, name) for name in ("device", "precision", "threads", "detail", "grain")}
    named = [options.model] if options.model not in LIVE_MODELS else []
    cards = {name: models_for("live", name) for name in (*named, *LIVE_MODELS[1:-1])}
    takes = [card for name in (cards if options.clean == "auto" else [options.model]) for card in cards.get(name, ())]
    takes = [card for card in takes if card.clean is not None]
    clean = options.clean
    if clean == "auto":
        clean = None
        if takes:
            tell(str(coding := examine()))
            clean = coding.clean
    elif clean is not None and options.model != "auto":
        checked_clean(clean, (*takes, *cards.get(options.model, ()), None)[0])
    return loading | {"clean": clean}


def check_live_options(options: argparse.Namespace) -> None:
    """Raise ValueError for a scale or a time that is out of range."""
    scale, lowest = options.scale, 0 if options.model == "lanczos" else 1
    if not lowest < float(scale) <= MAX_SCALE:
        raise ValueError(f"Expected a scale above {lowest} and up to {MAX_SCALE}. Received: {scale}")
    if options.seconds is not None and not options.seconds > 0:
        raise ValueError(f"Expected a time above 0 s. Received: {options.seconds:g}")


def open_window(title: str, upscaler: LiveUpscaler, info: VideoInfo, *, split: bool, instead: str) -> Sink:
    """Return a window; raises ValueError, with the alternative `instead`, where there is no screen."""
    from imagesr.live.window import View, Window, WindowError

    try:
        return Window(title, upscaler, info, view=View(split=0.5 if split else None))
    except WindowError as error:
        raise ValueError(f"Expected a screen for the window: {error}. Without one: {instead}") from None


def run(live: Live, sink: Sink, upscaler: LiveUpscaler, options: argparse.Namespace, **more) -> int:
    """Run a live loop to its end, print its figures, write them to `--json`, and return the exit code.

    `more` are options of `Live.run`.
    """
    code = 0
    try:
        live.run(sink, seconds=options.seconds, **more)
    except BrokenPipeError:  # the reader of the pipe has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (Interrupted, KeyboardInterrupt) as error:  # the figures so far are printed
        code = 128 + getattr(error, "number", signal.SIGINT)
    finally:
        sink.close()
        upscaler.close()
    figures = live.as_dict() | {"model": upscaler.model, "scale": upscaler.scale, "size": list(upscaler.size)}
    figures["shares"] = upscaler.shares
    latency = figures["latency_ms"]
    by = ", ".join(f"{name} {share:.0%}" for name, share in upscaler.shares.items())
    tell(
        f"{figures['frames']} frames shown, {figures['dropped']} dropped, {figures['fps']:.1f} fps, latency "
        f"{latency['p50']:.0f} ms (95 % within {latency['p95']:.0f} ms); by {by}"
    )
    if options.json:
        write_whole(options.json, json.dumps(figures, indent=1) + "\n")
    return code
