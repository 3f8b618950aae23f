"""Train a network: `python -m imagesr.train --data DIR … --val DIR … --out RUN`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from imagesr.scale import Scale

if TYPE_CHECKING:
    import keras

    from imagesr.datasets.pairs import Pair

SIZES = (1.0, 0.7, 0.5)  # relative sizes at which every picture is shown
STEPS_PER_EPOCH = 500  # after each the moving average is measured and a checkpoint written
EXTRA = "Training needs the package {}: pip install 'imagesr[train]'"


@dataclasses.dataclass(frozen=True)
class Config:
    """Say what a run is; saved as `config.json` in its folder, so that it can be resumed or repeated.

    `patch` is a training crop's side in HR pixels, `steps` the total.
    """

    data: tuple[str, ...]
    val: tuple[str, ...]
    model: str = "realtime"
    scale: str = "1.5"
    filters: int = 32
    blocks: int = 2
    anchor: int = 5
    steps: int = 20_000
    batch: int = 32
    patch: int = 96
    loss: str = "mse"
    learning_rate: float = 5e-4
    init: str | None = None
    seed: int = 0

    @property
    def architecture(self) -> dict[str, int]:
        """Return the options of the network's builder."""
        return {"filters": self.filters, "blocks": self.blocks, "anchor": self.anchor}


