"""Bundle adjustment of an aligned geometry: cameras, focal length, then depth of every pixel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from dyn3r.bundle_adjustment.calibrated import solve_calibrated
from dyn3r.bundle_adjustment.camera_solution import (
    MIN_PARALLAX,
    CameraSolution,
    solve_cameras,
)
from dyn3r.bundle_adjustment.dense_depth import adjust_dense_depth
from dyn3r.bundle_adjustment.depth_prior import smooth_basis
from dyn3r.bundle_adjustment.focal_uncertainty import focal_sigma
from dyn3r.bundle_adjustment.noise import is_random
from dyn3r.bundle_adjustment.options import BundleAdjustmentOptions
from dyn3r.bundle_adjustment.problem import BundleProblem
from dyn3r.bundle_adjustment.problem_setup import AdjustmentInputs, build_problem, log_depth_at
from dyn3r.bundle_adjustment.unjoined import with_unjoined_frames
from dyn3r.flow.noise import MEDIAN_NORMAL_ERROR
from dyn3r.io.devices import float64_device
from dyn3r.io.text import named_frames
from dyn3r.io.workers import on_one_thread
from dyn3r.types import FlowFields, Geometry, Priors, Progress, no_progress

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

LEAST_MEASURED_SHARE = 0.05
"""Flow must be visible on this share of the samples, or nothing is changed. Source: chosen by
hand."""
TOO_LITTLE_FLOW = "too little flow is visible to adjust the cameras"
"""Warning below LEAST_MEASURED_SHARE."""
RANDOM_FLOW = "flow between the frames is random: cameras and depth of the network are kept"
"""Warning where flow is as between noise images (`dyn3r.bundle_adjustment.noise`)."""
MAX_MEDIAN_ERROR = 2**0.5 * MEDIAN_NORMAL_ERROR
"""Largest median residual of an accepted calibrated adjustment, in the standard errors of
`dyn3r.flow.noise`: above it cameras and depth disagree with flow by more than flow is wrong.
It is 0.5 to 1.5 on 37 of 38 clips (docs/experiments.md, Refused adjustments)."""


def bundle_adjust(
    geometry: Geometry,
    images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    *,
    dynamic: Bool[np.ndarray, "n h w"] | None = None,
    priors: Priors | None = None,
    options: BundleAdjustmentOptions | None = None,
    progress: Progress = no_progress,
    device: str = "cpu",
) -> Geometry:
    """Cameras, a common factor of the focal lengths, and depth that agree with measured flow.

    The given geometry is the initial value and the prior: values that flow does not determine
    (depth without parallax, the unit of length, dynamic pixels, the place of frames that no flow
    joins to the others) stay. `dynamic` pixels have no weight, and neither has a margin around them
    while cameras are estimated. Values that `priors` fix are kept exactly. The depth of every pixel
    follows with the cameras fixed; its change is smooth except across edges of the image, so moving
    objects keep their shape and follow their surroundings.

    Returns the geometry with new `T_world_camera`, `K`, `depth` and `parallax`. The terms of its
    diagnostics gain `flow_error_before` and `flow_error` (median residuals in standard errors) and
    `parallax`. If too little flow is visible, or the residuals do not decrease, the geometry is
    returned with a warning.

    Standard errors that the geometry states (`focal_sigma`, `depth_sigma`) replace the options'.

    `device`: PyTorch device of the computation; the CPU if that has no float64 (mps). On a CPU it
    works on threads of its own, on which PyTorch computes on one thread each (`dyn3r.io.workers`);
    the result does not depend on their number.

    Source: see `dyn3r.bundle_adjustment.solver`.
    """
    inputs = adjustment_inputs(geometry, images, flow, dynamic, priors, options, device)
    return carried_out(partial(_bundle_adjust, inputs), inputs.device, progress)


def _bundle_adjust(inputs: AdjustmentInputs, progress: Progress) -> Geometry:
    problem, initial = build_problem(inputs)
    if measured_share(problem) < LEAST_MEASURED_SHARE:
        return _with_warning(inputs.geometry, TOO_LITTLE_FLOW)
    found = solve_cameras(problem, initial, inputs.options, progress)
    return _accepted(inputs.geometry, inputs, found.problem, found, progress)


def calibrated_bundle_adjust(
    geometry: Geometry,
    images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    *,
    dynamic: Bool[np.ndarray, "n h w"] | None = None,
    priors: Priors | None = None,
    options: BundleAdjustmentOptions | None = None,
    progress: Progress = no_progress,
    device: str = "cpu",
) -> Geometry:
    """`bundle_adjust` with the noise of flow estimated, and a network's errors as prior of depth.

    Arguments and result are the same. A solution whose residuals are too large is not accepted
    either, unless cameras are known or the flow states its own errors: a lens, a rolling shutter or
    wrong flow bends the images, and the start is better. The smooth errors of depth that the
    cameras reveal are removed from all pixels, unless the source states its own error: they are the
    embedded network's. More exact than `bundle_adjust`, and more trusting: it takes the masks at
    their word. If large objects that move along with the camera are missing in `dynamic`, its
    cameras may follow them.

    Source: see `dyn3r.bundle_adjustment.calibrated`.
    """
    inputs = adjustment_inputs(geometry, images, flow, dynamic, priors, options, device)
    return carried_out(partial(_calibrated_bundle_adjust, inputs), inputs.device, progress)


def _calibrated_bundle_adjust(inputs: AdjustmentInputs, progress: Progress) -> Geometry:
    inputs = replace(inputs, options=replace(inputs.options, noise_inflation=1.0))
    geometry = inputs.geometry
    problem, initial = build_problem(inputs)
    if measured_share(problem) < LEAST_MEASURED_SHARE:
        return _with_warning(geometry, TOO_LITTLE_FLOW)
    known = int(problem.fixed.sum()) >= 2
    if not known and is_random(inputs.flow, problem):
        return _with_warning(geometry, RANDOM_FLOW)
    found = solve_calibrated(problem, initial, geometry, inputs.options, progress)
    judged = not known and inputs.flow.whitening is None
    if judged and found.solution.median_error > MAX_MEDIAN_ERROR:
        return _with_warning(
            geometry,
            "no cameras and depth agree with flow: those of the network are kept (a lens with "
            "distortion, a rolling shutter, or objects that move and are not masked)",
        )
    if found.parallax >= MIN_PARALLAX and geometry.depth_sigma is None:
        corrected = _without_smooth_error(geometry, found, inputs.priors)
        inputs = replace(inputs, geometry=corrected)
        mean = log_depth_at(corrected, inputs.grid).to(problem.uv.device)
        problem = problem.with_prior(problem.prior.with_mean(mean))
    # dense depth with the stated covariance of flow: where each sample has a depth of its own,
    # residuals understate it
    adjusted = _accepted(geometry, inputs, problem, found, progress)
    if not found.solution.fits_better:
        return adjusted
    return replace(adjusted, focal_sigma=focal_sigma(found.problem, found.solution.estimate))


def adjustment_inputs(
    geometry: Geometry,
    images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    dynamic: Bool[np.ndarray, "n h w"] | None,
    priors: Priors | None,
    options: BundleAdjustmentOptions | None,
    device: str = "cpu",
) -> AdjustmentInputs:
    """The arguments with defaults, and the standard errors that the geometry states."""
    options = with_stated_sigmas(options or BundleAdjustmentOptions(), geometry)
    there, known = float64_device(device), priors or Priors()
    return AdjustmentInputs(geometry, images, flow, dynamic, known, options, there)


def carried_out(work: Callable[[Progress], Result], device: str, progress: Progress) -> Result:
    """`work(progress)`; on a CPU on a thread of its own, on which PyTorch computes on one."""
    if torch.device(device).type != "cpu":
        return work(progress)
    return on_one_thread(work, progress)


def _accepted(
    geometry: Geometry,
    inputs: AdjustmentInputs,
    problem: BundleProblem,
    found: CameraSolution,
    progress: Progress,
) -> Geometry:
    """The geometry of `inputs` with the solution; `geometry` with a warning if residuals grew."""
    solution = found.solution
    logger.info(
        "bundle adjustment: error %.2f -> %.2f in %d iterations",
        solution.median_error_before, solution.median_error, solution.iterations,
    )  # fmt: skip
    if not solution.fits_better:
        return _with_warning(
            geometry, "flow and the network's geometry contradict each other: flow is not used"
        )
    depth = adjust_dense_depth(inputs, problem, solution, progress)
    return _adjusted(inputs.geometry, found, depth)


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


def measured_share(problem: BundleProblem) -> float:
    """Mean over the frames with flow of the share of their measurements with positive weight."""
    visible, pairs = problem.focal.new_zeros(2, len(problem.fixed))
    for m in problem.batches:
        visible.index_add_(0, m.source, (m.weight > 0).to(visible).mean(1))
        pairs.index_add_(0, m.source, torch.ones_like(visible[m.source]))
    return float((visible / pairs.clamp(min=1)).sum() / (pairs > 0).sum().clamp(min=1))


def _adjusted(
    geometry: Geometry, found: CameraSolution, depth: Float[np.ndarray, "n h w"]
) -> Geometry:
    """The geometry with the solution; fixed cameras are kept exactly."""
    solution, estimate = found.solution, found.solution.estimate
    known = found.problem.fixed.cpu().numpy()[:, None, None]
    T = np.where(known, geometry.T_world_camera, estimate.T_world_camera)
    T, unjoined = with_unjoined_frames(T, geometry.T_world_camera, found.problem)
    notes = []
    if len(unjoined):
        named = named_frames(unjoined.tolist())
        notes.append(f"no flow joins {named} to the others: placed beside them as the network says")
    K = geometry.K.copy()
    K[:, [0, 1], [0, 1]] *= float(estimate.log_focal.exp())
    return replace(
        geometry,
        T_world_camera=T,
        K=K,
        depth=depth.astype(np.float32),
        parallax=found.parallax,
        diagnostics=geometry.diagnostics.added(
            *notes,
            flow_error_before=solution.median_error_before,
            flow_error=solution.median_error,
            parallax=found.parallax,
        ),
    )


def _with_warning(geometry: Geometry, warning: str) -> Geometry:
    logger.info(warning)
    return replace(geometry, diagnostics=geometry.diagnostics.added(warning))


def _without_smooth_error(geometry: Geometry, found: CameraSolution, priors: Priors) -> Geometry:
    """The geometry with unknown depth corrected by the smooth errors that the solution found."""
    h, w = geometry.depth.shape[1:]
    v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    basis, _ = smooth_basis(torch.stack([u, v], -1).reshape(-1, 2).double(), (h, w))
    log_depth = found.solution.estimate.log_depth
    coefficients = found.problem.prior.reweighted(log_depth).coefficients(log_depth).cpu()
    change = (coefficients @ basis.T).reshape(-1, h, w).exp().numpy()
    change[priors.fixes_depth(change.shape)] = 1.0
    return replace(geometry, depth=(geometry.depth * change).astype(np.float32))
