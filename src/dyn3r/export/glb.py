"""GLB: coloured points, cameras and their path, upright, with an animation of the clip.

glTF: y up, right-handed; cameras look along -z with y up; vertex colours in linear light. The
static points are one mesh, the dynamic points of every frame another one. The animation shows these
at their time and moves a camera along the path. Without the animation all meshes are visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8, UInt32

from dyn3r.export.camera_conventions import (
    OPENGL_FROM_OPENCV,
    K_at_pixel_corners,
    continuous_quaternions,
    quaternions_wxyz,
    transform_points,
    y_up,
)
from dyn3r.export.clouds import collect_clouds, linear_colors
from dyn3r.export.options import ExportOptions
from dyn3r.io.gltf_file import GltfFile
from dyn3r.scene import Scene
from dyn3r.types import Progress

DEFAULT_POINTS = 500_000
_POINTS, _LINES, _LINE_STRIP, _TRIANGLES = 0, 1, 3, 4  # glTF's primitive modes
_FRUSTUM_DEPTH = 0.06  # median depths
_ORANGE = (255, 140, 0)


def write_glb(
    scene: Scene,
    path: Path,
    options: ExportOptions,
    _progress: Progress,
) -> None:
    """Write one .glb file."""
    path.write_bytes(glb_bytes(scene, options))


def glb_bytes(scene: Scene, options: ExportOptions) -> bytes:
    """Content of the file."""
    clouds = collect_clouds(scene, options, default_points=DEFAULT_POINTS)
    return document_bytes(scene, Part(*clouds.static), [Part(*cloud) for cloud in clouds.moving])


class Part(NamedTuple):
    """Points, or a surface if there are triangles."""

    points_world: Float[np.ndarray, "k 3"]
    colors: UInt8[np.ndarray, "k 3"]
    """sRGB."""
    triangles: UInt32[np.ndarray, "m 3"] | None = None
    """Indices of points, counter-clockwise from the front."""


def document_bytes(scene: Scene, static: Part, moving: Sequence[Part]) -> bytes:
    """Content of a file with the static part, that of each frame, the cameras and the animation."""
    T_gltf_world = y_up(scene)
    gltf = GltfFile()
    material = gltf.add(
        "materials", name="unlit", extensions={"KHR_materials_unlit": {}},
        pbrMetallicRoughness={"metallicFactor": 0.0, "roughnessFactor": 1.0}, doubleSided=True,
    )  # fmt: skip
    if len(static.points_world):
        gltf.node("static", mesh=_part(gltf, "static", static, T_gltf_world, material))
    nodes: dict[int, int] = {}
    if any(len(part.points_world) for part in moving):
        group = gltf.node("moving")
        for t, part in enumerate(moving):
            if len(part.points_world):
                mesh = _part(gltf, f"moving {t:04d}", part, T_gltf_world, material)
                nodes[t] = gltf.node(f"moving {t:04d}", group, mesh=mesh)
    T = T_gltf_world @ scene.T_world_camera
    camera = _cameras(gltf, scene, T, material)
    if len(scene) > 1:
        _animate(gltf, scene, T, camera, nodes)
    extras = {
        "axes": "y up, right-handed; the first camera looks along -z",
        "unit": scene.unit,
        "T_gltf_world": T_gltf_world.tolist(),
        "times_s": scene.times_s.tolist(),
    }
    return gltf.to_bytes(extras)


def _part(gltf: GltfFile, name: str, part: Part, T: np.ndarray, material: int) -> int:
    points, linear = transform_points(T, part.points_world), linear_colors(part.colors)
    if part.triangles is None:
        return _mesh(gltf, name, points, linear, _POINTS, material)
    index = gltf.accessor(part.triangles.reshape(-1))
    return _mesh(gltf, name, points, linear, _TRIANGLES, material, index)


def _mesh(
    gltf: GltfFile, name: str, points: np.ndarray, linear: np.ndarray, mode: int, material: int,
    index: int | None = None,
) -> int:  # fmt: skip
    # 8 bits of linear light would show steps in dark colours. glTF's alignment needs 4 channels.
    rgba = np.full((len(points), 4), 65535, np.uint16)
    rgba[:, :3] = np.rint(65535 * linear)
    attributes = {
        "POSITION": gltf.accessor(points.astype(np.float32), limits=True, vertices=True),
        "COLOR_0": gltf.accessor(rgba, normalized=True, vertices=True),
    }
    primitive = {"attributes": attributes, "mode": mode, "material": material}
    if index is not None:
        primitive["indices"] = index
    return gltf.add("meshes", name=name, primitives=[primitive])


def _cameras(
    gltf: GltfFile, scene: Scene, T_gltf_camera: Float[np.ndarray, "n 4 4"], material: int
) -> int:
    """Add camera nodes of all frames, frustums and path as lines; returns the animated node."""
    height, width = scene.size_hw
    K = scene.K
    lenses = [
        gltf.add("cameras", type="perspective", perspective={
            "yfov": float(2 * np.arctan(height / 2 / k[1, 1])),
            "aspectRatio": float(width * k[1, 1] / (height * k[0, 0])),
            "znear": float(0.001 * scene.median_depth),
        })
        for k in K[: 1 if np.ptp(K, axis=0).max() == 0 else len(K)]
    ]  # fmt: skip
    T = T_gltf_camera @ OPENGL_FROM_OPENCV
    group = gltf.node("cameras")
    for t in range(len(scene)):
        lens = lenses[min(t, len(lenses) - 1)]
        gltf.node(f"camera {t:04d}", group, camera=lens, **_pose(T[t]))
    lines = _frustum_lines(scene, T_gltf_camera)
    color = np.tile(linear_colors(np.array([_ORANGE], np.uint8)), (len(lines), 1))
    gltf.node("frustums", group, mesh=_mesh(gltf, "frustums", lines, color, _LINES, material))
    if len(scene) > 1:
        path, path_color = T[:, :3, 3], color[: len(T)]
        gltf.node("path", group, mesh=_mesh(gltf, "path", path, path_color, _LINE_STRIP, material))
    return gltf.node("moving camera", camera=lenses[0], **_pose(T[0]))


def _pose(T: Float[np.ndarray, "4 4"]) -> dict[str, Any]:
    xyzw = np.roll(quaternions_wxyz(T[None])[0], -1)
    return {"translation": T[:3, 3].tolist(), "rotation": xyzw.tolist()}


def _frustum_lines(scene: Scene, T_gltf_camera: np.ndarray) -> np.ndarray:
    """End points (n * 16, 3) of the edges of all camera frustums."""
    height, width = scene.size_hw
    depth = _FRUSTUM_DEPTH * scene.median_depth
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    ends = []
    for T, K in zip(T_gltf_camera, K_at_pixel_corners(scene.K)):
        xy = (corners - K[:2, 2]) / K[[0, 1], [0, 1]]
        rim = np.concatenate([xy, np.ones((4, 1))], axis=1) * depth @ T[:3, :3].T + T[:3, 3]
        for k in range(4):
            ends += [T[:3, 3], rim[k], rim[k], rim[(k + 1) % 4]]
    return np.stack(ends)


def _animate(
    gltf: GltfFile, scene: Scene, T_gltf_camera: np.ndarray, camera: int, moving: dict[int, int]
) -> None:
    """Add the animation: the node `camera` moves, the nodes `moving` (by frame) appear in turn."""
    times = scene.times_s - scene.times_s[0]
    if (np.diff(times) <= 1e-6).any():
        times = np.arange(len(scene)) / (scene.fps or 10.0)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []

    def channel(
        node: int, path: str, at: np.ndarray, values: np.ndarray, interpolation: str
    ) -> None:
        samplers.append({
            "input": gltf.accessor(at.astype(np.float32), limits=True),
            "output": gltf.accessor(values.astype(np.float32)),
            "interpolation": interpolation,
        })  # fmt: skip
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})

    T = T_gltf_camera @ OPENGL_FROM_OPENCV
    channel(camera, "translation", times, T[:, :3, 3], "LINEAR")
    quat = np.roll(continuous_quaternions(quaternions_wxyz(T)), -1, axis=1)
    channel(camera, "rotation", times, quat, "LINEAR")
    for t, node in moving.items():
        # glTF cannot hide nodes; viewers do not draw a node of scale 0.
        at = [times[t]] if t == 0 else [0.0, times[t]]
        shown = [1.0] if t == 0 else [0.0, 1.0]
        if t + 1 < len(times):
            at, shown = [*at, times[t + 1]], [*shown, 0.0]
        channel(node, "scale", np.array(at), np.tile(np.array(shown)[:, None], (1, 3)), "STEP")
    gltf.add("animations", name="clip", samplers=samplers, channels=channels)
