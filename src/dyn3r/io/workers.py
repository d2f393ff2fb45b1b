"""Frames and pairs side by side: an ordered map over the threads of this process.

NumPy, OpenCV and PyTorch release Python's lock while they compute, so threads suffice. Results come
in order, and each is computed as without threads: they are the same for any number of workers.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from threading import Lock
from typing import Any, Generic, TypeVar

from dyn3r.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

_limit: list[int] = []


def available_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers() -> int:
    """Number of threads of `ordered_map`: the cores there are, or the limit."""
    return _limit[-1] if _limit else available_cores()


def use_threads(count: int) -> None:
    """Let this process compute on at most `count` threads from now on: ours, PyTorch's, OpenCV's.

    For programs that own their process. Raises InputError for a number below 1.
    """
    import cv2
    import torch

    if count < 1:
        raise InputError("the number of threads must be 1 or more")
    count = min(count, available_cores())
    _limit[:] = [count]
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


@contextmanager
def at_most(count: int) -> Iterator[None]:
    """Context in which `ordered_map` uses at most `count` threads of the cores there are; 0: all.

    It holds for the whole process. Raises InputError for a negative number.
    """
    if count < 0:
        raise InputError("the number of threads must not be negative")
    _limit.append(min(count, available_cores()) if count else available_cores())
    try:
        yield
    finally:
        _limit.pop()


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], count: int | None = None
) -> Iterator[Result]:
    """`map` whose calls run on `count` threads (None: `workers`), results in order.

    At most two calls for each thread are computed ahead of what was taken, so memory is bounded.
    The first error of a call is raised in its place.
    """
    count = workers() if count is None else count
    if count <= 1:
        yield from map(function, items)
        return
    rest = iter(items)
    with ThreadPoolExecutor(count) as pool:
        pending: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(rest, 2 * count)
        )
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, item) for item in islice(rest, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()


class _Once(Generic[Result]):
    """A value that is computed on first use, by one thread."""

    def __init__(self, compute: Callable[[], Result]) -> None:
        self._compute, self._lock = compute, Lock()
        self._found: list[Result] = []

    def get(self) -> Result:
        with self._lock:
            if not self._found:
                self._found.append(self._compute())
        return self._found[0]


def kept_results(function: Callable[[Any], Result], maxsize: int) -> Callable[[Any], Result]:
    """`functools.lru_cache` whose calls wait for each other instead of computing a value twice."""
    once = lru_cache(maxsize)(lambda key: _Once(lambda: function(key)))
    return lambda key: once(key).get()
