"""Make a trained network runnable: `imagesr export RUN --name NAME`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from imagesr.card import FLAVOURS, SAVED_MODELS
from imagesr.cli import Parser, run_command
from imagesr.models import import_keras

DESCRIPTION = "Make a trained network runnable."
EXAMPLES = """
  imagesr export runs/mine --name mine
  imagesr export runs/mine --name mine-photo --flavour photo
  imagesr export runs/mine --name mine --calibrate photos/train --measure set5=Set5
  imagesr export network.keras --name mine --folder models --also openvino litert
  imagesr export saved_models/mine_x1.5 --also mpv
"""


FOR_PLAYERS = ("mpv", "ffmpeg", "vapoursynth")  # formats that can be added to a saved model


def _pair(text):
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, received {text}")
    return key, value


def _parser():
    parser = Parser(
        prog="imagesr export",
        usage="imagesr export RUN --name NAME [options]\n       imagesr export MODEL --also FORMAT ...",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a run of imagesr train, a .keras file, or a saved model to add to")
    add("--name", help="the model's name, e.g. balanced; not with a saved model")
    add("--folder", type=Path, default=SAVED_MODELS, help="the folder for the model (default: the shipped models')")
    text = "pictures for the int8 ranges, preferably the training pictures (default: no int8)"
    add("--calibrate", nargs="+", default=[], metavar="DIR", help=text)
    also = ("openvino", "litert", "saved_model", *FOR_PLAYERS)
    text = "formats beside ONNX; mpv is a shader, ffmpeg and vapoursynth are an ONNX file of floats"
    add("--also", nargs="+", choices=also, default=[], help=text)
    add("--detail", type=float, default=0.0, help="the default of a network with two ends, 0 to 1 (default: 0)")
    text = "how much formats for players clean, 0 to 1, of a network that takes it (default: 0.25)"
    add("--clean", type=float, help=text)
    text = "what it was trained for, for the card (default: none, where that makes no difference)"
    add("--flavour", choices=sorted({*FLAVOURS.values()}), default="", help=text)
    text = "HR pictures; their PSNR and SSIM go into the card"
    add("--measure", nargs="*", type=_pair, default=[], metavar="NAME=DIR", help=text)
    text = "the training data and its licence, for the card"
    add("--data", nargs="*", type=_pair, default=[], metavar="NAME=LICENCE", help=text)
    return parser


def _export(options):
    add_to = (options.run / "card.json").is_file()
    others = ("name", "calibrate", "measure", "data", "detail", "flavour")
    if add_to and any(getattr(options, name) for name in others):
        raise ValueError(
            f"Expected --also and --clean alone for a saved model. Received: {options.run} and other options"
        )
    if add_to and not (options.also and {*options.also} <= {*FOR_PLAYERS}):
        raise ValueError(f"Expected formats to add to a saved model ({', '.join(FOR_PLAYERS)}), by --also")
    if not add_to and not options.name:
        raise ValueError("Expected a name for the model, by --name")
    import_keras()
    from imagesr.export.export import add_formats, export
    from imagesr.media.images import find_images

    if add_to:
        print(add_formats(options.run, options.also, clean=options.clean).folder)
        return 0
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
        clean=options.clean,
        flavour=options.flavour,
    )
    costs = f"{card.parameters:,} parameters, {card.multiply_accumulates:,.0f} multiply-accumulates per LR pixel"
    print(f"{card.folder}: {costs}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("export", _export, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
