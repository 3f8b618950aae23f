"""Train a network: `python -m imagesr.train --model NAME --data NAME=DIR … --val NAME=DIR … --out RUN`."""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import inspect
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagesr.cli import Interrupted, Parser, run_command
from imagesr.errors import TrainingError
from imagesr.files import whole, write_whole
from imagesr.scale import Scale

if TYPE_CHECKING:
    import keras
    import numpy as np

EPOCH = 500  # steps; after each the moving average is measured and a checkpoint written
SMALLEST_PATCH = 24  # HR pixels a side: less is nothing but border
CROP, CROPS = 192, 48  # HR pixels a side, and the number, of the fixed crops that are measured on
GRADIENT_NORM = 1.0  # gradients are clipped to it: what made VDSR's depth trainable harms no other network
PICTURES_EVERY = 60  # seconds between two drawings of the statistics
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
LOSSES = ("mse", "log_mse", "log_mse_ssim", "mae", "charbonnier", "ssim")
GAN_LEARNING_RATE = 1e-4  # the paper's
# How much each part of a loss counts: their gradients are then about alike at the start (MAE, `photos`, bce).
WEIGHTS = {"pixel": 1.0, "perceptual": 0.01, "adversarial": 0.01}


@dataclasses.dataclass(frozen=True)
class Config:
    """Say what a run is; saved as `config.json` in its folder, so that it can be resumed or repeated.

    `data` and `val` are `NAME=DIR` or `NAME=DIR@WEIGHT`, `architecture` the options of the network's builder, `degrade`
    what `Degradation.parse` reads. `patch` is a training crop's side in HR pixels, `steps` the total. `gan` makes a run
    stage two of SRGAN: the discriminator's `filters`, and `relativistic`. `weights` are of `pixel`, which is `loss`,
    `perceptual` and `adversarial`; `perceptual` is what `load_extractor` reads, or `none`. `curriculum` is the share of
    the steps over which degradations become as frequent as `degrade` says. With `depth`,
    folders of maps, or `depth_model`, an estimator's ONNX file, the network takes depth too, and of a share of
    `depth_dropout` of the crops it is hidden; an error where depth jumps counts `edge_weight` times.
    """

    data: tuple[str, ...]
    val: tuple[str, ...]
    model: str = "realtime"
    scale: str = "1.5"
    architecture: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    degrade: tuple[str, ...] = ("kernel=bicubic",)
    steps: int = 20_000
    batch: int = 32
    patch: int = 96
    loss: str = "mse"
    learning_rate: float = 5e-4
    precision: str = "auto"
    strategy: str | None = None
    init: str | None = None
    seed: int = 0
    gan: Mapping[str, Any] | None = None
    from_scratch: bool = False
    perceptual: str = "none"
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    curriculum: float = 0.0
    depth: tuple[str, ...] = ()
    depth_model: str | None = None
    depth_dropout: float = 0.2
    edge_weight: float = 1.0

    def __post_init__(self):
        """Raise ValueError for what no run can be; every door comes through here."""
        least = {"steps": 0, "batch": 1, "patch": SMALLEST_PATCH, "seed": 0}
        for key, low in least.items():
            if not isinstance(getattr(self, key), int) or getattr(self, key) < low:
                raise ValueError(f"Expected {key} of {low} or more. Received: {getattr(self, key)}")
        if not isinstance(self.learning_rate, (int, float)) or not self.learning_rate > 0:
            raise ValueError(f"Expected learning_rate above 0. Received: {self.learning_rate}")
        for key, values in {"loss": LOSSES, "precision": PRECISIONS, "strategy": (None, "mirrored")}.items():
            if getattr(self, key) not in values:
                raise ValueError(
                    f"Expected {key} to be one of {', '.join(map(str, values))}. Received: {getattr(self, key)}"
                )
        if not 0 <= self.depth_dropout <= 1 or not self.edge_weight > 0:
            received = f"{self.depth_dropout}, {self.edge_weight}"
            raise ValueError(f"Expected depth_dropout from 0 to 1, edge_weight above 0. Received: {received}")
        if self.edge_weight != 1 and not self.takes_depth:
            raise ValueError(f"Expected depth or depth_model for an edge_weight. Received: {self.edge_weight}")
        if self.architecture.get("channels", 1) not in (1, 3):
            raise ValueError(f"Expected channels of 1 or 3. Received: {self.architecture['channels']}")
        if not isinstance(self.curriculum, (int, float)) or not 0 <= self.curriculum <= 1:
            raise ValueError(f"Expected curriculum from 0 to 1. Received: {self.curriculum}")
        for key, known in {"weights": WEIGHTS, "gan": ("filters", "relativistic")}.items():
            if odd := set(getattr(self, key) or ()) - set(known):
                raise ValueError(f"Expected {key} of {', '.join(known)}. Received: {odd.pop()}")
        if any(not isinstance(weight, (int, float)) or not weight >= 0 for weight in self.weights.values()):
            raise ValueError(f"Expected weights of 0 or more. Received: {dict(self.weights)}")
        if self.gan is not None and not (self.init or self.from_scratch):
            raise ValueError("Expected --init RUN, a GAN's stage one, or --from-scratch. Received: none")
        if self.gan is not None and self.strategy:
            raise ValueError(f"Expected no strategy for a GAN: it trains on one device. Received: {self.strategy}")
        if self.takes_depth and (self.gan is not None or self.perceptual != "none"):
            raise ValueError("Expected depth without a GAN and without perceptual: neither knows of it. Received both")

    @property
    def takes_depth(self) -> bool:
        """Say whether the network takes depth beside LR."""
        return bool(self.depth or self.depth_model)

    @classmethod
    def read(cls, file: Path) -> Config:
        """Read a run's `config.json`; raises ValueError for a file that is not one, or has a key that is unknown."""
        try:
            record = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"Expected the config of a run in {file}. Received: {error}") from None
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(record, dict) or set(record) - names or not {"data", "val"} <= set(record):
            odd = ", ".join(sorted(set(record) - names)) or "no data and val" if isinstance(record, dict) else record
            raise ValueError(f"Expected a config with the keys {', '.join(sorted(names))} in {file}. Received: {odd}")
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in record.items()})

    def write(self, file: Path) -> None:
        """Write the config, whole or not at all."""
        write_whole(file, json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    def build(self) -> keras.Model:
        """Return the untrained network; raises ValueError for options that it does not have."""
        from imagesr.models import builder
        from imagesr.models.layers import with_depth

        build = builder(self.model)
        known = set(inspect.signature(build).parameters) - {"scale"}
        if unknown := set(self.architecture) - known:
            raise ValueError(
                f"Expected options of {self.model} ({', '.join(sorted(known))}). Received: {unknown.pop()}"
            )
        try:
            model = build(self.scale, **self.architecture)
            return with_depth(model, Scale.parse(self.scale)) if self.takes_depth else model
        except TypeError as error:
            raise ValueError(f"Expected options that {self.model} can be built with. Received: {error}") from None


def train(config: Config, out: Path) -> keras.Model:
    """Train as `config` says into the run folder `out`, and return the collapsed float32 network.

    The folder gets `config.json`, `history.csv`, `checkpoints/`, `statistics/*.png`, and at the end `model.keras` and
    `yardstick.json`. The network's weights are the moving average. A run that was interrupted goes on from its last
    checkpoint. Raises ValueError, before the first step, for data or a config that cannot be trained with, and
    TrainingError where the loss stops being a number.
    """
    import keras

    # Settled now: a run that goes on elsewhere, with another optimizer, would forget all it had learned.
    config = dataclasses.replace(config, precision=_policy(config.precision))
    new, saved = not out.exists(), out / "config.json"
    if saved.exists() and (other := Config.read(saved)) != config:
        raise ValueError(f"Expected the config of the run in {out}: {other}. Received: {config}")
    if (config.strategy or config.gan is not None) and keras.backend.backend() != "tensorflow":
        what = "a strategy" if config.strategy else "a GAN"
        raise ValueError(f"Expected KERAS_BACKEND=tensorflow for {what}. Received: {keras.backend.backend()}")
    out.mkdir(parents=True, exist_ok=True)
    config.write(saved)
    policy = keras.config.dtype_policy()
    try:
        run = Run(config, out)
    except ValueError:
        if new:
            shutil.rmtree(out)
        raise
    finally:
        keras.config.set_dtype_policy(policy)
    return run.train()


class Run:
    """Hold the network of a run, its data, and where it stands."""

    def __init__(self, config: Config, out: Path):
        import keras

        from imagesr.datasets.crops import RandomCrops, fixed_crops
        from imagesr.datasets.degradations import Degradation
        from imagesr.datasets.pairs import SIZES
        from imagesr.depth.estimator import depth_source
        from imagesr.pixels import resize

        self.config, self.out, self.scale = config, out, Scale.parse(config.scale)
        degradation = Degradation.parse(config.degrade)
        keras.utils.set_random_seed(config.seed)
        keras.config.set_dtype_policy(_policy(config.precision))
        with _scope(config.strategy):
            self.model = config.build()
        self.channels = self.model.output.shape[-1]
        whole = None not in self.model.inputs[0].shape[1:3]  # a network that takes whole frames
        size = _crop_size(config, self.model)
        started = self.last_checkpoint()
        fresh = ["anchor"] if not started else []  # layers that nothing has given weights to
        if config.init and not started:
            fresh = warm_start(self.model, Path(config.init), config)
            if config.gan is not None and fresh:
                raise ValueError(f"Expected a whole stage one at scale {self.scale}. Received: {config.init}")
        self.trainer, self.loss = _trainer(config, self.model)

        model = Path(config.depth_model) if config.depth_model else None
        depth = depth_source([*map(Path, config.depth)], model, self.scale)
        read = {"scale": self.scale, "channels": self.channels, "degradation": degradation, "depth": depth}
        sets, files = _read(config.data, "train", whole, size=size, sizes=(1.0,) if whole else SIZES, **read)
        val, val_files = _read(config.val, "val", whole, size=size if whole else (0, 0), **read)
        val = [pair for pairs, _ in val for pair in pairs]
        if both := len(set(files) & set(val_files)):
            print(f"NOTE: {both} pictures are in --data and in --val: PSNR will flatter")
        options = {"batch": config.batch, "size": size, "steps": config.steps, "seed": config.seed}
        options |= {"curriculum": config.curriculum, "depth_dropout": config.depth_dropout}
        options["edge_weight"] = config.edge_weight
        self.crops = RandomCrops(sets, self.scale, degradation=degradation, **options)
        # Pictures smaller than such a crop give what they have.
        crop = size if whole else (CROP - CROP % (2 * self.scale.up),) * 2
        crops = fixed_crops(val, self.scale, size=crop, most=4 if whole else CROPS, degradation=degradation)
        self.val, self.depth = [pair for *pair, _ in crops] if depth else crops, [crop[-1] for crop in crops if depth]
        self.bicubic = self._psnr_y([resize(lr, hr.shape[1::-1]) for lr, hr in self.val])
        print(f"{len(files)} pictures to train on, {len(self.val)} crops of {len(val_files)} to measure on", flush=True)
        if "anchor" in fresh and any(layer.name == "anchor" for layer in self.model.layers):
            start_from_linear(self.model, self.crops)

    def last_checkpoint(self) -> tuple[int, Path] | None:
        """Return the number of steps done and the file of the newest checkpoint; None where there is none."""
        files = sorted((self.out / "checkpoints").glob("*.weights.h5"))
        files = [file for file in files if not file.name.startswith("part")]
        return (int(files[-1].name.split(".")[0]), files[-1]) if files else None

    def compile(self) -> None:
        """Give the network its optimizer and loss."""
        import keras

        config = self.config
        warmup = min(500, config.steps // 10)
        schedule = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else config.learning_rate,
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
            decay_steps=max(1, config.steps - warmup),
            alpha=0.01,
        )
        # A moving average over a thousand steps, or over the last tenth of a short run.
        average = {"use_ema": True, "ema_momentum": 1 - 1 / min(1000, max(1, config.steps / 10))}
        with _scope(config.strategy):
            optimizer = keras.optimizers.Adam(schedule, global_clipnorm=GRADIENT_NORM, **average)
            self.model.compile(optimizer, self.loss)
            self.model.optimizer.build(self.model.trainable_variables)
        if config.gan is not None:
            opponent = self.trainer.discriminator
            opponent.compile(keras.optimizers.Adam(schedule, global_clipnorm=GRADIENT_NORM))
            opponent.optimizer.build(opponent.trainable_variables)
            self.trainer.compile(optimizer=None)  # each network has its own

    def train(self) -> keras.Model:
        """Train to the end; returns the collapsed network."""
        import keras
        import numpy as np

        from imagesr.models.layers import collapsed

        config, model, out = self.config, self.model, self.out
        self.compile()
        for folder in ("checkpoints", "statistics"):
            (out / folder).mkdir(exist_ok=True)
        done = 0
        if checkpoint := self.last_checkpoint():
            done, file = checkpoint
            _load_checkpoint(self.trainer, file)
            print(f"going on from step {done:,} of {config.steps:,}", flush=True)
        else:
            print(f"PSNR-Y of bicubic {self.bicubic:.2f} dB, before the first step {self.psnr_y():.2f} dB", flush=True)
        _keep_rows(out / "history.csv", done)
        if done < config.steps:
            self.crops.start = done
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Your input ran out of data")  # the last epoch may be a short one
                history = self.trainer.fit(
                    _fed(self.crops, config),
                    initial_epoch=done // EPOCH,
                    epochs=-(-config.steps // EPOCH),
                    steps_per_epoch=min(EPOCH, config.steps),
                    shuffle=False,  # the crops are random already
                    verbose="auto" if sys.stdout.isatty() else 2,
                    callbacks=[keras.callbacks.TerminateOnNaN(), _after_epoch(self)],
                )
            for name, values in history.history.items():
                if not np.isfinite(values[-1]):
                    raise TrainingError(
                        f"Expected a {name} that is a number. Received: {values[-1]} in epoch "
                        f"{history.epoch[-1] + 1}; try a lower --learning-rate than {config.learning_rate:g}"
                    )
        if config.steps:  # the model takes its moving average, as fit does at its end where it trains nothing else
            model.optimizer.finalize_variable_values(model.trainable_weights)
        weights = keras.Model(model.input, model.output)  # without the optimizer
        with whole(out / "training.weights.h5", ending=".weights.h5") as part:
            weights.save_weights(part)
        plain = collapsed(model)
        with whole(out / "model.keras", ending=".keras") as part:
            plain.save(part)
        self.draw()
        self.yardstick(plain)
        return plain

    def psnr_y(self, model: keras.Model | None = None) -> float:
        """Return the mean PSNR-Y in dB over the fixed crops, by the papers' protocol; `model` or the run's own."""
        return self._psnr_y(self.upscaled(model))

    def _psnr_y(self, pictures):
        import numpy as np

        from imagesr.metrics.fidelity import CEILING, psnr
        from imagesr.pixels import luma

        values = []
        for (_, hr), sr in zip(self.val, pictures, strict=True):
            planes = (sr, hr) if hr.ndim == 2 else (luma(sr), luma(hr))
            values.append(min(psnr(*planes, shave=self.scale.up), CEILING))  # a flat crop is perfect
        return float(np.mean(values))

    def upscaled(self, model: keras.Model | None = None) -> list[np.ndarray]:
        """Return the uint8 pictures that a network, or the run's own, makes of the fixed crops."""
        import numpy as np
        from keras.ops import convert_to_numpy

        from imagesr.datasets.crops import as_batch
        from imagesr.depth.maps import as_channels

        results = [None] * len(self.val)
        by_shape: dict[tuple, list[int]] = {}
        for i, (lr, _) in enumerate(self.val):
            by_shape.setdefault(lr.shape, []).append(i)
        for indices in by_shape.values():
            for i in range(0, len(indices), 8):
                some = indices[i : i + 8]
                lr = as_batch([self.val[j][0] for j in some])
                depth = [as_channels(np.stack([self.depth[j] for j in some]))] if self.depth else []
                sr = (model or self.model)([lr, *depth] if depth else lr, training=False)
                sr = np.rint(np.clip(convert_to_numpy(sr) * 255, 0, 255)).astype(np.uint8)
                for j, picture in zip(some, sr if self.channels == 3 else sr[..., 0], strict=True):
                    results[j] = picture
        return results

    def draw(self, step: int | None = None) -> None:
        """Draw the run's curves and a few crops into `statistics/`; a GAN's also under the number of the step."""
        from imagesr.train.plots import draw_curves, draw_samples

        if (self.out / "history.csv").exists():
            draw_curves(self.out / "history.csv", self.out / "statistics", self.bicubic)
        few = range(0, len(self.val), -(-len(self.val) // 4))
        sr = self.upscaled()
        title = f"{self.config.model} x{self.scale}"
        samples = self.out / "statistics/samples.png"
        draw_samples([(self.val[i][0], sr[i], self.val[i][1]) for i in few], samples, title)
        if self.config.gan is not None and step is not None:
            shutil.copyfile(samples, samples.with_name(f"samples_{step:09}.png"))

    def yardstick(self, plain: keras.Model) -> None:
        """Print, and write to `yardstick.json`, the time for 30 frames, PSNR and parameters."""
        from imagesr.models.cost import parameters
        from imagesr.models.layers import without_depth

        seconds, how = seconds_30_frames(without_depth(plain))
        record = {"seconds_30_frames": round(seconds, 3), "psnr_y": round(self.psnr_y(plain), 3)}
        record |= {"parameters": parameters(plain)}
        write_whole(self.out / "yardstick.json", json.dumps(record, indent=1) + "\n")
        print(
            f"time for 30 frames {seconds:.2f} s ({how}), PSNR-Y {record['psnr_y']:.2f} dB, "
            f"{record['parameters']:,} parameters: {self.out / 'model.keras'}"
        )


def seconds_30_frames(model: keras.Model) -> tuple[float, str]:
    """Return the seconds for 30 frames of 720p in Keras at float32, and in words how that was measured.

    A network too heavy for that is timed on a piece of a frame.
    """
    import numpy as np

    from imagesr.models.cost import input_size, multiply_accumulates

    budget = 30e9  # multiply-accumulates per call: a second or less
    frame = (720, 1280)
    fits = multiply_accumulates(model) * frame[0] * frame[1] <= budget or None not in model.input.shape[1:3]
    piece = frame if fits else (96, 96)
    size = input_size(model, piece)
    lr = np.random.default_rng(0).random((1, *size, model.input.shape[-1]), np.float32)
    model.predict_on_batch(lr)
    times = []
    while len(times) < 3 or (sum(times) < 3 and len(times) < 30):
        begun = time.perf_counter()
        model.predict_on_batch(lr)
        times.append(time.perf_counter() - begun)
    seconds = 30 * float(np.median(times)) * frame[0] * frame[1] / (size[0] * size[1])
    return seconds, f"720p, Keras, float32{'' if fits else ', reckoned from a piece of 96x96'}"


def _trainer(config, model):
    """Return what `fit` is called on, the network or the GAN that holds it, and the network's loss."""
    from keras import ops

    from imagesr.train.losses import LOSSES, at_edges

    pixel_loss, extractor, weights = LOSSES[config.loss], None, WEIGHTS | config.weights
    if config.perceptual != "none":
        from imagesr.metrics.perceptual import content_loss, load_extractor

        extractor = load_extractor(config.perceptual)
    if config.gan is not None:
        from imagesr.train.gan import SRGAN, discriminator

        opponent = discriminator(channels=model.input.shape[-1], filters=config.gan.get("filters", 64))
        options = {"extractor": extractor, "weights": weights, "pixel_loss": pixel_loss}
        return SRGAN(model, opponent, relativistic=config.gan.get("relativistic", False), **options), pixel_loss
    if not extractor:
        return model, pixel_loss if config.edge_weight == 1 else at_edges(pixel_loss)

    def loss(hr, sr):
        content = content_loss(extractor(hr), extractor(sr))
        return weights["pixel"] * ops.mean(pixel_loss(hr, sr)) + weights["perceptual"] * content

    return model, loss


def _load_checkpoint(trainer, file):
    """Load what training goes on with; raises ValueError for a GAN's checkpoint that lacks one of its networks."""
    if hasattr(trainer, "discriminator"):
        import h5py

        with h5py.File(file) as h5:
            if missing := {"generator", "discriminator"} - set(h5):
                raise ValueError(f"Expected the GAN's networks in {file}, to go on with. It lacks its {missing.pop()}")
    trainer.load_weights(file)


def _after_epoch(run: Run) -> keras.callbacks.Callback:
    """Return the callback that measures, records, saves and draws after every epoch, in this order.

    A checkpoint is the raw weights, with the optimizer and its moving average: what training goes on with. It is
    renamed into place last, so that a kill at any moment leaves a history that is cut back to it.
    """
    import keras
    import numpy as np

    checkpoints, history = run.out / "checkpoints", run.out / "history.csv"

    class AfterEpoch(keras.callbacks.Callback):
        drawn = time.monotonic()

        def on_epoch_end(self, epoch, logs=None):
            step = min((epoch + 1) * EPOCH, run.config.steps)
            if not np.isfinite([*logs.values()]).all():
                self.model.stop_training = True
                return
            swap = keras.callbacks.SwapEMAWeights()
            swap.set_model(run.model)
            swap.on_test_begin()
            psnr_y = run.psnr_y()
            due = run.config.gan is not None or time.monotonic() - self.drawn > PICTURES_EVERY
            optimizer = getattr(run.model.optimizer, "inner_optimizer", run.model.optimizer)
            row = {"step": step} | {name: float(value) for name, value in logs.items()} | {"psnr_y": psnr_y}
            row["learning_rate"] = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
            _append_row(history, row)
            if due:
                run.draw(step)
                self.drawn = time.monotonic()
            swap.on_test_end()
            logs["psnr_y"], logs["learning_rate"] = psnr_y, row["learning_rate"]
            older = set(checkpoints.glob("[0-9]*.weights.h5"))
            checkpoint = checkpoints / f"{step:09}.weights.h5"
            with whole(checkpoint, ending=".weights.h5") as part:
                self.model.save_weights(part)
            for file in older - {checkpoint}:
                file.unlink()

    return AfterEpoch()


def _append_row(file, row):
    new = not file.exists()
    with file.open("a", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
        out.flush()
        os.fsync(out.fileno())


def _keep_rows(file, steps):
    """Cut a history back to the first `steps`: the checkpoint that training goes on from."""
    if not file.exists():
        return
    header, *rows = file.read_text("utf-8").splitlines() or [""]
    if not header.startswith("step,") or not steps:  # torn, or of what was lost
        file.unlink()
        return
    kept = [row for row in rows if row.count(",") == header.count(",") and int(row.split(",")[0]) <= steps]
    write_whole(file, "\n".join([header, *kept]) + "\n")


def _fed(crops, config):
    """Return the crops as the backend likes them: through tf.data, or as they are."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return crops
    from imagesr.datasets.tfdata import pipeline

    return pipeline(crops)


def _scope(strategy):
    if not strategy:
        return contextlib.nullcontext()
    import tensorflow as tf

    global _mirrored
    _mirrored = _mirrored or tf.distribute.MirroredStrategy()
    return _mirrored.scope()


_mirrored = None  # one for the process: variables and optimizer must share it


def _policy(precision):
    import keras

    if precision != "auto":
        return precision
    # Tensor cores of every kind take float16. Not every CPU computes in bfloat16, and small networks gain nothing.
    try:
        devices = " ".join(keras.distribution.list_devices()).lower()
    except AttributeError:  # Keras does not ask PyTorch
        return "float32"
    return "mixed_float16" if "gpu" in devices or "cuda" in devices else "float32"


def _crop_size(config, model):
    """Return the (height, width) in HR pixels of what a network is trained on; raises ValueError for an odd patch."""
    from imagesr.models.cost import input_size, multiple

    scale, unit = Scale.parse(config.scale), multiple(model)
    if None not in model.inputs[0].shape[1:3]:
        return tuple(n * scale.up // scale.down for n in input_size(model, (0, 0)))
    unit = scale.up * max(1, unit // scale.down)
    if config.patch % unit:
        raise ValueError(
            f"Expected a patch that is a multiple of {unit} for {config.model} x{scale}. Received: {config.patch}"
        )
    return (config.patch, config.patch)


def _read(texts, split, whole, *, size, **options):
    """Return the loaded data sets with their weights, and all their HR pictures."""
    from imagesr.datasets import DATASETS, Source
    from imagesr.datasets.pairs import load_pairs, shape

    sets, pictures = [], []
    for source in map(Source.parse, texts):
        pairs = DATASETS[source.name](source.place, options["scale"], split)
        if whole:  # pictures that hold no whole frame are of no use, and most folders have some
            fitting = [pair for pair in pairs if all(n >= m for n, m in zip(shape(pair.hr), size, strict=True))]
            if not fitting:
                raise ValueError(
                    f"Expected HR pictures of {size[1]}x{size[0]} and more. Received: {source}, all smaller"
                )
            if len(fitting) < len(pairs):
                print(f"{source}: {len(pairs) - len(fitting)} of {len(pairs)} are smaller than a frame and left out")
            pairs = fitting
        loaded = load_pairs(pairs, size=size, colour=split == "train", **options)  # Set14 has grey pictures
        sets.append((loaded, source.weight or len(pairs)))
        photos = [getattr(pair.hr, "photo", pair.hr) for pair in pairs]
        pictures += [str(hr) if isinstance(hr, Path) else f"{source}, {i}" for i, hr in enumerate(photos)]
    return sets, pictures


def warm_start(model: keras.Model, source: Path, config: Config) -> list[str]:
    """Give a network the weights of a run folder, a `.keras` file or a `.weights.h5` file.

    From a run at another scale it takes the layers that do not depend on the scale. Returns the names of the layers
    that it does not have. Raises ValueError where the weights are of another architecture.
    """
    import keras

    wanted = f"{config.model} {dict(config.architecture) or ''} at scale {config.scale}".replace("  ", " ")
    try:
        if source.is_dir():
            theirs = Config.read(source / "config.json")
            other = theirs.build()
            other.load_weights(source / "training.weights.h5")
            same_scale = Scale.parse(theirs.scale) == Scale.parse(config.scale)
        elif source.name.endswith(".weights.h5"):
            model.load_weights(source)
            return []
        else:
            other, same_scale = keras.saving.load_model(source, compile=False), False
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"Expected weights for {wanted} to start from. Received: {source} ({reason:.200})") from None
    named = {layer.name: layer for layer in other.layers}
    fitting, odd = [], []
    for layer in (layer for layer in model.layers if layer.weights):
        twin = named.get(layer.name)
        fits = twin is not None and [w.shape for w in twin.weights] == [w.shape for w in layer.weights]
        (fitting if fits else odd).append(layer)
    # At one scale, layers may be new, as in a deeper network, but not of another shape.
    if odd and (len(fitting) < len(odd) or (same_scale and any(layer.name in named for layer in odd))):
        names = ", ".join(layer.name for layer in odd[:3])
        raise ValueError(f"Expected weights for {wanted} to start from. Received: {source}, which differs in {names}")
    for layer in fitting:
        layer.set_weights(named[layer.name].get_weights())
    return [layer.name for layer in odd]


def start_from_linear(model: keras.Model, crops, batches: int = 40) -> None:
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
    for i in range(batches):
        lr, hr = crops.numbered(i)
        hr = hr[..., : model.output.shape[-1]]  # without the weights of edges
        x = np.lib.stride_tricks.sliding_window_view(ops.convert_to_numpy(features(lr)), (side, side), axis=(1, 2))
        x = np.moveaxis(x, 3, -1).reshape(-1, side * side * channels).astype(np.float64)
        y = ops.convert_to_numpy(ops.space_to_depth(hr, round((outputs / hr.shape[-1]) ** 0.5))).reshape(-1, outputs)
        gram, moments = gram + x.T @ x, moments + x.T @ y
    ridge = 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram))
    anchor.set_weights([np.linalg.solve(gram + ridge, moments).reshape(side, side, channels, outputs)])
    for layer in model.layers:
        if layer.name == "tail":
            layer.project.assign(np.zeros(layer.project.shape))


def _value(text):
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, received {text}")
    try:
        return key, json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number for {key}, received {value}") from None


def _parser():
    parser = Parser(prog="imagesr train", description="Train a network.")
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="RUN", help="the run folder")
    add("--resume", action="store_true", help="go on with the run in --out, by its own config")
    add("--config", type=Path, metavar="FILE", help="take what is not given here from another run's config.json")
    add("--model", help=f"a network: python -m imagesr.models lists them (default: {defaults['model']})")
    add("--scale", help=f"default: {defaults['scale']}")
    add("--architecture", nargs="+", type=_value, metavar="KEY=VALUE", help="of the network, e.g. filters=16 blocks=4")
    sets = "a data set, NAME=DIR or NAME=DIR@WEIGHT; a mere DIR is a folder of photographs"
    add("--data", nargs="+", metavar="NAME=DIR", help=f"what to train on: {sets}")
    add("--val", nargs="+", metavar="NAME=DIR", help="what to measure on, pictures not among the others")
    add("--degrade", nargs="+", metavar="STEP", help="how LR comes of HR, e.g. kernel=bicubic,area h264=18:28@0.5")
    text = (
        "share of the steps over which --degrade's steps become ever more frequent, from none to as often as they say"
    )
    add("--curriculum", type=float, metavar="SHARE", help=text)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help=f"in all (default: {defaults['steps']})")
    length.add_argument("--epochs", type=int, help=f"the same in epochs of {EPOCH} steps")
    add("--batch", type=int, help=f"crops per step (default: {defaults['batch']})")
    add("--patch", type=int, help=f"side of a crop in HR pixels (default: {defaults['patch']})")
    add("--loss", choices=LOSSES, help=f"default: {defaults['loss']}")
    add("--learning-rate", type=float, help=f"after warm-up, then a cosine down (default: {defaults['learning_rate']})")
    add("--precision", choices=PRECISIONS, help="default: auto, mixed_float16 on a GPU, float32 without one")
    add("--strategy", choices=("mirrored",), help="share every batch among all GPUs")
    add(
        "--init",
        metavar="RUN",
        help="start from its weights, or a .weights.h5 or (but for realtime) .keras file",
    )
    add("--seed", type=int)
    text = "stage two of SRGAN, from --init; the discriminator's filters=64, relativistic=true"
    add("--gan", nargs="*", type=_value, metavar="KEY=VALUE", help=text)
    add("--from-scratch", action="store_true", default=None, help="let a GAN start from random weights")
    text = "features to compare too: photos, vgg19[:LAYER][=FILE], none, or a folder (default with --gan: photos)"
    add("--perceptual", metavar="EXTRACTOR", help=text)
    add("--weights", nargs="+", type=_value, metavar="PART=N", help=f"of the loss's {', '.join(WEIGHTS)}")
    add(
        "--interpolate",
        nargs=2,
        type=Path,
        metavar=("A", "B"),
        help="train nothing: blend the weights of two runs or .keras files of one architecture into --out",
    )
    add("--alpha", type=float, help="how much of B: 0 is A, 1 is B")
    add(
        "--depth", nargs="+", metavar="DIR", help="depth maps, files of the pictures' names: the network takes them too"
    )
    add("--depth-model", metavar="FILE", help="an ONNX file that estimates depth from LR, in the place of --depth")
    add("--depth-dropout", type=float, help=f"share of crops without depth (default: {defaults['depth_dropout']})")
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
    out, resume, base, _ = (options.pop(key) for key in ("out", "resume", "config", "interpolate"))
    if options.pop("alpha") is not None:
        parser.error("--alpha goes with --interpolate")
    given = {key: value for key, value in options.items() if value is not None}
    if resume:
        if given or base:
            name = next(iter(given), "config").replace("_", "-")
            parser.error(f"--resume goes on by {out / 'config.json'}: leave out --{name}")
        return Config.read(out / "config.json")
    if "epochs" in given:
        given["steps"] = given.pop("epochs") * EPOCH
    if "architecture" in given:
        given["architecture"] = dict(given["architecture"])
    if "gan" in given:
        given = {"perceptual": "photos", "learning_rate": GAN_LEARNING_RATE} | given | {"gan": dict(given["gan"])}
    if "weights" in given:
        given["weights"] = dict(given["weights"])
    for key in ("data", "val"):
        given |= {key: tuple(_absolute(text) for text in given[key])} if key in given else {}
    for key in ("init", "depth_model"):
        given |= {key: str(Path(given[key]).absolute())} if key in given else {}
    if "depth" in given:
        given["depth"] = tuple(str(Path(place).absolute()) for place in given["depth"])
    if "degrade" in given:
        given["degrade"] = tuple(given["degrade"])
    if base:
        config = dataclasses.replace(Config.read(base), **given)
    elif given.get("data") and given.get("val"):
        config = Config(**given)
    else:
        parser.error("expected --data NAME=DIR and --val NAME=DIR, or --resume")
    if out.exists() and not out.is_dir():
        parser.error(f"expected a folder for --out, received a file: {out}")
    if (out / "checkpoints").exists():
        parser.error(f"{out} holds a run already: choose another --out, or --resume it")
    return config


def _absolute(text):
    """Return NAME=DIR with a folder that means the same from everywhere."""
    from imagesr.datasets import Source

    source = Source.parse(text)
    return str(source if str(source.place) == "tfds" else source._replace(place=source.place.absolute()))


def _train(parser, options):
    if options.interpolate:
        _interpolate(parser, vars(options))
        return 0
    out = options.out
    try:
        train(_config(parser, vars(options)), out)
    except Interrupted as interrupted:
        interrupted.hint = f"go on with --resume --out {out}"
        raise
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = (parser := _parser()).parse_args(arguments)
    return run_command("train", partial(_train, parser), options)


if __name__ == "__main__":
    sys.exit(main())
