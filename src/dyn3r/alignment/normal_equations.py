"""Normal equations of a Gauss-Newton step over cameras, focal lengths and pairs.

The objective, a sum of w |r|, is replaced by a quadratic with the same value and gradient. Its
curvature lies between that of re-weighting (w/|r|, an overestimate, because |r| has no curvature
along r) and that of Newton's method (none along r, which may diverge): RADIAL_REDUCTION of the
component along r is subtracted. The depth of a pixel appears in one frame only and is eliminated
exactly (Schur complement). This leaves 6 unknowns per camera, 1 per focal length and 7 per pair.
The system is built for a few frames at a time, so memory is bounded.

Unknowns are small changes about the state. A camera rotates by w and translates by v (world axes,
about its own centre). A log focal length changes by phi. The points of a pair scale by sigma,
rotate by theta about their centroid c and translate by tau:
y -> c + tau + (1 + sigma) exp(theta) (y - c).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.alignment.linear_solver import Block
from dyn3r.geometry import rotations
from dyn3r.geometry.cameras import cross_matrix

RADIAL_REDUCTION = 0.8
"""Share of the curvature along a residual that is subtracted; 0: re-weighting, 1: Newton.
Source: chosen by hand for fast convergence; the minimum does not depend on it."""
MIN_MOVEMENT = 1e-2
"""The kinks of the smoothness term are rounded off below this share of the mean movement.
Source: chosen by hand."""


@dataclass(frozen=True)
class ParameterLayout:
    """Index of each unknown in the vector of unknowns."""

    num_frames: int
    num_focals: int
    num_pairs: int

    @property
    def size(self) -> int:
        """Length of the vector."""
        return 6 * self.num_frames + self.num_focals + 7 * self.num_pairs

    def frames(self, frames: Int[Tensor, "*k"]) -> Int[Tensor, "*k 7"]:
        """Rotation, translation and log focal length of cameras (one focal length if shared)."""
        camera = 6 * frames[..., None] + torch.arange(6, device=frames.device)
        which = frames if self.num_focals > 1 else torch.zeros_like(frames)
        return torch.cat([camera, (6 * self.num_frames + which)[..., None]], -1)

    def pairs(self, pairs: Int[Tensor, "*k"]) -> Int[Tensor, "*k 7"]:
        """Scale, rotation and translation of pairs."""
        first = 6 * self.num_frames + self.num_focals + 7 * pairs
        return first[..., None] + torch.arange(7, device=pairs.device)


@dataclass(frozen=True)
class FrameTerms:
    """Terms of one kind of observation of frames that have equally many of them.

    The own 7 unknowns of each frame are coupled with g groups of 7 others and with the depth of
    each pixel.
    """

    index: Int[Tensor, "f g 7"]
    H_own: Float[Tensor, "f 7 7"]
    H_mixed: Float[Tensor, "f g 7 7"]
    H_other: Float[Tensor, "f g 7 7"]
    b_own: Float[Tensor, "f 7"]
    b_other: Float[Tensor, "f g 7"]
    depth_curvature: Float[Tensor, "f p"]
    """Second derivative by the depth of each pixel."""
    depth_own: Float[Tensor, "f p 7"]
    """Mixed derivative by depth and own unknowns."""
    depth_other: Float[Tensor, "f p g 7"]
    """Mixed derivative by depth and other unknowns."""
    depth_slope: Float[Tensor, "f p"]
    """Derivative by the depth of each pixel."""


def frame_columns(
    arm: Float[Tensor, "f p 3"], focal_column: Float[Tensor, "f p 3"]
) -> Float[Tensor, "f p 3 7"]:
    """d(world point of a pixel) / d(camera rotation, camera translation, log focal length).

    `arm` is the point relative to the camera centre.
    """
    translation = torch.eye(3, device=arm.device, dtype=arm.dtype).expand(*arm.shape, 3)
    return torch.cat([-cross_matrix(arm), translation, focal_column[..., None]], -1)


def pair_columns(arm: Float[Tensor, "f k p 3"]) -> Float[Tensor, "f k p 3 7"]:
    """-d(world point of a pair) / d(scale, rotation, translation); it is subtracted in r.

    `arm` is the point relative to the centroid of the pair.
    """
    translation = torch.eye(3, device=arm.device, dtype=arm.dtype).expand(*arm.shape, 3)
    return torch.cat([-arm[..., None], cross_matrix(arm), -translation], -1)


def pair_terms(
    index: Int[Tensor, "f k 7"],
    residual: Float[Tensor, "f k p 3"],
    weight: Float[Tensor, "f k p"],
    J_frame: Float[Tensor, "f p 3 7"],
    J_pair: Float[Tensor, "f k p 3 7"],
    ray: Float[Tensor, "f p 3"],
) -> FrameTerms:
    """Pair term of the k views of each frame.

    `residual` is the frame's point minus the pair's point, `weight` is w/|residual|. Residuals and
    rays are in world axes.
    """
    frames, k, p = weight.shape
    unit = residual / residual.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    along = (unit[..., None] * J_pair).sum(-2)
    weighted_pair = torch.addcmul(
        J_pair, unit[..., None], along[..., None, :], value=-RADIAL_REDUCTION
    )
    weighted_pair *= weight[..., None, None]
    metric = weight.sum(1)[..., None, None] * torch.eye(3, device=weight.device)
    metric = metric - RADIAL_REDUCTION * torch.einsum(
        "fkpi,fkpj->fpij", weight[..., None] * unit, unit
    )
    weighted_frame = metric @ J_frame
    frame_rows = J_frame.reshape(frames, 3 * p, 7).transpose(1, 2)
    pair_rows = J_pair.reshape(frames, k, 3 * p, 7)
    weighted_rows = weighted_pair.reshape(frames, k, 3 * p, 7)
    view_slopes = weight[..., None] * residual
    slope = view_slopes.sum(1)
    return FrameTerms(
        index=index,
        H_own=frame_rows @ weighted_frame.reshape(frames, 3 * p, 7),
        H_mixed=frame_rows[:, None] @ weighted_rows,
        H_other=weighted_rows.transpose(-1, -2) @ pair_rows,
        b_own=(frame_rows @ slope.reshape(frames, 3 * p, 1))[..., 0],
        b_other=(pair_rows.transpose(-1, -2) @ view_slopes.reshape(frames, k, 3 * p, 1))[..., 0],
        depth_curvature=((metric @ ray[..., None])[..., 0] * ray).sum(-1),
        depth_own=(ray[..., None] * weighted_frame).sum(-2),
        depth_other=(ray[:, None, ..., None] * weighted_pair).sum(-2).transpose(1, 2),
        depth_slope=(ray * slope).sum(-1),
    )


def flow_terms(
    index: Int[Tensor, "f q 7"],
    residual: Float[Tensor, "f q p 2"],
    weight: Float[Tensor, "f q p 2"],
    J_own: Float[Tensor, "f q p 2 7"],
    J_other: Float[Tensor, "f q p 2 7"],
    J_depth: Float[Tensor, "f q p 2"],
) -> FrameTerms:
    """Flow term of each frame: flow from its pixels to q other frames."""
    frames, q = residual.shape[:2]
    own, other = J_own.reshape(frames, q, -1, 7), J_other.reshape(frames, q, -1, 7)
    w = weight.reshape(frames, q, -1, 1)
    own_rows, other_rows = own.transpose(-1, -2), other.transpose(-1, -2)
    weighted_other, slopes = w * other, w * residual.reshape(frames, q, -1, 1)
    weighted_depth = weight * J_depth
    return FrameTerms(
        index=index,
        H_own=(own_rows @ (w * own)).sum(1),
        H_mixed=own_rows @ weighted_other,
        H_other=other_rows @ weighted_other,
        b_own=(own_rows @ slopes).sum(1)[..., 0],
        b_other=(other_rows @ slopes)[..., 0],
        depth_curvature=(weighted_depth * J_depth).sum((1, 3)),
        depth_own=(weighted_depth[..., None] * J_own).sum((1, 3)),
        depth_other=(weighted_depth[..., None] * J_other).sum(3).transpose(1, 2),
        depth_slope=(weighted_depth * residual).sum((1, 3)),
    )


def eliminate_depth(
    own: Int[Tensor, "f 7"],
    terms: list[FrameTerms],
    prior_curvature: Float[Tensor, "f p"],
    prior_slope: Float[Tensor, "f p"],
    depth_free: Bool[Tensor, "f p"],
) -> list[Block]:
    """Normal equations of each frame with its depths eliminated: a rank-1 update per pixel.

    `own` are the indices of the cameras' unknowns. `prior_curvature` and `prior_slope` are the
    derivatives of the depth prior.
    """
    index = torch.cat([term.index for term in terms], 1)
    frames, g = index.shape[:2]
    H = torch.zeros(frames, 7 + 7 * g, 7 + 7 * g, device=own.device, dtype=torch.float64)
    H[:, :7, :7] = sum(term.H_own for term in terms)
    mixed = torch.cat([term.H_mixed for term in terms], 1)
    H[:, :7, 7:] = mixed.transpose(1, 2).reshape(frames, 7, 7 * g)
    H[:, 7:, :7] = H[:, :7, 7:].transpose(1, 2)
    diagonal = torch.arange(g, device=own.device)
    blocks = H[:, 7:, 7:].view(frames, g, 7, g, 7)
    blocks[:, diagonal, :, diagonal] = (
        torch.cat([term.H_other for term in terms], 1).double().transpose(0, 1)
    )
    a = sum((term.depth_curvature for term in terms), prior_curvature)
    inverse = torch.where((a > 0) & depth_free, 1 / a.clamp_min(1e-30), torch.zeros_like(a))
    depth_own = torch.stack([term.depth_own for term in terms]).sum(0)
    depth_other = torch.cat([term.depth_other for term in terms], 2)
    h = torch.cat([depth_own, depth_other.flatten(2)], 2)
    scaled = (h * inverse[..., None]).transpose(1, 2)
    H -= scaled @ h
    b_own = torch.stack([term.b_own for term in terms]).sum(0)
    b = torch.cat([b_own, torch.cat([term.b_other for term in terms], 1).flatten(1)], 1).double()
    slope = sum((term.depth_slope for term in terms), prior_slope)
    b -= (scaled @ slope[..., None])[..., 0]
    unknowns = torch.cat([own, index.flatten(1)], 1)
    return [Block(*parts) for parts in zip(unknowns, H, b)]


def movement_blocks(
    T_world_camera: Float[Tensor, "n 4 4"], weight: float, translation_weight: float
) -> list[Block]:
    """Smoothness term: |R - I|_F = 2 sqrt(2) sin(angle / 2), and the length of the translation.

    Its kinks at no rotation and no translation are rounded off (MIN_MOVEMENT).
    """
    n = len(T_world_camera)
    R, t = T_world_camera[:, :3, :3], T_world_camera[:, :3, 3]
    rotation = rotations.rotmat_to_rotvec(R[1:] @ R[:-1].transpose(1, 2))
    translation = t[1:] - t[:-1]
    angle, length = rotation.norm(dim=-1), translation.norm(dim=-1)
    smooth_angle = (angle**2 + (MIN_MOVEMENT * angle.mean()) ** 2 + 1e-18).sqrt()
    smooth_length = (length**2 + (MIN_MOVEMENT * length.mean()) ** 2 + 1e-18).sqrt()
    w_R = weight * 2**0.5 * (angle / 2).cos() / smooth_angle
    w_t = weight * translation_weight / smooth_length
    eye = torch.eye(3, dtype=R.dtype, device=R.device).expand(n - 1, 3, 3)
    none = torch.zeros_like(eye)
    # Rows: rotation, translation. Columns: the same of the earlier camera, then of the later one.
    J_R = torch.cat([-eye, none, eye, none], -1)
    J_t = torch.cat([none, -eye, none, eye], -1)
    J = torch.cat([w_R[:, None, None].sqrt() * J_R, w_t[:, None, None].sqrt() * J_t], 1)
    r = torch.cat([w_R[:, None].sqrt() * rotation, w_t[:, None].sqrt() * translation], 1)
    H, b = J.transpose(1, 2) @ J, (J.transpose(1, 2) @ r[..., None])[..., 0]
    index = torch.arange(12, device=R.device)
    return [Block(6 * step + index, H[step], b[step]) for step in range(n - 1)]


def scale_block(layout: ParameterLayout, scale_term: float, device: torch.device) -> Block:
    """Constraint of the fixed unit of length on the pair scales.

    To minimise F at a fixed geometric mean of the scales is to minimise log F - mean log s. The
    second part is weighted by `scale_term`, the part of F that is proportional to the unit of
    length. In sigma, -log(1 + sigma) has slope -1 and curvature 1.
    """
    index = layout.pairs(torch.arange(layout.num_pairs, device=device))[:, 0]
    each = torch.full(
        (len(index),), scale_term / layout.num_pairs, dtype=torch.float64, device=device
    )
    return Block(index, each, -each)
