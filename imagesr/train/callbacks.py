"""RunFolder: what happens after every epoch of a training."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from imagesr.files import whole
from imagesr.train.runs import append_row

PICTURES_EVERY = 60  # seconds between two drawings of the statistics


class RunFolder(keras.callbacks.Callback):
    """Measure the moving average, record it in `history.csv`, draw, and save a checkpoint, in this order.

    A checkpoint holds the raw weights, the optimizer and its moving average: all that a resumed training needs. It is
    renamed into place last, so a kill at any moment leaves a history that can be cut back to it.

    Args:
        out: the run folder.
        network: the network whose weights have a moving average; part of what `fit` trains, or all of it.
        steps: of the whole run. `epoch` steps are between two calls, or what is left of `steps`.
        measure: returns PSNR-Y in dB of the network as it stands.
        draw: draws the statistics; takes the number of steps done.
        draw_every: seconds between two drawings.
    """

    def __init__(
        self,
        out: Path,
        network: keras.Model,
        *,
        steps: int,
        epoch: int,
        measure: Callable[[], float],
        draw: Callable[[int], None],
        draw_every: float = PICTURES_EVERY,
    ):
        super().__init__()
        self.out, self.network, self.steps, self.epoch = out, network, steps, epoch
        self.measure, self.draw, self.draw_every = measure, draw, draw_every
        self.drawn = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        """Do it all, unless a loss is no number: then stop, so that the last checkpoint stays a good one."""
        step = min((epoch + 1) * self.epoch, self.steps)
        if not np.isfinite([*logs.values()]).all():
            self.model.stop_training = True
            return
        average = keras.callbacks.SwapEMAWeights()
        average.set_model(self.network)
        average.on_test_begin()
        optimizer = getattr(self.network.optimizer, "inner_optimizer", self.network.optimizer)
        row = {"step": step} | {name: float(value) for name, value in logs.items()} | {"psnr_y": self.measure()}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        append_row(self.out / "history.csv", row)
        if time.monotonic() - self.drawn >= self.draw_every:
            self.draw(step)
            self.drawn = time.monotonic()
        average.on_test_end()
        logs["psnr_y"], logs["learning_rate"] = row["psnr_y"], row["learning_rate"]
        self._save(self.out / "checkpoints" / f"{step:09}.weights.h5")

    def _save(self, checkpoint):
        older = set(checkpoint.parent.glob("[0-9]*.weights.h5"))
        with whole(checkpoint, ending=".weights.h5") as part:
            self.model.save_weights(part)
        for file in older - {checkpoint}:
            file.unlink(missing_ok=True)
