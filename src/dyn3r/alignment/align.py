"""From pairwise predictions to cameras and depth: the whole alignment in order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.alignment.adam import ITERATIONS, solve_adam
from dyn3r.alignment.clean import clean_confidence
from dyn3r.alignment.dense import DenseMaps, dense_maps, fill_depth
from dyn3r.alignment.direct import two_frames
from dyn3r.alignment.evaluate import (
    Fixed,
    Problem,
    fit_depth,
    look,
    sample_flow,
    solver_weights,
)
from dyn3r.alignment.fast import solve_fast
from dyn3r.alignment.initialise import pair_scores, start, starting_K
from dyn3r.alignment.objective import FLOW_LIMIT, camera_movement, depth_change, flow_loss
from dyn3r.alignment.options import AlignmentOptions, Presets
from dyn3r.alignment.place import from_first_camera, place_components, to_presets
from dyn3r.alignment.result import Alignment
from dyn3r.alignment.state import PAIR_SCALE, Observations, State, sample
from dyn3r.errors import GeometryError, InputError
from dyn3r.geometry import MeasuredFlow, induced_flow
from dyn3r.types import PairPredictions, Progress, no_progress

logger = logging.getLogger(__name__)

AGREES = 0.1
"""Pixels whose pairs agree within this share of the depth count for a frame's quality."""
DOUBTFUL = 0.2
"""Frames with a quality below this get a warning."""


def align(
    predictions: PairPredictions,
    *,
    dynamic: Bool[np.ndarray, "n h w"] | None = None,
    flow: MeasuredFlow | None = None,
    options: AlignmentOptions | None = None,
    progress: Progress = no_progress,
) -> Alignment:
    """Put directed pairs' pointmaps into one world (SPEC 6).

    `predictions` may be anybody's: plain arrays edges, points1, conf1, points2, conf2 of any float
    type, memory-mapped if large; they are streamed. `dynamic` marks moving pixels: they are left
    out of registration, PnP and flow. `flow` adds the flow term. Frames that nothing determines get
    a neighbour's camera, `determined` False, and a warning; nothing in the result is ever NaN.

    Raises InputError if shapes do not fit together, GeometryError if no pair is usable or presets
    leave nothing to solve.
    """
    options = AlignmentOptions() if options is None else options
    _check(predictions, dynamic, flow, options.presets)
    began = time.perf_counter()
    history: list[tuple[float, float]] = []
    report = _reporter(began, history, options, progress)
    everything, notes = predictions, list[str]()
    predictions, used, observations, scores = _sample_usable(predictions, dynamic, options)
    if not used.all():
        notes.append(f"{int((~used).sum())} of {len(used)} pairs had no usable points")
    K, K_given, focal_found = starting_K(
        predictions, scores, options.shared_focal, options.presets.K
    )
    if not focal_found and not K_given.any():
        notes.append(
            "no frame shows its own focal length: a field of view of 53 degrees is assumed"
        )
    presets = options.presets
    if predictions.num_frames <= 2 and presets.T_world_camera is None and presets.depth is None:
        known: Tensor | None
        state, known, determined = two_frames(predictions, observations, scores, K, K_given)
        prior = 0.0
    else:
        state, known, determined, prior, more = _many_frames(
            predictions, observations, scores, K, K_given, dynamic, flow, options, report
        )
        notes += more
    maps = dense_maps(
        predictions, state, options.chunk_observations, progress, known, options.device
    )
    logger.info("aligned %d frames in %.1f s", len(determined), time.perf_counter() - began)
    return _finish(
        everything, used, state, maps, determined, dynamic, flow, prior, options, history, notes
    )


def _reporter(
    began: float, history: list[tuple[float, float]], options: AlignmentOptions, progress: Progress
) -> Callable[[float], None]:
    expected = options.iterations or (ITERATIONS if options.solver == "adam" else 30)

    def report(objective: float) -> None:
        history.append((time.perf_counter() - began, objective))
        progress("aligning: cameras", min(len(history), expected), expected)

    return report


def _sample_usable(
    predictions: PairPredictions, dynamic: np.ndarray | None, options: AlignmentOptions
) -> tuple[PairPredictions, Bool[np.ndarray, " m"], Observations, Tensor]:
    """The usable pairs, which those are, their observations for the solver, and their scores."""
    height, width = predictions.size_hw
    pixels = height * width if options.solver == "adam" else options.pixels
    observations = sample(predictions, pixels, dynamic, options.device)
    scores = pair_scores(observations)
    used = (scores > 0).cpu().numpy()
    if not used.any():
        raise GeometryError(
            "no pair of frames has usable points: is the video black, or the model the wrong one?"
        )
    if not used.all():
        predictions = _keep(predictions, used)
        observations = sample(predictions, pixels, dynamic, options.device)
        scores = pair_scores(observations)
    return predictions, used, observations, scores


