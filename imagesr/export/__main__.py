"""Make a trained network runnable: `imagesr export RUN --name NAME`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from imagesr.card import SAVED_MODELS
from imagesr.cli import Parser, hidden_stderr, run_command

DESCRIPTION = """\
Make a trained network runnable.

Examples:
  imagesr export runs/mine --name mine
  imagesr export runs/mine --name mine --calibrate photos/train --measure set5=Set5
  imagesr export network.keras --name mine --folder models --also openvino litert
"""


def _pair(text):
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, received {text}")
    return key, value


def _parser():
    parser = Parser(
        prog="imagesr export",
        usage="imagesr export RUN --name NAME [options]",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a run folder of imagesr train, or a .keras file")
    add("--name", required=True, help="the model's name, e.g. balanced")
    add("--folder", type=Path, default=SAVED_MODELS, help="the folder for the model (default: the shipped models')")
    text = "pictures for the int8 ranges, preferably the training pictures (default: no int8)"
    add("--calibrate", nargs="+", default=[], metavar="DIR", help=text)
    also = ("openvino", "litert", "saved_model")
    add("--also", nargs="+", choices=also, default=[], help="formats beside ONNX")
    add("--detail", type=float, default=0.0, help="the default of a network with two ends, 0 to 1 (default: 0)")
    text = "HR pictures; their PSNR and SSIM go into the card"
    add("--measure", nargs="*", type=_pair, default=[], metavar="NAME=DIR", help=text)
    text = "the training data and its licence, for the card"
    add("--data", nargs="*", type=_pair, default=[], metavar="NAME=LICENCE", help=text)
    return parser


def _export(options):
    with hidden_stderr():  # TensorFlow writes its own lines when it is imported
        import keras  # noqa: F401
    from imagesr.export.export import export
    from imagesr.media.images import find_images

    benchmarks = {name: Path(place) for name, place in options.measure}
    for place in benchmarks.values():
        find_images([place])
    card = export(
        options.run,
        options.name,
        options.folder,
        calibration=find_images(options.calibrate) if options.calibrate else (),
        benchmarks=benchmarks,
        data=dict(options.data),
        also=options.also,
        detail=options.detail,
    )
    costs = f"{card.parameters:,} parameters, {card.multiply_accumulates:,.0f} multiply-accumulates per LR pixel"
    print(f"{card.folder}: {costs}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("export", _export, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
