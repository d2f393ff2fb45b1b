"""Normal equations of a Gauss-Newton step over cameras, focals and pairs, with depth eliminated.

At a state the objective sum of w |r| is replaced by a quadratic of the same value and slope. Its
curvature lies between that of plain re-weighting (w/|r|, which overestimates: |r| has no curvature
along r) and Newton's (none along r, which is not safe): SOFTEN of the part along r is left out.
Every pixel's depth appears in one frame only and is eliminated exactly, which leaves 6 unknowns a
camera, 1 a focal and 7 a pair. The system is built frame by frame: memory is that of one frame.

Unknowns, as small changes about the state: a camera turns by w and shifts by v (world axes, about
its own centre); the log focal changes by phi; the points of a pair grow by sigma, turn by theta
about their centroid c and shift by tau: y -> c + tau + (1 + sigma) exp(theta) (y - c).
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.alignment.linear_solver import Block

SOFTEN = 0.8
"""Share of the curvature along a residual that is left out; 0 is re-weighting, 1 Newton."""


@dataclass(frozen=True)
class Layout:
    """Where each unknown stands in the vector of all of them."""

    num_frames: int
    num_focals: int
    num_pairs: int

    @property
    def size(self) -> int:
        """Length of the vector."""
        return 6 * self.num_frames + self.num_focals + 7 * self.num_pairs

    def frames(self, frames: Int[Tensor, " k"]) -> Int[Tensor, "k 7"]:
        """Turn and shift of cameras, and their log focal (the same one for all if shared)."""
        camera = 6 * frames[:, None] + torch.arange(6, device=frames.device)
        which = frames if self.num_focals > 1 else torch.zeros_like(frames)
        return torch.cat([camera, (6 * self.num_frames + which)[:, None]], 1)

    def pairs(self, pairs: Int[Tensor, " k"]) -> Int[Tensor, "k 7"]:
        """Scale, turn, shift of pairs."""
        base = 6 * self.num_frames + self.num_focals + 7 * pairs
        return base[:, None] + torch.arange(7, device=pairs.device)


@dataclass(frozen=True)
class Part:
    """What one kind of observation of one frame adds: its own camera's 7, and g others of 7."""

    index: Int[Tensor, "g 7"]
    H_own: Float[Tensor, "7 7"]
    H_mixed: Float[Tensor, "g 7 7"]
    H_other: Float[Tensor, "g 7 7"]
    b_own: Float[Tensor, " 7"]
    b_other: Float[Tensor, "g 7"]
    curvature: Float[Tensor, " p"]
    """Of the depth of each pixel."""
    h_own: Float[Tensor, "p 7"]
    """Mixed with the depth of each pixel."""
    h_other: Float[Tensor, "p g 7"]
    pull: Float[Tensor, " p"]
    """Slope in the depth of each pixel."""


def cross_matrix(a: Float[Tensor, "*k 3"]) -> Float[Tensor, "*k 3 3"]:
    """[a]x with [a]x b = a x b."""
    x, y, z = a.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(*a.shape, 3)


def frame_columns(
    arm: Float[Tensor, "p 3"], focal_column: Float[Tensor, "p 3"]
) -> Float[Tensor, "p 3 7"]:
    """d(world point of a pixel) / d(camera turn, camera shift, log focal)."""
    shift = torch.eye(3, device=arm.device, dtype=arm.dtype).expand(len(arm), 3, 3)
    return torch.cat([-cross_matrix(arm), shift, focal_column[..., None]], -1)


def pair_columns(arm: Float[Tensor, "k p 3"]) -> Float[Tensor, "k p 3 7"]:
    """-d(world point of a pair) / d(scale, turn, shift): minus, as it is subtracted in r."""
    shift = torch.eye(3, device=arm.device, dtype=arm.dtype).expand(*arm.shape, 3)
    return torch.cat([-arm[..., None], cross_matrix(arm), -shift], -1)


