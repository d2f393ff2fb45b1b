"""Flags and progress bars, shared by the commands."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tyro

from dyn3r.cli.terminal import say
from dyn3r.errors import InputError
from dyn3r.types import Progress, no_progress

Flag = tyro.conf.FlagCreatePairsOff[bool]
"""A switch with one form: the one that changes its default."""


def check_threads(count: int) -> None:
    """Raise InputError for a negative number of cores."""
    if count < 0:
        raise InputError(f"--threads {count}: give the number of cores, or 0 for all of them")


def limit_threads(count: int) -> None:
    """Compute on `count` cores from now on; 0: all. Raises InputError as `check_threads`."""
    from dyn3r.io.workers import use_threads

    check_threads(count)
    if count:
        use_threads(count)


def print_columns(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows of equal length in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        say("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


@contextmanager
def progress_bars(*, quiet: bool) -> Iterator[Progress]:
    """Progress bars with the remaining time on stderr; plain lines if stderr is not a terminal."""
    if quiet:
        yield no_progress
        return
    if not sys.stderr.isatty():
        yield _PlainProgress()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield _BarProgress(bars)


class _BarProgress:
    """A bar for every stage, and one for the whole."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        bars, tasks = self._bars, self._tasks
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        elif done < bars.tasks[tasks[stage]].completed:
            bars.reset(tasks[stage], total=total)  # it starts again
        bars.update(tasks[stage], completed=done, total=total)

    def overall(self, text: str, share: float) -> None:
        """Show the whole, of which `share` is done."""
        self._tasks.setdefault("", None)
        if self._tasks[""] is None:
            self._tasks[""] = self._bars.add_task(text, total=100)
        self._bars.update(self._tasks[""], description=text, completed=round(100 * share))


class _PlainProgress:
    """A line when a stage starts, every ten seconds, and when it ends."""

    def __init__(self) -> None:
        self.stages: dict[str, tuple[float, float, int, int]] = {}
        self._whole = ""

    def overall(self, text: str, share: float) -> None:
        """Say which stage of the whole begins; `share` is done."""
        stage = text.split(",")[0]
        if stage != self._whole and stage not in self.stages:  # else it has lines of its own
            self._whole = stage
            say(f"{text} ({share:.0%} done)", error=True)

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        first = stage not in self.stages or done < self.stages[stage][3]
        began, said, from_done, before = (now, now, done, -1) if first else self.stages[stage]
        has_ended = before >= total  # some stages report their end more than once
        if not has_ended and (first or done >= total or now - said > 10):
            left = (
                ""
                if done == from_done or done >= total
                else (f", about {(now - began) * (total - done) / (done - from_done):.0f} s left")
            )
            spent = f" in {now - began:.1f} s" if done >= total and not first else ""
            say(f"{stage}: {done}/{total}{left}{spent}", error=True)
            said = now
        self.stages[stage] = (began, said, from_done, done)
