"""Maps sampled along optical flow."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Num

from dyn3r.geometry.warping import round_trip_error_px, sample_bilinear


def sample_along_flow(
    values: Num[np.ndarray, "h w *channels"], flow: Float[np.ndarray, "h w 2"]
) -> Num[np.ndarray, "h w *channels"]:
    """Values of the second frame at the end of each pixel's flow, bilinear.

    Flow in pixels. Outside of the image the nearest value.
    """
    return sample_bilinear(values, pixel_grid(flow.shape[:2]) + flow)


def round_trip_px(
    forward: Float[np.ndarray, "h w 2"], backward: Float[np.ndarray, "h w 2"]
) -> Float[np.ndarray, "h w"]:
    """Forward-backward error of each pixel in pixels, at most 100."""
    return round_trip_error_px(forward, backward, pixel_grid(forward.shape[:2]))


@lru_cache(maxsize=4)
def pixel_grid(size_hw: tuple[int, ...]) -> Float[np.ndarray, "h w 2"]:
    """Coordinates (u, v) of every pixel, float32; read-only."""
    v, u = np.mgrid[: size_hw[0], : size_hw[1]].astype(np.float32)
    grid = np.stack([u, v], axis=-1)
    grid.setflags(write=False)
    return grid
