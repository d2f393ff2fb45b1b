"""Which way is up by vertical edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dyn3r.geometry.gravity import WINDOW, find_vertical, plane_of_inverse_depth
from tests.rooms import degrees_between, room


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (20, 3), (-15, -6), (40, 2)])
def test_stripes_of_a_wall_tell_up(pitch: float, roll: float) -> None:
    seen = room(pitch_deg=pitch, roll_deg=roll)
    found = find_vertical(seen.images, seen.K, seen.T_world_camera, depth=seen.depth)
    assert found is not None
    assert found.sure
    assert degrees_between(found.up_world, seen.up_world) < 2.0
    assert np.linalg.norm(found.up_world) == pytest.approx(1)
    without = find_vertical(seen.images, seen.K, seen.T_world_camera)
    assert without is not None
    assert degrees_between(without.up_world, seen.up_world) < 2.0


def test_one_frame_is_enough() -> None:
    seen = room(yaws_deg=(5.0,))
    found = find_vertical(seen.images, seen.K, seen.T_world_camera)
    assert found is not None
    assert degrees_between(found.up_world, seen.up_world) < 1.5


def test_what_moves_has_no_say() -> None:
    seen = room()
    everything = np.ones(seen.depth.shape, bool)
    assert find_vertical(seen.images, seen.K, seen.T_world_camera, moving=everything) is None


@pytest.mark.parametrize("kind", ["plain", "noise"])
def test_without_vertical_edges_nothing_is_sure(kind: str) -> None:
    seen = room(striped=False)
    images = seen.images
    if kind == "noise":
        images = np.random.default_rng(0).integers(0, 256, images.shape).astype(np.uint8)
    found = find_vertical(images, seen.K, seen.T_world_camera, depth=seen.depth)
    assert found is None or not found.sure


def table(pitch_deg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frames, K, depth and up of a table all stripes, which run away from the camera."""
    h, w, focal = 96, 144, 120.0
    v, u = np.mgrid[:h, :w].astype(float)
    ray = np.stack([(u - w / 2) / focal, (v - h / 2) / focal, np.ones((h, w))], -1)
    R = Rotation.from_euler("x", -pitch_deg, degrees=True).as_matrix()
    seen = ray @ R.T
    depth = 1.0 / np.maximum(seen[..., 1], 1e-6)
    grey = 120 + 70 * np.clip(np.sin(25 * seen[..., 0] * depth) * 12, -1, 1)
    images = np.repeat(grey[None, ..., None], 3, -1).astype(np.uint8)
    K = np.array([[[focal, 0, w / 2], [0, focal, h / 2], [0, 0, 1.0]]])
    return images, K, depth[None].astype(np.float32), R.T @ [0, -1.0, 0]


@pytest.mark.parametrize("pitch", [45, 50])
def test_stripes_on_a_table_are_not_taken_for_vertical(pitch: float) -> None:
    images, K, depth, up = table(pitch)
    T = np.eye(4)[None]
    without = find_vertical(images, K, T)
    assert without is not None
    assert degrees_between(without.up_world, up) > 60  # the direction in which they run
    found = find_vertical(images, K, T, depth=depth)  # the table faces up
    assert found is not None
    assert degrees_between(found.up_world, up) < 30
    assert not found.sure  # only the one in the middle of the picture may be vertical
    assert found.spread_deg < 3


def test_the_plane_of_inverse_depth_is_that_of_the_surface() -> None:
    seen = room(pitch_deg=25, roll_deg=0)
    plane = plane_of_inverse_depth(1 / seen.depth[0].astype(np.float64), seen.K[0])
    rim = WINDOW // 2 + 1
    inside = np.zeros(seen.depth[0].shape, bool)
    inside[-20:-rim, rim:-rim] = True
    assert seen.floor[0][-28:].all()
    up_camera = seen.T_world_camera[0, :3, :3].T @ seen.up_world
    np.testing.assert_allclose(
        plane[inside], np.tile(-up_camera / 1.2, (inside.sum(), 1)), atol=1e-4
    )
