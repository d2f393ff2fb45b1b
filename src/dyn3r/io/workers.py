"""Frames and pairs side by side: an ordered map over the threads of this process.

NumPy, OpenCV and PyTorch release Python's lock while they compute, so threads suffice. Results come
in order, and each is computed as without threads: they are the same for any number of workers.

On each of these threads PyTorch and BLAS compute on that thread alone, as a rule. Their own threads
would be more than there are cores, and they wait busily: between two small operations they take a
core and do nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from itertools import islice
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, Generic, TypeVar

from dyn3r.errors import InputError
from dyn3r.types import Progress
from dyn3r.types.free_memory import limit_arenas

Item = TypeVar("Item")
Result = TypeVar("Result")

_limit: list[int] = []
_starting = Lock()


def available_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers() -> int:
    """Number of threads of `ordered_map`: the cores there are, or the limit."""
    return _limit[-1] if _limit else available_cores()


def use_threads(count: int) -> None:
    """Let this process compute on at most `count` threads from now on.

    Ours, PyTorch's, OpenCV's, and those of linear algebra in NumPy, SciPy and OpenCV (BLAS). Memory
    is kept for as many (`dyn3r.types.free_memory.limit_arenas`). For programs that own their
    process. Raises InputError for a number below 1.
    """
    import cv2
    import scipy.linalg  # noqa: F401 - loads the BLAS of SciPy, which has threads of its own
    import torch
    from threadpoolctl import threadpool_limits

    if count < 1:
        raise InputError("the number of threads must be 1 or more")
    count = min(count, available_cores())
    _limit[:] = [count]
    limit_arenas(count)
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    threadpool_limits(count, user_api="blas")  # without `with` it stays


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
    function: Callable[[Item], Result],
    items: Iterable[Item],
    count: int | None = None,
    *,
    each_pytorch_threads: int | None = None,
) -> Iterator[Result]:
    """`map` whose calls run on `count` threads (None: `workers`), results in order.

    At most two calls for each thread are computed ahead of what was taken, so memory is bounded.
    The first error of a call is raised in its place. Each call has
    `each_pytorch_threads` of PyTorch (None: one). Where `count` is 1, calls run on the thread of
    the caller (None: as it is).
    """
    count, each = workers() if count is None else count, each_pytorch_threads
    if count <= 1:
        for item in items:
            with nullcontext() if each is None else pytorch_threads(each):
                result = function(item)
            yield result
        return
    rest = iter(items)
    each_thread = ThreadPoolExecutor(count, initializer=_set_pytorch_threads, initargs=(each or 1,))
    with _one_blas_thread, each_thread as pool:
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


def threads_on(device: Any) -> int | None:
    """`count` of `ordered_map` for work on a PyTorch device: all threads on a CPU, else one."""
    import torch

    return None if torch.device(device).type == "cpu" else 1


def side_by_side(*calls: Callable[[], Result], count: int | None = None) -> list[Result]:
    """Results of calls that do not depend on each other, in order; see `ordered_map`."""
    return list(ordered_map(lambda call: call(), calls, count))


class Stopped(Exception):
    """The caller of `on_one_thread` does not wait for the result any more."""


def on_one_thread(work: Callable[[Progress], Result], progress: Progress) -> Result:
    """`work(progress)` on a thread of its own, on which PyTorch computes on one thread.

    For many small operations: they take twice as long on several threads. The number of threads of
    the caller stays. Progress is reported on the thread of the caller. If that raises, or a signal
    does, `work` ends with its next report.
    """
    reports: SimpleQueue[tuple[str, int, int] | None] = SimpleQueue()
    stopped = Event()

    def report(stage: str, done: int, total: int) -> None:
        if stopped.is_set():
            raise Stopped
        reports.put((stage, done, total))

    with ThreadPoolExecutor(1, initializer=_set_pytorch_threads, initargs=(1,)) as pool:
        future = pool.submit(work, report)
        future.add_done_callback(lambda _: reports.put(None))
        try:
            while (said := reports.get()) is not None:
                progress(*said)
        finally:
            stopped.set()
        return future.result()


@contextmanager
def pytorch_threads(count: int) -> Iterator[None]:
    """Context in which PyTorch computes on `count` threads for the calling thread."""
    import torch

    before = torch.get_num_threads()
    _set_pytorch_threads(count)
    try:
        yield
    finally:
        _set_pytorch_threads(before)


def _set_pytorch_threads(count: int) -> None:
    """Let PyTorch compute on `count` threads for this thread.

    PyTorch keeps a number for each thread, which `set_num_threads` changes, and one for threads to
    come, which it changes as well. The latter is put back; threads that end at once read and set
    it.
    """
    import torch

    with _starting:
        if torch.get_num_threads() != count:
            to_come = _on_a_new_thread(torch.get_num_threads)
            torch.set_num_threads(count)
            _on_a_new_thread(partial(torch.set_num_threads, to_come))


def _on_a_new_thread(function: Callable[[], Result]) -> Result:
    found: list[Result] = []
    thread = Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


class _OneBlasThread:
    """Context in which BLAS computes on the calling thread alone, in the whole process.

    It may be entered again, also by other threads; the last one to leave puts the number back.
    """

    def __init__(self) -> None:
        self._inside, self._lock = 0, Lock()
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._limit = _blas().limit(limits=1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()


_one_blas_thread = _OneBlasThread()


@lru_cache(1)
def _blas() -> Any:
    """The BLAS libraries of NumPy, SciPy and OpenCV."""
    import cv2  # noqa: F401 - loads its library
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


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
