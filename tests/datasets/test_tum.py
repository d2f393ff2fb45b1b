"""TUM RGB-D: association in time, the prepared layouts, half-unpacked and foreign folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dyn3r.datasets.trajectories import associate, named_stream, nearest
from dyn3r.datasets.tum import sequences
from dyn3r.errors import InputError
from tests.datasets.plane_world import (
    PlaneWorld,
    numbers,
    plane_world,
    reprojection_error_px,
    save_png,
    save_text,
)

K_FR3 = np.array([[535.4, 0, 320.1], [0, 539.2, 247.6], [0, 0, 1]])
NAME = "rgbd_dataset_freiburg3_walking_xyz"
START = 1341846313.0
TIMES = START + np.array([0.5, 0.6, 0.7, 0.8, 0.9])
LOST, COMPETING = START + 1.5, START + 0.9006
"""A picture without a pose within 0.02 s, and one that wants the last pose like picture 4."""
UNKNOWN = (slice(2, 5), 7)
"""Pixels whose depth is 0."""


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    return plane_world(5, K_FR3)


@pytest.fixture
def root(world: PlaneWorld, tmp_path: Path) -> Path:
    write_raw(tmp_path / NAME, world, world.T_world_camera)
    return tmp_path


def write_raw(folder: Path, world: PlaneWorld, T: np.ndarray) -> None:
    """A raw recording: truth at 100 Hz, depth 4 ms late, two pictures that get no pose."""
    index = {"rgb": [], "depth": []}
    times = [*TIMES, COMPETING, LOST]
    for i, time in enumerate(times):
        frame = min(i, 4)
        save_png(folder / f"rgb/{time:.6f}.png", world.images[frame])
        save_png(folder / f"depth/{time + 0.004:.6f}.png", depth_picture(world, frame))
        index["rgb"].append(f"{time:.6f} rgb/{time:.6f}.png")
        index["depth"].append(f"{time + 0.004:.6f} depth/{time + 0.004:.6f}.png")
    for kind, lines in index.items():
        save_text(folder / f"{kind}.txt", "# colour images", "# timestamp filename", *lines)
    save_text(folder / "groundtruth.txt", "# ground truth trajectory", *truth_lines(T))


def truth_lines(T: np.ndarray) -> list[str]:
    """Poses at 100 Hz, wrong but at the pictures; one is lost before the last, none follows it."""
    lines = []
    for step in (*range(45, 89), 90):
        i = step // 10 - 5
        exact = step % 10 == 0
        lines.append(pose_line(START + step / 100, T[i] if exact else np.diag([1.0, -1, -1, 1])))
    return lines


def pose_line(time: float, T: np.ndarray) -> str:
    return f"{time:.6f} {numbers(T[:3, 3])} {numbers(Rotation.from_matrix(T[:3, :3]).as_quat())}"


def depth_picture(world: PlaneWorld, frame: int) -> np.ndarray:
    picture = np.round(world.depth[frame] * 5000).astype(np.uint16)
    picture[UNKNOWN] = 0
    return picture


def test_truth_is_the_closed_form(root: Path, world: PlaneWorld) -> None:
    (sequence,) = sequences(root)
    assert sequence.name == NAME
    assert sequence.frame_names == tuple(f"{time:.6f}" for time in TIMES)
    assert sequence.notes == ("2 of 7 pictures have no pose and were dropped",)
    np.testing.assert_allclose(sequence.times_s, TIMES, atol=1e-6)
    np.testing.assert_allclose(sequence.K, np.tile(K_FR3, (5, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(sequence.T_world_camera, world.T_world_camera, atol=1e-6)
    known = np.ones((48, 64), bool)
    known[UNKNOWN] = False
    for i in range(5):
        np.testing.assert_array_equal(sequence.image(i), world.images[i])
        np.testing.assert_array_equal(sequence.depth(i) > 0, known)
        np.testing.assert_allclose(sequence.depth(i)[known], world.depth[i][known], atol=1.01e-4)
    assert reprojection_error_px(sequence, world) < 0.05


def test_the_recording_itself_is_a_root_and_strays_are_left_out(root: Path) -> None:
    (root / "figures").mkdir()
    assert [s.name for s in sequences(root)] == [s.name for s in sequences(root / NAME)] == [NAME]


def test_picture_without_depth_in_time_has_it_unknown(root: Path) -> None:
    index = root / NAME / "depth.txt"
    index.write_text(
        "\n".join(line for line in index.read_text().splitlines() if ".504" not in line)
    )
    (sequence,) = sequences(root)
    assert sequence.depth(0).shape == (48, 64)
    assert not sequence.depth(0).any()
    assert sequence.depth(1).any()
    assert sequence.notes[-1] == "1 of 5 pictures have no depth within 0.02 s"


def test_other_cameras_have_no_K(root: Path) -> None:
    (root / NAME).rename(root / "rgbd_dataset_freiburg1_xyz")
    (sequence,) = sequences(root)
    assert sequence.K is None
    assert "freiburg3" in sequence.notes[-1]


def test_association_takes_pairs_by_their_difference() -> None:
    first, second = np.array([3.0, 1.0, 1.01]), np.array([1.012, 3.015, 5.0])
    np.testing.assert_array_equal(associate(first, second), [[2, 0], [0, 1]])
    both = associate(np.array([1.0, 1.01]), np.array([1.008, 0.985]))
    np.testing.assert_array_equal(both, [[0, 1], [1, 0]])
    assert associate(np.array([1.0]), np.array([1.25]), 0.25).shape == (0, 2)  # strictly below
    np.testing.assert_array_equal(associate(np.array([1.0]), np.array([1.25]), 0.26), [[0, 0]])


def test_nearest_has_no_partner_beyond_the_limit() -> None:
    index = nearest(np.array([1.0, 2.0, 3.0]), np.array([3.001, 0.99, 2.02]))
    np.testing.assert_array_equal(index, [1, -1, 0])


def test_names_of_other_lengths_are_in_order_of_time(world: PlaneWorld, tmp_path: Path) -> None:
    for name in ("10.88633", "10.953", "9.5"):
        save_png(tmp_path / f"{name}.png", world.images[0])
    np.testing.assert_array_equal(named_stream(tmp_path).times_s, [9.5, 10.88633, 10.953])


@pytest.mark.parametrize("suffix", ["90", "all_stride30"])
def test_prepared_layouts(suffix: str, world: PlaneWorld, tmp_path: Path) -> None:
    folder = tmp_path / NAME
    for i, time in enumerate(TIMES):
        save_png(folder / f"rgb_{suffix}/{time:.6f}.png", world.images[i])
        if suffix != "90":
            picture = depth_picture(world, i)
            save_png(folder / f"depth_{suffix}/{time + 0.004:.6f}.png", picture)
    lines = [pose_line(t + 0.003, T) for t, T in zip(TIMES, world.T_world_camera)]
    save_text(folder / f"groundtruth_{suffix}.txt", *lines)
    (sequence,) = sequences(tmp_path)
    assert (sequence.depth is None) == (suffix == "90")
    np.testing.assert_allclose(sequence.T_world_camera, world.T_world_camera, atol=1e-6)
    assert reprojection_error_px(sequence, world) < 0.05

    save_text(folder / f"groundtruth_{suffix}.txt", *lines[:4])
    with pytest.raises(InputError, match=r"expected a pose for each of 5 pictures .* found 4"):
        sequences(tmp_path)
    save_text(folder / f"groundtruth_{suffix}.txt", *lines[1:], lines[-1])
    with pytest.raises(InputError, match=r"expected stamps within 0.02 s .* found 0.103 s"):
        sequences(tmp_path)
    (folder / f"groundtruth_{suffix}.txt").unlink()
    with pytest.raises(InputError, match="does not exist"):
        sequences(tmp_path)


def test_raw_is_preferred_to_prepared(root: Path, world: PlaneWorld) -> None:
    save_png(root / NAME / "rgb_90" / f"{TIMES[0]:.6f}.png", world.images[0])
    save_text(root / NAME / "groundtruth_90.txt", pose_line(TIMES[0], np.eye(4)))
    assert len(sequences(root)[0]) == 5
    (root / NAME / "groundtruth.txt").unlink()
    assert len(sequences(root)[0]) == 1


def test_bad_roots_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"expected SEQUENCE/rgb.txt .* found no such folder"):
        sequences(root / "nowhere")
    (root / "other/JPEGImages").mkdir(parents=True)
    with pytest.raises(InputError, match=r"is not TUM RGB-D: .* found JPEGImages"):
        sequences(root / "other")
    shutil.copytree(root / NAME, root / "other/rgbd_bonn_balloon")
    with pytest.raises(InputError, match="that of a recording of Bonn"):
        sequences(root / "other")


def test_half_unpacked_recordings_are_refused(root: Path) -> None:
    folder = root / NAME
    (folder / f"rgb/{TIMES[1]:.6f}.png").unlink()
    with pytest.raises(InputError, match=r"lists 7 pictures, expected all of them in .* found 6"):
        sequences(root)
    (folder / "groundtruth.txt").unlink()
    (folder / "rgb.txt").unlink()
    with pytest.raises(InputError, match=r"has no rgb.txt, found depth, depth.txt, rgb"):
        sequences(root)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("rgb.txt", "1.0", "expected lines of a stamp and a file, found '1.0'"),
        ("rgb.txt", "nan rgb/a.png", "expected lines of a stamp and a file, found 'nan"),
        ("groundtruth.txt", "1 2 3", "expected 8 numbers"),
        ("groundtruth.txt", "1 nan 0 0 0 0 0 1", "expected finite numbers"),
        ("groundtruth.txt", "1 0 0 0 0 0 0 0", "quaternion of length 0"),
        ("groundtruth.txt", "5 0 0 0 0 0 0 1", "none of 7 pictures has a pose within 0.02 s"),
    ],
)
def test_damaged_lists_are_refused(root: Path, name: str, line: str, message: str) -> None:
    save_text(root / NAME / name, line)
    with pytest.raises(InputError, match=message):
        sequences(root)
