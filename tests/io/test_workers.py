"""Ordered map over threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from dyn3r.errors import InputError
from dyn3r.io.workers import (
    Stopped,
    at_most,
    available_cores,
    kept_results,
    on_one_thread,
    ordered_map,
    pytorch_threads,
    side_by_side,
    use_threads,
    workers,
)
from dyn3r.types import Progress, no_progress


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


@pytest.fixture
def two_threads_of_pytorch() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads_of_pytorch")
def test_pytorch_computes_on_one_thread_on_each_of_ours_and_on_others_as_before() -> None:
    assert list(ordered_map(lambda _: torch.get_num_threads(), range(4), 2)) == [1, 1, 1, 1]
    many = ordered_map(lambda _: torch.get_num_threads(), range(4), 2, each_pytorch_threads=3)
    assert list(many) == [3, 3, 3, 3]
    assert on_one_thread(lambda _: torch.get_num_threads(), no_progress) == 1
    assert torch.get_num_threads() == 2
    seen: list[int] = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2]


@pytest.mark.usefixtures("two_threads_of_pytorch")
def test_threads_of_pytorch_are_set_for_the_calling_thread_alone() -> None:
    seen: list[int] = []

    def look() -> None:
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()

    with pytorch_threads(1):
        assert torch.get_num_threads() == 1
        with pytorch_threads(3):
            assert torch.get_num_threads() == 3
            look()
        assert torch.get_num_threads() == 1
        look()
        alone = ordered_map(lambda _: torch.get_num_threads(), [0], 1, each_pytorch_threads=2)
        assert list(alone) == [2]
    with pytest.raises(ValueError, match="inside"), pytorch_threads(1):
        raise ValueError("inside")
    assert torch.get_num_threads() == 2
    look()
    assert seen == [2, 2, 2]


def test_work_on_one_thread_reports_to_the_thread_of_the_caller() -> None:
    seen: list[tuple[str, int, int, int]] = []

    def work(progress: Progress) -> int:
        progress("a", 1, 2)
        progress("a", 2, 2)
        return threading.get_ident()

    ident = on_one_thread(work, lambda *said: seen.append((*said, threading.get_ident())))
    here = threading.get_ident()
    assert seen == [("a", 1, 2, here), ("a", 2, 2, here)]
    assert ident != here
    with pytest.raises(ZeroDivisionError):
        on_one_thread(lambda _: 1 // 0, no_progress)


def test_work_on_one_thread_ends_when_nobody_waits() -> None:
    ended: list[type[BaseException]] = []

    def work(progress: Progress) -> None:
        try:
            while True:
                progress("a", 0, 1)
                time.sleep(0.001)
        except BaseException as problem:
            ended.append(type(problem))
            raise

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_one_thread(work, interrupted)
    assert ended == [Stopped]


def test_calls_side_by_side() -> None:
    barrier = threading.Barrier(min(2, available_cores()), timeout=10)
    assert side_by_side(barrier.wait, barrier.wait).count(0) == 2 // barrier.parties


def test_one_limit_bounds_every_library() -> None:
    import cv2
    from threadpoolctl import threadpool_info, threadpool_limits

    from dyn3r.io import workers as module

    def blas_threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    blas = threadpool_limits(user_api="blas")  # remembers what was set
    before = (list(module._limit), torch.get_num_threads(), cv2.getNumThreads())
    try:
        use_threads(1)
        assert (workers(), torch.get_num_threads(), cv2.getNumThreads()) == (1, 1, 1)
        assert set(blas_threads()) == {1}
        with pytest.raises(InputError):
            use_threads(0)
    finally:
        module._limit[:] = before[0]
        torch.set_num_threads(before[1])
        cv2.setNumThreads(before[2])
        blas.restore_original_limits()


@pytest.mark.skipif(available_cores() < 2, reason="BLAS has one thread anyway")
def test_blas_computes_on_one_thread_while_ours_work() -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    def blas_threads(_: int = 0) -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    assert set().union(*ordered_map(blas_threads, range(2), 2)) == {1}  # loads the libraries
    with threadpool_limits(2, user_api="blas"):
        outer, inner = (
            ordered_map(blas_threads, range(4), 2),
            ordered_map(blas_threads, range(4), 2),
        )
        assert next(outer) == next(inner) == {1}
        assert list(outer) == 3 * [{1}]
        assert blas_threads() == {1}  # the other map goes on
        assert list(inner) == 3 * [{1}]
        assert blas_threads() == {2}
