"""Train and sample: `imagesr recursive train|sample`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from imagesr.cli import Parser, check_record, run_command
from imagesr.models import import_keras

DESCRIPTION = "Pixel Recursive Super Resolution, 8x8 to 32x32."
EXAMPLES = """
  imagesr recursive train --data photos/train --val photos/val --out runs/recursive
  imagesr recursive sample runs/recursive --data photos/val --sheet samples.png
"""
HELD_OUT = 256  # patches over which bits per dimension are measured
SHOWN = 3  # samples of a patch on the sheet
CELL = 128  # pixels a side of a picture on the sheet


def _parser():
    parser = Parser(
        prog="imagesr recursive",
        usage="imagesr recursive {train,sample} ...",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    commands = parser.add_subparsers(required=True, metavar="train|sample")
    sets = "NAME=DIR or NAME=DIR@WEIGHT; DIR alone is a folder of photographs"

    what = "train a network"
    one = commands.add_parser(
        "train",
        prog="imagesr recursive train",
        help=what,
        description="Train a network that draws pixels one by one.",
        examples="imagesr recursive train --data photos/train --val photos/val --out runs/pixels",
        argument_default=argparse.SUPPRESS,
    )
    one.set_defaults(run=_train)
    add = one.add_argument
    add("--data", nargs="+", required=True, metavar="NAME=DIR", help=f"training data: {sets}")
    add("--val", nargs="+", required=True, metavar="NAME=DIR", help="validation data, pictures that are not in --data")
    add("--out", type=Path, required=True, metavar="RUN", help="the run folder; the same command goes on with it")
    # The defaults in these texts are those of `RecursiveConfig`, which is not imported here: it needs pydantic.
    add("--filters", type=int, help="feature maps, a multiple of 3 (default: 36)")
    text = "residual blocks of the conditioning network at each of its sizes (default: 1)"
    add("--blocks", type=int, help=text)
    add("--layers", type=int, help="gated layers of the PixelCNN (default: 5)")
    add("--reach", type=int, help="pixels that their kernels look up, left and right (default: 1)")
    add("--steps", type=int, help="steps of the whole run (default: 10000)")
    add("--batch", type=int, help="patches per step (default: 16)")
    add("--learning-rate", type=float, help="after warm-up, then a cosine down (default: 0.002)")
    add("--seed", type=int, help="seed of weights and patches (default: 0)")

    what = "measure a network on held-out patches and draw samples"
    two = commands.add_parser(
        "sample",
        prog="imagesr recursive sample",
        help=what,
        description="Measure a network on held-out patches and draw samples.",
        examples="imagesr recursive sample runs/pixels --data photos/val --sheet samples.png",
    )
    two.set_defaults(run=_sample)
    add = two.add_argument
    add("model", type=Path, metavar="RUN", help="a finished run, or its model.keras")
    add("--data", nargs="+", required=True, metavar="NAME=DIR", help=f"held-out photographs: {sets}")
    add("--patches", type=int, default=8, help="patches to draw samples of (default: 8)")
    add("--samples", type=int, default=8, help="samples of each (default: 8)")
    text = "below 1: likelier, less varied samples; 0: the likeliest values (default: 1)"
    add("--temperature", type=float, default=1.0, help=text)
    add("--seed", type=int, default=0, help="seed of the samples, not of the patches (default: 0)")
    add("--sheet", type=Path, metavar="FILE.png", help="draw LR | bicubic | samples | their mean | HR")
    return parser


def _train(options):
    import_keras()
    from imagesr.datasets import DataSource
    from imagesr.recursive.train import RecursiveConfig, train

    given = {key: value for key, value in vars(options).items() if key not in ("run", "out")}
    places = {key: [str(DataSource.parse(text).absolute()) for text in given[key]] for key in ("data", "val")}
    config = RecursiveConfig(**given | places)
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"Expected a folder for --out. Received: {options.out}, a file")
    train(config, options.out)
    print(options.out / "model.keras")
    return 0


def _sample(options):
    if options.sheet:
        check_record(options.sheet, [options.model], what="the sheet")
        if options.sheet.suffix.lower() != ".png":
            raise ValueError(f"Expected a .png for --sheet. Received: {options.sheet}")
    if options.patches < 1:
        raise ValueError(f"Expected --patches above 0. Received: {options.patches}")
    import_keras()
    import numpy as np

    from imagesr.recursive.sampler import sample
    from imagesr.recursive.train import bits_per_dimension, load, patches

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
    columns = _columns(lr, sr, hr)
    figures = {
        "bicubic": _psnr(columns["bicubic"], hr),
        "a sample": np.mean([_psnr(sr[:, i], hr) for i in range(options.samples)]),
        f"the mean of {options.samples}": _psnr(columns[f"mean of {options.samples}"], hr),
    }
    told = ", ".join(f"{name} {value:.2f} dB" for name, value in figures.items())
    print(f"PSNR-RGB over {len(hr)} patches at temperature {options.temperature:g}: {told}")
    print(f"{len(hr) * options.samples} pictures of {hr.shape[2]}x{hr.shape[1]} drawn in {seconds:.1f} s")
    if options.sheet:
        _draw(columns, options.sheet)
    return 0


def _columns(lr, sr, hr):
    """Return the columns of the sheet by name: LR, bicubic, some samples, the mean of all, HR; each (N, H, W, 3)."""
    import numpy as np

    from imagesr.pixels import resize

    count = sr.shape[1]
    samples = {f"sample {i + 1}": sr[:, i] for i in range(min(SHOWN, count))}
    mean = np.rint(sr.mean(axis=1)).astype(np.uint8)
    bicubic = [resize(picture, sr.shape[3:1:-1]) for picture in lr]
    return {"LR": lr, "bicubic": bicubic} | samples | {f"mean of {count}": mean, "HR": hr}


def _draw(columns, sheet):
    import io

    from PIL import Image

    from imagesr.evaluate.sheet import draw_rows
    from imagesr.files import write_whole

    def cell(picture):
        return Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.NEAREST)

    rows = [
        (str(i + 1), "", [(name, cell(pictures[i])) for name, pictures in columns.items()])
        for i in range(len(columns["HR"]))
    ]
    file = io.BytesIO()
    draw_rows(rows, CELL, columns=len(columns)).save(file, format="PNG")
    write_whole(sheet, file.getvalue())


def _psnr(pictures, hr):
    import numpy as np

    from imagesr.metrics.fidelity import CEILING, psnr

    return np.mean([min(psnr(a, b), CEILING) for a, b in zip(pictures, hr, strict=True)])


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    return run_command("recursive", options.run, options)


if __name__ == "__main__":
    sys.exit(main())
