"""Depth of surfaces that something else hides."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from dyn3r.geometry.reprojection import MIN_DEPTH

INPAINT_SMOOTH_PX = 4.0
"""Standard deviation in pixels of the Gaussian blur of inpainted depth."""


def inpaint_depth(
    depth: Float[np.ndarray, "n h w"], hidden: Bool[np.ndarray, "n h w"]
) -> Float[np.ndarray, "n h w"]:
    """Depth (z) in which hidden pixels are as far away as the nearest other pixel, smoothed.

    `hidden`: pixels that do not show the surface that is wanted. Frames without others keep theirs.
    """
    import cv2
    from scipy.ndimage import distance_transform_edt

    out = np.maximum(depth, MIN_DEPTH)
    for t, mask in enumerate(hidden):
        if not mask.any():
            continue
        wide = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        if wide.all():
            continue
        nearest = distance_transform_edt(wide, return_distances=False, return_indices=True)
        filled = np.log(out[t][tuple(nearest)]).astype(np.float32)
        filled = np.exp(cv2.GaussianBlur(filled, (0, 0), INPAINT_SMOOTH_PX))
        out[t] = np.where(wide, filled, out[t])
    return out
