"""Software rendering of points: images without a browser or a graphics card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from dyn3r.scene import Scene
from dyn3r.viewer.appearance import Appearance
from dyn3r.viewer.frustums import CAMERA_COLOR, camera_path_segments, frustum_segments
from dyn3r.viewer.layout import FOV_RAD, SceneLayout, scene_layout
from dyn3r.viewer.packing import PackedCloud
from dyn3r.viewer.points import ScenePoints

BACKGROUND = (24, 24, 27)
"""RGB of pixels that no point covers."""
EMPTY = np.iinfo(np.int64).max
_MAX_RADIUS_PX = 8
_RADIUS = 1.1  # of a disc, in distances of neighbouring points


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


def render_points(
    points_world: Float[np.ndarray, "k 3"],
    colors: UInt8[np.ndarray, "k 3"],
    *,
    T_world_camera: Float[np.ndarray, "4 4"],
    K: Float[np.ndarray, "3 3"],
    size_hw: tuple[int, int],
    radius: float | Float[np.ndarray, " k"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Image of the points as discs with a depth buffer.

    The discs have the radius `radius` (world units, one for all or one per point; at most 8
    pixels). The nearest disc of each
    pixel wins by the depth of its centre. Points closer than `radius` to the camera are left out.
    """
    nearest = nearest_index(
        _nearest_keys(points_world, T_world_camera=T_world_camera, K=K, size_hw=size_hw,
                      radius=radius)
    )  # fmt: skip
    image = np.empty((*size_hw, 3), np.uint8)
    image[:] = BACKGROUND
    hit = nearest >= 0
    image.reshape(-1, 3)[hit] = colors[nearest[hit]]
    return image


def _nearest_keys(
    points_world: Float[np.ndarray, "k 3"],
    *,
    T_world_camera: Float[np.ndarray, "4 4"],
    K: Float[np.ndarray, "3 3"],
    size_hw: tuple[int, int],
    radius: float | Float[np.ndarray, " k"],
) -> Int[np.ndarray, " hw"]:
    """Depth and index of the nearest disc of each pixel in one number; see `render_points`."""
    h, w = size_hw
    R, centre = T_world_camera[:3, :3], T_world_camera[:3, 3]
    camera = ((points_world - centre) @ R).astype(np.float32)
    radii = np.broadcast_to(np.asarray(radius, np.float32), len(camera))
    index = np.flatnonzero(camera[:, 2] > np.maximum(radii, 1e-12))
    x, y, z = camera[index].T
    u = np.rint(K[0, 0] * x / z + K[0, 2])
    v = np.rint(K[1, 1] * y / z + K[1, 2])
    size = np.clip(np.rint(K[1, 1] * radii[index] / z - 0.5), 0, _MAX_RADIUS_PX)
    seen = (u >= -size) & (u < w + size) & (v >= -size) & (v < h + size)
    column, row, size = (a[seen].astype(np.int64) for a in (u, v, size))
    return _disc_keys(row, column, size, z[seen], index[seen], size_hw)


def _disc_keys(
    row: Int[np.ndarray, " k"],
    column: Int[np.ndarray, " k"],
    radius_px: Int[np.ndarray, " k"],
    depth: Float[np.ndarray, " k"],
    index: Int[np.ndarray, " k"],
    size_hw: tuple[int, int],
) -> Int[np.ndarray, " hw"]:
    """Key of the nearest disc of each pixel, row-major; `EMPTY` where there is none."""
    h, w = size_hw
    # Positive floats sort as their bits do. Depth and index share one number, so the minimum over
    # a pixel is the nearest point, and the lowest index of several at one depth.
    key = (depth.view(np.int32).astype(np.int64) << 32) | index
    nearest = np.full(h * w, EMPTY)
    for r in np.unique(radius_px):
        of_size = np.flatnonzero(radius_px == r)
        for dy, dx in _disc(int(r)):
            i, j = row[of_size] + dy, column[of_size] + dx
            inside = (i >= 0) & (i < h) & (j >= 0) & (j < w)
            np.minimum.at(nearest, (i * w + j)[inside], key[of_size[inside]])
    return nearest


