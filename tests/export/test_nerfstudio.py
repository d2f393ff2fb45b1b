"""nerfstudio: projections, images, masks and depth against an analytic scene."""

from __future__ import annotations

import json

import numpy as np
import pytest
import trimesh
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.scene import Scene
from tests.export.known_world import (
    SOURCE_HW,
    known_scene,
    moves,
    pixels_off,
    source_xy,
    wall,
    write_source,
)
from tests.oracles.nerfstudio import load


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nerfstudio")
    scene = known_scene()
    scene.export("nerfstudio", folder / "out", source=write_source(folder / "source"))
    meta = json.loads((folder / "out" / "transforms.json").read_text())
    return scene, folder / "out", meta


def project_opengl(T_world_camera, K, points):
    """Projection by nerfstudio's camera: x right, y up, along -z; integers are pixel corners."""
    T = np.linalg.inv(T_world_camera)
    x, y, z = (points @ T[:3, :3].T + T[:3, 3]).T
    u = K[0][2] + K[0][0] * x / -z
    v = K[1][2] - K[1][1] * y / -z
    return np.stack([u, v], axis=1), -z


def project_nerfstudio(meta, frame, points):
    c = {**meta, **frame}
    K = [[c["fl_x"], 0, c["cx"]], [0, c["fl_y"], c["cy"]]]
    return project_opengl(np.array(frame["transform_matrix"]), K, points)


def to_world(meta, points):
    applied = np.array(meta["applied_transform"])
    return (points - applied[:, 3]) @ applied[:, :3] / meta["unit_per_scene_unit"]


def test_points_project_to_their_source_pixels(exported):
    _, folder, meta = exported
    height, width = SOURCE_HW
    assert (meta["h"], meta["w"]) == (height, width)
    cloud = trimesh.load(folder / meta["ply_file_path"])
    points = np.asarray(cloud.vertices)
    world = to_world(meta, points)
    for t, frame in enumerate(meta["frames"]):
        xy, z = project_nerfstudio(meta, frame, points)
        seen = (z > 0) & (xy > 0).all(axis=1) & (xy < [width, height]).all(axis=1)
        seen &= ~moves(t, *xy.T)
        assert seen.sum() > 1000
        off = pixels_off(t, xy[seen], world[seen])
        assert np.abs(off).max() < 0.1
        assert np.abs(off.mean(axis=0)).max() < 0.01


def test_images_masks_and_depth_are_those_of_the_source(exported):
    scene, folder, meta = exported
    x, y = source_xy()
    u, v = scene.mapping.from_source(np.stack([x, y], axis=-1) - 0.5).transpose(2, 0, 1)
    h, w = scene.size_hw
    cropped_away = (u < -0.6) | (v < -0.6) | (u > w - 0.4) | (v > h - 0.4)
    for t, frame in enumerate(meta["frames"]):
        with Image.open(folder / frame["file_path"]) as image:
            assert image.size == SOURCE_HW[::-1]
        use = np.asarray(Image.open(folder / frame["mask_path"])) > 0
        moving = moves(t, x, y) & ~cropped_away
        assert ((~use) & moving).sum() / ((~use) | moving).sum() > 0.97
        values = np.asarray(Image.open(folder / frame["depth_file_path"]))
        assert values.dtype == np.uint16
        depth = values * 0.001 / meta["unit_per_scene_unit"]
        static = (values > 0) & use & ~moving
        truth = wall(t, x, y)[1]
        assert static.mean() > 0.6
        assert np.quantile(np.abs(depth[static] / truth[static] - 1), 0.99) < 0.01
        assert np.median(np.abs(depth[moving & (values > 0)] - 2)) < 0.001
        assert (values[cropped_away] == 0).all()


def test_the_world_is_upright_and_the_cameras_are_rigid(exported):
    scene, _, meta = exported
    T = np.array([frame["transform_matrix"] for frame in meta["frames"]])
    np.testing.assert_allclose(np.linalg.det(T[:, :3, :3]), 1, atol=1e-9)
    np.testing.assert_allclose(T[:, 3], np.tile([0, 0, 0, 1], (4, 1)))
    assert (T[:, 2, 1] > 0.9).all()  # the cameras' up is the world's +z
    applied = np.array(meta["applied_transform"])
    np.testing.assert_allclose(applied[:, :3] @ applied[:, :3].T, np.eye(3), atol=1e-9)
    position = meta["unit_per_scene_unit"] * scene.T_world_camera[2, :3, 3]
    np.testing.assert_allclose(T[2, :3, 3], applied[:, :3] @ position + applied[:, 3], atol=1e-9)
    assert [frame["time"] for frame in meta["frames"]] == scene.times_s.tolist()


def in_unit(scene, unit):
    T = scene.T_world_camera.copy()
    T[:, :3, 3] *= unit
    return Scene(**{**vars(scene), "depth": scene.depth * unit, "T_world_camera": T})


@pytest.mark.parametrize("orientation", ["up", "none"])
@pytest.mark.parametrize("unit", [1.0, 0.02, 300.0])
def test_nerfstudio_loads_poses_points_and_depth_in_one_unit(tmp_path, unit, orientation):
    scene = in_unit(known_scene(), unit)
    scene.export("nerfstudio", tmp_path / "out")
    seen = load(tmp_path / "out", orientation=orientation)
    assert [path.stem for path in seen.images] == [f"shot_{t}" for t in range(4)]
    for t, path in enumerate(seen.images):
        xy, z = project_opengl(seen.T_world_camera[t], seen.K[t], seen.points_world)
        h, w = scene.size_hw
        inside = (z > 0) & (xy > 1).all(axis=1) & (xy < [w - 1, h - 1]).all(axis=1)
        column, row = xy[inside].astype(int).T
        static = ~scene.dynamic[t][row, column]
        column, row = column[static], row[static]
        ratio = z[inside][static] / seen.depth[t][row, column]
        assert np.quantile(np.abs(ratio - 1), 0.95) < 0.02  # a tenth of it, or ten times: 0.9, 9
        with Image.open(path) as image:
            picture = np.asarray(image).astype(float)[row, column]
        assert np.abs(picture - seen.colors[inside][static]).mean() < 3


def test_16_bits_hold_scenes_of_any_unit(tmp_path):
    for unit in (3e-4, 700.0):
        scene = in_unit(known_scene(), unit)
        scene.export("nerfstudio", tmp_path / str(unit))
        meta = json.loads((tmp_path / str(unit) / "transforms.json").read_text())
        values = np.asarray(Image.open(tmp_path / str(unit) / meta["frames"][1]["depth_file_path"]))
        depth = values * 0.001 / meta["unit_per_scene_unit"]
        np.testing.assert_allclose(depth, scene.depth[1], rtol=2e-3)


def test_intrinsics_that_differ_are_written_per_frame(tmp_path):
    scene = known_scene()
    K = scene.K.copy()
    K[1, 0, 0] *= 1.1
    Scene(**{**vars(scene), "K": K}).export("nerfstudio", tmp_path / "out")
    meta = json.loads((tmp_path / "out" / "transforms.json").read_text())
    assert "fl_x" not in meta
    fl_x = [frame["fl_x"] for frame in meta["frames"]]
    np.testing.assert_allclose(fl_x, K[:, 0, 0])


def test_source_resolution_needs_the_images(tmp_path):
    with pytest.raises(InputError, match="--source"):
        known_scene().export("nerfstudio", tmp_path / "out", resolution="source")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.iterdir())
