"""Cameras with the noise of flow estimated from the residuals, and a network's depth as prior.

The prior is that of `dyn3r.bundle_adjustment.depth_prior`, the noise that of
`dyn3r.bundle_adjustment.noise`. The cost has several minima. So the adjustment starts from several
estimates, and the solution of largest likelihood is taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dyn3r.bundle_adjustment.camera_solution import (
    CONSTANT_DEPTH_ITERATIONS,
    MIN_PARALLAX,
    CameraSolution,
    at_constant_depth,
    at_one_place,
)
from dyn3r.bundle_adjustment.depth_prior import network_prior
from dyn3r.bundle_adjustment.noise import with_estimated_noise
from dyn3r.bundle_adjustment.options import BundleAdjustmentOptions
from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate, Measurements
from dyn3r.bundle_adjustment.progress import Adjustments
from dyn3r.bundle_adjustment.solver import (
    COARSE_DECREASE,
    KERNEL_WIDTH,
    MIN_RELATIVE_DECREASE,
    STAGE,
    Solution,
    flow_cost,
    median_error,
    minimise,
    parallax_of,
    rotation_only_fit,
)
from dyn3r.io.workers import side_by_side, threads_on, workers
from dyn3r.types import Geometry, Progress

logger = logging.getLogger(__name__)

FOCAL_SIGMA = 0.25
"""Standard error of the log focal length of the alignment. Source: its errors on 17 development
clips are between -0.3 and 0.4."""
HELD = 0.03
"""Factor on all standard errors of the prior while cameras are found for the network's depth.
Source: so small that depth and focal length hardly change."""
CONSTANT_DEPTH_SIGMA = 2.0
"""Standard error of log depth in the start from constant depth: hardly a prior."""
NOISE_ROUNDS = 2
"""Estimates of the noise, each followed by an adjustment. Source: the focal length changes by less
than 0.5 % in a third."""
INITIAL_ADJUSTMENTS = 5
"""Adjustments before those with noise: two for each of two starts, one without translation."""


def solve_calibrated(
    problem: BundleProblem,
    initial: Estimate,
    geometry: Geometry,
    options: BundleAdjustmentOptions,
    progress: Progress,
) -> CameraSolution:
    """Cameras, focal length and depth of largest likelihood.

    `geometry`: the one that the problem was made from. The starts are the cameras found for the
    network's depth, and for constant depth. Where the network's depth explains flow hardly better
    than a camera without translation, the solution is that camera, and depth keeps its prior.
    """
    before, num_starts = median_error(problem, initial), 2 + (problem.camera_prior is not None)
    count = INITIAL_ADJUSTMENTS + (NOISE_ROUNDS + 1) * num_starts
    adjustments = Adjustments(progress, STAGE, count)
    problem = _with_network_errors(problem, geometry)
    counted_once, ambiguous = prior_counted_once(problem), int(problem.fixed.sum()) < 2
    first: list[Callable[[], Any]] = [partial(_from_network_depth, problem, initial, adjustments)]
    from_constant_depth = partial(_from_constant_depth, counted_once, initial, adjustments)
    threads = threads_on(problem.uv.device)
    if ambiguous and (threads or workers()) > 1:  # for nothing where there is no parallax
        first.append(from_constant_depth)
    (resected, noisy, parallax), *others = side_by_side(*first, count=threads)
    if parallax < MIN_PARALLAX and ambiguous:
        turned = _without_translation(noisy, resected, initial, adjustments)
        adjustments.finished()
        error = median_error(problem, turned.estimate)
        solution = replace(turned, median_error_before=before, median_error=error)
        return CameraSolution(noisy, initial, solution, parallax)
    problem, starts = counted_once, {"network depth": resected}
    if ambiguous:
        starts["constant depth"] = others[0] if others else from_constant_depth()
        if problem.camera_prior is not None:
            starts["stated cameras"] = initial
    solve = partial(solve_with_noise, problem, options=options, adjustments=adjustments)
    solves = (partial(solve, start) for start in starts.values())
    solved = side_by_side(*solves, count=threads)
    adjustments.finished()
    found = dict(zip(starts, solved))
    costs = comparable_costs(list(found.values()))
    best = min(zip(costs, found))[1]
    logger.info("calibrated bundle adjustment: best from %s", best)
    noisy, solution = found[best]
    error = median_error(problem, solution.estimate)
    solution = replace(solution, median_error_before=before, median_error=error)
    return CameraSolution(noisy, starts[best], solution, parallax)


def _with_network_errors(problem: BundleProblem, geometry: Geometry) -> BundleProblem:
    """The problem with the prior of a network's depth and focal length.

    Standard errors that the geometry states replace those of the embedded network.
    """
    focal_sigma = FOCAL_SIGMA if geometry.focal_sigma is None else geometry.focal_sigma
    prior = network_prior(problem.prior, problem.uv, geometry.depth.shape[1:])
    if geometry.depth_sigma is not None:
        prior = prior.scaled(geometry.depth_sigma / prior.typical_sigma)
    known = problem.focal_sigma == 0
    return replace(problem.with_prior(prior), focal_sigma=0.0 if known else focal_sigma)


def prior_counted_once(problem: BundleProblem) -> BundleProblem:
    """The problem whose depth prior counts once for each surface, not once for each frame.

    The errors of a network are nearly the same in all frames that see a surface. Standard errors
    are scaled by the root of the mean number of frames that measure a sample.
    """
    seen, measured = (
        torch.zeros_like(problem.prior.mean),
        problem.focal.new_zeros(len(problem.fixed)),
    )
    for m in problem.batches:
        seen.index_add_(0, m.source, (m.weight > 0).to(seen))
        measured[m.source] = 1
    frames = 1 + float(seen.mean(1).sum() / measured.sum().clamp(min=1))
    return problem.with_prior(problem.prior.scaled(frames**0.5))


def comparable_costs(found: list[tuple[BundleProblem, Solution]]) -> list[float]:
    """Twice the negative log likelihood of each solution with its own noise, up to a constant.

    All count measurements alike: with the mean of the weights that the solutions give them.
    """
    rows = list(zip(*(problem.measurements for problem, _ in found)))
    mean_weight = [sum(m.weight for m in frames) / len(frames) for frames in rows]
    return [_cost(problem, solution.estimate, mean_weight) for problem, solution in found]


def _cost(problem: BundleProblem, estimate: Estimate, weights: list) -> float:
    measurements = [m.with_noise(w) for m, w in zip(problem.measurements, weights)]
    log_noise = sum(
        float((m.weight * -2 * _log_determinant(m.whiten.double())).sum()) for m in measurements
    )
    weighted = replace(problem, measurements=measurements)
    focal = float(estimate.log_focal / problem.focal_sigma) ** 2 if problem.focal_sigma > 0 else 0
    prior = problem.prior.robust_cost(estimate.log_depth)
    if problem.camera_prior is not None:
        prior += problem.camera_prior.cost(estimate.R, estimate.t)
    return flow_cost(weighted, estimate) + prior + focal + log_noise


def _log_determinant(W: Float[Tensor, "m k 2 2"]) -> Float[Tensor, "m k"]:
    """Logarithm of the absolute value of the determinant of every matrix."""
    (a, b), (c, d) = (row.unbind(-1) for row in W.unbind(-2))
    return (a * d - b * c).abs().log()


def solve_with_noise(
    problem: BundleProblem,
    start: Estimate,
    options: BundleAdjustmentOptions,
    adjustments: Adjustments,
) -> tuple[BundleProblem, Solution]:
    """Alternate: solution given the noise, noise given the solution."""
    solution = minimise(
        problem, start, options.iterations, noise_known=False, least_decrease=COARSE_DECREASE,
        progress=adjustments.one(),
    )  # fmt: skip
    for k in range(NOISE_ROUNDS):
        problem = with_estimated_noise(problem, solution.estimate)
        last = k == NOISE_ROUNDS - 1
        solution = minimise(
            problem, solution.estimate, options.iterations, first_width=KERNEL_WIDTH,
            least_decrease=MIN_RELATIVE_DECREASE if last else COARSE_DECREASE,
            progress=adjustments.one(),
        )  # fmt: skip
    return problem, solution


def _from_network_depth(
    problem: BundleProblem, initial: Estimate, adjustments: Adjustments
) -> tuple[Estimate, BundleProblem, float]:
    """Cameras for the network's depth, the problem with the noise that they show, and parallax."""
    resected = _resection(problem, initial, adjustments)
    noisy = with_estimated_noise(problem, resected)
    return resected, noisy, _parallax(noisy, resected, adjustments)


