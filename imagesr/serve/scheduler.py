"""One engine for all requests, a tile of each in turn; and the bounded number of requests that wait for it."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from imagesr.serve.refusal import Refusal

T = TypeVar("T")


@dataclass
class _Job(Generic[T]):
    steps: Generator[Any, None, T]
    done: Future[T] = field(default_factory=Future)
    busy: float = 0.0
    dropped: bool = False


class Scheduler:
    """Run generators on one thread, round-robin: a step of each, then the next step of each.

    A small picture, of a tile or two, does not wait for a large one. Closed at the end of a `with` block.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    async def run(self, steps: Generator[Any, None, T]) -> tuple[T, float]:
        """Run a generator to its end; returns its result and the seconds that its own steps took.

        When cancelled, it returns once the step under way has ended and the generator is closed.
        """
        job = _Job(steps)
        done = asyncio.wrap_future(job.done)
        self._jobs.put(job)
        try:
            return await asyncio.shield(done), job.busy
        except asyncio.CancelledError:
            job.dropped = True
            await asyncio.wait([done])
            done.exception()
            raise

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the thread after the step under way; jobs that are left end with a RuntimeError."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def _run(self):
        while (job := self._jobs.get()) or not self._jobs.empty():
            if not job:
                self._jobs.put(None)  # the end comes after the jobs that are left
                continue
            begun = time.perf_counter()
            try:
                if job.dropped or self._closed:
                    job.steps.close()
                    raise RuntimeError("It was given up")
                next(job.steps)
            except StopIteration as end:
                job.busy += time.perf_counter() - begun
                job.done.set_result(end.value)
            except BaseException as error:
                job.done.set_exception(error)
            else:
                job.busy += time.perf_counter() - begun
                self._jobs.put(job)


class Places:
    """Count the accepted requests; one more is refused, and told in how many seconds to try again."""

    def __init__(self, number: int):
        self.number, self.taken = number, 0
        self._seconds = 1.0  # for which a request holds its place, a running mean

    def check(self) -> None:
        """Raise a Refusal when every place is taken."""
        if self.taken >= self.number:
            seconds = max(1, math.ceil(self._seconds / self.number))
            sentence = f"Expected a free place. All {self.number} are taken; try again in {seconds} s"
            raise Refusal(429, "full", sentence, {"Retry-After": str(seconds)})

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place; raises a Refusal when every place is taken."""
        self.check()
        self.taken += 1
        begun = time.perf_counter()
        try:
            yield
            self._seconds += (time.perf_counter() - begun - self._seconds) / 8
        finally:
            self.taken -= 1
