"""Frames compared: whether they show the same place, and how the picture moves.

Keypoints are matched and verified by a homography. Two images show the same place if more of the
matches agree with one homography than 8 that do so by chance.
Source: alpha of Brown and Lowe, Automatic Panoramic Image Stitching using Invariant Keypoints,
IJCV 2007.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32

from dyn3r.geometry.keypoints import Keypoints

MAX_FEATURES = 500
RATIO = 0.8
"""A match must be nearer than the second best by this factor. Source: Lowe, IJCV 2004, 7.1."""
CHANCE = 8
"""Most matches that agree by chance."""
MIN_FEATURES = 30
"""A frame with fewer is not judged."""
INLIER_PX = 3.0


class Comparison(NamedTuple):
    """Two frames compared."""

    here: Float32[np.ndarray, "m 2"]
    """Points of the first frame that have a match, in pixels (x, y)."""
    there: Float32[np.ndarray, "m 2"]
    """The points of the second frame that match them; some are wrong."""
    agreeing: int
    """Matches that agree with one homography."""
    judged: bool
    """False if one of the frames has too few features."""

    @property
    def differ(self) -> bool:
        """Whether the frames show different places."""
        return self.judged and self.agreeing <= CHANCE


def compare(first: Keypoints, second: Keypoints) -> Comparison:
    """How well two frames match."""
    fewest = min(len(first.uv), len(second.uv))
    if fewest < 2:  # the ratio test needs a second best
        nothing = np.zeros((0, 2), np.float32)
        return Comparison(nothing, nothing, 0, judged=False)
    matches = cv2.BFMatcher().knnMatch(first.descriptors, second.descriptors, k=2)
    clear = [best for best, other in matches if best.distance < RATIO * other.distance]
    nearest = {m.trainIdx: m for m in sorted(clear, key=lambda m: -m.distance)}
    good = list(nearest.values())  # one for each feature of the second frame
    here = first.uv[[m.queryIdx for m in good]]
    there = second.uv[[m.trainIdx for m in good]]
    agreeing = 0
    if len(good) > CHANCE:
        cv2.setRNGSeed(0)
        H, inliers = cv2.findHomography(here, there, cv2.RANSAC, INLIER_PX)
        agreeing = 0 if H is None else int(inliers.sum())
    return Comparison(here, there, agreeing, judged=fewest >= MIN_FEATURES)
