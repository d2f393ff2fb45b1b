"""Whitened reprojection residuals of flow measurements and their derivatives."""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass(frozen=True)
class Derivatives:
    """Derivatives of residuals, single precision.

    A change of the source camera moves the points like a change of the target camera:
    J_source = -J_target transport. So only the latter are stored.
    """

    J: Float[Tensor, "m 7 2 k"]
    """By the target camera (6: translation, rotation) and the log focal length."""
    transport: Float[Tensor, "m 6 6"]
    """Adjoint of the relative pose of each pair, float64."""

    def expansion(self) -> Float[Tensor, "m 7 13"]:
        """E in J_all = J E: by the source camera, the target camera and the log focal length."""
        E = self.transport.new_zeros(len(self.transport), 7, 13)
        E[:, :6, :6] = -self.transport
        E[:, torch.arange(7), torch.arange(6, 13)] = 1
        return E

    def all(self) -> Float[Tensor, "m k 2 13"]:
        """By the source camera (6), the target camera (6) and the log focal length, float64."""
        return torch.einsum("mark,mac->mkrc", self.J.double(), self.expansion())


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
    frames, row = torch.unique(i, return_inverse=True)
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
    by_point = _by_point(W.float(), (scale / z).float(), slope.float())
    J_depth = _along(by_point, torch.bmm(R, X_i).float())
    if derivatives == "depth":
        return Residuals(error, in_front, None, J_depth.movedim(1, -1))
    sideways = torch.bmm(R[..., :2], X_i[:, :2]).float()
    by_focal = _along(W.float(), (slope * scale).float()) - _along(by_point, sideways)
    J = torch.stack([*by_point, *_cross(X.float(), by_point), by_focal], 1)
    found = Derivatives(J, _transport(R, t))
    return Residuals(error, in_front, found, J_depth.movedim(1, -1))


def _by_point(
    W: Float[Tensor, "2 m 2 k"], scale: Float[Tensor, "m 2 k"], slope: Float[Tensor, "m 2 k"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives (m 2 k) by the three coordinates of the point in the target camera."""
    a, b = W[0] * scale[:, None, 0], W[1] * scale[:, None, 1]
    return a, b, -torch.addcmul(a * slope[:, None, 0], b, slope[:, None, 1])


def _along(columns: Sequence[Tensor] | Tensor, x: Float[Tensor, "m c k"]) -> Float[Tensor, "m 2 k"]:
    """Sum of the columns (m 2 k) times the coordinates of x."""
    total = columns[0] * x[:, None, 0]
    for c in range(1, len(columns)):
        total = torch.addcmul(total, columns[c], x[:, None, c])
    return total


def _cross(
    X: Float[Tensor, "m 3 k"], by_point: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """X x derivative by the point: the derivatives by a rotation."""
    (x, y, z), (a, b, c) = X[:, :, None].unbind(1), by_point
    return y * c - z * b, z * a - x * c, x * b - y * a


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
