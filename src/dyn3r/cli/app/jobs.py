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

_STAGES = {
    "reading frames": 1, "preview": 3, "measuring flow": 3, "encoding frames": 1, "first pass": 9,
    "second pass": 9, "aligning: cameras": 8, "aligning: depth": 4, "comparing flow": 3,
    "comparing frames": 4, "depth from flow": 5, "refining masks": 2, "bundle adjustment": 8,
    "multi-view depth": 16, "views": 12,
}  # fmt: skip
"""Share of each stage in the time of a run, in any unit. Source: the demo clip on two cores."""
_OTHER_STAGE = 1.0


class CancelledError(Exception):
    """The job was cancelled."""


class TotalProgress:
    """Progress of a whole run from that of its stages. It never goes back."""

    def __init__(self) -> None:
        """Start at 0."""
        self.share = 0.0
        self._done: dict[str, float] = {}

    def update(self, stage: str, done: int, total: int) -> float:
        """Share of the run that is done, 0..1, after news of a stage."""
        part = min(1.0, done / total) if total > 0 else 0.0
        # what comes before this stage in the usual order is over, or does not occur
        for earlier in _STAGES:
            if earlier == stage or stage not in _STAGES:
                break
            self._done[earlier] = 1.0
        self._done[stage] = max(self._done.get(stage, 0.0), part)
        weights = {**dict.fromkeys(self._done, _OTHER_STAGE), **_STAGES}
        reached = sum(weights[name] * value for name, value in self._done.items())
        self.share = max(self.share, min(0.99, reached / sum(weights.values())))
        return self.share


class Job:
    """A task in the queue, and how far it is."""

    def __init__(self, task: Callable[[Progress], None], changed: Callable[[Job], None]) -> None:
        """`task` gets a progress callback; `changed` is called when a field here changes."""
        self.state: State = "waiting"
        self.ahead = 0
        """Number of jobs that come first."""
        self.stage, self.error = "", ""
        self._task, self._changed = task, changed
        self._total = TotalProgress()
        self._cancelled = threading.Event()

    @property
    def share(self) -> float:
        """Share that is done, 0..1."""
        return 1.0 if self.state == "finished" else self._total.share

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
            self._task(self._progress)
            self._progress("", 0, 0)
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

    def _progress(self, stage: str, done: int, total: int) -> None:
        if self._cancelled.is_set():
            raise CancelledError
        if stage:
            self._total.update(stage, done, total)
            self._set(stage=stage)

    def _set(self, **fields: object) -> None:
        for name, value in fields.items():
            setattr(self, name, value)
        self._changed(self)


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
