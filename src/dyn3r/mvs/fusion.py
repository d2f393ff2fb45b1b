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
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.nn.functional import grid_sample

from dyn3r.geometry.reprojection import MIN_DEPTH, FramesAround, places
from dyn3r.io.workers import ordered_map, threads_on
from dyn3r.types import Progress, no_progress

FRAMES_AROUND = 8
"""Frames on each side that are compared. Source: docs/experiments.md, Fusion of depth: 4 and all 24
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
    depth: Float32[Tensor, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    dynamic: Bool[Tensor, "n h w"],
    progress: Progress = no_progress,
) -> Float32[Tensor, "n h w"]:
    """Depth (z, OpenCV axes; 0 where unknown) after fusion with the frames around each frame.

    `dynamic` pixels and unknown ones keep their values and are not compared. K is in pixels. On the
    device of the depth.
    """
    n = len(depth)
    static = ~dynamic & (depth > MIN_DEPTH)
    frames = _Frames(depth.clamp(min=MIN_DEPTH).log(), static, K, T_world_camera)
    threads = threads_on(depth.device)
    progress("fusing depth", 0, ROUNDS * n)
    for round_ in range(ROUNDS):
        fused = torch.empty_like(depth)
        for t, result in enumerate(ordered_map(frames.fused, range(n), threads)):
            fused[t] = result
            progress("fusing depth", round_ * n + t + 1, ROUNDS * n)
        frames.values[:, 0] = fused
    return torch.where(static, frames.values[:, 0].exp(), depth)


class _Frames:
    """Log depth of all frames before a round, where it is static, and the cameras."""

    def __init__(
        self,
        log_depth: Float32[Tensor, "n h w"],
        static: Bool[Tensor, "n h w"],
        K: Float[np.ndarray, "n 3 3"],
        T_world_camera: Float[np.ndarray, "n 4 4"],
    ) -> None:
        self.values, self.static = torch.stack([log_depth, static.float()], 1), static
        n, h, w = log_depth.shape
        near = [range(max(0, t - FRAMES_AROUND), min(n, t + FRAMES_AROUND + 1)) for t in range(n)]
        self.around = FramesAround(K, T_world_camera, near, (h, w), log_depth.device)

    def fused(self, t: int) -> Float32[Tensor, "h w"]:
        """Log depth of a frame after the round."""
        log_depth = self.values[t, 0]
        depth = log_depth.exp()
        total = torch.ones_like(depth)  # the weight of the pixel's own depth
        change = torch.zeros_like(depth)
        for P, others in self.around.parts(t):
            difference, weight = self._difference(P, depth, others)
            for d, w in zip(difference, weight):  # in order, however many are at once
                change.addcmul_(d, w)
                total += w
        return log_depth + torch.where(self.static[t], change / total, 0)

    def _difference(
        self, P: Float32[Tensor, "k 3 4"], depth: Float32[Tensor, "h w"], others: slice
    ) -> tuple[Float32[Tensor, "k h w"], Float32[Tensor, "k h w"]]:
        """Log depth that other frames see less that of a frame's pixels there, and its weight.

        The weight is 0 where they do not agree, as outside of their images. P: `unit_homographies`
        of the frame.
        """
        at, z = places(P, depth)
        grid, log_z, values = at.permute(0, 2, 3, 1), z.log_(), self.values[others]
        # outside of the image nothing is static
        log_depth, static = grid_sample(values, grid, align_corners=True).unbind(1)
        nearest = grid_sample(values[:, :1], grid, "nearest", align_corners=True)[:, 0]
        difference = log_depth.sub_(log_z)
        # at a contour, depth interpolated between two surfaces is that of none
        apart = torch.maximum(difference.abs(), nearest.sub_(log_z).abs_())
        agrees = (static > ALL_FOUR) & (apart < SAME_SURFACE)
        return difference, agrees / (difference / LOG_DEPTH_SCALE).square_().add_(1)
