"""Trajectory metrics: golden values, invariances, degenerate trajectories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dyn3r.errors import InputError
from dyn3r.evaluation.trajectory import rotation_angle_deg, trajectory_errors, umeyama

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "misc_metrics.npz")


def transforms(xyz_wxyz: np.ndarray) -> np.ndarray:
    T = np.tile(np.eye(4), (len(xyz_wxyz), 1, 1))
    T[:, :3, :3] = Rotation.from_quat(xyz_wxyz[:, [4, 5, 6, 3]]).as_matrix()
    T[:, :3, 3] = xyz_wxyz[:, :3]
    return T


TRUTH = transforms(GOLDEN["traj__gt_xyz_wxyz"])
ESTIMATE = transforms(GOLDEN["traj__est_xyz_wxyz"])


def test_golden_trajectory() -> None:
    errors = trajectory_errors(ESTIMATE, TRUTH)
    measured = [errors.ate, errors.rpe_translation, errors.rpe_rotation_deg]
    np.testing.assert_allclose(measured, GOLDEN["traj__ate_rpet_rper"], rtol=1e-9)
    steps = np.diff(GOLDEN["traj__gt_xyz_wxyz"][:, :3], axis=0)
    assert errors.path_length == pytest.approx(sum(np.sqrt((s**2).sum()) for s in steps))
    assert errors.ate_share == pytest.approx(errors.ate / errors.path_length)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scale=st.floats(0.01, 100),
)
def test_nothing_depends_on_the_world_frame_or_scale_of_the_estimate(
    seed: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    world = np.eye(4)
    world[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    world[:3, 3] = rng.normal(size=3)
    moved = world @ ESTIMATE
    moved[:, :3, 3] *= scale
    before, after = trajectory_errors(ESTIMATE, TRUTH), trajectory_errors(moved, TRUTH)
    assert after.scale == pytest.approx(before.scale / scale)
    for name in ("ate", "ate_share", "rpe_translation", "rpe_rotation_deg", "rotation_deg"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-6)


def test_the_true_trajectory_has_no_error() -> None:
    errors = trajectory_errors(TRUTH, TRUTH)
    assert max(errors.ate, errors.rpe_translation, errors.rpe_rotation_deg) < 1e-9
    assert errors.rotation_deg < 1e-9
    assert errors.scale == pytest.approx(1)


def test_known_rotation_errors() -> None:
    """Every second camera is rotated by 3 degrees: RPE 3, after alignment 1.5 on average."""
    turned = TRUTH.copy()
    turn = Rotation.from_euler("y", 3, degrees=True).as_matrix()
    turned[1::2, :3, :3] = turned[1::2, :3, :3] @ turn
    errors = trajectory_errors(turned, TRUTH)
    assert errors.rpe_rotation_deg == pytest.approx(3, rel=1e-6)
    assert errors.ate < 1e-9
    same_axis = np.tile(np.eye(4), (20, 1, 1))
    same_axis[1::2, :3, :3] = turn
    static = trajectory_errors(same_axis, np.tile(np.eye(4), (20, 1, 1)))
    assert static.rotation_deg == pytest.approx(1.5, rel=1e-6)


def test_umeyama_finds_a_known_similarity_and_never_a_mirror() -> None:
    rng = np.random.default_rng(3)
    source = rng.normal(size=(30, 3))
    rotation = Rotation.random(random_state=3).as_matrix()
    found = umeyama(source, 2.5 * source @ rotation.T + [1, 2, 3])
    assert found.scale == pytest.approx(2.5)
    np.testing.assert_allclose(found.R, rotation, atol=1e-12)
    np.testing.assert_allclose(found.t, [1, 2, 3], atol=1e-12)
    mirrored = umeyama(source, source * [1, 1, -1])
    assert np.linalg.det(mirrored.R) == pytest.approx(1)
    # No small change of the similarity lowers its residual.
    best = residual(mirrored.scale, mirrored.R, mirrored.t, source)
    for seed in range(20):
        nudge = Rotation.from_rotvec(0.01 * np.random.default_rng(seed).normal(size=3)).as_matrix()
        assert residual(mirrored.scale, nudge @ mirrored.R, mirrored.t, source) > best
    assert residual(mirrored.scale * 1.01, mirrored.R, mirrored.t, source) > best


def residual(scale: float, rotation: np.ndarray, shift: np.ndarray, source: np.ndarray) -> float:
    return float(((scale * source @ rotation.T + shift - source * [1, 1, -1]) ** 2).sum())


def test_the_ate_of_a_static_estimate_is_the_spread_of_the_trajectory() -> None:
    static = np.tile(np.eye(4), (20, 1, 1))
    centres = TRUTH[:, :3, 3]
    spread = np.sqrt(((centres - centres.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert trajectory_errors(static, TRUTH).ate == pytest.approx(spread)


def test_pure_rotation_has_no_translation_error() -> None:
    turning = TRUTH.copy()
    turning[:, :3, 3] = [4.0, 5.0, 6.0]
    errors = trajectory_errors(ESTIMATE, turning)
    assert np.isnan([errors.ate, errors.ate_share, errors.rpe_translation]).all()
    assert errors.rpe_rotation_deg == pytest.approx(GOLDEN["traj__ate_rpet_rper"][2])


def test_one_frame() -> None:
    errors = trajectory_errors(ESTIMATE[:1], TRUTH[:1])
    assert np.isnan(errors.rpe_rotation_deg)
    assert errors.rotation_deg == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 0.01, 90, 179.9999, 180])
def test_rotation_angles(angle: float) -> None:
    R = Rotation.from_rotvec(np.radians(angle) * np.array([0.6, 0, -0.8])).as_matrix()
    assert rotation_angle_deg(R[None])[0] == pytest.approx(angle, rel=1e-6, abs=1e-12)


def test_trajectories_of_different_lengths() -> None:
    with pytest.raises(InputError, match="camera trajectories"):
        trajectory_errors(ESTIMATE[:5], TRUTH)


def test_evo_agrees() -> None:
    pytest.importorskip("evo")
    from evo.core import metrics, trajectory

    def path(T: np.ndarray) -> trajectory.PoseTrajectory3D:
        return trajectory.PoseTrajectory3D(
            poses_se3=list(T), timestamps=np.arange(len(T), dtype=float)
        )

    rng = np.random.default_rng(0)
    noisy = TRUTH.copy()
    noisy[:, :3, 3] += 0.1 * rng.normal(size=(len(TRUTH), 3))
    truth, estimate = path(TRUTH), path(noisy)
    estimate.align(truth, correct_scale=True)
    ape = metrics.APE(metrics.PoseRelation.translation_part)
    ape.process_data((truth, estimate))
    expected = ape.get_statistic(metrics.StatisticsType.rmse)
    errors = trajectory_errors(noisy, TRUTH)
    assert errors.ate == pytest.approx(expected)
    for relation, ours in (
        (metrics.PoseRelation.translation_part, errors.rpe_translation),
        (metrics.PoseRelation.rotation_angle_deg, errors.rpe_rotation_deg),
    ):
        rpe = metrics.RPE(relation, delta=1, delta_unit=metrics.Unit.frames, all_pairs=True)
        rpe.process_data((truth, estimate))
        assert rpe.get_statistic(metrics.StatisticsType.rmse) == pytest.approx(ours, abs=1e-9)
