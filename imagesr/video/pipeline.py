"""Stages that overlap: each a generator in a thread of its own, bounded queues between them."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

from imagesr.cli import check_interrupted
from imagesr.video.report import Report
from imagesr.video.unchanged import Repeats

T = TypeVar("T")

DEPTH = 4  # items that a stage may be ahead of the next: enough to smooth, too few to fill memory
_POLL_S = 0.1
_STALLED_S = 2.0  # a producer that takes longer than this to stop waits for what may never come


def ahead(
    items: Iterable[T],
    depth: int = DEPTH,
    *,
    closed: threading.Event | None = None,
    stop: threading.Event | None = None,
    patience: float | None = None,
) -> Iterator[T]:
    """Yield the items, computed up to `depth` ahead by a thread.

    An exception of the thread is raised here. Closing the generator stops the thread, which closes `items`, and sets
    `closed` first. Setting `stop` ends the iteration and the thread. A thread that does not end within `patience`
    seconds is left behind; None waits for as long as it takes.
    """
    waiting: queue.Queue = queue.Queue(depth)
    stop, closed = stop or threading.Event(), closed or threading.Event()

    def ended():
        return stop.is_set() or closed.is_set()

    def offer(entry):
        while not ended():
            try:
                waiting.put(entry, timeout=_POLL_S)
                break
            except queue.Full:
                pass

    def work():
        try:
            for item in items:
                offer((item, None))
                if ended():
                    break
            offer((None, StopIteration()))
        except BaseException as error:
            offer((None, error))
        finally:
            if hasattr(items, "close"):
                items.close()

    def take():
        while not stop.is_set():
            with suppress(queue.Empty):
                return waiting.get(timeout=_POLL_S)
        return None, StopIteration()

    thread = threading.Thread(target=work, daemon=True)
    try:
        thread.start()
        while True:
            item, error = take()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        closed.set()
        if thread.ident is not None:  # an interrupt may come before it has begun
            thread.join(patience)


def timed(items: Iterable[T], stage: str, report: Report) -> Iterator[T]:
    """Yield the items, adding the time that each took to produce to a stage of the report."""
    iterator = iter(items)
    done = object()
    while True:
        with report.clock(stage):
            item = next(iterator, done)
        if item is done:
            return
        yield item


def spread(
    items: Iterable[T], functions: Sequence[Callable[[T], T]], *, repeats: Callable[[T], bool] = lambda item: False
) -> Iterator[T]:
    """Yield a function of every item, in order, each function in a thread of its own and taking its turn.

    An item that `repeats` the one before goes to the same function, which may have kept the result.
    """
    workers = [ThreadPoolExecutor(1) for _ in functions]
    pending: deque = deque()
    turn = 0
    try:
        for item in items:
            turn = turn if repeats(item) else (turn + 1) % len(functions)
            pending.append(workers[turn].submit(functions[turn], item))
            if len(pending) > len(functions):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for worker in workers:
            worker.shutdown(cancel_futures=True)


class Newest(Generic[T]):
    """Hand items from one thread to another; one that was not taken in time gives way to the next."""

    def __init__(self):
        self._change = threading.Condition()
        self._items: list[T] = []
        self._end: BaseException | None = None
        self.dropped = 0

    def put(self, item: T) -> None:
        """Offer an item, in the place of one that nobody took."""
        with self._change:
            self.dropped += len(self._items)
            self._items = [item]
            self._change.notify_all()

    def get(self, timeout: float | None = None) -> T | None:
        """Return the newest item, waiting for one; None when `timeout` seconds have passed.

        When all is taken after `close`, raises what was given to it, StopIteration where nothing was.
        """
        with self._change:
            self._change.wait_for(lambda: self._items or self._end, timeout)
            if self._items:
                return self._items.pop()
            if self._end:
                raise self._end
            return None

    def close(self, error: BaseException | None = None) -> None:
        """Say that no more will come, and why."""
        with self._change:
            self._end = self._end or error or StopIteration()
            self._change.notify_all()


def run(source: Iterable[T], upscalers: Sequence[Callable[[T], T]], write: Callable[[T], None], report: Report) -> None:
    """Decode, upscale and write every item, the three overlapping, in order.

    The `upscalers` do the same, each on its share of the frames at the same time.
    """

    def clocked(upscale):
        def function(item):
            with report.clock("upscale", share=1 / len(upscalers)):
                return upscale(item)

        return function

    # The end of the last stage stops the first: it may wait for input that does not come, and the last one for it.
    closed = threading.Event()
    decoded = ahead(timed(source, "decode", report), stop=closed, patience=_STALLED_S)
    functions = [clocked(upscale) for upscale in upscalers]
    stages = ahead(spread(decoded, functions, repeats=Repeats()), closed=closed)
    try:
        for item in stages:
            check_interrupted()
            with report.clock("encode"):
                write(item)
    finally:
        closed.set()
        stages.close()
        decoded.close()
