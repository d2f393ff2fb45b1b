"""Errors of depth, camera paths and motion masks, as the field's benchmarks measure them."""

from dyn3r.metrics.depth import DepthErrors, align_depth, depth_errors, mean_depth_errors
from dyn3r.metrics.evaluate import Evaluation, evaluate
from dyn3r.metrics.masks import MaskErrors, mask_errors
from dyn3r.metrics.trajectory import TrajectoryErrors, trajectory_errors

__all__ = [
    "DepthErrors",
    "Evaluation",
    "MaskErrors",
    "TrajectoryErrors",
    "align_depth",
    "depth_errors",
    "evaluate",
    "mask_errors",
    "mean_depth_errors",
    "trajectory_errors",
]