def _resection(problem: BundleProblem, initial: Estimate, adjustments: Adjustments) -> Estimate:
    """Cameras for the network's depth: from one place, over neighbouring frames, then over all."""
    prior = replace(problem.prior.scaled(HELD), heavy_tails=False)
    held = replace(problem.with_prior(prior), focal_sigma=problem.focal_sigma * HELD)
    known = int(problem.fixed.sum()) > 1
    start = initial if known else at_one_place(problem, initial)
    return _over_neighbours_first(held, start, adjustments)


def _from_constant_depth(
    problem: BundleProblem, initial: Estimate, adjustments: Adjustments
) -> Estimate:
    """Cameras and depth from constant depth and one place."""
    start, prior = at_constant_depth(problem, initial), problem.prior
    variance = torch.where(prior.known, prior.variance, CONSTANT_DEPTH_SIGMA**2)
    free = replace(prior, mean=start.log_depth, variance=variance, heavy_tails=False)
    return _over_neighbours_first(problem.with_prior(free), start, adjustments)


def _over_neighbours_first(
    problem: BundleProblem, start: Estimate, adjustments: Adjustments
) -> Estimate:
    """Solution over pairs of neighbouring frames, and from there over all pairs."""
    for part in (neighbouring_pairs(problem), problem):
        found = minimise(
            part, start, CONSTANT_DEPTH_ITERATIONS, noise_known=False,
            least_decrease=COARSE_DECREASE, progress=adjustments.one(),
        )  # fmt: skip
        start = found.estimate
    return start


