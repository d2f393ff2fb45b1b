"""Standard error of flow by dense inverse search.

Two models. `flow_covariance_px2` is that of the errors of flow themselves, fitted to true flow; in
it the forward-backward error says where flow is wrong. `flow_variance_px2` judges a scene: what
flow may differ from it by, as depth and cameras have errors too.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import pad

from dyn3r.geometry.filters import window_sum

Values = TypeVar("Values", np.ndarray, Tensor)

LEAST_SIGMA_PX = 0.05
"""Standard error of flow on perfect texture, in pixels. Source, as of the next two: maximum
likelihood on 28 scenes of the synthetic world gives 0.046, 1.35 and 1.48; six rendered and real
clips give 0.057, 1.38 and 1.00 (docs/flow.md, Noise of flow)."""
ROUND_TRIP_SHARE = 1.4
"""Standard error of flow, as a share of the distance by which it fails to return to its start."""
BRIGHTNESS_SIGMA = 1.2
"""Standard error of the brightness (0..255) of a pixel, from which that of flow on weak texture
follows."""
TOLERATED_PX = 0.3
"""Difference of the flow of a scene and measured flow, one standard error: part that is constant.
Source: chosen on the synthetic world."""
TOLERATED_SHARE = 0.05
"""The same: part that is a share of the length of flow. Source: chosen on the synthetic world."""
PATCH_RADIUS_PX = 4
"""Half the side of the patch whose texture determines the covariance. Source: the patches of DIS
flow are 8 pixels wide (Kroeger et al. 2016)."""
LEAST_TEXTURE = 1e-4
"""Information about the displacement of a plain patch, 1 / px^2: a standard error of 100 pixels."""
MEDIAN_NORMAL_ERROR = 1.18
"""Median length of a two-dimensional standard normal error: sqrt(2 log 2)."""


def flow_variance_px2(u: Values, v: Values) -> Values:
    """Variance of the difference of flow (u, v), in pixels, and that of a scene with errors."""
    return (u * u + v * v) * TOLERATED_SHARE**2 + TOLERATED_PX**2


def flow_covariance_px2(
    image: UInt8[Tensor, "h w 3"],
    uv: Int[np.ndarray, "k 2"],
    round_trip_px: Float[np.ndarray, "m k"],
) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, " k"], Float[np.ndarray, "m k"]]:
    """Covariance (uu, uv, vv) of the flow of pixels `uv` in m pairs.

    The sum of a constant, of the squared forward-backward error and of the inverse structure tensor
    of the image that the flow starts from.
    """
    texture = texture_covariance_px2(image, BRIGHTNESS_SIGMA)
    uu, cross, vv = (x[uv[:, 1], uv[:, 0]].numpy() for x in texture)
    variance = LEAST_SIGMA_PX**2 + (ROUND_TRIP_SHARE * round_trip_px) ** 2
    return uu + variance, cross, vv + variance


def texture_covariance_px2(
    image: UInt8[Tensor, "h w 3"], noise: float
) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Covariance (uu, uv, vv) of the displacement of the patch around every pixel.

    `noise`: standard error of its brightness, 0..255, taken to be independent from pixel to pixel;
    errors that neighbours share are as larger ones. The inverse of the structure tensor (Lucas and
    Kanade 1981): large along edges, and in all directions on plain surfaces.
    """
    uu, cross, vv = (x / noise**2 for x in structure_tensor(image))
    uu, vv = uu + LEAST_TEXTURE, vv + LEAST_TEXTURE
    determinant = uu * vv - cross * cross
    return vv / determinant, -cross / determinant, uu / determinant


def structure_tensor(
    image: UInt8[Tensor, "h w 3"],
) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Products (uu, uv, vv) of the image's derivatives, summed over the patch around every pixel.

    Brightness 0..255, mean of the channels; float64.
    """
    values = pad(image.permute(2, 0, 1).float(), (1, 1, 1, 1), mode="reflect")
    across = values[:, :, 2:] - values[:, :, :-2]
    along = values[:, 2:] - values[:, :-2]
    du = (3 * (across[:, :-2] + across[:, 2:]) + 10 * across[:, 1:-1]) / 32  # Scharr
    dv = (3 * (along[..., :-2] + along[..., 2:]) + 10 * along[..., 1:-1]) / 32
    r = PATCH_RADIUS_PX
    uu, cross, vv = (
        window_sum(pad(product.mean(0)[None], (r, r, r, r), mode="reflect"), 2 * r + 1)[0].double()
        for product in (du * du, du * dv, dv * dv)
    )
    return uu, cross, vv


def whitening_of(uu: Values, uv: Values, vv: Values) -> tuple[Values, Values, Values]:
    """W = [[a, b], [0, c]] that gives errors unit covariance, as (a, b, c), element by element.

    W^T W is the inverse of the covariance [[uu, uv], [uv, vv]]. Shapes are broadcast.
    """
    determinant = uu * vv - uv * uv
    return (vv / determinant) ** 0.5, -uv / (vv * determinant) ** 0.5, vv**-0.5
