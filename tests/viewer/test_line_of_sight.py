"""Lines of sight: blocked by surfaces, from either side, and not by their edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dyn3r.scene import Scene
from dyn3r.viewer.framing import Window
from dyn3r.viewer.layout import scene_layout
from dyn3r.viewer.line_of_sight import frame_points, is_blocked
from tests.factories import tiny_scene


def room(*, near_wall: bool) -> Scene:
    """Four frames from one place: a wall at depth 4, and perhaps one at 2 in the last frame.

    In the last frame the camera looks back.
    """
    scene = tiny_scene()
    n, (h, w) = len(scene), scene.size_hw
    T = np.tile(np.eye(4), (n, 1, 1))
    T[-1, [0, 2], [0, 2]] = -1
    depth = np.full((n, h, w), 4.0, np.float32)
    depth[-1] = 2.0
    confidence = np.full((n, h, w), 10.0, np.float32)
    if not near_wall:
        confidence[-1] = 0
    return replace(
        scene, T_world_camera=T, depth=depth, confidence=confidence,
        dynamic=np.zeros((n, h, w), bool), up_world=np.array([0.0, -1, 0]),
    )  # fmt: skip


def test_a_wall_behind_the_camera_is_in_the_way_from_outside() -> None:
    scene = room(near_wall=True)
    points = frame_points(scene, 0)
    assert 300 < len(points) < 900
    np.testing.assert_allclose(points[:, 2], 4, rtol=1e-3)
    outside, inside = np.array([0, 0, -3.0]), np.array([0, 0, -1.0])
    assert is_blocked(scene, outside, points).mean() > 0.9
    assert not is_blocked(scene, inside, points).any()
    assert not is_blocked(room(near_wall=False), outside, points).any()


def test_moving_objects_and_edges_do_not_block() -> None:
    """A line beside a near object goes from in front of it to behind it."""
    scene = room(near_wall=False)
    depth = scene.depth.copy()
    depth[:, :, : depth.shape[2] // 2] = 1.0  # the left half is near
    edge = replace(scene, depth=depth)
    right = frame_points(edge, 0)
    right = right[right[:, 2] > 3]
    assert not is_blocked(edge, np.array([0.3, 0, -0.5]), right).any()
    near = np.array([[-0.5, 0, 3.0]])  # behind the near half
    assert is_blocked(edge, np.zeros(3), near).all()
    moving = scene.dynamic.copy()
    moving[:, :, : depth.shape[2] // 2] = True
    assert not is_blocked(replace(edge, dynamic=moving), np.zeros(3), near).any()


def test_the_first_view_is_inside_where_walls_would_hide_everything() -> None:
    open_, closed = (scene_layout(room(near_wall=wall)) for wall in (False, True))
    assert open_.near is None
    assert closed.near is not None
    points = frame_points(room(near_wall=True), 0)
    view = closed.first_view(Window())
    assert is_blocked(room(near_wall=True), view.position, points).mean() < 0.2
    assert is_blocked(
        room(near_wall=True), replace(closed, near=None).first_view().position, points
    ).mean() > 1 / 3  # fmt: skip
    assert (view.look_at - view.position)[2] > 0
