"""ply, glb, usd, rerun: each file is read back by a library other than ours."""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import numpy as np
import pytest
import trimesh

from dyn3r.export import ExportOptions
from dyn3r.export.camera_conventions import y_up
from dyn3r.export.clouds import linear_colors
from dyn3r.export.glb import glb_bytes
from dyn3r.geometry.pixels import project_pixels
from dyn3r.scene import Scene
from tests.export.known_world import assert_points_are_those_of_the_frame, known_scene
from tests.factories import tiny_scene


def tilted_scene() -> Scene:
    """tiny_scene (level camera, floor 1.5 below it) after a rigid motion of the world."""
    from scipy.spatial.transform import Rotation

    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [40, -25, 70], degrees=True).as_matrix()
    turn[:3, 3] = [3, -2, 5]
    # Large enough that the floor at a grazing angle has no depth edge.
    return tiny_scene(h=128, w=192, T_world_camera=turn @ tiny_scene().T_world_camera)


# --- ply ----------------------------------------------------------------------------------------


def test_ply_holds_the_points_and_colours(tmp_path):
    scene = tiny_scene()
    scene.export("ply-frames", tmp_path / "frames", drop=0.0)
    cloud = trimesh.load(tmp_path / "frames" / "frame_000002.ply")
    expected = scene.points(2)
    points = np.asarray(cloud.vertices, np.float32)
    # Points on depth edges are left out; the others keep their order.
    rows = {tuple(row): k for k, row in enumerate(expected.points_world)}
    picks = np.array([rows[tuple(point)] for point in points])
    assert 0.5 * len(rows) < len(picks) < len(rows)
    np.testing.assert_array_equal(np.asarray(cloud.colors)[:, :3], expected.colors[picks])


def test_ply_points_have_the_colours_of_the_frames(tmp_path):
    scene = known_scene()
    scene.export("ply", tmp_path / "a.ply", which="static")
    cloud = trimesh.load(tmp_path / "a.ply")
    points, colors = np.asarray(cloud.vertices), np.asarray(cloud.colors)[:, :3].astype(float)
    for t in range(len(scene)):
        uv, z = project_pixels(points, scene.K[t], np.linalg.inv(scene.T_world_camera[t]))
        h, w = scene.size_hw
        column, row = np.rint(uv).astype(int).T
        seen = (z > 0) & (row >= 0) & (row < h) & (column >= 0) & (column < w)
        seen[seen] &= ~scene.dynamic[t, row[seen], column[seen]]
        pixels = scene.images[t, row[seen], column[seen]].astype(float)
        assert seen.sum() > 1000
        assert np.abs(pixels - colors[seen]).mean() < 2
        depth = scene.depth[t, row[seen], column[seen]]
        assert np.quantile(np.abs(z[seen] / depth - 1), 0.95) < 0.01


def test_ply_parts_add_up(tmp_path):
    scene = tiny_scene()
    sizes = {}
    for which in ("all", "static", "dynamic"):
        scene.export("ply", tmp_path / f"{which}.ply", which=which)
        cloud = trimesh.load(tmp_path / f"{which}.ply")
        sizes[which] = len(cloud.vertices)
        red = (np.asarray(cloud.colors)[:, :3] == (250, 20, 20)).all(axis=1)
        assert red.all() == (which == "dynamic")
        assert red.any() == (which != "static")
    assert sizes["all"] == sizes["static"] + sizes["dynamic"]
    scene.export("ply", tmp_path / "few.ply", max_points=40)
    assert 20 < len(trimesh.load(tmp_path / "few.ply").vertices) <= 90


def test_the_confidence_threshold_of_dynamic_points_is_separate(tmp_path):
    scene = tiny_scene()
    confidence = np.where(scene.dynamic, 0.5 * scene.confidence / 5, scene.confidence)
    scene = tiny_scene(confidence=confidence)
    scene.export("ply", tmp_path / "a.ply", which="dynamic", drop=0.5)
    share = len(trimesh.load(tmp_path / "a.ply").vertices) / scene.dynamic.sum()
    assert 0.15 < share < 0.6


