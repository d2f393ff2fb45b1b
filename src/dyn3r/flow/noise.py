"""Standard error of flow by dense inverse search."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor

FLOW_SIGMA_PX = 0.3
"""Standard error of flow on perfect texture, in pixels. Source: chosen on the synthetic world."""
FLOW_SIGMA_SHARE = 0.05
"""Standard error of flow as a share of its length. Source: chosen on the synthetic world."""
MEDIAN_NORMAL_ERROR = 1.18
"""Median length of a two-dimensional standard normal error: sqrt(2 log 2)."""


def flow_sigma_px(flow: Float[np.ndarray, "*shape 2"]) -> Float[np.ndarray, "*shape"]:
    """Standard error of flow in pixels: a constant part and a share of its length."""
    length = np.linalg.norm(flow.astype(np.float32), axis=-1)
    return np.asarray(np.sqrt(FLOW_SIGMA_PX**2 + (FLOW_SIGMA_SHARE * length) ** 2))


def flow_variance_px2(flow: Float[Tensor, "m 2 h w"]) -> Float[Tensor, "m h w"]:
    """Square of `flow_sigma_px`, of fields on a device."""
    u, v = flow.unbind(1)
    return (u * u + v * v).mul_(FLOW_SIGMA_SHARE**2).add_(FLOW_SIGMA_PX**2)
