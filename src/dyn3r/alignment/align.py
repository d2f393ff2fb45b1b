"""From pairwise predictions to cameras and depth: the whole alignment in order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.alignment.adam import ITERATIONS
from dyn3r.alignment.components import Inputs
from dyn3r.alignment.dense_maps import dense_maps
from dyn3r.alignment.input_checks import check_inputs
from dyn3r.alignment.merge_components import known_values
from dyn3r.alignment.options import PIXELS, AlignmentOptions
from dyn3r.alignment.postprocess import finish
from dyn3r.alignment.sampled_objective import sample_flow
from dyn3r.alignment.spanning_tree import pair_scores, starting_K
from dyn3r.alignment.state import sample
from dyn3r.alignment.two_view import two_frames
from dyn3r.alignment.windows import Whole, solve_windows, windows
from dyn3r.errors import GeometryError
from dyn3r.types import FlowFields, Geometry, PairPredictions, Priors, Progress, no_progress

logger = logging.getLogger(__name__)


def align(
    predictions: PairPredictions,
    *,
    dynamic: Bool[np.ndarray, "n h w"] | None = None,
    flow: FlowFields | None = None,
    options: AlignmentOptions | None = None,
    progress: Progress = no_progress,
) -> Geometry:
    """Put directed pairs' pointmaps into one world (SPEC 6).

    `predictions` may be anybody's: plain arrays edges, points1, conf1, points2, conf2 of any float
    type, memory-mapped if large; they are streamed. `dynamic` marks moving pixels: they are left
    out of registration, PnP and flow. `flow` adds the flow term. Frames that nothing determines get
    a neighbour's camera, `determined` False, and a warning; nothing in the result is ever NaN.

    Clips longer than `options.window` are solved window by window; time and memory are linear in
    the frames and pairs.

    Raises InputError if shapes do not fit together, GeometryError if no pair is usable or priors
    leave nothing to solve.
    """
    options = AlignmentOptions() if options is None else options
    check_inputs(predictions, dynamic, flow, options.priors)
    began = time.perf_counter()
    history: list[tuple[float, float]] = []
    report = _reporter(began, history, options, predictions.num_frames, progress)
    whole, known_depth = _cameras(predictions, dynamic, flow, options, report)
    maps = dense_maps(
        predictions, whole.state, options.chunk_observations, progress, known_depth,
        whole.used, options.device,
    )  # fmt: skip
    logger.info("aligned %d frames in %.1f s", len(maps.depth), time.perf_counter() - began)
    return finish(predictions, whole, maps, dynamic, flow, options, history, progress)


def _reporter(
    began: float,
    history: list[tuple[float, float]],
    options: AlignmentOptions,
    num_frames: int,
    progress: Progress,
) -> Callable[[float], None]:
    if options.solver == "adam":
        expected = options.iterations or ITERATIONS
    else:  # two levels, each of which usually stops long before its limit
        expected = 2 * (options.iterations or 15)
    expected *= len(windows(num_frames, options.window, options.overlap))

    def report(objective: float) -> None:
        history.append((time.perf_counter() - began, objective))
        progress("aligning: cameras", min(len(history), expected), expected)

    return report


def _cameras(
    predictions: PairPredictions,
    dynamic: np.ndarray | None,
    flow: FlowFields | None,
    options: AlignmentOptions,
    report: Callable[[float], None],
) -> tuple[Whole, Float[Tensor, "n h w"] | None]:
    """Cameras and pairs from sampled pixels, and the full-resolution depth that is known by now."""
    height, width = predictions.size_hw
    priors, adam = options.priors, options.solver == "adam"
    pixels = height * width if adam else options.pixels or PIXELS
    observations = sample(predictions, pixels, dynamic, options.device)
    scores = pair_scores(observations)
    usable = (scores > 0).cpu().numpy()
    if not usable.any():
        raise GeometryError(
            "no pair of frames has usable points: is the video black, or the model the wrong one?"
        )
    K, K_given, focal_found = starting_K(predictions, scores, options.shared_focal, priors.K)
    notes = []
    if not usable.all():
        notes.append(f"{int((~usable).sum())} of {len(usable)} pairs had no usable points")
    if not focal_found and not K_given.any():
        notes.append(
            "no frame shows its own focal length: a field of view of 53 degrees is assumed"
        )
    if predictions.num_frames <= 2 and priors.T_world_camera is None and priors.depth is None:
        state, depth, determined = two_frames(predictions, observations, scores, K, K_given)
        return Whole(state, usable, determined, 0.0, notes), depth
    inputs = Inputs(
        observations=observations,
        scores=scores,
        K=K,
        known=known_values(priors, observations, K_given),
        flow=sample_flow(flow, observations),
        options=options,
    )
    whole = solve_windows(inputs, report)
    whole.notes[:0] = notes
    if adam:
        return whole, whole.state.depth.reshape(-1, height, width).cpu()
    return whole, _known_depth(priors)


def _known_depth(priors: Priors) -> Float[Tensor, "n h w"] | None:
    if priors.depth is None or not priors.fix_depth:
        return None
    return torch.from_numpy(np.array(priors.depth, dtype=np.float32))
