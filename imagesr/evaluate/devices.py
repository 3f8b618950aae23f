"""The devices of this machine that networks can run on, how fast, and how exactly: `imagesr devices`."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from imagesr.card import ModelCard, find_model
from imagesr.cli import Parser, run_command
from imagesr.engines import DEVICES, ENGINES, import_engine, load_engine
from imagesr.scale import Scale

SIZE = (1280, 720)  # of the frame that is timed
_WARM, _TIMED = 3, 15  # frames


@dataclass
class Measured:
    """Hold what one model did on one device; `difference` is the largest from the CPU at fp32, in codes of 8 bits."""

    device: str
    engine: str
    model: str
    precision: str = ""
    milliseconds: float | None = None
    difference: int | None = None
    failed: str = ""


def found() -> dict[str, list[str]]:
    """Return the devices of this machine, each with the runtimes that drive it; those not installed are left out."""
    there: dict[str, list[str]] = {}
    for engine, runtime in ENGINES.items():
        if len(runtime.devices) < 2:  # for exported formats, which run on the CPU only
            continue
        try:
            here = import_engine(engine).devices()
        except (ImportError, ValueError):  # also a backend of Keras that is not installed
            continue
        for device, own in runtime.devices.items():
            if own in here:
                there.setdefault(device, []).append(engine)
    return there


def measure(cards: list[ModelCard], devices: dict[str, list[str]]) -> Iterator[Measured]:
    """Yield what each model does on each device: the median of 15 frames, after 3 that compile and warm."""
    frame = _frame()
    for card in cards:
        reference = load_engine(card, precision="fp32")(frame).astype(np.int16)
        for device, engines in devices.items():
            for engine in engines:
                row = Measured(device, engine, f"{card.name} x{card.scale}")
                try:
                    run = load_engine(card, engine=engine, device=device)
                    row.precision = run.precision
                    row.difference = int(np.abs(run(frame).astype(np.int16) - reference).max())
                    row.milliseconds = round(1000 * _seconds(run, frame), 1)
                except Exception as error:  # drivers raise whatever they like: the others are listed all the same
                    row.failed = next(iter(str(error).splitlines()), type(error).__name__)
                yield row


def table(rows: list[Measured]) -> str:
    """Format the rows as a Markdown table."""
    lines = [
        "| device | runtime | model | precision | ms per 720p frame | largest difference, codes |",
        "|" + "---|" * 6,
    ]
    for row in rows:
        time_, codes = (row.failed, "") if row.failed else (f"{row.milliseconds:.1f}", row.difference)
        lines.append(f"| {row.device} | {row.engine} | {row.model} | {row.precision} | {time_} | {codes} |")
    return "\n".join(lines)


def devices(options: argparse.Namespace) -> int:
    """Print the devices and, for each, time and exactness of the models."""
    cards, there = [find_model(name, Scale(3, 2)) for name in options.model], found()
    print(table(list(measure(cards, there))))
    print(f"\nDifferences are from the CPU at fp32. {_missing(there)}")
    return 0


def _missing(there):
    absent = [device for device in DEVICES if device not in there]
    return f"Not on this machine, or without a driver: {', '.join(absent)}." if absent else ""


def _frame():
    """Return a frame that moves through all of the range, smooth and sharp, with noise; (1, H, W, 1) uint8."""
    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).normal(0, 6, (height, width))
    luma = 128 + 70 * np.sin(x / 31) * np.cos(y / 23) + 30 * ((x // 24 + y // 18) % 2) + noise
    return np.clip(luma, 0, 255).astype(np.uint8)[np.newaxis, ..., np.newaxis]


def _seconds(run: Callable[[np.ndarray], np.ndarray], frame):
    times = []
    for _ in range(_WARM + _TIMED):
        begun = time.perf_counter()
        run(frame)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[_WARM:])


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser(
        prog="imagesr devices",
        description="List the devices that networks can run on here, with time and exactness of a 720p frame.",
        examples="""
            imagesr devices
            imagesr devices -n fast best
            imagesr video in.mp4 out.mp4 --device gpu
        """,
    )
    add = parser.add_argument
    add("-n", "--model", nargs="+", default=["balanced"], help="models to run (default: balanced)")
    return run_command("devices", devices, parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
