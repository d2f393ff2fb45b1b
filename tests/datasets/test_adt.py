"""ADT: .npz with and without a camera path, prepared folders, pickled pictures are refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dyn3r.datasets.adt import sequences
from dyn3r.errors import InputError
from tests.datasets.plane_world import (
    PlaneWorld,
    plane_world,
    reprojection_error_px,
    save_png,
    save_text,
)
from tests.datasets.test_scannet import jpeg, jpeg_rgb

NAME = "Apartment_release_work_seq140_1"


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    return plane_world(5)


def clip(world: PlaneWorld, **changes) -> dict:
    K = world.K
    return {
        "images_jpeg_bytes": np.array([jpeg(image) for image in world.images]),
        "fx_fy_cx_cy": np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]]),
        "tracks_XYZ": np.zeros((len(world), 4, 3)),
        "visibility": np.zeros((len(world), 4), bool),
        "queries_xyt": np.zeros((4, 3)),
        "extrinsics_w2c": np.linalg.inv(world.T_world_camera),
    } | changes


def write_npz(file: Path, content: dict, *leave_out: str) -> None:
    np.savez(file, **{key: value for key, value in content.items() if key not in leave_out})


def write_prepared(folder: Path, world: PlaneWorld, stride: int = 1) -> None:
    for i, T in enumerate(world.T_world_camera):
        save_png(folder / f"rgb/{i * stride:06d}.png", world.images[i])
        camera = {"w2c": np.linalg.inv(T).tolist(), "K": world.K.tolist()}
        save_text(folder / f"camera/{i * stride:06d}.json", json.dumps(camera))


def check_cameras(sequence, world: PlaneWorld) -> None:
    np.testing.assert_allclose(sequence.K, np.tile(world.K, (len(world), 1, 1)), atol=1e-6)
    np.testing.assert_allclose(sequence.T_world_camera, world.T_world_camera, atol=1e-6)
    assert reprojection_error_px(sequence, world) < 0.05


def test_npz_with_a_camera_path(world: PlaneWorld, tmp_path: Path) -> None:
    write_npz(tmp_path / f"{NAME}.npz", clip(world))
    np.savez(tmp_path / "other.npz", numbers=np.zeros(3))
    (sequence,) = sequences(tmp_path)
    assert (sequence.name, sequence.fps, sequence.notes) == (NAME, 30, ())
    assert sequence.frame_names == tuple(f"00000{i}" for i in range(5))
    assert sequence.depth is None
    for i in (4, 0):
        np.testing.assert_array_equal(sequence.image(i), jpeg_rgb(world.images[i]))
    check_cameras(sequence, world)


def test_npz_without_a_camera_path(world: PlaneWorld, tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", clip(world), "extrinsics_w2c")
    lost = np.linalg.inv(world.T_world_camera)
    lost[2] = np.nan
    write_npz(tmp_path / "b.npz", clip(world, extrinsics_w2c=lost))
    without, partial = sequences(tmp_path)
    assert without.T_world_camera is None
    assert without.notes == ("the file has no camera path (extrinsics_w2c)",)
    assert partial.notes == ("1 of 5 frames have no pose",)
    assert np.isnan(partial.T_world_camera[2]).all()
    np.testing.assert_allclose(partial.T_world_camera[3], world.T_world_camera[3], atol=1e-6)
    np.testing.assert_array_equal(without.image(1), partial.image(1))


@pytest.mark.parametrize("size_hw", [(48, 64), (64, 64)])
def test_prepared_clip(size_hw: tuple[int, int], tmp_path: Path) -> None:
    """Pictures of any size come whole: the crop of 512x512 to 512x384 is a protocol's."""
    world = plane_world(2, np.array([[280.0, 0, 256], [0, 280, 256], [0, 0, 1]]), size_hw)
    write_prepared(tmp_path / NAME, world)
    write_prepared(tmp_path / NAME / "prepare_all_stride5", plane_world(1), 5)
    (sequence,) = sequences(tmp_path)
    assert (sequence.name, sequence.fps, len(sequence)) == (NAME, 30, 2)
    np.testing.assert_array_equal(sequence.image(1), world.images[1])
    check_cameras(sequence, world)


