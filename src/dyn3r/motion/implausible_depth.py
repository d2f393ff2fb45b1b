"""Static pixels with implausible refined depth: wrong, or of an object that follows the camera.

Bundle adjustment places them far behind the network's depth. Flow or the network is wrong there, so
they are not measured. Or they are of an object that moves along with the camera: it has the flow of
a static one at another depth, and flow alone cannot distinguish the two. Such an object lasts.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

OUTLIER_LOG_DEPTH = 0.8
"""Increase of log depth (a factor of 2.2) that is implausible for a static pixel. Source: 0.01 % of
the static pixels of the synthetic world."""
CONNECTED_LOG_DEPTH = 0.4
"""Increase of log depth of pixels that are connected with an outlier and belong to it."""
LEAST_FRAMES = 12
"""Successive frames that such an object is seen in, at least: half a second at 24 a second. Source:
errors of a network's depth differ from frame to frame; regions of them lasted 1 to 6 frames on two
clips, an object 22 (docs/experiments.md)."""
MIN_DEPTH = 1e-9
MIN_WIDTH = 0.01
"""Regions narrower than this share of the long side are errors of the depth."""


def implausible_depth_outliers(
    predicted: Float[np.ndarray, "n h w"],
    refined: Float[np.ndarray, "n h w"],
    dynamic: Bool[np.ndarray, "n h w"],
) -> Bool[np.ndarray, "n h w"]:
    """Pixels outside of `dynamic` whose depth increased implausibly.

    `predicted`: depth before bundle adjustment; `refined`: depth after it. The two are compared
    after their common scale, the median over the static pixels, is removed.
    """
    import cv2

    change = np.log(np.maximum(refined, MIN_DEPTH)) - np.log(np.maximum(predicted, MIN_DEPTH))
    static = ~dynamic
    if not static.any():
        return np.zeros_like(dynamic)
    change = np.where(static, change - np.median(change[static]), 0)
    side = 2 * max(1, round(MIN_WIDTH * max(dynamic.shape[1:]))) + 1
    square = np.ones((side, side), np.uint8)

    def wide_regions(frame: np.ndarray, limit: float) -> np.ndarray:
        return cv2.morphologyEx((frame > limit).astype(np.uint8), cv2.MORPH_OPEN, square)

    out = np.zeros_like(dynamic)
    for frame, found in zip(change, out):
        seeds = wide_regions(frame, OUTLIER_LOG_DEPTH) > 0
        around = wide_regions(frame, CONNECTED_LOG_DEPTH)
        _, numbers = cv2.connectedComponents(around, connectivity=8)
        found[:] = np.isin(numbers, np.unique(numbers[seeds]))
    return out


def lasting(pixels: Bool[np.ndarray, "n h w"]) -> Bool[np.ndarray, "n h w"]:
    """Those of the pixels that are connected, in space and time, over LEAST_FRAMES.

    In a shorter clip over all frames.
    """
    from scipy.ndimage import find_objects, label

    regions, _ = label(pixels, np.ones((3, 3, 3)))
    least = min(LEAST_FRAMES, len(pixels))
    kept = [when.stop - when.start >= least for when, *_ in find_objects(regions)]
    return np.array([False, *kept])[regions]