def pair_part(
    index: Int[Tensor, "k 7"],
    residual: Float[Tensor, "k p 3"],
    weight: Float[Tensor, "k p"],
    J_frame: Float[Tensor, "p 3 7"],
    J_pair: Float[Tensor, "k p 3 7"],
    ray: Float[Tensor, "p 3"],
) -> Part:
    """The pair term's views of one frame.

    residual = frame's point - pair's point (world axes), weight = w/|residual|, ray in world axes.
    """
    k, p = weight.shape
    unit = residual / residual.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    along = (unit[..., None, :] @ J_pair)[..., 0, :]
    weighted_pair = weight[..., None, None] * (
        J_pair - (SOFTEN * unit)[..., None] * along[..., None, :]
    )
    metric = weight.sum(0)[:, None, None] * torch.eye(3, device=weight.device)
    metric = metric - SOFTEN * torch.einsum("kpi,kpj->pij", weight[..., None] * unit, unit)
    weighted_frame = metric @ J_frame
    frame_rows, pair_rows = J_frame.reshape(3 * p, 7), J_pair.reshape(k, 3 * p, 7)
    weighted_rows = weighted_pair.reshape(k, 3 * p, 7)
    pulls = weight[..., None] * residual
    pull = pulls.sum(0)
    return Part(
        index=index,
        H_own=frame_rows.T @ weighted_frame.reshape(3 * p, 7),
        H_mixed=torch.matmul(frame_rows.T, weighted_rows),
        H_other=torch.matmul(weighted_rows.transpose(1, 2), pair_rows),
        b_own=frame_rows.T @ pull.reshape(-1),
        b_other=torch.matmul(pair_rows.transpose(1, 2), pulls.reshape(k, 3 * p, 1))[..., 0],
        curvature=((metric @ ray[..., None])[..., 0] * ray).sum(-1),
        h_own=(ray[:, None] @ weighted_frame)[:, 0],
        h_other=(ray[None, :, None] @ weighted_pair)[..., 0, :].transpose(0, 1),
        pull=(ray * pull).sum(-1),
    )


def flow_part(
    index: Int[Tensor, "q 7"],
    residual: Float[Tensor, "q p 2"],
    weight: Float[Tensor, "q p 2"],
    J_own: Float[Tensor, "q p 2 7"],
    J_other: Float[Tensor, "q p 2 7"],
    J_depth: Float[Tensor, "q p 2"],
) -> Part:
    """The flow term's views of one frame: from its pixels into q other frames."""
    q = len(residual)
    own, other = J_own.reshape(q, -1, 7), J_other.reshape(q, -1, 7)
    w = weight.reshape(q, -1, 1)
    pulls = w * residual.reshape(q, -1, 1)
    steep = weight * J_depth
    return Part(
        index=index,
        H_own=torch.matmul(own.transpose(1, 2), w * own).sum(0),
        H_mixed=torch.matmul(own.transpose(1, 2), w * other),
        H_other=torch.matmul(other.transpose(1, 2), w * other),
        b_own=torch.matmul(own.transpose(1, 2), pulls).sum(0)[:, 0],
        b_other=torch.matmul(other.transpose(1, 2), pulls)[..., 0],
        curvature=(steep * J_depth).sum((0, 2)),
        h_own=(steep[..., None] * J_own).sum((0, 2)),
        h_other=(steep[..., None] * J_other).sum(2).transpose(0, 1),
        pull=(steep * residual).sum((0, 2)),
    )


