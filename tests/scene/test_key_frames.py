"""The last adjustment of key frames over a long clip whose windows are joined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dyn3r.bundle_adjustment.from_start import Correction
from dyn3r.evaluation.trajectory import trajectory_errors
from dyn3r.flow.dis import DisFlow
from dyn3r.geometry.registration import Similarity
from dyn3r.geometry.rotations import rotvec_to_rotmat
from dyn3r.scene import Scene
from dyn3r.scene.windows.join import moved
from dyn3r.scene.windows.key_frames import (
    corrected,
    key_frames,
    key_pairs,
    smooth_scales,
    with_key_frames_adjusted,
)
from dyn3r.types import Clip, RunContext
from tests.factories import tiny_scene

N, H, W, FOCAL = 16, 64, 96, 64.0
FAR, NEAR, STEP_PX = 8.0, 4.0, 2
"""Depths of a wall and of a board before it; the wall moves by so many pixels a frame."""


def correction(T: np.ndarray, log_scale: np.ndarray, **changes: object) -> Correction:
    """A correction without errors that is better than the start."""
    values = {
        "T_world_camera": T, "log_scale": log_scale, "scale_sigma": np.full(len(T), 1e-3),
        "log_focal": 0.0, "left_out_cost": (1.0, 0.0), "error": 0.0,
    }  # fmt: skip
    return Correction(**(values | changes))  # type: ignore[arg-type]


def clip_of(scene: Scene) -> Clip:
    return Clip(scene.images, scene.mapping, scene.names, scene.times_s, "made up", scene.fps)


@pytest.fixture(scope="module")
def truth() -> Scene:
    """A camera that moves right past a wall with a board before it."""
    import cv2

    def texture(seed: int, width: int) -> np.ndarray:
        cells = np.random.default_rng(seed).integers(
            0, 255, (H // 4, width // 4, 3), dtype=np.uint8
        )
        return cv2.resize(cells, (width, H), interpolation=cv2.INTER_CUBIC)

    wall, board = texture(1, W + N * STEP_PX + 8), texture(2, 64)
    images = np.empty((N, H, W, 3), np.uint8)
    depth = np.full((N, H, W), FAR, np.float32)
    for t in range(N):
        images[t] = wall[:, STEP_PX * t : STEP_PX * t + W]
        left = W - 40 - round(STEP_PX * FAR / NEAR) * t
        columns = np.arange(max(left, 0), min(left + 64, W))
        images[t][16:48, columns], depth[t, 16:48, columns] = board[16:48, columns - left], NEAR
    T = np.tile(np.eye(4), (N, 1, 1))
    T[:, 0, 3] = np.arange(N) * STEP_PX * FAR / FOCAL
    K = np.tile(np.array([[FOCAL, 0, W / 2], [0, FOCAL, H / 2], [0, 0, 1]]), (N, 1, 1))
    return tiny_scene(
        N, H, W, images=images, depth=depth, T_world_camera=T, K=K,
        confidence=np.ones((N, H, W)), dynamic=np.zeros((N, H, W), bool),
        frame_quality=np.full(N, 0.9),
    )  # fmt: skip


def drifted(truth: Scene, turn: float = 0.04, scale: float = 1.1) -> Scene:
    """Cameras that turn more and more, and whose unit grows, along the clip."""
    share = np.linspace(0, 1, N)
    axis = torch.tensor([0.3, 1.0, -0.2], dtype=torch.float64)
    R = rotvec_to_rotmat(torch.from_numpy(share)[:, None] * turn * axis).numpy()
    units = scale**share
    T = truth.T_world_camera.copy()
    T[:, :3, :3] = R
    T[1:, :3, 3] = np.cumsum(np.diff(truth.T_world_camera[:, :3, 3], axis=0) * units[1:, None], 0)
    return replace(
        truth, T_world_camera=T, depth=truth.depth * units[:, None, None].astype(np.float32)
    )


def test_drift_is_removed(truth: Scene) -> None:
    before = drifted(truth)
    after, about = with_key_frames_adjusted(before, clip_of(truth), DisFlow(), N, 0.0, RunContext())
    assert about["kept"]
    assert about["left_out_cost"][1] < about["left_out_cost"][0]
    errors = [trajectory_errors(s.T_world_camera, truth.T_world_camera) for s in (before, after)]
    assert errors[1].rotation_deg < 0.3 * errors[0].rotation_deg
    assert errors[1].ate_share < 0.3 * errors[0].ate_share
    units = [np.median(s.depth / truth.depth, axis=(1, 2)) for s in (before, after)]
    spread = [np.ptp(np.log(u)) for u in units]
    assert spread[1] < 0.5 * spread[0]
    np.testing.assert_array_equal(after.K, truth.K)  # the focal length is known
    np.testing.assert_array_equal(after.T_world_camera[0], before.T_world_camera[0])


def test_pictures_of_nothing_change_nothing(truth: Scene) -> None:
    noise = np.random.default_rng(0).integers(0, 255, truth.images.shape, dtype=np.uint8)
    scene = replace(truth, images=noise)
    found, about = with_key_frames_adjusted(scene, clip_of(scene), DisFlow(), N, 0.05, RunContext())
    assert found is scene
    assert not about["kept"]


@pytest.mark.parametrize("changes", [{"left_out_cost": (2.0, 3.0)}, {"error": 1.8}])
def test_a_correction_that_is_no_better_is_not_kept(
    truth: Scene, monkeypatch: pytest.MonkeyPatch, changes: dict
) -> None:
    worse = correction(truth.T_world_camera, np.ones(N), **changes)
    monkeypatch.setattr("dyn3r.scene.windows.key_frames.adjust_from_start", lambda *_, **__: worse)
    found, about = with_key_frames_adjusted(truth, clip_of(truth), DisFlow(), N, 0.05, RunContext())
    assert found is truth
    assert not about["kept"]


def test_a_few_frames_are_left_alone(truth: Scene) -> None:
    found, about = with_key_frames_adjusted(
        truth, clip_of(truth), DisFlow(), 10 * N, 0.0, RunContext()
    )
    assert about["frames"] < 4
    assert found is truth


def test_key_frames_overlap_and_leave_out_lost_frames(truth: Scene) -> None:
    assert key_frames(truth, 4).tolist() == [0, 4, 8, 12, 15]
    # the next one still sees three quarters: 96 of 128 columns of the wall, 64 of the board
    far = key_frames(truth, N)
    assert (np.diff(far) <= 12).all()
    assert far[0] == 0
    assert far[-1] == N - 1
    quality = np.full(N, 0.9)
    quality[[0, 4, 5, 6, 7, 8]] = 0
    lost = replace(truth, frame_quality=quality)
    keys = key_frames(lost, 4)
    assert (quality[keys] > 0).all()
    assert keys[0] == 1
    assert {3, 9} <= set(keys.tolist())
    nothing = replace(truth, frame_quality=np.zeros(N))
    assert len(key_frames(nothing, 4)) == 0
    assert len(key_pairs(nothing, key_frames(nothing, 4))) == 0


def test_pairs_are_of_neighbours_and_of_what_sees_the_same_place(truth: Scene) -> None:
    there_and_back = truth.T_world_camera.copy()
    there_and_back[:, 0, 3] = 5 * (N / 2 - np.abs(np.arange(N) - N / 2))
    pairs = key_pairs(replace(truth, T_world_camera=there_and_back), np.arange(N)).tolist()
    assert [0, 1] in pairs
    assert [0, 2] in pairs
    assert [1, N - 1] in pairs  # the same place, at the beginning and at the end
    assert [0, N // 2] not in pairs  # too far away


def test_all_frames_move_with_the_key_frames(truth: Scene) -> None:
    by = Similarity(
        torch.tensor(1.5, dtype=torch.float64),
        rotvec_to_rotmat(torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)),
        torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64),
    )
    keys, expected = np.array([2, 7, 12]), moved(truth.T_world_camera, by)
    change = correction(expected[keys], np.full(3, np.log(1.5)), log_focal=0.1)
    found = corrected(truth, keys, change)
    np.testing.assert_allclose(found.T_world_camera, expected, atol=1e-9)
    np.testing.assert_allclose(found.depth, 1.5 * truth.depth, rtol=1e-5)
    np.testing.assert_allclose(found.K[:, 0, 0], truth.K[:, 0, 0] * np.exp(0.1))
    np.testing.assert_array_equal(found.K[:, :2, 2], truth.K[:, :2, 2])


def test_scales_follow_drift_and_not_noise(truth: Scene) -> None:
    rng, n = np.random.default_rng(5), 60
    drift = np.linspace(0, 0.1, n)
    noisy = drift + rng.normal(0, 0.003, n)
    sigma = np.full(n, 0.003)
    sigma[10], noisy[10] = np.inf, 3.0  # no measurement
    T, apart = np.tile(np.eye(4), (n, 1, 1)), np.full(n - 1, 9)
    found = smooth_scales(correction(T, noisy, scale_sigma=sigma), apart)
    assert np.abs(found - drift)[5:-5].max() < 0.004
    assert np.abs(np.diff(found)).mean() < 0.7 * np.abs(np.diff(np.delete(noisy, 10))).mean()
    unknown = correction(T, noisy, scale_sigma=np.full(n, np.inf))
    assert not smooth_scales(unknown, apart).any()
