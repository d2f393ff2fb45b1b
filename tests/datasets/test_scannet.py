"""ScanNet: .sens, exported and prepared scenes; lost poses; damaged and hostile recordings."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dyn3r.datasets.scannet import UNUSABLE, sequences
from dyn3r.errors import InputError
from tests.datasets.plane_world import (
    PlaneWorld,
    numbers,
    plane_world,
    reprojection_error_px,
    save_png,
    save_text,
)

LOST = 4
"""The last frame of the world has no pose."""
NAME = "scene0707_00"


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    return plane_world(5)


def poses(world: PlaneWorld) -> np.ndarray:
    out = world.T_world_camera.copy()
    out[LOST] = -np.inf
    return out


def millimetres(world: PlaneWorld, i: int) -> np.ndarray:
    out = np.round(1000 * world.depth[i]).astype(np.uint16)
    out[:3, :5] = 0
    return out


def jpeg(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def jpeg_rgb(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg(image))))


def matrix(K: np.ndarray) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = K
    return out


def sens_header(world: PlaneWorld, frames: int, **changes) -> bytes:
    fields = {
        "version": 4,
        "name": b"StructureSensor",
        "codecs": (2, 1),
        "sides": (64, 48, 64, 48),
        "shift": 1000.0,
    } | changes
    matrices = np.stack([matrix(world.K), np.eye(4), matrix(world.K / 2), np.eye(4)])
    return (
        struct.pack("<IQ", fields["version"], len(fields["name"]))
        + fields["name"]
        + matrices.astype("<f4").tobytes()
        + struct.pack("<2i4I", *fields["codecs"], *fields["sides"])
        + struct.pack("<fQ", fields["shift"], frames)
    )


def sens_frame(pose: np.ndarray, color: bytes, depth: bytes) -> bytes:
    head = pose.astype("<f4").tobytes() + struct.pack("<4Q", 7, 8, len(color), len(depth))
    return head + color + depth


def sens_bytes(world: PlaneWorld) -> bytes:
    frames = [
        sens_frame(pose, jpeg(world.images[i]), zlib.compress(millimetres(world, i).tobytes()))
        for i, pose in enumerate(poses(world))
    ]
    imu = struct.pack("<Q", 0)
    return sens_header(world, len(world)) + b"".join(frames) + imu


def write_sens(root: Path, data: bytes) -> Path:
    file = root / f"scans/{NAME}/{NAME}.sens"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def write_exported(scene: Path, world: PlaneWorld, count: int) -> None:
    """Frames 0, 1, 2... without padding, which go round the world's frames."""
    for k in range(count):
        i = k % len(world)
        save_png(scene / f"color/{k}.png", world.images[i])  # lossless for the test
        save_png(scene / f"depth/{k}.png", millimetres(world, i))
        rows = poses(world)[i]
        save_text(scene / f"pose/{k}.txt", *(" ".join(f"{x:.6f}" for x in row) for row in rows))
    for name in ("intrinsic_color", "extrinsic_color", "intrinsic_depth", "extrinsic_depth"):
        K = matrix(world.K) if name == "intrinsic_color" else 2 * np.eye(4)
        save_text(scene / f"intrinsic/{name}.txt", *(numbers(row) for row in K))


def write_prepared(scene: Path, world: PlaneWorld) -> None:
    for i in range(len(world)):
        file = scene / f"color_90/frame_{i:04d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(world.images[i]))
        save_png(scene / f"depth_90/frame_{i:04d}.png", millimetres(world, i))
    save_text(scene / "pose_90.txt", *(numbers(T) for T in poses(world)))


def check(sequence, world: PlaneWorld, pose_tolerance: float) -> None:
    """Depth to half a millimetre, planted holes, poses with the lost one, reprojection."""
    for i in range(len(world)):
        depth, stored = sequence.depth(i), millimetres(world, i)
        np.testing.assert_array_equal(depth > 0, stored > 0)
        assert (depth == 0).sum() == 15
        np.testing.assert_allclose(depth[stored > 0], world.depth[i][stored > 0], atol=0.501e-3)
    T = sequence.T_world_camera
    np.testing.assert_allclose(T[:LOST], world.T_world_camera[:LOST], atol=pose_tolerance)
    assert np.isnan(T[LOST]).all()
    assert sequence.notes == (f"1 of {len(world)} frames have no pose",)
    assert reprojection_error_px(sequence.take(limit=LOST), plane_world(LOST)) < 0.05


