"""Whitened reprojection residuals of flow measurements and their derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate, Measurements

MIN_DEPTH_SHARE = 1e-3
"""Points nearer to the other camera than this share of the median depth of their frame have no
weight."""


@dataclass(frozen=True)
class Residuals:
    """Residuals in standard errors, and their derivatives."""

    error: Float[Tensor, "m k 2"]
    """Predicted minus measured position."""
    in_front: Bool[Tensor, "m k"]
    """Whether the point is in front of the other camera."""
    J: Float[Tensor, "m k 2 13"] | None
    """By the source camera (6: translation, rotation), the target camera (6) and the log focal
    length."""
    J_depth: Float[Tensor, "m k 2"] | None
    """By the log depth."""


def residuals(
    problem: BundleProblem,
    estimate: Estimate,
    measured: Measurements,
    *,
    derivatives: Literal["all", "depth", "none"] = "all",
) -> Residuals:
    """Residuals of measurements, with derivatives by all unknowns, by depth alone, or without."""
    i, j, focal = measured.source, measured.target, problem.focal * estimate.log_focal.exp()
    frames, row = torch.unique(i, return_inverse=True)
    bearing = (problem.uv - problem.center[frames, None]) / focal[frames, None]
    depth = estimate.log_depth[frames].exp()
    X_i = (torch.cat([bearing, torch.ones_like(bearing[..., :1])], -1) * depth[..., None])[row]
    R = estimate.R[j] @ estimate.R[i].transpose(-1, -2)
    rotated = X_i @ R.transpose(-1, -2)
    X = rotated + (estimate.t[j] - (R @ estimate.t[i][..., None])[..., 0])[:, None]
    nearest = (MIN_DEPTH_SHARE * depth.median(dim=1).values)[row, None]
    in_front = X[..., 2] > nearest
    z = torch.maximum(X[..., 2], nearest)[..., None]
    slope, scale = X[..., :2] / z, focal[j][:, None]
    predicted = slope * scale + problem.center[j][:, None]
    error = _matvec(measured.whiten, predicted - measured.uv)
    if derivatives == "none":
        return Residuals(error, in_front, None, None)
    # single precision suffices for the direction of a step and is twice as fast
    whiten, slope, R, X, X_i = (x.float() for x in (measured.whiten, slope, R, X, X_i))
    J_point = whiten * (scale / z).float()[..., None, :]
    J_point = torch.cat([J_point, -_matvec(J_point, slope)[..., None]], -1)
    J_depth = _matvec(J_point, rotated.float())
    if derivatives == "depth":
        return Residuals(error, in_front, None, J_depth)
    J_source = -(J_point.flatten(1, 2) @ R).view_as(J_point)
    sideways = X_i[..., :2] @ R[..., :2].transpose(-1, -2)
    J_focal = _matvec(whiten, slope * scale.float()) - _matvec(J_point, sideways)
    J = torch.cat(
        [
            J_source,
            _cross_rows(X_i, J_source),
            J_point,
            _cross_rows(X, J_point),
            J_focal[..., None],
        ],
        -1,
    )
    return Residuals(error, in_front, J, J_depth)


def _matvec(rows: Float[Tensor, "m k 2 d"], x: Float[Tensor, "m k d"]) -> Float[Tensor, "m k 2"]:
    """Matrix-vector products; for so few columns faster than `sum` or batched products."""
    out = rows[..., 0] * x[..., None, 0]
    for d in range(1, x.shape[-1]):
        out = out + rows[..., d] * x[..., None, d]
    return out


def squared_length(error: Float[Tensor, "m k 2"]) -> Float[Tensor, "m k"]:
    """|error|^2."""
    return error[..., 0] ** 2 + error[..., 1] ** 2


def _cross_rows(
    X: Float[Tensor, "m k 3"], rows: Float[Tensor, "m k 2 3"]
) -> Float[Tensor, "m k 2 3"]:
    """X x row for each of the rows."""
    x, y, z = X[:, :, None].unbind(-1)
    a, b, c = rows.unbind(-1)
    return torch.stack([y * c - z * b, z * a - x * c, x * b - y * a], -1)


def robust_weight(measured: Measurements, found: Residuals, width: float) -> Float[Tensor, "m k"]:
    """Weight of each measurement under the Geman-McClure kernel of `width` standard errors."""
    squared = squared_length(found.error)
    return measured.weight * found.in_front * (width**2 / (width**2 + squared)) ** 2
