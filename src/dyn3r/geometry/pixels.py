"""Pixels with depth as NumPy arrays: world points and back; statistics of a clip. No PyTorch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

MAX_STATISTICS_PIXELS = 1_000_000
"""Pixels that quantiles and medians of a clip are computed from. Source: run time."""


def unproject_pixels(
    u: np.ndarray, v: np.ndarray, depth: np.ndarray, K: np.ndarray, T_world_camera: np.ndarray
) -> np.ndarray:
    """World points (..., 3) float32 of pixels (u, v) with z depth; pinhole K without skew."""
    x = ((u - K[0, 2]) / K[0, 0]).astype(np.float32) * depth
    y = ((v - K[1, 2]) / K[1, 1]).astype(np.float32) * depth
    R, t = T_world_camera[:3, :3].astype(np.float32), T_world_camera[:3, 3].astype(np.float32)
    return np.asarray(np.stack([x, y, depth], axis=-1) @ R.T + t)


def project_pixels(
    points_world: Float[np.ndarray, "*k 3"],
    K: Float[np.ndarray, "3 3"],
    T_camera_world: Float[np.ndarray, "4 4"],
) -> tuple[Float[np.ndarray, "*k 2"], Float[np.ndarray, "*k"]]:
    """Pixels (u, v), integer centres, and depths; pixels of points behind the camera are NaN."""
    camera = points_world.astype(np.float64) @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
    z = camera[..., 2]
    safe = np.where(z > 1e-9, z, np.nan)
    return camera[..., :2] / safe[..., None] * K[[0, 1], [0, 1]] + K[:2, 2], z


def median_depth(depth: Float[np.ndarray, "n h w"]) -> float:
    """Median of the known depths of a clip; 1 if none is known."""
    step = max(1, depth.size // MAX_STATISTICS_PIXELS)
    sample = depth.reshape(-1)[::step]
    known = sample[sample > 0]
    return float(np.median(known)) if len(known) else 1.0


def confidence_threshold(confidence: Float[np.ndarray, "n h w"], drop: float) -> float:
    """Confidence that a share `drop` (0..1) of the pixels above 0 of a clip lies below."""
    step = max(1, confidence.size // MAX_STATISTICS_PIXELS)
    sample = confidence.reshape(-1)[::step]
    kept = sample[sample > 0]
    return float(np.quantile(kept, drop)) if len(kept) and drop > 0 else 0.0
