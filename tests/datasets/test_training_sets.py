"""PointOdyssey, TartanAir, Spring and Waymo: closed-form truth, trap by trap."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dyn3r.datasets import pointodyssey, spring, tartanair, waymo
from dyn3r.datasets.exr import read_exr
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError
from dyn3r.export.pixels import write_exr
from tests.datasets.plane_world import (
    PlaneWorld,
    plane_world,
    reprojection_error_px,
    save_png,
    save_text,
)
from tests.datasets.training_trees import (
    write_pointodyssey,
    write_spring,
    write_tartanair,
    write_waymo,
)

N = 3


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    return plane_world(N)


def same_cameras(sequence: Sequence, world: PlaneWorld, atol: float = 1e-6) -> None:
    for i in range(N):
        K, T = sequence.camera_of(i)
        np.testing.assert_allclose(K, world.K, atol=atol)
        np.testing.assert_allclose(T, world.T_world_camera[i], atol=atol)


# --- PointOdyssey ----------------------------------------------------------------------------


def test_pointodyssey_maps_world_to_camera(world: PlaneWorld, tmp_path: Path) -> None:
    write_pointodyssey(tmp_path / "train", "ani", world)
    write_pointodyssey(tmp_path / "test", "held_out", world)
    (sequence,) = pointodyssey.sequences(tmp_path)
    assert (sequence.name, sequence.unit) == ("ani", "metre")
    assert sequence.frame_names == ("rgb_00000", "rgb_00001", "rgb_00002")
    same_cameras(sequence, world)
    for i in range(N):
        assert np.abs(sequence.image(i).astype(int) - world.images[i]).mean() < 8  # JPEG
        np.testing.assert_allclose(sequence.depth(i), world.depth[i], atol=0.008)  # 15.3 mm steps
    assert reprojection_error_px(sequence, world) < 0.05
    (held_out,) = pointodyssey.sequences(tmp_path / "test")
    assert held_out.name == "held_out"


def test_pointodyssey_has_no_depth_where_it_is_0_or_cut(world: PlaneWorld, tmp_path: Path) -> None:
    folder = write_pointodyssey(tmp_path, "ani", world)
    values = np.full((48, 64), 65534, np.uint16)
    values[0, 0], values[1, 1], values[2, 2] = 0, 65535, 66
    save_png(folder / "depths/depth_00000.png", values)
    depth = pointodyssey.sequences(tmp_path)[0].depth(0)
    assert (depth[0, 0], depth[1, 1]) == (0, 0)
    np.testing.assert_allclose([depth[2, 2], depth[3, 3]], [66 / 65.535, 65534 / 65.535])
    save_png(folder / "depths/depth_00000.png", np.zeros((48, 64), np.uint8))
    with pytest.raises(InputError, match="expected 16-bit depth"):
        pointodyssey.sequences(tmp_path)[0].depth(0)


def test_pointodyssey_leaves_out_sequences_without_tracks(
    world: PlaneWorld, tmp_path: Path
) -> None:
    for name, tracks in (("empty", 0), ("few", 16), ("enough", 17)):
        write_pointodyssey(tmp_path, name, world, tracks)
    bare = write_pointodyssey(tmp_path, "bare", world)
    (bare / "anno.npz").unlink()
    assert [s.name for s in pointodyssey.sequences(tmp_path)] == ["enough"]
    shutil.rmtree(tmp_path / "enough")
    with pytest.raises(InputError, match="none of 3 sequences has"):
        pointodyssey.sequences(tmp_path)


# --- TartanAir -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["amusement/Hard/P001", "amusement/amusement/Hard/P001"])
def test_tartanair_turns_axes_and_quaternions(
    place: str, world: PlaneWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tartanair, "K", world.K)  # of 640x480, which makes large files
    write_tartanair(tmp_path / place, world)
    write_tartanair(tmp_path / "office/Easy/P000", world)
    (sequence,) = tartanair.sequences(tmp_path)
    assert sequence.name == "amusement/P001"
    same_cameras(sequence, world)
    for i in range(N):
        np.testing.assert_array_equal(sequence.image(i), world.images[i])
        np.testing.assert_allclose(sequence.depth(i), world.depth[i], atol=1e-6)
    assert reprojection_error_px(sequence, world) < 0.05
    assert [s.name for s in tartanair.sequences(tmp_path, level="Easy")] == ["office/P000"]


def test_tartanair_camera_of_the_whole_picture_and_order_of_the_pose(tmp_path: Path) -> None:
    np.testing.assert_array_equal(tartanair.K, [[320, 0, 320], [0, 320, 240], [0, 0, 1]])
    # one metre forward, two right, three down; a quarter turn to the right about the axis down
    half = np.sqrt(0.5)
    save_text(tmp_path / "pose_left.txt", f"1 2 3 0 0 {half} {half}")
    (T,) = tartanair.read_poses(tmp_path / "pose_left.txt")
    np.testing.assert_allclose(T[:3, 3], [2, 3, 1])
    np.testing.assert_allclose(T[:3, :3] @ [0, 0, 1], [1, 0, 0], atol=1e-12)  # now looks right
    np.testing.assert_allclose(T[:3, :3] @ [0, 1, 0], [0, 1, 0], atol=1e-12)


def test_tartanair_sky_is_unknown(world: PlaneWorld, tmp_path: Path) -> None:
    folder = write_tartanair(tmp_path / "office/Hard/P000", world)
    planted = world.depth[0].astype(np.float32)
    planted[0, 0], planted[1, 1], planted[2, 2], planted[3, 3] = 10000, np.inf, np.nan, 999
    np.save(folder / "depth_left/000000_left_depth.npy", planted)
    depth = tartanair.sequences(tmp_path)[0].depth(0)
    assert sorted(zip(*np.nonzero(depth == 0))) == [(0, 0), (1, 1), (2, 2)]
    assert depth[3, 3] == 999


def test_tartanair_frames_without_pose_or_depth_are_dropped(
    world: PlaneWorld, tmp_path: Path
) -> None:
    folder = write_tartanair(tmp_path / "office/Hard/P000", world)
    lines = (folder / "pose_left.txt").read_text().splitlines()
    save_text(folder / "pose_left.txt", *lines[:2])
    (folder / "depth_left/000000_left_depth.npy").unlink()
    (sequence,) = tartanair.sequences(tmp_path)
    assert sequence.frame_names == ("000001_left",)
    assert sequence.notes == ("2 of 3 images have no depth or no camera",)
    np.testing.assert_allclose(sequence.T_world_camera[0], world.T_world_camera[1], atol=1e-6)


# --- Spring ----------------------------------------------------------------------------------


def test_spring_disparity_zoom_and_frames_from_1(world: PlaneWorld, tmp_path: Path) -> None:
    zoom = np.array([1, 1.5, 2])
    write_spring(tmp_path / "spring/train/0007", world, zoom)
    (sequence,) = spring.sequences(tmp_path)
    assert sequence.frame_names[0] == "frame_left_0001"
    np.testing.assert_allclose(sequence.K[:, 0, 0], world.K[0, 0] * zoom)
    np.testing.assert_allclose(sequence.T_world_camera, world.T_world_camera, atol=1e-6)
    for i in range(N):
        np.testing.assert_allclose(sequence.depth(i), world.depth[i], rtol=1e-6)
    assert len(spring.sequences(tmp_path / "spring")) == 1
    assert len(spring.sequences(tmp_path / "spring/train")) == 1


def test_spring_agrees_with_the_world_by_reprojection(world: PlaneWorld, tmp_path: Path) -> None:
    write_spring(tmp_path / "train/0001", world, np.ones(N))
    assert reprojection_error_px(spring.sequences(tmp_path)[0], world) < 0.05


def test_spring_sky_and_faults_are_unknown(world: PlaneWorld, tmp_path: Path) -> None:
    import h5py

    folder = write_spring(tmp_path / "train/0001", world, np.ones(N))
    file = folder / "disp1_left/disp1_left_0001.dsp5"
    with h5py.File(file, "r+") as content:
        content["disparity"][4, 6], content["disparity"][8, 2] = 0, np.nan
        content["disparity"][9, 9] = 0  # between the pixels of the picture
    depth = spring.sequences(tmp_path)[0].depth(0)
    assert sorted(zip(*np.nonzero(depth == 0))) == [(2, 3), (4, 1)]
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        spring.sequences(tmp_path)[0].depth(0)


def test_spring_tables_of_different_length_are_refused(world: PlaneWorld, tmp_path: Path) -> None:
    folder = write_spring(tmp_path / "train/0001", world, np.ones(N))
    lines = (folder / "cam_data/extrinsics.txt").read_text().splitlines()
    save_text(folder / "cam_data/extrinsics.txt", *lines[1:])
    with pytest.raises(InputError, match=r"3 rows of intrinsics.txt, 2 of extrinsics.txt"):
        spring.sequences(tmp_path)


# --- Waymo -----------------------------------------------------------------------------------


def test_waymo_as_prepared(world: PlaneWorld, tmp_path: Path) -> None:
    write_waymo(tmp_path / "segment-1.tfrecord", world, cameras=(1, 4))
    write_waymo(tmp_path / "tmp/segment-1.tfrecord", world)  # what the script extracts first
    one, four = waymo.sequences(tmp_path)
    assert (one.name, four.name) == ("segment-1.tfrecord/1", "segment-1.tfrecord/4")
    assert (one.frame_names[2], one.fps) == ("00002_1", 10)
    same_cameras(one, world)
    np.testing.assert_array_equal(one.depth(1), world.depth[1].astype(np.float32))
    chosen = one.select([2])
    np.testing.assert_allclose(chosen.camera_of(0)[1], world.T_world_camera[2], atol=1e-6)


def test_waymo_depth_is_sparse_and_damaged_files_are_refused(
    world: PlaneWorld, tmp_path: Path
) -> None:
    folder = write_waymo(tmp_path / "s.tfrecord", world)
    sparse = np.where(np.arange(64) % 8 == 0, world.depth[0], 0).astype(np.float32)
    sparse[0, 0] = np.nan
    write_exr(folder / "00000_1.exr", sparse)
    (sequence,) = waymo.sequences(tmp_path)
    depth = sequence.depth(0)
    assert depth[0, 0] == 0
    assert (depth > 0).sum() == 48 * 8 - 1
    (folder / "00001_1.exr").write_bytes((folder / "00000_1.exr").read_bytes()[:200])
    with pytest.raises(InputError, match=r"00001_1.exr: expected whole OpenEXR scan lines"):
        sequence.depth(1)
    (folder / "00002_1.exr").write_bytes(b"no picture")
    with pytest.raises(InputError, match="expected an OpenEXR image"):
        sequence.depth(2)
    np.savez(folder / "00000_1.npz", intrinsics=world.K, cam2world=np.eye(3))
    with pytest.raises(InputError, match=r"cam2world \(4,4\), found \(3, 3\) and \(3, 3\)"):
        sequence.camera_of(0)


@pytest.mark.parametrize("compression", ["ZIP", "ZIPS", "NO"])
@pytest.mark.parametrize("size", [(1, 1), (16, 5), (37, 51)])
def test_exr_of_another_writer(compression: str, size: tuple[int, int], tmp_path: Path) -> None:
    OpenEXR = pytest.importorskip("OpenEXR", reason="needs OpenEXR to write the file")
    header = {
        "compression": getattr(OpenEXR, f"{compression}_COMPRESSION"),
        "type": OpenEXR.scanlineimage,
    }
    rng = np.random.default_rng(0)
    depth = np.where(rng.random(size) < 0.5, rng.random(size) * 70, 0).astype(np.float32)
    OpenEXR.File(header, {"Z": depth}).write(str(tmp_path / "Z.exr"))
    np.testing.assert_array_equal(read_exr(tmp_path / "Z.exr"), depth)
    OpenEXR.File(header, {"Z": depth, "A": depth}).write(str(tmp_path / "two.exr"))
    with pytest.raises(InputError, match="several channels"):
        read_exr(tmp_path / "two.exr")
    OpenEXR.File(header, {"Z": depth.astype(np.float16)}).write(str(tmp_path / "half.exr"))
    with pytest.raises(InputError, match="one of another type"):
        read_exr(tmp_path / "half.exr")


def test_exr_that_is_cut_off_or_changed_is_refused(world: PlaneWorld, tmp_path: Path) -> None:
    """Unlike FFmpeg, which leaves the rest empty and says nothing."""
    write_exr(tmp_path / "a.exr", world.depth[0].astype(np.float32))
    whole = (tmp_path / "a.exr").read_bytes()
    for end in range(0, len(whole), 97):
        (tmp_path / "a.exr").write_bytes(whole[:end])
        with pytest.raises(InputError):
            read_exr(tmp_path / "a.exr")
    refused = 0
    for place in range(len(whole) - 2000, len(whole), 61):  # in the compressed blocks
        (tmp_path / "a.exr").write_bytes(
            whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :]
        )
        try:  # a bit that says how hard the writer tried changes nothing
            np.testing.assert_array_equal(read_exr(tmp_path / "a.exr"), world.depth[0].astype("f4"))
        except InputError:
            refused += 1
    assert refused > 25


def write_list(root: Path, pairs: list[tuple[int, int, int]], name: str) -> None:
    np.savez(
        root / name,
        scenes=np.array(["z.tfrecord", "gone.tfrecord", "a.tfrecord"]),  # in no order
        frames=np.array(["00000_1", "00001_1", "00002_1", "00000_4"]),
        pairs=np.array(pairs),
    )


def test_waymo_pairs_of_the_published_lists(world: PlaneWorld, tmp_path: Path) -> None:
    write_waymo(tmp_path / "a.tfrecord", world, cameras=(1, 4))
    write_waymo(tmp_path / "z.tfrecord", world)
    found = waymo.sequences(tmp_path)
    assert [s.name for s in found] == ["a.tfrecord/1", "a.tfrecord/4", "z.tfrecord/1"]
    assert waymo.listed_pairs(tmp_path, found) is None
    write_list(tmp_path, [(0, 0, 2), (1, 0, 1), (2, 1, 3)], "waymo_pairs.npz")
    pairs = waymo.listed_pairs(tmp_path, found)
    np.testing.assert_array_equal(pairs, [[2, 0, 2, 2], [0, 1, 1, 0]])
    write_list(tmp_path, [(2, 0, 1)], "waymo_pairs_video.npz")  # MonST3R's is preferred
    np.testing.assert_array_equal(waymo.listed_pairs(tmp_path, found), [[0, 0, 0, 1]])
    write_list(tmp_path, [(0, 0, 3)], "waymo_pairs_video.npz")
    with pytest.raises(InputError, match=r"lists z.tfrecord/00000_4, which has no image"):
        waymo.listed_pairs(tmp_path, found)
    write_list(tmp_path, [(3, 0, 1)], "waymo_pairs_video.npz")
    with pytest.raises(InputError, match="pairs point beyond"):
        waymo.listed_pairs(tmp_path, found)
    write_list(tmp_path, [(1, 0, 1)], "waymo_pairs_video.npz")
    with pytest.raises(InputError, match="lists no pair of the segments"):
        waymo.listed_pairs(tmp_path, found)


@pytest.mark.parametrize("module", [pointodyssey, tartanair, spring, waymo])
def test_another_layout_is_refused(module, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"is not .*: expected .*, found holiday.jpg"):
        module.sequences(tmp_path)