def test_prepared_with_stride(world: PlaneWorld, tmp_path: Path) -> None:
    write_prepared(tmp_path / NAME / "prepare_all_stride5", world, 5)
    (sequence,) = sequences(tmp_path)
    assert (sequence.name, sequence.fps) == (NAME, 6)
    assert sequence.frame_names[:3] == ("000000", "000005", "000010")
    np.testing.assert_array_equal(sequence.image(4), world.images[4])
    check_cameras(sequence, world)


def test_npz_goes_before_a_prepared_clip(world: PlaneWorld, tmp_path: Path) -> None:
    write_prepared(tmp_path / NAME, plane_world(2))
    write_npz(tmp_path / f"{NAME}.npz", clip(world))
    assert [len(s) for s in sequences(tmp_path)] == [5]


def test_pickled_pictures_are_refused(world: PlaneWorld, tmp_path: Path) -> None:
    pickled = clip(world)["images_jpeg_bytes"].astype(object)
    write_npz(tmp_path / f"{NAME}.npz", clip(world, images_jpeg_bytes=pickled))
    with pytest.raises(InputError, match=r"pickled objects, .* use the prepared layout Apartment"):
        sequences(tmp_path)
    write_prepared(tmp_path / NAME, plane_world(2))
    assert [len(s) for s in sequences(tmp_path)] == [2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images_jpeg_bytes": np.zeros((2, 8), np.uint8)}, r"is uint8 \(2, 8\), expected byte"),
        ({"images_jpeg_bytes": np.zeros(0, "S9")}, r"is \|S9 \(0,\), expected byte"),
        ({"fx_fy_cx_cy": np.ones(3)}, r"fx_fy_cx_cy has the shape \(3,\), expected \(4,\)"),
        ({"fx_fy_cx_cy": np.zeros(4)}, "without a focal length"),
        ({"extrinsics_w2c": np.ones((4, 4, 4))}, r"\(4, 4, 4\), expected \(5, 4, 4\)"),
        ({"extrinsics_w2c": np.ones((5, 4, 4))}, "pose 0 is no rotation and translation"),
    ],
)
def test_bad_arrays_are_refused(
    world: PlaneWorld, tmp_path: Path, changes: dict, message: str
) -> None:
    write_npz(tmp_path / "a.npz", clip(world, **changes))
    with pytest.raises(InputError, match=message):
        sequences(tmp_path)


def test_damaged_archives_are_refused(world: PlaneWorld, tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    write_npz(file, clip(world))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a.npz cannot be read: File is not a zip file"):
        sequences(tmp_path)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images_jpeg_bytes.npy", b"no array")
    with pytest.raises(InputError, match=r"a.npz cannot be read"):
        sequences(tmp_path)
    huge = "{'descr': '|S1000000000', 'fortran_order': False, 'shape': (1000000,), }"
    head = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + huge.ljust(117).encode() + b"\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images_jpeg_bytes.npy", head)
    with pytest.raises(InputError, match=r"is \|S1000000000 \(1000000,\), expected byte"):
        sequences(tmp_path)
    bad = np.array([b"no picture", jpeg(world.images[1])[:150], *[jpeg(world.images[0])] * 3])
    write_npz(file, clip(world, images_jpeg_bytes=bad))
    (sequence,) = sequences(tmp_path)
    with pytest.raises(InputError, match="frame 0: expected a JPEG or PNG"):
        sequence.image(0)
    with pytest.raises(InputError, match="frame 1: "):
        sequence.image(1)


def test_bad_roots_are_refused(world: PlaneWorld, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not ADT: expected .* found no such folder"):
        sequences(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"is not ADT: .* found an empty folder"):
        sequences(tmp_path)
    write_prepared(tmp_path / NAME, world)
    camera = tmp_path / NAME / "camera/000001.json"
    for text, message in [
        ("{", "is not JSON"),
        ('{"K": 1}', r"has no numbers 'w2c' of shape \(4, 4\)"),
        ('{"w2c": [[1]]}', r"'w2c' has the shape \(1, 1\), expected \(4, 4\)"),
        ("[]", "has no numbers 'w2c'"),
    ]:
        save_text(camera, text)
        with pytest.raises(InputError, match=message):
            sequences(tmp_path)
    camera.unlink()
    with pytest.raises(InputError, match=r"5 pictures of rgb do not match 4 .json files of camera"):
        sequences(tmp_path)
    shutil.rmtree(tmp_path / NAME / "rgb")
    with pytest.raises(InputError, match=r"rgb does not exist"):
        sequences(tmp_path)
