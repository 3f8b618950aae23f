"""Batches out of concurrent calls, for a runtime that takes less time for several frames at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np


class Batching:
    """Compute the calls of several threads in batches, one batch at a time.

    A call that finds no batch in the works starts one at once, and no call waits for one that may not come: while a
    batch is computed, calls gather, and the first of them begins the next one, with all that have its shape, dtype and
    options. `compute` gets these planes along the first axis and the options; what it raises, all of its calls raise.
    """

    def __init__(self, compute: Callable[..., np.ndarray]):
        self._compute = compute
        self._waiting: list[tuple[tuple, np.ndarray, Future]] = []  # in the order in which they came
        self._computing = False
        self._changed = threading.Condition()

    def __call__(self, planes: np.ndarray, *options: float) -> np.ndarray:
        """Return what `compute` makes of the planes, a view into the result of their batch."""
        mine: Future = Future()
        with self._changed:
            self._waiting.append(((planes.shape, planes.dtype, options), planes, mine))
        while batch := self._next(mine):
            self._run(batch)
        return mine.result()

    def _next(self, mine):
        """Return the batch that this thread has to compute; none once its own call is done."""
        with self._changed:
            self._changed.wait_for(lambda: mine.done() or not self._computing)
            if mine.done():
                return []
            first = self._waiting[0][0]
            batch = [call for call in self._waiting if call[0] == first]
            self._waiting = [call for call in self._waiting if call[0] != first]
            self._computing = True
            return batch

    def _run(self, batch):
        (*_, options), futures = batch[0][0], [future for *_, future in batch]
        try:
            result = self._compute(np.concatenate([planes for _, planes, _ in batch]), *options)
            for future, own in zip(futures, np.split(result, len(batch)), strict=True):
                future.set_result(own)
        except BaseException as error:  # an interrupt, too: the other threads would wait for ever
            for future in futures:
                future.set_exception(error)
        finally:
            with self._changed:
                self._computing = False
                self._changed.notify_all()
