"""Local plane fits to an inverse depth map."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

PLANE_WINDOW_PX = 9
"""Side in pixels of the window that a plane is fitted to. Source: chosen by hand for frames of 224
pixels."""


def inverse_depth_planes(
    inverse_depth: Float[np.ndarray, "h w"], K: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "h w 3"]:
    """Plane of the surface around each pixel in camera axes, by least squares in a window.

    A plane is given as the vector p with p . ray = 1 / depth for rays with z = 1. Inverse depth is
    linear in the pixel coordinates on a plane, so the fit has a closed form. The surface faces -p,
    and its distance from the camera is 1 / |p|.
    """
    import cv2

    def mean(values: np.ndarray) -> np.ndarray:
        size = (PLANE_WINDOW_PX, PLANE_WINDOW_PX)
        return np.asarray(cv2.boxFilter(values, -1, size, borderType=cv2.BORDER_REFLECT))

    v, u = np.mgrid[: inverse_depth.shape[0], : inverse_depth.shape[1]].astype(np.float64)
    x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    d = inverse_depth.astype(np.float64)
    mx, my, md = mean(x), mean(y), mean(d)
    xx, yy, xy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    xd, yd = mean(x * d) - mx * md, mean(y * d) - my * md
    determinant = np.maximum(xx * yy - xy * xy, 1e-30)
    a, b = (xd * yy - yd * xy) / determinant, (yd * xx - xd * xy) / determinant
    return np.stack([a, b, md - a * mx - b * my], -1)
