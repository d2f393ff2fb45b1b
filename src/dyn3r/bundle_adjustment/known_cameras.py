"""Known cameras in place of those of the alignment, and the unit of length that goes with them.

Where a large object moves along, the network sees cameras that follow it. An alignment in which the
known cameras are fixed would then be bent between the two, and a comparison of the two paths would
give a wrong unit of length. So the alignment is free, and flow between the known cameras says how
far away everything is.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, UInt8

from dyn3r.bundle_adjustment.adjust import (
    LEAST_MEASURED_SHARE,
    adjustment_inputs,
    measured_share,
)
from dyn3r.bundle_adjustment.problem_setup import build_problem
from dyn3r.bundle_adjustment.solver import flow_cost
from dyn3r.types import FlowFields, Geometry, Priors

logger = logging.getLogger(__name__)

NEAREST, FARTHEST = 1 / 8, 1024.0
"""Median depths that are tried, in units of the largest distance between known cameras. Source:
nearer ones leave no overlap, farther ones less parallax than the errors of flow."""
DEPTHS_PER_DOUBLING = 4
"""Source: chosen by hand, 19 % apart."""
FINER = 8
"""Around the best of them steps are so many times smaller: 2 %."""
UNKNOWN_DISTANCE = "too little flow is visible to find the unit of depth between the known cameras"
"""Warning below LEAST_MEASURED_SHARE."""


def known_throughout(priors: Priors, depth_shape: tuple[int, ...]) -> bool:
    """Whether every camera is known and fixed, and the unit of length by nothing else.

    depth_shape: (n, h, w).
    """
    return priors.fixes_all_cameras and not priors.fixes_depth(depth_shape).any()


def with_known_cameras(
    geometry: Geometry,
    images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    *,
    dynamic: Bool[np.ndarray, "n h w"] | None,
    priors: Priors,
    device: str = "cpu",
) -> Geometry:
    """The geometry with known cameras, and its depth times one factor: that of least flow cost.

    Depth keeps its unit where the cameras are at one place, and where too little flow is visible,
    which a note says. Unchanged if not `known_throughout`. Arguments as for
    `dyn3r.bundle_adjustment.bundle_adjust`; the cost is its robust one.
    """
    if not known_throughout(priors, geometry.depth.shape):
        return geometry
    assert priors.T_world_camera is not None
    T = priors.T_world_camera.astype(np.float64)
    placed = replace(geometry, T_world_camera=T)
    extent = float(np.linalg.norm(T[:, None, :3, 3] - T[None, :, :3, 3], axis=-1).max())
    if extent == 0:
        return placed
    inputs = adjustment_inputs(placed, images, flow, dynamic, priors, None, device)
    problem, start = build_problem(inputs)
    if measured_share(problem) < LEAST_MEASURED_SHARE:
        return replace(placed, diagnostics=geometry.diagnostics.added(UNKNOWN_DISTANCE))
    median = float(start.log_depth.median())

    def cheapest(log_depths: np.ndarray) -> float:
        costs = [
            flow_cost(problem, replace(start, log_depth=start.log_depth + float(log - median)))
            for log in log_depths
        ]
        return float(log_depths[np.argmin(costs)])

    count = round(DEPTHS_PER_DOUBLING * np.log2(FARTHEST / NEAREST)) + 1
    coarse = np.log(extent * np.geomspace(NEAREST, FARTHEST, count))
    step = coarse[1] - coarse[0]
    best = cheapest(cheapest(coarse) + step * np.linspace(-1, 1, 2 * FINER + 1))
    logger.info("known cameras: median depth is %.3g times their extent", np.exp(best) / extent)
    return replace(placed, depth=(geometry.depth * np.exp(best - median)).astype(np.float32))
