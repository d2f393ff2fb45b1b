"""From what was found to the Geometry that is handed on: quality, cleaning, terms, sentences."""

from __future__ import annotations

import logging

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.alignment.components import AGREES
from dyn3r.alignment.dense_maps import DenseMaps, fill_depth
from dyn3r.alignment.objective import FLOW_LIMIT, camera_movement, flow_loss
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.alignment.state import PAIR_SCALE, State
from dyn3r.alignment.windows import Whole
from dyn3r.geometry import induced_flow
from dyn3r.geometry.visibility import clean_confidence, compared_frames
from dyn3r.types import FlowFields, Geometry, PairPredictions, Progress

logger = logging.getLogger(__name__)

DOUBTFUL = 0.2
"""Frames with a quality below this get a warning."""


def finish(
    predictions: PairPredictions,
    whole: Whole,
    maps: DenseMaps,
    dynamic: Bool[np.ndarray, "n h w"] | None,
    flow: FlowFields | None,
    options: AlignmentOptions,
    history: list[tuple[float, float]],
    progress: Progress,
) -> Geometry:
    """The result, from cameras and per-pixel maps (which are changed in place to save memory)."""
    state, n = whole.state, predictions.num_frames
    depth, confidence = maps.depth, maps.confidence
    seen = (confidence > 1) & (depth > 0)
    fill_depth(depth, seen)
    confidence *= seen
    quality = np.where(whole.determined, _agreement(confidence, maps.uncertainty), 0)
    shown = seen.flatten(1).any(1).numpy()
    notes = whole.notes + quality_notes(whole.determined, np.where(shown, quality, 1))
    if options.clean:
        edges = np.asarray(predictions.edges)[whole.used]
        confidence = clean_confidence(
            depth,
            confidence,
            state.K.float().cpu(),
            state.T_world_camera.float().cpu(),
            others=compared_frames(edges, n, options.clean_frames),
            slack=options.clean_slack * maps.uncertainty if options.clean_slack else None,
            moving=dynamic if options.clean_slack else None,
            report=lambda done: progress("aligning: cleaning", done, n),
        )
    terms = _terms(state, maps, depth, dynamic, flow, whole.depth_prior, options)
    for note in notes:
        logger.info(note)
    return Geometry(
        T_world_camera=state.T_world_camera.cpu().numpy(),
        K=state.K.cpu().numpy(),
        depth=depth.numpy(),
        confidence=confidence.numpy(),
        uncertainty=maps.uncertainty.numpy(),
        pair_similarity=_similarities(predictions, state, whole.used),
        frame_quality=quality,
        determined=whole.determined,
        terms=terms,
        history=np.array(history, dtype=np.float64).reshape(-1, 2),
        warnings=tuple(notes),
    )


def _agreement(
    confidence: Float[Tensor, "n h w"], uncertainty: Float[Tensor, "n h w"]
) -> Float[np.ndarray, " n"]:
    """Share of every frame's confidence where the pairs agree."""
    share = np.zeros(len(confidence))
    for frame, (sure, unsure) in enumerate(zip(confidence, uncertainty)):
        mass = float(sure.sum())
        share[frame] = float((sure * (unsure < AGREES)).sum()) / mass if mass > 0 else 0
    return share


def _similarities(
    predictions: PairPredictions, state: State, used: Bool[np.ndarray, " m"]
) -> Float[np.ndarray, "m 4 4"]:
    """Of every pair; one that was not used lies at its camera, at the usual scale."""
    similarity = state.pair_similarity().cpu().numpy()
    for row in np.nonzero(~used)[0]:
        similarity[row] = state.T_world_camera[int(predictions.edges[row, 0])].cpu().numpy()
        similarity[row, :3, :3] *= PAIR_SCALE
    return similarity


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
    flow: FlowFields | None,
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
    flow: FlowFields | None,
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
