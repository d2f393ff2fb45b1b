"""Frames compared: whether they show the same place, and how the picture moves.

Features are matched and verified by a homography. Two images show the same place if more of the
matches agree with one homography than 8 that do so by chance.
Source: alpha of Brown and Lowe, Automatic Panoramic Image Stitching using Invariant Features,
IJCV 2007.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

MAX_FEATURES = 500
RATIO = 0.8
"""A match must be nearer than the second best by this factor. Source: Lowe, IJCV 2004, 7.1."""
CHANCE = 8
"""Most matches that agree by chance."""
MIN_FEATURES = 30
"""A frame with fewer is not judged."""
INLIER_PX = 3.0


class Features(NamedTuple):
    """Features of a frame."""

    points: Float32[np.ndarray, "k 2"]
    """Pixel coordinates (x, y)."""
    descriptors: Float32[np.ndarray, "k 128"]


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


def feature_finder() -> Callable[[UInt8[np.ndarray, "h w"]], Features]:
    """Function that finds the features of a grey frame."""
    sift: Any = cv2.SIFT_create(MAX_FEATURES)  # type: ignore[attr-defined]

    def find(grey: UInt8[np.ndarray, "h w"]) -> Features:
        points, descriptors = sift.detectAndCompute(grey, None)
        if descriptors is None:
            return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
        return Features(np.array([p.pt for p in points], np.float32), descriptors)

    return find


def compare(first: Features, second: Features) -> Comparison:
    """How well two frames match."""
    fewest = min(len(first.points), len(second.points))
    if fewest < 2:  # the ratio test needs a second best
        nothing = np.zeros((0, 2), np.float32)
        return Comparison(nothing, nothing, 0, judged=False)
    matches = cv2.BFMatcher().knnMatch(first.descriptors, second.descriptors, k=2)
    clear = [best for best, other in matches if best.distance < RATIO * other.distance]
    nearest = {m.trainIdx: m for m in sorted(clear, key=lambda m: -m.distance)}
    good = list(nearest.values())  # one for each feature of the second frame
    here = first.points[[m.queryIdx for m in good]]
    there = second.points[[m.trainIdx for m in good]]
    agreeing = 0
    if len(good) > CHANCE:
        cv2.setRNGSeed(0)
        H, inliers = cv2.findHomography(here, there, cv2.RANSAC, INLIER_PX)
        agreeing = 0 if H is None else int(inliers.sum())
    return Comparison(here, there, agreeing, judged=fewest >= MIN_FEATURES)
