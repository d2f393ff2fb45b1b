"""`evaluate`: perfect scenes, known errors, subsets of frames, other sizes, invalid folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from dyn3r.assets.demo import demo_clip_folder
from dyn3r.errors import InputError
from dyn3r.evaluation.evaluate import compare, evaluate
from dyn3r.evaluation.truth import Truth, read_truth
from dyn3r.geometry.lens import distort
from dyn3r.io.clip import read_clip
from dyn3r.io.images import frame_mapping
from dyn3r.types import FrameMapping, Lens

DEMO = demo_clip_folder()


@dataclass(frozen=True)
class FakeScene:
    depth: np.ndarray
    T_world_camera: np.ndarray
    K: np.ndarray
    dynamic: np.ndarray
    mapping: FrameMapping
    names: tuple[str, ...]


def true_scene(mapping: FrameMapping, names: tuple[str, ...]) -> FakeScene:
    truth = read_truth(DEMO, mapping, names)
    return FakeScene(truth.depth, truth.T_world_camera, truth.K, truth.dynamic, mapping, names)


@pytest.fixture(scope="module")
def scene() -> FakeScene:
    clip = read_clip(DEMO / "frames", size=224)
    return true_scene(clip.mapping, clip.names)


@pytest.mark.slow
def test_the_scaled_ground_truth_is_perfect(scene: FakeScene) -> None:
    T = scene.T_world_camera.copy()
    T[:, :3, 3] *= 3
    result = evaluate(replace(scene, depth=3 * scene.depth, T_world_camera=T), DEMO)
    assert result.num_frames == 24
    assert result.scene.depth.abs_rel < 1e-6
    assert result.scene.depth_scale_shift.abs_rel < 1e-6
    assert result.scene.abs_rel_moving < 1e-6
    assert result.scene.trajectory.ate < 1e-9
    assert result.scene.trajectory.scale == pytest.approx(1 / 3)
    assert result.scene.masks.j_mean == result.scene.masks.f_mean == 1
    assert result.scene.focal_error == pytest.approx(0, abs=1e-9)
    assert result.scene.travel_over_depth == pytest.approx(result.true_travel_over_depth)
    # Properties of the clip: trajectory 0.957 m, median depth 3.95 m, 11 % dynamic pixels.
    assert result.true_travel_over_depth == pytest.approx(0.957 / 3.95, rel=0.01)
    assert scene.dynamic.mean() == pytest.approx(0.11, abs=0.01)


def test_the_baseline_is_constant_depth_and_a_static_camera(scene: FakeScene) -> None:
    baseline = evaluate(scene, DEMO).baseline
    median = np.median(scene.depth)
    assert baseline.depth.abs_rel == pytest.approx(
        np.abs(median / scene.depth - 1).mean(), rel=1e-3
    )
    centres = scene.T_world_camera[:, :3, 3]
    spread = np.sqrt(((centres - centres.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert baseline.trajectory.ate == pytest.approx(spread)
    assert baseline.masks.recall == 0
    assert baseline.focal_error is None


def test_known_errors(scene: FakeScene) -> None:
    worse = scene.depth.copy()
    worse[scene.dynamic] *= 2
    K = scene.K.copy()
    K[:, :2, :2] *= 1.1
    result = evaluate(replace(scene, depth=worse, K=K, dynamic=~scene.dynamic), DEMO).scene
    # The dynamic pixels are the nearest. Doubling their depth changes the median a little.
    assert result.abs_rel_moving == pytest.approx(1, abs=0.05)
    assert result.abs_rel_static < 0.05
    assert result.focal_error == pytest.approx(0.1)
    assert result.masks.j_mean == result.masks.precision == 0


def test_a_subset_of_frames_matches_by_name(scene: FakeScene) -> None:
    keep = [3, 8, 20]
    part = FakeScene(
        scene.depth[keep],
        scene.T_world_camera[keep],
        scene.K[keep],
        scene.dynamic[keep],
        scene.mapping,
        tuple(scene.names[k] for k in keep),
    )
    result = evaluate(part, DEMO)
    assert result.num_frames == 3
    assert result.scene.depth.abs_rel < 1e-6
    from_video = replace(part, names=tuple(f"frame_{k:06d}" for k in keep))
    assert evaluate(from_video, DEMO).scene.masks.j_mean == 1
    shifted = replace(part, names=tuple(f"frame_{k + 1:06d}" for k in keep))
    assert evaluate(shifted, DEMO).scene.masks.j_mean < 0.95


def test_ground_truth_is_aligned_with_the_frames(scene: FakeScene) -> None:
    """World points of static pixels agree between crops of different sizes."""
    other = true_scene(frame_mapping((240, 320), size=128, square_crop=True), scene.names)
    u, v, d = 40, 60, other.depth[5, 60, 40]
    point = d * np.linalg.inv(other.K[5]) @ [u, v, 1]
    uvw = scene.K[5] @ point
    column, row = np.round(uvw[:2] / uvw[2]).astype(int)
    assert scene.depth[5, row, column] == pytest.approx(point[2], rel=0.02)
    source_uv = scene.mapping.to_source(uvw[:2] / uvw[2])
    np.testing.assert_allclose(
        source_uv, other.mapping.to_source(np.array([40.0, 60.0])), atol=1e-6
    )


def test_one_frame(scene: FakeScene) -> None:
    one = true_scene(scene.mapping, scene.names[:1])
    result = evaluate(one, DEMO)
    assert result.scene.trajectory.rotation_deg < 1e-6
    assert " - " in result.table().replace("\n", " ") + " "


@pytest.mark.slow
def test_table_and_json(scene: FakeScene) -> None:
    result = evaluate(scene, DEMO)
    lines = result.table().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "24 frames" in lines[0]
    values = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert values["scene"]["masks"]["j_mean"] == 1
    assert values["baseline"]["masks"]["precision"] is None
    assert values["baseline"]["depth"]["abs_rel"] > 0.1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("depth.npz", "dynamic.npz", "camera.npz"):
        shutil.copy(DEMO / name, tmp_path)
    return tmp_path


def test_a_folder_without_images_matches_by_number(scene: FakeScene, folder: Path) -> None:
    part = true_scene(scene.mapping, scene.names[5:7])
    assert evaluate(part, folder).scene.masks.j_mean == 1


@pytest.mark.parametrize("name", ["depth.npz", "dynamic.npz", "camera.npz"])
def test_missing_and_damaged_files(scene: FakeScene, folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"hello")
    with pytest.raises(InputError, match=rf"{name} is no zip archive"):
        evaluate(scene, folder)
    np.savez(folder / name, other=np.zeros(3))
    with pytest.raises(InputError, match="has no array"):
        evaluate(scene, folder)


def test_ground_truth_that_does_not_fit(scene: FakeScene, folder: Path) -> None:
    with np.load(folder / "dynamic.npz") as arrays:
        masks = arrays["mask"]
    np.savez(folder / "dynamic.npz", mask=masks[:20])
    with pytest.raises(InputError, match="does not fit together"):
        evaluate(scene, folder)
    np.savez(folder / "dynamic.npz", mask=masks)
    with pytest.raises(InputError, match="same clip"):
        evaluate(replace(scene, mapping=frame_mapping((480, 640), size=224)), folder)
    with pytest.raises(InputError, match="has nothing for 1 of the clip's 25 frames"):
        evaluate(replace(scene, names=tuple(f"x{k}" for k in range(100, 125))), folder)
    np.savez(folder / "camera.npz", cam2world=np.tile(np.eye(4), (24, 1, 1)), K=np.eye(4))
    with pytest.raises(InputError, match="K in"):
        evaluate(scene, folder)


@pytest.mark.parametrize(
    ("files", "left_out"),
    [
        (("dynamic.npz",), ("depth", "cameras", "intrinsics")),
        (("camera.npz",), ("depth", "masks")),
        (("depth.npz",), ("cameras", "intrinsics", "masks")),
        (("depth.npz", "camera.npz"), ("masks",)),
    ],
)
def test_what_nobody_knows_is_left_out_by_name(
    scene: FakeScene, tmp_path: Path, files: tuple[str, ...], left_out: tuple[str, ...]
) -> None:
    for name in files:
        shutil.copy(DEMO / name, tmp_path)
    result = evaluate(scene, tmp_path)
    whole = evaluate(scene, DEMO)
    assert result.left_out == left_out
    for group, name in (("masks", "masks"), ("depth", "depth"), ("trajectory", "cameras")):
        expected = None if name in left_out else getattr(whole.scene, group)
        assert getattr(result.scene, group) == expected
    assert result.table().splitlines()[-1] == f"no truth for: {', '.join(left_out)}"
    json.dumps(result.to_json(), allow_nan=False)


def test_the_truth_is_undistorted_as_the_frames_are(tmp_path: Path) -> None:
    h, w = hw = (96, 128)
    lenses = tuple(
        Lens("perspective", (100, 100), (60, 50), (k1,), zoom=zoom)
        for k1, zoom in ((-0.2, 1.3), (0.1, 1.0))
    )
    mapping = replace(frame_mapping(hw, size=128), frame_lenses=lenses)
    v, u = np.mgrid[:h, :w]
    depth = np.tile(1 + u + v / 1000, (2, 1, 1)).astype(np.float32)
    K = np.array([[101.0, 0, 62], [0, 102, 47], [0, 0, 1]])
    np.savez(tmp_path / "depth.npz", depth=depth)
    np.savez(tmp_path / "dynamic.npz", mask=depth > 40)
    np.savez(tmp_path / "camera.npz", K=K, cam2world=np.tile(np.eye(4), (2, 1, 1)))
    truth = read_truth(tmp_path, mapping, ("frame_000000", "frame_000001"))
    for t, lens in enumerate(lenses):
        where = np.array([[20.0, 15], [110, 80], [64, 48]])
        column, row = where.astype(int).T
        x, y = distort(lens, where).T
        np.testing.assert_allclose(truth.depth[t, row, column], 1 + x + y / 1000, atol=0.51)
        np.testing.assert_array_equal(truth.dynamic[t], truth.depth[t] > 40)
        # a ray of the source, and the pixel of the undistorted source where it is seen
        ray = np.array([0.1, -0.2, 1])
        pixel = truth.K[t] @ ray
        source = lens.K @ np.array([*((K @ ray)[:2] - [60, 50]) / 100, 1])
        np.testing.assert_allclose(pixel, source, atol=1e-9)


def test_a_folder_without_truth_is_refused(scene: FakeScene, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no ground truth: expected camera\.npz"):
        evaluate(scene, tmp_path)


def test_cameras_whose_pose_is_unknown_are_left_out(scene: FakeScene) -> None:
    T = scene.T_world_camera.copy()
    T[5] = np.nan
    wrong = scene.T_world_camera.copy()
    wrong[5, :3, 3] += 10
    result = compare(replace(scene, T_world_camera=wrong), Truth(T_world_camera=T)).scene
    assert result.trajectory is not None
    assert result.trajectory.ate < 1e-9


def test_cameras_without_intrinsics(scene: FakeScene, folder: Path) -> None:
    np.savez(folder / "camera.npz", cam2world=scene.T_world_camera)
    result = evaluate(scene, folder)
    assert result.left_out == ("intrinsics",)
    assert result.scene.focal_error is None
    assert result.scene.trajectory is not None
