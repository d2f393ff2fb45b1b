"""Progress of a whole run: the stage, its number, and the time left."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from dyn3r.cli import overall as module
from dyn3r.cli.console import progress_bars
from dyn3r.cli.overall import PREVIEW, Overall, stages_of
from dyn3r.types import no_progress


class Shown:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shares: list[float] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        pass

    def overall(self, text: str, share: float) -> None:
        self.lines.append(text)
        self.shares.append(share)


@dataclass
class Plan:
    measure_flow: bool = True
    second_pass: bool = False
    bundle_adjustment: bool = False
    multi_view_depth: bool = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def run(overall: Overall, clock: list[float], stages: tuple[str, ...]) -> None:
    """Every stage takes as many seconds as its share, bundle adjustment and motion come again."""
    overall("reading frames", 1, 1)
    clock[0] += module.SHARES["reading frames"]
    for stage in stages:
        with overall.stage(stage):
            for done in range(4):
                overall(f"doing {stage}", done, 3)
                clock[0] += module.SHARES[stage] / 4 / (3 if stage == "bundle adjustment" else 1)
    overall("writing results", 1, 1)


STAGES = (
    "flow", "first pass", "motion", "alignment", "bundle adjustment", "motion",
    "bundle adjustment", "motion", "mask refinement", "bundle adjustment", "motion",
    "multi-view depth", "finalise",
)  # fmt: skip


def test_stages_are_counted_and_the_share_never_falls(clock: list[float]) -> None:
    shown = Shown()
    overall = Overall(shown, without=(PREVIEW,))
    overall.observe("plan", Plan(bundle_adjustment=True))
    run(overall, clock, STAGES)
    assert shown.lines[0].startswith("stage 1 of 9: reading frames")
    assert shown.lines[-1].startswith("stage 9 of 9: writing results")
    assert shown.shares == sorted(shown.shares)
    assert shown.shares[-1] > 0.95


def test_windows_of_a_long_clip_are_counted(clock: list[float]) -> None:
    shown = Shown()
    overall = Overall(shown, without=(PREVIEW,))
    for number in range(3):
        overall.observe("window", (number, 3))
        overall.observe("plan", Plan(bundle_adjustment=True))
        run(overall, clock, STAGES)
        assert shown.lines[-1].startswith(f"window {number + 1} of 3, stage 9 of 9: writing")
        assert shown.shares[-1] == pytest.approx((number + 1) / 3, abs=0.02)
    assert shown.shares == sorted(shown.shares)


def test_time_left_follows_what_was_expected_then_what_it_took(clock: list[float]) -> None:
    shown = Shown()
    overall = Overall(shown, 1000.0, without=(PREVIEW,))
    overall("reading frames", 0, 1)
    assert shown.lines[-1].endswith("about 17 min left")
    clock[0] = 50.0
    overall._at, overall._share = overall._stages.index("finalise"), 0.5
    with overall.stage("finalise"):
        pass
    assert shown.lines[-1].endswith("about 10 s left")


def test_a_plan_has_its_own_stages() -> None:
    every = stages_of(Plan(bundle_adjustment=True, second_pass=True))
    assert every[0] == "reading frames"
    assert {"flow", "second pass", "bundle adjustment", "multi-view depth"} <= set(every)
    plain = Plan(measure_flow=False, multi_view_depth=False, second_pass=True)
    assert stages_of(plain) == (
        "reading frames", "preview", "first pass", "motion", "second pass", "mask refinement",
        "alignment", "finalise", "writing results",
    )  # fmt: skip


def test_plain_output_has_a_line_for_every_stage(capsys: pytest.CaptureFixture) -> None:
    with progress_bars(quiet=False) as progress:
        overall = Overall(progress, without=(PREVIEW,))
        overall("reading frames", 1, 2)
        overall("reading frames", 2, 2)
        overall.observe("plan", Plan(bundle_adjustment=True))
        with overall.stage("flow"):
            overall("measuring flow", 1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("reading frames: 1/2") for line in lines) == 1
    assert not any("reading frames (" in line for line in lines)
    assert sum(line.startswith("stage 2 of 9: flow") for line in lines) == 1


def test_stages_are_not_counted_before_the_plan_is_known() -> None:
    shown = Shown()
    overall = Overall(shown, 100.0, without=(PREVIEW,))
    overall("reading frames", 0, 1)
    assert shown.lines == ["reading frames, about 2 min left"]
    overall.observe("plan", Plan())
    overall("reading frames", 1, 1)
    assert shown.lines[-1].startswith("stage 1 of 9: reading frames")


def test_nothing_is_shown_where_nothing_is_wanted() -> None:
    overall = Overall(no_progress)
    overall("reading frames", 1, 1)
    with overall.stage("flow"):
        overall("measuring flow", 0, 0)
