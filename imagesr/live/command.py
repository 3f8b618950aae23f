"""What the live doors share: their options, where their frames go, how a run ends."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

try:
    import cv2  # noqa: F401, before PyAV: with libxcb from PyAV's wheel, OpenCV's windows hang (PyAV issue 1050)
except ImportError as error:
    _MISSING = str(error).splitlines()[0]
else:
    _MISSING = ""

from imagesr.cli import NOT_STARTED, Interrupted, run_command, scale_argument
from imagesr.engines import PRECISIONS
from imagesr.engines.chain import MAX_SCALE
from imagesr.files import write_whole
from imagesr.live.loop import Enlarger, Live, Sink
from imagesr.media.frames import VideoInfo
from imagesr.scale import Scale

EXTRA = "pip install 'imagesr[live]' brings what cameras and windows need (on Debian also: apt install libgl1)"


def tell(text: str) -> None:
    """Print a line for the reader; standard output may be a pipe of frames."""
    print(text, file=sys.stderr, flush=True)


def add_live_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that a camera and a film share."""
    add = parser.add_argument
    add("-s", "--scale", type=scale_argument, default=Scale(3, 2), help="factor, up to 8 (default: 1.5)")
    add("-n", "--model", default="fast", help="fast, balanced, best, lanczos, or the folder of a model (default: fast)")
    add("--precision", choices=PRECISIONS, default="auto", help="default: auto, the fastest of this CPU")
    add("--threads", type=int, default=0, help="of the network (default: 0, every core)")
    add("--split", action="store_true", help="begin with the split screen against Lanczos")
    add("--seconds", type=float, metavar="S", help="end after this time")
    add("--headless", action="store_true", help="show nothing: to measure")
    add("--json", type=Path, metavar="FILE", help="write the figures to FILE")


def check_live_options(options: argparse.Namespace) -> None:
    """Raise ValueError for what cannot be right."""
    scale, lowest = options.scale, 0 if options.model == "lanczos" else 1
    if not lowest < float(scale) <= MAX_SCALE:
        raise ValueError(f"Expected a scale above {lowest} and up to {MAX_SCALE}. Received: {scale}")
    if options.seconds is not None and not options.seconds > 0:
        raise ValueError(f"Expected a time above 0 s. Received: {options.seconds:g}")


def open_window(title: str, enlarger: Enlarger, info: VideoInfo, *, split: bool, instead: str) -> Sink:
    """Return a window; raises ValueError, with what to do `instead`, where there is no screen."""
    from imagesr.live.window import View, Window, WindowError

    try:
        return Window(title, enlarger, info, view=View(split=0.5 if split else None))
    except WindowError as error:
        raise ValueError(f"Expected a screen for the window: {error}. Without one: {instead}") from None


def run(live: Live, sink: Sink, enlarger: Enlarger, options: argparse.Namespace, **more) -> int:
    """Run a live loop to its end, tell its figures, write them to `--json`, and return the exit code."""
    code = 0
    try:
        live.run(sink, seconds=options.seconds, **more)
    except BrokenPipeError:  # whoever read the frames has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (Interrupted, KeyboardInterrupt) as error:  # the figures so far are told
        code = 128 + getattr(error, "number", signal.SIGINT)
    finally:
        sink.close()
        enlarger.close()
    figures = live.as_dict() | {"model": enlarger.model, "scale": enlarger.scale, "size": list(enlarger.size)}
    latency = figures["latency_ms"]
    tell(
        f"{figures['frames']} frames shown, {figures['dropped']} dropped, {figures['fps']:.1f} fps, latency "
        f"{latency['p50']:.0f} ms (95 % within {latency['p95']:.0f} ms)"
    )
    if options.json:
        write_whole(options.json, json.dumps(figures, indent=1) + "\n")
    return code


def run_live(command: str, function: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run what a live door does and return its exit code; what goes wrong is told in one line."""
    if _MISSING:
        tell(f"imagesr {command}: it needs OpenCV ({_MISSING}). {EXTRA}")
        return NOT_STARTED
    return run_command(command, function, options)
