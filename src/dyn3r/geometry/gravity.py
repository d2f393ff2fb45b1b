"""Up direction of a scene: vertical edges, else a ground plane, else the cameras.

The world of a reconstruction is the frame of its first camera and is tilted as that camera was. The
mean up-vector of the cameras is a first estimate, because people hold cameras level but pitch them.
The normal of a ground plane is better if there is one and the depth is good. Vertical edges in the
images are best if there are enough of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.geometry.ground_plane import fit_ground_plane
from dyn3r.geometry.pixels import confidence_threshold, median_depth, unproject_pixels
from dyn3r.geometry.vanishing_point import find_vertical

SAMPLE_POINTS = 4000
"""Number of static points that the ground plane is fitted to. Source: run time."""
SAMPLE_FRAMES = 16
"""Largest number of frames that these points come from. Source: run time."""
DROPPED_CONFIDENCE_SHARE = 0.2
"""Share of the valid pixels, those of lowest confidence, that the sample leaves out.
Source: chosen by hand."""


@dataclass(frozen=True)
class Upright:
    """Up direction of the world and how it was found."""

    up_world: Float[np.ndarray, " 3"]
    """Unit vector in world coordinates that points up."""
    source: str
    """`vertical edges`, `ground plane` or `cameras`."""
    ground_height: float | None
    """Height (up_world . point) of the ground in scene units; None without a ground plane."""


def find_up(
    images: UInt8[np.ndarray, "n h w 3"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    depth: Float[np.ndarray, "n h w"],
    valid: Bool[np.ndarray, "n h w"],
    dynamic: Bool[np.ndarray, "n h w"],
    confidence: Float[np.ndarray, "n h w"],
) -> Upright:
    """Up direction of the world by the best source that is available.

    In this order: the direction of vertical edges if it is reliable
    (`dyn3r.geometry.vanishing_point.find_vertical`), the normal of a ground plane
    (`dyn3r.geometry.ground_plane.fit_ground_plane`), the mean up-vector of the cameras. If edges
    give the direction, the ground is the horizontal plane with the most inliers.

    `depth` is z in the camera (0: unknown). Pixels that are not `valid` or are `dynamic` take no
    part in the ground plane. The result is deterministic.
    """
    camera_up = _unit(-T_world_camera[:, :3, 1].mean(axis=0), -T_world_camera[0, :3, 1])
    points = sample_static_points(K, T_world_camera, depth, valid, dynamic, confidence)
    centers, unit = T_world_camera[:, :3, 3], median_depth(depth)
    vertical = find_vertical(images, K, T_world_camera, dynamic=dynamic, depth=depth)
    if vertical is not None and vertical.reliable:
        up = vertical.up_world
        level = fit_ground_plane(points, centers, camera_up, unit, up)
        return Upright(up, "vertical edges", None if level is None else level.height)
    plane = fit_ground_plane(points, centers, camera_up, unit)
    if plane is None:
        return Upright(camera_up, "cameras", None)
    return Upright(plane.normal, "ground plane", plane.height)


def sample_static_points(
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    depth: Float[np.ndarray, "n h w"],
    valid: Bool[np.ndarray, "n h w"],
    dynamic: Bool[np.ndarray, "n h w"],
    confidence: Float[np.ndarray, "n h w"],
    count: int = SAMPLE_POINTS,
) -> Float[np.ndarray, "k 3"]:
    """About `count` static world points, spread over frames and pixels.

    The pixels of lowest confidence are left out (DROPPED_CONFIDENCE_SHARE). The random numbers have
    a fixed seed.
    """
    threshold = confidence_threshold(np.where(valid, confidence, 0), DROPPED_CONFIDENCE_SHARE)
    n = len(depth)
    frames = np.unique(np.linspace(0, n - 1, min(n, SAMPLE_FRAMES)).astype(int))
    rng = np.random.default_rng(0)
    found = [np.zeros((0, 3))]
    for t in frames:
        usable = (depth[t] > 0) & valid[t] & ~dynamic[t] & (confidence[t] >= threshold)
        pixels = np.flatnonzero(usable)
        few = np.sort(rng.permutation(pixels)[: -(-count // len(frames))])
        rows, columns = np.divmod(few, depth.shape[2])
        points = unproject_pixels(columns, rows, depth[t, rows, columns], K[t], T_world_camera[t])
        found.append(points.astype(np.float64))
    return np.concatenate(found)


def _unit(vector: np.ndarray, fallback: np.ndarray) -> Float[np.ndarray, " 3"]:
    length = np.linalg.norm(vector)
    return np.asarray(vector / length if length > 0.1 else fallback / np.linalg.norm(fallback))
