"""Jobs that share an expensive set-up: what a worker is, and what comes of one job.

A worker is a picklable object that is called with one item. Each process calls its worker's
`prepare` once (it loads the model). A job that raises a dyn3r error has failed; a worker process
that dies has its job run again, at most `ATTEMPTS` times in all.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from dyn3r.errors import Dyn3rError
from dyn3r.io.images import first_line

logger = logging.getLogger(__name__)

ATTEMPTS = 2
"""Times that a job is started if its worker dies. Source: a second death is not bad luck."""


@runtime_checkable
class Worker(Protocol):
    """Carries out jobs; must be picklable before `prepare`."""

    def prepare(self, threads: int | None) -> None:
        """Load what all jobs need. `threads`: CPU threads to use; None: as many as there are."""

    def __call__(self, item: str) -> dict[str, Any]:
        """Carry out one job; the result is a value for JSON. Raises the errors of dyn3r.errors."""


@dataclass(frozen=True)
class Outcome:
    """A finished job."""

    item: str
    result: dict[str, Any] | None
    """None if it failed."""
    error: str = ""
    """Why it failed, in one line."""


def attempt(worker: Worker, item: str) -> Outcome:
    """Carry out one job; an exception makes it a failed one, and the others go on.

    The traceback of an exception that is no dyn3r error is logged.
    """
    try:
        return Outcome(item, worker(item))
    except Dyn3rError as error:
        return Outcome(item, None, str(error))
    except MemoryError:
        return Outcome(item, None, "out of memory")
    except Exception as error:  # one bad item must not end a night's work
        logger.exception("%s", item)
        return Outcome(item, None, f"{type(error).__name__}: {first_line(error)}")


def lost(item: str) -> Outcome:
    """The outcome of a job whose workers died."""
    return Outcome(item, None, f"its worker process died {ATTEMPTS} times (out of memory?)")
