"""The library's functions called with wrong types: a typed error in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_wrong_arguments_are_typed_errors(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.robustness.misuse", tmp_path],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *found, count = done.stdout.splitlines()
    assert not found
    assert int(count.split()[0]) > 190
    assert not list(tmp_path.iterdir())
