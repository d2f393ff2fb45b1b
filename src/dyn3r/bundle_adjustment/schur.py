"""Normal equations of bundle adjustment with depths eliminated (Schur complement).

Frames are worked on in groups (`FrameGroup`). The unknowns of a frame are the cameras in which its
samples are measured, and the focal length. Its own camera moves the points like those, transported
by the relative pose (`Derivatives.transport`), so its rows follow from theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate, FrameGroup, Measurements
from dyn3r.bundle_adjustment.reduced_system import CameraBlocks, solve_dense, solve_sparse
from dyn3r.bundle_adjustment.residuals import residuals, robust_weight
from dyn3r.geometry.cameras import cross_matrix

MAX_LOG_DEPTH_STEP = 0.5
"""Largest change of a log depth in one step."""
MAX_LOG_FOCAL_STEP = 0.2
"""Largest change of the log focal length in one step."""
MIN_SPARSE_UNKNOWNS = 1200
"""Unknowns above which the reduced system may be solved sparsely (200 frames). Source: run time."""


@dataclass(frozen=True)
class FrameBlocks:
    """Second derivatives of the measurements whose samples belong to the frames of a group.

    The l = 6 p + 1 unknowns of a frame are the cameras of its pairs and the log focal length.
    """

    group: FrameGroup
    transport: Float[Tensor, "f p 6 6"]
    """Adjoint of the relative pose of every pair."""
    pairs: Float[Tensor, "f p 7 7"]
    """By the camera of the pair and the log focal length."""
    mixed: Float[Tensor, "f l k"]
    """By unknown and log depth; single precision suffices and takes half the memory."""

    @property
    def own(self) -> Float[Tensor, "f 6 q"]:
        """Rows of the frames' own cameras from those of the q = 6 p unknowns of other cameras."""
        return -self.transport.permute(0, 3, 1, 2).flatten(2)

    def gathered(self, change: Float[Tensor, " u"]) -> Float[Tensor, "f l"]:
        """The unknowns of every frame, with the changes of its own camera transported."""
        cameras = change[:-1].view(-1, 6)
        own = (self.transport @ cameras[self.group.frames][:, None, :, None])[..., 0]
        moved = (cameras[self.group.targets] - own).flatten(1)
        return torch.cat([moved, change[-1].expand(len(moved), 1)], 1)


@dataclass(frozen=True)
class LinearSystem:
    """Normal equations at an estimate. Unknowns: six per camera, then the log focal length."""

    blocks: list[FrameBlocks]
    """Of all frames with measurements."""
    prior: Float[Tensor, " u"]
    """Diagonal of the priors."""
    diagonal: Float[Tensor, " u"]
    """Diagonal of second derivatives and `prior` before elimination; damping is relative to it."""
    gradient: Float[Tensor, " u"]
    depth: Float[Tensor, "n k"]
    """Diagonal of the second derivatives by log depth, without the smooth part of the prior."""
    depth_gradient: Float[Tensor, "n k"]
    information: Float[Tensor, "n k"]
    """Part of `depth` that comes from flow: inverse variance of log depth given flow alone."""


def linearise(problem: BundleProblem, estimate: Estimate, width: float) -> LinearSystem:
    """Gauss-Newton normal equations with robust weights."""
    n = len(estimate.R)
    prior, gradient, diagonal = (estimate.R.new_zeros(6 * n + 1) for _ in range(3))
    information = torch.zeros_like(estimate.log_depth)
    depth_gradient = problem.prior.gradient(estimate.log_depth)
    blocks: list[FrameBlocks] = []
    for measured in problem.batches:
        found = residuals(problem, estimate, measured)
        by, w = found.derivatives, robust_weight(measured, found, width)[:, None].float()
        assert by is not None
        weighted = by.rows[:, :7] * w[:, None]
        products = torch.bmm(weighted.flatten(2), by.rows.flatten(2).transpose(1, 2)).double()
        H, slope = products[..., :7], products[..., 8]
        H = (H + H.transpose(1, 2)) / 2  # exactly symmetric, whichever half a solver reads
        _add_by_camera(gradient, measured, slope, -_across(by.transport, slope[:, :6]))
        own = ((H[:, :6, :6] @ by.transport) * by.transport).sum(1)
        _add_by_camera(diagonal, measured, H.diagonal(dim1=1, dim2=2), own)
        mixed = _times_two(by.rows, w * by.rows[:, 7])
        information.index_add_(0, measured.source, mixed[:, 7].double())
        depth_gradient.index_add_(0, measured.source, mixed[:, 8].double())
        blocks.extend(_frame_blocks(measured, by.transport, H, mixed[:, :7]))
    if problem.focal_sigma > 0:
        prior[-1] = problem.focal_sigma**-2
        gradient[-1] += estimate.log_focal * prior[-1]
    if problem.camera_prior is not None:
        prior[:-1] = problem.camera_prior.precision.repeat(n)
        gradient[:-1] += problem.camera_prior.gradient(estimate.R, estimate.t).flatten()
    return LinearSystem(
        blocks=blocks,
        prior=prior,
        diagonal=prior + diagonal,
        gradient=gradient,
        depth=information + problem.prior.precision,
        depth_gradient=depth_gradient,
        information=information,
    )


