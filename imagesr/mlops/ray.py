"""Work shared out on a Ray cluster: an executor for videos, their segments, and pictures. It alone connects to Ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would ask, and send

import ray

from imagesr.cli import check_interrupted
from imagesr.errors import OutputError
from imagesr.tracking.follow import reachable

_RETRIES = 3  # of a task whose machine was lost
_AHEAD = 2  # shares for each place: a machine that is lost costs half of its work at most
_LOOK_S = 1.0  # between two looks whether a signal came


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a cluster while the block runs: its address, `auto`, or `local` for one on this machine.

    Raises OutputError for a cluster that does not answer.
    """
    # Ray itself would ask an address for many minutes.
    if ":" in address and not reachable(address if "://" in address else f"tcp://{address}"):
        raise OutputError(f"Expected a Ray cluster that answers, auto or local. Received: {address} (no answer)")
    try:
        alone = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **alone)
    except Exception as error:  # ConnectionError, RuntimeError, ValueError and others, by version
        received = f"{address} ({type(error).__name__})"
        raise OutputError(f"Expected a Ray cluster that answers, auto or local. Received: {received}") from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def executor_on(address: str) -> Iterator[RayExecutor]:
    """Yield an executor on a cluster, for as long as the block runs."""
    with connected(address):
        cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        if not (cores := [count for count in cores if count]):
            raise OutputError(f"Expected a Ray cluster with processors. Received: {address}, which has none")
        yield RayExecutor(min(cores), sum(count // min(cores) for count in cores))


class RayExecutor:
    """Make items on a cluster, as the executors of `concurrent.futures` do; a task takes all cores of a small machine.

    `parts` is into how many parts a long video is best divided. A task whose machine is lost is done again elsewhere.
    Every machine has imagesr, and the files under the same paths.
    """

    def __init__(self, cores: int, places: int):
        self.parts = _AHEAD * places
        self._options = {"num_cpus": cores, "max_retries": _RETRIES, "scheduling_strategy": "SPREAD"}

    def map(self, function: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[Any]:
        """Return an iterator over the function of every item, in their order; its errors are raised there.

        What is not done is cancelled where the iterator is left, or a signal comes.
        """
        task, folder = ray.remote(_call).options(**self._options), str(Path.cwd())
        waiting = [task.remote(function, item, folder) for item in items]
        try:
            while waiting:
                yield _result(waiting[0])
                del waiting[0]
        finally:
            for left in waiting:
                with suppress(Exception):  # the cluster may be gone
                    ray.cancel(left, force=True)


def _call(function, item, folder):
    """Call a function on a machine of the cluster; relative paths are those of the command's folder."""
    with suppress(OSError):  # it may have no such folder, where all paths are absolute
        os.chdir(folder)
    return function(item)


def _result(reference):
    while True:
        check_interrupted()
        try:
            return ray.get(reference, timeout=_LOOK_S)
        except ray.exceptions.GetTimeoutError:
            continue
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            told = f"{_RETRIES + 1} were lost with the same work, or the cluster ({type(error).__name__})"
            raise OutputError(f"Expected machines of the Ray cluster that stay. Received: {told}") from None
