"""Whitened reprojection residuals of flow measurements and their derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate, Measurements
from dyn3r.geometry.cameras import cross_matrix

MIN_DEPTH_SHARE = 1e-3
"""Points nearer to the other camera than this share of the median depth of their frame have no
weight."""

Points = tuple[Float[Tensor, "m 2 k"], Float[Tensor, "m 2 k"], Float[Tensor, "m 2 k"]]
"""Derivatives of residuals by the three coordinates of the point in the target camera."""


@dataclass(frozen=True)
class Derivatives:
    """Derivatives of residuals, single precision.

    A change of the source camera moves the points like a change of the target camera:
    J_source = -J_target transport. So only the latter are stored.
    """

    rows: Float[Tensor, "m 9 2 k"]
    """By the target camera (6: translation, rotation), the log focal length and the log depth; then
    the residuals themselves."""
    transport: Float[Tensor, "m 6 6"]
    """Adjoint of the relative pose of each pair, float64."""

    def all(self) -> Float[Tensor, "m k 2 13"]:
        """By the source camera (6), the target camera (6) and the log focal length, float64."""
        J = self.rows[:, :7].double().permute(0, 3, 2, 1)
        return torch.cat([-J[..., :6] @ self.transport[:, None], J], -1)


@dataclass(frozen=True)
class Residuals:
    """Residuals in standard errors, and their derivatives."""

    error: Float[Tensor, "m k 2"]
    """Predicted minus measured position."""
    in_front: Bool[Tensor, "m k"]
    """Whether the point is in front of the other camera."""
    derivatives: Derivatives | None
    """By cameras and log focal length."""
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
    frames, row = measured.frames
    depth = estimate.log_depth[frames].exp()
    bearing = (problem.uv.T - problem.center[frames, :, None]) / focal[frames, :, None]
    X_i = torch.cat([bearing * depth[:, None], depth[:, None]], 1)[row]
    R = estimate.R[j] @ estimate.R[i].transpose(-1, -2)
    t = estimate.t[j] - (R @ estimate.t[i][..., None])[..., 0]
    X = torch.baddbmm(t[..., None], R, X_i)
    nearest = (MIN_DEPTH_SHARE * depth.median(dim=1).values)[row, None]
    in_front = X[:, 2] > nearest
    z = torch.maximum(X[:, 2], nearest)[:, None]
    slope, scale = X[:, :2] / z, focal[j][..., None]
    off = torch.addcmul(problem.center[j][..., None], slope, scale) - measured.uv_rows.movedim(0, 1)
    W = measured.whiten_columns
    error = torch.addcmul(W[0] * off[:, None, 0], W[1], off[:, None, 1]).movedim(1, -1)
    if derivatives == "none":
        return Residuals(error, in_front, None, None)
    # single precision suffices for the direction of a step and is twice as fast
    R_, X_i, scale, z, slope = (x.float() for x in (R, X_i, scale, z, slope))
    rows = torch.empty((len(i), 9, *error.shape[:0:-1]), device=R.device)
    by_point = _by_point(W.float(), scale / z, slope, rows)
    J_depth = _along(by_point, torch.bmm(R_, X_i), rows[:, 7]).movedim(1, -1)
    if derivatives == "depth":
        return Residuals(error, in_front, None, J_depth)
    _cross(X.float(), by_point, rows)
    _along(by_point, _by_focal(R_, t.float(), X_i), rows[:, 6])
    rows[:, 8] = error.movedim(-1, 1)
    return Residuals(error, in_front, Derivatives(rows, _transport(R, t)), J_depth)


def _by_point(
    W: Float[Tensor, "2 m 2 k"],
    scale: Float[Tensor, "m 2 k"],
    slope: Float[Tensor, "m 2 k"],
    rows: Float[Tensor, "m 9 2 k"],
) -> Points:
    """Write the first rows: by the three coordinates of the point in the target camera."""
    a, b, c = rows[:, 0], rows[:, 1], rows[:, 2]
    torch.mul(W[0], scale[:, None, 0], out=a)
    torch.mul(W[1], scale[:, None, 1], out=b)
    torch.mul(a, slope[:, None, 0], out=c).addcmul_(b, slope[:, None, 1]).neg_()
    return a, b, c


def _along(
    by_point: Points, x: Float[Tensor, "m 3 k"], row: Float[Tensor, "m 2 k"]
) -> Float[Tensor, "m 2 k"]:
    """Write the derivatives by a movement of the points along x into a row."""
    torch.mul(by_point[0], x[:, None, 0], out=row)
    return row.addcmul_(by_point[1], x[:, None, 1]).addcmul_(by_point[2], x[:, None, 2])


def _cross(X: Float[Tensor, "m 3 k"], by_point: Points, rows: Float[Tensor, "m 9 2 k"]) -> None:
    """Write the derivatives by a rotation, X x derivative by the point."""
    for axis in range(3):
        after, last = (axis + 1) % 3, (axis + 2) % 3
        torch.mul(by_point[last], X[:, None, after], out=rows[:, 3 + axis])
        rows[:, 3 + axis].addcmul_(by_point[after], X[:, None, last], value=-1)


def _by_focal(
    R: Float[Tensor, "m 3 3"], t: Float[Tensor, "m 3"], X_i: Float[Tensor, "m 3 k"]
) -> Float[Tensor, "m 3 k"]:
    """Movement of the points that acts like a change of the log focal length of both cameras.

    x and y of the points grow with the focal length of the target camera, and x and y in the source
    camera shrink with its own: (x, y, 0) - R (x_i, y_i, 0), in which most of x and y cancels.
    """
    A, b = torch.zeros_like(R), t[..., None].clone()
    A[:, :2, 2], A[:, 2, :2], b[:, 2] = R[:, :2, 2], -R[:, 2, :2], 0
    return torch.baddbmm(b, A, X_i)


def _transport(R: Float[Tensor, "m 3 3"], t: Float[Tensor, "m 3"]) -> Float[Tensor, "m 6 6"]:
    """Adjoint of the poses x -> R x + t, for changes (translation, rotation)."""
    out = R.new_zeros(len(R), 6, 6)
    out[:, :3, :3] = out[:, 3:, 3:] = R
    out[:, :3, 3:] = cross_matrix(t) @ R
    return out


def squared_length(error: Float[Tensor, "m k 2"]) -> Float[Tensor, "m k"]:
    """|error|^2."""
    return error[..., 0] ** 2 + error[..., 1] ** 2


def robust_weight(measured: Measurements, found: Residuals, width: float) -> Float[Tensor, "m k"]:
    """Weight of each measurement under the Geman-McClure kernel of `width` standard errors."""
    squared = squared_length(found.error)
    return measured.weight * found.in_front * (width**2 / (width**2 + squared)) ** 2