def _times_two(rows: Float[Tensor, "m a 2 k"], x: Float[Tensor, "m 2 k"]) -> Float[Tensor, "m a k"]:
    """Products of every row with x, summed over both coordinates."""
    out = rows[:, :, 0] * x[:, None, 0]
    return out.addcmul_(rows[:, :, 1], x[:, None, 1])


def _across(transport: Float[Tensor, "m 6 6"], x: Float[Tensor, "m 6"]) -> Float[Tensor, "m 6"]:
    """The transposed matrices times x."""
    return (transport.transpose(1, 2) @ x[..., None])[..., 0]


def _add_by_camera(
    total: Float[Tensor, " u"],
    measured: Measurements,
    other: Float[Tensor, "m 7"],
    own: Float[Tensor, "m 6"],
) -> None:
    """Add values of pairs: of the target camera and the focal length, and of the source camera."""
    cameras = total[:-1].view(-1, 6)
    cameras.index_add_(0, measured.source, own)
    cameras.index_add_(0, measured.target, other[:, :6])
    total[-1] += other[:, 6].sum()


def _frame_blocks(
    measured: Measurements,
    by_pair: Float[Tensor, "m 6 6"],
    H: Float[Tensor, "m 7 7"],
    mixed: Float[Tensor, "m 7 k"],
) -> Iterator[FrameBlocks]:
    """Second derivatives of every pair at its place in the groups of frames."""
    for group in measured.groups:
        f, p = group.targets.shape
        transport, pairs = H.new_zeros(f, p, 6, 6), H.new_zeros(f, p, 7, 7)
        transport[group.places], pairs[group.places] = by_pair[group.rows], H[group.rows]
        by_depth = mixed.new_zeros(f, 6 * p + 1, mixed.shape[-1])
        some = mixed if len(group.rows) == len(mixed) else mixed[group.rows]
        by_depth[:, :-1].view(f, p, 6, -1)[group.places] = some[:, :6]
        by_depth[:, -1].index_add_(0, group.places[0], some[:, 6])
        yield FrameBlocks(group, transport, pairs, by_depth)


