"""Runs that are killed: the result is the old one or the new one, never a mixture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RESULT = ["camera_path.png", "contact_sheet.png", "mine.txt", "overview.mp4", "scene.dyn3r"]
# A result is written in this order; a mixture of two has another one.
WRITTEN = ["scene.dyn3r", "contact_sheet.png", "camera_path.png", "overview.mp4"]


@pytest.mark.slow
def test_results_survive_kills(tiny_model: Path, good_frames: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.robustness.killed_run", tmp_path, tiny_model, good_frames]
    done = subprocess.run(
        [*words, "4"], capture_output=True, text=True, check=False, timeout=500,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    *found, last = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) == 20
    for moment in found:
        assert moment["names"] == RESULT, moment
        assert moment["order"] == WRITTEN, moment
        assert moment["mine"] == "mine", moment
        if moment["signal"] == "SIGKILL":
            assert moment["status"] == -9
            assert all(name.endswith(".part") for name in moment["left"])
        else:
            assert moment["status"] in (130, 143), moment
            assert not moment["left"], moment
        assert moment["frames"] in (4, 5)
    assert last["left"] == ["out"]
