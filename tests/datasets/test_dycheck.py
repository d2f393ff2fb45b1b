"""DyCheck iPhone: LiDAR, Shape of Motion's refined cameras, and the prepared form."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dyn3r.datasets.colmap_binary import read_colmap_pair
from dyn3r.datasets.dycheck import sequences
from dyn3r.errors import InputError
from tests.datasets.plane_world import (
    PlaneWorld,
    plane_world,
    reprojection_error_px,
    save_png,
    save_text,
)

NUMBERS = (0, 1, 2, 5, 6)
"""Numbers of the training frames: 3 and 4 were dropped."""
NAMES = tuple(f"0_{k:05d}" for k in NUMBERS)
VALIDATION = "1_00000"


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    return plane_world(5)


def holes(world: PlaneWorld) -> np.ndarray:
    """Pixels without LiDAR, where alpha is 0."""
    out = np.zeros(world.depth.shape[1:], bool)
    out[:4, :6] = True
    return out


def rgba(world: PlaneWorld, i: int) -> np.ndarray:
    alpha = np.where(holes(world), 0, 255).astype(np.uint8)
    return np.concatenate([world.images[i], alpha[..., None]], axis=-1)


def camera_json(T_world_camera: np.ndarray, K: np.ndarray) -> str:
    return json.dumps(
        {
            "orientation": T_world_camera[:3, :3].T.tolist(),
            "position": T_world_camera[:3, 3].tolist(),
            "focal_length": K[0, 0],
            "principal_point": [K[0, 2], K[1, 2]],
            "image_size": [64, 48],
            "skew": 0.0,
            "pixel_aspect_ratio": 1.0,
            "radial_distortion": [0.0, 0.0, 0.0],
            "tangential_distortion": [0.0, 0.0],
        }
    )


def write_dycheck(folder: Path, world: PlaneWorld, factor: int = 1) -> None:
    """With a validation camera, and entries of the split that are not in order of time."""
    K = world.K * [[factor], [factor], [1]]
    far = np.eye(4)
    far[2, 3] = -9
    frames = [*zip(NAMES, world.T_world_camera, range(5)), (VALIDATION, far, 0)]
    (folder / f"depth/{factor}x").mkdir(parents=True)
    for name, T, i in frames:
        save_png(folder / f"rgb/{factor}x/{name}.png", rgba(world, i))
        depth = np.where(holes(world), 0, world.depth[i]).astype(np.float32)
        np.save(folder / f"depth/{factor}x/{name}.npy", depth[..., None])
        save_text(folder / f"camera/{name}.json", camera_json(T, K))
    order = [3, 0, 5, 1, 2, 4]
    names, times, cameras = [*NAMES, VALIDATION], [*NUMBERS, 0], [0, 0, 0, 0, 0, 1]
    split = {"frame_names": names, "time_ids": times, "camera_ids": cameras}
    split = {key: [values[k] for k in order] for key, values in split.items()}
    save_text(folder / "splits/train.json", json.dumps(split))
    save_text(folder / "extra.json", json.dumps({"fps": 60, "factor": factor, "bbox": []}))
    scene = {"scale": 0.25, "center": [1.0, 2.0, 3.0], "near": 0.1, "far": 2.0}
    save_text(folder / "scene.json", json.dumps(scene))


def write_refined(folder: Path, world: PlaneWorld) -> None:
    """What the release adds: refined cameras, here the world's; the JSON's get wrong ones."""
    base = folder / "flow3d_preprocessed"
    for name in NAMES:
        save_text(folder / f"camera/{name}.json", camera_json(np.eye(4), 3 * world.K))
    (base / "aligned_depth_anything_colmap/1x").mkdir(parents=True)
    for i, name in enumerate(NAMES):
        np.save(base / f"aligned_depth_anything_colmap/1x/{name}.npy", inverse_depth(world, i))
        save_png(base / f"track_anything/1x/{name}.png", world.moving[i])
    write_colmap(base / "colmap/sparse", world)


def inverse_depth(world: PlaneWorld, i: int) -> np.ndarray:
    out = (1 / world.depth[i]).astype(np.float32)
    out[0, :4] = 0, 0.9e-3, np.nan, -1
    return out


def write_colmap(folder: Path, world: PlaneWorld, model: int = 1, extra: tuple = ()) -> None:
    """Images in reverse order, each with two observations; integers are pixel corners."""
    K = world.K
    params = [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5][int(model == 0) :]
    params = [*params, *extra]
    cameras = struct.pack("<QiiQQ", 1, 7, model, 64, 48) + struct.pack(f"<{len(params)}d", *params)
    images = struct.pack("<Q", len(world))
    for i in reversed(range(len(world))):
        T = np.linalg.inv(world.T_world_camera[i])
        x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
        images += struct.pack("<i7di", 40 + i, w, x, y, z, *T[:3, 3], 7)
        images += f"{NAMES[i]}.png".encode() + b"\0" + struct.pack("<Q", 2)
        images += struct.pack("<ddqddq", 1.5, 2.5, 3, 4.5, 5.5, -1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.bin").write_bytes(cameras)
    (folder / "images.bin").write_bytes(images)


def write_prepared(folder: Path, world: PlaneWorld) -> None:
    base = folder / "prepare_all_stride10"
    (base / "depth_npy").mkdir(parents=True)
    for i, T in enumerate(world.T_world_camera):
        name = f"0_{10 * i:05d}"
        save_png(base / f"rgb/{name}.png", world.images[i])
        save_png(base / f"masks/{name}.png", world.moving[i])
        save_png(base / f"depth/{name}.png", world.images[i])
        depth = world.depth[i].astype(np.float32)
        depth[0, :2] = 0
        np.save(base / f"depth_npy/{name}.npy", depth)
        camera = {"w2c": np.linalg.inv(T).tolist(), "K": world.K.tolist()}
        save_text(base / f"camera/{name}.json", json.dumps(camera))


def check(sequence, world: PlaneWorld, unknown: np.ndarray) -> None:
    assert sequence.name == "spin"
    np.testing.assert_allclose(sequence.K, np.tile(world.K, (5, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(sequence.T_world_camera, world.T_world_camera, atol=1e-6)
    for i in range(5):
        np.testing.assert_array_equal(sequence.image(i), world.images[i])
        depth = sequence.depth(i)
        np.testing.assert_array_equal(depth == 0, unknown)
        np.testing.assert_allclose(depth[~unknown], world.depth[i][~unknown], atol=1e-5)
        if sequence.mask is not None:
            np.testing.assert_array_equal(sequence.mask(i), world.moving[i])
    assert reprojection_error_px(sequence, world) < 0.05


@pytest.mark.parametrize("factor", [1, 2])
def test_lidar(world: PlaneWorld, tmp_path: Path, factor: int) -> None:
    write_dycheck(tmp_path / "spin", world, factor)
    (sequence,) = sequences(tmp_path)
    assert sequence.frame_names == NAMES
    np.testing.assert_allclose(sequence.times_s, np.array(NUMBERS) / 60)
    assert (sequence.fps, sequence.unit, sequence.mask) == (60, "metre", None)
    check(sequence, world, holes(world))


def test_shape_of_motion(world: PlaneWorld, tmp_path: Path) -> None:
    write_dycheck(tmp_path / "spin", world)
    write_refined(tmp_path / "spin", world)
    write_prepared(tmp_path / "spin", world)
    (sequence,) = sequences(tmp_path)
    assert sequence.frame_names == NAMES
    np.testing.assert_allclose(sequence.times_s, np.array(NUMBERS) / 60)
    assert (sequence.unit, sequence.mask_kind) == ("arbitrary", "tracked foreground")
    assert sequence.notes == ()
    unknown = np.zeros((48, 64), bool)
    unknown[0, :4] = True
    check(sequence, world, unknown)


def test_prepared(world: PlaneWorld, tmp_path: Path) -> None:
    write_prepared(tmp_path / "spin", world)
    (sequence,) = sequences(tmp_path / "spin")
    assert sequence.frame_names == ("0_00000", "0_00010", "0_00020", "0_00030", "0_00040")
    assert (sequence.fps, sequence.mask_kind) == (3, "tracked foreground")
    unknown = np.zeros((48, 64), bool)
    unknown[0, :2] = True
    check(sequence, world, unknown)


def test_lens_distortion_is_noted(world: PlaneWorld, tmp_path: Path) -> None:
    write_dycheck(tmp_path / "spin", world)
    file = tmp_path / f"spin/camera/{NAMES[2]}.json"
    content = json.loads(file.read_text()) | {"radial_distortion": [0.1, 0, 0]}
    content |= {"skew": 0.5, "pixel_aspect_ratio": 1.5}
    save_text(file, json.dumps(content))
    (sequence,) = sequences(tmp_path)
    assert sequence.notes == ("lens distortion is left out",)
    np.testing.assert_array_equal(sequence.K[2], [[50, 0.5, 31.5], [0, 75, 23.5], [0, 0, 1]])


@pytest.mark.parametrize(("model", "extra"), [(0, ()), (1, ()), (2, (0.1,)), (4, (0.0, 0, 0, 0))])
def test_colmap_models(world: PlaneWorld, tmp_path: Path, model: int, extra: tuple) -> None:
    if model == 2:  # one focal length
        write_colmap(tmp_path, world, 0, extra)
        data = bytearray((tmp_path / "cameras.bin").read_bytes())
        data[12:16] = struct.pack("<i", 2)
        (tmp_path / "cameras.bin").write_bytes(data)
    else:
        write_colmap(tmp_path, world, model, extra)
    found = read_colmap_pair(tmp_path)
    assert found.stems == list(reversed(NAMES))
    assert found.distorted == (model == 2)
    np.testing.assert_allclose(found.K[0], world.K, atol=1e-12)
    np.testing.assert_allclose(found.T_world_camera[::-1], world.T_world_camera, atol=1e-12)


def test_colmap_pair_agrees_with_pycolmap(world: PlaneWorld, tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    from dyn3r.io.camera_layouts import read_camera_list

    write_colmap(tmp_path, world)
    for_pycolmap = (tmp_path / "images.bin").read_bytes()
    observations = struct.pack("<Q", 2) + struct.pack("<ddqddq", 1.5, 2.5, 3, 4.5, 5.5, -1)
    ours = read_colmap_pair(tmp_path)
    (tmp_path / "images.bin").write_bytes(for_pycolmap.replace(observations, struct.pack("<Q", 0)))
    (tmp_path / "points3D.bin").write_bytes(struct.pack("<Q", 0))
    theirs = read_camera_list(tmp_path, (1, 1))  # a size for files that give none
    order = [ours.stems.index(Path(name).stem) for name in theirs.names]
    np.testing.assert_allclose(theirs.T_world_camera, ours.T_world_camera[order], atol=1e-12)
    np.testing.assert_allclose(theirs.K, ours.K[order], atol=1e-12)


def test_damaged_colmap_is_refused(world: PlaneWorld, tmp_path: Path) -> None:
    """Cut anywhere, and with numbers that are too large: one line, no memory."""
    for name in ("cameras.bin", "images.bin"):
        write_colmap(tmp_path, world)
        whole = (tmp_path / name).read_bytes()
        for length in range(0, len(whole), 5):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(InputError, match=r"truncated|a name without an end"):
                read_colmap_pair(tmp_path)
        (tmp_path / name).write_bytes(struct.pack("<Q", 1 << 60) + whole[8:])
        with pytest.raises(InputError, match=r"announces 1152921504606846976 entries"):
            read_colmap_pair(tmp_path)
    write_colmap(tmp_path, world, 5, (0.0,) * 4)
    with pytest.raises(InputError, match=r"camera of model 5, expected one of \[0, 1, 2, 3, 4\]"):
        read_colmap_pair(tmp_path)
    write_colmap(tmp_path, world)
    images = bytearray((tmp_path / "images.bin").read_bytes())
    for quaternion, camera, message in [
        ((0, 0, 0, 0), 7, "quaternion of length 0"),
        ((np.nan, 0, 0, 0), 7, "a pose that is not finite"),
        ((1, 0, 0, 0), 8, r"names cameras that cameras.bin lacks: \{8\}"),
    ]:
        images[12:44] = struct.pack("<4d", *quaternion)
        images[68:72] = struct.pack("<i", camera)
        (tmp_path / "images.bin").write_bytes(images)
        with pytest.raises(InputError, match=message):
            read_colmap_pair(tmp_path)


def test_bad_roots_are_refused(world: PlaneWorld, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not DyCheck iPhone: .* found no such folder"):
        sequences(tmp_path / "nowhere")
    save_text(tmp_path / "other/rgb.txt", "# TUM")
    with pytest.raises(InputError, match=r"is not DyCheck iPhone: .* found other"):
        sequences(tmp_path)
    folder = tmp_path / "spin"
    write_dycheck(folder, world)
    (folder / f"rgb/1x/{NAMES[3]}.png").unlink()
    with pytest.raises(InputError, match=r"rgb/1x lacks 1 of 5 training frames: expected 0_00005"):
        sequences(tmp_path)
    (folder / "extra.json").unlink()
    with pytest.raises(InputError, match=r"extra.json does not exist"):
        sequences(tmp_path)
    (folder / "splits/train.json").unlink()
    with pytest.raises(InputError, match=r"spin is an incomplete sequence: .* found camera, depth"):
        sequences(tmp_path)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("[]", "has no list 'frame_names'"),
        ('{"frame_names": ["a"], "camera_ids": [0, 0], "time_ids": [0]}', "expected \\(1,\\)"),
        ('{"frame_names": ["a"], "camera_ids": [1], "time_ids": [0]}', "no frames of camera 0"),
        ('{"frame_names": ["../a"], "camera_ids": [0], "time_ids": [0]}', "no frames of camera 0"),
    ],
)
def test_bad_splits_are_refused(
    world: PlaneWorld, tmp_path: Path, split: str, message: str
) -> None:
    write_dycheck(tmp_path / "spin", world)
    save_text(tmp_path / "spin/splits/train.json", split)
    with pytest.raises(InputError, match=message):
        sequences(tmp_path)


def test_bad_frames_are_refused(world: PlaneWorld, tmp_path: Path) -> None:
    folder = tmp_path / "spin"
    write_dycheck(folder, world)
    np.save(folder / f"depth/1x/{NAMES[1]}.npy", np.zeros((3, 4), np.float32))
    with pytest.raises(InputError, match=r"shape \(3, 4\), expected LiDAR depth \(H, W, 1\)"):
        sequences(tmp_path)[0].depth(1)
    (folder / f"rgb/1x/{NAMES[1]}.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot be read as an image"):
        sequences(tmp_path)[0].image(1)
    for key, value, message in [
        ("orientation", [[1, 0, 0], [0, 2, 0], [0, 0, 1]], "no rotation and translation"),
        ("position", [0, 0, float("inf")], "a pose that is not finite"),
        ("focal_length", 0, "without a focal length"),
        ("principal_point", [1], r"'principal_point' has the shape \(1,\), expected \(2,\)"),
    ]:
        content = json.loads(camera_json(np.eye(4), world.K)) | {key: value}
        save_text(folder / f"camera/{NAMES[0]}.json", json.dumps(content))
        with pytest.raises(InputError, match=message):
            sequences(tmp_path)


def test_incomplete_releases_are_refused(world: PlaneWorld, tmp_path: Path) -> None:
    folder = tmp_path / "spin"
    write_dycheck(folder, world)
    write_refined(folder, world)
    base = folder / "flow3d_preprocessed"
    np.save(base / f"aligned_depth_anything_colmap/1x/{NAMES[0]}.npy", np.zeros((2, 3, 1)))
    with pytest.raises(InputError, match=r"shape \(2, 3, 1\), expected \(H, W\)"):
        sequences(tmp_path)[0].depth(0)
    (base / "track_anything").rename(base / "masks")
    with pytest.raises(InputError, match=r"1x lacks 5 of 5 training frames: .* no such folder"):
        sequences(tmp_path)
    split = {"frame_names": ["0_00009"], "camera_ids": [0], "time_ids": [9]}
    save_text(folder / "splits/train.json", json.dumps(split))
    with pytest.raises(
        InputError, match=r"no camera of 1 of 1 training frames, the first is 0_00009"
    ):
        sequences(tmp_path)
    (base / "colmap/sparse/images.bin").unlink()
    with pytest.raises(InputError, match=r"images.bin does not exist"):
        sequences(tmp_path)


def test_prepared_counts_must_agree(world: PlaneWorld, tmp_path: Path) -> None:
    write_prepared(tmp_path / "spin", world)
    (tmp_path / "spin/prepare_all_stride10/depth_npy/0_00010.npy").unlink()
    with pytest.raises(InputError, match="5 of rgb, 5 of masks, 5 of camera, 4 of depth_npy"):
        sequences(tmp_path)
