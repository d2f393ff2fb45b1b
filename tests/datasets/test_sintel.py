"""Sintel: closed-form truth from .dpt, .cam and .flo files; damaged and foreign files."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from dyn3r.datasets.sintel import read_cam, read_dpt, read_flo, sequences
from dyn3r.errors import InputError
from tests.datasets.plane_world import (
    PlaneWorld,
    plane_world,
    reprojection_error_px,
    save_png,
    true_flow,
)

N = 3
TAG = bytes.fromhex("50494548")


@pytest.fixture
def world() -> PlaneWorld:
    return plane_world(N)


@pytest.fixture
def root(world: PlaneWorld, tmp_path: Path) -> Path:
    """Three frames of one sequence, everything unzipped in one folder."""
    write_sequence(tmp_path / "training", "alley_1", world)
    return tmp_path


def write_sequence(training: Path, name: str, world: PlaneWorld) -> None:
    for i in range(len(world)):
        frame = f"{name}/frame_{i + 1:04d}"
        save_png(training / f"final/{frame}.png", world.images[i])
        save_png(training / f"clean/{frame}.png", world.images[i] // 2)
        write_tagged(training / f"depth/{frame}.dpt", world.depth[i][..., None])
        write_camera(training / f"camdata_left/{frame}.cam", world.K, world.T_world_camera[i])
        if i + 1 < len(world):
            flow = np.stack([np.full((48, 64), i + 0.5), np.indices((48, 64))[0]], axis=-1)
            write_tagged(training / f"flow/{frame}.flo", flow)
            save_png(training / f"dynamic_label_perfect/{frame}.png", world.moving[i])


def write_tagged(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    size = struct.pack("<ii", pixels.shape[1], pixels.shape[0])
    file.write_bytes(TAG + size + pixels.astype("<f4").tobytes())


def write_camera(file: Path, K: np.ndarray, T_world_camera: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    T_camera_world = np.linalg.inv(T_world_camera)[:3]
    file.write_bytes(TAG + K.astype("<f8").tobytes() + T_camera_world.astype("<f8").tobytes())


def test_truth_is_the_closed_form(root: Path, world: PlaneWorld) -> None:
    (sequence,) = sequences(root)
    assert (sequence.name, sequence.mask_kind) == ("alley_1", "moves")
    assert sequence.frame_names == ("frame_0001", "frame_0002", "frame_0003")
    np.testing.assert_allclose(sequence.T_world_camera, world.T_world_camera, atol=1e-6)
    np.testing.assert_allclose(sequence.K, np.tile(world.K, (N, 1, 1)), atol=1e-6)
    for i in range(N):
        np.testing.assert_array_equal(sequence.image(i), world.images[i])
        np.testing.assert_allclose(sequence.depth(i), world.depth[i], atol=1e-6)
    for i in range(N - 1):
        np.testing.assert_array_equal(sequence.mask(i), world.moving[i])
    assert reprojection_error_px(sequence, world) < 0.05


def test_last_frame_has_no_mask(root: Path) -> None:
    with pytest.raises(InputError, match="the last frame has no moving mask"):
        sequences(root)[0].mask(N - 1)


def test_masks_are_made_from_flow(root: Path, world: PlaneWorld) -> None:
    """The rule of the prepared masks, on flow of cameras and of a patch that are known exactly."""
    training = root / "training"
    shutil.rmtree(training / "dynamic_label_perfect")
    for i in range(N - 1):
        write_tagged(training / f"flow/alley_1/frame_{i + 1:04d}.flo", true_flow(world, i))
    (sequence,) = sequences(root)
    for i in range(N - 1):
        assert world.moving[i].any()
        np.testing.assert_array_equal(sequence.mask(i), world.moving[i])
    with pytest.raises(InputError, match="the last frame has no moving mask"):
        sequence.mask(N - 1)
    # a difference of 0.1 pixels is the limit
    flow = true_flow(world, 0)
    flow[10, 10] += [0.08, 0]
    flow[11, 11] += [0.08, 0.08]
    write_tagged(training / "flow/alley_1/frame_0001.flo", flow)
    mask = sequence.mask(0)
    assert not world.moving[0][10:12, 10:12].any()
    assert (mask[10, 10], mask[11, 11]) == (False, True)
    # where depth is unknown, nothing is known to move
    planted = world.depth[0].copy()
    planted[11, 11] = np.nan
    write_tagged(training / "depth/alley_1/frame_0001.dpt", planted[..., None])
    assert not sequence.mask(0)[11, 11]
    write_tagged(training / "flow/alley_1/frame_0001.flo", flow[:-1])
    with pytest.raises(InputError, match=r"frame_0001.flo is \(47, 64\), but its depth is"):
        sequence.mask(0)


def test_without_cameras_flow_makes_no_mask(root: Path) -> None:
    for name in ("dynamic_label_perfect", "camdata_left"):
        shutil.rmtree(root / "training" / name)
    assert sequences(root)[0].mask is None


def test_renderings_and_the_folder_training_itself(root: Path, world: PlaneWorld) -> None:
    (sequence,) = sequences(root / "training", rendering="clean")
    np.testing.assert_array_equal(sequence.image(0), world.images[0] // 2)


def test_flow_and_depth_files(root: Path, world: PlaneWorld) -> None:
    flow = read_flo(root / "training/flow/alley_1/frame_0002.flo")
    assert flow.shape == (48, 64, 2)
    np.testing.assert_array_equal(flow[7, 9], [1.5, 7])
    depth = read_dpt(root / "training/depth/alley_1/frame_0001.dpt")
    np.testing.assert_array_equal(depth, world.depth[0].astype(np.float32))


def test_zoom_has_a_K_per_frame(root: Path, world: PlaneWorld) -> None:
    zoomed = world.K * [[2], [2], [1]]
    file = root / "training/camdata_left/alley_1/frame_0002.cam"
    write_camera(file, zoomed, world.T_world_camera[1])
    np.testing.assert_allclose(sequences(root)[0].K[1], zoomed, atol=1e-6)


def test_depth_that_is_no_number_is_unknown(root: Path, world: PlaneWorld) -> None:
    planted = world.depth[0].copy()
    planted[3, 4], planted[5, 6], planted[7, 8] = np.nan, np.inf, -1
    write_tagged(root / "training/depth/alley_1/frame_0001.dpt", planted[..., None])
    depth = sequences(root)[0].depth(0)
    assert sorted(zip(*np.nonzero(depth == 0))) == [(3, 4), (5, 6), (7, 8)]


def test_frames_alone_are_a_sequence(world: PlaneWorld, tmp_path: Path) -> None:
    for i in range(N):
        save_png(tmp_path / f"training/final/cave_2/frame_{i + 1:04d}.png", world.images[i])
    (sequence,) = sequences(tmp_path)
    assert sequence.depth is None
    assert sequence.mask is None
    assert sequence.K is None
    assert sequence.T_world_camera is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected at least 12 bytes, found 0"),
        (b"\0" * 20, "expected the tag 202021.25 at its start, found 0"),
        (TAG + struct.pack("<ii", 2, 1) + b"\0" * 7, "expected 20 bytes for 2x1 pixels, found 19"),
        (TAG + struct.pack("<ii", 2, 1) + b"\0" * 9, "expected 20 bytes for 2x1 pixels, found 21"),
        (TAG + struct.pack("<ii", -2, -1) + b"\0" * 8, "for -2x-1 pixels"),
    ],
)
def test_damaged_depth_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.dpt").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_dpt(tmp_path / "a.dpt")


def test_damaged_cameras_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.cam"
    with pytest.raises(InputError, match="cannot be read"):
        read_cam(file)
    for size, message in ((100, "at least 172 bytes, found 104"), (169, "172 bytes, found 173")):
        file.write_bytes(TAG + b"\0" * size)
        with pytest.raises(InputError, match=message):
            read_cam(file)
    write_camera(file, np.eye(3), np.diag([2.0, 2, 2, 1]))
    with pytest.raises(InputError, match="expected K and a rotation"):
        read_cam(file)


def test_bad_roots_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected training/final/.*, found no such folder"):
        sequences(tmp_path / "nowhere")
    (tmp_path / "other/training/depth").mkdir(parents=True)
    with pytest.raises(InputError, match=r"expected training/final/.*, found depth"):
        sequences(tmp_path / "other")
    (root / "training/depth/alley_1/frame_0002.dpt").unlink()
    with pytest.raises(
        InputError, match=r"expected 3 files .* found 2: frame_0001.dpt, frame_0003"
    ):
        sequences(root)


def test_only_masks_may_lack_the_last_frame(root: Path, world: PlaneWorld) -> None:
    save_png(root / "training/dynamic_label_perfect/alley_1/frame_0003.png", world.moving[2])
    np.testing.assert_array_equal(sequences(root)[0].mask(2), world.moving[2])
    (root / "training/camdata_left/alley_1/frame_0003.cam").unlink()
    with pytest.raises(InputError, match=r"expected 3 files .* found 2"):
        sequences(root)


def test_masks_of_too_few_frames_are_refused(root: Path) -> None:
    (root / "training/dynamic_label_perfect/alley_1/frame_0001.png").unlink()
    with pytest.raises(InputError, match=r"expected 2 or 3 files .* found 1"):
        sequences(root)