def neighbouring_pairs(problem: BundleProblem) -> BundleProblem:
    """The problem with the measurements in the nearest earlier and later frame alone."""
    kept: list[Measurements] = []
    for m in problem.measurements:
        apart, n = m.target - m.source, len(problem.fixed)
        near = torch.zeros_like(apart, dtype=torch.bool)
        for side in (apart > 0, apart < 0):
            distance = torch.where(side, apart.abs(), n)
            nearest = torch.full_like(apart[:1], n).repeat(n)
            nearest.scatter_reduce_(0, m.source, distance, "amin")
            near |= side & (distance == nearest[m.source])
        rows = near.nonzero()[:, 0]
        kept.append(
            Measurements(m.source[rows], m.target[rows], m.uv[rows], m.whiten[rows], m.weight[rows])
        )
    return replace(problem, measurements=kept)


def _parallax(problem: BundleProblem, resected: Estimate, adjustments: Adjustments) -> float:
    """Share of the flow cost that the network's depth explains and rotation does not.

    Both at the focal length of the cameras found for that depth.
    """
    held = replace(problem, focal_sigma=HELD * problem.focal_sigma)
    rotation_only = rotation_only_fit(held, resected, adjustments.one()).estimate
    return parallax_of(problem, resected, rotation_only)


def _without_translation(
    problem: BundleProblem, resected: Estimate, initial: Estimate, adjustments: Adjustments
) -> Solution:
    """Rotations and focal length that explain flow best, of cameras at the first known place."""
    solution = rotation_only_fit(problem, resected, adjustments.one())
    rotation_only = solution.estimate
    reference = int(problem.fixed.nonzero()[0])
    centre = -(initial.R[reference].T @ initial.t[reference])
    t = -(rotation_only.R @ centre)
    placed = replace(rotation_only, log_depth=initial.log_depth, t=t)
    return replace(solution, estimate=placed)
