"""The normal equations of bundle adjustment, with depths eliminated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.bundle_adjustment.problem import Estimate, Problem
from dyn3r.bundle_adjustment.residuals import residuals, robust_weight

LARGEST_STEP = 0.5
"""Log depth moves by at most this in one step."""
DENSE = 1200
"""Unknowns from which on the reduced system may be kept sparse (200 frames)."""


@dataclass(frozen=True)
class Part:
    """Second derivatives of the measurements that start in one frame."""

    unknowns: Int[Tensor, " l"]
    """That they meet: this frame's camera, the others, the log focal length."""
    cameras: Float[Tensor, "m 13 13"]
    """Of each pair, by this camera, the other, and the log focal length."""
    mixed: Float[Tensor, "k l"]
    """By the log depths and the unknowns; single precision is enough here, and half the memory."""


@dataclass(frozen=True)
class System:
    """Linearised at some estimate. Unknowns: six per camera, then the log focal length."""

    parts: list[Part | None]
    """Of every frame."""
    prior: Float[Tensor, " u"]
    """On the diagonal."""
    diagonal: Float[Tensor, " u"]
    """Of second derivatives and `prior`, before depths are eliminated; damping grows with it."""
    right: Float[Tensor, " u"]
    """The gradient."""
    depth: Float[Tensor, "n k"]
    depth_right: Float[Tensor, "n k"]
    information: Float[Tensor, "n k"]
    """`depth` without the prior."""


def linearise(problem: Problem, now: Estimate, width: float) -> System:
    """Second derivatives and gradient (Gauss and Newton) with robust weights."""
    n, unknown = len(now.R), 6 * len(now.R) + 1
    depth_prior = problem.depth_sigma**-2
    prior, right, diagonal = (now.R.new_zeros(unknown) for _ in range(3))
    information = torch.zeros_like(now.log_depth)
    depth_right = depth_prior * (now.log_depth - problem.log_depth)
    parts: list[Part | None] = [None] * n
    for seen in problem.batches:
        found, m = residuals(problem, now, seen), len(seen.frames)
        assert found.J is not None
        assert found.J_depth is not None
        w = robust_weight(seen, found, width)[..., None].float()
        weighted, error = found.J * w[..., None], found.error.float()
        J, across = found.J.reshape(m, -1, 13), weighted.reshape(m, -1, 13).transpose(1, 2)
        H = (across @ J).double()
        H = (H + H.transpose(1, 2)) / 2  # exactly symmetric, whichever half a solver reads
        gradient = (across @ error.reshape(m, -1, 1))[..., 0].double()
        pull = w * found.J_depth
        information.index_add_(0, seen.first, _summed(pull * found.J_depth).double())
        depth_right.index_add_(0, seen.first, _summed(pull * error).double())
        for total, value in ((right, gradient), (diagonal, H.diagonal(dim1=1, dim2=2))):
            cameras = total[:-1].view(n, 6)
            cameras.index_add_(0, seen.first, value[:, :6])
            cameras.index_add_(0, seen.frames, value[:, 6:12])
            total[-1] += value[:, 12].sum()
        mixed = _summed(weighted * found.J_depth[..., None], 2)
        for i, rows in _by_frame(seen.first):
            unknowns = _unknowns(i, seen.frames[rows], n)
            parts[i] = Part(unknowns, H[rows], _joined(mixed[rows]))
    if problem.focal_sigma > 0:
        prior[-1] = problem.focal_sigma**-2
        right[-1] += now.log_focal * prior[-1]
    return System(
        parts, prior, prior + diagonal, right, information + depth_prior, depth_right, information
    )


def _summed(x: Tensor, axis: int = -1) -> Tensor:
    """Over an axis of two, faster than `sum`."""
    one, two = x.unbind(axis)
    return one + two


def _by_frame(first: Int[Tensor, " m"]) -> Iterator[tuple[int, slice]]:
    """The rows of each frame, which follow one another."""
    frames, counts = first.unique_consecutive(return_counts=True)
    start = 0
    for i, count in zip(frames.tolist(), counts.tolist()):
        yield i, slice(start, start + count)
        start += count


def _unknowns(i: int, frames: Tensor, n: int) -> Int[Tensor, " l"]:
    six = torch.arange(6)
    others = (6 * frames[:, None] + six).flatten()
    return torch.cat([6 * i + six, others, torch.tensor([6 * n])])


