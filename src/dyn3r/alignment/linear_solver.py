"""Linear system of a Gauss-Newton step: dense Cholesky or conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

DENSE_LIMIT = 4000
"""Free unknowns up to which the system is solved densely. Source: run time and memory."""
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


def solve(
    blocks: list[Block],
    size: int,
    free: Bool[Tensor, " size"],
    damping: float,
    dense_limit: int = DENSE_LIMIT,
) -> Float[Tensor, " size"]:
    """Minimiser of the sum of the blocks with Levenberg-Marquardt damping; 0 where not free.

    Systems of more than `dense_limit` free unknowns are solved by conjugate gradients.
    """
    device = free.device
    b = torch.zeros(size, dtype=torch.float64, device=device)
    diagonal = torch.zeros_like(b)
    for block in blocks:
        b.index_add_(0, block.index, block.b)
        own = block.H if block.H.dim() == 1 else block.H.diagonal()
        diagonal.index_add_(0, block.index, own)
    # An unknown that no block determines does not move.
    floor = 1e-9 * diagonal.max().clamp_min(1e-300)
    extra = damping * diagonal.clamp_min(0) + floor
    if int(free.sum()) <= dense_limit:
        return _solve_dense(blocks, b, extra, free)
    return _solve_gradients(blocks, b, diagonal + extra, extra, free)


def _solve_dense(
    blocks: list[Block], b: Tensor, extra: Tensor, free: Tensor
) -> Float[Tensor, " size"]:
    H = torch.zeros(len(b), len(b), dtype=torch.float64, device=b.device)
    for block in blocks:
        part = torch.diag(block.H) if block.H.dim() == 1 else block.H
        H.index_put_((block.index[:, None], block.index[None]), part, accumulate=True)
    H.diagonal().add_(extra)
    keep = torch.nonzero(free)[:, 0]
    H, right = H[keep][:, keep], -b[keep]
    factor, failed = torch.linalg.cholesky_ex(H)
    boost = float(H.diagonal().max()) * 1e-9
    while int(failed) != 0 and boost < float(H.diagonal().max()) * 10:
        H.diagonal().add_(boost)
        factor, failed = torch.linalg.cholesky_ex(H)
        boost *= 10
    step = torch.zeros_like(b)
    step[keep] = torch.cholesky_solve(right[:, None], factor)[:, 0]
    return step


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
