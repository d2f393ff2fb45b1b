"""Jobs on a Ray cluster: one actor a worker, results as they come, lost jobs run again."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from typing import Any

from dyn3r.errors import Dyn3rError, InputError, MissingExtraError
from dyn3r.evaluation.jobs import ATTEMPTS, Outcome, Worker, attempt, lost

CONNECT_S = 5.0
"""Seconds to wait for a connection. Source: longer than any answer on a working network."""


class _Actor:
    """Runs in a process of the cluster and holds one prepared worker."""

    def __init__(self, worker: Worker) -> None:
        """Prepare the worker (it loads the model); its jobs report what is wrong."""
        self.worker, self.problem = worker, ""
        try:
            worker.prepare(None)
        except Dyn3rError as error:
            self.problem = str(error)

    def run(self, item: str) -> Outcome:
        """Carry out one job."""
        return Outcome(item, None, self.problem) if self.problem else attempt(self.worker, item)


def run_on_ray(worker: Worker, items: list[str], jobs: int, address: str) -> Iterator[Outcome]:
    """Carry out all items on the cluster at `address` (`auto`: the one of this machine).

    Every actor asks for one CPU, or one GPU if the worker's model runs on one. Actors that the
    cluster has no room for start when others have nothing left to do. An actor that dies is
    replaced and its job is run again.

    Raises:
        InputError: no cluster answers.
        MissingExtraError: Ray is not installed.
    """
    ray = _connect(address)
    gpus = 1 if str(getattr(worker, "device", "")).startswith("cuda") else 0
    actor_class = ray.remote(num_cpus=1, num_gpus=gpus)(_Actor)
    waiting, started = list(items), dict.fromkeys(items, 0)
    running: dict[Any, tuple[str, Any]] = {}
    try:
        idle = [actor_class.remote(worker) for _ in range(min(jobs, max(1, len(items))))]
        while waiting or running:
            while waiting and idle:
                item, actor = waiting.pop(0), idle.pop()
                started[item] += 1
                running[actor.run.remote(item)] = (item, actor)
            idle.clear()  # an actor ends with its last reference: room for one that waits
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            item, actor = running.pop(done)
            try:
                outcome: Outcome = ray.get(done)
                idle.append(actor)
            except ray.exceptions.RayTaskError:
                raise  # an error of this module, not a death
            except ray.exceptions.RayError as error:
                idle.append(actor_class.remote(worker))
                if started[item] < ATTEMPTS:
                    waiting.insert(0, item)
                    continue
                outcome = _lost(item, error)
            finally:
                del actor  # a reference would keep it
            yield outcome
    finally:
        ray.shutdown()


def _lost(item: str, error: Exception) -> Outcome:
    """The outcome of a job whose actors died; an actor that cannot start has a reason."""
    if "creation task" not in str(error):
        return lost(item)
    reason = str(error).strip().splitlines()[-1].strip()
    return Outcome(item, None, f"no worker could start: {reason}")


def _connect(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray", "--ray") from None
    _check_answers(address)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"no Ray cluster at {address}: {str(error).splitlines()[0]}") from error
    return ray


def _check_answers(address: str) -> None:
    """Refuse a HOST:PORT that nobody listens on: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster at {address}: {error}") from error
