"""Measure a model on pictures and clips: `python -m imagesr.evaluate --model balanced --data FOLDER`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from imagesr.card import ModelCard, find_model
from imagesr.cli import Parser, run_command, scale_argument
from imagesr.depth.estimator import depth_source
from imagesr.depth.maps import DepthSource, as_channels, near_edges
from imagesr.engines import ENGINES, PRECISIONS, Engine, import_engine, load_engine
from imagesr.engines.chain import MAX_SCALE
from imagesr.engines.tiles import tiled
from imagesr.errors import InputError, ModelError
from imagesr.evaluate import clips
from imagesr.evaluate.clips import Condition, clip_info, lr_info, measure_clip, own_vmaf
from imagesr.evaluate.perceptual import COLUMNS as PERCEPTUAL
from imagesr.evaluate.perceptual import EXTRACTORS, JUDGE, perceptual_figures
from imagesr.evaluate.sheet import Worst
from imagesr.files import whole, write_whole
from imagesr.media.frames import Frame, Resizer, VideoInfo
from imagesr.media.images import SUFFIXES, read_rgb
from imagesr.metrics.fidelity import CEILING, figures, means, psnr
from imagesr.metrics.vmaf import vmaf_ffmpeg
from imagesr.pixels import KERNELS, downscale, luma, resize, with_luma
from imagesr.scale import Scale
from imagesr.video.upscaler import Upscaler

BASELINES = ("bicubic", "lanczos")
FRAMES = 60  # of a clip
COLUMNS = {
    "psnr_y": "PSNR-Y",
    "ssim_y": "SSIM-Y",
    "psnr_rgb": "PSNR-RGB",
    "psnr_edges": "at edges",
    "vmaf_neg": "VMAF-NEG",
    **PERCEPTUAL,
}
FINE = {"ssim_y", "lpips", "dists", *EXTRACTORS.values()}  # figures that need four digits
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
) -> dict:
    """Measure `upscale`, a function from LR RGB to SR, luma (H, W) or RGB (H, W, 3), on HR pictures.

    LR is an RGB picture of 8 bits, as in the benchmarks since EDSR; the papers before it enlarge luma that was never
    rounded, 0.02 dB better. PSNR-Y and SSIM-Y compare BT.601 luma of 8 bits, PSNR-RGB all three samples, without `up`
    border pixels. Where SR is luma its colours are LR's chroma enlarged by bicubic, as papers show it: PSNR-RGB then
    says what is left of the gain in colour. What `perceptual_figures` returns gives more as `measure`. With `depth`,
    `upscale` is given the map as well. With `edges`, PSNR-Y is also that of the pixels within `up` of a jump of depth,
    `psnr_edges`. Returns the means under `psnr_y`, `ssim_y`, `psnr_rgb` …, and a list with each picture's as `images`.
    """
    images = []
    for path in paths:
        lr, hr = downscale(picture := read_rgb(path), scale, condition.kernel)
        lr, hr_y = condition.coded_picture(lr), luma(hr)
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
    return _on_pictures(model, load_network(model, scale, **options), scale)


def load_network(model: str, scale: Scale, *, engine: str | None = None, precision: str = "auto") -> Engine | None:
    """Load a saved model by name or folder, or a .keras file; None for `bicubic` and `lanczos`.

    `engine` and `precision` are those of `load_engine`; a .keras file is run by Keras in float32. Raises ModelError.
    """
    if model in BASELINES:
        return None
    if model.endswith(".keras"):
        if engine not in (None, "keras") or precision not in ("auto", "fp32"):
            raise ModelError(f"Expected the engine keras and fp32 for a .keras file. Received: {engine}, {precision}")
        return _load_keras(Path(model), scale)
    card = find_model(model, scale)
    if card.size:
        raise _fixed_size(model, card.size)
    return load_engine(card, engine=engine or "openvino", precision=precision)


def _fixed_size(model, size):
    height, width = size
    return ModelError(f"Expected a network for pictures of any size. Received: {model}, for {width}x{height} alone")


def _load_keras(path, scale):
    """Load a network that has no card, and write one for it."""
    if not path.is_file():
        raise ModelError(f"Expected a .keras file. There is none at {path}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow tells what machine it runs on, at length
    runtime = import_engine("keras")
    network = runtime.read_network(path, depth=True)
    from imagesr.models import cost
    from imagesr.models.layers import DEPTH_REACH, without_depth

    model, takes_depth = without_depth(network), len(network.inputs) > 1
    _, *size, channels = model.input.shape
    if size != [None, None]:
        raise _fixed_size(path, size)
    if (own := cost.model_scale(model)) != scale:
        raise ModelError(f"Expected the scale of {path} ({own}). Received: {scale}")
    card = ModelCard(
        name=path.stem,
        scale=scale,
        channels=channels,
        multiple=cost.multiple(model),
        receptive_field=max(cost.receptive_field(model), 2 * DEPTH_REACH * scale.down * takes_depth),
        parameters=cost.parameters(model),
        multiply_accumulates=cost.multiply_accumulates(model),
        config={},
        config_sha256="",
        data=[],
        measured={},
        sha256={},
    )

    def run(planes, *guide):
        lr = planes.astype(np.float32) / 255
        sr = network([lr, *guide], training=False) if guide else model(lr, training=False)
        return np.rint(np.clip(runtime.keras.ops.convert_to_numpy(sr) * 255, 0, 255)).astype(np.uint8)

    run.card, run.precision, run.takes_depth = card, "fp32", takes_depth
    return run


def _on_pictures(model, engine, scale):
    if engine is None:
        return lambda lr, depth=None: resize(lr, (scale.grow(lr.shape[1]), scale.grow(lr.shape[0])), model)
    card = engine.card
    halo = card.receptive_field // 2 + card.multiple

    def upscale(lr, depth=None):
        planes = luma(lr) if card.channels == 1 else lr
        guide = None if depth is None or not getattr(engine, "takes_depth", False) else as_channels(depth)
        return tiled(engine, planes, scale=scale, multiple=card.multiple, halo=halo, guide=guide)

    return upscale


def _on_frames(model, engine):
    def make(info: VideoInfo, size: tuple[int, int]) -> Callable[[Frame], Frame]:
        if model == "bicubic":
            return Resizer(*size, info.pix_fmt, kernel="bicubic")
        return Upscaler(info, size, [engine] if engine else [])

    return make


def find_files(places: Sequence[Path], scale: Scale) -> tuple[list[Path], list[str]]:
    """List the pictures and clips in folders and those that are named, and say what of a folder is left out.

    A clip that cannot be measured is left out of a folder. Raises ValueError or InputError for one that is named, and
    for places that are missing or hold nothing.
    """
    found, left_out = [], []
    for place in places:
        if not place.exists():
            raise ValueError(f"Expected a folder or a file with pictures or clips. There is none at {place}")
        if not place.is_dir():
            if not _is_picture(place):
                clip_info(place, scale)
            found.append(place)
            continue
        for file in sorted(place.iterdir()):
            suffix = file.suffix.lower()
            if file.is_dir() or suffix not in SUFFIXES | clips.SUFFIXES:
                left_out.append(f"{file}: neither a picture nor a clip")
                continue
            try:
                if not _is_picture(file):
                    clip_info(file, scale)
                found.append(file)
            except (ValueError, InputError) as error:
                left_out.append(str(error))
    if not found:
        raise ValueError(f"Expected a folder with pictures or clips. Received: {', '.join(map(str, places))}")
    return found, left_out


def _is_picture(file):
    return file.suffix.lower() in SUFFIXES


def _check_picture(path, scale):
    least = 2 * scale.up + 11  # the borders, and the window of SSIM
    height, width = (n - n % scale.up for n in read_rgb(path).shape[:2])
    if min(height, width) < least:
        raise ValueError(f"Expected pictures of at least {least + scale.up} pixels a side. Received: {path}")


def _check_maps(path, scale, sources):
    picture = read_rgb(path)
    lr, _ = downscale(picture, scale)
    for source in sources:
        if source:
            source(path, lr, picture.shape[:2])


def _scale(text):
    scale = scale_argument(text)
    if not 1 < float(scale) <= MAX_SCALE:
        raise argparse.ArgumentTypeError(f"expected a scale above 1 and up to {MAX_SCALE}, received {text}")
    return scale


def _frames(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of frames of at least 1, received {text}")
    return int(text)


def _parser():
    parser = Parser(
        prog="imagesr evaluate",
        description="Reduce HR pictures and clips to LR, upscale them, and measure PSNR, SSIM and, on clips, VMAF-NEG.",
    )
    add = parser.add_argument
    add(
        "--model",
        nargs="+",
        default=["balanced"],
        help=f"a model's name or folder, a .keras file, or {', '.join(BASELINES)} (default: balanced); "
        "several are compared with the first",
    )
    add("--scale", type=_scale, default=Scale(3, 2), help="default: 1.5")
    add("--data", type=Path, nargs="+", required=True, metavar="PATH", help="HR pictures and clips, or folders of them")
    add("--kernel", nargs="+", default=["bicubic"], help=f"what makes LR: {', '.join(KERNELS)} (default: bicubic)")
    add("--codec", help="an encoder that LR goes through, e.g. libx264 (default: none)")
    add("--crf", type=float, nargs="+", default=[None], help="its quality (default: the encoder's)")
    add("--frames", type=_frames, default=FRAMES, help=f"of each clip, from its beginning (default: {FRAMES})")
    add("--engine", choices=ENGINES, help="the runtime (default: openvino; keras for a .keras file)")
    add("--precision", choices=PRECISIONS, default="auto")
    add(
        "--perceptual", action="store_true", help="also distances in feature spaces, NIQE, the spectrum of SR over HR's"
    )
    add("--lpips", type=Path, metavar="FILE", help="also LPIPS, by an ONNX file of it; implies --perceptual")
    add("--dists", type=Path, metavar="FILE", help="also DISTS, by an ONNX file of it; implies --perceptual")
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw PSNR over the perceptual distance into FILE, a PNG; implies it, too",
    )
    add("--depth", type=Path, nargs="+", default=[], metavar="DIR", help="depth maps, for networks that take them")
    add("--depth-model", type=Path, metavar="FILE", help="an ONNX file that estimates depth, in the place of --depth")
    add("--edges", type=Path, nargs="+", metavar="DIR", help="depth maps at whose jumps to measure (default: --depth)")
    add("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    add("--sheet", type=Path, metavar="FILE", help="draw the worst crops into FILE, a PNG")
    return parser


def _check_output(option, file, inputs):
    """Raise ValueError for a file that would have no place, or take an input's."""
    if file is None:
        return
    if file.is_dir() or not file.parent.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ValueError(f"Expected a file that can be written for {option}. Received: {file}")
    if file.exists() and any(file.samefile(other) for other in inputs):
        raise ValueError(f"Expected a file of its own for {option}. Received an input: {file}")
    if option != "--json" and file.suffix.lower() != ".png":
        raise ValueError(f"Expected a file ending in .png for {option}. Received: {file}")


