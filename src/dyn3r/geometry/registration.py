"""Closed-form registration of corresponding points, and cameras from points (PnP)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


class Similarity(NamedTuple):
    """Similarity transform that maps x to scale * (R x) + t."""

    scale: Float[Tensor, "*batch"]
    R: Float[Tensor, "*batch 3 3"]
    t: Float[Tensor, "*batch 3"]

    def apply(self, points: Float[Tensor, "*batch k 3"]) -> Float[Tensor, "*batch k 3"]:
        """Map rows of points."""
        rotated = points @ self.R.transpose(-1, -2)
        return self.scale[..., None, None] * rotated + self.t[..., None, :]


def weighted_similarity(
    source: Float[Tensor, "*batch k 3"],
    target: Float[Tensor, "*batch k 3"],
    weights: Float[Tensor, "*batch k"],
) -> Similarity:
    """Similarity that minimises the sum of w |target - s R source - t|^2 (Umeyama 1991).

    Computed in float64. R is always a proper rotation, also for points on a plane or a line. If all
    weights are 0, or all points coincide, R is the identity and the scale is 1.
    """
    x, y, w = source.double(), target.double(), weights.double()
    total = w.sum(-1, keepdim=True)
    w = w / total.clamp_min(1e-300)
    x_mean, y_mean = (w[..., None] * x).sum(-2), (w[..., None] * y).sum(-2)
    x_centred, y_centred = x - x_mean[..., None, :], y - y_mean[..., None, :]
    covariance = (w[..., None] * y_centred).transpose(-1, -2) @ x_centred
    R, singular = nearest_rotation(covariance)
    spread = (w * (x_centred * x_centred).sum(-1)).sum(-1)
    known = (spread > 1e-300) & (singular > 0)
    R = torch.where(known[..., None, None], R, torch.eye(3, dtype=R.dtype, device=R.device))
    scale = torch.where(known, singular / spread.clamp_min(1e-300), torch.ones_like(spread))
    t = y_mean - scale[..., None] * (R @ x_mean[..., None])[..., 0]
    dtype = source.dtype
    return Similarity(scale.to(dtype), R.to(dtype), t.to(dtype))


def nearest_rotation(
    M: Float[Tensor, "*batch 3 3"],
) -> tuple[Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch"]]:
    """Rotation R that maximises trace(R^T M), and the maximum."""
    U, S, Vh = torch.linalg.svd(M)
    sign = torch.ones_like(S)
    sign[..., 2] = torch.where(torch.linalg.det(U @ Vh) < 0, -1.0, 1.0).to(S.dtype)
    return (U * sign[..., None, :]) @ Vh, (S * sign).sum(-1)


def robust_similarity(
    source: Float[Tensor, "*batch k 3"],
    target: Float[Tensor, "*batch k 3"],
    weights: Float[Tensor, "*batch k"],
    reweightings: int = 8,
) -> Similarity:
    """Similarity that minimises the sum of w |residual|, not squared, by re-weighting."""
    fit = weighted_similarity(source, target, weights)
    for _ in range(reweightings):
        error = (target - fit.apply(source)).norm(dim=-1)
        typical = (weights * error).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True).clamp_min(
            1e-12
        )
        fit = weighted_similarity(source, target, weights / (error + 0.01 * typical + 1e-12))
    return fit


def rotation_and_scale(
    source: Float[Tensor, "n 4 4"], target: Float[Tensor, "n 4 4"]
) -> tuple[Float[Tensor, "3 3"], float | None]:
    """Rotation and scale between two worlds in which the same cameras (camera to world) are known.

    The rotation is the mean of the differences. The scale is the ratio of the extents of the camera
    centres, which does not depend on how far the two paths agree (symmetric scale, Horn 1987); None
    where the cameras of one world are at one place.
    """
    R = nearest_rotation((target[:, :3, :3] @ source[:, :3, :3].transpose(1, 2)).sum(0))[0]
    a, b = source[:, :3, 3] @ R.T, target[:, :3, 3]
    a, b = a - a.mean(0), b - b.mean(0)
    extents = float((a**2).sum()), float((b**2).sum())
    return R, (extents[1] / extents[0]) ** 0.5 if min(extents) > 1e-12 else None


def solve_camera(
    points_world: Float[np.ndarray, "k 3"],
    uv: Float[np.ndarray, "k 2"],
    K: Float[np.ndarray, "3 3"],
    tolerance_px: float = 5.0,
    iterations: int = 100,
) -> tuple[Float[np.ndarray, "4 4"], float] | None:
    """T_world_camera from world points and their pixels (PnP with RANSAC; SQPnP inside).

    Returns the camera and the share of inliers; None if there are fewer than 6 points or no
    camera is found. The random numbers are OpenCV's, with its fixed seed.
    """
    import cv2

    good = np.isfinite(points_world).all(-1)
    points = np.ascontiguousarray(points_world[good], dtype=np.float64)
    pixels = np.ascontiguousarray(uv[good], dtype=np.float64)
    if len(points) < 6:
        return None
    # OpenCV has absolute thresholds inside: it gets points of unit size about the origin.
    centre = np.median(points, axis=0)
    size = float(np.median(np.abs(points - centre))) or 1.0
    try:
        found, rotation, shift, inliers = cv2.solvePnPRansac(
            (points - centre) / size,
            pixels,
            np.asarray(K, dtype=np.float64),
            None,
            iterationsCount=iterations,
            reprojectionError=tolerance_px,
            flags=cv2.SOLVEPNP_SQPNP,
        )
    except cv2.error:
        return None
    if not found or inliers is None or not np.isfinite(shift).all():
        return None
    R = cv2.Rodrigues(rotation)[0]
    T_world_camera = np.eye(4)
    T_world_camera[:3, :3] = R.T
    T_world_camera[:3, 3] = centre - size * (R.T @ shift[:, 0])
    return T_world_camera, len(inliers) / len(points)
