"""Keypoints of images: SIFT (Lowe 2004) in OpenCV's implementation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

DEFAULT_CONTRAST = 0.04
"""Lowest contrast of a keypoint. Source: OpenCV's default."""


class Keypoints(NamedTuple):
    """Keypoints of one frame."""

    uv: Float32[np.ndarray, "k 2"]
    """Pixel coordinates."""
    descriptors: Float32[np.ndarray, "k 128"]


def find_keypoints(
    grey: UInt8[np.ndarray, "h w"], limit: int, contrast: float = DEFAULT_CONTRAST
) -> Keypoints:
    """At most about `limit` keypoints of a grey image."""
    import cv2

    sift = cv2.SIFT.create(nfeatures=limit, contrastThreshold=contrast)
    points, descriptors = sift.detectAndCompute(grey, None)
    if descriptors is None:
        return Keypoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    return Keypoints(np.array([point.pt for point in points], np.float32), descriptors)
