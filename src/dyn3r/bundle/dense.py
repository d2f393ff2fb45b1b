"""Depth of every pixel, with the cameras held: flow, the depth before, and smoothness."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from dyn3r.bundle.solve import Estimate, Problem, residuals, robust_weight
from dyn3r.bundle.system import LARGEST_STEP

STEPS = 3
"""Newton steps for the depth of each sample; they start near the answer."""


def depth_of_samples(
    problem: Problem, start: Estimate, i: int, width: float
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Log depth of the samples of frame i with the cameras of `start`, and what flow knows of it.

    The second value is the information (1 / variance) without the prior.
    """
    now, seen, before = start, problem.seen[i], problem.log_depth[i]
    information, prior = torch.zeros_like(before), problem.depth_sigma[i] ** -2
    if seen is None:
        return before, information
    for last in range(STEPS + 1):
        found = residuals(problem, now, i, by="depth")
        assert found.J_depth is not None
        w = robust_weight(seen, found, width)[..., None]
        information = (w * found.J_depth.square()).sum((0, 2))
        if last < STEPS:
            pull = prior * (now.log_depth[i] - before)
            pull = pull + (w * found.J_depth * found.error).sum((0, 2))
            moved = now.log_depth[i] - (pull / (information + prior)).clamp(
                -LARGEST_STEP, LARGEST_STEP
            )
            now = replace(now, log_depth=moved.expand_as(problem.log_depth))
    return now.log_depth[i], information


def spread(
    values: Float[Tensor, "h w"],
    weight: Float[Tensor, "h w"],
    stiffness: tuple[Float[Tensor, "h w-1"], Float[Tensor, "h-1 w"]],
    start: Float[Tensor, "h w"],
    iterations: int = 100,
) -> Float[Tensor, "h w"]:
    """argmin_c of sum weight (c - values)^2 + sum stiffness (difference of neighbours in c)^2.

    Conjugate gradients with a diagonal preconditioner.
    """
    right, down = stiffness

    def apply(c: Tensor) -> Tensor:
        out = weight * c
        across, along = right * c.diff(dim=1), down * c.diff(dim=0)
        out[:, 1:] += across
        out[:, :-1] -= across
        out[1:] += along
        out[:-1] -= along
        return out

    diagonal = weight + pad(right, (1, 0)) + pad(right, (0, 1))
    diagonal = diagonal + pad(down, (0, 0, 1, 0)) + pad(down, (0, 0, 0, 1))
    diagonal = diagonal.clamp(min=1e-12)
    c = start.clone()
    residual = weight * values - apply(c)
    z = residual / diagonal
    direction, rz = z.clone(), (residual * z).sum()
    for _ in range(iterations):
        pulled = apply(direction)
        step = rz / (direction * pulled).sum().clamp(min=1e-30)
        c += step * direction
        residual -= step * pulled
        z = residual / diagonal
        new = (residual * z).sum()
        direction = z + new / rz.clamp(min=1e-30) * direction
        rz = new
    return c
