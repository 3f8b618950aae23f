"""Play a video upscaled, with its sound: `imagesr play FILE`."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from imagesr.cli import DAMAGED, Parser, check_record, run_command
from imagesr.live.command import add_live_options, check_live_options, loading_options, open_window, run, tell

KEYS = (("space", "pause"), ("left, right", "5 s back and on"), ("down, up", "a minute back and on"))
STEPS = {"left": -5.0, "right": 5.0, "up": 60.0, "down": -60.0}


def _parser():
    parser = Parser(
        prog="imagesr play",
        description="Play a video upscaled, with its sound.",
        examples="""
            imagesr play film.mp4
            imagesr play film.mp4 --start 90 -n best
        """,
        epilog="More keys than those of imagesr webcam: " + "; ".join(f"{key}: {what}" for key, what in KEYS),
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the video")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="begin at S seconds")
    parser.add_argument("--mute", action="store_true", help="without sound")
    add_live_options(parser, clean="auto")
    return parser


def play(options: argparse.Namespace) -> int:
    """Open the film, upscale and show it until it ends; returns the exit code."""
    from imagesr.live.film import Film
    from imagesr.live.loop import Live, LiveUpscaler, Meter
    from imagesr.live.sinks import Nowhere
    from imagesr.media.coding import examine_film

    check_live_options(options)
    if not 0 <= options.start < float("inf"):
        raise ValueError(f"Expected a start of 0 s or later. Received: {options.start:g}")
    if options.json:
        check_record(options.json, [options.file])
    meter, mute = Meter(), options.mute or options.headless
    film = Film(options.file, start=options.start, mute=mute, meter=meter)
    upscaler = LiveUpscaler(
        film.info, options.model, str(options.scale), **loading_options(options, partial(examine_film, options.file))
    )
    title, instead = f"imagesr - {options.file.name}", "--headless measures, and imagesr video writes a file"
    sink = Nowhere()
    if not options.headless:
        sink = open_window(title, upscaler, film.info, split=options.split, instead=instead)
    if film.silent_because and not mute:
        tell(f"imagesr play: without sound: {film.silent_because}")

    def obey(key):
        if key == " ":
            film.pause()
        elif key in STEPS:
            film.seek(film.position + STEPS[key])
        elif key.startswith("seek ") and film.duration:
            film.seek(float(key.removeprefix("seek ")) * film.duration)

    code = run(Live(film, upscaler, meter=meter, stop=film.close), sink, upscaler, options, on_key=obey)
    if film.damage:
        tell(f"imagesr play: the film is damaged: {film.damage}")
    return code or (DAMAGED if film.damage else 0)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("play", play, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
