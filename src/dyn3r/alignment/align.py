"""Global alignment in order: sampling, cameras, dense depth, postprocessing."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.alignment.components import ComponentInputs, Report, Solver
from dyn3r.alignment.dense_maps import dense_maps
from dyn3r.alignment.gauss_newton import solve_gauss_newton
from dyn3r.alignment.input_checks import check_inputs
from dyn3r.alignment.merge_components import known_values
from dyn3r.alignment.options import DEFAULT_PIXELS, AlignmentOptions
from dyn3r.alignment.postprocess import postprocess
from dyn3r.alignment.sampled_objective import sample_flow
from dyn3r.alignment.spanning_tree import initial_intrinsics, pair_scores
from dyn3r.alignment.state import Observations, sample
from dyn3r.alignment.two_view import solve_two_view
from dyn3r.alignment.windows import AlignedCameras, solve_windows, window_spans
from dyn3r.errors import GeometryError
from dyn3r.io.workers import on_one_thread
from dyn3r.types import FlowFields, Geometry, PairPredictions, Priors, Progress, no_progress

logger = logging.getLogger(__name__)

EXPECTED_ITERATIONS = 30
"""Iterations that a window usually takes, over all levels; for progress reports only."""


def align(
    predictions: PairPredictions,
    *,
    dynamic: Bool[np.ndarray, "n h w"] | None = None,
    flow: FlowFields | None = None,
    priors: Priors | None = None,
    options: AlignmentOptions | None = None,
    progress: Progress = no_progress,
) -> Geometry:
    """Cameras and depth of all frames in one world from the pointmaps of directed pairs (SPEC 6).

    `predictions` are plain arrays of any float type, memory-mapped if large; they are streamed.
    `dynamic` pixels are left out of registration, PnP and flow. `flow` adds the flow term, for
    pairs of frames that `predictions` have and for neighbours. Values that `priors` fix are kept
    exactly; the others are initial values.

    Clips longer than `options.window` are solved window by window; time and memory are linear in
    the number of frames and pairs. A frame that no pair determines gets the camera of a neighbour,
    `determined` False, and a warning. The result is never NaN. Its confidence is that of the
    network: floating points are not removed. On a CPU it works on threads of its own, on which
    PyTorch computes on one thread each; the result does not depend on their number.

    Raises InputError if shapes do not fit together, GeometryError if no pair is usable.
    """
    options, priors = (options or AlignmentOptions()).on("cpu"), priors or Priors()
    check_inputs(predictions, dynamic, flow, priors)
    work = partial(_align, predictions, dynamic, flow, priors, options)
    if torch.device(options.device).type != "cpu":
        return work(progress)
    return on_one_thread(work, progress)


def _align(
    predictions: PairPredictions,
    dynamic: Bool[np.ndarray, "n h w"] | None,
    flow: FlowFields | None,
    priors: Priors,
    options: AlignmentOptions,
    progress: Progress,
) -> Geometry:
    start = time.perf_counter()
    history: list[tuple[float, float]] = []
    report = _reporter(start, history, options, predictions.num_frames, progress)
    pixels = options.pixels or DEFAULT_PIXELS
    observations = sample(predictions, pixels, dynamic, options.device)
    cameras = estimate_cameras(predictions, observations, flow, priors, options, report)
    maps = dense_maps(
        predictions, cameras.state, options.chunk_observations, progress,
        cameras.depth, cameras.used_pairs, options.device,
    )  # fmt: skip
    logger.info("aligned %d frames in %.1f s", len(maps.depth), time.perf_counter() - start)
    return postprocess(predictions, cameras, maps, dynamic, flow, options, history)


def _reporter(
    start: float,
    history: list[tuple[float, float]],
    options: AlignmentOptions,
    num_frames: int,
    progress: Progress,
) -> Report:
    """Function that records the objective and reports progress."""
    iterations = 2 * options.iterations or EXPECTED_ITERATIONS
    expected = iterations * len(window_spans(num_frames, options.window, options.overlap))

    def report(objective: float) -> None:
        history.append((time.perf_counter() - start, objective))
        progress("aligning: cameras", min(len(history), expected), expected)

    return report


def estimate_cameras(
    predictions: PairPredictions,
    observations: Observations,
    flow: FlowFields | None,
    priors: Priors,
    options: AlignmentOptions,
    report: Report,
    solver: Solver = solve_gauss_newton,
) -> AlignedCameras:
    """Cameras, pair similarities and depth at the sampled pixels.

    `solver` minimises the objective of one connected component from an initial state. Raises
    GeometryError if no pair has usable points.
    """
    scores = pair_scores(observations)
    usable = (scores > 0).cpu().numpy()
    if not usable.any():
        raise GeometryError(
            "no pair of frames has usable points: is the video black, or the model the wrong one?"
        )
    K, K_given, focal_found = initial_intrinsics(
        predictions, scores, priors.K, shared=options.shared_focal
    )
    notes = []
    if not usable.all():
        notes.append(f"{int((~usable).sum())} of {len(usable)} pairs had no usable points")
    if not focal_found and not K_given.any():
        notes.append(
            "no frame determines its own focal length: a field of view of 53 degrees is assumed"
        )
    if predictions.num_frames <= 2 and priors.T_world_camera is None and priors.depth is None:
        state, depth, determined = solve_two_view(predictions, observations, scores, K, K_given)
        return AlignedCameras(state, usable, determined, 0.0, tuple(notes), depth)
    inputs = ComponentInputs(
        observations=observations,
        scores=scores,
        K=K,
        known=known_values(priors, observations, K_given),
        flow=sample_flow(flow, observations),
        options=options,
    )
    cameras = solve_windows(inputs, report, solver)
    return replace(cameras, notes=(*notes, *cameras.notes), depth=_fixed_depth(priors))


def _fixed_depth(priors: Priors) -> Float[Tensor, "n h w"] | None:
    if priors.depth is None or not priors.fix_depth:
        return None
    return torch.from_numpy(np.array(priors.depth, dtype=np.float32))
