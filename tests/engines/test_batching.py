"""Calls of several threads that are computed together, with a stand-in for the runtime."""

import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from imagesr.engines.batching import Batching

PATIENCE = 60  # seconds, on a machine that is busy


def planes(value, side=2):
    return np.full((1, side, side, 1), value, np.uint8)


class Held:
    """Compute batches, the first of them only once as many other calls wait as are wanted; remember them."""

    def __init__(self, others):
        self.batches, self.begun, self._others = [], threading.Event(), others
        self.batching = Batching(self._compute)

    def _compute(self, batch, *options):
        self.batches.append([*batch[:, 0, 0, 0].tolist(), *options])
        if len(self.batches) == 1:
            self.begun.set()
            self.wait_for(self._others)
        if 13 in batch:
            raise ArithmeticError("thirteen")
        return np.repeat(batch, 2, 1) + sum(options)

    def wait_for(self, count):
        """Return once so many calls wait."""
        until = time.monotonic() + PATIENCE
        while len(self.batching._waiting) < count:
            assert time.monotonic() < until
            time.sleep(0.001)

    def together(self, calls):
        """Return the future of each call: the first is computed while the others come, in this order."""
        assert len(calls) == 1 + self._others
        futures = [started(self.batching, *calls[0])]
        assert self.begun.wait(PATIENCE)
        for number, call in enumerate(calls[1:], 1):
            futures.append(started(self.batching, *call))
            if number < self._others:  # the last one lets the batch go on
                self.wait_for(number)
        return futures


def started(function, *arguments):
    """Return the future of a call in a thread of its own, which does not keep the tests from ending."""
    future = Future()

    def run():
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def test_calls_that_wait_are_one_batch_in_the_order_in_which_they_came():
    held = Held(3)
    results = [future.result(PATIENCE) for future in held.together([(planes(i),) for i in range(4)])]
    assert held.batches == [[0], [1, 2, 3]]
    for i, result in enumerate(results):
        np.testing.assert_array_equal(result, np.repeat(planes(i), 2, 1))


def test_a_batch_has_one_shape_type_and_set_of_options():
    held = Held(5)
    large, deep = planes(2, side=4), planes(3).astype(np.uint16)
    calls = [(planes(0),), (planes(1), 5), (large,), (deep,), (planes(4), 7), (planes(5), 5)]
    results = [future.result(PATIENCE) for future in held.together(calls)]
    assert held.batches == [[0], [1, 5, 5], [2], [3], [4, 7]]
    for (given, *options), result in zip(calls, results, strict=True):
        assert result.dtype == given.dtype
        np.testing.assert_array_equal(result, np.repeat(given, 2, 1) + sum(options))


def test_an_exception_reaches_every_caller_of_its_batch_and_no_other():
    held = Held(3)
    first, *others = held.together([(planes(0),), (planes(13),), (planes(2),), (planes(3, side=4),)])
    assert first.result(PATIENCE).shape == (1, 4, 2, 1)
    for future in others[:2]:
        with pytest.raises(ArithmeticError, match="thirteen"):
            future.result(PATIENCE)
    assert others[2].result(PATIENCE).shape == (1, 8, 4, 1)
    assert held.batching(planes(7)).shape == (1, 4, 2, 1)  # it goes on


def test_a_call_alone_starts_at_once():
    threads = []
    batching = Batching(lambda batch: threads.append(threading.current_thread()) or batch)
    for i in range(3):
        assert batching(planes(i)).max() == i
    assert threads == [threading.current_thread()] * 3


def test_no_thread_is_left_waiting_whenever_the_others_end():
    batching = Batching(lambda batch, detail: batch * 2 + detail)

    def film(number):
        for i in range(100 * (number + 1)):  # some end early
            given = planes(i % 100, side=1 + i % 3)
            assert np.array_equal(batching(given, number % 2), given * 2 + number % 2)
        return number

    films = [started(film, number) for number in range(4)]
    assert [each.result(PATIENCE) for each in films] == [0, 1, 2, 3]
    assert not batching._waiting
