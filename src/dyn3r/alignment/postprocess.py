"""Result of the alignment: frame quality, objective terms and warnings."""

from __future__ import annotations

import logging

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.alignment.components import AGREEMENT_TOLERANCE
from dyn3r.alignment.dense_maps import DenseMaps, fill_depth
from dyn3r.alignment.objective import FLOW_LIMIT, camera_movement, flow_loss
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.alignment.state import PAIR_SCALE, State
from dyn3r.alignment.windows import AlignedCameras
from dyn3r.flow.fields import rows_of_pairs
from dyn3r.geometry.induced_flow import induced_flow
from dyn3r.io.text import named_frames
from dyn3r.io.workers import ordered_map
from dyn3r.types import Diagnostics, FlowFields, Geometry, PairPredictions

logger = logging.getLogger(__name__)

MIN_QUALITY = 0.2
"""Frames with a quality below this get a warning. Source: chosen by hand."""


def postprocess(
    predictions: PairPredictions,
    cameras: AlignedCameras,
    maps: DenseMaps,
    dynamic: Bool[np.ndarray, "n h w"] | None,
    flow: FlowFields | None,
    options: AlignmentOptions,
    history: list[tuple[float, float]],
) -> Geometry:
    """The result from cameras and per-pixel maps. The maps are changed in place to save memory."""
    state = cameras.state
    depth, confidence = maps.depth, maps.confidence
    seen = (confidence > 1) & (depth > 0)
    fill_depth(depth, seen)
    confidence *= seen
    quality = np.where(cameras.determined, _agreement(confidence, maps.uncertainty), 0)
    shown = seen.flatten(1).any(1).numpy()
    notes = (*cameras.notes, *quality_notes(cameras.determined, np.where(shown, quality, 1)))
    for note in notes:
        logger.info(note)
    return Geometry(
        T_world_camera=state.T_world_camera.cpu().numpy(),
        K=state.K.cpu().numpy(),
        depth=depth.numpy(),
        sigma_log_depth=maps.uncertainty.numpy(),
        valid=seen.numpy(),
        confidence=confidence.numpy(),
        frame_quality=quality,
        determined=cameras.determined,
        diagnostics=Diagnostics(
            terms=_terms(predictions, cameras, maps, dynamic, flow, options),
            notes=notes,
            history=np.array(history, dtype=np.float64).reshape(-1, 2),
            pair_similarity=_similarities(predictions, state, cameras.used_pairs),
        ),
    )


def _agreement(
    confidence: Float[Tensor, "n h w"], uncertainty: Float[Tensor, "n h w"]
) -> Float[np.ndarray, " n"]:
    """Share of the confidence of every frame where the pairs agree."""
    share = np.zeros(len(confidence))
    for frame, (weight, disagreement) in enumerate(zip(confidence, uncertainty)):
        mass = float(weight.sum())
        agreeing = float((weight * (disagreement < AGREEMENT_TOLERANCE)).sum())
        share[frame] = agreeing / mass if mass > 0 else 0
    return share


def _similarities(
    predictions: PairPredictions, state: State, used: Bool[np.ndarray, " m"]
) -> Float[np.ndarray, "m 4 4"]:
    """Similarity of every pair; an unused pair has that of its camera and the mean scale."""
    similarity = state.pair_similarity().cpu().numpy()
    for row in np.nonzero(~used)[0]:
        similarity[row] = state.T_world_camera[int(predictions.edges[row, 0])].cpu().numpy()
        similarity[row, :3, :3] *= PAIR_SCALE
    return similarity


def quality_notes(determined: Bool[np.ndarray, " n"], quality: np.ndarray) -> list[str]:
    """Warnings about cameras that are guesses, and about frames on which the pairs disagree."""
    notes, guessed = [], np.nonzero(~determined)[0]
    disputed = np.nonzero(determined & (quality < MIN_QUALITY))[0]
    if len(guessed):
        notes.append(
            f"cameras of {named_frames(guessed.tolist())} could not be determined: those of their "
            "neighbours are used"
        )
    if len(disputed):
        notes.append(
            f"pairs disagree about {named_frames(disputed.tolist())} (at most {MIN_QUALITY:.0%} of "
            f"the pixels agree to within {AGREEMENT_TOLERANCE:.0%} of the depth): cameras and "
            "depth there are unreliable"
        )
    return notes


def _terms(
    predictions: PairPredictions,
    cameras: AlignedCameras,
    maps: DenseMaps,
    dynamic: np.ndarray | None,
    flow: FlowFields | None,
    options: AlignmentOptions,
) -> dict[str, float]:
    """Terms of the objective and their weighted sum at the final state."""
    T = cameras.state.T_world_camera
    terms = {
        "pairs": maps.pair_term,
        "smoothness": float(camera_movement(T, options.translation_weight)),
        "flow": flow_term(cameras.state, maps.depth, dynamic, flow, predictions.edges),
        "depth_prior": cameras.depth_prior,
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
    pairs: Int[np.ndarray, "m 2"],
) -> float:
    """Flow term of `pairs` and of neighbours on all pixels, edge by edge; 0 without flow."""
    if flow is None:
        return 0.0
    rows = rows_of_pairs(flow.edges, pairs).tolist()
    K, T = state.K.float().cpu(), state.T_world_camera.float().cpu()
    edges = np.asarray(flow.edges).tolist()

    def loss_of(row: int) -> tuple[float, float]:
        i, j = edges[row]
        measured = torch.from_numpy(np.array(flow.flow[row], dtype=np.float32))
        static = torch.isfinite(measured).all(-1)
        if dynamic is not None:
            static &= torch.from_numpy(~dynamic[i])
        if flow.visible is not None:
            static &= torch.from_numpy(np.asarray(flow.visible[row]))
        induced = induced_flow(depth[i], K[i], T[i], K[j], T[j])
        total, kept = flow_loss(induced, measured.nan_to_num(), static)
        return float(total), float(kept)

    loss = count = 0.0
    for total, kept in ordered_map(loss_of, rows):
        loss, count = loss + total, count + kept
    mean = loss / max(1.0, 2 * count)
    return 0.0 if mean > FLOW_LIMIT else 2 * mean
