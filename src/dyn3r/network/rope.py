"""Two-dimensional rotary position embedding (RoFormer, Su et al. 2021; per axis as in CroCo v2)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def rope_table(
    grid_hw: tuple[int, int], head_dim: int, base: float, device: torch.device | str = "cpu"
) -> Float[Tensor, "2 tokens head_dim"]:
    """Compute cosines and sines for every token of a row-major patch grid (SPEC 1)."""
    return rope_at(grid_positions(grid_hw, device), head_dim, base)


def grid_positions(
    grid_hw: tuple[int, int], device: torch.device | str = "cpu"
) -> Float[Tensor, "tokens 2"]:
    """Row and column of every token of a row-major patch grid."""
    sides = (torch.arange(side, device=device, dtype=torch.float32) for side in grid_hw)
    return torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).reshape(-1, 2)


def rope_at(
    positions: Float[Tensor, "tokens 2"], head_dim: int, base: float
) -> Float[Tensor, "2 tokens head_dim"]:
    """Compute cosines and sines for tokens at (row, column).

    The first half of a head's channels rotates with the row, the second with the column. Within a
    half of width m the frequencies are base^(-2k/m), k = 0..m/2-1, repeated once.
    """
    half = head_dim // 2
    exponent = torch.arange(0, half, 2, device=positions.device, dtype=torch.float32) / half
    frequency = base**-exponent
    angle = (positions[..., None] * torch.cat([frequency, frequency])).flatten(1)
    return torch.stack([angle.cos(), angle.sin()])


def image_positions(
    grid_hw: tuple[int, int], device: torch.device | str = "cpu"
) -> Float[Tensor, "tokens 18"]:
    """Compute x, y and their Fourier features for each token of a row-major patch grid.

    Coordinates are 0 at the image centre and 1 at the end of the longer side, so that they are
    proportional to the viewing ray for any aspect ratio. Frequencies are pi times 1, 2, 4, 8 (as in
    NeRF, Mildenhall et al. 2020, eq. 4).
    """
    rows, cols = grid_hw
    long = max(rows, cols)
    y = (torch.arange(rows, device=device) * 2 + 1 - rows) / long
    x = (torch.arange(cols, device=device) * 2 + 1 - cols) / long
    xy = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).reshape(rows * cols, 2)
    angles = torch.cat([xy * (torch.pi * 2**k) for k in range(4)], dim=-1)
    return torch.cat([xy, angles.sin(), angles.cos()], dim=-1)


def rotate(
    x: Float[Tensor, "batch heads tokens head_dim"], table: Float[Tensor, "2 tokens head_dim"]
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Rotate queries or keys by their positions; channel c pairs with c + m/2 of its half."""
    # without concatenation, which would take two fifths of the time
    halves = (*x.shape[:-1], 2, 2, x.shape[-1] // 4)
    cos, sin = (values.view(-1, *halves[-3:])[..., 0, :] for values in table)
    first, second = x.view(halves).unbind(-2)
    out = torch.empty_like(x)
    rotated = out.view(halves)
    rotated[..., 0, :] = first * cos - second * sin
    rotated[..., 1, :] = second * cos + first * sin
    return out
