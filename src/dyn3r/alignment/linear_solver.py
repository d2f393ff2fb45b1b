"""Linear system of a Gauss-Newton step: Cholesky by the frontal method, or conjugate gradients.

The matrix is a sum of small blocks, one for every frame. They are added in order, and an unknown is
eliminated as soon as no later block contains it. At any time only the unknowns that are shared by
earlier and later blocks are in memory, the front. If frames are coupled with those near them in
time, and the blocks are in the order of time, time and memory are linear in the number of frames.
If all frames are coupled, the front is the whole matrix. Source: Irons 1970, "A frontal solution
program for finite element analysis".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MAX_FRONT = 4000
"""Unknowns of a front up to which the system is factorised. Source: run time and memory."""
MAX_CG_ITERATIONS, CG_TOLERANCE = 300, 1e-8
"""Limit of the conjugate gradient iterations, and the squared preconditioned residual at which they
end, relative to the initial one. Source: steps agree with Cholesky to 0.2 % of the largest."""


@dataclass(frozen=True)
class Block:
    """Block of the normal equations over some of the unknowns; an index may repeat."""

    index: Int[Tensor, " d"]
    H: Float[Tensor, "d d"] | Float[Tensor, " d"]
    """Second derivatives; a vector stands for a diagonal matrix."""
    b: Float[Tensor, " d"]
    """Gradient."""


@dataclass(frozen=True)
class Front:
    """One step of the elimination: a block is added, then unknowns are eliminated.

    An unknown has a slot of the front while it is there, which is used again after it.
    """

    used: Int[Tensor, " e"]
    """Entries of the block whose unknowns are free."""
    slots: Int[Tensor, " e"]
    """Slots of their unknowns."""
    size: int
    """Slots of the front of any step."""
    pivots: Int[Tensor, " p"]
    """Slots of the unknowns that no later block contains."""
    rest: Int[Tensor, " r"]
    """Slots of the others."""
    pivot_unknowns: Int[Tensor, " p"]
    rest_unknowns: Int[Tensor, " r"]


def elimination(indices: list[Tensor], free: Bool[Tensor, " size"]) -> list[Front]:
    """The steps for blocks over the unknowns `indices` (one vector for each block)."""
    device, is_free = free.device, free.cpu().numpy()
    of_blocks = [index.cpu().numpy() for index in indices]
    last = np.full(len(is_free), -1)
    for step, index in enumerate(of_blocks):
        last[index] = step
    slot_of = np.full(len(is_free), -1)
    front = empty = np.zeros(0, np.int64)
    slots, found = 0, []
    for step, index in enumerate(of_blocks):
        used = np.flatnonzero(is_free[index])
        unknowns = index[used]
        new = np.unique(unknowns[slot_of[unknowns] < 0])
        more = max(0, len(new) - len(empty))
        empty = np.concatenate([empty, slots + np.arange(more)])
        slots += more
        slot_of[new], empty = empty[: len(new)], empty[len(new) :]
        front = np.concatenate([front, new])
        done = last[front] == step
        pivots, front = front[done], front[~done]
        found.append((used, slot_of[unknowns], slot_of[pivots], slot_of[front], pivots, front))
        empty = np.concatenate([empty, slot_of[pivots]])
    out = []
    for arrays in found:
        entries, at, *rest = (torch.from_numpy(x).to(device) for x in arrays)
        out.append(Front(entries, at, slots, *rest))
    return out


def predicted_decrease(blocks: list[Block], step: Float[Tensor, " size"]) -> float:
    """Decrease of the sum of the blocks' quadratics by a step, without damping."""
    total = step.new_zeros(())
    for block in blocks:
        own = step[block.index]
        H = block.H.to(step.dtype)
        product = H * own if H.dim() == 1 else H @ own
        total -= own @ (block.b.to(step.dtype) + product / 2)
    return float(total)


