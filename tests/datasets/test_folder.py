"""Truth folders: everything or a part of the truth, one folder or many, arrays that don't fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dyn3r.datasets.folder import sequences, truth_folders, write_truth_folder
from dyn3r.errors import InputError, OutputError
from tests.datasets.plane_world import PlaneWorld, plane_world, reprojection_error_px, save_png


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    return plane_world(3)


def write(folder: Path, world: PlaneWorld, *truths: str) -> Path:
    for i, image in enumerate(world.images):
        save_png(folder / f"frames/frame_{i + 8}.png", image)  # 10 is after 9, not before 8
    if "camera" in truths:
        np.savez(folder / "camera.npz", cam2world=world.T_world_camera, K=world.K)
    if "depth" in truths:
        np.savez(folder / "depth.npz", depth=world.depth)
    if "dynamic" in truths:
        np.savez(folder / "dynamic.npz", mask=world.moving)
    return folder


def test_all_of_the_truth(world: PlaneWorld, tmp_path: Path) -> None:
    (sequence,) = sequences(write(tmp_path / "mine", world, "camera", "depth", "dynamic"))
    assert sequence.name == "mine"
    assert sequence.frame_names == ("frame_8", "frame_9", "frame_10")
    assert sequence.K.shape == (3, 3, 3)
    for i in range(3):
        np.testing.assert_array_equal(sequence.image(i), world.images[i])
        np.testing.assert_array_equal(sequence.mask(i), world.moving[i])
        assert sequence.depth(i).dtype == np.float32
    assert reprojection_error_px(sequence, world) < 0.01


def test_what_is_written_is_read(world: PlaneWorld, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "mine"
    truth = {
        "T_world_camera": world.T_world_camera, "K": world.K, "depth": world.depth,
        "dynamic": world.moving,
    }  # fmt: skip
    write_truth_folder(folder, world.images, **truth)
    assert truth_folders(folder) == truth_folders(folder.parent) == [folder]
    (sequence,) = sequences(folder)
    assert sequence.frame_names == ("00000", "00001", "00002")
    for i in range(3):
        np.testing.assert_array_equal(sequence.image(i), world.images[i])
        np.testing.assert_array_equal(sequence.mask(i), world.moving[i])
        np.testing.assert_array_equal(sequence.depth(i), world.depth[i].astype(np.float32))
    np.testing.assert_array_equal(sequence.T_world_camera, world.T_world_camera)
    with pytest.raises(OutputError, match="mine"):
        write_truth_folder(folder, world.images[:1], **truth)
    assert len(list((folder / "frames").iterdir())) == 3


def test_what_nobody_has_is_none_and_folders_are_sorted(world: PlaneWorld, tmp_path: Path) -> None:
    write(tmp_path / "b", world, "dynamic")
    write(tmp_path / "a", world, "camera")
    write(tmp_path / "c", world)  # no truth: left out
    a, b = sequences(tmp_path)
    assert (a.name, b.name) == ("a", "b")
    assert a.depth is a.mask is None
    assert b.T_world_camera is b.K is b.depth is None
    assert b.take(start=1, limit=1).mask(0).sum() == world.moving[1].sum()


def test_cameras_without_intrinsics(world: PlaneWorld, tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", world)
    np.savez(folder / "camera.npz", cam2world=world.T_world_camera)
    (sequence,) = sequences(folder)
    assert sequence.K is None
    np.testing.assert_array_equal(sequence.T_world_camera, world.T_world_camera)


def test_unknown_depth_is_0(world: PlaneWorld, tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", world)
    depth = world.depth.copy()
    depth[0, 0, :3] = np.nan, np.inf, 0
    np.savez(folder / "depth.npz", depth=depth)
    (sequence,) = sequences(folder)
    np.testing.assert_array_equal(sequence.depth(0)[0, :4] > 0, [False, False, False, True])


def test_arrays_that_do_not_fit(world: PlaneWorld, tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", world)
    np.savez(folder / "depth.npz", depth=world.depth[:2])
    (sequence,) = sequences(folder)
    with pytest.raises(InputError, match=r"depth\.npz is \(2, 48, 64\).* for 3 frames"):
        sequence.depth(0)
    np.savez(folder / "dynamic.npz", other=world.moving)
    (sequence,) = sequences(folder)
    with pytest.raises(InputError, match="no array 'mask', found other"):
        sequence.mask(0)
    for T, K in ((world.T_world_camera[:2], world.K), (world.T_world_camera, world.K[:2])):
        np.savez(folder / "camera.npz", cam2world=T, K=K)
        with pytest.raises(InputError, match=r"camera\.npz: expected \(3, "):
            sequences(folder)


def test_cameras_that_are_none(world: PlaneWorld, tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", world)
    for T, K, said in (
        (2 * world.T_world_camera, world.K, r"camera\.npz: pose 0 is no rotation and translation"),
        (world.T_world_camera, 0 * world.K, r"camera\.npz has intrinsics that are infinite or"),
        (world.T_world_camera, np.full((3, 3), np.nan), r"camera\.npz has intrinsics that are"),
    ):
        np.savez(folder / "camera.npz", cam2world=T, K=K)
        with pytest.raises(InputError, match=said):
            sequences(folder)
    T = world.T_world_camera.copy()
    T[1] = np.nan
    np.savez(folder / "camera.npz", cam2world=T, K=world.K)
    assert sequences(folder)[0].notes == ("1 of 3 frames have no pose",)


def test_bad_roots_are_refused(world: PlaneWorld, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no truth folder.* found an empty folder"):
        sequences(tmp_path)
    with pytest.raises(InputError, match=r"no truth folder.* found no such folder"):
        sequences(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no truth folder.* found frames"):
        sequences(write(tmp_path / "mine", world))
    folder = tmp_path / "empty"
    (folder / "frames").mkdir(parents=True)
    (folder / "depth.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="no pictures"):
        sequences(folder)
