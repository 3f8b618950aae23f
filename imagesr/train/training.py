"""The training itself: from a Config to a run folder with its network."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import keras
from keras import ops

from imagesr.datasets import DATASETS, DataSource
from imagesr.datasets.crops import RandomCrops
from imagesr.datasets.degradations import Degradation
from imagesr.datasets.pairs import SIZES, load_pairs, shape
from imagesr.depth.estimator import depth_source
from imagesr.depth.network import without_depth
from imagesr.files import write_whole
from imagesr.metrics.perceptual import Extractor, content_loss, load_extractor
from imagesr.models import cost
from imagesr.models.layers import takes_clean
from imagesr.scale import Scale
from imagesr.tracking.follow import Follower
from imagesr.tracking.lineage import write_lineage
from imagesr.train import plots
from imagesr.train.callbacks import PICTURES_EVERY, RunFolder, save_network
from imagesr.train.config import DETAIL, SHARP, WEIGHTS, Config
from imagesr.train.loop import check_backend, fed, momentum, run_epochs
from imagesr.train.losses import LOSSES, at_edges
from imagesr.train.optimizers import adam
from imagesr.train.runs import keep_rows, last_checkpoint, save_weights
from imagesr.train.start import start_from_linear, warm_start
from imagesr.train.validation import Validation

START = "start.json"  # PSNR-Y of bicubic and of the network before the first step

LINEAR = (
    "The network starts as the best linear filter, so the first steps seem to change nothing. On B100 the default "
    "network\ngained 0.25 dB over that filter in 5,000 steps and 0.6 dB in 35,000. A first run needs some 20,000 steps."
)
RANDOM = "The network starts from random weights. A first run needs some 20,000 steps."


def train(
    config: Config, out: Path, *, track: str | None = None, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> keras.Model:
    """Train as `config` says into the run folder `out`, and return the collapsed float32 network.

    The folder gets `config.json`, `history.csv`, `checkpoints/`, `statistics/*.png`, and at the end `model.keras` and
    `benchmark.json`. The network's weights are the moving average. An interrupted run goes on from its last
    checkpoint. With the address `track` the run is mirrored to that tracking server meanwhile, and gets `lineage.json`.
    `callbacks` are more callbacks of Keras. Raises ValueError, before the first step, for data or a config that cannot
    be trained with, and TrainingError where a loss stops being a number.
    """
    check_backend()
    # Decided once: a run that is resumed elsewhere with another optimizer would forget all that it has learned.
    config = config.changed(precision=_policy(config.precision))
    new, saved = not out.exists(), out / "config.json"
    if saved.exists() and (other := Config.read(saved)) != config:
        raise ValueError(f"Expected the config of the run in {out}: {other!r}. Received: {config!r}")
    only = {"a strategy": config.strategy, "a GAN": config.gan is not None, "a detail": config.detail is not None}
    if any(only.values()) and keras.backend.backend() != "tensorflow":
        what = next(name for name, given in only.items() if given)
        raise ValueError(f"Expected KERAS_BACKEND=tensorflow for {what}. Received: {keras.backend.backend()}")
    out.mkdir(parents=True, exist_ok=True)
    config.write(saved)
    policy = keras.config.dtype_policy()
    try:
        run = Run(config, out, callbacks)
    except ValueError:
        if new:
            shutil.rmtree(out)
        raise
    finally:
        keras.config.set_dtype_policy(policy)
    if track is None:
        return run.train()
    write_lineage(out, data_files(config), Path(config.init) if config.init else None)
    with Follower(out, track):
        return run.train()


def data_files(config: Config) -> dict[str, list[Path]]:
    """Return the files of every data source of a config, those of the validation too; none of what has no files."""
    scale, found = Scale.parse(config.scale), {}
    for texts, split in ((config.data, "train"), (config.val, "val")):
        for source in map(DataSource.parse, texts):
            if source.name == "clips":  # reading its pairs would decode them
                files = [file for file in source.place.iterdir() if file.is_file()]
            else:
                pairs = DATASETS[source.name](source.place, scale, split)
                files = [getattr(side, "photo", side) for pair in pairs for side in pair if side is not None]
            found[f"{source} ({split})"] = [file for file in files if isinstance(file, Path)]
    return found


class Run:
    """Hold the network of a run, its data, and what `fit` is called on."""

    def __init__(self, config: Config, out: Path, callbacks: Sequence[keras.callbacks.Callback] = ()):
        self.config, self.out, self.scale = config, out, Scale.parse(config.scale)
        self.callbacks = callbacks
        keras.utils.set_random_seed(config.seed)
        keras.config.set_dtype_policy(_policy(config.precision))
        with _scope(config.strategy):
            self.model = config.build()
        _crop_size(config, self.model)  # raises before weights and pictures are read
        fresh = self._start()
        self.trainer, self.loss = _trainer(config, self.model)
        self.crops, self.validation = _data(config, self.model)
        self.linear = "anchor" in fresh and any(layer.name == "anchor" for layer in self.model.layers)
        if self.linear:
            start_from_linear(self.model, self.crops)

    def _start(self):
        """Give the network the weights that the config names; return the layers that still have random ones."""
        if last_checkpoint(self.out):
            return []
        if not self.config.init:
            return ["anchor"]
        fresh = warm_start(self.model, Path(self.config.init), self.config)
        if self.config.gan is not None and fresh:
            raise ValueError(f"Expected a whole stage one at scale {self.scale}. Received: {self.config.init}")
        return fresh

    def compile(self) -> None:
        """Give the network its optimizer and loss."""
        config = self.config
        average = {"use_ema": True, "ema_momentum": momentum(config.steps)}
        with _scope(config.strategy):
            self.model.compile(adam(config.steps, config.learning_rate, **average), self.loss)
            self.model.optimizer.build(self.model.trainable_variables)
        if config.gan is not None:
            opponent = self.trainer.discriminator
            opponent.compile(adam(config.steps, config.learning_rate))
            opponent.optimizer.build(opponent.trainable_variables)
        if self.trainer is not self.model:
            self.trainer.compile(optimizer=None)  # each network has its own

    def train(self) -> keras.Model:
        """Train to the end; returns the collapsed network."""
        self.compile()
        for folder in ("checkpoints", "statistics"):
            (self.out / folder).mkdir(exist_ok=True)
        done = 0
        if checkpoint := last_checkpoint(self.out):
            done, file = checkpoint
            _load_checkpoint(self.trainer, file)
            print(f"going on from step {done:,} of {self.config.steps:,}", flush=True)
        else:
            self._tell_start()
        keep_rows(self.out / "history.csv", done)
        if done < self.config.steps:
            self._fit(done)
        return self._finish()

    def _tell_start(self):
        """Measure the network before the first step, and print what to expect of the run."""
        bicubic, before = self.validation.bicubic, self.validation.psnr_y(self.model)
        write_whole(self.out / START, json.dumps({"bicubic": bicubic, "psnr_y": before}) + "\n")
        print(f"PSNR-Y of bicubic {bicubic:.2f} dB, before the first step {before:.2f} dB", flush=True)
        if not self.config.init:
            print(LINEAR if self.linear else RANDOM, flush=True)

    def _fit(self, done):
        config, self.crops.start = self.config, done
        folder = RunFolder(
            self.out,
            self.model,
            measure=lambda: self.validation.psnr_y(self.model),
            draw=self.draw,
            draw_every=0 if config.gan is not None else PICTURES_EVERY,
            finish=False,  # a GAN's network has an optimizer of its own
        )
        folder.step = done
        remedy = f"try a lower --learning-rate than {config.learning_rate:g}"
        run_epochs(
            self.trainer,
            fed(self.crops),
            done=done,
            steps=config.steps,
            callbacks=[folder, *self.callbacks],
            remedy=remedy,
        )

    def _finish(self):
        """Give the network its moving average, save it, draw, and measure it."""
        if self.config.steps:  # as `fit` does at its end, but not for a GAN's generator
            self.model.optimizer.finalize_variable_values(self.model.trainable_weights)
        if self.config.detail is not None:
            self.trainer.settle()
            self.trainer.release()
        inputs = self.model.inputs if len(self.model.inputs) > 1 else self.model.input
        weights = keras.Model(inputs, self.model.output)  # without the optimizer
        save_weights(weights, self.out / "training.weights.h5")
        plain = save_network(self.model, self.out)
        self.draw()
        self.benchmark(plain)
        return plain

    def draw(self, step: int | None = None) -> None:
        """Draw the run's curves and a few crops into `statistics/`; a GAN's also under the number of the step."""
        if (self.out / "history.csv").exists():
            plots.draw_curves(self.out / "history.csv", self.out / "statistics", self.validation.bicubic)
        crops, sr = self.validation.crops, self.validation.upscaled(self.model)
        few = range(0, len(crops), -(-len(crops) // 4))
        samples = self.out / "statistics/samples.png"
        title = f"{self.config.model} x{self.scale}"
        plots.draw_samples([(crops[i][0], sr[i], crops[i][1]) for i in few], samples, title)
        if self.config.gan is not None and step is not None:
            shutil.copyfile(samples, samples.with_name(f"samples_{step:09}.png"))

    def benchmark(self, plain: keras.Model) -> None:
        """Print, and write to `benchmark.json`, the time for 30 frames, PSNR and parameters."""
        seconds, how = cost.seconds_30_frames(without_depth(plain))
        record = {
            "seconds_30_frames": round(seconds, 3),
            "psnr_y": round(self.validation.psnr_y(plain), 3),
            "parameters": cost.parameters(plain),
        }
        write_whole(self.out / "benchmark.json", json.dumps(record, indent=1) + "\n")
        if (self.out / START).exists():
            before = json.loads((self.out / START).read_text("utf-8"))
            gain, over = (record["psnr_y"] - before[key] for key in ("psnr_y", "bicubic"))
            print(f"PSNR-Y {gain:+.2f} dB over the start, {over:+.2f} dB over bicubic")
        print(
            f"time for 30 frames {seconds:.2f} s ({how}), PSNR-Y {record['psnr_y']:.2f} dB, "
            f"{record['parameters']:,} parameters: {self.out / 'model.keras'}"
        )


def _trainer(config, model):
    """Return what `fit` is called on, the network or what trains it, and the network's loss."""
    pixel_loss, weights = LOSSES[config.loss], WEIGHTS | config.weights
    if config.detail is not None:
        from imagesr.metrics.efficientnet import features
        from imagesr.train.detail import SecondEnd  # it needs TensorFlow

        weights = (SHARP if config.detail.get("sharp") else DETAIL) | config.detail
        looks = weights.get("texture") or weights.get("structure")
        network = Extractor(features("lite0", Path(config.features) if config.features else None)) if looks else None
        parts = {"loss": pixel_loss, "weights": weights, "scale": Scale.parse(config.scale)}
        return SecondEnd(model, network, **parts), pixel_loss
    extractor = load_extractor(config.perceptual) if config.perceptual != "none" else None
    if config.gan is not None:
        from imagesr.train.gan import SRGAN, discriminator  # it needs TensorFlow

        opponent = discriminator(channels=model.input.shape[-1], filters=config.gan.get("filters", 64))
        options = {"extractor": extractor, "weights": weights, "pixel_loss": pixel_loss}
        return SRGAN(model, opponent, relativistic=config.gan.get("relativistic", False), **options), pixel_loss
    if not extractor:
        return model, pixel_loss if config.edge_weight == 1 else at_edges(pixel_loss)

    def loss(hr, sr):
        content = content_loss(extractor(hr), extractor(sr))
        return weights["pixel"] * ops.mean(pixel_loss(hr, sr)) + weights["perceptual"] * content

    return model, loss


