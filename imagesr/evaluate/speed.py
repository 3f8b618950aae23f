"""Time in this process: films end to end, the stages of a frame alone, networks beside the most that the CPU computes.

CPU time is that of all threads together. Unlike frames per second it stays about the same while others use the machine.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imagesr.card import ModelCard
from imagesr.engines import load_engine
from imagesr.evaluate.clips import FrameUpscaler
from imagesr.media.frames import Frame, VideoInfo, plane
from imagesr.media.source import Source
from imagesr.media.writer import Writer
from imagesr.scale import Scale
from imagesr.video.options import Options
from imagesr.video.pipeline import run
from imagesr.video.prepare import find_tools, prepare
from imagesr.video.report import Report
from imagesr.video.upscaler import Upscaler

ENCODING = {"crf": 18, "preset": "superfast"}  # figures are compared from year to year: these stay
_WARM, _TIMED = 2, 7
_STAGE_FRAMES = 24

Maker = Callable[[VideoInfo, tuple[int, int]], FrameUpscaler]  # from LR's info and SR's (width, height)


class Ran(NamedTuple):
    """Frames per second of a film, and milliseconds of CPU time a frame, decoder and encoder included."""

    fps: float
    cpu_ms: float


def machine() -> str:
    """Name the processor, its cores, and how busy they are."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text("utf-8").split("\n\n")[0].splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        name = f"{fields.get('model name', name)}, family {fields.get('cpu family', '?')}"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores{load}"


def cpu_seconds() -> float:
    """Return the CPU time of this process and of those that it has waited for."""
    return time.process_time() + sum(os.times()[2:4])


@contextmanager
def opened(clip: Path, out: Path, scale: Scale) -> Iterator[tuple[Source, tuple[int, int], int, Callable[[], Writer]]]:
    """Yield a film, the size that it gets, how many frames are upscaled side by side, and what makes its writer."""
    options = Options(model="lanczos", scale=scale, audio="none", **ENCODING)
    with ExitStack() as stack:
        tools = find_tools(out, options)
        ready = prepare(stack, clip, out, options, tools)
        parallel = tools.loading["parallel"]
        yield ready.source, ready.target, parallel, lambda: Writer(out, ready.source, sound="none", **ready.encoding)


def run_film(
    clip: Path, make: Maker, scale: Scale, out: Path, *, frames: int | None = None, seconds: float | None = None
) -> Ran:
    """Decode, upscale and encode a film as `imagesr video` does, at most so many frames or seconds of it.

    Networks are compiled before the clock starts.
    """
    with opened(clip, out, scale) as (source, size, parallel, writer_of):
        upscalers = [make(source.info, size) for _ in range(parallel)]
        blank = Frame(source.info.width, source.info.height, source.info.pix_fmt)
        blank.pts, blank.time_base = 0, source.info.time_base
        upscalers[0](blank)
        writer, report = writer_of(), Report()
        try:
            begun, spent = time.perf_counter(), cpu_seconds()

            def write(item):
                report.saw_frame()
                writer.write(item)

            films = (item for item in source if isinstance(item, Frame))
            run(_until(islice(films, frames), seconds), upscalers, write, report)
            writer.finish()
            wall, cpu = time.perf_counter() - begun, cpu_seconds() - spent
        finally:
            writer.discard()
    return Ran(report.frames / wall, 1000 * cpu / report.frames)