def eliminate_depth(
    own: Int[Tensor, " 7"],
    parts: list[Part],
    stiffness: Float[Tensor, " p"],
    strain: Float[Tensor, " p"],
    depth_free: Bool[Tensor, " p"],
) -> Block:
    """Normal equations of one frame without its depths: a rank-1 update for every pixel.

    stiffness and strain are curvature and slope that a depth prior adds to each pixel.
    """
    index = torch.cat([part.index for part in parts])
    g = len(index)
    H = torch.zeros(7 + 7 * g, 7 + 7 * g, device=own.device, dtype=torch.float64)
    H[:7, :7] = sum(part.H_own for part in parts)
    mixed = torch.cat([part.H_mixed for part in parts])
    H[:7, 7:] = mixed.transpose(0, 1).reshape(7, 7 * g)
    H[7:, :7] = H[:7, 7:].T
    blocks = H[7:, 7:].view(g, 7, g, 7) if g else H[7:, 7:]
    if g:
        diagonal = torch.arange(g, device=own.device)
        blocks[diagonal, :, diagonal] = torch.cat([part.H_other for part in parts]).double()
    a = sum((part.curvature for part in parts), stiffness)
    inverse = torch.where((a > 0) & depth_free, 1 / a.clamp_min(1e-30), torch.zeros_like(a))
    h_own = torch.stack([part.h_own for part in parts]).sum(0)
    h_other = torch.cat([part.h_other for part in parts], 1)
    h = torch.cat([h_own, h_other.reshape(-1, 7 * g)], 1)
    scaled = h * inverse[:, None]
    H -= scaled.T @ h
    b_own = torch.stack([part.b_own for part in parts]).sum(0)
    b = torch.cat([b_own, torch.cat([part.b_other for part in parts]).reshape(-1)]).double()
    b -= scaled.T @ sum((part.pull for part in parts), strain)
    return Block(torch.cat([own, index.reshape(-1)]), H, b)


def movement_blocks(
    T_world_camera: Float[Tensor, "n 4 4"], weight: float, translation_weight: float
) -> list[Block]:
    """The smoothness term: |R - I|_F = 2 sqrt(2) sin(angle / 2), and the length of the shift.

    Neither kink (no turn, no shift) is followed closer than 1 % of the mean movement.
    """
    n = len(T_world_camera)
    R, t = T_world_camera[:, :3, :3], T_world_camera[:, :3, 3]
    turn = roma.rotmat_to_rotvec(R[1:] @ R[:-1].transpose(1, 2))
    shift = t[1:] - t[:-1]
    angle, length = turn.norm(dim=-1), shift.norm(dim=-1)
    blunt_angle = (angle**2 + (1e-2 * angle.mean()) ** 2 + 1e-18).sqrt()
    blunt_length = (length**2 + (1e-2 * length.mean()) ** 2 + 1e-18).sqrt()
    w_turn = weight * 2**0.5 * (angle / 2).cos() / blunt_angle
    w_shift = weight * translation_weight / blunt_length
    eye = torch.eye(3, dtype=R.dtype, device=R.device).expand(n - 1, 3, 3)
    none = torch.zeros_like(eye)
    # Rows: turn, shift; columns: turn and shift of the earlier camera, then of the later one.
    J_turn = torch.cat([-eye, none, eye, none], -1)
    J_shift = torch.cat([none, -eye, none, eye], -1)
    J = torch.cat(
        [w_turn[:, None, None].sqrt() * J_turn, w_shift[:, None, None].sqrt() * J_shift], 1
    )
    r = torch.cat([w_turn[:, None].sqrt() * turn, w_shift[:, None].sqrt() * shift], 1)
    H, b = J.transpose(1, 2) @ J, (J.transpose(1, 2) @ r[..., None])[..., 0]
    index = torch.arange(12, device=R.device)
    return [Block(6 * step + index, H[step], b[step]) for step in range(n - 1)]


def scale_block(layout: Layout, pull: float, device: torch.device) -> Block:
    """The pull of the fixed unit of length on the pair scales.

    Minimising F at a fixed geometric mean of the scales is minimising log F - mean log s. At a
    state, the second part weighs as much as that part of F that is proportional to length (`pull`).
    In sigma, -log(1 + sigma) has slope -1 and curvature 1.
    """
    index = layout.pairs(torch.arange(layout.num_pairs, device=device))[:, 0]
    each = torch.full((len(index),), pull / layout.num_pairs, dtype=torch.float64, device=device)
    return Block(index, each, -each)
