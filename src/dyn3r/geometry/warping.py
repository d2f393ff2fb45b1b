"""Bilinear sampling of images and fields at sub-pixel positions: arrays (OpenCV) and tensors."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn.functional import grid_sample

MAX_ROUND_TRIP_PX = 100.0
"""Upper bound of a round-trip error in pixels; also its value where the sampled field is NaN."""


def sample_bilinear(
    values: Num[np.ndarray, "h w *channels"], uv: Num[np.ndarray, "*shape 2"]
) -> Num[np.ndarray, "*shape_channels"]:
    """`values` at the pixel coordinates (u, v), bilinear; the nearest value outside of the image.

    `uv` has one or two leading axes. OpenCV rounds the coordinates to 1/32 pixel.
    """
    import cv2

    at = uv.astype(np.float32)
    is_list = at.ndim == 2
    if is_list:
        at = at[:, None]
    sampled = cv2.remap(
        values, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(sampled[:, 0] if is_list else sampled)


def round_trip_error_px(
    forward: Float[np.ndarray, "*shape 2"],
    backward: Float[np.ndarray, "h w 2"],
    uv: Num[np.ndarray, "*shape 2"],
) -> Float[np.ndarray, "*shape"]:
    """Distance in pixels between `uv` and where forward and backward flow lead back to.

    `forward` is the flow at the pixels `uv` of the first frame, `backward` the flow field of the
    second frame. Values are at most MAX_ROUND_TRIP_PX.
    """
    returned = sample_bilinear(np.asarray(backward, np.float32), uv + forward)
    distance = np.linalg.norm(forward + returned, axis=-1)
    return np.asarray(np.fmin(distance, MAX_ROUND_TRIP_PX))


def sample_at(
    values: Float[Tensor, "k c h w"],
    uv: Float[Tensor, "k 2 h2 w2"],
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> Float[Tensor, "k c h2 w2"]:
    """`values` at the pixel coordinates (u, v); the nearest value outside of the image.

    Any device; coordinates are not rounded. Sides of `values` are at least 2.
    """
    (h, w), (u, v) = values.shape[2:], uv.unbind(1)
    # x and y apart, not interleaved: on a CPU that is read faster
    grid = torch.stack([u * (2 / (w - 1)) - 1, v * (2 / (h - 1)) - 1]).permute(1, 2, 3, 0)
    return grid_sample(values, grid, mode, padding_mode="border", align_corners=True)
