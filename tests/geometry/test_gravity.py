"""Up direction: vertical edges, ground plane, cameras."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dyn3r.geometry.gravity import Upright, find_up
from dyn3r.geometry.ground_plane import fit_ground_plane
from dyn3r.geometry.surface_planes import PLANE_WINDOW_PX, inverse_depth_planes
from dyn3r.geometry.vanishing_point import find_vertical
from tests.rooms import Room, degrees_between, room


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (20, 3), (-15, -6), (40, 2)])
def test_vertical_stripes_show_the_up_direction(pitch: float, roll: float) -> None:
    seen = room(pitch_deg=pitch, roll_deg=roll)
    found = find_vertical(seen.images, seen.K, seen.T_world_camera, depth=seen.depth)
    assert found is not None
    assert found.reliable
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


def test_segments_on_dynamic_pixels_are_left_out() -> None:
    seen = room()
    everything = np.ones(seen.depth.shape, bool)
    assert find_vertical(seen.images, seen.K, seen.T_world_camera, dynamic=everything) is None


@pytest.mark.parametrize("kind", ["plain", "noise"])
def test_without_vertical_edges_nothing_is_reliable(kind: str) -> None:
    seen = room(striped=False)
    images = seen.images
    if kind == "noise":
        images = np.random.default_rng(0).integers(0, 256, images.shape).astype(np.uint8)
    found = find_vertical(images, seen.K, seen.T_world_camera, depth=seen.depth)
    assert found is None or not found.reliable


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
    assert not found.reliable  # only the one in the middle of the picture may be vertical
    assert found.spread_deg < 3


def test_the_plane_of_inverse_depth_is_that_of_the_surface() -> None:
    seen = room(pitch_deg=25, roll_deg=0)
    plane = inverse_depth_planes(1 / seen.depth[0].astype(np.float64), seen.K[0])
    rim = PLANE_WINDOW_PX // 2 + 1
    inside = np.zeros(seen.depth[0].shape, bool)
    inside[-20:-rim, rim:-rim] = True
    assert seen.floor[0][-28:].all()
    up_camera = seen.T_world_camera[0, :3, :3].T @ seen.up_world
    np.testing.assert_allclose(
        plane[inside], np.tile(-up_camera / 1.2, (inside.sum(), 1)), atol=1e-4
    )


def find_up_in(
    images: np.ndarray, seen: Room, valid: np.ndarray | None = None, **changes: np.ndarray
) -> Upright:
    nothing = np.zeros(seen.depth.shape, bool)
    arguments = {
        "depth": seen.depth,
        "valid": ~nothing if valid is None else valid,
        "dynamic": nothing,
        "confidence": np.full(seen.depth.shape, 2.0, np.float32),
    }
    return find_up(images, seen.K, seen.T_world_camera, **(arguments | changes))


def test_up_is_that_of_the_best_source() -> None:
    seen = room()
    edges = find_up_in(seen.images, seen)
    assert edges.source == "vertical edges"
    assert degrees_between(edges.up_world, seen.up_world) < 2
    assert edges.ground_height == pytest.approx(-1.2, rel=0.05)
    plain = np.full_like(seen.images, 90)
    plane = find_up_in(plain, seen)
    assert plane.source == "ground plane"
    assert degrees_between(plane.up_world, seen.up_world) < 0.5
    assert plane.ground_height == pytest.approx(-1.2, rel=0.02)
    nothing = np.zeros(seen.depth.shape, bool)
    for cameras in (find_up_in(plain, seen, nothing), find_up_in(plain, seen, dynamic=~nothing)):
        assert cameras.source == "cameras"
        assert cameras.ground_height is None
        mean = -seen.T_world_camera[:, :3, 1].mean(0)
        np.testing.assert_allclose(cameras.up_world, mean / np.linalg.norm(mean))


def test_up_is_deterministic_and_ignores_pixels_that_are_not_valid() -> None:
    seen = room()
    plain = np.full_like(seen.images, 90)
    one, two = (find_up_in(plain, seen) for _ in range(2))
    np.testing.assert_array_equal(one.up_world, two.up_world)
    wrong, valid = seen.depth.copy(), np.ones(seen.depth.shape, bool)
    wrong[:, :, ::2], valid[:, :, ::2] = 0.2, False
    found = find_up_in(plain, seen, valid, depth=wrong)
    assert found.source == "ground plane"
    assert degrees_between(found.up_world, seen.up_world) < 0.5


def test_a_ground_plane_lies_below_the_cameras_and_below_the_points() -> None:
    random = np.random.default_rng(0)
    floor = np.stack([*random.uniform(-2, 2, (2, 900)), random.normal(0, 0.002, 900)], -1)
    above = random.uniform(-1, 1, (600, 3)) + np.array([0, 0, 1.5])
    points, up = np.concatenate([floor, above]), np.array([0.0, 0, 1])
    centers = np.array([[0, 0, 1.0], [0.5, 0, 1.0]])
    plane = fit_ground_plane(points, centers, up, 2.0)
    assert plane is not None
    assert degrees_between(plane.normal, up) < 0.5
    assert plane.height == pytest.approx(0, abs=0.01)
    level = fit_ground_plane(points, centers, up, 2.0, up)
    assert level is not None
    np.testing.assert_array_equal(level.normal, up)
    assert fit_ground_plane(points, centers - [0, 0, 2], up, 2.0) is None  # cameras below it
    assert fit_ground_plane(points[:99], centers, up, 2.0) is None
    assert fit_ground_plane(above, centers, up, 2.0) is None
