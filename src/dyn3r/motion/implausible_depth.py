"""Static pixels whose refined depth is implausible: they belong to an object that moves along.

An object that moves along with the camera shifts like a static one at another depth; flow alone
cannot tell the two apart. If bundle adjustment puts it far behind where the network sees it, it is
dynamic: otherwise it would hide what is in front of it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

BEHIND = 0.8
"""Depth that flow puts this much farther than predicted (logarithm: a factor of 2.2) belongs to
something that moves. On clips of the synthetic world a ten-thousandth of the pixels does so."""
AROUND = 0.4
"""What is connected with it and this much farther than predicted belongs to it."""
SPECK = 0.01
"""Less wide than this share of the long side it is an error."""


def farther_than_predicted(
    predicted: Float[np.ndarray, "n h w"],
    solved: Float[np.ndarray, "n h w"],
    moving: Bool[np.ndarray, "n h w"],
) -> Bool[np.ndarray, "n h w"]:
    """Where flow puts what does not move, as far as is known, behind all reason.

    `predicted`: depth before bundle adjustment; `solved`: after it; compared after one common
    factor, the median of the still pixels.
    """
    import cv2

    change = np.log(np.maximum(solved, 1e-9)) - np.log(np.maximum(predicted, 1e-9))
    still = ~moving
    if not still.any():
        return np.zeros_like(moving)
    change = np.where(still, change - np.median(change[still]), 0)
    side = 2 * max(1, round(SPECK * max(moving.shape[1:]))) + 1
    speck = np.ones((side, side), np.uint8)
    out = np.zeros_like(moving)
    for frame, found in zip(change, out):
        seeds = cv2.morphologyEx((frame > BEHIND).astype(np.uint8), cv2.MORPH_OPEN, speck) > 0
        around = cv2.morphologyEx((frame > AROUND).astype(np.uint8), cv2.MORPH_OPEN, speck)
        _, label = cv2.connectedComponents(around, connectivity=8)
        found[:] = (np.isin(label, np.unique(label[seeds])) & (label > 0)) | seeds
    return out
