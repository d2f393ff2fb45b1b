"""mesh: surfaces of the depth maps, read back by trimesh."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from dyn3r.export.mesh import mesh_parts, surface
from dyn3r.export.options import ExportOptions
from dyn3r.scene import Scene
from dyn3r.types import no_progress
from tests.factories import tiny_scene

ALL = ExportOptions(drop=0.0)


def wall(n: int = 3, **changes) -> Scene:
    """A wall at depth 4 that a resting camera sees; nothing moves."""
    fields = {
        "depth": np.full((n, 32, 48), 4.0), "dynamic": np.zeros((n, 32, 48), bool),
        "T_world_camera": np.tile(np.eye(4), (n, 1, 1)), "confidence": np.ones((n, 32, 48)),
    }  # fmt: skip
    return tiny_scene(n=n, **(fields | changes))


def area(part) -> float:
    a, b, c = (part.points_world[part.triangles[:, k]].astype(float) for k in range(3))
    return float(0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())


def test_frames_that_see_the_same_add_no_second_surface():
    scene = wall()
    static, moving = mesh_parts(scene, ALL, no_progress)
    assert len(static.triangles) == 2 * 31 * 47
    focal = scene.K[0, 0, 0]
    assert area(static) == pytest.approx(31 * 47 * (4 / focal) ** 2, rel=1e-4)
    assert not any(len(part.points_world) for part in moving)


def test_a_camera_that_moves_adds_what_is_new():
    T = np.tile(np.eye(4), (3, 1, 1))
    T[:, 0, 3] = [-1, 0, 1]
    scene = wall(T_world_camera=T)
    static, _ = mesh_parts(scene, ALL, no_progress)
    pixel = 4 / scene.K[0, 0, 0]
    x = static.points_world[:, 0]
    assert np.ptp(x) == pytest.approx(2 + 47 * pixel, rel=1e-3)
    # patches overlap by two pixels at most on each side of the middle one
    assert area(static) < np.ptp(x) * 31 * pixel + 4 * 2 * pixel * 31 * pixel


def part_pixels(scene: Scene, part) -> np.ndarray:
    """Pixels (row-major) of frame 1 of the corners of each triangle."""
    R, centre = scene.T_world_camera[1, :3, :3], scene.T_world_camera[1, :3, 3]
    x, y, z = ((part.points_world - centre) @ R).T
    K = scene.K[1]
    column, row = (np.rint(K[i, i] * a / z + K[i, 2]).astype(int) for i, a in ((0, x), (1, y)))
    return (row * scene.size_hw[1] + column)[part.triangles]


def test_surfaces_face_the_camera_and_are_cut_at_depth_edges():
    scene = tiny_scene()
    part = surface(scene, 1, scene.select(1), 1)
    a, b, c = (part.points_world[part.triangles[:, k]].astype(float) for k in range(3))
    normal = np.cross(b - a, c - a)
    toward = scene.T_world_camera[1, :3, 3] - a
    assert ((normal * toward).sum(axis=1) > 0).all()
    z = part.points_world[part.triangles][..., 2]
    assert (np.ptp(z, axis=1) < 0.15 * z.min(axis=1)).all()  # the floor is steep
    whole = surface(scene, 1, scene.select(1) & ~scene.dynamic[1], 1)
    assert len(part.triangles) > len(whole.triangles)
    assert not (
        np.ptp(scene.dynamic[1].astype(int).ravel()[part_pixels(scene, part)], axis=1)
    ).any()
    assert len(np.unique(part.triangles)) == len(part.points_world)
    nothing = surface(scene, 1, np.zeros((32, 48), bool), 1)
    assert len(nothing.points_world) == len(nothing.triangles) == 0


def test_thinning_keeps_the_area():
    whole, _ = mesh_parts(wall(), ALL, no_progress)
    thin, _ = mesh_parts(wall(), ExportOptions(drop=0.0, max_points=400), no_progress)
    assert len(thin.points_world) <= 400
    assert area(thin) == pytest.approx(area(whole), rel=0.1)


def test_trimesh_reads_the_file(tmp_path):
    scene = tiny_scene()
    scene.export("mesh", tmp_path / "a.glb", drop=0.0)
    loaded = trimesh.load(tmp_path / "a.glb")
    meshes = {name: g for name, g in loaded.geometry.items() if isinstance(g, trimesh.Trimesh)}
    assert {"static", "moving 0000", "moving 0003"} <= set(meshes)
    # the square is parallel to the image
    assert np.ptp(meshes["moving 0000"].vertices[:, 2]) < 0.01
    assert (mesh_parts(scene, ALL, no_progress)[1][0].colors == (250, 20, 20)).all()
    with pytest.raises(Exception, match="exists"):
        scene.export("mesh", tmp_path / "a.glb")


@pytest.mark.parametrize(("which", "empty"), [("static", "moving"), ("dynamic", "static")])
def test_parts_can_be_left_out(which, empty):
    static, moving = mesh_parts(tiny_scene(), ExportOptions(which=which), no_progress)
    points = {
        "static": len(static.points_world),
        "moving": sum(len(p.points_world) for p in moving),
    }
    assert points.pop(empty) == 0
    assert min(points.values()) > 0