def _data(config, model):
    """Read the pictures, and return random crops to train on and the crops to measure on."""
    scale, degradation, size = Scale.parse(config.scale), Degradation.parse(config.degrade), _crop_size(config, model)
    frame = size if None not in model.inputs[0].shape[1:3] else None  # of a network that takes whole frames
    estimator = Path(config.depth_model) if config.depth_model else None
    depth = depth_source([*map(Path, config.depth)], estimator, scale)
    clean = takes_clean(model)
    read = {"channels": model.output.shape[-1], "degradation": degradation, "depth": depth, "clean": clean}
    sets, files = _read(config.data, "train", scale, frame, size=size, sizes=(1.0,) if frame else SIZES, **read)
    val, val_files = _read(config.val, "val", scale, frame, size=frame or (0, 0), **read)
    if both := len(set(files) & set(val_files)):
        print(f"NOTE: {both} pictures are in --data and in --val: PSNR will flatter")
    names = ("batch", "steps", "seed", "curriculum", "depth_dropout", "edge_weight")
    options = {name: getattr(config, name) for name in names}
    crops = RandomCrops(sets, scale, size=size, degradation=degradation, clean=clean, **options)
    pairs = [pair for pairs, _ in val for pair in pairs]
    validation = Validation(pairs, scale, degradation=degradation, frame=frame, clean=clean)
    measured = f"{len(validation.crops)} crops of {len(val_files)} to measure on"
    print(f"{len(files)} pictures to train on, {measured}", flush=True)
    return crops, validation


