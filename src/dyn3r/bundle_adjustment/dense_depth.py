"""Depth of every pixel with the cameras fixed: flow, the depth before, and smoothness.

The log depth of a grid of samples is estimated from flow. Its change against the depth before is
carried to every pixel by joint bilateral upsampling and a smoothness term (screened Poisson).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from dyn3r.bundle_adjustment.depth_prior import independent_prior
from dyn3r.bundle_adjustment.depth_smoothing import (
    joint_bilateral_upsample,
    smooth_solve,
    smoothness_weights,
)
from dyn3r.bundle_adjustment.measurements import flow_measurements, regular_grid
from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate, in_batches, to_device
from dyn3r.bundle_adjustment.problem_setup import AdjustmentInputs, depth_sigmas, log_depth_at
from dyn3r.bundle_adjustment.residuals import residuals, robust_weight, squared_length
from dyn3r.bundle_adjustment.schur import MAX_LOG_DEPTH_STEP
from dyn3r.bundle_adjustment.solver import Solution
from dyn3r.io.workers import ordered_map, threads_on
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
PIXELS_AT_ONCE_ELSEWHERE = 2**23
"""Pixels that are computed at once on other devices than the CPU. Source: about 0.5 GB."""


def adjust_dense_depth(
    inputs: AdjustmentInputs, problem: BundleProblem, solution: Solution, progress: Progress
) -> Float[np.ndarray, "n h w"]:
    """Depth of every pixel with the cameras of the solution: on a CPU frame by frame."""
    geometry, device, threads = inputs.geometry, inputs.device, threads_on(inputs.device)
    n, h, w = geometry.depth.shape
    grid = regular_grid((h, w), DEPTH_SAMPLES)
    before = log_depth_at(geometry, grid)
    sigmas = depth_sigmas(inputs.priors, grid, before, inputs.options.depth_sigma)
    fine = replace(
        problem,
        uv=torch.from_numpy(grid.astype(np.float64)).to(device),
        measurements=[],
        prior=independent_prior(before.to(device), sigmas.to(device)),
    )
    coarse, prior = _coarse_change(problem, solution), inputs.options.depth_sigma**-2
    depth, inflation = geometry.depth.astype(np.float32), inputs.options.noise_inflation

    def log_change(frames: slice) -> Float[np.ndarray, "f h w"]:
        measured = [
            flow_measurements(inputs.flow, inputs.images[i], i, grid, inputs.dynamic, inflation)
            for i in range(n)[frames]
        ]
        some = replace(fine, measurements=to_device(in_batches(measured, device), device))
        images = torch.from_numpy(np.ascontiguousarray(inputs.images[frames])).to(device)
        start = (coarse[0][frames], coarse[1][frames])
        change = _log_change(some, solution, start, images, frames, prior)
        return np.asarray(change.clamp(-MAX_LOG_CHANGE, MAX_LOG_CHANGE).cpu().numpy())

    at_once = 1 if threads is None else max(1, PIXELS_AT_ONCE_ELSEWHERE // (h * w))
    blocks = [slice(first, min(first + at_once, n)) for first in range(0, n, at_once)]
    for frames, change in zip(blocks, ordered_map(log_change, blocks, threads)):
        depth[frames] *= np.exp(change)
        progress(STAGE, frames.stop, n)
    return np.where(inputs.priors.fixes_depth(depth.shape), geometry.depth, depth)


def _log_change(
    problem: BundleProblem,
    solution: Solution,
    coarse: tuple[Float[Tensor, "f 1 y x"], Float[Tensor, "f 1 y x"]],
    images: UInt8[Tensor, "f h w 3"],
    frames: slice,
    prior: float,
) -> Float[Tensor, "f h w"]:
    """Change of log depth of every pixel of some frames, from the measurements of the problem.

    `prior`: information of the log depth before.
    """
    size_hw = (images.shape[1], images.shape[2])
    before, grid = problem.prior.mean[frames], regular_grid(size_hw, DEPTH_SAMPLES)
    upsampled = [interpolate(x, size_hw, mode="bilinear")[:, 0] for x in coarse]
    start, at_grid = upsampled[0] / upsampled[1], problem.uv.long().flip(-1).unbind(-1)
    log_depth = problem.prior.mean.clone()
    log_depth[frames] += start[:, at_grid[0], at_grid[1]]
    initial = replace(solution.estimate, log_depth=log_depth)
    sample_depth, information = depth_of_samples(problem, initial, frames, solution.width)
    change, known = joint_bilateral_upsample(sample_depth - before, information, grid, images)
    change = change * known / (known + prior)
    return smooth_solve(change, known + prior, smoothness_weights(images), start.float())


def _coarse_change(
    problem: BundleProblem, solution: Solution
) -> tuple[Float[Tensor, "n 1 y x"], Float[Tensor, "n 1 y x"]]:
    """Change of log depth at the samples of the camera estimate times its weight, and the weight.

    On the grid of these samples. The weight is the information.
    """
    estimate, every = solution.estimate, slice(0, len(problem.fixed))
    information, _ = _by_depth(problem, estimate, every, solution.width)
    shape = (len(problem.fixed), 1, -1, problem.columns)
    change = (estimate.log_depth - problem.prior.mean).reshape(shape)
    weight = information.clamp(max=MAX_COARSE_INFORMATION).reshape(shape) + 1
    return weight * change, weight


def depth_of_samples(
    problem: BundleProblem, initial: Estimate, frames: slice, width: float
) -> tuple[Float[Tensor, "f k"], Float[Tensor, "f k"]]:
    """Log depth of the samples of frames with the cameras of `initial`, and its information.

    All measurements of the problem are of these frames. The information is the inverse variance
    given flow alone, without the prior.
    """
    estimate, before = initial, problem.prior.mean[frames]
    prior = problem.prior.precision[frames]
    for _ in range(NEWTON_STEPS):
        information, gradient = _by_depth(problem, estimate, frames, width)
        gradient += prior * (estimate.log_depth[frames] - before)
        change = gradient / (information + prior)
        log_depth = estimate.log_depth.clone()
        log_depth[frames] -= change.clamp(-MAX_LOG_DEPTH_STEP, MAX_LOG_DEPTH_STEP)
        estimate = replace(estimate, log_depth=log_depth)
    information, _ = _by_depth(problem, estimate, frames, width)
    return estimate.log_depth[frames], information


def _by_depth(
    problem: BundleProblem, estimate: Estimate, frames: slice, width: float
) -> tuple[Float[Tensor, "f k"], Float[Tensor, "f k"]]:
    """Information of flow about the log depths of frames, and half the gradient of its cost."""
    information, gradient = estimate.log_depth.new_zeros(2, *estimate.log_depth[frames].shape)
    for measured in problem.batches:
        found = residuals(problem, estimate, measured, derivatives="depth")
        assert found.J_depth is not None
        J, error, at = found.J_depth, found.error, measured.source - frames.start
        w = robust_weight(measured, found, width)
        information.index_add_(0, at, w * squared_length(J))
        gradient.index_add_(0, at, w * (J[..., 0] * error[..., 0] + J[..., 1] * error[..., 1]))
    return information, gradient
