"""From an alignment to a better one: measured flow decides cameras, focal length and depth."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from dyn3r.bundle_adjustment.dense_depth import between, depth_of_samples, spread
from dyn3r.bundle_adjustment.measurements import (
    grid_of_samples,
    measurements_of,
    texture_stiffness,
    with_margin,
)
from dyn3r.bundle_adjustment.options import BundleOptions
from dyn3r.bundle_adjustment.problem import Estimate, Problem
from dyn3r.bundle_adjustment.schur import linearise
from dyn3r.bundle_adjustment.solver import (
    STAGE,
    WIDTH,
    Solution,
    adjust,
    doubted,
    flow_cost,
    total_cost,
    turning_only,
    typical_error,
)
from dyn3r.types import FlowFields, Geometry, Priors, Progress, no_progress

logger = logging.getLogger(__name__)

KNOWN_SIGMA = 1e-3
"""Standard error of the logarithm of a depth that is known."""
LARGEST_CHANGE = 3.0
"""Depth changes at most by a factor of exp(3) = 20."""
PARALLAX = 0.1
"""There is parallax if it lowers the cost of flow that turning alone leaves by this share."""
FLAT_STEPS = 15
"""Steps towards a flat world."""
PHASES = 6
"""Adjustments at most: depth held, turning only, loosened, flat, loosened from there, doubted."""
CLEARLY = 0.02
"""Another start must lower the cost by this share."""
ENOUGH = 0.05
"""Flow must be visible on this share of the samples, or nothing is changed."""


@contextmanager
def _one_thread() -> Iterator[None]:
    """Operations here are many and small: on several threads they take twice as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def bundle_adjust(
    alignment: Geometry,
    images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    *,
    moving: Bool[np.ndarray, "n h w"] | None = None,
    priors: Priors | None = None,
    near: Geometry | None = None,
    options: BundleOptions | None = None,
    progress: Progress = no_progress,
) -> Geometry:
    """Cameras, a common factor of the focal lengths, and depth that agree with measured flow.

    The alignment of pointmaps is the start and, weighted by how wrong a network's depth and focal
    length may be, the prior: what flow does not determine (depth without parallax, the unit of
    length, what moves) stays as it was. `moving` takes no part, and what is next to it only in the
    depth of pixels. `priors` that the alignment held are held here. Then the depth of every pixel
    is found with these cameras; the change of depth is smooth except at the edges of the picture,
    so things that move keep their shape and go with what is around them. `near`: what this function
    made of the same alignment with nearly the same `moving`: the search starts there, and nothing
    else is tried, in a third of the time.

    Returns the alignment with other `T_world_camera`, `K` and `depth`; confidence and uncertainty
    are still those of the pairs, `terms` gains flow_error_before and flow_error (median error in
    standard errors of the flow), and parallax (share of flow's cost that depth explains and a
    camera that only turns does not; see `only_turns`). Where too little flow is visible, or the
    errors do not become smaller, the alignment comes back with a warning. Source: see
    `dyn3r.bundle_adjustment.solver`.
    """
    options, priors = options or BundleOptions(), priors or Priors()
    uv = grid_of_samples(alignment.depth.shape[1:], options.samples)
    around = None if moving is None else with_margin(moving, options.margin)
    problem, start = _problem(alignment, images, flow, uv, around, priors, options)
    counts = [float((s.weight > 0).float().mean()) for s in problem.seen if s is not None]
    if not counts or sum(counts) / len(counts) < ENOUGH:
        return _noted(alignment, "too little flow is visible to improve the cameras by it")
    if near is not None and "parallax" in near.terms:
        found = _from_near(problem, start, alignment, near, options, progress)
    else:
        found = _found(problem, start, options, progress)
    problem, start, solution, parallax = found
    last = _phase(progress, PHASES - 1)
    careful = doubted(problem, solution.estimate)
    if careful is not None:
        before, problem = solution.typical_before, careful
        solution = adjust(problem, start, options.iterations, progress=last)
        solution = replace(solution, typical_before=before)
    last(STAGE, 1, 1)
    logger.info(
        "bundle adjustment: error %.2f -> %.2f in %d steps",
        solution.typical_before, solution.typical, solution.iterations,
    )  # fmt: skip
    if not solution.typical <= solution.typical_before:
        return _noted(alignment, "flow and pointmaps contradict each other: flow was left out")
    depth = _dense(alignment, images, flow, moving, problem, solution, priors, options, progress)
    return _adjusted(alignment, problem.fixed, solution, depth, parallax)


def only_turns(alignment: Geometry) -> bool:
    """Whether flow was compared and shows no parallax to speak of: depth is the network's."""
    return alignment.terms.get("parallax", 1.0) < PARALLAX


