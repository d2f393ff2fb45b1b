"""KITTI depth (raw and gathered) and odometry: closed-form truth and folders that do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dyn3r.datasets import kitti, kitti_odometry
from dyn3r.errors import InputError
from tests.datasets.plane_world import (
    PlaneWorld,
    numbers,
    plane_world,
    reprojection_error_px,
    save_png,
    save_text,
)

DRIVE = "2011_09_26_drive_0002_sync"
TRUTH = f"val/{DRIVE}/proj_depth/groundtruth/image_02"
PICTURES = f"2011_09_26/{DRIVE}/image_02/data"
GATHERED = "depth_selection/val_selection_cropped"
BASELINE = np.array([0.06, 0.001, 0.003])
"""What is added to a point of camera 0 to have it in camera 2."""


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    return plane_world(5)


def sparse(world: PlaneWorld, frame: int) -> np.ndarray:
    """Depth x 256 at every third pixel of every second row."""
    picture = np.zeros((48, 64), np.uint16)
    picture[1::2, ::3] = np.round(world.depth[frame][1::2, ::3] * 256)
    return picture


def write_depth(root: Path, truth: str, pictures: str, world: PlaneWorld) -> None:
    """Frames 5 to 9 of a raw drive, and a depth map 10 without a picture."""
    for i in range(5):
        save_png(root / truth / f"{i + 5:010d}.png", sparse(world, i))
        save_png(root / pictures / f"{i + 5:010d}.png", world.images[i])
    save_png(root / truth / f"{10:010d}.png", sparse(world, 4))


@pytest.fixture
def raw(world: PlaneWorld, tmp_path: Path) -> Path:
    write_depth(tmp_path, TRUTH, PICTURES, world)
    save_png(tmp_path / PICTURES / f"{0:010d}.png", world.images[0])
    return tmp_path


@pytest.fixture
def gathered(world: PlaneWorld, tmp_path: Path) -> Path:
    truth, pictures = (
        f"{GATHERED}/{k}_gathered/{DRIVE}_02" for k in ("groundtruth_depth", "image")
    )
    write_depth(tmp_path, truth, pictures, world)
    return tmp_path


@pytest.mark.parametrize("layout", ["raw", "gathered"])
def test_depth_is_the_closed_form(
    layout: str, world: PlaneWorld, request: pytest.FixtureRequest
) -> None:
    (sequence,) = kitti.sequences(request.getfixturevalue(layout))
    assert (sequence.name, sequence.fps) == (f"{DRIVE}_02", 10)
    assert sequence.frame_names == tuple(f"{i:010d}" for i in range(5, 10))
    assert sequence.notes == ("1 of 6 depth maps have no picture",)
    assert sequence.K is None
    for i in range(5):
        known = np.zeros((48, 64), bool)
        known[1::2, ::3] = True
        np.testing.assert_array_equal(sequence.image(i), world.images[i])
        np.testing.assert_array_equal(sequence.depth(i) > 0, known)
        np.testing.assert_allclose(sequence.depth(i)[known], world.depth[i][known], atol=2e-3)
    assert reprojection_error_px(sequence, world) < 0.05


def test_calibration_is_read_where_it_is(raw: Path, world: PlaneWorld) -> None:
    P = np.column_stack([world.K, [44.0, 0.2, 0.003]])
    lines = ("calib_time: 09-Jan-2012", f"P_rect_02: {numbers(P)}", "P_rect_03: 1 2 3")
    save_text(raw / "2011_09_26/calib_cam_to_cam.txt", *lines)
    (sequence,) = kitti.sequences(raw)
    np.testing.assert_allclose(sequence.K, np.tile(world.K, (5, 1, 1)), atol=1e-6)


@pytest.mark.parametrize("below", ["", "depth_selection", GATHERED])
def test_gathered_roots(below: str, gathered: Path) -> None:
    assert [s.name for s in kitti.sequences(gathered / below)] == [f"{DRIVE}_02"]


def test_raw_is_preferred_if_it_has_pictures(raw: Path, world: PlaneWorld) -> None:
    truth, pictures = (f"{GATHERED}/{k}_gathered/OTHER_02" for k in ("groundtruth_depth", "image"))
    write_depth(raw, truth, pictures, world)
    assert [s.name for s in kitti.sequences(raw)] == [f"{DRIVE}_02"]
    shutil.rmtree(raw / "2011_09_26")
    assert [s.name for s in kitti.sequences(raw)] == ["OTHER_02"]


def test_bad_depth_roots_are_refused(raw: Path) -> None:
    with pytest.raises(InputError, match=r"is not KITTI depth: .* found no such folder"):
        kitti.sequences(raw / "nowhere")
    with pytest.raises(InputError, match=r"is not KITTI depth: .* found 2011_09_26_drive"):
        kitti.sequences(raw / "val")
    for file in (raw / PICTURES).iterdir():
        file.rename(file.with_name("x" + file.name))
    with pytest.raises(InputError, match=r"expected pictures named as the 6 files .* found x0000"):
        kitti.sequences(raw)
    shutil.rmtree(raw / "2011_09_26")
    with pytest.raises(InputError, match=r"has depth without pictures: expected .*image_02/data"):
        kitti.sequences(raw)


def test_8_bit_depth_is_refused(raw: Path) -> None:
    save_png(raw / TRUTH / f"{5:010d}.png", np.ones((48, 64), np.uint8))
    with pytest.raises(InputError, match="mode L, expected 16-bit depth"):
        kitti.sequences(raw)[0].depth(0)


@pytest.fixture
def odometry(world: PlaneWorld, tmp_path: Path) -> Path:
    """Drive 04 in colour, whose camera is beside camera 0."""
    folder = tmp_path / "sequences/04"
    for i in range(5):
        save_png(folder / f"image_2/{i:06d}.png", world.images[i])
    P0 = np.column_stack([world.K, np.zeros(3)])
    P2 = np.column_stack([world.K, world.K @ BASELINE])
    save_text(folder / "calib.txt", *(f"P{c}: {numbers(P0 if c < 2 else P2)}" for c in range(4)))
    save_text(folder / "times.txt", *(f"{0.1 * i:.6e}" for i in range(5)))
    offset = np.eye(4)
    offset[:3, 3] = BASELINE
    T_world_camera0 = world.T_world_camera @ offset
    save_text(tmp_path / "poses/04.txt", *(numbers(T[:3]) for T in T_world_camera0))
    return tmp_path


def test_odometry_is_the_closed_form(odometry: Path, world: PlaneWorld) -> None:
    (sequence,) = kitti_odometry.sequences(odometry)
    assert (sequence.name, sequence.frame_names[0]) == ("04", "000000")
    np.testing.assert_allclose(sequence.K, np.tile(world.K, (5, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(sequence.T_world_camera, world.T_world_camera, atol=1e-6)
    np.testing.assert_allclose(sequence.times_s, 0.1 * np.arange(5), atol=1e-6)
    np.testing.assert_array_equal(sequence.image(3), world.images[3])
    assert reprojection_error_px(sequence, world) < 0.05


def test_grey_pictures_have_the_poses_of_the_file(odometry: Path) -> None:
    (odometry / "sequences/04/image_2").rename(odometry / "sequences/04/image_0")
    (sequence,) = kitti_odometry.sequences(odometry)
    stored = np.loadtxt(odometry / "poses/04.txt").reshape(-1, 3, 4)
    np.testing.assert_allclose(sequence.T_world_camera[:, :3], stored, atol=1e-6)


def test_odometry_without_poses_and_times(odometry: Path) -> None:
    (odometry / "sequences/04/times.txt").unlink()
    shutil.rmtree(odometry / "poses")
    (sequence,) = kitti_odometry.sequences(odometry)
    assert sequence.T_world_camera is None
    assert sequence.times_s is None


def test_bad_odometry_roots_are_refused(odometry: Path) -> None:
    with pytest.raises(InputError, match=r"is not KITTI odometry: .* found no such folder"):
        kitti_odometry.sequences(odometry / "nowhere")
    (odometry / "sequences/04/image_2/000004.png").unlink()
    with pytest.raises(InputError, match=r"times.txt: expected 4 rows, one a picture, found 5"):
        kitti_odometry.sequences(odometry)
    shutil.rmtree(odometry / "sequences/04/image_2")
    with pytest.raises(InputError, match=r"expected image_2 or image_0, found calib.txt, times"):
        kitti_odometry.sequences(odometry)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("P0: 1 2 3", "expected a line 'P2: ' with 12 numbers, found none"),
        ("P2: 1 2 3", "expected 12 numbers after 'P2:', found ' 1 2 3'"),
        ("P2: " + "0 " * 12, "expected 12 numbers after 'P2:'"),
    ],
)
def test_damaged_calibration_is_refused(odometry: Path, line: str, message: str) -> None:
    save_text(odometry / "sequences/04/calib.txt", line)
    with pytest.raises(InputError, match=message):
        kitti_odometry.sequences(odometry)
