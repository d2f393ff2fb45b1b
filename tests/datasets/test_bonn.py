"""Bonn RGB-D Dynamic: marker poses become camera poses, depth by time, foreign folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dyn3r.datasets.bonn import sequences
from dyn3r.errors import InputError
from tests.datasets.plane_world import PlaneWorld, plane_world, reprojection_error_px, save_png
from tests.datasets.test_tum import TIMES, depth_picture, pose_line, save_text, write_raw

K_BONN = np.array([[542.822841, 0, 315.593520], [0, 542.576870, 237.756098], [0, 0, 1]])
B_ROTATION = [[1.0157, 0.1828, -0.2389], [0.0009, -0.8431, -0.6413], [-0.3009, 0.6147, -0.8085]]
B_SHIFT = [0.0113, -0.0098, 0.0111]


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    return plane_world(5, K_BONN)


def marker_poses(T_world_camera: np.ndarray) -> np.ndarray:
    """Poses T with A T A B = the camera's."""
    A, B = np.eye(4), np.eye(4)
    A[:3, :3] = [[-1, 0, 0], [0, 0, 1], [0, 1, 0]]
    B[:3, :3] = Rotation.from_matrix(np.array(B_ROTATION) / 1.0593).as_matrix()
    B[:3, 3] = B_SHIFT
    return A @ T_world_camera @ np.linalg.inv(B) @ A


@pytest.fixture
def root(world: PlaneWorld, tmp_path: Path) -> Path:
    folder = tmp_path / "rgbd_bonn_dataset/rgbd_bonn_balloon2"
    write_raw(folder, world, marker_poses(world.T_world_camera))
    return tmp_path


def test_truth_is_the_closed_form(root: Path, world: PlaneWorld) -> None:
    (sequence,) = sequences(root)
    assert sequence.name == "balloon2"
    assert sequence.notes == ("2 of 7 pictures have no pose and were dropped",)
    np.testing.assert_allclose(sequence.K, np.tile(K_BONN, (5, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(sequence.T_world_camera, world.T_world_camera, atol=1e-6)
    for i in range(5):
        np.testing.assert_array_equal(sequence.image(i), world.images[i])
        known = depth_picture(world, i) > 0
        np.testing.assert_array_equal(sequence.depth(i) > 0, known)
        np.testing.assert_allclose(sequence.depth(i)[known], world.depth[i][known], atol=1.01e-4)
    assert reprojection_error_px(sequence, world) < 0.05


def test_one_recording_is_a_root(root: Path) -> None:
    (sequence,) = sequences(root / "rgbd_bonn_dataset/rgbd_bonn_balloon2")
    assert sequence.name == "balloon2"


def test_prepared_pairs_by_time_and_not_by_position(world: PlaneWorld, tmp_path: Path) -> None:
    """Depth starts one picture early; only picture 2 has a pose; stamps have 5 digits or fewer."""
    folder = tmp_path / "rgbd_bonn_crowd2"
    for i, time in enumerate(TIMES):
        save_png(folder / f"rgb_110/{time:.5f}.png", world.images[i])
        depth_time = round(time - 0.096, 5)
        save_png(folder / f"depth_110/{depth_time}.png", depth_picture(world, max(i - 1, 0)))
    T = marker_poses(world.T_world_camera[2:3])[0]
    save_text(folder / "groundtruth_110.txt", pose_line(TIMES[2] + 0.001, T))
    (sequence,) = sequences(tmp_path)
    assert sequence.notes == (
        "4 of 5 pictures have no pose within 0.02 s",
        "5 of 5 pictures have another depth than that of their position",
        "1 of 5 pictures have no depth within 0.02 s",
    )
    poses = sequence.T_world_camera
    np.testing.assert_allclose(poses[2], world.T_world_camera[2], atol=1e-6)
    np.testing.assert_array_equal(np.isnan(poses).all(axis=(1, 2)), [True, True, False, True, True])
    for i in range(4):
        known = depth_picture(world, i) > 0
        np.testing.assert_allclose(sequence.depth(i)[known], world.depth[i][known], atol=1.01e-4)
    assert not sequence.depth(4).any()

    save_text(folder / "groundtruth_110.txt", pose_line(TIMES[2] + 9, T))
    assert sequences(tmp_path)[0].T_world_camera is None


def test_bad_roots_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"expected rgbd_bonn_SEQUENCE.* found no such folder"):
        sequences(root / "nowhere")
    folder = root / "rgbd_bonn_dataset/rgbd_bonn_balloon2"
    shutil.copytree(folder, root / "tum/rgbd_dataset_freiburg3_walking_xyz")
    with pytest.raises(InputError, match=r"is not Bonn .* found rgbd_dataset_freiburg3"):
        sequences(root / "tum")
    shutil.rmtree(folder / "depth")
    with pytest.raises(InputError, match=r"lists 7 pictures, expected all of them in .* found 0"):
        sequences(root)


def test_prepared_without_depth_is_refused(world: PlaneWorld, tmp_path: Path) -> None:
    folder = tmp_path / "rgbd_bonn_crowd2"
    save_png(folder / "rgb_110/1.5.png", world.images[0])
    with pytest.raises(InputError, match=r"depth_110 does not exist"):
        sequences(tmp_path)
    save_png(folder / "depth_110/first.png", depth_picture(world, 0))
    with pytest.raises(InputError, match=r"named by seconds, found first.png"):
        sequences(tmp_path)
