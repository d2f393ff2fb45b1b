"""Guided filter: smoothing of a map that follows the edges of an image (He, Sun and Tang 2010).

On any device of PyTorch.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from dyn3r.geometry.filters import window_mean_repeat

GREY_REGULARISATION = 0.01
"""Variance of brightness (0..1) below which a window counts as plain: a deviation of 0.1."""
_FIRST, _SECOND = (0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)
"""Products of two colours whose means are needed."""


def guided_filter_color(
    values: Float[Tensor, "h w"],
    image: UInt8[Tensor, "h w 3"],
    radius_px: int,
    regularisation: float,
) -> Float32[Tensor, "h w"]:
    """Filtered values with the colour image as guide; double precision within.

    In every window of 2 radius + 1 pixels the values are replaced by the nearest linear function of
    the colours (0..1); a pixel takes the mean over its windows. `regularisation` is added to the
    variance of the colours. Source: section 3.3 of the paper.
    """
    colors, wanted, side = image.permute(2, 0, 1).double() / 255, values.double(), 2 * radius_px + 1
    products = torch.stack([colors[a] * colors[b] for a, b in zip(_FIRST, _SECOND)])
    sums = torch.cat([colors, wanted[None], colors * wanted, products])
    mean, value_mean, with_value, squares = torch.split(
        window_mean_repeat(sums, side), [3, 1, 3, 6]
    )
    covariance = with_value - mean * value_mean
    variance = squares - torch.stack([mean[a] * mean[b] for a, b in zip(_FIRST, _SECOND)])
    variance[:3] += regularisation
    slope = _solve_symmetric(variance, covariance)
    offset = value_mean[0] - (slope * mean).sum(0)
    *slopes, offset = window_mean_repeat(torch.cat([slope, offset[None]]), side)
    a, b, c = (x * color for x, color in zip(slopes, colors))
    return (a + b + c + offset).float()


def _solve_symmetric(
    matrix: Float[Tensor, "6 h w"], right: Float[Tensor, "3 h w"]
) -> Float[Tensor, "3 h w"]:
    """Solutions of symmetric systems (xx, yy, zz, xy, xz, yz) by cofactors.

    Regularised variances are far from singular; on a CPU many times as fast as a solver.
    """
    xx, yy, zz, xy, xz, yz = matrix
    first = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    determinant = xx * first[0] + xy * first[1] + xz * first[2]
    second = first[1], xx * zz - xz * xz, xy * xz - xx * yz
    third = first[2], second[2], xx * yy - xy * xy
    a, b, c = right
    rows = [x * a + y * b + z * c for x, y, z in (first, second, third)]
    return torch.stack(rows) / determinant


def guided_filter_grey(
    values: Float[Tensor, "h w"], image: UInt8[Tensor, "h w 3"], radius_px: int
) -> Float32[Tensor, "h w"]:
    """Filtered values with the brightness of the image as guide.

    As `guided_filter_color` with one guide channel, GREY_REGULARISATION and single precision.
    """
    values, side = values.float(), 2 * radius_px + 1
    grey = image.float().mean(-1) / 255
    sums = torch.stack([grey, values, grey * values, grey * grey])
    grey_mean, value_mean, both, squared = window_mean_repeat(sums, side)
    slope = both - grey_mean * value_mean
    slope /= squared - grey_mean.square() + GREY_REGULARISATION
    offset = value_mean - slope * grey_mean
    slope, offset = window_mean_repeat(torch.stack([slope, offset]), side)
    return slope * grey + offset
