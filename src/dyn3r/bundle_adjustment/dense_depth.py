"""Depth of every pixel with the cameras fixed: flow, the depth before, and smoothness.

The log depth of a grid of samples is estimated from flow. Its change against the depth before is
carried to every pixel by joint bilateral upsampling and a smoothness term (screened Poisson).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from dyn3r.bundle_adjustment.depth_prior import independent_prior
from dyn3r.bundle_adjustment.depth_smoothing import (
    joint_bilateral_upsample,
    smooth_solve,
    smoothness_weights,
)
from dyn3r.bundle_adjustment.measurements import flow_measurements, regular_grid
from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate
from dyn3r.bundle_adjustment.problem_setup import AdjustmentInputs, depth_sigmas, log_depth_at
from dyn3r.bundle_adjustment.residuals import residuals, robust_weight
from dyn3r.bundle_adjustment.schur import MAX_LOG_DEPTH_STEP, linearise
from dyn3r.bundle_adjustment.solver import Solution
from dyn3r.io.workers import ordered_map
from dyn3r.types import Progress

STAGE = "depth from flow"
"""Name of the stage in progress reports."""
DEPTH_SAMPLES = 2500
"""Samples per frame whose depth is estimated. More: finer and slower. Source: run time; chosen on
the synthetic world."""
NEWTON_STEPS = 3
"""Newton steps for the depth of each sample. Source: the initial value is close to the solution."""
MAX_LOG_CHANGE = 3.0
"""Largest change of a log depth: a factor of exp(3) = 20."""
MAX_COARSE_INFORMATION = 1e3
"""Upper bound of the weight of a sample in the initial, coarse change of depth."""


def adjust_dense_depth(
    inputs: AdjustmentInputs, problem: BundleProblem, solution: Solution, progress: Progress
) -> Float[np.ndarray, "n h w"]:
    """Depth of every pixel, frame by frame, with the cameras of the solution."""
    geometry, options = inputs.geometry, inputs.options
    n, h, w = geometry.depth.shape
    grid = regular_grid((h, w), DEPTH_SAMPLES)
    at_grid = torch.from_numpy(grid[:, 1]), torch.from_numpy(grid[:, 0])
    before = log_depth_at(geometry, grid)
    fine = replace(
        problem,
        uv=torch.from_numpy(grid.astype(np.float64)),
        measurements=[None] * n,
        prior=independent_prior(
            before, depth_sigmas(inputs.priors, grid, before, options.depth_sigma)
        ),
    )
    coarse_information = linearise(problem, solution.estimate, solution.width).information
    prior, depth = options.depth_sigma**-2, geometry.depth.astype(np.float32)

    def log_change(i: int) -> Float[np.ndarray, "h w"]:
        image = inputs.images[i]
        measured = flow_measurements(inputs.flow, image, i, grid, inputs.dynamic)
        alone = replace(fine, measurements=[measured if k == i else None for k in range(n)])
        coarse = _coarse_change(problem, solution.estimate, coarse_information, i, (h, w))
        log_depth = (before[i] + coarse[at_grid]).expand_as(before)
        initial = replace(solution.estimate, log_depth=log_depth)
        sample_depth, information = depth_of_samples(alone, initial, i, solution.width)
        change, known = joint_bilateral_upsample(sample_depth - before[i], information, grid, image)
        change = change * known / (known + prior)
        smooth = smooth_solve(change, known + prior, smoothness_weights(image), coarse.float())
        return np.asarray(smooth.numpy().clip(-MAX_LOG_CHANGE, MAX_LOG_CHANGE))

    for i, change in enumerate(ordered_map(log_change, range(n))):
        depth[i] *= np.exp(change)
        progress(STAGE, i + 1, n)
    return np.where(inputs.priors.fixes_depth(depth.shape), geometry.depth, depth)


def _coarse_change(
    problem: BundleProblem,
    estimate: Estimate,
    information: Float[Tensor, "n k"],
    i: int,
    size_hw: tuple[int, int],
) -> Float[Tensor, "h w"]:
    """Change of log depth at the samples of the camera estimate, interpolated by information."""
    shape = (1, 1, -1, len(torch.unique(problem.uv[:, 0])))
    change = (estimate.log_depth[i] - problem.prior.mean[i]).reshape(shape)
    weight = information[i].clamp(max=MAX_COARSE_INFORMATION).reshape(shape) + 1
    upsampled = [interpolate(x, size_hw, mode="bilinear") for x in (weight * change, weight)]
    return (upsampled[0] / upsampled[1])[0, 0]


def depth_of_samples(
    problem: BundleProblem, initial: Estimate, i: int, width: float
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Log depth of the samples of frame i with the cameras of `initial`, and its information.

    The information is the inverse variance given flow alone, without the prior.
    """
    estimate, measured, before = initial, problem.measurements[i], problem.prior.mean[i]
    information, prior = torch.zeros_like(before), problem.prior.precision[i]
    if measured is None:
        return before, information
    for step in range(NEWTON_STEPS + 1):
        found = residuals(problem, estimate, measured, derivatives="depth")
        assert found.J_depth is not None
        w = robust_weight(measured, found, width)[..., None]
        information = (w * found.J_depth.square()).sum((0, 2))
        if step < NEWTON_STEPS:
            gradient = prior * (estimate.log_depth[i] - before)
            gradient = gradient + (w * found.J_depth * found.error).sum((0, 2))
            change = gradient / (information + prior)
            moved = estimate.log_depth[i] - change.clamp(-MAX_LOG_DEPTH_STEP, MAX_LOG_DEPTH_STEP)
            estimate = replace(estimate, log_depth=moved.expand_as(initial.log_depth))
    return estimate.log_depth[i], information
