"""Metrics of motion masks: the DAVIS measures J and F (SPEC 11; Perazzi 2016).

J is intersection over union. F is the harmonic mean of precision and recall of boundary pixels; a
boundary pixel is correct if the other boundary is within 0.8 % of the image diagonal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from dyn3r.errors import InputError


class SequenceStats(NamedTuple):
    """DAVIS statistics of a measure over the frames of a sequence."""

    mean: float
    """Mean over the frames."""
    recall: float
    """Share of frames above 0.5."""
    decay: float
    """Mean of the first quarter of the frames minus mean of the last."""


@dataclass(frozen=True)
class MaskErrors:
    """Metrics of motion masks over a sequence; all from 0 (worst) to 1 (best)."""

    j_mean: float
    """Mean over frames of intersection over union (JM)."""
    j_recall: float
    """Share of frames with J > 0.5 (JR)."""
    f_mean: float
    """Mean over frames of the boundary measure."""
    precision: float
    """Share of the predicted dynamic pixels that are dynamic, over all frames; NaN without any."""
    recall: float
    """Share of the dynamic pixels that are predicted, over all frames; NaN without any."""


def region_similarity(
    predicted: Bool[np.ndarray, "n h w"], truth: Bool[np.ndarray, "n h w"]
) -> Float[np.ndarray, " n"]:
    """J per frame: intersection over union; 1 for two empty masks."""
    union = (predicted | truth).sum(axis=(1, 2))
    both = (predicted & truth).sum(axis=(1, 2))
    return np.where(union == 0, 1.0, both / np.maximum(union, 1))


def boundary_accuracy(
    predicted: Bool[np.ndarray, "n h w"],
    truth: Bool[np.ndarray, "n h w"],
    *,
    bound: float = 0.008,
) -> Float[np.ndarray, " n"]:
    """F per frame. `bound` is the tolerance as a share of the diagonal, rounded up to pixels."""
    tolerance = math.ceil(bound * math.hypot(*truth.shape[1:]))
    return np.array(
        [_boundary_f(_boundary(p), _boundary(t), tolerance) for p, t in zip(predicted, truth)]
    )


def sequence_stats(values: Float[np.ndarray, " n"]) -> SequenceStats:
    """DAVIS statistics; decay uses four bins of frames that share their end frames."""
    ends = np.floor(np.linspace(0, len(values) - 1, 5) + 0.5 + 1e-10).astype(int)
    first = values[ends[0] : ends[1] + 1].mean()
    last = values[ends[3] : ends[4] + 1].mean()
    return SequenceStats(float(values.mean()), float((values > 0.5).mean()), float(first - last))


def mask_errors(predicted: Bool[np.ndarray, "n h w"], truth: Bool[np.ndarray, "..."]) -> MaskErrors:
    """All mask metrics of a sequence. Every frame counts.

    Raises:
        InputError: different shapes, or no frames.
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
    boundary: np.ndarray = (mask != right) | (mask != below) | (mask != diagonal)
    return boundary


def _boundary_f(
    predicted: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"], tolerance: int
) -> float:
    """F of two boundaries; `tolerance` in pixels."""
    if not predicted.any() or not truth.any():
        return float(predicted.any() == truth.any())
    precision = (predicted & _dilate(truth, tolerance)).sum() / predicted.sum()
    recall = (truth & _dilate(predicted, tolerance)).sum() / truth.sum()
    total = precision + recall
    return float(2 * precision * recall / total) if total > 0 else 0.0


def _dilate(mask: Bool[np.ndarray, "h w"], radius: int) -> Bool[np.ndarray, "h w"]:
    """The mask dilated by a disc."""
    import cv2

    offsets = np.arange(-radius, radius + 1)
    disc = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)
    return cv2.dilate(mask.astype(np.uint8), disc).astype(bool)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