def test_recording(world: PlaneWorld, tmp_path: Path) -> None:
    write_sens(tmp_path, sens_bytes(world))
    (sequence,) = sequences(tmp_path)
    assert (sequence.name, sequence.fps, sequence.unit) == (NAME, 30, "metre")
    assert sequence.frame_names == ("0", "1", "2", "3", "4")
    for i in (3, 0, 4):
        np.testing.assert_array_equal(sequence.image(i), jpeg_rgb(world.images[i]))
    np.testing.assert_allclose(sequence.K, np.tile(world.K, (5, 1, 1)), atol=1e-6)
    check(sequence, world, pose_tolerance=1e-6)


def test_recording_with_raw_depth_of_another_size(world: PlaneWorld, tmp_path: Path) -> None:
    depth = np.arange(12, dtype="<u2").reshape(3, 4)
    png = io.BytesIO()
    Image.fromarray(world.images[0]).save(png, "PNG")
    header = sens_header(world, 1, codecs=(1, 0), sides=(64, 48, 4, 3), shift=500.0, name=b"")
    write_sens(tmp_path, header + sens_frame(np.eye(4), png.getvalue(), depth.tobytes()))
    (sequence,) = sequences(tmp_path / "scans" / NAME)
    np.testing.assert_array_equal(sequence.image(0), world.images[0])
    np.testing.assert_allclose(sequence.depth(0), depth / 500, rtol=1e-6)
    assert sequence.notes == ()


def test_exported_scene_is_sorted_by_number(world: PlaneWorld, tmp_path: Path) -> None:
    write_exported(tmp_path / NAME, world, 12)
    (sequence,) = sequences(tmp_path)
    assert sequence.frame_names == tuple(str(k) for k in range(12))
    for k in (2, 10, 11):
        np.testing.assert_array_equal(sequence.image(k), world.images[k % 5])
    T = sequence.T_world_camera
    np.testing.assert_allclose(T[[10, 11]], world.T_world_camera[[0, 1]], atol=1e-6)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(T[:, 0, 0])), [4, 9])
    np.testing.assert_allclose(sequence.K, np.tile(world.K, (12, 1, 1)), atol=1e-6)
    check(replace(sequence.take(limit=5), notes=("1 of 5 frames have no pose",)), world, 1e-6)


def test_prepared_scene_has_no_intrinsics(world: PlaneWorld, tmp_path: Path) -> None:
    write_prepared(tmp_path / NAME, world)
    (sequence,) = sequences(tmp_path)
    assert sequence.K is None
    assert sequence.fps == 10
    assert sequence.frame_names[3] == "frame_0003"
    np.testing.assert_array_equal(sequence.image(2), jpeg_rgb(world.images[2]))
    check(sequence, world, pose_tolerance=1e-6)
    file = tmp_path / NAME / "intrinsic/intrinsic_color.txt"
    save_text(file, *(numbers(row) for row in matrix(world.K)))
    np.testing.assert_array_equal(sequences(tmp_path)[0].K[4], world.K)


def test_rawest_layout_goes_first(world: PlaneWorld, tmp_path: Path) -> None:
    scene = tmp_path / "scans" / NAME
    write_prepared(scene, world)
    write_exported(scene, world, 2)
    assert len(sequences(tmp_path)[0]) == 2
    write_sens(tmp_path, sens_bytes(world))
    assert len(sequences(tmp_path)[0]) == 5


def test_excluded_scenes_are_read_like_others(world: PlaneWorld, tmp_path: Path) -> None:
    write_prepared(tmp_path / UNUSABLE[0], world)
    assert [s.name for s in sequences(tmp_path)] == ["scene0711_00"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "is no .sens file of version 4: found version 3"),
        ({"codecs": (0, 1)}, "has colour codec 0 and depth codec 1, expected"),
        ({"codecs": (2, 2)}, "has colour codec 2 and depth codec 2, expected"),
        ({"sides": (64, 48, 1 << 31, 1 << 31)}, "depth of 2147483648x2147483648 pixels"),
        ({"sides": (0, 48, 64, 48)}, "pictures of 0x48"),
        ({"shift": 0.0}, "depth shift of 0.0"),
        ({"shift": float("nan")}, "depth shift of nan"),
    ],
)
def test_impossible_headers_are_refused(
    world: PlaneWorld, tmp_path: Path, changes: dict, message: str
) -> None:
    write_sens(tmp_path, sens_header(world, 1, **changes) + bytes(500))
    with pytest.raises(InputError, match=message):
        sequences(tmp_path)


def test_truncated_recordings_are_refused(world: PlaneWorld, tmp_path: Path) -> None:
    """Cut anywhere: one line, and never another error."""
    data = sens_bytes(world)[:-8]
    for length in [*range(0, 400, 7), *range(400, len(data), 1499), len(data) - 1]:
        write_sens(tmp_path, data[:length])
        with pytest.raises(InputError, match=r"ends within|is no .sens|cannot hold"):
            sequences(tmp_path)