def _joined(by: Float[Tensor, "m *k 13"]) -> Float[Tensor, "*k l"]:
    """Pairs share the camera they start in and the focal length."""
    others = by[..., 6:12].movedim(0, -2).flatten(-2)
    return torch.cat([by[..., :6].sum(0), others, by[..., 12:].sum(0)], -1)


def _spread_out(H: Float[Tensor, "m 13 13"]) -> Float[Tensor, "l l"]:
    """The blocks of all pairs in one matrix."""
    m = len(H)
    out, six = H.new_zeros(6 * m + 7, 6 * m + 7), torch.arange(6)
    mine, last = six.expand(m, 6), torch.full((m, 1), 6 * m + 6)
    at = torch.cat([mine, 6 + 6 * torch.arange(m)[:, None] + six, last], 1)
    return out.index_put_((at[:, :, None], at[:, None, :]), H, accumulate=True)


def step(problem: Problem, now: Estimate, system: System, damping: float) -> Estimate | None:
    """One damped step; None where the equations can't be solved."""
    n, depth = len(now.R), system.depth * (1 + damping)
    right, diagonal = system.right.clone(), system.diagonal
    for i, part in enumerate(system.parts):
        if part is not None:
            eliminated = part.mixed.double().T @ (system.depth_right[i] / depth[i])
            right.index_add_(0, part.unknowns, -eliminated)
    damped = system.prior + damping * diagonal + 1e-9 * diagonal.mean().clamp(min=1e-9)
    focal_free = torch.tensor([problem.focal_sigma > 0])
    free = torch.cat([~problem.fixed.repeat_interleave(6), focal_free])
    change = _solved(system, depth, damped, -right, free)
    if change is None:
        return None
    pull = system.depth_right.clone()
    for i, part in enumerate(system.parts):
        if part is not None:
            pull[i] += part.mixed.double() @ change[part.unknowns]
    move = change[:-1].reshape(n, 6)
    turn = torch.linalg.matrix_exp(_cross_matrix(move[:, 3:]))
    return Estimate(
        R=turn @ now.R,
        t=(turn @ now.t[..., None])[..., 0] + move[:, :3],
        log_depth=now.log_depth - (pull / depth).clamp(-LARGEST_STEP, LARGEST_STEP),
        log_focal=now.log_focal + change[-1].clamp(-0.2, 0.2),
    )


def _solved(
    system: System,
    depth: Float[Tensor, "n k"],
    diagonal: Float[Tensor, " u"],
    right: Float[Tensor, " u"],
    free: Bool[Tensor, " u"],
) -> Float[Tensor, " u"] | None:
    """The reduced system's solution, 0 for what is not free; None where there is none.

    Frames that no chain of few pairs ties together make the system sparse; then it is solved as
    such (SuperLU), from `DENSE` unknowns on.
    """
    entries = sum(len(part.unknowns) ** 2 for part in system.parts if part is not None)
    large = len(right) > DENSE and entries < len(right) ** 2 / 2
    change = torch.zeros_like(right)
    if not free.any():
        return change
    blocks = _blocks(system, depth)
    solve = _solved_sparse if large else _solved_dense
    found = solve(blocks, diagonal, right, free)
    if found is None:
        return None
    change[free] = found
    return change


def _blocks(system: System, depth: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """What each frame adds to the reduced system, its depths eliminated."""
    for i, part in enumerate(system.parts):
        if part is not None:
            mixed = part.mixed.double()
            yield part.unknowns, _spread_out(part.cameras) - mixed.T @ (mixed / depth[i][:, None])


def _solved_dense(
    blocks: Iterator[tuple[Tensor, Tensor]], diagonal: Tensor, right: Tensor, free: Tensor
) -> Tensor | None:
    matrix = torch.diag(diagonal)
    for where, block in blocks:
        matrix.index_put_((where[:, None], where), block, accumulate=True)
    factor, failed = torch.linalg.cholesky_ex(matrix[free][:, free])
    return None if int(failed) else torch.cholesky_solve(right[free, None], factor)[:, 0]


def _solved_sparse(
    blocks: Iterator[tuple[Tensor, Tensor]], diagonal: Tensor, right: Tensor, free: Tensor
) -> Tensor | None:
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    every = torch.arange(len(right))
    rows, columns, values = [every], [every], [diagonal]
    for where, block in blocks:
        rows.append(where[:, None].expand_as(block).flatten())
        columns.append(where.expand_as(block).flatten())
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


def _cross_matrix(w: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    x, y, z = w.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(-1, 3, 3)