def _found(
    problem: Problem, start: Estimate, options: BundleOptions, progress: Progress
) -> tuple[Problem, Estimate, Solution, float]:
    """The problem with priors as strong as they should be, a good start, the solution, and
    parallax.

    At first the depth before is held. Unless that explains flow hardly better than a camera that
    only turns, it is loosened: without parallax, flow's errors would be taken for depth. Parallax:
    the share of flow's cost by which depth explains it better than turning alone.
    """
    held = adjust(problem, start, options.iterations, progress=_phase(progress, 0))
    turning = turning_only(problem, start, _phase(progress, 1))
    left = flow_cost(problem, held.estimate) / max(flow_cost(problem, turning), 1e-12)
    if left > 1 - PARALLAX:
        return problem, start, held, 1 - left
    loose = _loosened(problem, options)
    first = adjust(loose, held.estimate, options.iterations, progress=_phase(progress, 2))
    start, solution = _second_opinion(
        problem, loose, start, held.estimate, first, options, progress
    )
    return loose, start, replace(solution, typical_before=held.typical_before), 1 - left


def _loosened(problem: Problem, options: BundleOptions) -> Problem:
    """With weaker priors on what is not known."""
    wide = problem.depth_sigma * options.loosening
    return replace(
        problem,
        depth_sigma=torch.where(problem.depth_sigma > KNOWN_SIGMA, wide, problem.depth_sigma),
        focal_sigma=problem.focal_sigma * options.loosening,
    )


def _from_near(
    problem: Problem,
    start: Estimate,
    alignment: Geometry,
    near: Geometry,
    options: BundleOptions,
    progress: Progress,
) -> tuple[Problem, Estimate, Solution, float]:
    """As `_found`, from a solution of nearly the same problem."""
    before, parallax = typical_error(problem, start), near.terms["parallax"]
    longer = torch.tensor(near.K[0, 0, 0] / alignment.K[0, 0, 0], dtype=torch.float64)
    start = replace(_estimate(near, problem.uv.long().numpy()), log_focal=longer.log())
    if parallax >= PARALLAX:
        problem = _loosened(problem, options)
    solution = adjust(problem, start, options.iterations, progress=_phase(progress, 2))
    return problem, start, replace(solution, typical_before=before), parallax


def _phase(progress: Progress, k: int) -> Progress:
    """Progress within the k-th of `PHASES` adjustments."""

    def report(stage: str, done: int, total: int) -> None:
        progress(stage, round(100 * (k + done / total)), 100 * PHASES)

    return report


def _second_opinion(
    problem: Problem,
    loose: Problem,
    start: Estimate,
    held: Estimate,
    first: Solution,
    options: BundleOptions,
    progress: Progress,
) -> tuple[Estimate, Solution]:
    """The start, and the solution from there, that agree best with flow and priors: the alignment's
    (`held`, `first`) or that of a flat world (all depths alike, cameras at one place).

    Where the alignment is wrong in a way that flow can't undo step by step, the flat world is the
    better start. Known cameras leave no choice.
    """
    if int(problem.fixed.sum()) > 1:
        return held, first
    flat = torch.full_like(problem.log_depth, float(problem.log_depth.median()))
    here = int(problem.fixed.nonzero()[0])
    still = replace(
        start,
        R=start.R[here].expand_as(start.R).clone(),
        t=start.t[here].expand_as(start.t).clone(),
        log_depth=torch.where(problem.depth_sigma > KNOWN_SIGMA, flat, problem.log_depth),
    )
    flatter = replace(problem, log_depth=still.log_depth)
    other = adjust(flatter, still, FLAT_STEPS, progress=_phase(progress, 3)).estimate
    second = adjust(loose, other, options.iterations, progress=_phase(progress, 4))
    costs = [total_cost(loose, found.estimate, WIDTH) for found in (first, second)]
    if costs[1] < (1 - CLEARLY) * costs[0]:
        logger.info("bundle adjustment: a flat world is the better start")
        return other, second
    return held, first


def _problem(
    alignment: Geometry,
    images: np.ndarray,
    flow: FlowFields,
    uv: Int[np.ndarray, "k 2"],
    moving: np.ndarray | None,
    priors: Priors,
    options: BundleOptions,
) -> tuple[Problem, Estimate]:
    K = torch.from_numpy(alignment.K.astype(np.float64))
    known_T = np.zeros(len(K), bool)
    if priors.T_world_camera is not None and priors.fix_T:
        known_T = np.isfinite(priors.T_world_camera).all((1, 2))
    if not known_T.any():
        known_T[0] = True  # the world is the first camera's
    known_K = priors.K is not None and priors.fix_K and bool(np.isfinite(priors.K).any())
    start = _estimate(alignment, uv)
    problem = Problem(
        uv=torch.from_numpy(uv.astype(np.float64)),
        seen=[measurements_of(flow, m, i, uv, moving, options) for i, m in enumerate(images)],
        centre=K[:, :2, 2].clone(),
        focal=K[:, [0, 1], [0, 1]].clone(),
        log_depth=start.log_depth.clone(),
        depth_sigma=_depth_sigma(priors, uv, start.log_depth, options.depth_sigma),
        focal_sigma=0.0 if known_K else options.focal_sigma / options.focal_count**0.5,
        fixed=torch.from_numpy(known_T),
    )
    return problem, start