def _prepare(options):
    """Return what is needed to measure, everything checked before the long work; raises ValueError or InputError."""
    conditions = [Condition(kernel, options.codec, crf) for kernel, crf in product(options.kernel, options.crf)]
    for condition in conditions:
        condition.check()
    files, left_out = find_files(options.data, options.scale)
    _check_output("--json", options.json, files)
    _check_output("--sheet", options.sheet, files)
    _check_output("--plot", options.plot, files)
    if options.sheet and len(options.model) > 1:
        raise ValueError(f"Expected one model with --sheet. Received: {', '.join(options.model)}")
    loading = {"engine": options.engine, "precision": options.precision}
    networks = {model: load_network(model, options.scale, **loading) for model in options.model}
    measure = figures
    if options.perceptual or options.lpips or options.dists or options.plot:
        measure = perceptual_figures(lpips=options.lpips, dists=options.dists)
    given = depth_source(options.depth, options.depth_model, options.scale)
    depth = given, depth_source(options.edges, None, options.scale) if options.edges else given
    if any(depth) and not all(map(_is_picture, files)):
        raise ValueError("Expected pictures alone, where there is depth. Received: clips")
    for reason in left_out:
        _say(f"left out: {reason}")
    ffmpeg = None
    for file in files:
        if _is_picture(file):
            _check_picture(file, options.scale)
            if options.depth or options.edges:
                _check_maps(file, options.scale, depth)
        else:
            info = clip_info(file, options.scale)
            for model, network in networks.items():
                _on_frames(model, network)(lr_info(info, options.scale), (info.width, info.height))
    if not all(map(_is_picture, files)):
        try:
            ffmpeg = vmaf_ffmpeg()
        except ValueError as error:
            _say(error)
    return networks, conditions, depth, files, measure, ffmpeg


