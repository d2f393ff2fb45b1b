"""How well motion masks agree with the truth: the DAVIS measures J and F (SPEC 11; Perazzi 2016).

J is intersection over union. F compares boundaries: precision and recall of boundary pixels that
have a partner within 0.8 % of the image diagonal, as a harmonic mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from dyn3r.errors import InputError


class SequenceStats(NamedTuple):
    """A measure over the frames of a sequence."""

    mean: float
    recall: float
    """Share of frames above 0.5."""
    decay: float
    """Mean of the first quarter of the frames minus mean of the last."""


@dataclass(frozen=True)
class MaskErrors:
    """Agreement of masks with the truth over a sequence; all from 0 (bad) to 1 (good)."""

    j_mean: float
    """Mean over frames of intersection over union (JM)."""
    j_recall: float
    """Share of frames with J > 0.5 (JR)."""
    f_mean: float
    """Mean over frames of the boundary measure."""
    precision: float
    """Share of the pixels called moving that move, all frames together; NaN if none was called."""
    recall: float
    """Share of the moving pixels that were called so, all frames together; NaN if none moves."""


def region_similarity(
    predicted: Bool[np.ndarray, "n h w"], truth: Bool[np.ndarray, "n h w"]
) -> Float[np.ndarray, " n"]:
    """J per frame: intersection over union; two empty masks agree (1)."""
    union = (predicted | truth).sum(axis=(1, 2))
    both = (predicted & truth).sum(axis=(1, 2))
    return np.where(union == 0, 1.0, both / np.maximum(union, 1))


def boundary_accuracy(
    predicted: Bool[np.ndarray, "n h w"],
    truth: Bool[np.ndarray, "n h w"],
    *,
    bound: float = 0.008,
) -> Float[np.ndarray, " n"]:
    """F per frame. `bound`: the tolerance as a share of the diagonal, rounded up to pixels."""
    reach = math.ceil(bound * math.hypot(*truth.shape[1:]))
    return np.array(
        [_boundary_f(_boundary(p), _boundary(t), reach) for p, t in zip(predicted, truth)]
    )


def sequence_stats(values: Float[np.ndarray, " n"]) -> SequenceStats:
    """DAVIS statistics: mean, recall and decay over four bins that share their end frames."""
    ends = np.floor(np.linspace(0, len(values) - 1, 5) + 0.5 + 1e-10).astype(int)
    first = values[ends[0] : ends[1] + 1].mean()
    last = values[ends[3] : ends[4] + 1].mean()
    return SequenceStats(float(values.mean()), float((values > 0.5).mean()), float(first - last))


def mask_errors(predicted: Bool[np.ndarray, "n h w"], truth: Bool[np.ndarray, "..."]) -> MaskErrors:
    """All mask measures of a sequence; every frame counts, a missing mask counts as empty.

    Raises:
        InputError: shapes that differ, or no frames.
    """
    predicted, truth = np.asarray(predicted, dtype=bool), np.asarray(truth, dtype=bool)
    if predicted.shape != truth.shape or truth.ndim != 3 or len(truth) == 0:
        raise InputError(
            f"masks must both be (frames, h, w), not {predicted.shape} and {truth.shape}"
        )
    j = sequence_stats(region_similarity(predicted, truth))
    hits = int((predicted & truth).sum())
    return MaskErrors(
        j_mean=j.mean,
        j_recall=j.recall,
        f_mean=float(boundary_accuracy(predicted, truth).mean()),
        precision=_share(hits, int(predicted.sum())),
        recall=_share(hits, int(truth.sum())),
    )


def _boundary(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels that differ from their right, lower or lower right neighbour."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask != right) | (mask != below) | (mask != diagonal)


def _boundary_f(
    predicted: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"], reach: int
) -> float:
    if not predicted.any() or not truth.any():
        return float(predicted.any() == truth.any())
    precision = (predicted & _grown(truth, reach)).sum() / predicted.sum()
    recall = (truth & _grown(predicted, reach)).sum() / truth.sum()
    total = precision + recall
    return float(2 * precision * recall / total) if total > 0 else 0.0


def _grown(mask: Bool[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """All pixels within `reach` pixels of the mask."""
    import cv2

    offsets = np.arange(-reach, reach + 1)
    disc = (offsets[:, None] ** 2 + offsets**2 <= reach**2).astype(np.uint8)
    return cv2.dilate(mask.astype(np.uint8), disc).astype(bool)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
