"""Software rendering of a scene: surfaces or points, the camera path, the current camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from dyn3r.scene import Scene
from dyn3r.scene.surface import Surface
from dyn3r.viewer.appearance import Appearance
from dyn3r.viewer.frustums import CAMERA_COLOR, camera_path_segments, frustum_segments
from dyn3r.viewer.layout import FOV_RAD, SceneLayout, scene_layout
from dyn3r.viewer.packing import PackedCloud
from dyn3r.viewer.points import ScenePoints
from dyn3r.viewer.raster import Layer, Mesh, joined, render_mesh
from dyn3r.viewer.splat import Discs, render_discs
from dyn3r.viewer.surfaces import vertex_colors

BACKGROUND = (24, 24, 27)
"""RGB of pixels that nothing covers."""
_RADIUS = 1.1  # of a disc, in distances of neighbouring points
_NEAR = 0.01  # median depths


@dataclass(frozen=True)
class Viewpoint:
    """Camera without roll, in world coordinates."""

    position: Float[np.ndarray, " 3"]
    """Camera centre."""
    look_at: Float[np.ndarray, " 3"]
    """Point on the optical axis."""
    up: Float[np.ndarray, " 3"]
    """Direction that points up in the image; of any length."""
    fov_y_rad: float = FOV_RAD
    """Vertical field of view."""

    @property
    def T_world_camera(self) -> Float[np.ndarray, "4 4"]:
        """Map from camera (x right, y down, z forward) to world."""
        ahead = self.look_at - self.position
        ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-12)
        right = np.cross(ahead, self.up)
        if np.linalg.norm(right) < 1e-6:  # straight up or down: any direction serves
            right = np.cross(ahead, np.roll(ahead, 1) + 0.1)
        right = right / np.linalg.norm(right)
        T = np.eye(4)
        T[:3, 0], T[:3, 1], T[:3, 2] = right, np.cross(ahead, right), ahead
        T[:3, 3] = self.position
        return T

    def K(self, size_hw: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
        """Intrinsics of an image of this size, with the principal point at its centre."""
        h, w = size_hw
        f = 0.5 * h / np.tan(self.fov_y_rad / 2)
        return np.array([[f, 0, (w - 1) / 2], [0, f, (h - 1) / 2], [0, 0, 1.0]])


class SceneRenderer:
    """Renderer of a scene from any viewpoint, in the style of an appearance."""

    def __init__(
        self, scene: Scene, appearance: Appearance | None = None, *, cameras: bool = True
    ) -> None:
        """Select what is drawn; `cameras`: with the camera path and the current camera."""
        self.layout: SceneLayout = scene_layout(scene)
        self._points = ScenePoints(scene, appearance or Appearance())
        self._cameras = cameras
        self._static: Mesh | Discs
        self._moving: list[Mesh] | list[Discs]
        if self._points.appearance.style == "surface":
            self._static = joined(self._meshes(self._points.static_surfaces))
            self._moving = self._meshes(self._points.moving_surfaces)
        else:
            self._static = Discs.joined([_discs(cloud) for cloud in self._points.background()])
            self._moving = [_discs(cloud) for cloud in self._points.moving()]

    @property
    def first_view(self) -> Viewpoint:
        """First view of the page in the browser."""
        view = self.layout.first_view()
        return Viewpoint(view.position, view.look_at, self.layout.up_world)

    def render(
        self, t: int, viewpoint: Viewpoint, size_hw: tuple[int, int], *, supersampling: int = 2
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Image of frame t, rendered `supersampling` times as large and averaged."""
        h, w = size_hw
        large_hw = (h * supersampling, w * supersampling)
        static = self.static_layer(viewpoint, large_hw)
        large = with_background(static.over(self.moving_layer(t, viewpoint, large_hw)))
        mean: np.ndarray = large.reshape(h, supersampling, w, supersampling, 3).mean(axis=(1, 3))
        return mean.round().astype(np.uint8)

    def static_layer(self, viewpoint: Viewpoint, size_hw: tuple[int, int]) -> Layer:
        """What does not change: the background and the camera path."""
        layer = self._draw(self._static, viewpoint, size_hw)
        if not self._cameras:
            return layer
        path = self._line_points(camera_path_segments(self.layout))
        return layer.over(self._draw(path, viewpoint, size_hw))

    def moving_layer(self, t: int, viewpoint: Viewpoint, size_hw: tuple[int, int]) -> Layer:
        """What frame t adds: the moving objects and its camera."""
        layer = self._draw(self._moving[t], viewpoint, size_hw)
        if not self._cameras:
            return layer
        frustum = self._line_points(frustum_segments(self.layout, [t]))
        return layer.over(self._draw(frustum, viewpoint, size_hw))

    def _draw(self, what: Mesh | Discs, viewpoint: Viewpoint, size_hw: tuple[int, int]) -> Layer:
        camera: dict[str, Any] = {
            "T_world_camera": viewpoint.T_world_camera, "K": viewpoint.K(size_hw),
            "size_hw": size_hw,
        }  # fmt: skip
        if isinstance(what, Mesh):
            return render_mesh(what, near=_NEAR * self.layout.unit, **camera)
        return render_discs(what, **camera)

    def _meshes(self, surfaces: list[Surface]) -> list[Mesh]:
        points, color = self._points, self._points.appearance.color
        limits = None if color == "rgb" else points.limits
        return [
            Mesh(part.points_world, vertex_colors(points.scene, part, color, limits), part.quads)
            for part in surfaces
        ]

    def _line_points(self, segments: Float[np.ndarray, "k 2 3"]) -> Discs:
        """Points along line segments."""
        spacing = 1.4 * self.layout.spacing
        lengths = np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)
        counts = np.clip(np.ceil(lengths / spacing), 1, 1000).astype(int)
        segment = np.repeat(np.arange(len(segments)), counts)
        starts = np.cumsum(counts) - counts
        share = (np.arange(len(segment)) - starts[segment]) / counts[segment]
        a, b = segments[segment, 0], segments[segment, 1]
        points = (a + share[:, None] * (b - a)).astype(np.float32)
        colors = np.tile(np.array(CAMERA_COLOR, np.uint8), (len(points), 1))
        return Discs(points, colors, np.full(len(points), self.layout.spacing, np.float32))


def with_background(layer: Layer) -> UInt8[np.ndarray, "h w 3"]:
    """Image of a layer; grey where nothing was drawn."""
    drawn = np.isfinite(layer.depth)[..., None]
    return np.where(drawn, layer.rgb, np.array(BACKGROUND, np.uint8))


def _discs(cloud: PackedCloud) -> Discs:
    radius = np.full(len(cloud.points), _RADIUS * cloud.spacing, np.float32)
    return Discs(cloud.world, cloud.colors, radius)