def _estimate(found: Geometry, uv: Int[np.ndarray, "k 2"]) -> Estimate:
    """Cameras and depth of an alignment, with its own focal lengths."""
    T = torch.linalg.inv(torch.from_numpy(found.T_world_camera.astype(np.float64)))
    return Estimate(T[:, :3, :3], T[:, :3, 3], _log_depth(found, uv), T.new_zeros(()))


def _depth_sigma(
    priors: Priors, uv: np.ndarray, log_depth: Tensor, unknown: float
) -> Float[Tensor, "n k"]:
    sigma = torch.full_like(log_depth, unknown)
    if priors.depth is not None:
        known = priors.fixes_depth(priors.depth.shape)[:, uv[:, 1], uv[:, 0]]
        sigma[torch.from_numpy(known)] = KNOWN_SIGMA
    return sigma


def _log_depth(alignment: Geometry, uv: np.ndarray) -> Float[Tensor, "n k"]:
    depth = np.maximum(alignment.depth[:, uv[:, 1], uv[:, 0]], 1e-6)
    return torch.from_numpy(np.log(depth.astype(np.float64)))


def _dense(
    alignment: Geometry,
    images: np.ndarray,
    flow: FlowFields,
    moving: np.ndarray | None,
    problem: Problem,
    solution: Solution,
    priors: Priors,
    options: BundleOptions,
    progress: Progress,
) -> Float[np.ndarray, "n h w"]:
    """Depth by a finer grid of samples, then between them; frame by frame, the cameras held."""
    n, h, w = alignment.depth.shape
    fine = grid_of_samples((h, w), options.depth_samples)
    at = torch.from_numpy(fine[:, 1]), torch.from_numpy(fine[:, 0])
    before = _log_depth(alignment, fine)
    finer = replace(
        problem,
        uv=torch.from_numpy(fine.astype(np.float64)),
        seen=[None] * n,
        log_depth=before,
        depth_sigma=_depth_sigma(priors, fine, before, options.depth_sigma),
    )
    known = linearise(problem, solution.estimate, solution.width).information
    prior, depth = options.depth_sigma**-2, alignment.depth.astype(np.float32)
    for i, image in enumerate(images):
        progress("depth from flow", i, n)
        finer.seen[i] = measurements_of(flow, image, i, fine, moving, options)
        coarse = _interpolated(problem, solution.estimate, known, i, (h, w))
        start = replace(solution.estimate, log_depth=(before[i] + coarse[at]).expand_as(before))
        log_depth, information = depth_of_samples(finer, start, i, solution.width)
        finer.seen[i] = None  # memory
        values, known_here = between(log_depth - before[i], information, fine, image, options.edge)
        values = values * known_here / (known_here + prior)
        stiffness = texture_stiffness(image, options)
        change = spread(values, known_here + prior, stiffness, coarse.float())
        depth[i] *= np.exp(change.numpy().clip(-LARGEST_CHANGE, LARGEST_CHANGE))
    progress("depth from flow", n, n)
    return np.where(priors.fixes_depth(depth.shape), alignment.depth, depth)


def _interpolated(
    problem: Problem, found: Estimate, known: Tensor, i: int, size_hw: tuple[int, int]
) -> Float[Tensor, "h w"]:
    """The change of log depth at the samples, between them by how much is `known` of each."""
    shape = (1, 1, -1, len(problem.uv[:, 0].unique()))
    change = (found.log_depth[i] - problem.log_depth[i]).reshape(shape)
    weight = known[i].clamp(max=1e3).reshape(shape) + 1
    up = [interpolate(x, size_hw, mode="bilinear") for x in (weight * change, weight)]
    return (up[0] / up[1])[0, 0]


def _adjusted(
    alignment: Geometry,
    fixed: Bool[Tensor, " n"],
    solution: Solution,
    depth: Float[np.ndarray, "n h w"],
    parallax: float,
) -> Geometry:
    found = solution.estimate
    T = np.tile(np.eye(4), (len(found.R), 1, 1))
    R = found.R.numpy()
    T[:, :3, :3] = R.transpose(0, 2, 1)
    T[:, :3, 3] = -np.einsum("nji,nj->ni", R, found.t.numpy())
    T = np.where(fixed.numpy()[:, None, None], alignment.T_world_camera, T)  # to the last digit
    K = alignment.K.copy()
    K[:, [0, 1], [0, 1]] *= float(found.log_focal.exp())
    errors = {"flow_error_before": solution.typical_before, "flow_error": solution.typical}
    errors["parallax"] = parallax
    return replace(
        alignment,
        T_world_camera=T,
        K=K,
        depth=depth.astype(np.float32),
        terms={**alignment.terms, **errors},
    )


def _noted(alignment: Geometry, note: str) -> Geometry:
    logger.info(note)
    return replace(alignment, warnings=(*alignment.warnings, note))
