"""The baseline of pycolmap: which frames count, what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from tests.datasets.plane_world import plane_world

from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import GeometryError, InputError, MissingExtraError
from dyn3r.evaluation import colmap_baseline
from dyn3r.evaluation.colmap_baseline import colmap_cameras, run_colmap
from dyn3r.evaluation.protocols import find_protocol

WORLD = plane_world(5)
SEQUENCE = Sequence(
    "plane", tuple("abcde"), lambda i: WORLD.images[i], T_world_camera=WORLD.T_world_camera,
    K=np.tile(WORLD.K, (5, 1, 1)),
)  # fmt: skip
FOLDER = find_protocol("folder")


def found(monkeypatch: pytest.MonkeyPatch, T: np.ndarray, focal: float) -> None:
    monkeypatch.setattr(colmap_baseline, "colmap_cameras", lambda sequence: (T, focal))


def test_errors_are_of_the_registered_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    T = WORLD.T_world_camera.copy()
    T[:, :3, 3] *= 7
    T[3] = np.nan
    found(monkeypatch, T, 1.1 * WORLD.K[0, 0])
    result = run_colmap(SEQUENCE, FOLDER)
    assert result.metrics["registered"] == 0.8
    assert result.metrics["ATE"] == pytest.approx(0, abs=1e-9)
    assert result.metrics["focal"] == pytest.approx(0.1)
    assert result.baseline["ATE"] > 0.05
    distance = result.to_json()["per_frame"]["distance"]
    assert distance[3] is None
    assert max(d for d in distance if d is not None) < 1e-9


def test_too_few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    T = WORLD.T_world_camera.copy()
    T[2:] = np.nan
    found(monkeypatch, T, 50.0)
    with pytest.raises(GeometryError, match="registers 2 of 5 frames"):
        run_colmap(SEQUENCE, FOLDER)


def test_masks_are_not_its_task() -> None:
    masks = replace(SEQUENCE, mask=lambda i: WORLD.images[i][..., 0] > 0)
    with pytest.raises(InputError, match="pycolmap finds cameras"):
        run_colmap(masks, find_protocol("davis"))


def test_without_pycolmap_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(MissingExtraError, match=r"dyn3r\[colmap\]"):
        colmap_cameras(SEQUENCE)


@pytest.mark.slow
def test_pycolmap_says_nothing_about_pictures_without_texture() -> None:
    pytest.importorskip("pycolmap")
    grey = replace(SEQUENCE, image=lambda i: np.full((64, 96, 3), 90, np.uint8))
    T, focal = colmap_cameras(grey)
    assert np.isnan(T).all()
    assert np.isnan(focal)
