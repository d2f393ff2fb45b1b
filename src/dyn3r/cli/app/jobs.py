"""Jobs of the app: one runs, the others wait in line. A job can be cancelled."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Literal

from dyn3r.errors import Dyn3rError
from dyn3r.types import Progress

logger = logging.getLogger(__name__)

State = Literal["waiting", "running", "finished", "failed", "cancelled"]


class CancelledError(Exception):
    """The job was cancelled."""


class Job:
    """A task in the queue, and how far it is."""

    def __init__(self, task: Callable[[Progress], None], changed: Callable[[Job], None]) -> None:
        """`task` gets a progress callback; `changed` is called when a field here changes."""
        self.state: State = "waiting"
        self.ahead = 0
        """Number of jobs that come first."""
        self.stage, self.error = "", ""
        """What it does, and why it failed."""
        self._reached = 0.0
        self._task, self._changed = task, changed
        self._cancelled = threading.Event()

    @property
    def share(self) -> float:
        """Share that is done, 0..1."""
        return 1.0 if self.state == "finished" else self._reached

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("finished", "failed", "cancelled")

    def cancel(self) -> None:
        """End the job at its next progress; a waiting job does not start."""
        self._cancelled.set()
        if self.state == "waiting":
            self._set(state="cancelled")

    def run(self) -> None:
        """Carry out the task. Errors end up in `error`, in one line and without a traceback."""
        if self._cancelled.is_set():
            return
        self._set(state="running")
        try:
            self._task(_JobProgress(self))
            self.check()
            self._set(state="finished")
        except CancelledError:
            self._set(state="cancelled")
        except Dyn3rError as problem:
            self._set(state="failed", error=str(problem))
        except MemoryError:
            self._set(state="failed", error="out of memory: fewer or smaller frames need less")
        except Exception:
            logger.exception("a job of the app failed")
            self._set(state="failed", error="an internal error; the terminal of dyn3r says more")

    def move_up(self, ahead: int) -> None:
        """Tell how many jobs come first now."""
        if ahead != self.ahead:
            self._set(ahead=ahead)

    def check(self) -> None:
        """Raise CancelledError if the job was cancelled."""
        if self._cancelled.is_set():
            raise CancelledError

    def show(self, stage: str, share: float) -> None:
        """Show what the job does, and the share that is done."""
        self._set(stage=stage, _reached=max(self._reached, share))

    def _set(self, **fields: object) -> None:
        for name, value in fields.items():
            setattr(self, name, value)
        self._changed(self)


class _JobProgress:
    """Progress callback of a job, with the whole as `dyn3r.cli.overall.Overall` tells it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._has_whole = False

    def __call__(self, stage: str, _done: int, _total: int) -> None:
        self._job.check()
        if not self._has_whole:
            self._job.show(stage, 0.0)

    def overall(self, text: str, share: float) -> None:
        """Show the stage of the whole, of which `share` is done."""
        self._has_whole = True
        self._job.show(text, min(share, 0.99))


class JobQueue:
    """Runs jobs one after the other on a thread."""

    def __init__(self) -> None:
        """Start the thread."""
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._condition = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="dyn3r-app-jobs", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Append a job."""
        with self._condition:
            self._waiting.append(job)
            self._condition.notify_all()
        self._move_up()

    def stop(self) -> None:
        """Cancel all jobs, and wait a few seconds for the one that runs."""
        with self._condition:
            self._stopped = True
            jobs = [*self._waiting, *([self._running] if self._running else [])]
            self._condition.notify_all()
        for job in jobs:
            job.cancel()
        self._thread.join(timeout=5)

    def _move_up(self) -> None:
        with self._condition:
            waiting = [job for job in self._waiting if not job.is_over]
            first = int(self._running is not None)
        for index, job in enumerate(waiting):
            job.move_up(index + first)

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._stopped:
                    self._condition.wait()
                if self._stopped:
                    return
                self._running = self._waiting.popleft()
            self._move_up()
            self._running.run()
            with self._condition:
                self._running = None
            self._move_up()
