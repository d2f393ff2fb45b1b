"""Errors by the grade of the verdict: which sequences count, the worst one, and the table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dyn3r.evaluation.benchmark import Result
from dyn3r.evaluation.benchmark_table import VERDICTS, sequence_table, verdict_rows
from dyn3r.evaluation.protocols import find_protocol
from dyn3r.evaluation.verdicts import errors_by_grade


def result(name: str, grades: dict[str, str], **metrics: float | None) -> Result:
    verdict = {part: {"grade": grade, "reason": "why"} for part, grade in grades.items()}
    values = {key.replace("_", " "): value for key, value in metrics.items()}
    return Result("dyn3r/folder", name, 3, metrics=values, about={"verdict": verdict})


RESULTS = [
    result("a", {"masks": "good", "depth": "good"}, JM=0.9, abs_rel=0.1),
    result("b", {"masks": "good", "depth": "poor"}, JM=0.4, abs_rel=0.6),
    result("c", {"masks": "good"}, JM=0.8, abs_rel=0.2),
    result("d", {"masks": "poor", "depth": "good"}, JM=None, false_moving=0.2, abs_rel=0.3),
    replace(result("still", {"masks": "poor"}, JM=1.0), curves={"masks": {"true": 0}}),
    Result("dyn3r/folder", "no verdict", 3, metrics={"JM": 0.0}, about={"verdict": None}),
    Result("dyn3r/folder", "failed", 3, "failed", "no", about={}),
]


def test_errors_are_those_of_the_sequences_with_the_grade() -> None:
    found = errors_by_grade(RESULTS)
    assert set(found) == {("depth", "abs rel"), ("masks", "JM"), ("masks", "false moving")}
    assert found["masks", "JM"] == {"good": (3, 0.8, 0.4, "b")}  # the least J is the worst
    assert found["masks", "false moving"] == {"poor": (1, 0.2, 0.2, "d")}
    assert found["depth", "abs rel"] == {
        "good": (2, pytest.approx(0.2), 0.3, "d"),
        "poor": (1, 0.6, 0.6, "b"),
    }


def test_the_table_shows_them_and_is_absent_without_verdicts() -> None:
    rows = verdict_rows(RESULTS)
    assert rows[0] == ["verdict on", "error", "good", "doubtful", "poor"]
    assert ["masks", "JM", "3: 80.0 %, worst 40.0 % (b)", "-", "-"] in rows
    assert ["depth", "abs rel", "2: 0.200, worst 0.300 (d)", "-", "1: 0.600"] in rows
    protocol = find_protocol("folder")
    assert VERDICTS in sequence_table(protocol, RESULTS)
    assert verdict_rows(RESULTS[5:]) == []
    assert VERDICTS not in sequence_table(protocol, RESULTS[5:])


def test_a_verdict_that_is_none_of_ours_is_refused() -> None:
    bad = result("a", {"masks": "excellent"}, JM=1.0)
    with pytest.raises(ValueError, match="not valid"):
        Result.from_json(bad.to_json())
    assert Result.from_json(RESULTS[0].to_json()) == RESULTS[0]