def solve(
    blocks: list[Block],
    size: int,
    free: Bool[Tensor, " size"],
    damping: float,
    steps: list[Front] | None = None,
) -> Float[Tensor, " size"]:
    """Minimiser of the sum of the blocks with Levenberg-Marquardt damping; 0 where not free.

    `steps`: the `elimination` of the blocks that are no diagonals, if it is known from an earlier
    solution. Where a front has more than MAX_FRONT unknowns, conjugate gradients are used.
    """
    device = free.device
    b = torch.zeros(size, dtype=torch.float64, device=device)
    diagonal, coupled = torch.zeros_like(b), [block for block in blocks if block.H.dim() == 2]
    for block in blocks:
        b.index_add_(0, block.index, block.b)
        own = block.H if block.H.dim() == 1 else block.H.diagonal()
        diagonal.index_add_(0, block.index, own)
    # An unknown that no block determines does not move.
    floor = 1e-9 * diagonal.max().clamp_min(1e-300)
    extra = damping * diagonal.clamp_min(0) + floor
    steps = elimination([block.index for block in coupled], free) if steps is None else steps
    if steps and steps[0].size > MAX_FRONT:
        return _solve_gradients(blocks, b, diagonal + extra, extra, free)
    for block in blocks:
        if block.H.dim() == 1:
            extra.index_add_(0, block.index, block.H)
    boost, largest = 0.0, float(diagonal.max())
    step = _eliminated(coupled, steps, -b, extra, free)
    while step is None and boost < largest * 10:
        boost = 10 * boost or largest * 1e-9
        step = _eliminated(coupled, steps, -b, extra + boost, free)
    return torch.zeros_like(b) if step is None else step


def _eliminated(
    blocks: list[Block], steps: list[Front], right: Tensor, diagonal: Tensor, free: Tensor
) -> Float[Tensor, " size"] | None:
    """Solution with `diagonal` added to the blocks; None if that is not positive definite."""
    right = right.clone()
    solution = torch.where(free, right / diagonal, torch.zeros_like(right))
    size = steps[0].size if steps else 0
    matrix = right.new_zeros(size, size)
    eliminated, failures = [], []
    for block, front in zip(blocks, steps):
        part = block.H[front.used[:, None], front.used[None]].to(matrix.dtype)
        places = (front.slots[:, None] * size + front.slots[None]).flatten()
        matrix.view(-1).index_add_(0, places, part.flatten())
        pivots = front.pivots
        rows = matrix.index_select(0, pivots)
        own = rows.index_select(1, pivots)
        own.diagonal().add_(diagonal[front.pivot_unknowns])
        factor, failed = torch.linalg.cholesky_ex(own)
        both = torch.cat([rows.index_fill_(1, pivots, 0), right[front.pivot_unknowns, None]], 1)
        both = torch.linalg.solve_triangular(factor, both, upper=False)
        across, value = both[:, :-1], both[:, -1]
        matrix.addmm_(across.T, across, alpha=-1)
        matrix.index_fill_(0, pivots, 0).index_fill_(1, pivots, 0)
        right[front.rest_unknowns] -= (across.T @ value)[front.rest]
        eliminated.append((front, factor, across, value))
        failures.append(failed)
    if failures and int(torch.stack(failures).amax()):
        return None
    for front, factor, across, value in reversed(eliminated):
        known = right.new_zeros(size)
        known[front.rest] = solution[front.rest_unknowns]
        remaining = value - across @ known
        own = torch.linalg.solve_triangular(factor.T, remaining[:, None], upper=True)
        solution[front.pivot_unknowns] = own[:, 0]
    return solution


def _solve_gradients(
    blocks: list[Block], b: Tensor, diagonal: Tensor, extra: Tensor, free: Tensor
) -> Float[Tensor, " size"]:
    """Conjugate gradients with a diagonal preconditioner; linear in the number of frames."""
    extra = extra.clone()
    for block in blocks:
        if block.H.dim() == 1:
            extra.index_add_(0, block.index, block.H)
    blocks = [block for block in blocks if block.H.dim() == 2]
    widest = max(len(block.index) for block in blocks)
    index = torch.full((len(blocks), widest), len(b), device=b.device)
    H = torch.zeros(len(blocks), widest, widest, dtype=torch.float64, device=b.device)
    for row, block in enumerate(blocks):
        index[row, : len(block.index)] = block.index
        H[row, : len(block.index), : len(block.index)] = block.H
    mask = free.to(b.dtype)

    def product(x: Tensor) -> Tensor:
        gathered = torch.cat([x, x.new_zeros(1)])[index]
        out = x.new_zeros(len(x) + 1)
        out.index_add_(0, index.reshape(-1), torch.bmm(H, gathered[..., None]).reshape(-1))
        return (out[:-1] + extra * x) * mask

    precondition = mask / diagonal.clamp_min(1e-300)
    x, r = torch.zeros_like(b), -b * mask
    z = precondition * r
    direction, power = z, r @ z
    first = float(power)
    for _ in range(MAX_CG_ITERATIONS):
        if float(power) <= CG_TOLERANCE * first:
            break
        image = product(direction)
        step = power / (direction @ image).clamp_min(1e-300)
        x, r = x + step * direction, r - step * image
        z = precondition * r
        previous, power = power, r @ z
        direction = z + power / previous * direction
    return x
