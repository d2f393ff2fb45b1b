"""Normal equations of bundle adjustment with depths eliminated (Schur complement)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate
from dyn3r.bundle_adjustment.residuals import residuals, robust_weight
from dyn3r.geometry.cameras import cross_matrix

MAX_LOG_DEPTH_STEP = 0.5
"""Largest change of a log depth in one step."""
MAX_LOG_FOCAL_STEP = 0.2
"""Largest change of the log focal length in one step."""
MIN_SPARSE_UNKNOWNS = 1200
"""Unknowns above which the reduced system may be solved sparsely (200 frames). Source: run time."""


@dataclass(frozen=True)
class FrameBlock:
    """Second derivatives of the measurements whose samples belong to one frame."""

    unknowns: Int[Tensor, " l"]
    """Indices: the camera of this frame, the other cameras, the log focal length."""
    cameras: Float[Tensor, "m 13 13"]
    """Per pair, by this camera, the other camera and the log focal length."""
    mixed: Float[Tensor, "l k"]
    """By unknown and log depth; single precision suffices and takes half the memory."""


@dataclass(frozen=True)
class LinearSystem:
    """Normal equations at an estimate. Unknowns: six per camera, then the log focal length."""

    blocks: list[FrameBlock | None]
    """Of every frame."""
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
    n, unknowns = len(estimate.R), 6 * len(estimate.R) + 1
    prior, gradient, diagonal = (estimate.R.new_zeros(unknowns) for _ in range(3))
    information = torch.zeros_like(estimate.log_depth)
    depth_gradient = problem.prior.gradient(estimate.log_depth)
    blocks: list[FrameBlock | None] = [None] * n
    for measured in problem.batches:
        found, m = residuals(problem, estimate, measured), len(measured.target)
        by, J_depth = found.derivatives, found.J_depth
        assert by is not None
        assert J_depth is not None
        J_depth, error = J_depth.movedim(-1, 1), found.error.movedim(-1, 1).float()
        w = robust_weight(measured, found, width)[:, None].float()
        weighted, E = by.J * w[:, None], by.expansion()
        J, across = by.J.view(m, 7, -1), weighted.view(m, 7, -1)
        H = E.transpose(1, 2) @ torch.bmm(across, J.transpose(1, 2)).double() @ E
        H = (H + H.transpose(1, 2)) / 2  # exactly symmetric, whichever half a solver reads
        slope = torch.bmm(across, error.reshape(m, -1, 1))[..., 0].double()
        slope = (E.transpose(1, 2) @ slope[..., None])[..., 0]
        weighted_depth = w * J_depth
        information.index_add_(0, measured.source, _sum_of_two(weighted_depth * J_depth).double())
        depth_gradient.index_add_(0, measured.source, _sum_of_two(weighted_depth * error).double())
        for total, value in ((gradient, slope), (diagonal, H.diagonal(dim1=1, dim2=2))):
            cameras = total[:-1].view(n, 6)
            cameras.index_add_(0, measured.source, value[:, :6])
            cameras.index_add_(0, measured.target, value[:, 6:12])
            total[-1] += value[:, 12].sum()
        mixed = _sum_of_two(weighted * J_depth[:, None], 2)
        for i, rows in _rows_by_frame(measured.source):
            indices = _indices(i, measured.target[rows], n)
            blocks[i] = FrameBlock(indices, H[rows], _merge_rows(mixed[rows], by.transport[rows]))
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


def _sum_of_two(x: Tensor, axis: int = 1) -> Tensor:
    """Sum over an axis of length two; faster than `sum`."""
    first, second = x.unbind(axis)
    return first + second


def _rows_by_frame(source: Int[Tensor, " m"]) -> Iterator[tuple[int, slice]]:
    """Each frame and its rows, which are consecutive."""
    frames, counts = torch.unique_consecutive(source, return_counts=True)
    start = 0
    for i, count in zip(frames.tolist(), counts.tolist()):
        yield i, slice(start, start + count)
        start += count


def _indices(i: int, frames: Tensor, n: int) -> Int[Tensor, " l"]:
    six = torch.arange(6)
    others = (6 * frames[:, None] + six).flatten()
    return torch.cat([6 * i + six, others, torch.tensor([6 * n])])


def _merge_rows(
    by_pair: Float[Tensor, "m 7 k"], transport: Float[Tensor, "m 6 6"]
) -> Float[Tensor, "l k"]:
    """Rows of all pairs; the source camera and the focal length are common to them."""
    m, _, k = by_pair.shape
    targets = by_pair[:, :6].reshape(6 * m, k)
    source = transport.float().reshape(6 * m, 6).T @ targets
    return torch.cat([-source, targets, by_pair[:, 6:].sum(0)])


def _merge_blocks(H: Float[Tensor, "m 13 13"]) -> Float[Tensor, "l l"]:
    """The blocks of all pairs in one matrix."""
    m = len(H)
    out, six = H.new_zeros(6 * m + 7, 6 * m + 7), torch.arange(6)
    source, focal = six.expand(m, 6), torch.full((m, 1), 6 * m + 6)
    at = torch.cat([source, 6 + 6 * torch.arange(m)[:, None] + six, focal], 1)
    return out.index_put_((at[:, :, None], at[:, None, :]), H, accumulate=True)


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

    def quadratic(self, i: int, x: Float[Tensor, "l k"]) -> Float[Tensor, "l l"]:
        """x inverse x^T for frame i."""
        across = x @ self.V[i]
        return (x / self.diagonal[i]) @ x.T + (across @ self.S[i]) @ across.T


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
    right, diagonal = system.gradient.clone(), system.diagonal
    solved = depth.times(system.depth_gradient)
    for i, block in enumerate(system.blocks):
        if block is not None:
            right.index_add_(0, block.unknowns, -(block.mixed.double() @ solved[i]))
    damped = system.prior + damping * diagonal + 1e-9 * diagonal.mean().clamp(min=1e-9)
    focal_free = torch.tensor([problem.focal_sigma > 0])
    free = torch.cat([~problem.fixed.repeat_interleave(6), focal_free])
    change = solve_reduced(system, depth, damped, -right, free)
    if change is None:
        return None
    slope = system.depth_gradient.clone()
    for i, block in enumerate(system.blocks):
        if block is not None:
            slope[i] += block.mixed.double().T @ change[block.unknowns]
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
    right: Float[Tensor, " u"],
    free: Bool[Tensor, " u"],
) -> Float[Tensor, " u"] | None:
    """Solution of the reduced system, 0 for fixed unknowns; None if it is singular.

    Large systems are solved sparsely (SuperLU) if most frames are not connected by pairs.
    """
    entries = sum(len(block.unknowns) ** 2 for block in system.blocks if block is not None)
    sparse = len(right) > MIN_SPARSE_UNKNOWNS and entries < len(right) ** 2 / 2
    change = torch.zeros_like(right)
    if not free.any():
        return change
    blocks = _reduced_blocks(system, depth)
    solve = _solve_sparse if sparse else _solve_dense
    found = solve(blocks, diagonal, right, free)
    if found is None:
        return None
    change[free] = found
    return change


def _reduced_blocks(system: LinearSystem, depth: DepthInverse) -> Iterator[tuple[Tensor, Tensor]]:
    """Contribution of each frame to the reduced system: indices and matrix."""
    for i, block in enumerate(system.blocks):
        if block is not None:
            mixed = block.mixed.double()
            eliminated = depth.quadratic(i, mixed)
            yield block.unknowns, _merge_blocks(block.cameras) - eliminated


def _solve_dense(
    blocks: Iterator[tuple[Tensor, Tensor]], diagonal: Tensor, right: Tensor, free: Tensor
) -> Tensor | None:
    matrix = torch.diag(diagonal)
    for indices, block in blocks:
        matrix.index_put_((indices[:, None], indices), block, accumulate=True)
    factor, failed = torch.linalg.cholesky_ex(matrix[free][:, free])
    return None if int(failed) else torch.cholesky_solve(right[free, None], factor)[:, 0]


def _solve_sparse(
    blocks: Iterator[tuple[Tensor, Tensor]], diagonal: Tensor, right: Tensor, free: Tensor
) -> Tensor | None:
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    every = torch.arange(len(right))
    rows, columns, values = [every], [every], [diagonal]
    for indices, block in blocks:
        rows.append(indices[:, None].expand_as(block).flatten())
        columns.append(indices.expand_as(block).flatten())
        values.append(block.flatten())
    at = (torch.cat(rows).numpy(), torch.cat(columns).numpy())
    matrix = coo_matrix((torch.cat(values).numpy(), at), shape=(len(right), len(right))).tocsc()
    kept = np.flatnonzero(free.numpy())
    symmetric = {"SymmetricMode": True}
    try:
        factor = splu(
            matrix[kept][:, kept], "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=symmetric
        )
    except RuntimeError:  # exactly singular
        return None
    found = torch.from_numpy(factor.solve(right[free].numpy()))
    return found if bool(found.isfinite().all()) else None
