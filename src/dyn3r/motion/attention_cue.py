"""Find what moves: attention scores in, motion masks out (SPEC section 4)."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.errors import InputError
from dyn3r.motion.attention import (
    DynamicEvidence,
    ScoreStatistics,
    dynamic_evidence,
    relative_deviation,
    score_statistics,
)
from dyn3r.motion.multi_otsu import last_otsu_threshold, upsample
from dyn3r.motion.options import MotionOptions
from dyn3r.motion.segments import cluster_tokens, refine_by_clusters
from dyn3r.motion.stillness import (
    covers_too_much,
    motion_contrast,
    not_separable,
    pairs_agree,
    single_pairs_agree,
    too_little_contrast,
)
from dyn3r.network.patches import token_mask
from dyn3r.types import Motion

_log = logging.getLogger(__name__)


def find_motion(
    scores1: Float[np.ndarray, "m gh gw c"] | Tensor,
    scores2: Float[np.ndarray, "m gh gw c"] | Tensor,
    edges: Int[np.ndarray, "m 2"] | Tensor,
    tokens: Float[np.ndarray, "n t dim"] | Tensor,
    size_hw: tuple[int, int],
    *,
    options: MotionOptions | None = None,
    num_frames: int | None = None,
) -> Motion:
    """Masks of the things that move, from the cross-attention of all pairs.

    Args:
        scores1: view-1 statistic of every pair (i, j): a score for the tokens of frame **j**. Any
            float type; a memory-mapped file is read once, row by row.
        scores2: view-2 statistic: a score for the tokens of frame **i**.
        edges: the directed pairs (i, j).
        tokens: encoder output of every frame, row-major over the gh x gw grid.
        size_hw: height and width of the masks in pixels.
        options: see `MotionOptions`; `MotionOptions.easi3r()` is the published recipe.
        num_frames: frames of the clip, if it is to be checked against the tokens.

    Returns:
        Motion; `has_motion` and `reason` say what was decided. A still clip has empty masks and an
        infinite threshold, but keeps its maps.

    Raises InputError if shapes do not fit together or values are not finite. Source: SPEC 4.
    """
    options = MotionOptions() if options is None else options
    pairs = np.asarray(edges.detach().cpu() if isinstance(edges, Tensor) else edges)
    grid_hw = _check_inputs(scores1, scores2, pairs, tokens, size_hw, num_frames)
    n = len(tokens)
    view1 = score_statistics(scores1, pairs[:, 1], n)
    view2 = score_statistics(scores2, pairs[:, 0], n)
    evidence = dynamic_evidence(view1, view2, inherit=options.few_pairs == "inherit")
    clusters = cluster_tokens(tokens, grid_hw, clusters=options.clusters, seed=options.seed)
    refined = refine_by_clusters(evidence.dynamic_map, clusters, evidence.informed)
    pixels = upsample(refined, size_hw)
    threshold = last_otsu_threshold(pixels)
    masks = pixels > threshold
    deviation = relative_deviation(view1)
    measured = view1.num_pairs > 1
    contrast = motion_contrast(deviation[measured], (refined > threshold)[measured])
    why_still = _why_still(view1, evidence, refined, masks, deviation, contrast, pairs, options)
    if why_still is None:
        reason = _found(masks, threshold, contrast, evidence)
    else:
        reason, masks, threshold = why_still, np.zeros_like(masks), math.inf
    _log.info("motion: %s", reason)
    return Motion(
        masks=masks,
        dynamic_map=evidence.dynamic_map,
        refined_map=refined,
        clusters=clusters,
        threshold=threshold,
        attention_maps=evidence.fused,
        has_motion=why_still is None,
        reason=reason,
    )


def _found(masks: np.ndarray, threshold: float, contrast: float, evidence: DynamicEvidence) -> str:
    text = f"{masks.mean():.1%} of the clip's pixels exceed the automatic threshold {threshold:.3f}"
    if not math.isnan(contrast):
        text += f" and vary {contrast:.2f} times as much between pairs as the rest"
    if evidence.means_only:
        text += "; no frame has two pairs, so only the mean attention was used, a weaker sign"
    elif not evidence.informed.all():
        few = int((~evidence.informed).sum())
        text += f"; {few} frame(s) with a single pair took over what the others say"
    return text


def _why_still(
    view1: ScoreStatistics,
    evidence: DynamicEvidence,
    refined: Float[np.ndarray, "n gh gw"],
    masks: Bool[np.ndarray, "n h w"],
    deviation: Float[np.ndarray, "n gh gw"],
    contrast: float,
    pairs: Int[np.ndarray, "m 2"],
    options: MotionOptions,
) -> str | None:
    """Why the clip counts as still, or None if something moves."""
    if not (pairs[:, 0] != pairs[:, 1]).any():
        return "motion can't be told without a pair of different frames"
    if not masks.any():
        return "the motion map is the same everywhere"
    if options.still_test == "none":
        return None
    if evidence.means_only:
        why = single_pairs_agree(view1.mean, view1.num_pairs > 0, options)
        why = why or not_separable(refined[evidence.informed])
    else:
        why = pairs_agree(deviation, options)
        if options.still_test == "contrast":
            why = why or too_little_contrast(contrast, options)
    return why or covers_too_much(masks, options)


def _check_inputs(
    scores1: np.ndarray | Tensor,
    scores2: np.ndarray | Tensor,
    pairs: np.ndarray,
    tokens: np.ndarray | Tensor,
    size_hw: tuple[int, int],
    num_frames: int | None,
) -> tuple[int, int]:
    """The patch grid (gh, gw), or InputError with what does not fit."""
    if scores1.ndim != 4 or scores1.shape != scores2.shape:
        raise InputError(
            "the two score arrays must have one shape (pairs, rows, columns, channels), not "
            f"{tuple(scores1.shape)} and {tuple(scores2.shape)}"
        )
    m, rows, cols, _ = (int(s) for s in scores1.shape)
    if pairs.shape != (m, 2) or not np.issubdtype(pairs.dtype, np.integer):
        raise InputError(f"edges must be integers of shape ({m}, 2), not {tuple(pairs.shape)}")
    if tokens.ndim != 3 or len(tokens) == 0 or tokens.shape[1] != rows * cols:
        raise InputError(
            f"tokens must have the shape (frames, {rows * cols}, width), not {tuple(tokens.shape)}"
        )
    if num_frames is not None and num_frames != len(tokens):
        raise InputError(f"there are tokens of {len(tokens)} frames, but {num_frames} frames")
    if m and (pairs.min() < 0 or pairs.max() >= len(tokens)):
        raise InputError(f"edges must name frames 0 to {len(tokens) - 1}")
    if min(scores1.shape[1:]) < 1 or min(size_hw) < 1:
        raise InputError("the patch grid, the channels and the image must not be empty")
    return rows, cols


def motion_from_masks(masks: Bool[np.ndarray, "n h w"] | Tensor, patch: int = 16) -> Motion:
    """Motion for masks that somebody made by other means; the maps are the token masks.

    Raises InputError if a side of the masks is no multiple of the patch.
    """
    grid = token_mask(np.asarray(masks), patch)
    array = masks.detach().cpu().numpy() if isinstance(masks, Tensor) else np.asarray(masks)
    moves = bool(array.any())
    return Motion(
        masks=array.astype(bool),
        dynamic_map=grid.astype(np.float32),
        refined_map=grid.astype(np.float32),
        clusters=grid.astype(np.int64),
        threshold=0.5 if moves else math.inf,
        attention_maps={},
        has_motion=moves,
        reason="the masks were given" if moves else "the masks that were given are empty",
    )


def with_more(motion: Motion, more: Bool[np.ndarray, "n h w"], what: str) -> Motion:
    """Motion with other pixels that move as well; `what` says of them why."""
    grid = token_mask(more).astype(np.float32)
    reason = f"{motion.reason}; {(more & ~motion.masks).mean():.1%} {what}"
    _log.info("motion: %s", reason)
    return replace(
        motion,
        masks=motion.masks | more,
        dynamic_map=np.maximum(motion.dynamic_map, grid),
        refined_map=np.maximum(motion.refined_map, grid),
        threshold=motion.threshold if motion.has_motion else 0.5,
        has_motion=True,
        reason=reason,
    )