def _read(texts, split, scale, frame, **options):
    """Return the loaded data sets with their weights, and the names of all their HR pictures."""
    sets, pictures = [], []
    for source in map(DataSource.parse, texts):
        pairs = DATASETS[source.name](source.place, scale, split)
        if frame:
            pairs = _large_enough(pairs, frame, source)
        loaded = load_pairs(pairs, scale, colour=split == "train", **options)  # Set14 has grey pictures
        sets.append((loaded, source.weight or len(pairs)))
        photos = [getattr(pair.hr, "photo", pair.hr) for pair in pairs]
        pictures += [str(hr) if isinstance(hr, Path) else f"{source}, {i}" for i, hr in enumerate(photos)]
    return sets, pictures


def _large_enough(pairs, frame, source):
    """Return the pairs whose HR holds a whole frame; most folders have some that are smaller."""
    fitting = [pair for pair in pairs if all(n >= m for n, m in zip(shape(pair.hr), frame, strict=True))]
    if not fitting:
        raise ValueError(f"Expected HR pictures of {frame[1]}x{frame[0]} and more. Received: {source}, all smaller")
    if len(fitting) < len(pairs):
        print(f"{source}: {len(pairs) - len(fitting)} of {len(pairs)} are smaller than a frame and left out")
    return fitting


