"""Metrics of depth, camera trajectories and motion masks, as in the field's benchmarks."""

from dyn3r.evaluation.depth_metrics import DepthErrors, align_depth, depth_errors, mean_depth_errors
from dyn3r.evaluation.evaluate import Evaluation, evaluate
from dyn3r.evaluation.mask_metrics import MaskErrors, mask_errors
from dyn3r.evaluation.trajectory import TrajectoryErrors, trajectory_errors

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
