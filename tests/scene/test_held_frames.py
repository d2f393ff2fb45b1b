"""Frames without texture in the timeline of a scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from dyn3r.geometry.rotations import rotvec_to_rotmat
from dyn3r.scene.held_frames import UNKNOWN_SIGMA, priors_of, with_held_frames
from dyn3r.types import Clip, Priors
from tests.factories import tiny_scene


def turned(degrees: float) -> np.ndarray:
    vector = torch.tensor([0.0, np.deg2rad(degrees), 0.0], dtype=torch.float64)
    return rotvec_to_rotmat(vector).numpy()


def clip_of(frames: int) -> Clip:
    scene = tiny_scene(frames)
    return Clip(scene.images, scene.mapping, scene.names, scene.times_s, "memory", 10.0)


def test_held_frames_are_empty_and_their_cameras_lie_between() -> None:
    T = np.tile(np.eye(4), (2, 1, 1))
    T[0, :3, :3], T[1, :3, :3] = turned(10), turned(40)
    T[0, :3, 3], T[1, :3, 3] = (0, 0, 0), (3, 0, -6)
    scene = tiny_scene(
        2, T_world_camera=T, frame_quality=np.array([0.7, 0.9]),
        sigma_log_depth=np.full((2, 32, 48), 0.1),
    )  # fmt: skip
    whole = with_held_frames(scene, clip_of(6), np.array([1, 4]), Priors())
    assert len(whole) == 6
    np.testing.assert_array_equal(whole.T_world_camera[[1, 4]], T)
    for frame, angle, centre in (
        (0, 10, (0, 0, 0)), (2, 20, (1, 0, -2)), (3, 30, (2, 0, -4)), (5, 40, (3, 0, -6)),
    ):  # fmt: skip
        np.testing.assert_allclose(whole.T_world_camera[frame, :3, :3], turned(angle), atol=1e-12)
        np.testing.assert_allclose(whole.T_world_camera[frame, :3, 3], centre, atol=1e-12)
    held = [0, 2, 3, 5]
    assert not whole.depth[held].any()
    assert not whole.confidence[held].any()
    assert not whole.dynamic[held].any()
    np.testing.assert_array_equal(whole.depth[[1, 4]], scene.depth)
    assert whole.frame_quality is not None
    assert whole.frame_quality.tolist() == [0, 0.7, 0, 0, 0.9, 0]
    assert whole.sigma_log_depth is not None
    assert (whole.sigma_log_depth[held] == UNKNOWN_SIGMA).all()
    assert len(whole.points(0).points_world) == 0


def test_known_cameras_of_held_frames_are_kept() -> None:
    T = np.tile(np.eye(4), (3, 1, 1))
    T[:, 0, 3] = (0, 7, 1)
    K = np.tile(np.diag([50.0, 50, 1]), (3, 1, 1))
    K[1, 0, 0] = 60
    priors = Priors(K=K, T_world_camera=T)
    kept = np.array([0, 2])
    scene = tiny_scene(2, T_world_camera=T[kept], K=K[kept])
    whole = with_held_frames(scene, clip_of(3), kept, priors)
    np.testing.assert_array_equal(whole.T_world_camera, T)
    np.testing.assert_array_equal(whole.K, K)
    started = with_held_frames(scene, clip_of(3), kept, replace(priors, fix_T=False))
    assert started.T_world_camera[1, 0, 3] == 0.5


def test_priors_of_some_frames() -> None:
    T = np.arange(3)[:, None, None] * np.ones((3, 4, 4))
    part = priors_of(Priors(T_world_camera=T, fix_T=False), np.array([0, 2]))
    assert part.T_world_camera is not None
    assert part.T_world_camera[:, 0, 0].tolist() == [0, 2]
    assert part.K is None
    assert not part.fix_T
