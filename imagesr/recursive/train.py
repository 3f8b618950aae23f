"""Train the network on patches of photographs, and measure it in bits per dimension."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import keras
import numpy as np
from pydantic import Field
from tqdm import tqdm

from imagesr.datasets import DATASETS, DataSource
from imagesr.datasets.crops import RandomCrops
from imagesr.datasets.pairs import Pair, load_pairs
from imagesr.errors import TrainingError
from imagesr.files import whole
from imagesr.recursive.network import pixel_recursive
from imagesr.scale import Scale
from imagesr.train.config import RunConfig, Texts
from imagesr.train.optimizers import adam
from imagesr.train.runs import read_rows, save_weights, write_rows

SIDE = 32  # HR pixels of a patch, as in the paper
SIZES = (0.5, 0.25, 0.125)  # photographs are reduced to these: a patch of a whole one would show next to nothing
EPOCH = 100  # steps between two checkpoints
HELD_OUT = 64  # patches that a run is measured on
BATCH = 16  # patches that are measured at once


class RecursiveConfig(RunConfig):
    """Hold the settings of a run; saved as `config.json` in its folder."""

    data: Annotated[Texts, Field(description="training data, NAME=DIR or NAME=DIR@WEIGHT")]
    val: Annotated[Texts, Field(description="validation data, in the same form")]
    filters: Annotated[int, Field(description="feature maps, a multiple of 3")] = 36
    blocks: Annotated[int, Field(description="residual blocks of the conditioning network at each of its sizes")] = 1
    layers: Annotated[int, Field(description="gated layers of the PixelCNN")] = 5
    reach: Annotated[int, Field(description="pixels that their kernels look up, left and right")] = 1
    steps: Annotated[int, Field(ge=1, description="in all")] = 10_000
    batch: Annotated[int, Field(ge=1, description="patches per step")] = 16
    learning_rate: Annotated[float, Field(gt=0, description="after warm-up, then a cosine down")] = 2e-3
    seed: Annotated[int, Field(ge=0, description="of weights and patches")] = 0


def train(config: RecursiveConfig, out: Path) -> keras.Model:
    """Train as `config` says into the run folder `out`, and return the network.

    The folder gets `config.json`, `history.csv`, a checkpoint every `EPOCH` steps, and `model.keras` at the end. An
    interrupted run goes on from its checkpoint, along the same curve. Raises ValueError, before anything is written,
    for data or a config that cannot be trained with, and TrainingError where the loss stops being a number.
    """
    saved, checkpoint = out / "config.json", out / "checkpoint.weights.h5"
    if saved.exists() and (theirs := RecursiveConfig.read(saved)) != config:
        raise ValueError(f"Expected the config of the run in {out}: {theirs!r}. Received: {config!r}")
    keras.utils.set_random_seed(config.seed)
    model = pixel_recursive(
        side=SIDE, filters=config.filters, blocks=config.blocks, layers=config.layers, reach=config.reach
    )
    crops = patches(config.data, "train", batch=config.batch, steps=config.steps, seed=config.seed)
    val = patches(config.val, "val", batch=HELD_OUT).numbered(0)
    out.mkdir(parents=True, exist_ok=True)
    config.write(saved)

    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Of the conditioning network too: the prior learns faster, and LR would be ignored (section 3.3).
    model.compile(adam(config.steps, config.learning_rate), [entropy, entropy])
    model.optimizer.build(model.trainable_variables)
    if checkpoint.exists():
        model.load_weights(checkpoint)
    _run_steps(model, crops, val, out)
    model = keras.Model(model.inputs, model.outputs)  # without the optimizer
    with whole(out / "model.keras", ending=".keras") as part:
        model.save(part)
    return model


def _run_steps(model, crops, val, out):
    """Train from the optimizer's step to the last one; measure, record and save a checkpoint every `EPOCH` steps."""
    steps, history = crops.steps, out / "history.csv"
    done = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    rows = [row for row in read_rows(history) if int(row["step"]) <= done]
    losses = []
    with tqdm(total=steps, initial=done, unit=" steps", dynamic_ncols=True, disable=None) as bar:
        for step in range(done + 1, steps + 1):
            losses.append(_step(model, *crops.numbered(step - 1)))
            if not np.isfinite(losses[-1]):
                raise TrainingError(
                    f"Expected a loss that is a number. Received: {losses[-1]} at step {step}; "
                    "try a lower --learning-rate"
                )
            bar.update()
            if step % EPOCH and step < steps:
                continue
            total, alone = bits_per_dimension(model, *val)
            row = {"step": step, "bits": np.mean(losses), "val_bits": total, "val_bits_conditioning": alone}
            rows.append({key: f"{value:.7g}" for key, value in row.items()})
            losses.clear()
            bar.write(", ".join(f"{key} {value}" for key, value in rows[-1].items()))
            write_rows(history, rows)
            save_weights(model, out / "checkpoint.weights.h5")


def _step(model, lr, hr):
    """Train on one batch; returns the loss in bits."""
    values = _values(hr)
    return model.train_on_batch([lr, hr], [values, values], return_dict=True)["logits_loss"] / np.log(2)


def load(run: Path) -> keras.Model:
    """Read the network of a run folder, or of a `.keras` file; raises ValueError for anything else."""
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

    `texts` are `NAME=DIR` or `NAME=DIR@WEIGHT`. Raises ValueError for an unknown data set, and for one
    whose pictures are all too small.
    """
    scale, sets = Scale(4, 1), []
    for source in map(DataSource.parse, texts):
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

    `lr` and `hr` are floats in [0, 1]. An untrained model has about 8 bits.
    """
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
