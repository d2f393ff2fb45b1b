"""Bundle adjustment of an aligned geometry: cameras, focal length, then depth of every pixel."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.bundle_adjustment.camera_solution import (
    MIN_PARALLAX,
    CameraSolution,
    solve_cameras,
    solve_from_warm_start,
    solve_with_reweighted_pairs,
)
from dyn3r.bundle_adjustment.dense_depth import adjust_dense_depth
from dyn3r.bundle_adjustment.options import BundleAdjustmentOptions
from dyn3r.bundle_adjustment.problem import BundleProblem
from dyn3r.bundle_adjustment.problem_setup import AdjustmentInputs, build_problem
from dyn3r.types import FlowFields, Geometry, Priors, Progress, no_progress

logger = logging.getLogger(__name__)

MIN_VISIBLE_SHARE = 0.05
"""Flow must be visible on this share of the samples, or nothing is changed. Source: chosen by
hand."""


def bundle_adjust(
    geometry: Geometry,
    images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    *,
    dynamic: Bool[np.ndarray, "n h w"] | None = None,
    priors: Priors | None = None,
    warm_start: Geometry | None = None,
    options: BundleAdjustmentOptions | None = None,
    progress: Progress = no_progress,
) -> Geometry:
    """Cameras, a common factor of the focal lengths, and depth that agree with measured flow.

    The given geometry is the initial value and the prior: values that flow does not determine
    (depth without parallax, the unit of length, dynamic pixels) stay. `dynamic` pixels have no
    weight, and neither has a margin around them while cameras are estimated. Values that `priors`
    fix are kept exactly. The depth of every pixel follows with the cameras fixed; its change is
    smooth except across edges of the image, so moving objects keep their shape and follow their
    surroundings. `warm_start` is the result for the same geometry with nearly the same `dynamic`
    pixels; the solver starts there and tries no alternatives, which takes a third of the time.

    Returns the geometry with new `T_world_camera`, `K`, `depth` and `parallax`. `terms` gains
    `flow_error_before` and `flow_error` (median residuals in standard errors) and `parallax`. If
    too little flow is visible, or the residuals do not decrease, the geometry is returned with a
    warning.

    Standard errors that the geometry states (`focal_sigma`, `depth_sigma`) replace the options'.

    Source: see `dyn3r.bundle_adjustment.solver`. It is fastest inside
    `dyn3r.bundle_adjustment.single_threaded`.
    """
    options = with_stated_sigmas(options or BundleAdjustmentOptions(), geometry)
    priors = priors or Priors()
    inputs = AdjustmentInputs(geometry, images, flow, dynamic, priors, options)
    problem, initial = build_problem(inputs)
    if _visible_share(problem) < MIN_VISIBLE_SHARE:
        return _with_warning(geometry, "too little flow is visible to adjust the cameras")
    if warm_start is not None and warm_start.parallax is not None:
        factor = warm_start.K[0, 0, 0] / geometry.K[0, 0, 0]
        found = solve_from_warm_start(problem, initial, warm_start, factor, options, progress)
    else:
        found = solve_cameras(problem, initial, options, progress)
    found = solve_with_reweighted_pairs(found, options, progress)
    solution = found.solution
    logger.info(
        "bundle adjustment: error %.2f -> %.2f in %d iterations",
        solution.median_error_before, solution.median_error, solution.iterations,
    )  # fmt: skip
    if not solution.median_error <= solution.median_error_before:
        return _with_warning(geometry, "flow and pointmaps contradict each other: flow is not used")
    depth = adjust_dense_depth(inputs, found.problem, solution, progress)
    return _adjusted(geometry, found, depth)


def with_stated_sigmas(
    options: BundleAdjustmentOptions, geometry: Geometry
) -> BundleAdjustmentOptions:
    """The options with the standard errors that the geometry states, where it states any."""
    focal, depth = geometry.focal_sigma, geometry.depth_sigma
    return replace(
        options,
        focal_sigma=options.focal_sigma if focal is None else focal,
        depth_sigma=options.depth_sigma if depth is None else depth,
    )


def is_rotation_only(geometry: Geometry) -> bool:
    """Whether bundle adjustment found no parallax; then depth is that of the network."""
    return geometry.parallax is not None and geometry.parallax < MIN_PARALLAX


def _visible_share(problem: BundleProblem) -> float:
    """Mean over the frames with flow of the share of their measurements with positive weight."""
    shares = [float((m.weight > 0).float().mean()) for m in problem.measurements if m is not None]
    return sum(shares) / len(shares) if shares else 0.0


def _adjusted(
    geometry: Geometry, found: CameraSolution, depth: Float[np.ndarray, "n h w"]
) -> Geometry:
    """The geometry with the solution; fixed cameras are kept exactly."""
    solution, estimate = found.solution, found.solution.estimate
    T = np.tile(np.eye(4), (len(estimate.R), 1, 1))
    R = estimate.R.numpy()
    T[:, :3, :3] = R.transpose(0, 2, 1)
    T[:, :3, 3] = -np.einsum("nji,nj->ni", R, estimate.t.numpy())
    T = np.where(found.problem.fixed.numpy()[:, None, None], geometry.T_world_camera, T)
    K = geometry.K.copy()
    K[:, [0, 1], [0, 1]] *= float(estimate.log_focal.exp())
    return replace(
        geometry,
        T_world_camera=T,
        K=K,
        depth=depth.astype(np.float32),
        parallax=found.parallax,
        diagnostics=geometry.diagnostics.added(
            flow_error_before=solution.median_error_before,
            flow_error=solution.median_error,
            parallax=found.parallax,
        ),
    )


def _with_warning(geometry: Geometry, warning: str) -> Geometry:
    logger.info(warning)
    return replace(geometry, diagnostics=geometry.diagnostics.added(warning))
