"""Levenberg-Marquardt solver of bundle adjustment on optical flow.

Unknowns are the cameras (world to camera), the logarithm of a common factor of the focal lengths
and the log depth of every sample in its own frame. Measurements are the positions of samples in
other frames; the initial depth and focal length are priors. Sources: bundle adjustment (Triggs et
al. 2000); per-pixel depth from dense flow, eliminated by the Schur complement (DROID-SLAM, Teed and
Deng 2021); priors on depth and focal length where parallax is small (MegaSaM, Li et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dyn3r.bundle_adjustment.depth_prior import independent_prior
from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate
from dyn3r.bundle_adjustment.residuals import residuals, squared_length
from dyn3r.bundle_adjustment.schur import damped_step, linearise
from dyn3r.flow.noise import MEDIAN_NORMAL_ERROR
from dyn3r.types import Progress, no_progress

STAGE = "bundle adjustment"
"""Name of the stage in progress reports."""
KERNEL_WIDTH = 3.0
"""Final width of the Geman-McClure kernel in standard errors. Source: residuals beyond three
standard errors are outliers."""
FAR_LOG_DEPTH = 12.0
"""Log depth beyond that of all samples at which translation has no effect."""
ROTATION_ONLY_ITERATIONS = 15
"""Iterations of the rotation-only fit. Source: chosen by hand."""
BEHIND_CAMERA_ERROR = 1e6
"""Squared error of a point behind the camera."""
INITIAL_DAMPING, MIN_DAMPING, MAX_DAMPING = 1e-4, 1e-7, 1e6
"""Levenberg-Marquardt damping, relative to the diagonal."""
DAMPING_INCREASE, DAMPING_DECREASE, MAX_TRIALS = 6, 4, 8
"""Factors of the damping after a rejected and an accepted step, and steps tried per iteration."""
INITIAL_WIDTH, WIDTH_DECREASE = 4, 0.7
"""Initial kernel width in median errors, and its largest decrease in one iteration."""
EXPLAINED_COST = 1e-4
"""Mean cost of a measurement that is explained: a hundredth of a standard error."""
MIN_RELATIVE_DECREASE, COARSE_DECREASE = 1e-4, 1e-3
"""The solver ends when an iteration lowers the cost by less than this share; the second one is for
initial values of another adjustment. Source: results as with a tenth (docs/experiments.md)."""


@dataclass(frozen=True)
class Solution:
    """Result of the solver."""

    estimate: Estimate
    median_error_before: float
    """Median error in standard errors at the initial estimate."""
    median_error: float
    """The same at the solution."""
    width: float
    """Kernel width at the end, in standard errors."""
    iterations: int

    @property
    def fits_better(self) -> bool:
        """Whether the residuals did not grow. False if they are NaN."""
        return self.median_error <= self.median_error_before


def minimise(
    problem: BundleProblem,
    initial: Estimate,
    iterations: int = 40,
    *,
    first_width: float | None = None,
    noise_known: bool = True,
    least_decrease: float = MIN_RELATIVE_DECREASE,
    progress: Progress = no_progress,
) -> Solution:
    """Minimum of the robust cost, whose kernel width shrinks to KERNEL_WIDTH.

    It starts at `first_width`, or at INITIAL_WIDTH median errors. Without `noise_known`, the
    standard errors have an unknown common factor, which follows from the median error; the width
    shrinks to KERNEL_WIDTH of the scaled ones. It ends when an iteration lowers the cost by less
    than the share `least_decrease`. Depths are eliminated frame by frame, so a step solves a system
    of 6 n + 1 unknowns.
    """
    now, damping = _Evaluation.at(problem, initial), INITIAL_DAMPING
    before = now.median_error()
    width = first_width or max(KERNEL_WIDTH if noise_known else 0.0, INITIAL_WIDTH * before)
    cost, done = now.cost(problem, width), 0
    while done < iterations:
        progress(STAGE, done, iterations)
        done += 1
        if problem.prior.heavy_tails:
            problem = problem.with_prior(problem.prior.reweighted(now.estimate.log_depth))
            cost = now.cost(problem, width)
        system = linearise(problem, now.estimate, width)
        for _ in range(MAX_TRIALS):
            trial = damped_step(problem, now.estimate, system, damping)
            if trial is not None:
                tried = _Evaluation.at(problem, trial)
                new_cost = tried.cost(problem, width)
                if new_cost < cost:
                    break
            damping = min(damping * DAMPING_INCREASE, MAX_DAMPING)
        else:
            tried, new_cost = now, cost
        gain, now = (cost - new_cost) / max(cost, 1e-12), tried
        damping, cost = max(damping / DAMPING_DECREASE, MIN_DAMPING), new_cost
        narrower = _narrower(now, width, noise_known=noise_known)
        if narrower < 0.999 * width:
            width = narrower
            cost = now.cost(problem, width)
        elif gain < least_decrease:
            break
    progress(STAGE, iterations, iterations)
    return Solution(now.estimate, before, now.median_error(), width, done)


@dataclass(frozen=True)
class _Evaluation:
    """An estimate and its residuals, from which costs of every width and prior follow."""

    estimate: Estimate
    squared: list[Tensor]
    """Squared errors (m k) of each batch of measurements."""
    in_front: list[Tensor]
    """Whether the point is in front of the other camera."""
    weights: list[Tensor]

    @classmethod
    def at(cls, problem: BundleProblem, estimate: Estimate) -> _Evaluation:
        """The residuals of all measurements."""
        found = [
            residuals(problem, estimate, measured, derivatives="none")
            for measured in problem.batches
        ]
        return cls(
            estimate, [squared_length(each.error) for each in found],
            [each.in_front for each in found], [measured.weight for measured in problem.batches],
        )  # fmt: skip

    def cost(self, problem: BundleProblem, width: float) -> float:
        """See `total_cost`."""
        total = problem.prior.cost(self.estimate.log_depth)
        if problem.focal_sigma > 0:
            total += float(self.estimate.log_focal / problem.focal_sigma) ** 2
        if problem.camera_prior is not None:
            total += problem.camera_prior.cost(self.estimate.R, self.estimate.t)
        for squared, in_front, weight in zip(self.squared, self.in_front, self.weights):
            squared = torch.where(in_front, squared, BEHIND_CAMERA_ERROR)
            total += float((weight * (width**2 * squared / (width**2 + squared))).sum())
        return total

    def median_error(self) -> float:
        """See `median_error`."""
        seen = [squared[weight > 0] for squared, weight in zip(self.squared, self.weights)]
        joined = torch.cat(seen) if seen else torch.zeros(0)
        return float(joined.median().sqrt()) if len(joined) else 0.0


def _narrower(now: _Evaluation, width: float, *, noise_known: bool) -> float:
    """Kernel width of the next iteration."""
    if noise_known and width <= KERNEL_WIDTH:
        return width
    median = now.median_error()
    if noise_known:
        return max(KERNEL_WIDTH, min(WIDTH_DECREASE * width, INITIAL_WIDTH * median))
    return min(width, max(KERNEL_WIDTH * median / MEDIAN_NORMAL_ERROR, WIDTH_DECREASE * width))


def rotation_only_fit(
    problem: BundleProblem, initial: Estimate, progress: Progress = no_progress
) -> Solution:
    """Cameras and focal length that best explain flow without translation.

    All samples are so far away that translation has no effect.
    """
    far = torch.full_like(initial.log_depth, float(initial.log_depth.max()) + FAR_LOG_DEPTH)
    distant = problem.with_prior(independent_prior(far, torch.full_like(far, 1e-4)))
    distant = replace(distant, camera_prior=None)
    initial = replace(initial, log_depth=far.clone())
    return minimise(distant, initial, ROTATION_ONLY_ITERATIONS, progress=progress)


def flow_cost(problem: BundleProblem, estimate: Estimate) -> float:
    """`total_cost` without the priors, at KERNEL_WIDTH."""
    without_depth = problem.with_prior(problem.prior.with_mean(estimate.log_depth))
    without_priors = replace(without_depth, focal_sigma=0.0, camera_prior=None)
    return total_cost(without_priors, estimate, KERNEL_WIDTH)


def parallax_of(problem: BundleProblem, estimate: Estimate, rotation_only: Estimate) -> float:
    """Share of the flow cost of cameras that only rotate that an estimate explains besides.

    0 where these leave none: flow between identical images says nothing about depth.
    """
    cost = flow_cost(problem, rotation_only)
    if cost <= EXPLAINED_COST * sum(float(m.weight.sum()) for m in problem.batches):
        return 0.0
    return 1 - flow_cost(problem, estimate) / cost


def total_cost(problem: BundleProblem, estimate: Estimate, width: float) -> float:
    """Cost that the solver minimises: robust squared errors and priors."""
    return _Evaluation.at(problem, estimate).cost(problem, width)


def median_error(problem: BundleProblem, estimate: Estimate) -> float:
    """Median error of measurements with positive weight, in standard errors; 0 if there is none."""
    return _Evaluation.at(problem, estimate).median_error()