def _crop_size(config, model):
    """Return the HR (height, width) of training crops; raises ValueError for a patch that does not suit the network."""
    scale, unit = Scale.parse(config.scale), cost.multiple(model)
    if None not in model.inputs[0].shape[1:3]:
        return tuple(n * scale.up // scale.down for n in cost.input_size(model, (0, 0)))
    unit = scale.up * max(1, unit // scale.down)
    if config.patch % unit:
        raise ValueError(
            f"Expected a patch that is a multiple of {unit} for {config.model} x{scale}. Received: {config.patch}"
        )
    return (config.patch, config.patch)


def _load_checkpoint(trainer, file):
    """Load a checkpoint; raises ValueError for one of a GAN that lacks one of its networks."""
    if hasattr(trainer, "discriminator"):
        import h5py

        with h5py.File(file) as h5:
            if missing := {"generator", "discriminator"} - set(h5):
                raise ValueError(f"Expected the GAN's networks in {file}, to go on with. It lacks its {missing.pop()}")
    trainer.load_weights(file)


def _scope(strategy):
    if not strategy:
        return contextlib.nullcontext()
    import tensorflow as tf

    global _mirrored
    _mirrored = _mirrored or tf.distribute.MirroredStrategy()
    return _mirrored.scope()


_mirrored = None  # one for the process: variables and optimizer must share it


def _policy(precision):
    """Return the dtype policy of a precision; of `auto`, mixed_float16 on a GPU and float32 elsewhere."""
    if precision != "auto":
        return precision
    # Tensor cores of every kind take float16. Not every CPU computes in bfloat16, and small networks gain nothing.
    try:
        devices = " ".join(keras.distribution.list_devices()).lower()
    except AttributeError:  # Keras does not ask PyTorch
        return "float32"
    return "mixed_float16" if "gpu" in devices or "cuda" in devices else "float32"
