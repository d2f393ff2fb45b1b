"""Sequence of adjustments that estimates the cameras: priors, initial values, model selection."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch

from dyn3r.bundle_adjustment.options import BundleAdjustmentOptions
from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate
from dyn3r.bundle_adjustment.problem_setup import KNOWN_DEPTH_SIGMA, estimate_of
from dyn3r.bundle_adjustment.solver import (
    KERNEL_WIDTH,
    STAGE,
    Solution,
    flow_cost,
    median_error,
    minimise,
    reweight_pairs,
    rotation_only_fit,
    total_cost,
)
from dyn3r.types import Geometry, Progress

logger = logging.getLogger(__name__)

MIN_PARALLAX = 0.1
"""A clip has parallax if depth explains at least this share of the flow cost that a camera without
translation leaves. Source: chosen by hand."""
CONSTANT_DEPTH_ITERATIONS = 15
"""Iterations of the alternative initialisation. Source: run time."""
MIN_RELATIVE_IMPROVEMENT = 0.02
"""The alternative initialisation must lower the cost by this share. Source: chosen by hand."""
ADJUSTMENTS = 6
"""Largest number of adjustments: depth held, rotation only, inflated priors, constant depth,
inflated priors from there, re-weighted pairs."""


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
    if remaining > 1 - MIN_PARALLAX:
        return CameraSolution(problem, initial, held, 1 - remaining)
    inflated = inflate_prior(problem, options.prior_inflation)
    first = minimise(inflated, held.estimate, options.iterations, progress=_part(progress, 2))
    from_alignment = CameraSolution(inflated, held.estimate, first, 1 - remaining)
    found = _alternative_initialisation(problem, initial, from_alignment, options, progress)
    solution = replace(found.solution, median_error_before=held.median_error_before)
    return replace(found, solution=solution)


def solve_from_warm_start(
    problem: BundleProblem,
    initial: Estimate,
    warm_start: Geometry,
    focal_factor: float,
    options: BundleAdjustmentOptions,
    progress: Progress,
) -> CameraSolution:
    """Cameras from the solution of nearly the same problem; no alternatives are tried.

    `focal_factor` is the focal length of the warm start over that of the problem.
    """
    assert warm_start.parallax is not None
    before, parallax = median_error(problem, initial), warm_start.parallax
    log_focal = torch.tensor(focal_factor, dtype=torch.float64).log()
    start = replace(estimate_of(warm_start, problem.uv.long().numpy()), log_focal=log_focal)
    if parallax >= MIN_PARALLAX:
        problem = inflate_prior(problem, options.prior_inflation)
    solution = minimise(problem, start, options.iterations, progress=_part(progress, 2))
    solution = replace(solution, median_error_before=before)
    return CameraSolution(problem, start, solution, parallax)


def solve_with_reweighted_pairs(
    found: CameraSolution, options: BundleAdjustmentOptions, progress: Progress
) -> CameraSolution:
    """Cameras with less weight for pairs that fit badly as a whole."""
    report = _part(progress, ADJUSTMENTS - 1)
    reweighted = reweight_pairs(found.problem, found.solution.estimate)
    if reweighted is not None:
        before = found.solution.median_error_before
        solution = minimise(reweighted, found.initial, options.iterations, progress=report)
        solution = replace(solution, median_error_before=before)
        found = replace(found, problem=reweighted, solution=solution)
    report(STAGE, 1, 1)
    return found


def inflate_prior(problem: BundleProblem, factor: float) -> BundleProblem:
    """The problem with standard errors of unknown depth and focal length times `factor`."""
    wide = problem.depth_sigma * factor
    return replace(
        problem,
        depth_sigma=torch.where(problem.depth_sigma > KNOWN_DEPTH_SIGMA, wide, problem.depth_sigma),
        focal_sigma=problem.focal_sigma * factor,
    )


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
    median = torch.full_like(problem.log_depth, float(problem.log_depth.median()))
    reference = int(problem.fixed.nonzero()[0])
    constant = replace(
        initial,
        R=initial.R[reference].expand_as(initial.R).clone(),
        t=initial.t[reference].expand_as(initial.t).clone(),
        log_depth=torch.where(problem.depth_sigma > KNOWN_DEPTH_SIGMA, median, problem.log_depth),
    )
    constant_problem = replace(problem, log_depth=constant.log_depth)
    start = minimise(
        constant_problem, constant, CONSTANT_DEPTH_ITERATIONS, progress=_part(progress, 3)
    ).estimate
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


def _part(progress: Progress, k: int) -> Progress:
    """Progress of the k-th of ADJUSTMENTS adjustments."""

    def report(stage: str, done: int, total: int) -> None:
        progress(stage, round(100 * (k + done / total)), 100 * ADJUSTMENTS)

    return report