def _measure(options, model, network, conditions, depth, files, measure, ffmpeg, worst):
    """Measure every file under every condition, print the rows of a table as they come, and return the record."""
    from tqdm import tqdm

    pictures = _on_pictures(model, network, options.scale)
    frames = _on_frames(model, network)
    left_out = set() if measure is not figures else set(PERCEPTUAL)
    left_out |= {
        key for key, by in (("vmaf_neg", ffmpeg), ("lpips", options.lpips), ("dists", options.dists)) if not by
    }
    left_out |= set() if depth[1] else {"psnr_edges"}
    columns = [key for key in COLUMNS if key not in left_out]
    labels = _labels(files)
    width = max(28, *(len(str(item)) + 2 for item in (*conditions, *labels)))
    steps = sum(1 if _is_picture(file) else options.frames for file in files) * len(conditions)
    results = []
    # disable=None: no bar where nobody watches.
    with tqdm(total=steps, unit=" frames", dynamic_ncols=True, leave=False, disable=None) as bar:

        def tell(name, cells):
            bar.write(f"{name:{width}}{''.join(f'{cell:>10}' for cell in cells)}".rstrip(), file=sys.stdout)
            sys.stdout.flush()

        def figures_of(row):
            return (f"{row[key]:.{4 if key in FINE else 2}f}" if key in row else "" for key in columns)

        for condition in conditions:
            tell(str(condition), (COLUMNS[key] for key in columns))
            rows = []
            for file, label in zip(files, labels, strict=True):
                if _is_picture(file):
                    shown = {"condition": condition, "measure": measure, "worst": worst}
                    shown |= {"depth": depth[0], "edges": depth[1]}
                    (row,) = evaluate(pictures, [file], options.scale, **shown)["images"]
                    bar.update()
                else:
                    shown = {"ffmpeg": ffmpeg, "measure": measure, "worst": worst, "advance": bar.update}
                    row = measure_clip(file, frames, options.scale, condition, frames=options.frames, **shown)
                    bar.update(options.frames - row["frames"])
                row["image"] = label
                tell(label, figures_of(row))
                rows.append(row)
            results.append(vars(condition) | means(rows, COLUMNS) | {"images": rows})
            tell(f"mean of {len(rows)}", figures_of(results[-1]))
        if len(results) > 1:
            tell("mean of all", figures_of(means(results, COLUMNS)))
    # Of each file its mean under all conditions.
    images = [
        row | means([result["images"][i] for result in results], COLUMNS) for i, row in enumerate(results[0]["images"])
    ]
    precision = network.precision if network else None
    record = {"model": model, "scale": str(options.scale), "precision": precision}
    return record | means(results, COLUMNS) | {"images": images, "conditions": results}


