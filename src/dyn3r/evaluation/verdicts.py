"""How often the verdict is right: true errors of sequences by the grade that the program gave."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from dyn3r.evaluation.benchmark import Result
from dyn3r.scene.verdict import GRADES, PARTS, Grade, Verdict

JUDGED = {
    "cameras": ("ATE/path",), "focal length": ("focal",), "depth": ("abs rel",),
    "masks": ("JM", "false moving"),
}  # fmt: skip
"""Part of a verdict -> metrics that say whether it is right."""
HIGHER_IS_BETTER = ("JM",)


class GradedErrors(NamedTuple):
    """Errors of the sequences that were given one grade."""

    sequences: int
    median: float
    worst: float
    worst_sequence: str


def errors_by_grade(
    results: Sequence[Result],
) -> dict[tuple[str, str], dict[Grade, GradedErrors]]:
    """(part, metric) -> grade -> errors, of the sequences that have a verdict and the metric.

    JM counts where something moves: in a still sequence empty masks have 1.
    """
    verdicts = [
        (result, Verdict.from_json(result.about["verdict"]))
        for result in results
        if result.status == "ok" and result.about.get("verdict") is not None
    ]
    found: dict[tuple[str, str], dict[Grade, GradedErrors]] = {}
    for part in PARTS:
        for metric in JUDGED[part]:
            for grade in GRADES:
                errors = [
                    (float(value), result.sequence)
                    for result, verdict in verdicts
                    if part in verdict.parts and verdict.parts[part].grade == grade
                    and (value := result.metrics.get(metric)) is not None and math.isfinite(value)
                    and (metric != "JM" or result.curves.get("masks", {}).get("true", 1))
                ]  # fmt: skip
                if errors:
                    worst = (min if metric in HIGHER_IS_BETTER else max)(errors)
                    median = statistics.median(value for value, _ in errors)
                    graded = GradedErrors(len(errors), median, *worst)
                    found.setdefault((part, metric), {})[grade] = graded
    return found