@pytest.mark.slow
def test_an_empty_cloud_is_a_valid_file(tmp_path):
    scene = tiny_scene(dynamic=np.zeros((4, 32, 48), bool))
    scene.export("ply", tmp_path / "a.ply", which="dynamic")
    header = (tmp_path / "a.ply").read_bytes()
    assert b"element vertex 0\n" in header
    assert header.endswith(b"end_header\n")
    for name in ("a.glb", "a.usda", "a.rrd"):
        kind = {"a.glb": "glb", "a.usda": "usd", "a.rrd": "rerun"}[name]
        if kind != "glb":
            pytest.importorskip({"usd": "pxr", "rerun": "rerun"}[kind])
        scene.export(kind, tmp_path / name, which="dynamic")
        assert (tmp_path / name).stat().st_size > 100


# --- glb ----------------------------------------------------------------------------------------


def read_glb(content: bytes):
    """(document, function that reads an accessor), by the glTF 2.0 specification."""
    magic, version, length = struct.unpack("<4sII", content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack("<I4s", content[12:20])
    assert kind == b"JSON"
    document = json.loads(content[20 : 20 + size])
    binary = content[28 + size :]
    assert document["buffers"][0]["byteLength"] <= len(binary)

    def read(index):
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        dtype = {5126: "<f4", 5123: "<u2"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        rows = np.frombuffer(binary, dtype, accessor["count"] * width, view["byteOffset"])
        return rows.reshape(-1, width)

    return document, read


def test_glb_is_upright_and_stands_on_the_ground():
    scene = tilted_scene()
    content = glb_bytes(scene, ExportOptions(which="static", drop=0.0))
    document, read = read_glb(content)
    static = next(mesh for mesh in document["meshes"] if mesh["name"] == "static")
    y = read(static["primitives"][0]["attributes"]["POSITION"])[:, 1]
    # Within the accuracy of find_up (1 degree, 5 % of the height).
    assert abs(np.quantile(y, 0.02)) < 0.1  # the floor
    assert y.max() > 1.5  # the wall above the camera
    cameras = [node for node in document["nodes"] if "camera" in node]
    heights = [node["translation"][1] for node in cameras]
    np.testing.assert_allclose(heights, 1.5, atol=0.1)
    # A level camera that looks along -z has the identity rotation.
    np.testing.assert_allclose(cameras[0]["rotation"], [0, 0, 0, 1], atol=0.015)


def in_srgb(linear: np.ndarray) -> np.ndarray:
    """0..255 of colours in linear light, by the formula of the standard."""
    small = linear <= 0.0031308
    return 255 * np.where(small, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_glb_cameras_project_points_to_their_pixels():
    scene = known_scene()
    document, read = read_glb(glb_bytes(scene, ExportOptions(drop=0.0)))
    T_gltf_world = np.array(document["scenes"][0]["extras"]["T_gltf_world"])
    sampler_of = {
        (channel["target"]["node"], channel["target"]["path"]): document["animations"][0][
            "samplers"
        ][channel["sampler"]]
        for channel in document["animations"][0]["channels"]
    }
    node = next(k for k, n in enumerate(document["nodes"]) if n["name"] == "moving camera")
    places = read(sampler_of[node, "translation"]["output"])
    turns = read(sampler_of[node, "rotation"]["output"])
    times = read(sampler_of[node, "rotation"]["input"])[:, 0]
    np.testing.assert_allclose(times, scene.times_s - 0.5, atol=1e-6)
    lens = document["cameras"][document["nodes"][node]["camera"]]["perspective"]
    names = [n["name"] for n in document["nodes"]]
    h, w = scene.size_hw
    from scipy.spatial.transform import Rotation

    for t in range(len(scene)):
        mesh = document["meshes"][document["nodes"][names.index(f"moving {t:04d}")]["mesh"]]
        points = read(mesh["primitives"][0]["attributes"]["POSITION"])
        camera = (points - places[t]) @ Rotation.from_quat(turns[t]).as_matrix()
        # The projection of the glTF specification: -1..1, y up.
        ndc_y = camera[:, 1] / -camera[:, 2] / np.tan(lens["yfov"] / 2)
        ndc_x = camera[:, 0] / -camera[:, 2] / np.tan(lens["yfov"] / 2) / lens["aspectRatio"]
        u, v = (ndc_x + 1) / 2 * w, (1 - ndc_y) / 2 * h
        world = (points - T_gltf_world[:3, 3]) @ T_gltf_world[:3, :3]
        T = np.linalg.inv(scene.T_world_camera)[t]
        expected, _ = project_pixels(world, scene.K[t], T)
        # A glTF camera has its principal point at the image centre: the same shift for all points.
        shift = np.stack([u, v], axis=1) - (expected + 0.5)
        middle = [w / 2 - scene.K[t, 0, 2] - 0.5, h / 2 - scene.K[t, 1, 2] - 0.5]
        np.testing.assert_allclose(shift, np.tile(middle, (len(shift), 1)), atol=0.01)
        for name, moving in ((f"moving {t:04d}", True), ("static", False)):
            attributes = next(m for m in document["meshes"] if m["name"] == name)["primitives"][0]
            xyz = read(attributes["attributes"]["POSITION"])
            colors = in_srgb(read(attributes["attributes"]["COLOR_0"])[:, :3] / 65535)
            world = (xyz - T_gltf_world[:3, 3]) @ T_gltf_world[:3, :3]
            uv, _ = project_pixels(world, scene.K[t], T)
            depth = -((xyz - places[t]) @ Rotation.from_quat(turns[t]).as_matrix())[:, 2]
            assert_points_are_those_of_the_frame(scene, t, uv + 0.5, depth, colors, moving=moving)


def test_glb_shows_dynamic_points_at_their_time_only():
    scene = tiny_scene()
    document, read = read_glb(glb_bytes(scene, ExportOptions()))
    animation = document["animations"][0]

    def scale_at(name, time):
        node = [n["name"] for n in document["nodes"]].index(name)
        for channel in animation["channels"]:
            if channel["target"] == {"node": node, "path": "scale"}:
                sampler = animation["samplers"][channel["sampler"]]
                assert sampler["interpolation"] == "STEP"
                times = read(sampler["input"])[:, 0]
                assert (np.diff(times) > 0).all()
                k = np.searchsorted(times, time, side="right") - 1
                return read(sampler["output"])[max(k, 0)]
        raise AssertionError(name)

    for time, shown in ((0.0, 0), (0.05, 0), (0.15, 1), (0.25, 2), (0.31, 3), (9.0, 3)):
        for t in range(4):
            np.testing.assert_array_equal(scale_at(f"moving {t:04d}", time), float(t == shown))


def test_glb_is_read_by_trimesh_with_colours_in_linear_light(tmp_path):
    tiny_scene().export("glb", tmp_path / "a.glb", which="dynamic")
    loaded = trimesh.load(tmp_path / "a.glb")
    clouds = [g for name, g in loaded.geometry.items() if name.startswith("moving")]
    assert len(clouds) == 4
    document, read = read_glb((tmp_path / "a.glb").read_bytes())
    mesh = next(m for m in document["meshes"] if m["name"] == "moving 0000")
    colour = read(mesh["primitives"][0]["attributes"]["COLOR_0"])[0] / 65535
    # sRGB 250 and 20 in linear light, by the formula of the standard.
    np.testing.assert_allclose(colour, [0.9559733, 0.0069954, 0.0069954, 1], atol=1e-5)
    np.testing.assert_allclose(in_srgb(colour[:3]), [250, 20, 20], atol=0.05)


def test_glb_of_one_frame_has_no_animation():
    document, _ = read_glb(glb_bytes(tiny_scene(n=1), ExportOptions()))
    assert "animations" not in document
    assert len(document["cameras"]) == 1


def test_y_up_is_rigid_and_maps_up_to_y():
    scene = tilted_scene()
    T = y_up(scene)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1)
    up = -scene.T_world_camera[0, :3, 1]
    np.testing.assert_allclose(T[:3, :3] @ up, [0, 1, 0], atol=0.02)


def test_linear_colors_at_the_ends():
    np.testing.assert_allclose(
        linear_colors(np.array([0, 255, 188], np.uint8)), [0, 1, 0.5029], atol=1e-4
    )


# --- usd and rerun ------------------------------------------------------------------------------


def test_usd_camera_projects_points_to_their_pixels(tmp_path):
    Usd = pytest.importorskip("pxr.Usd", reason="needs usd-core to read the stage")
    from pxr import UsdGeom

    scene = known_scene()
    scene.export("usd", tmp_path / "a.usdc", drop=0.0)
    stage = Usd.Stage.Open(str(tmp_path / "a.usdc"))
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    assert stage.GetTimeCodesPerSecond() == scene.fps
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (0, 3)
    camera = UsdGeom.Camera(stage.GetPrimAtPath("/scene/camera"))
    moving = UsdGeom.Points(stage.GetPrimAtPath("/scene/moving"))
    static = UsdGeom.Points(stage.GetPrimAtPath("/scene/static"))
    h, w = scene.size_hw
    T = y_up(scene)
    for t in range(len(scene)):
        points = np.array(moving.GetPointsAttr().Get(t))
        assert len(points) == len(np.array(moving.GetDisplayColorAttr().Get(t)))
        points = np.concatenate([points, np.array(static.GetPointsAttr().Get(t))])
        frustum = camera.GetCamera(t).frustum
        matrix = np.array(frustum.ComputeViewMatrix() * frustum.ComputeProjectionMatrix())
        clip = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix
        ndc = clip[:, :2] / clip[:, 3:]
        seen = (clip[:, 3] > 0) & (np.abs(ndc) < 1).all(axis=1)
        xy = np.stack([(ndc[:, 0] + 1) / 2 * w, (1 - ndc[:, 1]) / 2 * h], axis=1)
        world = (points - T[:3, 3]) @ T[:3, :3]
        uv, _ = project_pixels(world, scene.K[t], np.linalg.inv(scene.T_world_camera)[t])
        assert seen.sum() > 500
        np.testing.assert_allclose(xy[seen], uv[seen] + 0.5, atol=0.02)
        count = len(np.array(moving.GetPointsAttr().Get(t)))
        for cloud, rows in ((moving, slice(count)), (static, slice(count, None))):
            colors = in_srgb(np.array(cloud.GetDisplayColorAttr().Get(t)))
            assert_points_are_those_of_the_frame(
                scene, t, xy[rows], clip[rows, 3], colors, moving=cloud is moving
            )


@pytest.mark.slow
def test_rerun_verifies_the_recording(tmp_path):
    pytest.importorskip("rerun", reason="needs rerun-sdk to read the recording")
    tiny_scene(n=2).export("rerun", tmp_path / "a.rrd")
    for command in ("verify", "print"):
        done = subprocess.run(
            [sys.executable, "-m", "rerun", "rrd", command, str(tmp_path / "a.rrd")],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    for entity in ("/world/static", "/world/moving", "/world/camera/rgb", "/world/camera/depth"):
        assert entity in text


@pytest.mark.parametrize(("kind", "package"), [("usd", "pxr"), ("rerun", "rerun")])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, kind, package):
    from dyn3r.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, package, None)
    name = {"usd": "a.usdc", "rerun": "a.rrd"}[kind]
    with pytest.raises(MissingExtraError, match=rf"dyn3r\[{kind}\]"):
        tiny_scene().export(kind, tmp_path / name)
    assert not list(tmp_path.iterdir())