def test_hostile_recordings_are_refused(world: PlaneWorld, tmp_path: Path) -> None:
    color, depth = jpeg(world.images[0]), zlib.compress(millimetres(world, 0).tobytes())
    header = sens_header(world, 1)

    write_sens(tmp_path, struct.pack("<IQ", 4, 1 << 62) + bytes(600))
    with pytest.raises(InputError, match="a sensor name of 4611686018427387904 bytes"):
        sequences(tmp_path)
    write_sens(tmp_path, sens_header(world, 1 << 60) + sens_frame(np.eye(4), color, depth))
    with pytest.raises(InputError, match=r"announces 1152921504606846976 frames, .* cannot hold"):
        sequences(tmp_path)
    write_sens(
        tmp_path, header + np.eye(4, dtype="<f4").tobytes() + struct.pack("<4Q", 0, 0, 1 << 63, 9)
    )
    with pytest.raises(InputError, match="frame 0: 9223372036854775808 bytes of colour"):
        sequences(tmp_path)
    write_sens(tmp_path, header + sens_frame(2 * np.eye(4), color, depth))
    with pytest.raises(InputError, match="pose 0 is no rotation and translation"):
        sequences(tmp_path)
    write_sens(tmp_path, sens_header(replace(world, K=world.K * np.nan), 1)
               + sens_frame(np.eye(4), color, depth))  # fmt: skip
    with pytest.raises(InputError, match="intrinsics that are infinite"):
        sequences(tmp_path)


def test_damaged_frames_are_refused_when_read(world: PlaneWorld, tmp_path: Path) -> None:
    color, depth = jpeg(world.images[0]), zlib.compress(millimetres(world, 0).tobytes())
    bomb = zlib.compress(bytes(20_000_000), 9)
    wrong_size = jpeg(world.images[0][:24])
    broken = [
        (color, bomb, "frame 0: depth does not fill 64x48 pixels"),
        (color, zlib.compress(bytes(100)), "frame 1: depth does not fill"),
        (color, b"no zlib", "frame 2: damaged depth"),
        (color[:200], depth, "frame 3: no readable picture"),
        (wrong_size, depth, "frame 4: the picture is 64x24, expected 64x48"),
        (b"GIF89a.....", depth, "frame 5: expected a JPEG or PNG of 11 bytes"),
    ]
    frames = [sens_frame(np.eye(4), c, d) for c, d, _ in broken]
    file = write_sens(tmp_path, sens_header(world, len(frames)) + b"".join(frames))
    (sequence,) = sequences(tmp_path)
    for i, (_, _, message) in enumerate(broken):
        with pytest.raises(InputError, match=message):
            (sequence.depth if i < 3 else sequence.image)(i)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match="ends within frame 5"):
        sequence.image(5)
    file.unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        sequence.depth(0)


def test_bad_roots_are_refused(world: PlaneWorld, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not ScanNet: expected .* found no such folder"):
        sequences(tmp_path / "nowhere")
    scene = tmp_path / NAME
    write_exported(scene, world, 3)
    (scene / "pose/1.txt").unlink()
    with pytest.raises(InputError, match="do not match by name: 3 of color, 3 of depth, 2 of pose"):
        sequences(tmp_path)
    save_text(scene / "pose/1.txt", "1 0 0 0", "0 1 0 0")
    with pytest.raises(InputError, match=r"1.txt has 2 rows of 4 numbers, expected 4"):
        sequences(tmp_path)
    (scene / "pose/1.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"1.txt cannot be read as text"):
        sequences(tmp_path)
    (scene / "intrinsic").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"incomplete scene: .* found color, depth, pose"):
        sequences(tmp_path)
    with pytest.raises(InputError, match=r"is not ScanNet: .* found extrinsic_color.txt"):
        sequences(tmp_path / "elsewhere")


def test_prepared_counts_must_agree(world: PlaneWorld, tmp_path: Path) -> None:
    scene = tmp_path / NAME
    write_prepared(scene, world)
    save_text(scene / "pose_90.txt", *(numbers(T) for T in world.T_world_camera[:3]))
    with pytest.raises(InputError, match="has 3 poses for 5 pictures of color_90"):
        sequences(tmp_path)
    save_png(scene / "depth_90/frame_0005.png", millimetres(world, 0))
    with pytest.raises(InputError, match="5 of color_90, 6 of depth_90"):
        sequences(tmp_path)
    (scene / "depth_90/frame_0005.png").unlink()
    save_png(scene / "depth_90/frame_0001.png", world.images[0])
    save_text(scene / "pose_90.txt", *(numbers(T) for T in world.T_world_camera))
    with pytest.raises(InputError, match="mode RGB, expected 16-bit depth"):
        sequences(tmp_path)[0].depth(1)
