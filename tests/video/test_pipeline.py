import threading
import time

import pytest
from running import until

from imagesr.video.pipeline import ahead, run, spread, timed
from imagesr.video.report import Report


def test_items_come_in_order():
    assert list(ahead(range(100))) == list(range(100))


def test_the_producer_stays_a_bounded_way_ahead():
    made = []

    def produce():
        for i in range(100):
            made.append(i)
            yield i

    items = ahead(produce(), depth=3)
    next(items)
    most = 1 + 3 + 1  # taken, waiting, and the one in the producer's hands
    until(lambda: len(made) == most)
    time.sleep(0.2)  # in which it would make more
    assert len(made) == most
    items.close()


def test_an_exception_reaches_the_consumer_after_the_items_before_it():
    def produce():
        yield 1
        raise OSError("the disk is gone")

    items = ahead(produce())
    assert next(items) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)


def test_closing_ends_the_thread_and_the_producer():
    ended = threading.Event()

    def produce():
        try:
            while True:
                yield 0
        finally:
            ended.set()

    threads = threading.active_count()
    items = ahead(produce())
    next(items)
    items.close()
    assert ended.is_set()
    assert threading.active_count() == threads


@pytest.mark.parametrize("stage", ["source", "upscale", "write"])
def test_a_failing_stage_ends_the_run(stage):
    def fail_at_5(item, here):
        if here == stage and item == 5:
            raise RuntimeError(stage)
        return item

    source = (fail_at_5(i, "source") for i in range(1000))
    threads = threading.active_count()
    with pytest.raises(RuntimeError, match=stage):
        run(source, [lambda i: fail_at_5(i, "upscale")] * 2, lambda i: fail_at_5(i, "write"), Report())
    assert threading.active_count() == threads


def test_a_source_that_stalls_does_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr("imagesr.video.pipeline._STALLED_S", 0.2)
    come, waited = threading.Event(), []

    def source():
        yield from range(5)
        waited.append(come.wait(90))

    def write(item):
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        run(source(), [lambda item: item] * 2, write, Report())
    assert not waited  # the source waits still
    come.set()


def test_an_error_of_the_source_comes_after_all_items_before_it():
    def source():
        yield from range(50)
        raise OSError("the disk is gone")

    written = []
    with pytest.raises(OSError, match="the disk is gone"):
        run(source(), [lambda item: item], lambda item: (time.sleep(0.005), written.append(item)), Report())
    assert written == list(range(len(written)))
    assert len(written) > 40


def test_stages_overlap():
    together = threading.Barrier(3, timeout=90)  # breaks unless all three are at work at the same time

    def stage(meeting):
        def work(item):
            if item == meeting:
                together.wait()
            return item

        return work

    report, written = Report(), []
    write = stage(1)
    run(map(stage(5), range(20)), [stage(3)], lambda item: written.append(write(item)), report)
    assert written == list(range(20))
    assert set(report.stages) == {"decode", "upscale", "encode"}


@pytest.fixture
def report_clock(clock, monkeypatch):
    """Put the clock of a test into reports; returns it."""
    monkeypatch.setattr("imagesr.video.report.time", clock)
    return clock


def test_the_slowest_stage_is_the_bottleneck(report_clock):
    report = Report()
    for _ in range(20):
        for stage, seconds in {"decode": 0.005, "upscale": 0.02, "encode": 0.01}.items():
            with report.clock(stage, share=0.5 if stage == "encode" else 1):
                report_clock.sleep(seconds)
        report.saw_frame()
    report.finish(0.5)
    assert report.bottleneck == "upscale"
    assert report.stages == pytest.approx({"decode": 5, "upscale": 20, "encode": 5})
    assert report.fps == 40


def test_timed_counts_production_only(report_clock):
    def count():
        for number in range(3):
            report_clock.sleep(0.01)
            yield number

    report = Report()
    for _ in timed(count(), "count", report):
        report_clock.sleep(0.02)
    assert report.stages["count"] == pytest.approx(0.03)


def test_spread_keeps_the_order_and_each_function_its_thread():
    threads = {}

    def function(name):
        def work(item):
            time.sleep(0.002 * (item % 3))  # so that later items are done earlier
            threads.setdefault(name, set()).add(threading.get_ident())
            return item, name

        return work

    results = list(spread(range(30), [function("a"), function("b"), function("c")]))
    assert [item for item, _ in results] == list(range(30))
    assert all(len(idents) == 1 for idents in threads.values())
    assert len(threads) == 3


def test_spread_is_faster_than_one_after_another():
    both = threading.Barrier(2, timeout=90)  # breaks unless two functions are at work at the same time

    def wait(item):
        both.wait()
        return item

    assert list(spread(range(6), [wait, wait])) == list(range(6))
