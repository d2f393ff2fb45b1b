"""Fusion of depth: every static pixel agrees with the frames around it.

Depth that is estimated frame by frame flickers: a static point is a little nearer in one frame and
a little farther in the next. A point of frame i is looked up in the frames around it, whose depth
says where it lies as well. The log depth of the pixel becomes the mean of those that agree, with
the weights of a Cauchy distribution (Holland and Welsch 1977). As in the fusion of depth maps by
Merrell et al. 2007, the cameras are taken to be right. Contours stay: a frame that sees another
surface at that place does not agree.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32

from dyn3r.geometry.reprojection import MIN_DEPTH, camera_points, pixels_of
from dyn3r.io.workers import ordered_map
from dyn3r.types import Progress, no_progress

FRAMES_AROUND = 8
"""Frames on each side that are compared. Source: docs/results.md, Fusion of depth: 4 and all 24
frames of a clip have an abs rel within 0.002 of it."""
ROUNDS = 2
"""Rounds, each from the depth of the one before. Source: the same table; flicker of one round is
up to twice as large."""
SAME_SURFACE = 0.1
"""Largest difference of two log depths of one surface. Source: that of the background model
(`dyn3r.motion.background_model`)."""
LOG_DEPTH_SCALE = 0.05
"""Scale of the Cauchy distribution of that difference. Source: the same table; 0.03 and 0.1 have
an abs rel within 0.002 of it."""
ALL_FOUR = 0.999
"""Interpolated share of static pixels above which all four neighbours are static."""


def fuse_depth(
    depth: Float[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    dynamic: Bool[np.ndarray, "n h w"],
    progress: Progress = no_progress,
) -> Float32[np.ndarray, "n h w"]:
    """Depth (z, OpenCV axes; 0 where unknown) after fusion with the frames around each frame.

    `dynamic` pixels and unknown ones keep their values and are not compared. K is in pixels.
    """
    n = len(depth)
    static = ~dynamic & (depth > MIN_DEPTH)
    log_depth = np.log(np.maximum(depth, MIN_DEPTH)).astype(np.float32)
    progress("fusing depth", 0, ROUNDS * n)
    for round_ in range(ROUNDS):
        before = _Frames(log_depth, static, K.astype(np.float32), T_world_camera)
        fused = np.empty_like(log_depth)
        for t, result in enumerate(ordered_map(before.fused, range(n))):
            fused[t] = result
            progress("fusing depth", round_ * n + t + 1, ROUNDS * n)
        log_depth = fused
    return np.where(static, np.exp(log_depth), depth).astype(np.float32)


class _Frames:
    """Log depth and cameras of all frames, before a round."""

    def __init__(
        self,
        log_depth: Float32[np.ndarray, "n h w"],
        static: Bool[np.ndarray, "n h w"],
        K: Float32[np.ndarray, "n 3 3"],
        T_world_camera: Float[np.ndarray, "n 4 4"],
    ) -> None:
        self.log_depth, self.static = log_depth, static
        self.K, self.T = K, T_world_camera

    def fused(self, t: int) -> Float32[np.ndarray, "h w"]:
        """Log depth of a frame after the round."""
        points = camera_points(np.exp(self.log_depth[t]), self.K[t])
        total = np.ones(points.shape[:2], np.float32)  # the weight of the pixel's own depth
        change = np.zeros(points.shape[:2], np.float32)
        first, end = max(0, t - FRAMES_AROUND), min(len(self.T), t + FRAMES_AROUND + 1)
        for other in range(first, end):
            if other != t:
                difference, agrees = self._difference(points, t, other)
                weight = agrees / (1 + np.square(difference / np.float32(LOG_DEPTH_SCALE)))
                change += weight * difference
                total += weight
        return np.asarray(self.log_depth[t] + np.where(self.static[t], change / total, 0))

    def _difference(
        self, points: Float32[np.ndarray, "h w 3"], t: int, other: int
    ) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Log depth that another frame sees less that of the points there, and where they agree."""
        import cv2

        h, w = points.shape[:2]
        move = (np.linalg.inv(self.T[other]) @ self.T[t]).astype(np.float32)
        seen = points @ move[:3, :3].T + move[:3, 3]
        x, y, z = pixels_of(seen, self.K[other])
        inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1) & (seen[..., 2] > MIN_DEPTH)
        static = cv2.remap(self.static[other].astype(np.float32), x, y, cv2.INTER_LINEAR) > ALL_FOUR
        log_depth, log_z = self.log_depth[other], np.log(z)
        difference = cv2.remap(log_depth, x, y, cv2.INTER_LINEAR) - log_z
        # at a contour, depth interpolated between two surfaces is that of none
        nearest = cv2.remap(log_depth, x, y, cv2.INTER_NEAREST) - log_z
        same = np.maximum(np.abs(difference), np.abs(nearest)) < SAME_SURFACE
        return difference, inside & static & same
