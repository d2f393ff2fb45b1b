"""Background thread for jobs that take longer than a frame."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from dyn3r.errors import Dyn3rError

logger = logging.getLogger(__name__)

_JOIN_S = 5


class Worker:
    """Thread that runs jobs one after the other. A failed job does not end it."""

    def __init__(self, on_failure: Callable[[Exception], None]) -> None:
        """Create the thread; `on_failure` is called on it with the error of a failed job."""
        self._on_failure = on_failure
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dyn3r-viewer-work", daemon=True)

    def start(self) -> None:
        """Start the thread. Jobs that were submitted before run now."""
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Append a job to the queue."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Ask the thread to end, and wait up to five seconds for the job that runs."""
        self._stopping.set()
        self._jobs.put(None)
        self._thread.join(timeout=_JOIN_S)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except (Dyn3rError, OSError, RuntimeError, TimeoutError, ValueError) as error:
                if self._stopping.is_set():
                    return
                # A failed job (a disconnected browser, a full disk) must not end the page.
                logger.exception("a job of the viewer failed")
                self._on_failure(error)
