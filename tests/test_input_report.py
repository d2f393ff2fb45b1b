"""The input report: kept with the scene, shown, and refused where a file is damaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dyn3r.cli.results import report as print_report
from dyn3r.errors import InputError
from dyn3r.io.clip import clip_from_images
from dyn3r.scene import Scene, summarise
from dyn3r.types.input_report import MAX_CHARACTERS, MAX_NOTES, InputNote, InputReport
from tests.factories import tiny_scene

NOTES = (InputNote("frames", "2 of 24 left out"), InputNote("cuts", "one", warning=True))


def test_notes_are_added_once_and_in_order() -> None:
    report = InputReport().adding(NOTES[0]).adding(NOTES[0], NOTES[1])
    assert report.notes == NOTES
    assert report.lines() == ["input: frames: 2 of 24 left out", "warning: cuts: one"]


def test_json_gives_the_same_report() -> None:
    report = InputReport(NOTES)
    assert InputReport.from_json(report.to_json()) == report


def test_a_scene_keeps_the_report_in_its_file_and_shows_it(tmp_path, capsys) -> None:
    scene = tiny_scene(metadata={"input": InputReport(NOTES).to_json()})
    scene = Scene.load(scene.save(tmp_path / "a.dyn3r"))
    assert scene.report.notes == NOTES
    assert [line for line in summarise(scene) if "cuts" in line] == ["warning     cuts: one"]
    print_report(scene, [], tmp_path, 1.0)
    assert "warning: cuts: one\n" in capsys.readouterr().out


def test_a_clip_without_findings_has_an_empty_report() -> None:
    clip = clip_from_images(np.zeros((2, 64, 64, 3), np.uint8), size=64)
    assert isinstance(clip.report, InputReport)
    assert tiny_scene().report == InputReport()


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        "frames",
        [1],
        [{}],
        [{"topic": "frames"}],
        [{"topic": "weather", "text": "rain"}],
        [{"topic": ["frames"], "text": "a"}],
        [{"topic": "frames", "text": ""}],
        [{"topic": "frames", "text": 3}],
        [{"topic": "frames", "text": "a", "warning": "yes"}],
        [{"topic": "frames", "text": "a" * (MAX_CHARACTERS + 1)}],
        [{"topic": "frames", "text": "a"}] * (MAX_NOTES + 1),
    ],
)
def test_a_damaged_report_is_refused_and_info_goes_on(value: Any) -> None:
    with pytest.raises(InputError):
        InputReport.from_json(value)
    scene = tiny_scene(metadata={"input": value})
    assert not [line for line in summarise(scene) if "frames:" in line]
