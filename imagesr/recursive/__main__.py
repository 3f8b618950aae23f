"""Train and sample: `python -m imagesr.recursive train|sample`."""

from __future__ import annotations

import argparse
import dataclasses
import io
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from imagesr.cli import Parser, check_record, run_command
from imagesr.evaluate.sheet import draw_rows
from imagesr.files import write_whole
from imagesr.metrics.fidelity import CEILING, psnr
from imagesr.pixels import resize
from imagesr.recursive.train import Config, bits_per_dimension, load, patches, train

HELD_OUT = 256  # patches over which bits per dimension are measured
SHOWN = 3  # samples of a patch on the sheet
CELL = 128  # pixels a side of a picture on the sheet


def _parser():
    parser = Parser(prog="imagesr recursive", description="Pixel Recursive Super Resolution, 8x8 to 32x32.")
    commands = parser.add_subparsers(required=True, metavar="train|sample")
    sets = "NAME=DIR or NAME=DIR@WEIGHT, or a mere folder of photographs"

    one = commands.add_parser("train", help="train a network", argument_default=argparse.SUPPRESS)
    one.set_defaults(run=_train)
    add = one.add_argument
    add("--data", nargs="+", required=True, metavar="NAME=DIR", help=f"what to train on: {sets}")
    add("--val", nargs="+", required=True, metavar="NAME=DIR", help="what to measure on, pictures not among the others")
    add("--out", type=Path, required=True, metavar="RUN", help="the run folder; the same command goes on with it")
    words = {
        "filters": "feature maps, a multiple of 3",
        "blocks": "residual blocks of the conditioning network at each of its sizes",
        "layers": "gated layers of the PixelCNN",
        "reach": "pixels that their kernels look up, left and right",
        "steps": "in all",
        "batch": "patches per step",
        "learning_rate": "after warm-up, then a cosine down",
        "seed": "of weights and patches",
    }
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    for name, what in words.items():
        kind = type(defaults[name])
        add(f"--{name.replace('_', '-')}", type=kind, help=f"{what} (default: {defaults[name]})")

    two = commands.add_parser("sample", help="measure a network on held-out patches and draw samples")
    two.set_defaults(run=_sample)
    add = two.add_argument
    add("model", type=Path, metavar="RUN", help="a finished run, or its model.keras")
    add("--data", nargs="+", required=True, metavar="NAME=DIR", help=f"held-out photographs: {sets}")
    add("--patches", type=int, default=8, help="patches to draw samples of (default: 8)")
    add("--samples", type=int, default=8, help="samples of each (default: 8)")
    add("--temperature", type=float, default=1.0, help="below 1: likelier, less varied; 0: the likeliest (default: 1)")
    add("--seed", type=int, default=0, help="of the samples, not of the patches")
    add("--sheet", type=Path, metavar="FILE.png", help="draw LR | bicubic | samples | their mean | HR")
    return parser


def _train(options):
    given = {key: value for key, value in vars(options).items() if key not in ("run", "out")}
    config = Config(**given | {key: tuple(_absolute(text) for text in given[key]) for key in ("data", "val")})
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"Expected a folder for --out. Received: {options.out}, a file")
    train(config, options.out)
    print(options.out / "model.keras")
    return 0


def _absolute(text):
    """Return NAME=DIR with a folder that means the same from everywhere."""
    from imagesr.datasets import Source

    source = Source.parse(text)
    return str(source if str(source.place) == "tfds" else source._replace(place=source.place.absolute()))


def _sample(options):
    if options.sheet:
        check_record(options.sheet, [options.model], what="the sheet")
        if options.sheet.suffix.lower() != ".png":
            raise ValueError(f"Expected a .png for --sheet. Received: {options.sheet}")
    if options.patches < 1:
        raise ValueError(f"Expected --patches above 0. Received: {options.patches}")
    from imagesr.recursive.sampler import sample

    model = load(options.model)
    held_out = patches(options.data, "val", batch=max(HELD_OUT, options.patches)).numbered(0)
    few = held_out[0][: options.patches]
    begun = time.perf_counter()
    sr = sample(model, few, count=options.samples, temperature=options.temperature, seed=options.seed)
    seconds = time.perf_counter() - begun
    total, alone = bits_per_dimension(model, *held_out)
    told = f"{total:.3f}, by the conditioning network alone {alone:.3f}"
    print(f"bits per dimension over {len(held_out[0])} patches: {told}")

    lr, hr = (np.rint(255 * side[: options.patches]).astype(np.uint8) for side in held_out)
    bicubic = [resize(picture, sr.shape[3:1:-1]) for picture in lr]
    mean = np.rint(sr.mean(axis=1)).astype(np.uint8)
    figures = {
        "bicubic": _psnr(bicubic, hr),
        "a sample": np.mean([_psnr(sr[:, i], hr) for i in range(options.samples)]),
        f"the mean of {options.samples}": _psnr(mean, hr),
    }
    told = ", ".join(f"{name} {value:.2f} dB" for name, value in figures.items())
    print(f"PSNR-RGB over {len(hr)} patches at temperature {options.temperature:g}: {told}")
    print(f"{len(hr) * options.samples} pictures of {hr.shape[2]}x{hr.shape[1]} drawn in {seconds:.1f} s")
    if options.sheet:
        shown = {f"sample {i + 1}": sr[:, i] for i in range(min(SHOWN, options.samples))}
        shown = {"LR": lr, "bicubic": bicubic} | shown | {f"mean of {options.samples}": mean, "HR": hr}
        rows = [
            (str(i + 1), "", [(name, _enlarged(column[i])) for name, column in shown.items()]) for i in range(len(hr))
        ]
        file = io.BytesIO()
        draw_rows(rows, CELL, columns=len(shown)).save(file, format="PNG")
        write_whole(options.sheet, file.getvalue())
    return 0


def _psnr(pictures, hr):
    return np.mean([min(psnr(a, b), CEILING) for a, b in zip(pictures, hr, strict=True)])


def _enlarged(picture):
    return Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.NEAREST)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    return run_command("recursive", options.run, options)


if __name__ == "__main__":
    sys.exit(main())
