"""Sequence of adjustments that estimates the cameras: priors, initial values, model selection."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from dyn3r.bundle_adjustment.options import BundleAdjustmentOptions
from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate
from dyn3r.bundle_adjustment.progress import Adjustments
from dyn3r.bundle_adjustment.solver import (
    COARSE_DECREASE,
    KERNEL_WIDTH,
    STAGE,
    Solution,
    minimise,
    parallax_of,
    rotation_only_fit,
    total_cost,
)
from dyn3r.io.workers import side_by_side, threads_on
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
    Otherwise the priors are inflated, and the better of two initial estimates is used. Adjustments
    that do not depend on each other run side by side.
    """
    adjustments = Adjustments(progress, STAGE, ADJUSTMENTS)
    threads = threads_on(problem.uv.device)
    held, rotation_only = side_by_side(
        lambda: minimise(problem, initial, options.iterations, progress=adjustments.one()),
        lambda: rotation_only_fit(problem, initial, adjustments.one()),
        count=threads,
    )
    parallax = parallax_of(problem, held.estimate, rotation_only.estimate)
    if parallax < MIN_PARALLAX:
        adjustments.finished()
        return CameraSolution(problem, initial, held, parallax)
    inflated = inflate_prior(problem, options.prior_inflation)
    starts = [lambda: held.estimate]
    if int(problem.fixed.sum()) < 2:
        starts.append(lambda: constant_depth_fit(problem, initial, adjustments.one()))

    def solved(start: Callable[[], Estimate]) -> CameraSolution:
        estimate = start()
        solution = minimise(inflated, estimate, options.iterations, progress=adjustments.one())
        return CameraSolution(inflated, estimate, solution, parallax)

    found = _better(*side_by_side(*(partial(solved, start) for start in starts), count=threads))
    adjustments.finished()
    solution = replace(found.solution, median_error_before=held.median_error_before)
    return replace(found, solution=solution)


def inflate_prior(problem: BundleProblem, factor: float) -> BundleProblem:
    """The problem with standard errors of unknown depth and focal length times `factor`."""
    wide = problem.with_prior(problem.prior.scaled(factor))
    return replace(wide, focal_sigma=problem.focal_sigma * factor)


def _better(
    from_alignment: CameraSolution, from_constant_depth: CameraSolution | None = None
) -> CameraSolution:
    """The better solution of that from the alignment and that from constant depth.

    The alternative starts with all depths equal and all cameras at one place. It finds the solution
    where the alignment is in the basin of a wrong minimum (bas-relief ambiguity). Two or more known
    cameras leave no ambiguity, and no alternative.
    """
    if from_constant_depth is None:
        return from_alignment
    costs = [
        total_cost(found.problem, found.solution.estimate, KERNEL_WIDTH)
        for found in (from_alignment, from_constant_depth)
    ]
    if costs[1] < (1 - MIN_RELATIVE_IMPROVEMENT) * costs[0]:
        logger.info("bundle adjustment: constant depth is the better initial value")
        return from_constant_depth
    return from_alignment


def constant_depth_fit(problem: BundleProblem, initial: Estimate, progress: Progress) -> Estimate:
    """Estimate that starts with all unknown depths equal and all cameras at one place."""
    start = at_constant_depth(problem, initial)
    constant = problem.with_prior(problem.prior.with_mean(start.log_depth))
    return minimise(
        constant, start, CONSTANT_DEPTH_ITERATIONS, least_decrease=COARSE_DECREASE,
        progress=progress,
    ).estimate  # fmt: skip


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
