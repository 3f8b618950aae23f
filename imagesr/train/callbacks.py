"""RunFolder: what happens after every epoch of a training."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from imagesr.files import whole
from imagesr.models.layers import collapsed
from imagesr.tracking import address
from imagesr.tracking.follow import Follower
from imagesr.train import plots
from imagesr.train.runs import add_row, keep_rows, last_checkpoint, save_weights

PICTURES_EVERY = 60  # seconds between two drawings of the statistics


class RunFolder(keras.callbacks.Callback):
    """Record every epoch in a run folder: a row of `history.csv`, drawings, and a checkpoint, in this order.

    Example:
        model.fit(train, validation_data=val, epochs=10, callbacks=[imagesr.train.RunFolder("runs/a")])

    The folder gets `history.csv`, `statistics/*.png`, `checkpoints/` and, at the end, `model.keras`. A checkpoint holds
    the raw weights, the optimizer and its moving average: all that a resumed training needs. It is renamed into place
    last, so a kill at any moment leaves a history that can be cut back to it. Where the folder has a checkpoint and
    the model has not been trained yet, `fit` goes on from the checkpoint.

    Args:
        out: The run folder.
        network: The network that is saved at the end, part of what `fit` trains; None is all of it.
        measure: Returns PSNR-Y in dB of the network with the moving average of its weights; None leaves it out.
        draw: Draws the statistics, and takes the number of steps done; None draws the curves.
        draw_every: Seconds between two drawings.
        finish: Draw and save `model.keras` at the end of `fit`.
    """

    def __init__(
        self,
        out: str | Path,
        network: keras.Model | None = None,
        *,
        measure: Callable[[], float] | None = None,
        draw: Callable[[int], None] | None = None,
        draw_every: float = PICTURES_EVERY,
        finish: bool = True,
    ):
        super().__init__()
        self.out, self._network = Path(out), network
        self.measure, self.draw, self.draw_every = measure, draw or self._draw_curves, draw_every
        self.finish = finish
        self.drawn = time.monotonic()
        self.step, self._batches, self._failed = None, 0, False  # the step is None until `resume`

    @property
    def network(self) -> keras.Model:
        """Return the network of the run."""
        return self.model if self._network is None else self._network

    def resume(self, *, always: bool = False) -> int:
        """Load the folder's last checkpoint, cut the history back to it, and return the number of steps done.

        A model that has been trained keeps its weights, and its steps are counted on, unless `always` is given. Raises
        ValueError for a checkpoint of another network.
        """
        found = last_checkpoint(self.out)
        self.step = found[0] if found else 0
        optimizer = self.network.optimizer
        if not optimizer.built:
            optimizer.build(self.network.trainable_variables)
        if found and (always or not int(keras.ops.convert_to_numpy(optimizer.iterations))):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", UserWarning)  # weights that are left out
                    self.model.load_weights(found[1])
            except (OSError, ValueError, KeyError, UserWarning) as error:
                reason = str(error).strip().splitlines()[0]
                raise ValueError(f"Expected the network of the run in {self.out}. Received: {reason:.200}") from None
            print(f"going on from step {self.step:,}", flush=True)
        keep_rows(self.out / "history.csv", self.step)
        return self.step

    def on_train_begin(self, logs=None):
        """Make the folder, and go on where it is one already."""
        for folder in ("checkpoints", "statistics"):
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        if self.step is None:
            self.resume()

    def on_epoch_begin(self, epoch, logs=None):
        """Count the epoch's batches from nought."""
        self._batches = 0

    def on_train_batch_end(self, batch, logs=None):
        """Count the batch; Keras numbers those of an epoch."""
        self._batches = batch + 1

    def on_epoch_end(self, epoch, logs=None):
        """Record the epoch, unless a loss is no number: then stop, so that the last checkpoint stays a good one."""
        logs = {} if logs is None else logs
        if not np.isfinite([*logs.values()]).all():
            self.model.stop_training = self._failed = True
            return
        self.step += self._batches
        average = keras.callbacks.SwapEMAWeights()
        average.set_model(self.network)
        swapped = averaged(self.network)
        if swapped:
            average.on_test_begin()
        row = {"step": self.step} | {name: float(value) for name, value in logs.items()}
        if self.measure:
            row["psnr_y"] = self.measure()
        row["learning_rate"] = float(keras.ops.convert_to_numpy(inner_optimizer(self.network).learning_rate))
        add_row(self.out / "history.csv", row)
        if time.monotonic() - self.drawn >= self.draw_every:
            self.draw(self.step)
            self.drawn = time.monotonic()
        if swapped:
            average.on_test_end()
        logs |= {key: row[key] for key in ("psnr_y", "learning_rate") if key in row}
        self._save(self.out / "checkpoints" / f"{self.step:09}.weights.h5")

    def on_train_end(self, logs=None):
        """Draw, and save the network that was trained; Keras has given it its moving average by now."""
        if self._failed or not self.finish:
            return
        if (self.out / "history.csv").exists():
            self.draw(self.step)
        save_network(self.network, self.out)

    def _draw_curves(self, step):
        plots.draw_curves(self.out / "history.csv", self.out / "statistics")

    def _save(self, checkpoint):
        older = set(checkpoint.parent.glob("[0-9]*.weights.h5"))
        save_weights(self.model, checkpoint)
        for file in older - {checkpoint}:
            file.unlink(missing_ok=True)


class Tracked(keras.callbacks.Callback):
    """Mirror a run folder to an MLflow server while `fit` goes on; a server that dies stops nothing.

    Example:
        folder = imagesr.train.RunFolder("runs/a")
        model.fit(train, epochs=10, callbacks=[folder, imagesr.train.Tracked("runs/a")])

    Args:
        out: The folder of a `RunFolder`, which stands before it in the list.
        uri: The server's address; None is MLFLOW_TRACKING_URI, or an SQLite file beside the folder.
    """

    def __init__(self, out: str | Path, uri: str | None = None):
        super().__init__()
        self.out, self.uri, self._follower = Path(out), uri, None

    def on_train_begin(self, logs=None):
        """Start the process that sends the folder."""
        self.out.mkdir(parents=True, exist_ok=True)
        self._follower = Follower(self.out, address(self.uri, self.out.absolute().parent))

    def on_train_end(self, logs=None):
        """Let it send the rest."""
        self._follower.end()


def inner_optimizer(network: keras.Model) -> keras.optimizers.Optimizer:
    """Return a network's optimizer, without what scales the loss of float16."""
    return getattr(network.optimizer, "inner_optimizer", network.optimizer)


def averaged(network: keras.Model) -> bool:
    """Say whether a network's optimizer keeps a moving average of its weights."""
    return getattr(inner_optimizer(network), "use_ema", False)


def save_network(network: keras.Model, out: Path) -> keras.Model:
    """Write `model.keras`, whole or not at all: the network in float32, of built-in layers; return that network."""
    plain = collapsed(network)
    with whole(out / "model.keras", ending=".keras") as part:
        plain.save(part)
    return plain