def _labels(files):
    """Return the files' names, with their folders' where a name comes up twice, as in sequences of numbered frames."""
    names = [file.name for file in files]
    return [f"{file.parent.name}/{file.name}" if names.count(file.name) > 1 else file.name for file in files]


def _compare(record, first, own):
    """Print by how much a model's PSNR-Y is above another's: a row for each file, a column for each condition.

    The last row is the share of the way from the other's VMAF-NEG to that of the originals, `own`, a mean over clips.
    """
    names = [row["image"] for row in record["images"]]
    gains, labels, shares = [], [], []
    for ours, theirs in zip(record["conditions"], first["conditions"], strict=True):
        labels.append(ours["kernel"] + ("" if ours["crf"] is None else f" {ours['crf']:g}"))
        gains.append([a["psnr_y"] - b["psnr_y"] for a, b in zip(ours["images"], theirs["images"], strict=True)])
        if own is not None and theirs["vmaf_neg"] < own:
            shares.append(f"{(ours['vmaf_neg'] - theirs['vmaf_neg']) / (own - theirs['vmaf_neg']):.1%}")
    width, wide = max(24, *(len(name) + 2 for name in names)), max(8, *(len(label) + 2 for label in labels))

    def tell(name, cells):
        print(f"{name:{width}}{''.join(f'{cell:>{wide}}' for cell in cells)}")

    print(f"\nPSNR-Y of {record['model']} over {first['model']}, dB")
    tell("", labels)
    for i, name in enumerate(names):
        tell(name, (f"{column[i]:+.2f}" for column in gains))
    tell("mean", (f"{np.mean(column):+.2f}" for column in gains))
    tell("worst", (f"{min(column):+.2f}" for column in gains))
    if shares:
        tell("VMAF-NEG, of the way", shares)


def _plot(records, file):
    """Draw the trade between fidelity and naturalness, a point for each model."""
    from imagesr.train.plots import draw_trade

    key = "lpips" if "lpips" in records[0] else JUDGE
    points = [(_short(record["model"]), record[key], record["psnr_y"]) for record in records]
    label = "LPIPS" if key == "lpips" else f"distance in the feature space {COLUMNS[key].lower()}"
    draw_trade(points, file, f"{label} (natural: left)", "PSNR-Y, dB (faithful: up)")


def _short(model):
    """Return what a model is called in a picture: its name, or that of the run that it is the network of."""
    path = Path(model)
    return path.parent.name if path.name == "model.keras" else path.name


def _evaluate(options):
    worst = Worst(options.scale) if options.sheet else None
    networks, *prepared = _prepare(options)
    records = []
    for model, network in networks.items():
        if len(networks) > 1:
            print(f"{chr(10) if records else ''}{model}")
        records.append(_measure(options, model, network, *prepared, worst))
    _, _, files, _, ffmpeg = prepared
    films = [file for file in files if ffmpeg and len(records) > 1 and not _is_picture(file)]
    own = [own_vmaf(film, options.scale, frames=options.frames, ffmpeg=ffmpeg) for film in films]
    for record in records[1:]:
        _compare(record, records[0], np.mean(own) if own else None)
    if options.json:
        record = records[0] if len(records) == 1 else {"models": records, "own_vmaf_neg": own}
        write_whole(options.json, json.dumps(record, indent=1) + "\n")
    if options.plot:
        _plot(records, options.plot)
    if worst:
        with whole(options.sheet, ending=".png") as part:
            worst.draw(Path(options.model[0]).name).save(part)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("evaluate", _evaluate, _parser().parse_args(arguments))


def _say(message):
    print(f"imagesr evaluate: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