def train(config: Config, out: Path) -> keras.Model:
    """Train as `config` says into the run folder `out`: `history.csv`, `checkpoints/`, and at the end `model.keras`.

    A run that was interrupted goes on from its last checkpoint. Returns the collapsed network, whose weights are the
    moving average. Raises ValueError for data that is missing, unreadable or smaller than the patch.
    """
    import keras

    from imagesr.datasets.pairs import RandomCrops, load_pairs
    from imagesr.images import find_images
    from imagesr.models import MODELS

    scale = Scale.parse(config.scale)
    train_files, val_files = find_images(config.data), find_images(config.val)
    keras.utils.set_random_seed(config.seed)
    model = MODELS[config.model](scale, **config.architecture)
    pairs = load_pairs(train_files, scale, sizes=SIZES, patch=config.patch)
    val = load_pairs(val_files, scale)
    crops = RandomCrops(
        pairs, scale, batch=config.batch, patch=config.patch, steps=min(STEPS_PER_EPOCH, config.steps), seed=config.seed
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n", "utf-8")
    print(f"{len(train_files)} pictures to train on, {len(pairs)} pairs; {len(val)} pictures to check with")

    if config.init:
        model.load_weights(Path(config.init) / "training.weights.h5")
    else:
        start_from_linear(model, crops)
    print(f"PSNR-Y before the first step: {psnr_y(model, val, scale):.2f} dB", flush=True)

    warmup = min(500, config.steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=config.steps - warmup,
        alpha=0.01,
    )
    model.compile(keras.optimizers.Adam(schedule, use_ema=True, ema_momentum=0.999), config.loss)

    class Measure(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["psnr_y"] = psnr_y(self.model, val, scale)

    checkpoint = out / "checkpoints" / "training_metadata.json"
    if checkpoint.exists():
        crops.epoch = json.loads(checkpoint.read_text("utf-8"))["epoch"]
    model.fit(
        crops,
        epochs=-(-config.steps // STEPS_PER_EPOCH),
        verbose="auto" if sys.stdout.isatty() else 2,
        callbacks=[
            # Before the swap: a checkpoint holds the weights that training goes on with.
            keras.callbacks.BackupAndRestore(out / "checkpoints", double_checkpoint=True, delete_checkpoint=False),
            keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
            Measure(),
            keras.callbacks.CSVLogger(out / "history.csv", append=True),
            keras.callbacks.TerminateOnNaN(),
        ],
    )
    # Trained to the end, the model holds its moving average: SwapEMAWeights leaves it there.
    model.save_weights(out / "training.weights.h5")
    plain = collapsed(model, config)
    plain.save(out / "model.keras")
    print(f"PSNR-Y {psnr_y(plain, val, scale):.2f} dB, {plain.count_params():,} parameters: {out / 'model.keras'}")
    return plain


def start_from_linear(model: keras.Model, crops) -> None:
    """Make `model` the best linear upscaler of its anchor's size: what the trunk adds is zero at first.

    The anchor, one filter per output phase, solves the normal equations over random crops.
    """
    import keras
    import numpy as np
    from keras import ops

    anchor = model.get_layer("anchor")
    side, _, channels, outputs = anchor.kernel.shape
    features = keras.Model(model.input, anchor.input)
    gram, moments = 0.0, 0.0
    for i in range(min(40, len(crops))):
        lr, hr = crops[i]
        x = np.lib.stride_tricks.sliding_window_view(ops.convert_to_numpy(features(lr)), (side, side), axis=(1, 2))
        x = np.moveaxis(x, 3, -1).reshape(-1, side * side * channels).astype(np.float64)
        y = ops.convert_to_numpy(ops.space_to_depth(hr, round(outputs**0.5))).reshape(-1, outputs)
        gram, moments = gram + x.T @ x, moments + x.T @ y
    ridge = 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram))
    anchor.set_weights([np.linalg.solve(gram + ridge, moments).reshape(side, side, channels, outputs)])
    tail = model.get_layer("tail")
    tail.project.assign(ops.zeros_like(tail.project))


def collapsed(model: keras.Model, config: Config) -> keras.Model:
    """Return the network of plain convolutions that computes the same: built-in layers only, float32."""
    from imagesr.layers import CollapsibleConv2D
    from imagesr.models import MODELS

    plain = MODELS[config.model](config.scale, **config.architecture, collapsible=False)
    for layer in model.layers:
        if isinstance(layer, CollapsibleConv2D):
            plain.get_layer(layer.name).set_weights([layer.kernel(), layer.bias])
        elif layer.weights:
            plain.get_layer(layer.name).set_weights(layer.get_weights())
    return plain


def psnr_y(model: keras.Model, pairs: list[Pair], scale: Scale) -> float:
    """Return the mean PSNR-Y in dB of a Keras luma network over whole pictures, by the papers' protocol."""
    import numpy as np
    from keras import ops

    from imagesr.evaluate import upscale_luma
    from imagesr.metrics import psnr

    def run(planes):
        sr = ops.convert_to_numpy(model(planes.astype(np.float32) / 255, training=False))
        return np.rint(np.clip(sr * 255, 0, 255))

    values = []
    for lr, hr in pairs:
        sr = upscale_luma(run, lr, multiple=2)
        values.append(psnr(sr[: hr.shape[0], : hr.shape[1]], hr, shave=scale.up))
    return float(np.mean(values))


class _Parser(argparse.ArgumentParser):
    def error(self, message) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def _parser():
    from imagesr.models import MODELS

    parser = _Parser(prog="imagesr train", description="Train a network on photographs.")
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    add = parser.add_argument
    add("--data", nargs="+", metavar="DIR", help="folders of photographs to train on")
    add("--val", nargs="+", metavar="DIR", help="folders of other photographs, to measure on")
    add("--out", type=Path, required=True, metavar="RUN", help="the run folder")
    add("--resume", action="store_true", help="go on with the run in --out, by its own config")
    add("--model", choices=MODELS)
    add("--scale", help=f"default: {defaults['scale']}")
    add("--filters", type=int, help=f"width of the trunk (default: {defaults['filters']})")
    add("--blocks", type=int, help=f"convolutions of the trunk (default: {defaults['blocks']})")
    add("--anchor", type=int, choices=(3, 5), help=f"side of the linear filter (default: {defaults['anchor']})")
    add("--steps", type=int, help=f"in all (default: {defaults['steps']})")
    add("--batch", type=int, help=f"crops per step (default: {defaults['batch']})")
    add("--patch", type=int, help=f"side of a crop in HR pixels (default: {defaults['patch']})")
    add("--loss", choices=("mse", "mae"), help=f"default: {defaults['loss']}")
    add("--learning-rate", type=float, help=f"after warm-up, then a cosine down (default: {defaults['learning_rate']})")
    add("--init", metavar="RUN", help="start from the weights of another run of the same network")
    add("--seed", type=int)
    return parser


def _config(parser, options) -> Config:
    out, resume = options.pop("out"), options.pop("resume")
    given = {key: value for key, value in options.items() if value is not None}
    saved = out / "config.json"
    if resume:
        if given:
            parser.error(f"--resume goes on by {saved}: leave out --{next(iter(given)).replace('_', '-')}")
        try:
            config = Config(**json.loads(saved.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            parser.error(f"expected the config of a run in {saved}, received: {error}")
        return dataclasses.replace(config, data=tuple(config.data), val=tuple(config.val))
    if not (given.get("data") and given.get("val")):
        parser.error("expected --data DIR and --val DIR, or --resume")
    if (out / "checkpoints").exists():
        parser.error(f"{out} holds a run already: choose another --out, or --resume it")
    config = Config(**given | {key: tuple(given[key]) for key in ("data", "val")})
    for key in ("filters", "blocks", "steps", "batch", "patch", "learning_rate"):
        if getattr(config, key) <= 0:
            parser.error(f"expected --{key.replace('_', '-')} above 0, received {getattr(config, key)}")
    return config


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    try:
        parser = _parser()
        options = parser.parse_args(arguments)
        out = options.out
        config = _config(parser, vars(options))
        train(config, out)
    except ModuleNotFoundError as error:
        print(f"imagesr train: {EXTRA.format(error.name)}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"imagesr train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nimagesr train: interrupted; go on with --resume --out {out}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
