"""Camera files of other programs: what they say of axes, quaternions, focal lengths and names."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

import dyn3r.assets.demo
from dyn3r.errors import InputError
from dyn3r.io.clip import read_clip
from dyn3r.scene import Scene
from dyn3r.scene.known_cameras import known_cameras, read_cameras
from dyn3r.types import Clip, Lens
from tests.factories import tiny_scene

N = 5


@pytest.fixture
def scene() -> Scene:
    turns = Rotation.from_euler("xyz", [[2 * t, 7 * t, -3 * t] for t in range(N)], degrees=True)
    T = np.tile(np.eye(4), (N, 1, 1))
    T[:, :3, :3] = turns.as_matrix()
    T[:, :3, 3] = [[0.3 * t, 0.1 * t**2, -0.2 * t] for t in range(N)]
    return tiny_scene(N, T_world_camera=T)


@pytest.fixture
def clip(scene: Scene) -> Clip:
    return Clip(scene.images, scene.mapping, scene.names, scene.times_s, "clip.mp4", 10.0)


def cameras_line(clip: Clip) -> str:
    (note,) = [note for note in clip.report.notes if note.topic == "cameras"]
    return note.text


def tum(T: np.ndarray, stamps, order: str = "xyzw", digits: int = 9) -> str:
    quat = Rotation.from_matrix(T[:, :3, :3]).as_quat()
    quat = np.roll(quat, 1, axis=1) if order == "wxyz" else quat
    rows = np.concatenate([np.array(stamps, float)[:, None], T[:, :3, 3], quat], axis=1)
    return "\n".join(" ".join(f"{x:.{digits}f}" for x in row) for row in rows) + "\n"


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["xyzw", "wxyz"])
@pytest.mark.parametrize("as_folder", [True, False])
def test_our_official_export_comes_back(scene, clip, tmp_path, order, as_folder):
    every_third = tuple(f"frame_{3 * t:06d}" for t in range(N))
    scene, clip = replace(scene, names=every_third), replace(clip, names=every_third)
    folder = scene.export("official", tmp_path / "out", quaternion=order)
    known = known_cameras(folder if as_folder else folder / "pred_traj.txt", clip)
    np.testing.assert_allclose(known.priors.T_world_camera, scene.T_world_camera, atol=1e-6)
    assert cameras_line(known.clip).startswith("5 of 5 frames, by place in the clip")
    if as_folder:
        np.testing.assert_allclose(known.priors.K, scene.K, atol=1e-5)


def test_the_published_program_writes_w_first(scene, clip, tmp_path):
    path = tmp_path / "pred_traj.txt"
    path.write_text(tum(scene.T_world_camera, range(N), "wxyz"))
    known = known_cameras(path, clip)
    np.testing.assert_allclose(known.priors.T_world_camera, scene.T_world_camera, atol=1e-6)
    assert cameras_line(known.clip) == "5 of 5 frames, by number; quaternions with w first"
    path.write_text(tum(scene.T_world_camera, range(N)))  # as our earlier versions wrote it
    priors = read_cameras(path, clip)
    np.testing.assert_allclose(priors.T_world_camera, scene.T_world_camera, atol=1e-6)


def test_an_unclear_order_of_quaternions_is_refused(scene, clip, tmp_path):
    path = tmp_path / "path.txt"
    path.write_text(tum(scene.T_world_camera, scene.times_s, "wxyz"))
    with pytest.raises(InputError, match=r"--known\.quaternion xyzw or wxyz"):
        read_cameras(path, clip)
    known = read_cameras(path, clip, quaternion="wxyz")
    np.testing.assert_allclose(known.T_world_camera, scene.T_world_camera, atol=1e-6)
    upside_down = read_cameras(path, clip, quaternion="xyzw")  # a camera in a y-up world
    assert upside_down.T_world_camera is not None
    np.testing.assert_allclose(upside_down.T_world_camera[0, 1, 1], -1)
    path.write_text("# timestamp tx ty tz qw qx qy qz\n" + path.read_text())
    known = read_cameras(path, clip)
    np.testing.assert_allclose(known.T_world_camera, scene.T_world_camera, atol=1e-6)
    turned = scene.T_world_camera.copy()
    turned[:, :3, :3] = Rotation.from_rotvec([0.9, 0.7, -0.8]).as_matrix() @ turned[:, :3, :3]
    (tmp_path / "pred_traj.txt").write_text(tum(turned, range(N)))
    with pytest.raises(InputError, match=r"--known\.quaternion"):
        read_cameras(tmp_path / "pred_traj.txt", clip)
    path.write_text(tum(turned, scene.times_s))  # the order of the format
    np.testing.assert_allclose(read_cameras(path, clip).T_world_camera, turned, atol=1e-6)


@pytest.mark.parametrize("order", ["xyzw", "wxyz"])
@pytest.mark.parametrize("first_is_world", [True, False])
def test_images_show_the_order_of_quaternions(tmp_path, order, first_is_world):
    demo = Path(dyn3r.assets.demo.__file__).parent / "living_room_walk"
    clip = read_clip(demo / "frames", size=160, num_frames=9)
    with np.load(demo / "camera.npz") as arrays:
        T = arrays["cam2world"][:9]
    T = np.linalg.inv(T[0]) @ T if first_is_world else T
    (tmp_path / "a.txt").write_text(tum(T, range(9), order))
    known = known_cameras(tmp_path / "a.txt", clip)
    np.testing.assert_allclose(known.priors.T_world_camera, T, atol=1e-6)
    assert ("w first" in cameras_line(known.clip)) == (order == "wxyz")


def test_a_folder_of_tum_rgb_d(scene, clip, tmp_path):
    start = 1305031102.175304
    names = tuple(f"{start + t / 30:.6f}.png" for t in range(N))
    clip = replace(clip, names=names, source="rgb", times_s=np.arange(N) / 24)
    dense = np.arange(-10, 40) / 100
    T = np.tile(np.eye(4), (len(dense), 1, 1))
    T[:, 0, 3] = dense
    comments = "# ground truth trajectory\n# timestamp tx ty tz qx qy qz qw\n"
    (tmp_path / "groundtruth.txt").write_text(comments + tum(T, start + dense, digits=4))
    known = known_cameras(tmp_path, clip)
    assert known.priors.T_world_camera is not None
    x = known.priors.T_world_camera[:, 0, 3]
    np.testing.assert_allclose(x, np.arange(N) / 30, atol=0.0051)
    assert cameras_line(known.clip) == "5 of 5 frames, by time stamp of the images"


def test_one_line_is_no_path(clip, tmp_path):
    (tmp_path / "kitti.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    with pytest.raises(InputError, match="1 frame where the clip has 5"):
        read_cameras(tmp_path / "kitti.txt", clip)
    np.savez(tmp_path / "one.npz", cam2world=np.eye(4)[None])
    with pytest.raises(InputError, match="1 frame where the clip has 5"):
        read_cameras(tmp_path / "one.npz", clip)


# --- transforms.json -----------------------------------------------------------------------------


def write_transforms(folder: Path, clip: Clip, names=None, **camera) -> Path:
    frames = [
        {"file_path": name, "transform_matrix": np.eye(4).tolist()} for name in names or clip.names
    ]
    (folder / "transforms.json").write_text(json.dumps({**camera, "frames": frames}))
    return folder / "transforms.json"


def test_an_angle_without_a_size_is_that_of_the_source(clip, tmp_path):
    height, width = clip.mapping.source_hw
    path = write_transforms(tmp_path, clip, camera_angle_x=0.9)
    K = clip.mapping.K_to_source(read_cameras(path, clip).K)
    np.testing.assert_allclose(K[:, [0, 1], [0, 1]], width / 2 / np.tan(0.45))
    np.testing.assert_allclose(K[:, :2, 2], [[(width - 1) / 2, (height - 1) / 2]] * N)
    path = write_transforms(tmp_path, clip, camera_angle_x=0.9, camera_angle_y=0.7)
    K = clip.mapping.K_to_source(read_cameras(path, clip).K)
    np.testing.assert_allclose(K[:, 1, 1], height / 2 / np.tan(0.35))
    path = write_transforms(tmp_path, clip, fl_x=90.0)  # no size and no centre
    K = clip.mapping.K_to_source(read_cameras(path, clip).K)
    np.testing.assert_allclose(K[:, 0, 0], 90)
    np.testing.assert_allclose(K[:, 0, 2], (width - 1) / 2)


def test_paths_of_windows(clip, tmp_path):
    names = [f"..\\images\\{name}.JPG" for name in clip.names]
    path = write_transforms(tmp_path, clip, names, fl_x=90.0)
    assert cameras_line(known_cameras(path, clip).clip) == "5 of 5 frames, by name"


# --- phones --------------------------------------------------------------------------------------


def opengl(T: np.ndarray) -> np.ndarray:
    return T @ np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.mark.parametrize("folder", ["keyframes/cameras", "keyframes/corrected_cameras", "cameras"])
def test_polycam(scene, clip, tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    names = tuple(f"17000{t}.jpg" for t in range(N))
    K = scene.K_source()[0]
    for name, T in zip(names, opengl(scene.T_world_camera)):
        camera = {f"t_{i}{j}": T[i, j] for i in range(3) for j in range(4)}
        camera |= {"fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2] + 0.5, "cy": K[1, 2] + 0.5}
        camera |= {"width": clip.mapping.source_hw[1], "height": clip.mapping.source_hw[0]}
        (tmp_path / folder / f"{name[:-4]}.json").write_text(json.dumps(camera))
    known = known_cameras(tmp_path, replace(clip, names=names))
    np.testing.assert_allclose(known.priors.T_world_camera, scene.T_world_camera, atol=1e-12)
    np.testing.assert_allclose(known.priors.K, scene.K, atol=1e-9)
    assert cameras_line(known.clip) == "5 of 5 frames, by name; Polycam"


def test_record3d(scene, clip, tmp_path):
    T, K = opengl(scene.T_world_camera), scene.K_source()[0].copy()
    K[:2, 2] += 0.5
    poses = np.concatenate([Rotation.from_matrix(T[:, :3, :3]).as_quat(), T[:, :3, 3]], axis=1)
    height, width = clip.mapping.source_hw
    content = {"w": width, "h": height, "K": K.T.reshape(-1).tolist(), "poses": poses.tolist()}
    (tmp_path / "metadata").write_text(json.dumps(content))  # as in the packed recording
    clip = replace(clip, names=tuple(f"{t}.jpg" for t in range(N)))
    known = known_cameras(tmp_path, clip)
    np.testing.assert_allclose(known.priors.T_world_camera, scene.T_world_camera, atol=1e-9)
    np.testing.assert_allclose(known.priors.K, scene.K, atol=1e-9)
    np.testing.assert_array_equal(read_cameras(tmp_path / "metadata", clip).K, known.priors.K)
    content["poses"] = [[1, 2, 3]]
    (tmp_path / "metadata.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="lists of 7 numbers"):
        read_cameras(tmp_path, clip)


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("odometry.csv", "Stray Scanner"),
        ("lowres_wide.traj", "ARKitScenes"),
        ("frame_00000.json", "ARKit"),
        ("a.r3d", "Record3D"),
    ],
)
def test_programs_that_are_not_read_are_named(clip, tmp_path, name, program):
    (tmp_path / name).write_text("")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(InputError, match=rf"{program}.*transforms\.json"):
            read_cameras(path, clip)
    (tmp_path / "a.json").write_text('{"cameraPoseARFrame": [1, 0, 0, 0]}')
    with pytest.raises(InputError, match=r"ARKit \(3D Scanner App\)"):
        read_cameras(tmp_path / "a.json", clip)
    (tmp_path / "a.json").write_text('{"t_00": 1}')
    with pytest.raises(InputError, match="one camera of Polycam: give the folder"):
        read_cameras(tmp_path / "a.json", clip)


# --- lenses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "camera",
    [
        {"camera_model": "EQUIRECTANGULAR"},
        {"camera_model": "FISHEYE624", "distortion_params": [0.1] * 6},
        {"camera_model": "OPENCV", "k1": 0.1, "k5": 0.1},
        {"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "p1": 0.1},
    ],
)
def test_other_lens_models_are_refused_by_name(clip, tmp_path, camera):
    path = write_transforms(tmp_path, clip, fl_x=90.0, **camera)
    name = camera["camera_model"]
    with pytest.raises(InputError, match=rf"lens model .?{name}.*not supported.*undistort"):
        known_cameras(path, clip)


def test_lens_distortion_is_removed_and_said(clip, tmp_path):
    path = write_transforms(tmp_path, clip, fl_x=90.0, k1=-0.2, k2=0.05)
    known = known_cameras(path, clip)
    lens = known.clip.mapping.lens
    assert lens is not None
    assert lens.radial[:2] == (-0.2, 0.05)
    assert not np.array_equal(known.clip.images, clip.images)
    np.testing.assert_allclose(known.clip.mapping.K_to_source(known.priors.K)[0], lens.K)
    (note,) = [note for note in known.clip.report.notes if note.topic == "lens"]
    assert note.text.startswith("perspective distortion removed")
    with pytest.raises(InputError, match="known_cameras"):
        read_cameras(path, clip)
    np.testing.assert_array_equal(read_cameras(path, known.clip).K, known.priors.K)
    for zero in ({}, {"k1": 0.0, "p2": 0.0}, {"camera_model": "SIMPLE_PINHOLE"}):
        path = write_transforms(tmp_path, clip, fl_x=90.0, **zero)
        assert known_cameras(path, clip).clip.mapping == clip.mapping


def test_distortion_that_cannot_be_undone_is_refused(clip, tmp_path):
    path = write_transforms(tmp_path, clip, k1=-0.2)
    with pytest.raises(InputError, match="without a focal length"):
        known_cameras(path, clip)
    path = write_transforms(tmp_path, clip, fl_x=90.0, k1=-1e5)
    with pytest.raises(InputError, match="too strong"):
        known_cameras(path, clip)
    np.savez(tmp_path / "k.npz", K=np.diag([90.0, 90.0, 1.0]), dist=[0.1, 0, 0, 0])
    with pytest.raises(InputError, match="lens distortion"):
        known_cameras(tmp_path / "k.npz", clip)


def test_every_frame_is_undistorted_with_its_own_lens(scene, clip, tmp_path):
    path = write_transforms(tmp_path, clip, fl_x=90.0, k1=-0.1)
    content = json.loads(path.read_text())
    content["frames"][2] |= {"k1": -0.2, "fl_x": 95.0}
    del content["frames"][1]  # without a camera: the lens of a frame beside it
    path.write_text(json.dumps(content))
    known = known_cameras(path, clip)
    mapping = known.clip.mapping
    assert mapping.lens is None
    assert [lens.radial[0] for lens in mapping.frame_lenses] == [-0.1, -0.1, -0.2, -0.1, -0.1]
    alone = known_cameras(write_transforms(tmp_path, clip, fl_x=95.0, k1=-0.2), clip)
    np.testing.assert_array_equal(known.clip.images[2], alone.clip.images[2])
    assert known.priors.K is not None
    np.testing.assert_allclose(known.priors.K[2], alone.priors.K[2])
    np.testing.assert_allclose(known.priors.K[0], known.priors.K[4])
    assert "perspective distortion removed from the frames, 2 lenses" in str(known.clip.report)
    assert known.clip.part(slice(2, 4)).mapping.frame_lenses == mapping.frame_lenses[2:4]

    scene = replace(
        scene, mapping=mapping, images=known.clip.images, K=known.priors.K[[0, 0, 2, 3, 4]]
    )
    saved = scene.save(tmp_path / "scene.dyn3r")
    assert Scene.load(saved).mapping == mapping
    again = known_cameras(saved, clip)
    np.testing.assert_array_equal(again.clip.images, known.clip.images)
    np.testing.assert_allclose(again.priors.K, scene.K, atol=1e-9)


def test_a_scene_of_undistorted_frames_undistorts_the_next_clip(scene, clip, tmp_path):
    path = write_transforms(tmp_path, clip, fl_x=90.0, k1=-0.2)
    known = known_cameras(path, clip).clip
    scene = replace(scene, mapping=known.mapping, images=known.images)
    saved = scene.save(tmp_path / "scene.dyn3r")
    assert Scene.load(saved).mapping == known.mapping
    again = known_cameras(saved, clip)
    np.testing.assert_array_equal(again.clip.images, known.images)
    np.testing.assert_allclose(again.priors.K, scene.K, atol=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "FOV"},
        {"focal_xy": [90]},
        {"focal_xy": [0, 90]},
        {"radial": ["a"]},
        {"radial": [1e300]},
        {"radial": [0.1] * 99},
        {"zoom": 0.5},
        {"zoom": None},
        {"tangential": 3},
    ],
)
def test_a_damaged_lens_of_a_scene_is_refused(scene, clip, tmp_path, change):
    lens = Lens("perspective", (90.0, 90.0), (50.0, 60.0), (-0.2,))
    path = replace(scene, mapping=replace(scene.mapping, lens=lens)).save(tmp_path / "a.dyn3r")
    bad = tmp_path / "bad.dyn3r"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bad, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "scene.json":
                header = json.loads(content)
                header["mapping"]["lens"] |= change
                content = json.dumps(header).encode()
            new.writestr(name, content)
    with pytest.raises(InputError, match=r"bad\.dyn3r"):
        Scene.load(bad)


def test_source_images_of_exports_are_undistorted(clip, tmp_path):
    """An export at source resolution has the undistorted source images that fit its cameras."""
    from dyn3r.export.source_images import read_source_images
    from dyn3r.io.images import frame_mapping, prepare_image

    v, u = np.mgrid[:96, :128]
    board = (((u // 12 + v // 12) % 2) * 160 + 40).astype(np.uint8)
    image = Image.fromarray(np.stack([board] * 3, axis=-1))
    (tmp_path / "source").mkdir()
    image.save(tmp_path / "source" / "a.png")
    mapping = frame_mapping((96, 128), size=64)
    frames = prepare_image(image, mapping)[None]
    clip = Clip(frames, mapping, ("a.png",), np.zeros(1), "source", 10.0)
    path = write_transforms(tmp_path, clip, fl_x=100.0, k1=-0.3)
    known = known_cameras(path, clip).clip
    scene = tiny_scene(1, h=48, w=64, images=known.images, mapping=known.mapping, names=clip.names)
    (found,) = read_source_images(scene, tmp_path / "source")
    again = prepare_image(Image.fromarray(found), mapping)
    error = np.abs(again.astype(float) - known.images[0])[2:-2, 2:-2].mean()
    assert error < 0.3 * np.abs(again.astype(float) - frames[0])[2:-2, 2:-2].mean()
