"""The loop of every training: `fit` for a model and data of one's own, `run_epochs` for all."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from imagesr.datasets.crops import RandomCrops
from imagesr.errors import TrainingError
from imagesr.models.cost import model_scale
from imagesr.train.callbacks import RunFolder, averaged, inner_optimizer
from imagesr.train.losses import LOSSES
from imagesr.train.metrics import PSNR
from imagesr.train.optimizers import NAME, adam
from imagesr.train.runs import last_checkpoint

if TYPE_CHECKING:
    import tensorflow as tf

EPOCH = 500  # steps; after each epoch the moving average is measured and a checkpoint written


def fit(
    model: keras.Model,
    train: tf.data.Dataset | keras.utils.PyDataset,
    val: tf.data.Dataset | keras.utils.PyDataset | None = None,
    *,
    out: str | Path,
    steps: int = 20_000,
    loss: str | Callable = "mse",
    learning_rate: float = 5e-4,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | None = None,
) -> keras.callbacks.History:
    """Train a model for `steps` steps into a run folder; called again, go on from its last checkpoint.

    Example:
        model = imagesr.models.build("edsr_baseline", scale=2, filters=16, blocks=4)
        train = imagesr.datasets.load("folder", "photos/train", scale=2)
        val = imagesr.datasets.load("folder", "photos/val", scale=2, split="val")
        history = imagesr.train.fit(model, train, val, out="runs/a", steps=20_000)

    A model that is not compiled is trained by Adam with a warm-up and a cosine, over the moving average of its weights.
    A compiled model keeps its own optimizer, loss and metrics. At the end the model has its final weights, and the
    folder has `model.keras`, which `imagesr export` takes.

    Args:
        model: From LR to SR, float32 NHWC in [0, 1].
        train: Batches (LR, HR). Those of `imagesr.datasets.load` go on at the step where a run was interrupted; others
            are read from their beginning, again and again.
        val: Batches (LR, HR) that are measured after every epoch.
        out: The run folder: `history.csv`, `checkpoints/`, `statistics/*.png`, `model.keras`.
        steps: Length of the whole run. A finished run with more steps goes on. An epoch is 500 steps.
        loss: A name of `imagesr.train.losses.LOSSES`, or a function of (hr, sr), for a model that is not compiled.
        learning_rate: The highest rate, for a model that is not compiled.
        callbacks: More Keras callbacks, such as TensorBoard or EarlyStopping.
        verbose: As in `keras.Model.fit`; None is a bar in terminals and notebooks, and else a line for each epoch.

    Returns:
        What Keras's `fit` returns; it has the epochs of this call. `history.csv` has all.

    Raises:
        ValueError: For missing data, an unknown loss, and a run of another network.
        TrainingError: Where a loss is no number any more.
    """
    if steps < 1:
        raise ValueError(f"Expected at least 1 step. Received: {steps}")
    check_backend()
    out = Path(out)
    if (
        not model.compiled or inner_optimizer(model).name == NAME
    ):  # ours is made anew: its schedule depends on the steps
        _compile(model, loss, steps, learning_rate)
    found = last_checkpoint(out)
    done = min(found[0], steps) if found else 0
    data = _from_step(train, done, steps)  # raises before there is a folder
    folder = RunFolder(out)
    folder.set_model(model)
    folder.resume(always=True)
    tell = not found and val is not None and verbose != 0
    before = _tell_start(model, val) if tell else {}
    if done >= steps:  # finished: as Keras's `fit` leaves a model and its folder
        model.optimizer.finalize_variable_values(model.trainable_variables)
        folder.on_train_begin()
        folder.on_train_end()
        return _no_history(model)
    average = [keras.callbacks.SwapEMAWeights()] if averaged(model) else []
    callbacks = [*average, folder, *callbacks]
    history = run_epochs(model, data, done=done, steps=steps, callbacks=callbacks, val=val, verbose=verbose)
    if "psnr" in before and "val_psnr" in history.history:
        last = history.history["val_psnr"][-1]
        print(
            f"PSNR-Y {last:.2f} dB, {last - before['psnr']:+.2f} dB over the start: {out / 'model.keras'}", flush=True
        )
    return history


def _tell_start(model, val):
    """Measure a model before the first step, print what to expect, and return the figures by name."""
    before = model.evaluate(val, verbose=0, return_dict=True)
    figures = ", ".join(f"{name} {value:.4g}" for name, value in before.items())
    print(f"before the first step: {figures}. A first run needs some 20,000 steps.", flush=True)
    return before


def _compile(model, loss, steps, learning_rate):
    if isinstance(loss, str) and loss not in LOSSES:
        raise ValueError(f"Expected a loss ({', '.join(LOSSES)}), or a function of (hr, sr). Received: {loss}")
    # A moving average over a thousand steps, or over the last tenth of a short run.
    optimizer = adam(steps, learning_rate, use_ema=True, ema_momentum=momentum(steps), name=NAME)
    metrics = [PSNR(shave=model_scale(model).up)]
    model.compile(optimizer, LOSSES.get(loss, loss) if isinstance(loss, str) else loss, metrics=metrics)


def momentum(steps: int) -> float:
    """Return the momentum of the moving average of a run: over a thousand steps, or a tenth of a short run."""
    return 1 - 1 / min(1000, max(1, steps / 10))


def _no_history(model):
    history = keras.callbacks.History()
    history.set_model(model)
    history.epoch = []
    return history


def run_epochs(
    trainer: keras.Model,
    data: tf.data.Dataset | keras.utils.PyDataset,
    *,
    done: int,
    steps: int,
    callbacks: Sequence[keras.callbacks.Callback],
    val: tf.data.Dataset | keras.utils.PyDataset | None = None,
    verbose: int | None = None,
    remedy: str = "try a lower learning rate",
) -> keras.callbacks.History:
    """Call Keras's `fit` on the batches of steps `done` to `steps`, in epochs of `EPOCH` steps.

    Raises TrainingError, which ends with `remedy`, where a loss stops being a number.
    """
    if verbose is None:
        verbose = 1 if sys.stdout.isatty() or "ipykernel" in sys.modules else 2
    before = -(-done // EPOCH)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data")  # the last epoch may be a short one
        history = trainer.fit(
            data,
            validation_data=val,
            initial_epoch=before,
            epochs=before - (done - steps) // EPOCH,
            steps_per_epoch=min(EPOCH, steps - done),
            shuffle=False,  # the crops are random already
            verbose=verbose,
            callbacks=[keras.callbacks.TerminateOnNaN(), *callbacks],
        )
    for name, values in history.history.items():
        if not np.isfinite(values[-1]):
            epoch = history.epoch[-1] + 1
            raise TrainingError(
                f"Expected a {name} that is a number. Received: {values[-1]} in epoch {epoch}; {remedy}"
            )
    return history


def check_backend() -> None:
    """Raise ValueError for a backend of Keras that runs networks and does not train them."""
    if (backend := keras.backend.backend()) not in ("tensorflow", "jax", "torch"):
        raise ValueError(f"Expected KERAS_BACKEND to be tensorflow, jax or torch, which train. Received: {backend}")


def fed(crops: RandomCrops) -> tf.data.Dataset | RandomCrops:
    """Return crops as the backend reads them fastest: through tf.data for TensorFlow, else as they are."""
    if keras.backend.backend() != "tensorflow":
        return crops
    from imagesr.datasets.tfdata import pipeline

    return pipeline(crops)


class _Repeated(keras.utils.PyDataset):
    """Yield the batches of another dataset, again and again, from one step to another."""

    def __init__(self, dataset, done, steps):
        super().__init__()
        self.dataset, self.done, self.steps = dataset, done, steps

    def __len__(self):
        return self.steps - self.done

    def __getitem__(self, index):
        return self.dataset[(self.done + index) % len(self.dataset)]


def _from_step(train, done, steps):
    """Return data for Keras's `fit` that ends with the last step; raises ValueError for other things than data."""
    if (crops := getattr(train, "crops", None)) is not None:
        crops = copy.copy(crops)
        crops.start, crops.steps = done, steps
        return fed(crops)
    if isinstance(train, keras.utils.PyDataset):
        return _Repeated(train, done, steps)
    if hasattr(train, "repeat") and hasattr(train, "element_spec"):
        return train.repeat().take(steps - done)
    raise ValueError(
        f"Expected a tf.data.Dataset or a keras.utils.PyDataset of batches (lr, hr). Received: {type(train).__name__}"
    )
