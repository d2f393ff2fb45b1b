"""Fusion of depth in NumPy and OpenCV, pair by pair."""

from __future__ import annotations

import cv2
import numpy as np

from dyn3r.mvs.fusion import ALL_FOUR, FRAMES_AROUND, LOG_DEPTH_SCALE, ROUNDS, SAME_SURFACE
from tests.oracles.reprojection import MIN_DEPTH, camera_points, pixels_of

Array = np.ndarray


def fuse_depth(depth: Array, K: Array, T_world_camera: Array, dynamic: Array) -> Array:
    static = ~dynamic & (depth > MIN_DEPTH)
    log_depth = np.log(np.maximum(depth, MIN_DEPTH)).astype(np.float32)
    for _ in range(ROUNDS):
        before = _Frames(log_depth, static, K.astype(np.float32), T_world_camera)
        log_depth = np.stack([before.fused(t) for t in range(len(depth))])
    return np.where(static, np.exp(log_depth), depth).astype(np.float32)


class _Frames:
    def __init__(self, log_depth: Array, static: Array, K: Array, T_world_camera: Array) -> None:
        self.log_depth, self.static = log_depth, static
        self.K, self.T = K, T_world_camera

    def fused(self, t: int) -> Array:
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

    def _difference(self, points: Array, t: int, other: int) -> tuple[Array, Array]:
        h, w = points.shape[:2]
        move = (np.linalg.inv(self.T[other]) @ self.T[t]).astype(np.float32)
        seen = points @ move[:3, :3].T + move[:3, 3]
        x, y, z = pixels_of(seen, self.K[other])
        inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1) & (seen[..., 2] > MIN_DEPTH)
        static = cv2.remap(self.static[other].astype(np.float32), x, y, cv2.INTER_LINEAR) > ALL_FOUR
        log_depth, log_z = self.log_depth[other], np.log(z)
        difference = cv2.remap(log_depth, x, y, cv2.INTER_LINEAR) - log_z
        nearest = cv2.remap(log_depth, x, y, cv2.INTER_NEAREST) - log_z
        same = np.maximum(np.abs(difference), np.abs(nearest)) < SAME_SURFACE
        return difference, inside & static & same
