"""Sequence of adjustments that estimates the cameras: priors, initial values, model selection."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch

from dyn3r.bundle_adjustment.options import BundleAdjustmentOptions
from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate
from dyn3r.bundle_adjustment.solver import (
    KERNEL_WIDTH,
    STAGE,
    Solution,
    flow_cost,
    minimise,
    rotation_only_fit,
    total_cost,
)
from dyn3r.types import Progress

logger = logging.getLogger(__name__)

MIN_PARALLAX = 0.1
"""A clip has parallax if depth explains at least this share of the flow cost that a camera without
translation leaves. Source: chosen by hand."""
CONSTANT_DEPTH_ITERATIONS = 15
"""Iterations of the alternative initialisation. Source: run time."""
MIN_RELATIVE_IMPROVEMENT = 0.02
"""The alternative initialisation must lower the cost by this share. Source: chosen by hand."""
ADJUSTMENTS = 5
"""Largest number of adjustments: depth held, rotation only, inflated priors, constant depth,
inflated priors from there."""


@dataclass(frozen=True)
class CameraSolution:
    """Cameras, and the problem that they solve."""

    problem: BundleProblem
    initial: Estimate
    """The initial estimate of the last adjustment."""
    solution: Solution
    parallax: float
    """Share of the flow cost that depth explains and a camera without translation does not."""


def solve_cameras(
    problem: BundleProblem,
    initial: Estimate,
    options: BundleAdjustmentOptions,
    progress: Progress,
) -> CameraSolution:
    """Cameras from the aligned geometry.

    First the priors hold the depth. If that explains flow hardly better than a camera without
    translation, it is the result: with weaker priors, depth would absorb the errors of flow.
    Otherwise the priors are inflated, and the better of two initial estimates is used.
    """
    held = minimise(problem, initial, options.iterations, progress=_part(progress, 0))
    rotation_only = rotation_only_fit(problem, initial, _part(progress, 1))
    rotation_cost = max(flow_cost(problem, rotation_only), 1e-12)
    remaining = flow_cost(problem, held.estimate) / rotation_cost
    finished = _part(progress, ADJUSTMENTS - 1)
    if remaining > 1 - MIN_PARALLAX:
        finished(STAGE, 1, 1)
        return CameraSolution(problem, initial, held, 1 - remaining)
    inflated = inflate_prior(problem, options.prior_inflation)
    first = minimise(inflated, held.estimate, options.iterations, progress=_part(progress, 2))
    from_alignment = CameraSolution(inflated, held.estimate, first, 1 - remaining)
    found = _alternative_initialisation(problem, initial, from_alignment, options, progress)
    finished(STAGE, 1, 1)
    solution = replace(found.solution, median_error_before=held.median_error_before)
    return replace(found, solution=solution)


def inflate_prior(problem: BundleProblem, factor: float) -> BundleProblem:
    """The problem with standard errors of unknown depth and focal length times `factor`."""
    wide = problem.with_prior(problem.prior.scaled(factor))
    return replace(wide, focal_sigma=problem.focal_sigma * factor)


def _alternative_initialisation(
    problem: BundleProblem,
    initial: Estimate,
    from_alignment: CameraSolution,
    options: BundleAdjustmentOptions,
    progress: Progress,
) -> CameraSolution:
    """The better solution of that from the alignment and that from constant depth.

    The alternative starts with all depths equal and all cameras at one place. It finds the solution
    where the alignment is in the basin of a wrong minimum (bas-relief ambiguity). Two or more known
    cameras leave no ambiguity.
    """
    if int(problem.fixed.sum()) > 1:
        return from_alignment
    start = constant_depth_fit(problem, initial, _part(progress, 3))
    inflated = from_alignment.problem
    solution = minimise(inflated, start, options.iterations, progress=_part(progress, 4))
    costs = [
        total_cost(inflated, found.estimate, KERNEL_WIDTH)
        for found in (from_alignment.solution, solution)
    ]
    if costs[1] < (1 - MIN_RELATIVE_IMPROVEMENT) * costs[0]:
        logger.info("bundle adjustment: constant depth is the better initial value")
        return replace(from_alignment, initial=start, solution=solution)
    return from_alignment


def constant_depth_fit(problem: BundleProblem, initial: Estimate, progress: Progress) -> Estimate:
    """Estimate that starts with all unknown depths equal and all cameras at one place."""
    start = at_constant_depth(problem, initial)
    constant = problem.with_prior(problem.prior.with_mean(start.log_depth))
    return minimise(constant, start, CONSTANT_DEPTH_ITERATIONS, progress=progress).estimate


def at_constant_depth(problem: BundleProblem, estimate: Estimate) -> Estimate:
    """The estimate with all unknown depths equal, and all cameras at one place."""
    prior = problem.prior
    flat = torch.full_like(prior.mean, float(prior.mean.median()))
    log_depth = torch.where(prior.known, prior.mean, flat)
    return replace(at_one_place(problem, estimate), log_depth=log_depth)


def at_one_place(problem: BundleProblem, estimate: Estimate) -> Estimate:
    """The estimate with every camera equal to the first known one."""
    reference = int(problem.fixed.nonzero()[0])
    return replace(
        estimate,
        R=estimate.R[reference].expand_as(estimate.R).clone(),
        t=estimate.t[reference].expand_as(estimate.t).clone(),
    )


def _part(progress: Progress, k: int) -> Progress:
    """Progress of the k-th of ADJUSTMENTS adjustments."""

    def report(stage: str, done: int, total: int) -> None:
        progress(stage, round(100 * (k + done / total)), 100 * ADJUSTMENTS)

    return report
