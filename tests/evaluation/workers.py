"""A worker for tests of jobs: it can fail, and its process can die."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dyn3r.errors import InputError


@dataclass
class FakeWorker:
    """Items: `ok...` succeeds; `fail` raises; `die once`, `die` kill the process.

    `sleep` is slow, and `ok after sleep` waits for its start.
    """

    folder: Path
    prepared: int = field(default=0)
    trouble: str = ""
    """What is wrong with `prepare`: "no model" is an error of dyn3r, anything else another one."""

    def prepare(self, threads: int | None) -> None:
        if self.trouble:
            raise (
                InputError("no model here")
                if self.trouble == "no model"
                else ValueError("not prepared")
            )
        self.prepared += 1

    def __call__(self, item: str) -> dict[str, Any]:
        assert self.prepared == 1
        if item == "fail":
            raise InputError("it is broken")
        marker = self.folder / item.replace(" ", "_")
        first = not marker.exists()
        marker.touch()
        if item == "die" or (item == "die once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        while item == "ok after sleep" and not (self.folder / "sleep").exists():
            time.sleep(0.05)
        if item == "sleep":
            time.sleep(60)
            (self.folder / "awake").touch()
        return {"item": item, "process": os.getpid()}
