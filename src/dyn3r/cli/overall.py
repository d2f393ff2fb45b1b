"""Progress of a whole reconstruction: stage 5 of 10, and the time left for all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dyn3r.cli.frames import duration
from dyn3r.types import Progress

if TYPE_CHECKING:
    from dyn3r.options import Plan

READING, PREVIEW, WRITING = "reading frames", "preview", "writing results"
SHARES = {
    READING: 2, PREVIEW: 4, "flow": 13, "first pass": 9, "motion": 10, "second pass": 9,
    "predicting points": 9, "mask refinement": 1, "alignment": 9, "bundle adjustment": 36,
    "multi-view depth": 6, "finalise": 4, WRITING: 10,
}  # fmt: skip
"""Typical share of the time of each stage, in the order in which they begin. Those of a plan count
relative to each other. Source: four clips of 12 to 48 frames (docs/experiments.md)."""
ADJUSTMENTS = 3
"""Times that bundle adjustment usually runs; motion is estimated and masks are refined in between,
which counts as a part of it."""
SHOWN_FROM = 0.03
"""Share of the whole from which the time left is shown."""


class Overall:
    """A progress callback, and the `around` and `observe` of a `RunContext`, for one run."""

    def __init__(
        self, progress: Progress, expected_s: float | None = None, *, without: Sequence[str] = ()
    ) -> None:
        """Show nothing yet.

        Args:
            progress: where stages are shown; its `overall`, if it has one, shows the whole.
            expected_s: expected seconds.
            without: stages that the run does not have, besides those that the plan leaves out.
        """
        self._progress = progress
        self._show: Callable[[str, float], None] = getattr(progress, "overall", _nothing)
        self.expected_s = expected_s
        self._began = time.monotonic()
        self._without = tuple(without)
        self._stages, self._planned = self._present(tuple(SHARES)), False
        self._at = 0
        self._entered: dict[str, int] = {}
        self._labels: list[str] = []
        self._share = 0.0
        self._window = (0, 1)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Progress within a stage."""
        self._progress(stage, done, total)
        if stage in (READING, PREVIEW, WRITING):
            self._enter(stage)
        if stage not in self._labels:
            self._labels.append(stage)
        # parts of unknown length: half of the stage, then a quarter, ...
        before = 1 - 0.5 ** self._labels.index(stage)
        self._update(before + (1 - before) / 2 * (done / total if total else 1.0))

    def observe(self, name: str, value: object) -> None:
        """Learn from the plan which stages there are, and which window of a long clip comes."""
        if name == "window":
            self._window = value  # type: ignore[assignment]
            self._at, self._entered, self._labels = 0, {}, []
        if name == "plan":
            entered, self._planned = self._stages[self._at], True
            self._stages = self._present(stages_of(value))  # type: ignore[arg-type]
            self._at = self._stages.index(entered) if entered in self._stages else 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Entered around every stage."""
        self._enter(name)
        self._entered[name] = self._entered.get(name, 0) + 1
        self._labels = []
        self._update(0.0)
        yield
        self._update(1.0)

    def _present(self, stages: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(stage for stage in stages if stage not in self._without)

    def _enter(self, stage: str) -> None:
        if stage in self._stages:  # motion is entered again: it goes on where it was
            self._at = max(self._at, self._stages.index(stage))

    def _update(self, within: float) -> None:
        name = self._stages[self._at]
        if name == "bundle adjustment":
            rounds = max(1, self._entered.get(name, 1))
            within = (min(rounds, ADJUSTMENTS) - 1 + within) / ADJUSTMENTS
        weights = [SHARES[stage] for stage in self._stages]
        share = (sum(weights[: self._at]) + within * weights[self._at]) / sum(weights)
        number, count = self._window
        self._share = max(self._share, (number + min(share, 1.0)) / count)
        text = f"stage {self._at + 1} of {len(self._stages)}: {name}" if self._planned else name
        if count > 1:
            text = f"window {number + 1} of {count}, {text}"
        left = self._left_s()
        self._show(text if left is None else f"{text}, about {duration(left)} left", self._share)

    def _left_s(self) -> float | None:
        """From what was expected at the beginning, and more and more from the time it took."""
        spent, share = time.monotonic() - self._began, self._share
        if share < SHOWN_FROM:
            return self.expected_s
        by_now = spent / share
        total = by_now if self.expected_s is None else (
            share * by_now + (1 - share) * self.expected_s
        )  # fmt: skip
        return (1 - share) * total


def stages_of(plan: Plan) -> tuple[str, ...]:
    """The stages that a plan has, in the order in which they begin."""
    absent: Mapping[str, Any] = {
        "flow": plan.measure_flow, "second pass": plan.second_pass, "predicting points": False,
        "bundle adjustment": plan.bundle_adjustment, "multi-view depth": plan.multi_view_depth,
        "mask refinement": not plan.bundle_adjustment,
    }  # fmt: skip
    return tuple(stage for stage in SHARES if absent.get(stage, True))


def _nothing(text: str, share: float) -> None:
    """Show nothing."""
