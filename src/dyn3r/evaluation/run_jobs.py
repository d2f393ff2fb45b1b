"""Many independent jobs: in this process, in other processes, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from dyn3r.errors import Dyn3rError, InputError
from dyn3r.evaluation.jobs import ATTEMPTS, Outcome, Worker, attempt, lost
from dyn3r.evaluation.ray_jobs import run_on_ray


def run_jobs(
    worker: Worker, items: list[str], *, jobs: int = 1, ray: str | None = None
) -> Iterator[Outcome]:
    """Carry out all items and yield each outcome as it is known, in any order.

    `jobs`: processes on this machine. `ray`: address of a Ray cluster, or `auto`; `jobs` is then
    the number of workers there.

    Raises:
        InputError: jobs below 1, or no such cluster.
        MissingExtraError: Ray is not installed.
    """
    if jobs < 1:
        raise InputError(f"jobs must be 1 or more, not {jobs}")
    if ray is not None:
        yield from run_on_ray(worker, items, jobs, ray)
    elif jobs == 1:
        worker.prepare(None)
        for item in items:
            yield attempt(worker, item)
    else:
        yield from _run_in_processes(worker, items, min(jobs, max(1, len(items))))


_worker: Worker | None = None
_problem = ""


def _prepare(worker: Worker, threads: int) -> None:
    """Prepare this process; its first job reports what is wrong.

    Ctrl-C reaches every process of a terminal: the one that started this one ends it.
    """
    global _worker, _problem  # one per process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        worker.prepare(threads)
        _worker = worker
    except Dyn3rError as error:
        _problem = str(error)


def _carry_out(item: str) -> Outcome:
    return Outcome(item, None, _problem) if _worker is None else attempt(_worker, item)


def _run_in_processes(worker: Worker, items: list[str], jobs: int) -> Iterator[Outcome]:
    """A pool of one process for every job at a time, so that a death costs only its own job."""
    threads = max(1, (multiprocessing.cpu_count() or 1) // jobs)
    waiting, started = list(items), dict.fromkeys(items, 0)
    others = set(multiprocessing.active_children())
    idle = [_one_process(worker, threads) for _ in range(jobs)]
    running: dict[Future[Outcome], tuple[str, ProcessPoolExecutor]] = {}
    try:
        while waiting or running:
            while waiting and idle:
                item, pool = waiting.pop(0), idle.pop()
                started[item] += 1
                running[pool.submit(_carry_out, item)] = (item, pool)
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                item, pool = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    pool.shutdown()
                    pool = _one_process(worker, threads)
                    outcome = lost(item)
                idle.append(pool)
                if outcome == lost(item) and started[item] < ATTEMPTS:
                    waiting.insert(0, item)
                else:
                    yield outcome
    finally:
        if running:  # interrupted: what they do would keep this process for as long as it takes
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
        for pool in [*idle, *(pool for _, pool in running.values())]:
            pool.shutdown(cancel_futures=True)


def _one_process(worker: Worker, threads: int) -> ProcessPoolExecutor:
    """A pool of one process, which starts with its first job."""
    return ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=_prepare, initargs=(worker, threads)
    )
