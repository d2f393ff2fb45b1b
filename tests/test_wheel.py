"""The wheel: small enough, complete, and working with nothing but its declared dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LARGEST_MB = 45


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.mark.slow
def test_the_wheel_is_small_and_holds_weights_and_demo(wheel: Path) -> None:
    assert wheel.stat().st_size <= LARGEST_MB * 1e6
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    weights = {name.rpartition("/")[2] for name in names if name.endswith(".safetensors")}
    assert weights == {
        "compact.safetensors", "flow.safetensors", "motion-masks.safetensors",
        "motion-masks-second-look.safetensors", "multi-view-depth.safetensors",
    }  # fmt: skip
    assert "dyn3r/assets/demo/living_room_walk/camera.npz" in names
    assert "dyn3r/assets/demo/living_room_walk/frames/00023.jpg" in names
    assert "dyn3r/py.typed" in names


@pytest.mark.slow
@pytest.mark.skipif("DYN3R_TEST_INSTALL" not in os.environ, reason="set DYN3R_TEST_INSTALL=1")
def test_the_wheel_works_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    """Installs PyTorch, so it takes minutes: run it before a release."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel]
    subprocess.run(install, check=True, capture_output=True)
    run = [python.with_name("dyn3r"), "demo", "-o", tmp_path / "out", "-q"]
    subprocess.run(run, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    assert (tmp_path / "out" / "scene.dyn3r").is_file()
    assert (tmp_path / "out" / "evaluation.json").is_file()