@dataclass(frozen=True)
class DepthInverse:
    """Inverse of the damped second derivatives by the log depths of every frame.

    diag(1 / d) + V S V^T, where d is the damped diagonal, V = U / d and S = (M^-1 - U^T V)^-1 with
    U and M of the prior (Woodbury identity).
    """

    diagonal: Float[Tensor, "n k"]
    """d."""
    V: Float[Tensor, "n k b"]
    S: Float[Tensor, "n b b"]

    def times(self, x: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Product with one column for every frame."""
        inner = self.S @ (self.V.transpose(1, 2) @ x[..., None])
        return x / self.diagonal + (self.V @ inner)[..., 0]

    def quadratic(
        self, frames: Int[Tensor, " f"], x: Float[Tensor, "f l k"], last: Float[Tensor, "n k"]
    ) -> Float[Tensor, "f l1 l1"]:
        """Y inverse Y^T for some frames, where Y is x with a row of `last` added; l1 = l + 1."""
        (f, size, k), b = x.shape, self.V.shape[-1]
        rows = self.V.new_empty(f, size + 1 + b, k)
        diagonal = self.diagonal[frames, None]
        rows[:, :size], rows[:, size] = x, last[frames]
        rows[:, size + 1 :] = self.V[frames].transpose(1, 2) * diagonal
        rows *= diagonal.rsqrt()
        out = torch.bmm(rows[:, : size + 1], rows.transpose(1, 2))
        if not b:
            return out
        across = out[..., size + 1 :]
        return torch.baddbmm(out[..., : size + 1], across @ self.S[frames], across.transpose(1, 2))


def depth_inverse(problem: BundleProblem, system: LinearSystem, damping: float) -> DepthInverse:
    """Inverse of the second derivatives by log depth, whose diagonal is damped."""
    diagonal, U = system.depth * (1 + damping), problem.prior.columns
    V = U / diagonal[..., None]
    S = torch.linalg.inv(problem.prior.inner_inverse - U.transpose(1, 2) @ V)
    return DepthInverse(diagonal, V, (S + S.transpose(1, 2)) / 2)


def damped_step(
    problem: BundleProblem, estimate: Estimate, system: LinearSystem, damping: float
) -> Estimate | None:
    """The estimate after a Levenberg-Marquardt step; None if the system is singular."""
    n, depth = len(estimate.R), depth_inverse(problem, system, damping)
    diagonal = system.diagonal
    damped = system.prior + damping * diagonal + 1e-9 * diagonal.mean().clamp(min=1e-9)
    right = (-system.gradient, -system.depth_gradient)
    change = solve_reduced(system, depth, damped, right, problem.free)
    if change is None:
        return None
    slope = system.depth_gradient.clone()
    for block in system.blocks:
        slope[block.group.frames] += (block.gathered(change)[:, None] @ block.mixed.double())[:, 0]
    camera = change[:-1].reshape(n, 6)
    rotation = torch.linalg.matrix_exp(cross_matrix(camera[:, 3:]))
    depth_step = depth.times(slope).clamp(-MAX_LOG_DEPTH_STEP, MAX_LOG_DEPTH_STEP)
    return Estimate(
        R=rotation @ estimate.R,
        t=(rotation @ estimate.t[..., None])[..., 0] + camera[:, :3],
        log_depth=estimate.log_depth - depth_step,
        log_focal=estimate.log_focal + change[-1].clamp(-MAX_LOG_FOCAL_STEP, MAX_LOG_FOCAL_STEP),
    )


def solve_reduced(
    system: LinearSystem,
    depth: DepthInverse,
    diagonal: Float[Tensor, " u"],
    right: tuple[Float[Tensor, " u"], Float[Tensor, "n k"]],
    free: Bool[Tensor, " u"],
) -> Float[Tensor, " u"] | None:
    """Cameras and focal length of the solution, 0 for fixed unknowns; None if it is singular.

    `diagonal` is added to the system; `right`: right-hand sides by them and by log depth. Large
    systems are solved sparsely (SuperLU) if most frames are not connected by pairs.
    """
    blocks = (_reduced_blocks(block, depth, right[1]) for block in system.blocks)
    solve = solve_sparse if _is_sparse(system) else solve_dense
    return solve(blocks, diagonal, right[0], free)


def _is_sparse(system: LinearSystem) -> bool:
    """Whether the reduced matrix is large, and most of it is 0."""
    size, entries = len(system.gradient), 0
    for block in system.blocks:
        f, p = block.group.targets.shape
        entries += f * (6 * p + 7) ** 2
    return size > MIN_SPARSE_UNKNOWNS and entries < size**2 / 2


def _reduced_blocks(
    block: FrameBlocks, depth: DepthInverse, right: Float[Tensor, "n k"]
) -> CameraBlocks:
    """Contribution of the frames of a group to the reduced system, and to its right-hand side."""
    group, own, pairs = block.group, block.own, block.pairs
    (f, p), q = group.targets.shape, 6 * group.targets.shape[1]
    matrix = -depth.quadratic(group.frames, block.mixed, right)
    others = matrix[:, :q, :q].view(f, p, 6, p, 6)
    others.diagonal(dim1=1, dim2=3).add_(pairs[:, :, :6, :6].permute(0, 2, 3, 1))
    border, corner = matrix[:, :q, q:], matrix[:, q, q:].sum(0)
    border[..., 0] += pairs[:, :, :6, 6].flatten(1)
    corner[0] += pairs[:, :, 6, 6].sum()
    mixed = torch.bmm(own, matrix[:, :q, :q])
    by_pair = mixed.view(f, 6, p, 6).transpose(1, 2)
    i, j = group.frames[:, None].expand(f, p), group.targets
    row = [j[:, :, None].expand(f, p, p), i, j, group.frames]
    column = [j[:, None].expand(f, p, p), j, i, group.frames]
    values = [others.transpose(2, 3), by_pair, by_pair.transpose(2, 3), mixed @ own.transpose(1, 2)]
    return CameraBlocks(
        row=torch.cat([x.flatten() for x in row]),
        column=torch.cat([x.flatten() for x in column]),
        values=torch.cat([x.reshape(-1, 6, 6) for x in values]),
        camera=torch.cat([j.flatten(), group.frames]),
        border=torch.cat([border.reshape(-1, 6, 2), own @ border]),
        corner=corner,
    )
