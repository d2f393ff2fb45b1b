"""Depth of every pixel, with the cameras held: flow, the depth before, and smoothness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import pad

from dyn3r.bundle_adjustment.problem import Estimate, Problem
from dyn3r.bundle_adjustment.residuals import residuals, robust_weight
from dyn3r.bundle_adjustment.schur import LARGEST_STEP

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
        found = residuals(problem, now, seen, by="depth")
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


def between(
    values: Float[Tensor, " k"],
    information: Float[Tensor, " k"],
    uv: Int[np.ndarray, "k 2"],
    image: UInt8[np.ndarray, "h w 3"],
    edge: float,
) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Values of the samples at a grid of pixels (`uv`), and their information, for every pixel.

    Each pixel takes the mean of the four samples around it, by what is known of them, how near they
    are and how like its own their colour is (joint bilateral upsampling, Kopf et al. 2007).
    """
    h, w = image.shape[:2]
    columns, rows = np.unique(uv[:, 0]), np.unique(uv[:, 1])
    grid = [x.reshape(len(rows), len(columns)).float() for x in (values, information)]
    colours = torch.from_numpy(image[rows][:, columns]).float()
    colour = torch.from_numpy(image).float()
    total, shares, known = torch.zeros(3, h, w)
    for row, down in _around(rows, h):
        for column, across in _around(columns, w):
            at = row[:, None], column[None]
            near = down[:, None] * across
            alike = torch.exp(-(colours[at] - colour).abs().mean(-1) / edge)
            share = near * alike * grid[1][at]
            total += share * grid[0][at]
            shares += share
            known += near * grid[1][at]
    return total / shares.clamp(min=1e-12), known


def _around(
    places: Int[np.ndarray, " m"], size: int
) -> Iterator[tuple[Int[Tensor, " size"], Float[Tensor, " size"]]]:
    """For each of `size` pixels: the index of the last of `places` before it and its share in a
    linear interpolation; then the same of the next one. Beyond the outermost, that one alone."""
    pixel = np.arange(size).clip(places[0], places[-1])
    last = len(places) - 1
    before = np.searchsorted(places, pixel, side="right") - 1
    after = np.minimum(before + 1, last)
    share = (pixel - places[before]) / np.maximum(places[after] - places[before], 1)
    for index, part in ((before, 1 - share), (after, share)):
        yield torch.from_numpy(index), torch.from_numpy(part.astype(np.float32))


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
