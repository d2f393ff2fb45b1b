"""Whitened reprojection residuals of flow measurements and their derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.bundle_adjustment.problem import Estimate, Measurements, Problem

FRONT = 1e-3
"""Points nearer to a camera than this share of the frame's median depth pull at nothing."""


@dataclass(frozen=True)
class Residuals:
    """Measurements, linearised, in standard errors."""

    error: Float[Tensor, "m k 2"]
    """Predicted minus measured."""
    front: Bool[Tensor, "m k"]
    """The point lies in front of the other camera."""
    J: Float[Tensor, "m k 2 13"] | None
    """By the camera of the first frame (6: shift, turn), of the other (6), and the log focal
    length."""
    J_depth: Float[Tensor, "m k 2"] | None
    """By the log depth."""


def residuals(
    problem: Problem, now: Estimate, seen: Measurements, *, by: str = "everything"
) -> Residuals:
    """Errors of measurements. `by`: derivatives by "everything", "depth" alone, or "nothing"."""
    i, j, focal = seen.first, seen.frames, problem.focal * now.log_focal.exp()
    mine, row = i.unique(return_inverse=True)
    bearing = (problem.uv - problem.centre[mine, None]) / focal[mine, None]
    depth = now.log_depth[mine].exp()
    X_i = (torch.cat([bearing, torch.ones_like(bearing[..., :1])], -1) * depth[..., None])[row]
    R = now.R[j] @ now.R[i].transpose(-1, -2)
    turned = X_i @ R.transpose(-1, -2)
    X = turned + (now.t[j] - (R @ now.t[i][..., None])[..., 0])[:, None]
    near = (FRONT * depth.median(dim=1).values)[row, None]
    front = X[..., 2] > near
    z = torch.maximum(X[..., 2], near)[..., None]
    slope, scale = X[..., :2] / z, focal[j][:, None]
    error = _along(seen.whiten, slope * scale + problem.centre[j][:, None] - seen.target)
    if by == "nothing":
        return Residuals(error, front, None, None)
    # a step's direction needs no more than single precision, which is twice as fast
    whiten, slope, R, X, X_i = (x.float() for x in (seen.whiten, slope, R, X, X_i))
    J_point = whiten * (scale / z).float()[..., None, :]
    J_point = torch.cat([J_point, -_along(J_point, slope)[..., None]], -1)
    J_depth = _along(J_point, turned.float())
    if by == "depth":
        return Residuals(error, front, None, J_depth)
    back = -(J_point.flatten(1, 2) @ R).view_as(J_point)
    sideways = X_i[..., :2] @ R[..., :2].transpose(-1, -2)
    longer = _along(whiten, slope * scale.float()) - _along(J_point, sideways)
    J = torch.cat([back, _crossed(X_i, back), J_point, _crossed(X, J_point), longer[..., None]], -1)
    return Residuals(error, front, J, J_depth)


def _along(rows: Float[Tensor, "m k 2 d"], x: Float[Tensor, "m k d"]) -> Float[Tensor, "m k 2"]:
    """The products of rows and x. For so few numbers sums of products are faster than `sum`, and
    than products of many small matrices."""
    out = rows[..., 0] * x[..., None, 0]
    for d in range(1, x.shape[-1]):
        out = out + rows[..., d] * x[..., None, d]
    return out


def squared_length(error: Float[Tensor, "m k 2"]) -> Float[Tensor, "m k"]:
    """|error|^2."""
    return error[..., 0] ** 2 + error[..., 1] ** 2


def _crossed(X: Float[Tensor, "m k 3"], rows: Float[Tensor, "m k 2 3"]) -> Tensor:
    """X x each of the rows."""
    x, y, z = X[:, :, None].unbind(-1)
    a, b, c = rows.unbind(-1)
    return torch.stack([y * c - z * b, z * a - x * c, x * b - y * a], -1)


def robust_weight(seen: Measurements, found: Residuals, width: float) -> Float[Tensor, "m k"]:
    """Weight of each measurement in a step (Geman and McClure)."""
    squared = squared_length(found.error)
    return seen.weight * found.front * (width**2 / (width**2 + squared)) ** 2
