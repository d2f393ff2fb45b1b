"""Poses that the readers give, and the errors of a path, are those of evo on the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("evo")

from evo.core import metrics, sync
from evo.core.trajectory import PosePath3D, PoseTrajectory3D
from evo.tools import file_interface

from dyn3r.datasets import kitti_odometry, sintel, tum
from dyn3r.evaluation.trajectory import trajectory_errors
from tests.datasets import test_kitti, test_sintel, test_tum
from tests.datasets.plane_world import plane_world

WORLD = plane_world(5)


def noisy(T: np.ndarray) -> np.ndarray:
    """An estimate of a path."""
    out = T.copy()
    out[:, :3, 3] += 0.02 * np.random.default_rng(0).normal(size=(len(T), 3))
    return out


def agree(truth: PosePath3D, T_world_camera: np.ndarray) -> None:
    """evo's errors against its own reading of the truth are ours against the reader's."""
    estimate = noisy(T_world_camera)
    path = PosePath3D(poses_se3=list(estimate))
    path.align(truth, correct_scale=True)
    ape = metrics.APE(metrics.PoseRelation.translation_part)
    ape.process_data((truth, path))
    rpe = metrics.RPE(metrics.PoseRelation.rotation_angle_deg, all_pairs=True)
    rpe.process_data((truth, path))
    ours = trajectory_errors(estimate, T_world_camera)
    assert ours.ate > 0.005
    rmse = metrics.StatisticsType.rmse
    assert ape.get_statistic(rmse) == pytest.approx(ours.ate, rel=1e-4)
    assert rpe.get_statistic(rmse) == pytest.approx(ours.rpe_rotation_deg, abs=1e-4)


def test_tum_trajectory(tmp_path: Path) -> None:
    world = plane_world(5, test_tum.K_FR3)
    test_tum.write_raw(tmp_path / test_tum.NAME, world, world.T_world_camera)
    (sequence,) = tum.sequences(tmp_path)
    file = str(tmp_path / test_tum.NAME / "groundtruth.txt")
    frames = PoseTrajectory3D(poses_se3=[np.eye(4)] * len(sequence), timestamps=sequence.times_s)
    truth, _ = sync.associate_trajectories(file_interface.read_tum_trajectory_file(file), frames)
    np.testing.assert_allclose(truth.poses_se3, sequence.T_world_camera, atol=1e-6)
    agree(truth, sequence.T_world_camera)


def test_kitti_poses(tmp_path: Path) -> None:
    odometry = test_kitti.odometry.__wrapped__(WORLD, tmp_path)
    (odometry / "sequences/04/image_2").rename(odometry / "sequences/04/image_0")
    (sequence,) = kitti_odometry.sequences(odometry)
    truth = file_interface.read_kitti_poses_file(str(odometry / "poses/04.txt"))
    np.testing.assert_allclose(truth.poses_se3, sequence.T_world_camera, atol=1e-6)
    agree(truth, sequence.T_world_camera)


def test_sintel_cameras(tmp_path: Path) -> None:
    test_sintel.write_sequence(tmp_path / "training", "alley_1", WORLD)
    (sequence,) = sintel.sequences(tmp_path)
    n = len(sequence)
    agree(PosePath3D(poses_se3=list(WORLD.T_world_camera[:n])), sequence.T_world_camera)
