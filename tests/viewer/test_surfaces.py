"""Surfaces of the page: what they cover, their textures, and their files."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
import trimesh

from dyn3r.scene import Scene
from dyn3r.scene.pictures import find_limits, panels
from dyn3r.scene.surface import surface
from dyn3r.viewer.appearance import Appearance
from dyn3r.viewer.points import ScenePoints
from dyn3r.viewer.surfaces import Texture, glb, moving_surfaces, static_surfaces, texture
from tests.factories import tiny_scene

ORIGIN = np.array([3.0, -2.0, 1.0])


def resting(n: int = 3, **changes) -> Scene:
    """A camera at rest before a wall at depth 4; nothing moves."""
    fields = {
        "depth": np.full((n, 32, 48), 4.0), "dynamic": np.zeros((n, 32, 48), bool),
        "T_world_camera": np.tile(np.eye(4), (n, 1, 1)), "confidence": np.ones((n, 32, 48)),
    }  # fmt: skip
    return tiny_scene(n=n, **(fields | changes))


def test_steep_planes_are_whole_and_steps_are_cut():
    rows = np.arange(32)[:, None]
    floor = np.broadcast_to(20 / (rows + 8.0), (32, 48))  # up to 11 % from row to row
    assert (floor[:-1] / floor[1:] - 1).max() > 0.1
    scene = resting(depth=np.stack([floor] * 3))
    assert len(surface(scene, 0, scene.select(0)).quads) == 31 * 47
    step = np.where(np.arange(48) < 24, 2.0, 2.2)
    scene = resting(depth=np.broadcast_to(step, (3, 32, 48)))
    assert len(surface(scene, 0, scene.select(0)).quads) == 31 * 46


def test_holes_of_the_background_are_filled_by_other_frames():
    images = np.full((3, 32, 48, 3), 90, np.uint8)
    dynamic = np.zeros((3, 32, 48), bool)
    dynamic[1, 10:20, 10:20] = True
    static = static_surfaces(resting(dynamic=dynamic, images=images), Appearance())
    covered = np.zeros(32 * 48, bool)
    for part in static:
        covered[part.pixels] = True
        assert not dynamic[part.frame].ravel()[part.pixels].any()
    assert covered.all()
    assert len(static) == 2
    assert static_surfaces(resting(dynamic=dynamic), Appearance(frame_alone=True)) == []


def test_moving_surfaces_have_the_dynamic_pixels(monkeypatch):
    scene = tiny_scene()
    for t, part in enumerate(moving_surfaces(scene, Appearance())):
        assert scene.dynamic[t].ravel()[part.pixels].all()
        assert len(part.pixels) == scene.dynamic[t].sum()
    monkeypatch.setattr("dyn3r.viewer.surfaces.MAX_VERTICES", 60)
    thin = moving_surfaces(scene, Appearance())
    assert 20 < sum(len(part.pixels) for part in thin) <= 60


def test_pixels_that_other_frames_contradict_are_left_out_but_no_specks():
    images = np.full((5, 32, 48, 3), 90, np.uint8)
    images[2, 10:20, 10:20] = 255  # a ghost in the middle frame, which is a keyframe
    images[2, 25, 40] = 255
    part = next(p for p in static_surfaces(resting(5, images=images), Appearance()) if p.frame == 2)
    left_out = np.ones(32 * 48, bool)
    left_out[part.pixels] = False
    left_out = left_out.reshape(32, 48)
    assert left_out[10:20, 10:20].all()
    assert left_out.sum() == 100


@pytest.mark.parametrize("color", ["rgb", "depth", "motion", "confidence"])
def test_the_texture_is_the_picture_at_its_pixels(color):
    scene = tiny_scene()
    limits = find_limits(scene)
    names = ("rgb", "depth", "motion", "confidence")
    panel = panels(scene, 1, limits)[names.index(color)]
    part = moving_surfaces(scene, Appearance())[1]
    picture = texture(scene, part, color, limits)
    rows, columns = np.divmod(part.pixels, 48)
    inside = picture.rgb[rows - picture.row, columns - picture.column]
    np.testing.assert_array_equal(inside, panel.reshape(-1, 3)[part.pixels])
    assert picture.rgb.shape[:2] == (np.ptp(rows) + 1, np.ptp(columns) + 1)


def test_the_file_has_the_surface_and_its_texture():
    scene = tiny_scene()
    part = moving_surfaces(scene, Appearance())[2]
    flat = np.full((32, 48, 3), 50, np.uint8)
    flat[:, 24:] = 200
    content = glb(part, Texture(flat, 0, 0), ORIGIN, 48)
    mesh = trimesh.load(io.BytesIO(content), file_type="glb", force="mesh", process=False)
    faces = {tuple(sorted(f)) for f in mesh.faces.tolist() if len(set(f)) == 3}
    a, b, c, d = part.quads.T
    expected = np.concatenate([np.stack([a, b, d], -1), np.stack([b, d, c], -1)])
    assert faces == {tuple(sorted(f)) for f in expected.tolist()}
    document = json.loads(content[20 : 20 + struct.unpack("<I", content[12:16])[0]])
    assert document["extensionsRequired"] == ["KHR_mesh_quantization"]
    place = document["nodes"][0]
    stored = np.asarray(stored_positions(content, document))
    points = stored / 65535 * place["scale"] + place["translation"]
    np.testing.assert_allclose(points + ORIGIN, part.points_world, atol=1e-4)
    picture = np.asarray(mesh.visual.material.baseColorTexture)
    assert picture.shape == flat.shape
    # trimesh counts v from below, and does not scale whole numbers
    uv = np.mod(mesh.visual.uv * [1, -1] + [0, 1], 65536) / 65535
    rows, columns = np.divmod(part.pixels, 48)
    np.testing.assert_allclose(uv * [48, 32] - 0.5, np.stack([columns, rows], -1), atol=0.01)


def stored_positions(content: bytes, document: dict) -> np.ndarray:
    """The stored positions, which take 8 bytes each."""
    binary = 20 + struct.unpack("<I", content[12:16])[0] + 8
    accessor = document["accessors"][
        document["meshes"][0]["primitives"][0]["attributes"]["POSITION"]
    ]
    view = document["bufferViews"][accessor["bufferView"]]
    assert view["byteStride"] == 8
    start = binary + view["byteOffset"]
    table = np.frombuffer(content[start : start + view["byteLength"]], "<u2").reshape(-1, 4)
    return table[:, :3]


def test_far_points_are_stored_as_floats():
    depth = np.full((3, 32, 48), 1.0)
    depth[:, :, 24:] = 1e4
    part = surface(resting(depth=depth), 0, np.ones((32, 48), bool))
    content = glb(part, Texture(np.zeros((32, 48, 3), np.uint8), 0, 0), np.zeros(3), 48)
    mesh = trimesh.load(io.BytesIO(content), file_type="glb", force="mesh", process=False)
    np.testing.assert_allclose(mesh.vertices, part.points_world, rtol=1e-6)


def test_a_surface_without_vertices_is_a_file_without_a_mesh():
    scene = resting()
    part = moving_surfaces(scene, Appearance())[0]
    content = glb(part, texture(scene, part, "rgb", None), ORIGIN, 48)
    assert struct.unpack("<4sII", content[:12])[::2] == (b"glTF", len(content))
    document = json.loads(content[20 : 20 + struct.unpack("<I", content[12:16])[0]])
    assert "meshes" not in document


def test_what_is_drawn_can_be_clicked():
    points = ScenePoints(tiny_scene(), Appearance())
    static = points.static_surfaces
    assert [frame for frame, _ in points.shown_static] == [part.frame for part in static]
    assert points.shown_moving(1) is points.moving_surfaces[1].pixels
    points.set_appearance(Appearance(style="points"))
    assert points.shown_moving(1) is points.moving_pixels[1]
    assert len(points.shown_static) == 4
