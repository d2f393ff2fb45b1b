"""Edge-aware upsampling and smoothing of a map that is known at samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import pad

COLOR_SCALE = 10.0
"""Color difference (0..255) at which similarity falls to 1 / e. Source: chosen on the synthetic
world."""
SMOOTHNESS = 1000.0
"""Inverse variance of the difference of neighbouring pixels. Source: chosen on the synthetic
world."""
MIN_SMOOTHNESS_SHARE = 0.02
"""Share of SMOOTHNESS that remains across the strongest edges. Source: chosen by hand."""
CG_ITERATIONS, CG_TOLERANCE = 100, 1e-3
"""Conjugate gradients end after so many iterations, or when the residual of every map has fallen to
this share of the first. Source: of log depth, 0.0002 (median) and 0.003 (99 %) are then left on two
clips; docs/experiments.md."""


def joint_bilateral_upsample(
    values: Float[Tensor, "*b k"],
    information: Float[Tensor, "*b k"],
    uv: Int[np.ndarray, "k 2"],
    image: UInt8[Tensor, "*b h w 3"],
) -> tuple[Float[Tensor, "*b h w"], Float[Tensor, "*b h w"]]:
    """Values and information of every pixel from those of samples on a regular grid `uv`.

    The value of a pixel is the mean of the four samples around it, weighted by their information,
    proximity and color similarity (joint bilateral upsampling, Kopf et al. 2007). The information
    is interpolated linearly.
    """
    h, w = image.shape[-3:-1]
    columns, rows = np.unique(uv[:, 0]), np.unique(uv[:, 1])
    shape = (*values.shape[:-1], len(rows), len(columns))
    grid = [x.reshape(shape).float() for x in (values, information)]
    color = image.float()
    chosen = [torch.from_numpy(x).to(image.device) for x in (rows, columns)]
    sample_color = color.index_select(-3, chosen[0]).index_select(-2, chosen[1])
    total, weights, known = color.new_zeros(3, *image.shape[:-1])
    for row, row_weight in _linear_weights(rows, h, image.device):
        for column, column_weight in _linear_weights(columns, w, image.device):
            at = ..., row[:, None], column[None]
            proximity = row_weight[:, None] * column_weight
            similarity = torch.exp(
                -(sample_color[(*at, slice(None))] - color).abs().mean(-1) / COLOR_SCALE
            )
            weight = proximity * similarity * grid[1][at]
            total += weight * grid[0][at]
            weights += weight
            known += proximity * grid[1][at]
    return total / weights.clamp(min=1e-12), known


def _linear_weights(
    positions: Int[np.ndarray, " m"], size: int, device: torch.device
) -> Iterator[tuple[Int[Tensor, " size"], Float[Tensor, " size"]]]:
    """Index and weight of the position before each of `size` pixels, then of the one after it.

    The weights are those of linear interpolation; beyond the ends the outermost position has 1.
    """
    pixel = np.arange(size).clip(positions[0], positions[-1])
    last = len(positions) - 1
    before = np.searchsorted(positions, pixel, side="right") - 1
    after = np.minimum(before + 1, last)
    gap = np.maximum(positions[after] - positions[before], 1)
    share = (pixel - positions[before]) / gap
    for index, weight in ((before, 1 - share), (after, share)):
        at, shares = torch.from_numpy(index), torch.from_numpy(weight.astype(np.float32))
        yield at.to(device), shares.to(device)


def smoothness_weights(
    image: UInt8[Tensor, "*b h w 3"], smoothness: float = SMOOTHNESS
) -> tuple[Float[Tensor, "*b h w-1"], Float[Tensor, "*b h-1 w"]]:
    """Weights of the differences of horizontal and vertical neighbours; small across edges."""
    out = []
    for axis in (-2, -3):
        step = image.float().diff(dim=axis).abs().mean(-1)
        share = MIN_SMOOTHNESS_SHARE + (1 - MIN_SMOOTHNESS_SHARE) * torch.exp(-step / COLOR_SCALE)
        out.append(smoothness * share)
    return out[0], out[1]


def smooth_solve(
    values: Float[Tensor, "*b h w"],
    weight: Float[Tensor, "*b h w"],
    smoothness: tuple[Float[Tensor, "*b h w-1"], Float[Tensor, "*b h-1 w"]],
    initial: Float[Tensor, "*b h w"],
    iterations: int = CG_ITERATIONS,
    tolerance: float = CG_TOLERANCE,
) -> Float[Tensor, "*b h w"]:
    """Minimiser c of sum weight (c - values)^2 + sum smoothness (difference of neighbours in c)^2.

    Leading axes are maps of their own. A screened Poisson equation, solved by conjugate gradients
    with a diagonal preconditioner, until the residual in the norm of that preconditioner has
    fallen by the factor `tolerance`.
    """
    right, down = smoothness

    def apply(c: Tensor) -> Tensor:
        out = weight * c
        horizontal, vertical = right * c.diff(dim=-1), down * c.diff(dim=-2)
        out[..., 1:] += horizontal
        out[..., :-1] -= horizontal
        out[..., 1:, :] += vertical
        out[..., :-1, :] -= vertical
        return out

    diagonal = weight + pad(right, (1, 0)) + pad(right, (0, 1))
    diagonal = diagonal + pad(down, (0, 0, 1, 0)) + pad(down, (0, 0, 0, 1))
    diagonal = diagonal.clamp(min=1e-12)
    c = initial.clone()
    residual = weight * values - apply(c)
    z = residual / diagonal
    direction, rz = z.clone(), _total(residual * z)
    enough = tolerance**2 * rz
    for _ in range(iterations):
        unsolved = rz > enough
        if not bool(unsolved.any()):
            break
        image = apply(direction)
        step = unsolved * rz / _total(direction * image).clamp(min=1e-30)
        c.addcmul_(step, direction)
        residual.addcmul_(step, image, value=-1)
        z = residual / diagonal
        new = _total(residual * z)
        direction = torch.addcmul(z, new / rz.clamp(min=1e-30), direction)
        rz = new
    return c


def _total(x: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b 1 1"]:
    """Sum over every map."""
    return x.sum((-2, -1), keepdim=True)