def _many_frames(
    predictions: PairPredictions,
    observations: Observations,
    scores: Tensor,
    K: Tensor,
    K_given: np.ndarray,
    dynamic: np.ndarray | None,
    flow: MeasuredFlow | None,
    options: AlignmentOptions,
    report: Callable[[float], None],
) -> tuple[State, Tensor | None, np.ndarray, float, list[str]]:
    """State, known full-resolution depth, which frames are determined, depth prior, warnings."""
    begin = start(observations, predictions, K, scores)
    state = begin.state.normalised()
    none = torch.zeros_like(state.depth, dtype=torch.bool)
    nothing = torch.zeros(len(K), dtype=torch.bool, device=none.device)
    problem = Problem(
        observations=observations,
        weights=solver_weights(observations, options.dynamic_weight),
        options=replace(options, depth_prior_weight=0.0),
        fixed=Fixed(nothing, nothing, none, False),
        first_depth=state.depth,
        flow=sample_flow(flow, observations),
    )
    state = fit_depth(state, problem, reweightings=5, fresh=True)
    state, fixed = to_presets(state, observations, options.presets, K_given)
    problem = replace(problem, options=options, fixed=fixed, first_depth=state.depth)
    solver = solve_adam if options.solver == "adam" else solve_fast
    state = solver(state, problem, report)
    prior = float(depth_change(state.depth, problem.first_depth, observations.moving))
    state, notes = place_components(state, observations, begin.component)
    determined = np.array([part == 0 for part in begin.component])
    known = _known_depth(options.presets)
    if options.solver == "adam":
        known = state.depth.reshape(-1, *predictions.size_hw).cpu()
    if options.presets.T_world_camera is None:
        state = from_first_camera(state, int(determined.argmax()))
    for frame in begin.unsolved:
        determined[frame] &= frame_residual(state, problem, frame) < AGREES
    return state, known, determined, prior, notes


def frame_residual(state: State, problem: Problem, frame: int) -> float:
    """Mean distance between a frame's points and where the pairs put them, over its depth."""
    rows = problem.observations.views_of(frame)
    weights = problem.weights[rows]
    if not bool((weights > 0).any()):
        return float("inf")
    length = look(state, problem).length[rows]
    return float((weights * length / state.depth[frame]).sum() / weights.sum())


