"""Points drawn in software: pictures and turntables without a browser or a graphics card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from dyn3r.scene import Scene
from dyn3r.scene.drawing import Picture
from dyn3r.viewer.appearance import Look
from dyn3r.viewer.layout import (
    PlaybackPlan,
    camera_path_segments,
    camera_segments,
    plan_playback,
)
from dyn3r.viewer.page import FOV_RAD
from dyn3r.viewer.points import ScenePoints

BACKGROUND = (24, 24, 27)
_MAX_RADIUS = 8  # pixels
_ORANGE = (255, 140, 0)


@dataclass(frozen=True)
class View:
    """A camera without roll, in world coordinates."""

    position: Float[np.ndarray, " 3"]
    look_at: Float[np.ndarray, " 3"]
    up: Float[np.ndarray, " 3"]
    fov_y_rad: float = FOV_RAD

    @property
    def T_world_camera(self) -> Float[np.ndarray, "4 4"]:
        """Maps camera (x right, y down, z forward) to world."""
        ahead = self.look_at - self.position
        ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-12)
        right = np.cross(ahead, self.up)
        if np.linalg.norm(right) < 1e-6:  # straight up or down: any direction will do
            right = np.cross(ahead, np.roll(ahead, 1) + 0.1)
        right = right / np.linalg.norm(right)
        T = np.eye(4)
        T[:3, 0], T[:3, 1], T[:3, 2] = right, np.cross(ahead, right), ahead
        T[:3, 3] = self.position
        return T

    def K(self, size_hw: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
        """Intrinsics of a picture of this size, its middle straight ahead."""
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
    radius: float,
    background: tuple[int, int, int] = BACKGROUND,
) -> Picture:
    """Each point as a disc of this radius (world units, at most 8 pixels); near hides far.

    The nearest disc of each pixel wins by the depth of its centre. Points closer than a radius to
    the camera are left out.
    """
    h, w = size_hw
    picture = np.empty((h, w, 3), np.uint8)
    picture[:] = background
    R, centre = T_world_camera[:3, :3], T_world_camera[:3, 3]
    camera = ((points_world - centre) @ R).astype(np.float32)
    ahead = np.flatnonzero(camera[:, 2] > max(radius, 1e-12))
    x, y, z = camera[ahead].T
    u = np.rint(K[0, 0] * x / z + K[0, 2])
    v = np.rint(K[1, 1] * y / z + K[1, 2])
    size = np.clip(np.rint(K[1, 1] * radius / z - 0.5), 0, _MAX_RADIUS)
    seen = (u >= -size) & (u < w + size) & (v >= -size) & (v < h + size)
    ahead, z = ahead[seen], z[seen]
    column, row, size = (a[seen].astype(np.int64) for a in (u, v, size))
    # Positive floats sort as their bits do: depth and point in one number, so that the minimum
    # over a pixel is the nearest point, and the lowest index of several at one depth.
    key = (z.view(np.int32).astype(np.int64) << 32) | ahead
    nearest = np.full(h * w, np.iinfo(np.int64).max)
    for r in np.unique(size):
        of_size = np.flatnonzero(size == r)
        for dy, dx in _disc(int(r)):
            i, j = row[of_size] + dy, column[of_size] + dx
            inside = (i >= 0) & (i < h) & (j >= 0) & (j < w)
            np.minimum.at(nearest, (i * w + j)[inside], key[of_size[inside]])
    hit = nearest != np.iinfo(np.int64).max
    picture.reshape(-1, 3)[hit] = colors[nearest[hit] & 0xFFFFFFFF]
    return picture


def _disc(r: int) -> list[tuple[int, int]]:
    span = range(-r, r + 1)
    return [(dy, dx) for dy in span for dx in span if dy * dy + dx * dx <= (r + 0.3) ** 2]


class _Cloud(NamedTuple):
    points: np.ndarray
    colors: np.ndarray


class Painter:
    """Draws a scene at a time from anywhere: its points, the path of its camera, the camera."""

    def __init__(self, scene: Scene, look: Look | None = None, *, cameras: bool = True) -> None:
        self.plan: PlaybackPlan = plan_playback(scene)
        points = ScenePoints(scene, look or Look())
        still = points.background()
        self._still = [_Cloud(cloud.world, cloud.colors) for cloud in still]
        self._moving = [_Cloud(cloud.world, cloud.colors) for cloud in points.moving()]
        self._cameras = cameras
        if cameras:
            self._still.append(self._line_points(camera_path_segments(self.plan)))

    @property
    def first_view(self) -> View:
        """Where the page in the browser begins, too."""
        view = self.plan.first_view
        return View(view.position, view.look_at, self.plan.upright.up_world)

    def picture(
        self, t: int, view: View, size_hw: tuple[int, int], *, finer: int = 2,
        point_factor: float = 1.0,
    ) -> Picture:  # fmt: skip
        """Frame t from this view; drawn `finer` times as large and averaged down."""
        clouds = [*self._still, self._moving[t]]
        if self._cameras:
            clouds.append(self._line_points(camera_segments(self.plan, [t])))
        large = render_points(
            np.concatenate([cloud.points for cloud in clouds]),
            np.concatenate([cloud.colors for cloud in clouds]),
            T_world_camera=view.T_world_camera,
            K=view.K((size_hw[0] * finer, size_hw[1] * finer)),
            size_hw=(size_hw[0] * finer, size_hw[1] * finer),
            radius=0.75 * point_factor * self.plan.point_size,
        )
        h, w = size_hw
        mean = large.reshape(h, finer, w, finer, 3).mean(axis=(1, 3))
        return mean.round().astype(np.uint8)

    def _line_points(self, segments: Float[np.ndarray, "k 2 3"]) -> _Cloud:
        """Lines as rows of points."""
        spacing = 0.7 * self.plan.point_size
        lengths = np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)
        counts = np.clip(np.ceil(lengths / spacing), 1, 1000).astype(int)
        which = np.repeat(np.arange(len(segments)), counts)
        starts = np.cumsum(counts) - counts
        share = (np.arange(len(which)) - starts[which]) / counts[which]
        a, b = segments[which, 0], segments[which, 1]
        points = (a + share[:, None] * (b - a)).astype(np.float32)
        return _Cloud(points, np.tile(np.array(_ORANGE, np.uint8), (len(points), 1)))
