"""Progress on a terminal and off it: how long a stage takes, also when it comes twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from dyn3r.cli import console
from dyn3r.cli.batch import Batch, BatchWorker
from dyn3r.cli.console import limit_threads, progress_bars
from dyn3r.errors import InputError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What it is set to, is the time."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_a_stage_that_begins_again_has_its_own_time(
    clock: list[float], capsys: pytest.CaptureFixture
) -> None:
    clock[0] = 100.0
    with progress_bars(quiet=False) as progress:
        for start, seconds in ((100.0, 2.0), (150.0, 3.0)):
            for done in (0, 1, 2):
                clock[0] = start + seconds * done / 2
                progress("aligning", done, 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "aligning: 0/2",
        "aligning: 2/2 in 2.0 s",
        "aligning: 0/2",
        "aligning: 2/2 in 3.0 s",
    ]


def test_the_end_of_a_stage_is_said_once(clock: list[float], capsys: pytest.CaptureFixture) -> None:
    with progress_bars(quiet=False) as progress:
        for done in (0, 2, 2, 2, 0, 2, 2):
            clock[0] += 20.0
            progress("aligning", done, 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["aligning: 0/2", "aligning: 2/2 in 20.0 s"] * 2


def test_long_stages_say_how_much_is_left(
    clock: list[float], capsys: pytest.CaptureFixture
) -> None:
    with progress_bars(quiet=False) as progress:
        for done in (0, 1, 2, 4):
            clock[0] = 6.0 * done
            progress("looking", done, 4)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["looking: 0/4", "looking: 2/4, about 12 s left", "looking: 4/4 in 24.0 s"]


def test_bars_begin_again_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(console.sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bars(quiet=False) as progress:
        for done in (0, 2, 1):
            progress("aligning", done, 2)
    assert "1/2" in capsys.readouterr().err


def test_quiet_says_nothing(capsys: pytest.CaptureFixture) -> None:
    with progress_bars(quiet=True) as progress:
        progress("aligning", 0, 2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("threads", "jobs", "given", "limit"),
    [(0, 1, None, []), (0, 2, 3, [3]), (4, 2, 3, [2]), (1, 2, None, [1]), (8, 2, 3, [3])],
)
def test_jobs_of_a_batch_share_the_cores(
    threads: int, jobs: int, given: int | None, limit: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("dyn3r.io.workers.use_threads", asked.append)
    monkeypatch.setattr("dyn3r.cli.batch.load_models", lambda *_: None)
    batch = Batch(sources=Path("in"), output=Path("out"), threads=threads, jobs=jobs)
    BatchWorker(batch, {}, "").prepare(given)
    assert asked == limit


def test_a_negative_number_of_cores_is_refused() -> None:
    with pytest.raises(InputError, match="--threads -1"):
        limit_threads(-1)
