"""Frames without texture: black, white, fog, a hand before the lens.

Optical flow of a patch has the covariance sigma^2 A^-1, where A is the sum of the products of the
image gradient over the patch and sigma the noise of the image. A patch whose smaller eigenvalue of
A is that of noise alone says nothing about motion.
Source: Shi and Tomasi, Good Features to Track, CVPR 1994.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

PATCH_PX = 15
NOISE = 5.0
"""Standard deviation of noise in grey levels that must not count as texture: a dark phone video."""
FAINT_NOISE = 1.5
"""The same for texture that is found again in a neighbouring frame. Source: what a codec leaves of
noise and repeats from frame to frame is weaker, except in small and strongly compressed videos
(docs/experiments.md)."""
_BLUR_PX = 1.0
GRADIENT_GAIN = 1 / (8 * np.pi * _BLUR_PX**4)
"""Variance of a gradient component of blurred white noise of variance 1."""
MIN_SHARE = 0.05
"""Smallest share of pixels with texture. Black and noisy frames have less than 0.002, the frames
of twenty clean clips at least 0.13 (docs/experiments.md)."""


def has_texture(grey: UInt8[np.ndarray, "h w"]) -> bool:
    """Whether motion and depth can be measured in a frame."""
    return textured_share(grey) >= MIN_SHARE


def textured_share(grey: UInt8[np.ndarray, "h w"]) -> float:
    """Share of the pixels whose patch has twice the texture of noise, 0..1."""
    return float((_smaller_eigenvalue(*_gradient(grey)) > 2 * _of_noise(NOISE)).mean())


def is_found_again(grey: UInt8[np.ndarray, "h w"], other: UInt8[np.ndarray, "h w"]) -> bool:
    """Whether a frame has faint texture that another frame shows too, as before a plain wall."""
    return found_again_share(grey, other) >= MIN_SHARE


def found_again_share(grey: UInt8[np.ndarray, "h w"], other: UInt8[np.ndarray, "h w"]) -> float:
    """Share of the pixels whose patch has faint texture that the other frame shows as well, 0..1.

    The other frame is warped by optical flow. What differs is noise, of which each frame has half;
    noise never repeats. Texture is found again if its structure tensor is twice that of the noise.
    """
    search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = search.calc(grey, other, None)
    v, u = np.mgrid[: grey.shape[0], : grey.shape[1]].astype(np.float32)
    at = (u + flow[..., 0], v + flow[..., 1])
    warped = cv2.remap(other, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    here, there = _gradient(grey), _gradient(warped)
    noise = sum(_patch_mean((a - b) ** 2) for a, b in zip(here, there)) / 4  # of one frame and axis
    smaller = _smaller_eigenvalue(*here)
    return float(((smaller > 2 * _of_noise(FAINT_NOISE)) & (smaller > 2 * noise)).mean())


def _of_noise(sigma: float) -> float:
    """Eigenvalue of the structure tensor of white noise, a mean over a patch."""
    return GRADIENT_GAIN * sigma**2


def _gradient(
    grey: UInt8[np.ndarray, "h w"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Derivatives of the blurred image along x and y."""
    step_y, step_x = np.gradient(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _BLUR_PX))
    return step_x, step_y


def _patch_mean(values: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Mean over the patch around every pixel."""
    return np.asarray(cv2.boxFilter(values, -1, (PATCH_PX, PATCH_PX)))


def _smaller_eigenvalue(
    step_x: Float32[np.ndarray, "h w"], step_y: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"]:
    """Smaller eigenvalue of the structure tensor of every patch."""
    xx, xy, yy = (_patch_mean(x) for x in (step_x * step_x, step_x * step_y, step_y * step_y))
    return np.asarray((xx + yy) / 2 - np.hypot((xx - yy) / 2, xy))