def run_ffmpeg(clip: Path, frames: int, folder: Path, filters: str) -> Ran | None:
    """Run ffmpeg's own filters with the same encoder, imageio-ffmpeg's or that in PATH; None where neither works."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        ffmpeg = get_ffmpeg_exe()
    except (ModuleNotFoundError, RuntimeError):
        ffmpeg = shutil.which("ffmpeg")
    if not ffmpeg:
        return None
    command = [ffmpeg, "-v", "error", "-y", "-i", str(clip), "-frames:v", str(frames), "-vf", filters]
    command += ["-c:v", "libx264", "-preset", "superfast", "-crf", "18", str(folder / "ffmpeg.mp4")]
    begun, spent = time.perf_counter(), cpu_seconds()
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        return None
    return Ran(frames / (time.perf_counter() - begun), 1000 * (cpu_seconds() - spent) / frames)


def _until(items: Iterable, seconds: float | None):
    begun = time.perf_counter()
    for item in items:
        yield item
        if seconds is not None and time.perf_counter() - begun > seconds:
            return


def shares(cards: list[ModelCard], size: tuple[int, int]) -> dict[str, dict[str, float]]:
    """Return, for each model, CPU-ms of a frame's network, its TOP/s, and the share of the int8 peak on one core.

    The peak, a large 3x3 convolution, is measured in turn with the networks. Raises ModelError.
    """
    from imagesr.engines.peak import int8_convolution  # OpenVINO, which --help does without

    frame = np.random.default_rng(0).integers(16, 236, (1, size[1], size[0], 1), np.uint8)
    peak, peak_operations = int8_convolution(threads=1)
    runs, operations = {"peak": peak}, {"peak": peak_operations}
    for card in cards:
        engine = load_engine(card, threads=1)
        runs[card.name] = lambda engine=engine: engine(frame)
        operations[card.name] = 2 * card.multiply_accumulates * size[0] * size[1]
    spent = _in_turn(runs)
    rates = {name: operations[name] / spent[name] / 1e12 for name in runs}
    return {
        name: {"cpu_ms": 1000 * spent[name], "tops": rate, "share": rate / rates["peak"]}
        for name, rate in rates.items()
    }


def _in_turn(runs):
    """Return the CPU seconds of each of several functions: the median of seven, taken in turn, after two that warm."""
    times = {name: [] for name in runs}
    for _ in range(_WARM + _TIMED):
        for name, function in runs.items():
            begun = time.process_time()
            function()
            times[name].append(time.process_time() - begun)
    return {name: statistics.median(spent[_WARM:]) for name, spent in times.items()}


def stages(clip: Path, card: ModelCard, folder: Path) -> dict[str, float]:
    """Return where the CPU time of a frame goes, in milliseconds, each stage alone, in order.

    `chroma` is the resizing of a whole frame, whose luma the network replaces. `copies` is what the upscaler does
    beside both: from the decoder's plane to the network, and on to the encoder's frame.
    """
    with opened(clip, folder / "stages.mp4", card.scale) as (source, size, _, writer_of):
        info, spent = source.info, cpu_seconds()
        frames = list(islice((item for item in source if isinstance(item, Frame)), _STAGE_FRAMES))
        figures = {"decode": (cpu_seconds() - spent) / len(frames)}
        network = _Clocked(load_engine(card, threads=1))
        upscaler = Upscaler(info, size, [network])
        upscaler._windows = None  # frames that are alike are computed, too
        upscaler._resize = chroma = _Clocked(upscaler._resize)  # where it runs: the planes are in the caches, or not
        whole = _Clocked(upscaler)
        results = [whole(frame) for frame in (frames[0], *frames)]  # the first one compiles
        figures["network"], figures["chroma"] = statistics.median(network.spent), statistics.median(chroma.spent)
        parts = zip(whole.spent, network.spent, chroma.spent, strict=True)
        figures["copies"] = statistics.median(all_ - net - resizing for all_, net, resizing in parts)
        writer = writer_of()
        try:
            spent = cpu_seconds()
            for result in results[1:]:
                writer.write(result)
            writer.finish()
            figures["encode"] = (cpu_seconds() - spent) / len(frames)
        finally:
            writer.discard()
        deep = _Clocked(load_engine(card, threads=1, bits=16))
        for frame in frames[: _WARM + _TIMED]:
            deep(plane(frame, 0).astype(np.uint16)[np.newaxis, ..., np.newaxis] << 8)
    figures["network, 10-bit video"] = statistics.median(deep.spent)
    return {name: 1000 * seconds for name, seconds in figures.items()}


class _Clocked:
    """Call a function, and keep the CPU seconds of every call in `spent`, but for the first, which compiles."""

    def __init__(self, function):
        self._function, self._calls, self.spent = function, 0, []

    def __call__(self, *arguments):
        begun = time.process_time()
        result = self._function(*arguments)
        self.spent += [time.process_time() - begun] * bool(self._calls)
        self._calls += 1
        return result

    def __getattr__(self, name):
        return getattr(self._function, name)
