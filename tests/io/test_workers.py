"""Ordered map over threads."""

from __future__ import annotations

import threading
import time

import pytest

from dyn3r.errors import InputError
from dyn3r.io.workers import (
    at_most,
    available_cores,
    kept_results,
    ordered_map,
    use_threads,
    workers,
)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_order(count: int) -> None:
    def slow_first(k: int) -> int:
        time.sleep(0.01 if k == 0 else 0)
        return k * k

    assert list(ordered_map(slow_first, range(20), count)) == [k * k for k in range(20)]
    assert list(ordered_map(slow_first, [], count)) == []


def test_calls_run_side_by_side_and_only_a_few_ahead() -> None:
    barrier, started = threading.Barrier(2, timeout=10), []

    def together(k: int) -> int:
        started.append(k)
        if k < 2:
            barrier.wait()  # passes only if another call runs at the same time
        return k

    results = ordered_map(together, range(1000), 2)
    assert next(results) == 0
    assert len(started) < 20
    results.close()


def test_the_error_of_a_call_is_raised_in_its_place() -> None:
    results = ordered_map(lambda k: 1 // (3 - k), range(9), 2)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_the_number_of_threads_is_bounded_by_the_cores_and_the_limit() -> None:
    assert workers() == available_cores()
    with at_most(1):
        assert workers() == 1
        with at_most(0):
            assert workers() == available_cores()
    with at_most(10_000):
        assert workers() == available_cores()
    assert workers() == available_cores()
    with pytest.raises(InputError), at_most(-1):
        pass


def test_kept_results_are_computed_once() -> None:
    calls: list[int] = []

    def compute(k: int) -> int:
        calls.append(k)
        time.sleep(0.02)
        return 10 * k

    kept = kept_results(compute, 4)
    assert list(ordered_map(kept, [1, 1, 1, 2, 2, 1], 4)) == [10, 10, 10, 20, 20, 10]
    assert sorted(calls) == [1, 2]


def test_one_limit_bounds_every_library() -> None:
    import cv2
    import torch

    from dyn3r.io import workers as module

    before = (list(module._limit), torch.get_num_threads(), cv2.getNumThreads())
    try:
        use_threads(1)
        assert (workers(), torch.get_num_threads(), cv2.getNumThreads()) == (1, 1, 1)
        with pytest.raises(InputError):
            use_threads(0)
    finally:
        module._limit[:] = before[0]
        torch.set_num_threads(before[1])
        cv2.setNumThreads(before[2])
