"""Train the network on patches of photographs, and measure it in bits per dimension."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from imagesr.errors import TrainingError
from imagesr.files import whole, write_whole
from imagesr.scale import Scale
from imagesr.train.fit import GRADIENT_NORM

if TYPE_CHECKING:
    import keras

    from imagesr.datasets.crops import RandomCrops

SIDE = 32  # HR pixels of a patch, as in the paper
SIZES = (
    0.5,
    0.25,
    0.125,
)  # of the photographs that patches are cut from: in whole ones they would hold next to nothing
EPOCH = 100  # steps between two checkpoints
HELD_OUT = 64  # patches that a run is measured on
BATCH = 16  # patches that are measured at once


@dataclasses.dataclass(frozen=True)
class Config:
    """Say what a run is; saved as `config.json` in its folder.

    `data` and `val` are what `imagesr train` takes, `NAME=DIR` or `NAME=DIR@WEIGHT`; `filters`, `blocks`, `layers` and
    `reach` are the network's.
    """

    data: tuple[str, ...]
    val: tuple[str, ...]
    filters: int = 36
    blocks: int = 1
    layers: int = 5
    reach: int = 1
    steps: int = 10_000
    batch: int = 16
    learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self):
        """Raise ValueError for what no run can be."""
        for key, low in {"steps": 1, "batch": 1, "seed": 0}.items():
            if getattr(self, key) < low:
                raise ValueError(f"Expected {key} of {low} or more. Received: {getattr(self, key)}")
        if not self.learning_rate > 0:
            raise ValueError(f"Expected learning_rate above 0. Received: {self.learning_rate}")


def train(config: Config, out: Path) -> keras.Model:
    """Train as `config` says into the run folder `out`, and return the network.

    The folder gets `config.json`, `history.csv`, a checkpoint every `EPOCH` steps, and `model.keras` at the end. A run
    that was interrupted goes on from its checkpoint, along the same curve. Raises ValueError, before anything is
    written, for data or a config that cannot be trained with, and TrainingError where the loss stops being a number.
    """
    import keras

    from imagesr.recursive.network import pixel_recursive

    text = json.dumps(dataclasses.asdict(config), indent=1) + "\n"
    saved, checkpoint, history = (out / name for name in ("config.json", "checkpoint.weights.h5", "history.csv"))
    if saved.exists() and (theirs := saved.read_text("utf-8")) != text:
        theirs, ours = (" ".join(config.split()) for config in (theirs, text))
        raise ValueError(f"Expected the config of the run in {out}, {theirs}, or another folder. Received: {ours}")
    keras.utils.set_random_seed(config.seed)
    model = pixel_recursive(
        side=SIDE, filters=config.filters, blocks=config.blocks, layers=config.layers, reach=config.reach
    )
    crops = patches(config.data, "train", batch=config.batch, steps=config.steps, seed=config.seed)
    val = patches(config.val, "val", batch=HELD_OUT).numbered(0)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(saved, text)

    warmup = min(500, config.steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
        decay_steps=max(1, config.steps - warmup),
        alpha=0.01,
    )
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Of the conditioning network too, without which the prior, quicker to learn, would leave LR unread (section 3.3).
    model.compile(keras.optimizers.Adam(schedule, global_clipnorm=GRADIENT_NORM), [entropy, entropy])
    model.optimizer.build(model.trainable_variables)
    if checkpoint.exists():
        model.load_weights(checkpoint)
    done = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    rows = [row for row in _read_rows(history) if int(row["step"]) <= done]
    losses = []
    # disable=None: no bar where nobody watches.
    with tqdm(total=config.steps, initial=done, unit=" steps", dynamic_ncols=True, disable=None) as bar:
        for step in range(done, config.steps):
            lr, hr = crops.numbered(step)
            values = _values(hr)
            logs = model.train_on_batch([lr, hr], [values, values], return_dict=True)
            losses.append(logs["logits_loss"] / np.log(2))
            if not np.isfinite(losses[-1]):
                raise TrainingError(
                    f"Expected a loss that is a number. Received: {losses[-1]} at step {step + 1}; "
                    f"try a lower --learning-rate than {config.learning_rate:g}"
                )
            bar.update()
            if (step + 1) % EPOCH and step + 1 < config.steps:
                continue
            total, alone = bits_per_dimension(model, *val)
            row = {"step": step + 1, "bits": np.mean(losses), "val_bits": total, "val_bits_conditioning": alone}
            rows.append({key: f"{value:.7g}" for key, value in row.items()})
            losses.clear()
            bar.write(", ".join(f"{key} {value}" for key, value in rows[-1].items()))
            _write_rows(history, rows)
            with whole(checkpoint, ending=".weights.h5") as part:
                model.save_weights(part)
    model = keras.Model(model.inputs, model.outputs)  # without the optimizer
    with whole(out / "model.keras", ending=".keras") as part:
        model.save(part)
    return model


def load(run: Path) -> keras.Model:
    """Read the network of a run folder, or of a `.keras` file; raises ValueError for what is none of these."""
    import keras

    from imagesr.recursive import network  # noqa: F401  its layers are registered by it

    file = run / "model.keras" if run.is_dir() else run
    try:
        model = keras.saving.load_model(file, compile=False)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"Expected a finished run of `imagesr recursive train`. Received: {run} ({reason})") from None
    if [tensor.name for tensor in model.inputs] != ["lr", "hr"]:
        raise ValueError(f"Expected a network of `imagesr recursive train`. Received: {run}, which is another")
    return model


def patches(texts: Sequence[str], split: str, *, batch: int, steps: int = 1, seed: int = 0) -> RandomCrops:
    """Return random patches, 32×32 HR and 8×8 LR, of photographs reduced to an eighth to a half of their size.

    `texts` are `NAME=DIR` or `NAME=DIR@WEIGHT`. Raises ValueError for what is no data set, or holds no picture that is
    large enough.
    """
    from imagesr.datasets import DATASETS, Source
    from imagesr.datasets.crops import RandomCrops
    from imagesr.datasets.pairs import Pair, load_pairs

    scale, sets = Scale(4, 1), []
    for source in map(Source.parse, texts):
        pairs = [Pair(None, pair.hr) for pair in DATASETS[source.name](source.place, scale, split)]
        loaded = load_pairs(pairs, scale, channels=3, sizes=SIZES, size=(SIDE, SIDE))
        loaded = [(lr, hr) for lr, hr in loaded if min(hr.shape[:2]) >= SIDE]
        if not loaded:
            least = round(SIDE / SIZES[0])
            raise ValueError(f"Expected pictures of at least {least}x{least} pixels. Received: {source}, all smaller")
        sets.append((loaded, source.weight or len(pairs)))
    return RandomCrops(sets, scale, batch=batch, size=(SIDE, SIDE), steps=steps, seed=seed)


def bits_per_dimension(model: keras.Model, lr: np.ndarray, hr: np.ndarray) -> tuple[float, float]:
    """Return the mean of -log2 p over the samples of HR pictures, and the same of the conditioning network alone.

    `lr` and `hr` are floats in [0, 1]. A model that knows nothing has 8 bits.
    """
    import keras

    sums = np.zeros(2)
    for i in range(0, len(hr), BATCH):
        few = slice(i, i + BATCH)
        for j, logits in enumerate(model([lr[few], hr[few]])):
            losses = keras.losses.sparse_categorical_crossentropy(_values(hr[few]), logits, from_logits=True)
            sums[j] += np.sum(keras.ops.convert_to_numpy(losses), dtype=np.float64)
    return tuple(float(total) for total in sums / hr.size / np.log(2))


def _values(hr):
    """Return the integers of samples in [0, 1]."""
    return np.rint(hr * 255).astype(np.int32)


def _read_rows(file):
    return list(csv.DictReader(io.StringIO(file.read_text("utf-8")))) if file.exists() else []


def _write_rows(file, rows):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write_whole(file, text.getvalue())