def _keep(predictions: PairPredictions, used: Bool[np.ndarray, " m"]) -> PairPredictions:
    """Without the unusable pairs. (Copies: this happens to broken predictions only.)"""

    def some(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[used]

    return PairPredictions(
        np.asarray(predictions.edges)[used],
        predictions.num_frames,
        some(predictions.points1),
        some(predictions.conf1),
        some(predictions.points2),
        some(predictions.conf2),
    )


def _known_depth(presets: Presets) -> Float[Tensor, "n h w"] | None:
    if presets.depth is None or not presets.fix_depth:
        return None
    return torch.from_numpy(np.array(presets.depth, dtype=np.float32))


def _finish(
    predictions: PairPredictions,
    used: np.ndarray,
    state: State,
    maps: DenseMaps,
    determined: np.ndarray,
    dynamic: np.ndarray | None,
    flow: MeasuredFlow | None,
    prior: float,
    options: AlignmentOptions,
    history: list[tuple[float, float]],
    notes: list[str],
) -> Alignment:
    seen = maps.confidence > 1
    seen &= maps.depth > 0
    depth = fill_depth(maps.depth, seen)
    confidence = torch.where(seen, maps.confidence, 0)
    mass = confidence.sum((1, 2))
    agreeing = (confidence * (maps.uncertainty < AGREES)).sum((1, 2))
    quality = torch.where(mass > 0, agreeing / mass.clamp_min(1e-12), 0).numpy()
    quality = np.where(determined, quality, 0)
    notes += quality_notes(determined, quality)
    if options.clean:
        confidence = clean_confidence(
            depth, confidence, state.K.float().cpu(), state.T_world_camera.float().cpu()
        )
    terms = _terms(state, maps, depth, dynamic, flow, prior, options)
    similarity = np.zeros((len(used), 4, 4))
    similarity[used] = state.pair_similarity().cpu().numpy()
    for row in np.nonzero(~used)[0]:  # nothing is known of them: at their camera, usual scale
        similarity[row] = state.T_world_camera[int(predictions.edges[row, 0])].cpu().numpy()
        similarity[row, :3, :3] *= PAIR_SCALE
    for note in notes:
        logger.info(note)
    return Alignment(
        T_world_camera=state.T_world_camera.cpu().numpy(),
        K=state.K.cpu().numpy(),
        depth=depth.numpy(),
        confidence=confidence.numpy(),
        uncertainty=maps.uncertainty.numpy(),
        pair_similarity=similarity,
        frame_quality=quality,
        determined=determined,
        terms=terms,
        history=np.array(history, dtype=np.float64).reshape(-1, 2),
        warnings=tuple(notes),
    )


def quality_notes(determined: Bool[np.ndarray, " n"], quality: np.ndarray) -> list[str]:
    """One sentence about cameras that are guesses, one about frames that the pairs dispute."""
    notes, guessed = [], np.nonzero(~determined)[0]
    disputed = np.nonzero(determined & (quality < DOUBTFUL))[0]
    if len(guessed):
        notes.append(
            f"cameras of {_named(guessed)} could not be determined: their neighbours' are used"
        )
    if len(disputed):
        notes.append(
            f"pairs disagree about {_named(disputed)} (at most {DOUBTFUL:.0%} of the pixels agree "
            f"within {AGREES:.0%} of the depth): cameras and depth there are doubtful"
        )
    return notes


def _named(frames: np.ndarray) -> str:
    if len(frames) > 8:
        return f"{len(frames)} frames ({frames[0]} to {frames[-1]})"
    return ("frame " if len(frames) == 1 else "frames ") + ", ".join(str(t) for t in frames)


def _terms(
    state: State,
    maps: DenseMaps,
    depth: Tensor,
    dynamic: np.ndarray | None,
    flow: MeasuredFlow | None,
    prior: float,
    options: AlignmentOptions,
) -> dict[str, float]:
    """Every term of the objective and the weighted sum, at the final state."""
    terms = {
        "pairs": maps.pair_term,
        "smoothness": float(camera_movement(state.T_world_camera, options.translation_weight)),
        "flow": flow_term(state, depth, dynamic, flow),
        "depth_prior": prior,
    }
    weights = {
        "pairs": 1.0,
        "smoothness": options.smoothness_weight,
        "flow": options.flow_weight,
        "depth_prior": options.depth_prior_weight,
    }
    terms["total"] = sum(weights[name] * terms[name] for name in weights)
    return terms


def flow_term(
    state: State,
    depth: Float[Tensor, "n h w"],
    dynamic: np.ndarray | None,
    flow: MeasuredFlow | None,
) -> float:
    """The flow term on all pixels, one edge at a time; 0 without flow."""
    if flow is None or len(flow.edges) == 0:
        return 0.0
    K, T = state.K.float().cpu(), state.T_world_camera.float().cpu()
    loss = count = 0.0
    for row, (i, j) in enumerate(np.asarray(flow.edges).tolist()):
        measured = torch.from_numpy(np.array(flow.flow[row], dtype=np.float32))
        still = torch.isfinite(measured).all(-1)
        if dynamic is not None:
            still &= torch.from_numpy(~dynamic[i])
        if flow.visible is not None:
            still &= torch.from_numpy(np.asarray(flow.visible[row]))
        induced = induced_flow(depth[i], K[i], T[i], K[j], T[j])
        total, kept = flow_loss(induced, measured.nan_to_num(), still)
        loss, count = loss + float(total), count + float(kept)
    mean = loss / max(1.0, 2 * count)
    return 0.0 if mean > FLOW_LIMIT else 2 * mean


def _check(
    predictions: PairPredictions,
    dynamic: np.ndarray | None,
    flow: MeasuredFlow | None,
    presets: Presets,
) -> None:
    height, width = predictions.size_hw
    m, n = len(predictions.edges), predictions.num_frames
    if m == 0 or n == 0:
        raise InputError("alignment needs at least one pair of frames")
    edges = np.asarray(predictions.edges)
    if edges.shape != (m, 2) or edges.min() < 0 or edges.max() >= n:
        raise InputError(f"edges must have shape (m, 2) and name frames 0..{n - 1}")
    arrays = {
        "points1": (predictions.points1, (m, height, width, 3)),
        "points2": (predictions.points2, (m, height, width, 3)),
        "conf1": (predictions.conf1, (m, height, width)),
        "conf2": (predictions.conf2, (m, height, width)),
        "dynamic": (dynamic, (n, height, width)),
        "flow": (None if flow is None else flow.flow[0], (height, width, 2)),
        "presets.K": (presets.K, (n, 3, 3)),
        "presets.T_world_camera": (presets.T_world_camera, (n, 4, 4)),
        "presets.depth": (presets.depth, (n, height, width)),
    }
    optional = {"dynamic", "flow", "presets.K", "presets.T_world_camera", "presets.depth"}
    for name, (array, shape) in arrays.items():
        if array is None and name in optional:
            continue
        if array is None or tuple(array.shape) != shape:
            got = "none" if array is None else str(tuple(array.shape))
            raise InputError(f"alignment needs {name} of shape {shape}, got {got}")
    if flow is not None and len(flow.edges) and (flow.edges.min() < 0 or flow.edges.max() >= n):
        raise InputError(f"flow edges must name frames 0..{n - 1}")
