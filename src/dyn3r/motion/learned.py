"""What moves, as a network's motion head says it, alone or together with optical flow (ours).

The head gives every pixel of both views of every pair a probability that it shows something that
moves in the world (docs/training.md). A frame's pairs are opinions on the same pixels: their mean.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.motion.flow_residual import FlowEvidence
from dyn3r.motion.options import MotionOptions
from dyn3r.motion.stillness import covers_too_much
from dyn3r.network.patches import patch_means
from dyn3r.types import Motion, PairPredictions

_log = logging.getLogger(__name__)

SUREST = 0.01
"""Evidence and probabilities are kept this far from 0 and 1: neither cue may silence the other."""


@dataclass(frozen=True)
class LearnedMotionOptions:
    """Choices of `learned_motion` and `fuse_motion`; `benchmarks/fuse_motion.py` fits the weights.

    Fused, a pixel moves where
    flow_weight * logit(evidence of flow) + learned_weight * logit(probability) + bias > 0.
    """

    threshold: float = 0.5
    """The motion head alone: a pixel moves above this probability. Larger: fewer pixels."""
    flow_weight: float = 1.0
    """How much the evidence of optical flow counts when both are fused."""
    learned_weight: float = 1.0
    """How much the motion head counts when both are fused."""
    bias: float = 0.0
    """Added when both are fused. Larger: more pixels."""
    max_share: float = 0.5
    """A mask over more than this share of the clip's pixels is the background, not a thing."""

    def __post_init__(self) -> None:
        for name in ("threshold", "flow_weight", "learned_weight", "bias", "max_share"):
            value = getattr(self, name)
            if not math.isfinite(value) or (value < 0 and name != "bias"):
                raise InputError(f"{name} must be a finite number of at least 0, not {value}")


def learned_probability(predictions: PairPredictions) -> Float[np.ndarray, "n h w"]:
    """Mean over the pairs that show a frame, as view 1 or as view 2, of its pixels' probabilities.

    Pairs of a frame with itself say nothing; NaN for frames without any other pair. Raises
    InputError if the predictions come from a network without a motion head.
    """
    first, second = predictions.motion1, predictions.motion2
    if first is None or second is None:
        raise InputError(
            "these predictions do not say what moves: the network has no motion head, or its heads "
            "were off"
        )
    total = np.zeros((predictions.num_frames, *first.shape[1:]), np.float32)
    count = np.zeros(predictions.num_frames, np.float32)
    for row, (i, j) in enumerate(predictions.edges.tolist()):
        if i != j:
            total[i] += first[row]
            total[j] += second[row]
            count[[i, j]] += 1
    total[count == 0] = np.nan
    return np.asarray(total / np.maximum(count, 1)[:, None, None], dtype=np.float32)


def learned_motion(
    predictions: PairPredictions, *, options: LearnedMotionOptions | None = None
) -> Motion:
    """Masks of the things that move, from the motion head of the network that made `predictions`.

    The predictions should be those of a first pass: the head was not trained on pairs whose moving
    tokens are ignored. The maps are means over 16x16 patches; there are no clusters and no
    attention maps. Raises InputError for predictions of a network without a motion head.
    """
    options = options or LearnedMotionOptions()
    probability = learned_probability(predictions)
    return _motion(probability, options.threshold, "the motion head", options.max_share)


def fuse_motion(
    evidence: FlowEvidence,
    probability: Float[np.ndarray, "n h w"],
    *,
    options: LearnedMotionOptions | None = None,
) -> Motion:
    """Masks from optical flow and the motion head together: a weighted sum of their log odds.

    evidence: `flow_evidence`; where no flow of a frame could be compared the motion head decides
    alone. probability: `learned_probability` of the same frames. The maps hold the sum as a
    probability. Raises InputError for maps of different shapes.
    """
    options = options or LearnedMotionOptions()
    score = fused_score(evidence.refined, probability, options)
    unseen = ~np.isfinite(evidence.typical_px)
    score[unseen] = log_odds(probability[unseen])
    who = "optical flow and the motion head together"
    return _motion(1 / (1 + np.exp(-score)), 0.5, who, options.max_share)


def fused_score(
    evidence: Float[np.ndarray, "..."],
    probability: Float[np.ndarray, "..."],
    options: LearnedMotionOptions,
) -> Float[np.ndarray, "n h w"]:
    """Log odds of both together, from two (n,h,w); a pixel moves above 0.

    NaN where the motion head said nothing. Raises InputError for maps of different shapes.
    """
    if evidence.shape != probability.shape:
        raise InputError(
            f"flow and motion head are of different clips: {evidence.shape} and {probability.shape}"
        )
    return (
        options.flow_weight * log_odds(evidence)
        + options.learned_weight * log_odds(probability)
        + options.bias
    )


def log_odds(probability: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """log p / (1 - p), with p kept `SUREST` away from 0 and 1."""
    p = np.clip(np.asarray(probability, np.float32), SUREST, 1 - SUREST)
    return np.asarray(np.log(p) - np.log1p(-p), dtype=np.float32)


def _motion(
    probability: Float[np.ndarray, "n h w"], threshold: float, who: str, max_share: float
) -> Motion:
    """NaN: nobody said anything about this pixel."""
    told = bool(np.isfinite(probability).any())
    probability = np.nan_to_num(probability, nan=0.0).astype(np.float32)
    masks = probability > threshold
    why = None
    if not told:
        why = "motion can't be told without a pair of different frames"
    elif not masks.any():
        why = f"{who}: no pixel moves with a probability above {threshold:g}"
    else:
        why = covers_too_much(masks, MotionOptions(max_share=max_share))
    if why is not None:
        masks = np.zeros_like(masks)
    reason = why or (
        f"{who}: {masks.mean():.1%} of the clip's pixels move, with a probability above "
        f"{threshold:g}"
    )
    _log.info("motion: %s", reason)
    maps = patch_means(probability)
    return Motion(
        masks=masks,
        dynamic_map=maps,
        refined_map=maps,
        clusters=np.zeros(maps.shape, np.int64),
        threshold=math.inf if why is not None else threshold,
        attention_maps={},
        has_motion=why is None,
        reason=reason,
    )
