"""Progress of adjustments that run one after the other or side by side, as that of one whole."""

from __future__ import annotations

from threading import Lock

from dyn3r.types import Progress


class Adjustments:
    """The progress of up to `count` adjustments of a stage; they may be on several threads."""

    def __init__(self, progress: Progress, stage: str, count: int) -> None:
        """Nothing is done yet."""
        self._progress, self._stage, self._count = progress, stage, count
        self._shares: list[float] = []
        self._lock = Lock()

    def one(self) -> Progress:
        """The progress of one more adjustment."""
        with self._lock:
            k = len(self._shares)
            self._shares.append(0.0)

        def report(stage: str, done: int, total: int) -> None:  # noqa: ARG001 (that of the whole)
            with self._lock:
                self._shares[k] = done / total
                share = sum(self._shares) / self._count
                self._progress(self._stage, min(round(100 * share), 100), 100)

        return report

    def finished(self) -> None:
        """No adjustment is left."""
        self._progress(self._stage, 100, 100)