def nearest_index(keys: Int[np.ndarray, " hw"]) -> Int[np.ndarray, " hw"]:
    """Index of the nearest disc of each pixel; -1 where there is none."""
    return np.where(keys == EMPTY, -1, keys & 0xFFFFFFFF)


def _disc(r: int) -> list[tuple[int, int]]:
    """Pixel offsets (dy, dx) within a disc of radius r."""
    span = range(-r, r + 1)
    return [(dy, dx) for dy in span for dx in span if dy * dy + dx * dx <= (r + 0.3) ** 2]


class _Cloud(NamedTuple):
    points: np.ndarray
    colors: np.ndarray
    radius: float


def _discs(cloud: PackedCloud) -> _Cloud:
    return _Cloud(cloud.world, cloud.colors, _RADIUS * cloud.spacing)


def _keys(
    clouds: list[_Cloud], viewpoint: Viewpoint, size_hw: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "k 3"], Int[np.ndarray, " hw"]]:
    keys = _nearest_keys(
        np.concatenate([cloud.points for cloud in clouds]),
        T_world_camera=viewpoint.T_world_camera, K=viewpoint.K(size_hw), size_hw=size_hw,
        radius=np.concatenate([np.full(len(c.points), c.radius) for c in clouds]),
    )  # fmt: skip
    return np.concatenate([cloud.colors for cloud in clouds]), keys


class SplatRenderer:
    """Renderer of a scene's points, camera path and current camera, from any viewpoint."""

    def __init__(
        self, scene: Scene, appearance: Appearance | None = None, *, cameras: bool = True
    ) -> None:
        """Compute all clouds; `cameras`: with the camera path and the current camera."""
        self.layout: SceneLayout = scene_layout(scene)
        points = ScenePoints(scene, appearance or Appearance())
        self._static = [_discs(cloud) for cloud in points.background()]
        self._moving = [_discs(cloud) for cloud in points.moving()]
        self._cameras = cameras
        if cameras:
            self._static.append(self._line_points(camera_path_segments(self.layout)))

    @property
    def first_view(self) -> Viewpoint:
        """First view of the page in the browser."""
        view = self.layout.first_view()
        return Viewpoint(view.position, view.look_at, self.layout.up_world)

    def render(
        self, t: int, viewpoint: Viewpoint, size_hw: tuple[int, int], *, supersampling: int = 2
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Image of frame t, rendered `supersampling` times as large and averaged."""
        clouds = [*self._static, *self._of_frame(t)]
        h, w = size_hw
        large_hw = (h * supersampling, w * supersampling)
        large = render_points(
            np.concatenate([cloud.points for cloud in clouds]),
            np.concatenate([cloud.colors for cloud in clouds]),
            T_world_camera=viewpoint.T_world_camera,
            K=viewpoint.K(large_hw),
            size_hw=large_hw,
            radius=np.concatenate([np.full(len(c.points), c.radius) for c in clouds]),
        )
        mean: np.ndarray = large.reshape(h, supersampling, w, supersampling, 3).mean(axis=(1, 3))
        return mean.round().astype(np.uint8)

    def static_keys(
        self, viewpoint: Viewpoint, size_hw: tuple[int, int]
    ) -> tuple[UInt8[np.ndarray, "k 3"], Int[np.ndarray, " hw"]]:
        """Colours of what does not change, and depth and index of the nearest disc per pixel."""
        return _keys(self._static, viewpoint, size_hw)

    def moving_keys(
        self, t: int, viewpoint: Viewpoint, size_hw: tuple[int, int]
    ) -> tuple[UInt8[np.ndarray, "k 3"], Int[np.ndarray, " hw"]]:
        """The same of what frame t adds."""
        return _keys(self._of_frame(t), viewpoint, size_hw)

    def _of_frame(self, t: int) -> list[_Cloud]:
        if not self._cameras:
            return [self._moving[t]]
        return [self._moving[t], self._line_points(frustum_segments(self.layout, [t]))]

    def _line_points(self, segments: Float[np.ndarray, "k 2 3"]) -> _Cloud:
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
        return _Cloud(points, colors, self.layout.spacing)
