"""Bundle adjustment from a good start: one minimum, without the restarts of the last adjustment.

Cameras, one scale of the depth of each frame, and a common factor of the focal lengths. Made for
key frames of a long clip, whose windows were adjusted before and are joined with small errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from dyn3r.bundle_adjustment.adjust import (
    MAX_MEDIAN_ERROR,
    adjustment_inputs,
    carried_out,
)
from dyn3r.bundle_adjustment.calibrated import (
    NOISE_ROUNDS,
    prior_counted_once,
    solve_with_noise,
)
from dyn3r.bundle_adjustment.camera_solution import MIN_PARALLAX
from dyn3r.bundle_adjustment.depth_prior import network_prior
from dyn3r.bundle_adjustment.noise import is_random
from dyn3r.bundle_adjustment.options import BundleAdjustmentOptions
from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate
from dyn3r.bundle_adjustment.problem_setup import build_problem
from dyn3r.bundle_adjustment.progress import Adjustments
from dyn3r.bundle_adjustment.schur import linearise
from dyn3r.bundle_adjustment.solver import (
    KERNEL_WIDTH,
    STAGE,
    flow_cost,
    median_error,
    parallax_of,
    rotation_only_fit,
)
from dyn3r.types import FlowFields, Geometry, Priors, Progress, no_progress


@dataclass(frozen=True)
class Correction:
    """What an adjustment changes."""

    T_world_camera: Float[np.ndarray, "n 4 4"]
    """Camera to world, float64. The first camera is that of the start."""
    log_scale: Float[np.ndarray, " n"]
    """Change of log depth of each frame: the median over its measured samples."""
    scale_sigma: Float[np.ndarray, " n"]
    """Standard error of `log_scale` from flow alone, cameras given; infinite where it says
    nothing."""
    log_focal: float
    """Logarithm of the factor on all focal lengths."""
    left_out_cost: tuple[float, float]
    """Robust cost of the pairs left out, at the start and at the solution, with the standard errors
    that flow states. Wrong flow adds the same to both."""
    error: float
    """Median error of the other pairs at the solution, in these standard errors."""

    @property
    def is_better(self) -> bool:
        """Whether pairs that it has not seen agree with it better, and those it has seen at all."""
        before, after = self.left_out_cost
        return after < before and self.error <= MAX_MEDIAN_ERROR


def adjust_from_start(
    geometry: Geometry,
    images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    *,
    dynamic: Bool[np.ndarray, "n h w"],
    left_out: Bool[np.ndarray, " m"],
    focal_sigma: float,
    progress: Progress = no_progress,
    device: str = "cpu",
) -> Correction | None:
    """The correction of a geometry that flow asks for; None if flow says nothing.

    Args:
        geometry: the start. Its depth is the prior, with the errors of a network's.
        images: the frames.
        flow: between frames that overlap, both directions of each pair.
        dynamic: pixels of moving objects.
        left_out: flow fields that are not used but to judge the result; both directions.
        focal_sigma: standard error of the log focal length; 0: it is known.
        progress: called after every iteration.
        device: PyTorch device of the computation; the CPU if that has no float64 (mps).

    On a CPU it works on a thread of its own. Source: as `dyn3r.bundle_adjustment.calibrated`, which
    adds other starts.
    """
    priors = Priors(K=geometry.K) if focal_sigma == 0 else Priors()
    options = BundleAdjustmentOptions(focal_sigma=focal_sigma or 1.0, noise_inflation=1.0)
    whole = adjustment_inputs(geometry, images, flow, dynamic, priors, options, device)
    problem, start = build_problem(replace(whole, flow=flow.part(~left_out)))
    if not any(bool((m.weight > 0).any()) for m in problem.measurements):
        return None
    if is_random(flow, problem):
        return None

    def solved(report: Progress) -> tuple[BundleProblem, Estimate]:
        prior = network_prior(problem.prior, problem.uv, geometry.depth.shape[1:])
        counted = prior_counted_once(problem.with_prior(prior))
        return _solved(counted, start, options, Adjustments(report, STAGE, 2 + NOISE_ROUNDS))

    noisy, found = carried_out(solved, whole.device, progress)
    others, _ = build_problem(replace(whole, flow=flow.part(left_out)))
    information = linearise(noisy, found, KERNEL_WIDTH).information
    change = (found.log_depth - start.log_depth).masked_fill(information == 0, torch.nan)
    return Correction(
        T_world_camera=found.T_world_camera,
        log_scale=change.nanmedian(1).values.nan_to_num(0.0).cpu().numpy(),
        scale_sigma=information.sum(1).rsqrt().cpu().numpy(),
        log_focal=float(found.log_focal),
        left_out_cost=(flow_cost(others, start), flow_cost(others, found)),
        error=median_error(problem, found),
    )


def _solved(
    problem: BundleProblem,
    start: Estimate,
    options: BundleAdjustmentOptions,
    steps: Adjustments,
) -> tuple[BundleProblem, Estimate]:
    """The solution, and the problem with the noise that it shows.

    Where it explains flow hardly better than cameras that only turn, it is those, at the centres
    and with the depth of the start.
    """
    noisy, solution = solve_with_noise(problem, start, options, steps)
    found = solution.estimate
    turned = rotation_only_fit(noisy, found, steps.one()).estimate
    steps.finished()
    if parallax_of(noisy, found, turned) >= MIN_PARALLAX:
        return noisy, found
    centre = -(start.R.mT @ start.t[..., None])
    t = -(turned.R @ centre)[..., 0]
    return noisy, replace(turned, t=t, log_depth=start.log_depth)
