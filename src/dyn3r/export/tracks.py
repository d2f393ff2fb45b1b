"""Still points with the frames that see them, for structure-from-motion formats.

A scene has depth maps, no feature tracks. Two depth maps agree about a point if each sends it to
where the other has it; that is the geometric check of multi-view stereo (Schönberger et al.,
"Pixelwise View Selection for Unstructured Multi-View Stereo", 2016, section 4.3).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from dyn3r.export.camera_conventions import invert_rigid
from dyn3r.scene import Scene
from dyn3r.scene.background import depth_edges, grow, most_confident_per_voxel
from dyn3r.types import Progress, no_progress

_DEPTH_AGREES = 0.02  # relative
_PIXELS_AGREE = 1.0  # forward and back, in prepared pixels
_MASK_MARGIN = 2  # pixels around movers that are left out


class Tracks(NamedTuple):
    """k still points and m observations, ordered by frame."""

    points_world: Float32[np.ndarray, "k 3"]
    colors: UInt8[np.ndarray, "k 3"]
    error_px: Float[np.ndarray, " k"]
    """Mean forward-backward distance between depth maps, prepared pixels; 0 with one view."""
    frame: Int[np.ndarray, " m"]
    point: Int[np.ndarray, " m"]
    """Row of `points_world`; one of a frame appears in its order."""
    uv: Float[np.ndarray, "m 2"]
    """Where the frame sees the point: prepared pixels, integer centres. The point's own pixel in
    the frame that it is from, its projection in the others."""


class _Sample(NamedTuple):
    points: np.ndarray
    colors: np.ndarray
    frame: np.ndarray
    uv: np.ndarray


def find_tracks(
    scene: Scene, *, min_confidence: float, max_points: int, progress: Progress = no_progress
) -> Tracks:
    """Still points of all frames, thinned to `max_points`, and the frames that agree with them."""
    usable = np.stack([_usable(scene, t, min_confidence) for t in range(len(scene))])
    sample = _sample(scene, usable, max_points)
    T_camera_world = invert_rigid(scene.T_world_camera)
    k = np.arange(len(sample.points))
    frames, points, uvs, misses = [], [], [], []
    for t in range(len(scene)):
        progress("finding tracks", t, len(scene))
        own = sample.frame == t
        uv, miss = _check(scene, t, sample, T_camera_world, usable[t])
        uv[own], miss[own] = sample.uv[own], 0.0
        seen = miss <= _PIXELS_AGREE
        frames.append(np.full(int(seen.sum()), t))
        points.append(k[seen])
        uvs.append(uv[seen])
        misses.append(miss[seen])
    progress("finding tracks", len(scene), len(scene))
    point, miss = np.concatenate(points), np.concatenate(misses)
    views = np.bincount(point, minlength=len(k))
    error = np.bincount(point, miss, minlength=len(k)) / np.maximum(views - 1, 1)
    return Tracks(
        sample.points, sample.colors, error, np.concatenate(frames), point, np.concatenate(uvs)
    )


def _usable(scene: Scene, t: int, min_confidence: float) -> np.ndarray:
    chosen = scene.select(t, min_confidence=min_confidence)
    return chosen & ~grow(scene.dynamic[t], _MASK_MARGIN) & ~depth_edges(scene.depth[t])


def _sample(scene: Scene, usable: np.ndarray, max_points: int) -> _Sample:
    """One point a voxel, the most confident, as `Scene.static_points` does; pixels are kept."""
    stride = max(1, int(np.ceil(np.sqrt(scene.depth.size / (4 * max_points)))))
    thin = np.zeros_like(usable)
    for t in range(len(scene)):
        row0, column0 = t % stride, (t // stride) % stride
        part = np.s_[t, row0::stride, column0::stride]
        thin[part] = usable[part]
    clouds = [scene.points_of(t, thin[t]) for t in range(len(scene))]
    points = np.concatenate([cloud.points_world for cloud in clouds])
    colors = np.concatenate([cloud.colors for cloud in clouds])
    frame, row, column = np.nonzero(thin)
    voxel = scene.median_depth / float(np.median(scene.K[:, 0, 0]))
    kept = most_confident_per_voxel(points, scene.confidence[thin], voxel)
    if len(kept) > max_points:
        kept = np.sort(np.random.default_rng(0).choice(kept, max_points, replace=False))
    uv = np.stack([column, row], axis=-1).astype(float)
    return _Sample(points[kept], colors[kept], frame[kept], uv[kept])


def _check(
    scene: Scene, t: int, sample: _Sample, T_camera_world: np.ndarray, usable: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Projections (k, 2) into frame t, and how far off its depth map says they are (inf: no)."""
    uv, z = project(sample.points, scene.K[t], T_camera_world[t])
    miss = np.full(len(uv), np.inf)
    height, width = scene.size_hw
    column, row = np.rint(np.nan_to_num(uv, nan=-9.0).clip(-9, 1e6)).astype(int).T
    hit = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    hit[hit] = usable[row[hit], column[hit]]
    there = np.zeros(len(uv))
    there[hit] = scene.depth[t, row[hit], column[hit]]
    hit &= np.abs(there - z) < _DEPTH_AGREES * z
    # Back: the point that frame t has along this ray, seen from the frame the sample is from.
    ray = np.stack(
        [*((uv[hit] - scene.K[t, :2, 2]) / scene.K[t, [0, 1], [0, 1]]).T, np.ones(hit.sum())]
    )
    T = scene.T_world_camera[t]
    back = (ray * there[hit]).T @ T[:3, :3].T + T[:3, 3]
    own = sample.frame[hit]
    camera = (T_camera_world[own, :3, :3] @ back[..., None])[..., 0] + T_camera_world[own, :3, 3]
    K = scene.K[own]
    ahead = camera[:, 2] > 0
    z_back = np.where(ahead, camera[:, 2], 1.0)
    again = camera[:, :2] / z_back[:, None] * K[:, [0, 1], [0, 1]] + K[:, :2, 2]
    distance = np.linalg.norm(again - sample.uv[hit], axis=1)
    miss[hit] = np.where(ahead, distance, np.inf)
    return uv, miss


def project(
    points_world: Float[np.ndarray, "k 3"],
    K: Float[np.ndarray, "3 3"],
    T_camera_world: Float[np.ndarray, "4 4"],
) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, " k"]]:
    """Pixels (u, v), integer centres, and depths; pixels of points behind the camera are NaN."""
    camera = points_world.astype(np.float64) @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
    z = camera[:, 2]
    safe = np.where(z > 1e-9, z, np.nan)
    return camera[:, :2] / safe[:, None] * K[[0, 1], [0, 1]] + K[:2, 2], z
