"""Clusters of points that other frames see unmoved, in a world with known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.datasets.plane_world import PlaneWorld, plane_world
from tests.factories import geometry_of

from dyn3r.motion.static_clusters import without_static_clusters
from dyn3r.types import Geometry, Motion


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    """With a red patch in front of a grey plane: its checks are too fine for single pixels."""
    world = plane_world(5)
    images = np.where(world.moving[..., None], np.uint8([200, 60, 60]), np.uint8(110))
    return replace(world, images=images)


@pytest.fixture(scope="module")
def geometry(world: PlaneWorld) -> Geometry:
    K = np.tile(world.K, (len(world), 1, 1))
    return geometry_of(world.T_world_camera, K, world.depth)


def motion_of(masks: np.ndarray) -> Motion:
    grid = np.zeros((len(masks), 3, 4), np.float32)
    return Motion(masks, grid, "given")


def with_false_object(world: PlaneWorld) -> np.ndarray:
    """The true masks, and a static block of the plane in two frames."""
    masks = world.moving.copy()
    masks[1, 34:46, 40:60] = masks[2, 34:46, 4:20] = True
    return masks


def test_what_others_see_unmoved_is_removed_and_what_moved_stays(
    world: PlaneWorld, geometry: Geometry
) -> None:
    masks = with_false_object(world)
    found = without_static_clusters(motion_of(masks), world.images, geometry)
    false = masks & ~world.moving
    assert false.sum() > 400
    assert (found.masks & false).sum() < 0.05 * false.sum()
    assert (found.masks & world.moving).sum() > 0.9 * world.moving.sum()
    assert found.has_motion
    assert "seen unmoved" in found.reason


def test_the_unit_of_length_does_not_matter(world: PlaneWorld, geometry: Geometry) -> None:
    motion = motion_of(with_false_object(world))
    plain = without_static_clusters(motion, world.images, geometry)
    T = geometry.T_world_camera.copy()
    T[:, :3, 3] *= 1000
    large = replace(geometry, T_world_camera=T, depth=1000 * geometry.depth)
    bigger = without_static_clusters(motion, world.images, large)
    assert (plain.masks != bigger.masks).mean() < 0.01


def test_nothing_is_added_but_a_margin(world: PlaneWorld, geometry: Geometry) -> None:
    import cv2

    motion = motion_of(world.moving.copy())
    found = without_static_clusters(motion, world.images, geometry)
    for before, after in zip(motion.masks, found.masks):
        near = cv2.dilate(before.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        assert not (after & ~near).any()


def test_a_cluster_that_no_other_frame_sees_stays(world: PlaneWorld, geometry: Geometry) -> None:
    away = geometry.T_world_camera.copy()
    away[1:, :3, :3] = away[1:, :3, :3] @ np.diag([-1.0, 1, -1])  # the others look back
    masks = np.zeros_like(world.moving)
    masks[0, 10:20, 10:20] = True
    alone = replace(geometry, T_world_camera=away)
    found = without_static_clusters(motion_of(masks), world.images, alone)
    assert found.masks[0, 10:20, 10:20].all()


def test_all_false_leaves_a_still_clip(world: PlaneWorld, geometry: Geometry) -> None:
    masks = with_false_object(world) & ~world.moving
    found = without_static_clusters(motion_of(masks), world.images, geometry)
    assert not found.has_motion
    assert not found.masks.any()
    still = motion_of(np.zeros_like(masks))
    assert without_static_clusters(still, world.images, geometry) is still


def test_few_points_and_repeated_points(world: PlaneWorld, geometry: Geometry) -> None:
    masks = np.zeros_like(world.moving)
    masks[0, 5, 5] = masks[1, 5, 5:8] = True
    found = without_static_clusters(motion_of(masks), world.images, geometry)
    assert found.masks.shape == masks.shape
