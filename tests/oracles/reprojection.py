"""Pixels with depth as points, and points as pixels of another frame (arrays, single precision)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

MIN_DEPTH = 1e-6
"""Smaller depths, and those behind the camera, count as this: nothing is divided by 0."""


def camera_points(
    depth: Float[np.ndarray, "h w"], K: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "h w 3"]:
    """Points of every pixel in the frame's camera (OpenCV axes), from depth (z); K in pixels."""
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]].astype(np.float32)
    ray = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], -1)
    return np.asarray(ray * depth[..., None])


def pixels_of(
    points: Float[np.ndarray, "h w 3"], K: Float[np.ndarray, "3 3"]
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Pixel coordinates u and v, and depth of at least MIN_DEPTH, of points in the camera."""
    z = np.maximum(points[..., 2], MIN_DEPTH)
    return K[0, 0] * points[..., 0] / z + K[0, 2], K[1, 1] * points[..., 1] / z + K[1, 2], z
