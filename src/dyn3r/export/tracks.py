"""Static points with the frames that observe them, for structure-from-motion formats.

A scene has depth maps and no feature tracks. Two depth maps agree on a point if each maps it to the
position where the other has it. This is the geometric check of multi-view stereo (Schönberger et
al., "Pixelwise View Selection for Unstructured Multi-View Stereo", 2016, section 4.3).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from dyn3r.geometry.pixels import project_pixels
from dyn3r.scene import Scene
from dyn3r.scene.background import choose_static, depth_edges, grow, on_grid
from dyn3r.types import Progress, no_progress

_DEPTH_TOLERANCE = 0.02  # relative
_MAX_ROUND_TRIP_PX = 1.0  # forward-backward distance, prepared pixels
_MASK_MARGIN_PX = 2  # pixels around dynamic ones that are left out


class Tracks(NamedTuple):
    """k points and m observations, ordered by frame."""

    points_world: Float32[np.ndarray, "k 3"]
    """World points."""
    colors: UInt8[np.ndarray, "k 3"]
    """sRGB, 0..255."""
    error_px: Float[np.ndarray, " k"]
    """Mean forward-backward distance between depth maps, prepared pixels; 0 with one view."""
    frame: Int[np.ndarray, " m"]
    """Frame of each observation."""
    point: Int[np.ndarray, " m"]
    """Row of `points_world` of each observation; ascending within a frame."""
    uv: Float[np.ndarray, "m 2"]
    """Position of the observation: prepared pixels, integer centres. It is the point's own pixel in
    the frame that it comes from, and its projection in the others."""


def with_moving(tracks: Tracks, scene: Scene, *, min_confidence: float, max_points: int) -> Tracks:
    """The tracks, and after their points the dynamic points of all frames, thinned to `max_points`.

    A dynamic point is observed by its own frame alone.
    """
    masks = []
    for t in range(len(scene)):
        chosen = scene.select(t, min_confidence=min_confidence) & scene.dynamic[t]
        masks.append(chosen & ~depth_edges(scene.depth[t]))
    count = sum(int(mask.sum()) for mask in masks)
    step = max(1, int(np.ceil(np.sqrt(count / max_points))))
    clouds = [scene.points_of(t, on_grid(mask, step, 0, 0)) for t, mask in enumerate(masks)]
    pixels = [np.argwhere(on_grid(mask, step, 0, 0))[:, ::-1] for mask in masks]
    added = np.repeat(np.arange(len(scene)), [len(p) for p in pixels])
    frame = np.concatenate([tracks.frame, added])
    order = np.argsort(frame, kind="stable")
    point = np.concatenate([tracks.point, len(tracks.points_world) + np.arange(len(added))])
    return Tracks(
        np.concatenate([tracks.points_world, *(cloud.points_world for cloud in clouds)]),
        np.concatenate([tracks.colors, *(cloud.colors for cloud in clouds)]),
        np.concatenate([tracks.error_px, np.zeros(len(added))]),
        frame[order], point[order],
        np.concatenate([tracks.uv, *(p.astype(np.float64) for p in pixels)])[order],
    )  # fmt: skip


class _Sample(NamedTuple):
    """Points, and the pixel of the frame that each comes from."""

    points: Float32[np.ndarray, "k 3"]
    colors: UInt8[np.ndarray, "k 3"]
    frame: Int[np.ndarray, " k"]
    uv: Float[np.ndarray, "k 2"]


def find_tracks(
    scene: Scene, *, min_confidence: float, max_points: int, progress: Progress = no_progress
) -> Tracks:
    """Static points of all frames, thinned to `max_points`, and the frames that confirm them."""
    sample = _sample(scene, min_confidence, max_points)
    T_camera_world = np.linalg.inv(scene.T_world_camera)
    index = np.arange(len(sample.points))
    frames, points, uvs, errors = [], [], [], []
    for t in range(len(scene)):
        progress("finding tracks", t, len(scene))
        usable = scene.select(t, min_confidence=min_confidence)
        usable &= ~grow(scene.dynamic[t], _MASK_MARGIN_PX) & ~depth_edges(scene.depth[t])
        uv, error = _observe(scene, t, sample, T_camera_world, usable)
        own = sample.frame == t
        uv[own], error[own] = sample.uv[own], 0.0
        seen = error <= _MAX_ROUND_TRIP_PX
        frames.append(np.full(int(seen.sum()), t))
        points.append(index[seen])
        uvs.append(uv[seen])
        errors.append(error[seen])
    progress("finding tracks", len(scene), len(scene))
    point = np.concatenate(points)
    views = np.bincount(point, minlength=len(index))
    total = np.bincount(point, np.concatenate(errors), minlength=len(index))
    mean = total / np.maximum(views - 1, 1)
    return Tracks(
        sample.points, sample.colors, mean, np.concatenate(frames), point, np.concatenate(uvs)
    )


def _sample(scene: Scene, min_confidence: float, max_points: int) -> _Sample:
    """Static points away from depth edges, the most confident one per voxel."""
    pixels, cloud = choose_static(
        scene,
        min_confidence=min_confidence,
        max_points=max_points,
        mask_margin=_MASK_MARGIN_PX,
        keep=lambda t: ~depth_edges(scene.depth[t]),
    )
    frame = np.repeat(np.arange(len(scene)), [len(of_frame) for of_frame in pixels])
    row, column = np.divmod(np.concatenate(pixels), scene.size_hw[1])
    uv = np.stack([column, row], axis=-1).astype(float)
    return _Sample(cloud.points_world, cloud.colors, frame, uv)


def _observe(
    scene: Scene,
    t: int,
    sample: _Sample,
    T_camera_world: Float[np.ndarray, "n 4 4"],
    usable: Bool[np.ndarray, "h w"],
) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, " k"]]:
    """Projections into frame t, and forward-backward distances in pixels.

    The distance is infinite where the depth map of frame t does not confirm the point.
    """
    uv, z = project_pixels(sample.points, scene.K[t], T_camera_world[t])
    error = np.full(len(uv), np.inf)
    height, width = scene.size_hw
    column, row = np.rint(np.nan_to_num(uv, nan=-9.0).clip(-9, 1e6)).astype(int).T
    hit = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    hit[hit] = usable[row[hit], column[hit]]
    measured = np.zeros(len(uv))
    measured[hit] = scene.depth[t, row[hit], column[hit]]
    hit &= np.abs(measured - z) < _DEPTH_TOLERANCE * z
    # Back: the point that frame t has along this ray, as seen from the frame of the sample.
    K, T = scene.K[t], scene.T_world_camera[t]
    rays = np.column_stack([(uv[hit] - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones(hit.sum())])
    world = (rays * measured[hit, None]) @ T[:3, :3].T + T[:3, 3]
    own = sample.frame[hit]
    camera = (T_camera_world[own, :3, :3] @ world[..., None])[..., 0] + T_camera_world[own, :3, 3]
    K_own = scene.K[own]
    ahead = camera[:, 2] > 0
    z_own = np.where(ahead, camera[:, 2], 1.0)
    returned = camera[:, :2] / z_own[:, None] * K_own[:, [0, 1], [0, 1]] + K_own[:, :2, 2]
    distance = np.linalg.norm(returned - sample.uv[hit], axis=1)
    error[hit] = np.where(ahead, distance, np.inf)
    return uv, error
