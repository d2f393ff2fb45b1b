"""Motion masks from cross-attention scores (Easi3R; SPEC section 4)."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.errors import InputError
from dyn3r.io.text import counted
from dyn3r.motion.attention import (
    DynamicEvidence,
    ScoreStatistics,
    dynamic_evidence,
    relative_deviation,
    score_statistics,
)
from dyn3r.motion.multi_otsu import last_otsu_threshold, upsample
from dyn3r.motion.options import AttentionCueOptions
from dyn3r.motion.probability import probability_of
from dyn3r.motion.segments import cluster_means, cluster_tokens
from dyn3r.motion.stillness import (
    covers_too_much,
    not_separable,
    pairs_agree,
    single_pairs_agree,
)
from dyn3r.types import Motion

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AttentionEvidence:
    """The maps behind the masks of the attention cue (SPEC 4)."""

    raw_map: Float[np.ndarray, "n gh gw"]
    """The dynamic map before clustering, 0..1 per frame."""
    clusters: Int[np.ndarray, "n gh gw"]
    """Cluster index of every token, 0..k-1, shared by all frames."""
    threshold: float
    """A pixel is dynamic where the upsampled map exceeds this; infinity for a still clip."""
    statistics: dict[str, Float[np.ndarray, "n gh gw"]]
    """The statistics that were fused, by name: of pairs mu1, sd1, mu2, sd2, each 0..1 over the
    clip; of many-view networks those of `dyn3r.motion.gram_cue`, each 0..1 per frame."""


def find_motion(
    scores1: Float[np.ndarray, "m gh gw c"] | Tensor,
    scores2: Float[np.ndarray, "m gh gw c"] | Tensor,
    edges: Int[np.ndarray, "m 2"] | Tensor,
    tokens: Float[np.ndarray, "n t dim"] | Tensor,
    size_hw: tuple[int, int],
    *,
    options: AttentionCueOptions | None = None,
    num_frames: int | None = None,
) -> Motion:
    """Masks of moving objects from the cross-attention of all pairs (SPEC 4).

    Args:
        scores1: view-1 statistic of every pair (i, j): a score for the tokens of frame **j**. Any
            float type; a memory-mapped file is read once, row by row.
        scores2: view-2 statistic: a score for the tokens of frame **i**.
        edges: the directed pairs (i, j).
        tokens: encoder output of every frame, row-major over the gh x gw grid.
        size_hw: height and width of the masks in pixels.
        options: `AttentionCueOptions.easi3r()` is the published recipe.
        num_frames: frames of the clip, if it is to be checked against the tokens.

    Returns:
        Motion with `AttentionEvidence`. A still clip has empty masks and an infinite threshold, but
        keeps its maps.

    Raises InputError if shapes do not fit together or values are not finite.
    """
    options = AttentionCueOptions() if options is None else options
    pairs = np.asarray(edges.detach().cpu() if isinstance(edges, Tensor) else edges)
    grid_hw = _check_inputs(scores1, scores2, pairs, tokens, size_hw, num_frames)
    n = len(tokens)
    view1 = score_statistics(scores1, pairs[:, 1], n)
    view2 = score_statistics(scores2, pairs[:, 0], n)
    evidence = dynamic_evidence(view1, view2, inherit=options.inherit_single_pairs)
    clusters = cluster_tokens(tokens, grid_hw)
    refined = cluster_means(evidence.dynamic_map, clusters, evidence.informed)
    pixels = upsample(refined, size_hw)
    threshold = last_otsu_threshold(pixels)
    masks = pixels > threshold
    why_still = _why_still(view1, evidence, refined, masks, pairs, options)
    if why_still is None:
        reason = _found(masks, threshold, evidence)
    else:
        reason, masks, threshold = why_still, np.zeros_like(masks), math.inf
    _log.info("motion: %s", reason)
    return Motion(
        masks=masks,
        dynamic_map=refined,
        reason=reason,
        evidence=AttentionEvidence(evidence.dynamic_map, clusters, threshold, evidence.fused),
        probability=probability_of(pixels, threshold),
    )


def _found(masks: np.ndarray, threshold: float, evidence: DynamicEvidence) -> str:
    """Reason for a clip with motion."""
    text = f"{masks.mean():.1%} of the clip's pixels exceed the automatic threshold {threshold:.3f}"
    if evidence.means_only:
        text += (
            "; no frame has two pairs, so only the mean attention was used, which is less reliable"
        )
    elif not evidence.informed.all():
        few = int((~evidence.informed).sum())
        text += f"; {counted(few, 'frame')} with a single pair took the values of the others"
    return text


def _why_still(
    view1: ScoreStatistics,
    evidence: DynamicEvidence,
    refined: Float[np.ndarray, "n gh gw"],
    masks: Bool[np.ndarray, "n h w"],
    pairs: Int[np.ndarray, "m 2"],
    options: AttentionCueOptions,
) -> str | None:
    """Reason to classify the clip as still, or None if there is motion."""
    if not (pairs[:, 0] != pairs[:, 1]).any():
        return "motion cannot be estimated without a pair of different frames"
    if not masks.any():
        return "the motion map is the same everywhere"
    if not options.still_test:
        return None
    if evidence.means_only:
        why = single_pairs_agree(view1.mean, view1.num_pairs > 0)
        why = why or not_separable(refined[evidence.informed])
    else:
        why = pairs_agree(relative_deviation(view1))
    return why or covers_too_much(masks)


def _check_inputs(
    scores1: np.ndarray | Tensor,
    scores2: np.ndarray | Tensor,
    pairs: np.ndarray,
    tokens: np.ndarray | Tensor,
    size_hw: tuple[int, int],
    num_frames: int | None,
) -> tuple[int, int]:
    """Patch grid (gh, gw). Raises InputError for inputs that do not fit together."""
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
