"""Standard error of flow by dense inverse search."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import pad

from dyn3r.geometry.filters import window_sum

Values = TypeVar("Values", np.ndarray, Tensor)

FLOW_SIGMA_PX = 0.3
"""Standard error of flow on perfect texture, in pixels. Source: chosen on the synthetic world."""
FLOW_SIGMA_SHARE = 0.05
"""Standard error of flow as a share of its length. Source: chosen on the synthetic world."""
PATCH_RADIUS_PX = 4
"""Half the side of the patch whose texture determines the covariance. Source: the patches of DIS
flow are 8 pixels wide (Kroeger et al. 2016)."""
LEAST_TEXTURE = 1e-4
"""Information about the displacement of a plain patch, 1 / px^2: a standard error of 100 pixels."""
MEDIAN_NORMAL_ERROR = 1.18
"""Median length of a two-dimensional standard normal error: sqrt(2 log 2)."""


def flow_variance_px2(u: Values, v: Values) -> Values:
    """Variance of flow (u, v), in pixels: of a constant error and of a share of its length."""
    return (u * u + v * v) * FLOW_SIGMA_SHARE**2 + FLOW_SIGMA_PX**2


def texture_covariance_px2(
    image: UInt8[Tensor, "h w 3"], noise: float
) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Covariance (uu, uv, vv) of the displacement of the patch around every pixel.

    `noise`: standard error of its brightness, 0..255, taken to be independent from pixel to pixel;
    errors that neighbours share are as larger ones. The inverse of the structure tensor (Lucas and
    Kanade 1981): large along edges, and in all directions on plain surfaces.
    """
    values = pad(image.permute(2, 0, 1).float(), (1, 1, 1, 1), mode="reflect")
    across = values[:, :, 2:] - values[:, :, :-2]
    along = values[:, 2:] - values[:, :-2]
    du = (3 * (across[:, :-2] + across[:, 2:]) + 10 * across[:, 1:-1]) / 32  # Scharr
    dv = (3 * (along[..., :-2] + along[..., 2:]) + 10 * along[..., 1:-1]) / 32
    r = PATCH_RADIUS_PX
    uu, cross, vv = (
        window_sum(pad(product.mean(0)[None], (r, r, r, r), mode="reflect"), 2 * r + 1)[0].double()
        / noise**2
        for product in (du * du, du * dv, dv * dv)
    )
    uu, vv = uu + LEAST_TEXTURE, vv + LEAST_TEXTURE
    determinant = uu * vv - cross * cross
    return vv / determinant, -cross / determinant, uu / determinant


def whitening_of(uu: Values, uv: Values, vv: Values) -> tuple[Values, Values, Values]:
    """W = [[a, b], [0, c]] that gives errors unit covariance, as (a, b, c), element by element.

    W^T W is the inverse of the covariance [[uu, uv], [uv, vv]]. Shapes are broadcast.
    """
    determinant = uu * vv - uv * uv
    return (vv / determinant) ** 0.5, -uv / (vv * determinant) ** 0.5, vv**-0.5
