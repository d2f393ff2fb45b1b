"""Inputs that the tests of robustness share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dyn3r.network.checkpoints.reader import save_network
from tests.factories import tiny_network


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained network that runs in milliseconds."""
    file = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_network(file, tiny_network(), {})
    return file


@pytest.fixture(scope="session")
def good_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of 64x48 pixels of a wall that slides past. Not to be changed."""
    folder = tmp_path_factory.mktemp("input") / "frames"
    folder.mkdir()
    wall = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    for t in range(3):
        Image.fromarray(wall[:, 4 * t : 4 * t + 64]).save(folder / f"frame_{t}.png")
    return folder
