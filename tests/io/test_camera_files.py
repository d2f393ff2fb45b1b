"""Known cameras: our own exports read back, other layouts, partial matches, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dyn3r.errors import InputError
from dyn3r.io.camera_files import known_field_of_view
from dyn3r.scene import Scene
from dyn3r.scene.known_cameras import read_cameras
from dyn3r.types import Clip
from tests.factories import tiny_scene


@pytest.fixture
def scene() -> Scene:
    turns = Rotation.from_euler("xyz", [[5 * t, 10 * t, -3 * t] for t in range(4)], degrees=True)
    T = np.tile(np.eye(4), (4, 1, 1))
    T[:, :3, :3] = turns.as_matrix()
    T[:, :3, 3] = [[0.3 * t, 0.1 * t**2, -0.2 * t] for t in range(4)]
    K = np.array([[40.0, 0, 22.3], [0, 41.0, 17.1], [0, 0, 1]])
    return tiny_scene(T_world_camera=T, K=np.tile(K, (4, 1, 1)))


@pytest.fixture
def clip(scene: Scene) -> Clip:
    return Clip(
        scene.images, scene.mapping, scene.names, scene.times_s, scene.names[0], float(scene.fps)
    )


def relative(T: np.ndarray) -> np.ndarray:
    """Cameras seen from the first one, which no choice of world changes."""
    return np.linalg.inv(T[0]) @ T


@pytest.mark.parametrize("layout", ["nerfstudio", "colmap-text", "colmap", "tum", "kitti", "scene"])
def test_exports_come_back(scene: Scene, clip: Clip, layout: str, tmp_path: Path) -> None:
    if layout.startswith("colmap"):
        pytest.importorskip("pycolmap")
    if layout == "scene":
        path = scene.save(tmp_path / "scene.dyn3r")
    else:
        path = scene.export(layout, tmp_path / ("path.txt" if layout in ("tum", "kitti") else "x"))
    known = read_cameras(path, clip)
    assert known.T_world_camera is not None
    T, expected = relative(known.T_world_camera), relative(scene.T_world_camera)
    np.testing.assert_allclose(T[:, :3, :3], expected[:, :3, :3], atol=2e-5)
    factor = np.linalg.norm(T[1:, :3, 3]) / np.linalg.norm(expected[1:, :3, 3])
    np.testing.assert_allclose(T[:, :3, 3], factor * expected[:, :3, 3], atol=2e-5 * factor)
    if layout in ("tum", "kitti"):
        assert known.K is None
    else:
        assert known.K is not None
        np.testing.assert_allclose(known.K, scene.K, atol=1e-5)
    assert known.fix_K
    assert known.fix_T


def test_frames_without_a_camera_stay_unknown(scene: Scene, clip: Clip, tmp_path: Path) -> None:
    path = scene.export("nerfstudio", tmp_path / "ns") / "transforms.json"
    content = json.loads(path.read_text())
    del content["frames"][1]
    path.write_text(json.dumps(content))
    known = read_cameras(path, clip, fixed=False)
    assert known.T_world_camera is not None
    assert np.isfinite(known.T_world_camera[[0, 2, 3]]).all()
    assert np.isnan(known.T_world_camera[1]).all()
    assert not known.fix_T


def test_cameras_of_smaller_pictures(scene: Scene, clip: Clip, tmp_path: Path) -> None:
    height, width = clip.mapping.source_hw
    K = scene.K_source()[0]
    lens = {"w": width // 2, "h": height // 2, "fl_x": K[0, 0] / 2, "fl_y": K[1, 1] / 2}
    lens |= {"cx": (K[0, 2] + 0.5) / 2, "cy": (K[1, 2] + 0.5) / 2}
    frames = [{"file_path": f"{n}.png", "transform_matrix": np.eye(4).tolist()} for n in clip.names]
    (tmp_path / "transforms.json").write_text(json.dumps({**lens, "frames": frames}))
    known = read_cameras(tmp_path, clip)
    np.testing.assert_allclose(known.K, scene.K, atol=1e-9)
    (tmp_path / "transforms.json").write_text(json.dumps({**lens, "h": width, "frames": frames}))
    with pytest.raises(InputError, match="the source has"):
        read_cameras(tmp_path, clip)


def test_times_are_matched_within_half_a_frame(clip: Clip, tmp_path: Path) -> None:
    rows = [f"{t} {i} 0 0 0 0 0 1" for i, t in enumerate((-0.2, 0.04, 0.17, 0.39))]
    (tmp_path / "path.txt").write_text("# time x y z quaternion\n" + "\n".join(rows))
    known = read_cameras(tmp_path / "path.txt", clip)
    assert known.T_world_camera is not None
    np.testing.assert_array_equal(known.T_world_camera[:, 0, 3], [1, np.nan, 2, np.nan])


def test_arrays_by_name_and_by_order(scene: Scene, clip: Clip, tmp_path: Path) -> None:
    K = scene.K_source()[0]
    np.savez(tmp_path / "k.npz", K=K)
    known = read_cameras(tmp_path / "k.npz", clip)
    assert known.T_world_camera is None
    np.testing.assert_allclose(known.K, scene.K)
    reverse = np.arange(4)[::-1]
    np.savez(
        tmp_path / "all.npz", cam2world=scene.T_world_camera[reverse], K=K,
        names=np.array(scene.names)[reverse],
    )  # fmt: skip
    known = read_cameras(tmp_path / "all.npz", clip)
    np.testing.assert_allclose(known.T_world_camera, scene.T_world_camera)
    np.savez(tmp_path / "few.npz", cam2world=scene.T_world_camera[:3])
    with pytest.raises(InputError, match="holds 3 frames where the clip has 4"):
        read_cameras(tmp_path / "few.npz", clip)


def test_field_of_view(clip: Clip) -> None:
    known = known_field_of_view(90.0, clip)
    assert known.K is not None
    height, width = clip.mapping.source_hw
    K = clip.mapping.K_to_source(known.K[0])
    np.testing.assert_allclose(K[[0, 1], [0, 1]], width / 2)
    np.testing.assert_allclose(K[:2, 2], [(width - 1) / 2, (height - 1) / 2])
    with pytest.raises(InputError, match="from 1 to 170"):
        known_field_of_view(0.0, clip)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.json", None, "does not exist"),
        ("t.json", "{", "is not JSON"),
        ("t.json", '{"frames": []}', "lists no frames"),
        ("t.json", '{"frames": [{"file_path": "a"}]}', "can't be read as cameras: KeyError"),
        ("t.json", "[1, 2]", "lists no frames"),
        ("p.txt", "1 2 3\n", "no camera path"),
        ("p.txt", "1 2 3 4 5 6 7 x\n", "words that are no numbers"),
        ("p.txt", "0 1 2 3 0 0 0 0\n", "no rotation"),
        ("p.txt", "900 1 2 3 0 0 0 1\n", "holds 1 frame where the clip has 4"),
        ("k.npz", "not an archive", "no zip archive"),
    ],
)
def test_what_is_refused(
    clip: Clip, name: str, content: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_cameras(path, clip)


def test_matrices_that_are_no_cameras_are_refused(clip: Clip, tmp_path: Path) -> None:
    T = np.tile(np.eye(4), (4, 1, 1))
    for bad in (2 * T, T * [1, -1, 1, 1]):
        np.savez(tmp_path / "bad.npz", cam2world=bad)
        with pytest.raises(InputError, match="rotation and a translation"):
            read_cameras(tmp_path / "bad.npz", clip)
    np.savez(tmp_path / "bad.npz", cam2world=T[0])
    with pytest.raises(InputError, match="shape"):
        read_cameras(tmp_path / "bad.npz", clip)
    np.savez(tmp_path / "bad.npz", other=T)
    with pytest.raises(InputError, match="neither"):
        read_cameras(tmp_path / "bad.npz", clip)
    with pytest.raises(InputError, match="holds no cameras"):
        read_cameras(tmp_path, clip)
