"""A benchmark on this machine, of time for 30 frames, PSNR and parameters: `imagesr bench [CLIP]`.

With `--peers` it also measures what else upscales, and prints what was reached beside the targets. `--fit` tells within
seconds what this machine holds; `--training DIR`, whether training waits for its pictures.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from imagesr.card import ModelCard, saved_models
from imagesr.cli import Parser, check_record, install, run_command
from imagesr.engines import load_engine
from imagesr.errors import InputError
from imagesr.evaluate import speed
from imagesr.evaluate.clips import clip_info
from imagesr.evaluate.screen import write_screen
from imagesr.evaluate.speed import cpu_seconds, run_ffmpeg
from imagesr.files import write_whole
from imagesr.media.clips import first_frames_repeated
from imagesr.media.source import Source
from imagesr.scale import Scale
from imagesr.video.options import MAX_THREADS

SIZE = (1280, 720)  # of the frames that the network alone is timed on
TIMED_FRAMES = 30
QUALITY_FRAMES = 8  # that peers are compared on: texture takes a second of a 720p frame
TARGET_FRAMES = 600  # that the targets of speed are meant for: 20 s
FFMPEG = "ffmpeg lanczos"


def network_seconds(card: ModelCard, *, precision: str, threads: int, repeat: int) -> tuple[float, str]:
    """Return the median seconds for 30 luma frames of 720p through the network alone, and the precision it ran at."""
    engine = load_engine(card, precision=precision, threads=threads)
    frame = np.random.default_rng(0).integers(16, 236, (1, SIZE[1], SIZE[0], 1), np.uint8)
    for _ in range(5):
        engine(frame)
    times = []
    for _ in range(max(3, repeat)):
        begun = time.perf_counter()
        for _ in range(TIMED_FRAMES):
            engine(frame)
        times.append(time.perf_counter() - begun)
    return statistics.median(times), engine.precision


def end_to_end(model: str, clip: Path, frames: int, folder: Path, options: list[str]) -> dict:
    """Run `imagesr video` on the first `frames` frames in a process of its own; returns its report and `cpu_ms`."""
    rate = _rate(clip)
    record = folder / "report.json"
    command = [
        sys.executable,
        "-m",
        "imagesr.video",
        str(clip),
        str(folder / "out.mp4"),
        "-y",
        "-q",
        "--json",
        str(record),
    ]
    command += ["--crf", "18", "--preset", "superfast"]  # figures are compared from year to year: these stay
    command += ["-n", model, "--duration", f"{float((frames - Fraction(1, 2)) / rate):.6f}", *options]
    spent = cpu_seconds()
    done = subprocess.run(command, capture_output=True, text=True)
    spent = cpu_seconds() - spent
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"imagesr.video ended with {done.returncode}"])[-1]
        raise InputError(said.removeprefix("imagesr video: "))
    return json.loads(record.read_text("utf-8")) | {"cpu_ms": 1000 * spent / frames}


def _rate(clip):
    with Source(clip) as source:
        return source.info.rate


def bench(
    clip: Path, frames: int, *, repeat: int = 1, precision: str = "auto", threads: int = 0, tell=print
) -> list[dict]:
    """Measure `lanczos` and every shipped model, each `repeat` times, alternating, and return a row for each.

    The clip is repeated until it has `frames` frames. Medians are taken of every figure.
    """
    cards = {card.name: card for card in film_cards(Scale(3, 2))}
    options = ["--precision", precision, "--threads", str(threads)]
    runs: dict[str, list] = {name: [] for name in ("lanczos", *cards)}
    ffmpeg = []
    size = f"scale={SIZE[0] * 3 // 2}:{SIZE[1] * 3 // 2}:flags=lanczos"
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        looped = folder / "clip.mkv"
        first_frames_repeated(clip, frames, looped)
        for i in range(repeat):
            tell(f"round {i + 1} of {repeat}: {FFMPEG}, {', '.join(runs)}")
            ffmpeg.append(run_ffmpeg(looped, frames, folder, size))
            for name in runs:
                runs[name].append(end_to_end(name, looped, frames, folder, options))
    rows = []
    lanczos = [report["fps"] for report in runs["lanczos"]]
    if pairs := [(ran, own) for ran, own in zip(ffmpeg, lanczos, strict=True) if ran]:  # ffmpeg may fail in a round
        speeds = [ran.fps for ran, _ in pairs]
        fps = statistics.median(speeds)
        row = {"model": FFMPEG, "fps": round(fps, 1), "seconds_30_end_to_end": round(TIMED_FRAMES / fps, 3)}
        rows.append(
            row
            | {"cpu_ms": statistics.median(ran.cpu_ms for ran, _ in pairs)}
            | _over(speeds, [own for _, own in pairs])
        )
    for name, reports in runs.items():
        fps = statistics.median(r["fps"] for r in reports)
        row = {
            "model": name,
            "seconds_30_network": None,
            "seconds_30_end_to_end": round(TIMED_FRAMES / fps, 3),
            "fps": round(fps, 1),
            "first_frame_s": statistics.median(r["first_frame_s"] for r in reports),
            "peak_memory_mb": max((r["peak_memory_mb"] or 0) for r in reports) or None,
            "cpu_ms": statistics.median(r["cpu_ms"] for r in reports),
            "bottleneck": reports[0]["bottleneck"],
            "stages": reports[0]["stages"],
        } | _over([r["fps"] for r in reports], lanczos)
        if card := cards.get(name):
            seconds, ran = network_seconds(card, precision=precision, threads=threads, repeat=repeat)
            psnr = {key: value.get(ran, {}).get("psnr_y") for key, value in card.measured.items()}
            row |= {"seconds_30_network": round(seconds, 3), "precision": ran, "psnr_y": psnr}
            row |= {"parameters": card.parameters, "multiply_accumulates": card.multiply_accumulates}
        rows.append(row)
    return rows


def _over(speeds, lanczos):
    """Return how fast something is beside own Lanczos of the same round: the median."""
    return {"over_lanczos": statistics.median(a / b for a, b in zip(speeds, lanczos, strict=True))}


def film_cards(scale: Scale) -> list[ModelCard]:
    """Return the cards of the models that ship for film at a scale, the cheapest first."""
    cards = [card for card in map(ModelCard.read, saved_models()) if card.scale == scale]
    cards = [card for card in cards if not card.name.endswith("-photo")]  # the same network with other weights
    return sorted(cards, key=lambda card: card.multiply_accumulates)


def table(rows: list[dict]) -> str:
    """Format the rows as a Markdown table."""
    benchmarks = list(dict.fromkeys(key for row in rows for key, psnr_y in row.get("psnr_y", {}).items() if psnr_y))
    columns = {
        "model": lambda r: r["model"] + (f" ({r['precision']})" if r.get("precision") else ""),
        "30 frames, network": lambda r: f"{r['seconds_30_network']:.2f} s" if r.get("seconds_30_network") else "",
        "30 frames, end to end": lambda r: f"{r['seconds_30_end_to_end']:.2f} s",
        "fps": lambda r: f"{r['fps']:.0f}",
        "CPU-ms per frame": lambda r: f"{r['cpu_ms']:.1f}" if r.get("cpu_ms") else "",
        **{f"PSNR-Y {b}": lambda r, b=b: f"{v:.2f}" if (v := r.get("psnr_y", {}).get(b)) else "" for b in benchmarks},
        "parameters": lambda r: f"{r['parameters']:,}" if r.get("parameters") else "",
        "MAC per LR pixel": lambda r: f"{r['multiply_accumulates']:,.0f}" if r.get("multiply_accumulates") else "",
        "first frame": lambda r: f"{r['first_frame_s']:.2f} s" if r.get("first_frame_s") else "",
        "peak memory": lambda r: f"{r['peak_memory_mb']:.0f} MB" if r.get("peak_memory_mb") else "",
    }
    lines = [list(columns), ["---"] * len(columns), *([cell(row) for cell in columns.values()] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def peers(clip: Path, files: Sequence[Path], folder: Path, *, weights: Path | None, **figures) -> dict[str, Any]:
    """Measure the models and their peers on a clip; returns the rows of each, stages, shares of the peak, and targets.

    `figures` are `bench`'s, with `frames`. Speed is measured first: the judge of texture keeps threads busy.
    """
    from imagesr.evaluate import peers as others

    frames, repeat, tell = figures.pop("frames"), figures["repeat"], figures["tell"]
    cards, scale = film_cards(Scale(3, 2)), Scale(2)
    clip_info(clip, scale)  # what quality cannot be measured on is told first
    found = others.methods(files, film_cards(scale), scale, precision=figures["precision"])
    rows = bench(clip, frames, **figures)
    tell("the network alone, and the stages of a frame")
    shares = speed.shares([card for card in cards if card.name != "linear"], SIZE)
    stages = speed.stages(clip, next(card for card in cards if card.name == "balanced"), folder)
    looped = folder / "looped.mkv"
    first_frames_repeated(clip, frames, looped)
    still = still_areas(looped, frames, folder, **figures)
    targets = list(others.targets(rows, shares, stages, still))
    how = {"frames": frames, "repeat": repeat, "quality_frames": min(frames, QUALITY_FRAMES), "weights": weights}
    beside = others.measure(clip, found, scale, folder, looped=looped, tell=tell, **how)
    return {"rows": rows, "shares": shares, "stages": stages, "still": still, "targets": targets, "peers": beside}


def still_areas(clip: Path, frames: int, folder: Path, *, repeat: int, precision: str, threads: int, tell) -> float:
    """Return how many times as fast as the clip a screen recording runs by `balanced`: the median of rounds in turn.

    The rates are those from the first frame on: the start would weigh most in a short run.
    """
    recording = folder / "screen.mp4"
    tell(f"a screen recording of {frames} frames, and the clip")
    write_screen(recording, frames, SIZE)
    options, ratios = ["--precision", precision, "--threads", str(threads)], []
    for _ in range(repeat):
        runs = [end_to_end("balanced", film, frames, folder, options) for film in (recording, clip)]
        speeds = [report["pace"] or report["fps"] for report in runs]  # a single frame has no pace
        ratios.append(speeds[0] / speeds[1])
    return statistics.median(ratios)


def training(pictures: Path, *, repeat: int, tell=print) -> Iterator[dict]:
    """Compare steps per second on crops of `pictures` with those on one fixed batch, `repeat` times, alternating.

    Batch 16, patch 96, `realtime` at x1.5 and `edsr_baseline` at x2. Yields a row for each network, with the median
    of the ratios of neighbouring rounds.
    """
    import tensorflow as tf

    from imagesr.datasets.tfdata import pipeline
    from imagesr.train.config import Config
    from imagesr.train.training import Run

    for model, scale, steps in (("realtime", "1.5", 400), ("edsr_baseline", "2", 4)):
        places = (str(pictures),)
        config = Config(data=places, val=places, model=model, scale=scale, batch=16, patch=96, steps=steps)
        with tempfile.TemporaryDirectory() as folder:
            run = Run(config, Path(folder))
        run.compile()
        sets = {"fed": pipeline(run.crops), "kept": tf.data.Dataset.from_tensors(run.crops.numbered(0)).repeat(steps)}
        speeds = {name: [] for name in sets}
        for i in range(repeat + 1):  # the first round compiles
            tell(f"{model}: round {i} of {repeat}")
            for name, batches in sets.items():
                begun = time.perf_counter()
                run.model.fit(batches, verbose=0, shuffle=False)
                speeds[name].append(steps / (time.perf_counter() - begun))
        fed, kept = speeds["fed"][1:], speeds["kept"][1:]
        ratio = statistics.median(f / k for f, k in zip(fed, kept, strict=True))
        row = {
            "model": model,
            "steps_per_s": statistics.median(fed),
            "one_batch": statistics.median(kept),
            "ratio": ratio,
        }
        yield {key: value if key == "model" else round(value, 3) for key, value in row.items()}


def _parser():
    parser = Parser(
        prog="imagesr bench",
        description="Measure every model, and plain Lanczos, on this machine.",
        examples="""
            imagesr bench
            imagesr bench clip720p.mp4 --repeat 5
            imagesr bench clip720p.mp4 --peers ECBSR_x2.pth ACNet.onnx --plot peers.png
            imagesr bench --fit
        """,
    )
    add = parser.add_argument
    add(
        "clip",
        nargs="?",
        type=Path,
        metavar="CLIP",
        help="a 720p clip (default: the one that imagesr video --demo renders)",
    )
    add("--frames", type=int, default=30, help="frames to upscale; a shorter clip is repeated (default: 30)")
    add("--repeat", type=int, default=1, help="rounds; the figures are their medians (default: 1)")
    add("--precision", default="auto", choices=("auto", "fp32", "bf16", "int8"))
    add("--threads", type=int, default=0, help="threads of the network (default: 0, every core)")
    add("--training", type=Path, metavar="DIR", help="measure instead whether training waits for the pictures in DIR")
    text = "measure other ways to upscale, too: ffmpeg, OpenCV, sharpening, and networks of x2 in FILES (.pth, .onnx)"
    add("--peers", type=Path, nargs="*", metavar="FILE", help=text)
    add("--plot", type=Path, metavar="FILE", help="with --peers: draw frames per second over texture, as PNG")
    text = "with --peers: weights of EfficientNet-Lite2, which judges texture (default: its package's)"
    add("--texture", type=Path, metavar="FILE", help=text)
    add("--fit", action="store_true", help="tell within some ten seconds which model holds which rate here")
    add("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser


def _bench(options):
    _check(options)
    if options.training:
        record = []
        for row in training(options.training, repeat=options.repeat, tell=_tell):
            record.append(row)
            speeds = f"{row['steps_per_s']:.2f} steps/s, {row['one_batch']:.2f} on one batch that stays"
            print(f"{row['model']:14} {speeds}: {100 * row['ratio']:.1f} %", flush=True)
    else:
        print(machine := speed.machine())
        record = {"machine": f"{machine}, {platform.platform()}"} | (_fit if options.fit else _bench_models)(options)
    if options.json:
        write_whole(options.json, json.dumps(record, indent=1) + "\n")
    return 0


def _check(options):
    if options.frames < 1 or options.repeat < 1:
        raise ValueError(f"Expected --frames and --repeat of at least 1. Received: {options.frames}, {options.repeat}")
    if not 0 <= options.threads <= MAX_THREADS:
        raise ValueError(f"Expected --threads from 0 to {MAX_THREADS}, 0 for all. Received: {options.threads}")
    chosen = [name for name in ("training", "fit") if getattr(options, name)] + ["peers"] * (options.peers is not None)
    if len(chosen) > 1:
        raise ValueError(f"Expected one of --training, --fit and --peers. Received: --{' --'.join(chosen)}")
    if options.clip and chosen and options.peers is None:
        raise ValueError(f"Expected --{chosen[0]} without a clip. Received: {options.clip}")
    if options.peers is None and (options.plot or options.texture):
        raise ValueError("Expected --plot and --texture with --peers. Received: one of them alone")
    if options.plot and not importlib.util.find_spec("matplotlib"):
        raise ValueError(f"--plot needs the package matplotlib: {install('train')}")
    for record in filter(None, (options.json, options.plot)):
        check_record(record, [options.clip, *(options.peers or ())])


def _fit(options):
    from imagesr.evaluate import fit

    fps = fit.fit(precision=options.precision)
    print(fit.table(fps))
    return {"fps_720p": fps}


def _bench_models(options):
    with tempfile.TemporaryDirectory() as folder:
        clip = options.clip
        if clip is None:
            from imagesr.video.demo import render

            clip = Path(folder) / "demo.mp4"
            _tell("rendering a clip")
            render(clip)
        figures = {"precision": options.precision, "threads": options.threads, "repeat": options.repeat, "tell": _tell}
        asked = {"frames": options.frames, "repeat": options.repeat}
        if options.peers is None:
            rows = bench(clip, options.frames, **figures)
            print(table(rows))
            return asked | {"rows": rows}
        files = {"weights": options.texture, "frames": options.frames}
        record = asked | _shown(peers(clip, options.peers, Path(folder), **files, **figures), options.plot)
        if options.frames < TARGET_FRAMES:
            print(f"\nThe targets are for --frames {TARGET_FRAMES}: in a shorter run the start weighs more.")
        return record


def _shown(record, plot):
    """Print all that `peers` has measured, and draw the plot; returns the record for a file."""
    from imagesr.evaluate import peers as others

    print(table(record["rows"]))
    print("\n| of a frame, x1.5, balanced | CPU-ms |\n|---|---|")
    print("\n".join(f"| {stage} | {ms:.1f} |" for stage, ms in record["stages"].items()))
    print("\n| network alone, one core | CPU-ms of a 720p frame | TOP/s | share of the int8 peak |\n|---|---|---|---|")
    for name, of in record["shares"].items():
        ms = "" if name == "peak" else f"{of['cpu_ms']:.1f}"
        print(f"| {name} | {ms} | {of['tops']:.2f} | {of['share']:.2f} |")
    print(f"\n{others.table(record['peers'])}\n\n{others.target_table(record['targets'])}", flush=True)
    if plot:
        others.plot(record["peers"], plot)
    return record | {"targets": [vars(target) for target in record["targets"]]}


def _tell(line):
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("bench", _bench, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
