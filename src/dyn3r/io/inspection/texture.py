"""Frames without texture: black, white, fog, a hand before the lens.

Optical flow of a patch has the covariance sigma^2 A^-1, where A is the sum of the products of the
image gradient over the patch and sigma the noise of the image. A patch whose smaller eigenvalue of
A is that of noise alone says nothing about motion.
Source: Shi and Tomasi, Good Features to Track, CVPR 1994.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

PATCH_PX = 15
NOISE = 5.0
"""Standard deviation of noise in grey levels that must not count as texture: a dark phone video."""
_BLUR_PX = 1.0
GRADIENT_GAIN = 1 / (8 * np.pi * _BLUR_PX**4)
"""Variance of a gradient component of blurred white noise of variance 1."""
MIN_SHARE = 0.05
"""Smallest share of pixels with texture. Black and noisy frames have less than 0.002, the frames
of twenty clean clips at least 0.13 (docs/results.md)."""


def has_texture(grey: UInt8[np.ndarray, "h w"]) -> bool:
    """Whether motion and depth can be measured in a frame."""
    return textured_share(grey) >= MIN_SHARE


def textured_share(grey: UInt8[np.ndarray, "h w"]) -> float:
    """Share of the pixels whose patch has twice the texture of noise, 0..1."""
    blurred = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _BLUR_PX)
    step_y, step_x = np.gradient(blurred)
    xx, xy, yy = (
        cv2.boxFilter(product, -1, (PATCH_PX, PATCH_PX))
        for product in (step_x * step_x, step_x * step_y, step_y * step_y)
    )
    smaller = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
    return float((smaller > 2 * GRADIENT_GAIN * NOISE**2).mean())
