"""Tests for still clips, on statistics before min-max normalisation.

The published recipe stretches every frame's map to 0..1 and then chooses a threshold: it finds
motion in every clip, even if the pairs differ by rounding alone. The limits here are ratios,
independent of the scale and offset of the scores. docs/motion.md has their limits.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

MIN_DEVIATION = 0.02
"""Variation of a token's scores between pairs, as a share of their variation over the image, that a
clip with motion exceeds in some token. Source: static and dynamic clips of docs/experiments.md."""
MAX_SHARE = 0.5
"""Share of the clip's pixels above which a mask is the background, not an object."""
EVEN_SPREAD_SEPARABILITY = 0.75
"""Otsu's separability of uniformly distributed values, which maps made of the means alone must
exceed; that of normal (0.64) and exponential (0.65) distributions is lower."""


def pairs_agree(deviation: Float[np.ndarray, "n gh gw"]) -> str | None:
    """Reason to classify a clip as still if no token varies between pairs; else None."""
    largest = float(deviation.max(initial=0.0))
    if largest > MIN_DEVIATION:
        return None
    return (
        f"the pairs of every frame agree: scores vary by at most {largest:.2%} of their spread, "
        f"and moving objects need more than {MIN_DEVIATION:.2%}"
    )


def single_pairs_agree(
    mean: Float[np.ndarray, "n gh gw c"], scored: Bool[np.ndarray, " n"]
) -> str | None:
    """As `pairs_agree`, for clips whose frames have one pair each: scores of the frames are equal.

    Every frame is compared with the clip's mean. Repeated frames are recognised as still; frames of
    a moving camera are not.
    """
    kept = mean[scored]
    if len(kept) < 2:
        return None
    spread = float(kept.var(axis=(0, 1, 2)).mean())
    apart = float(np.square(kept - kept.mean(axis=0)).mean(axis=-1).max())
    if apart > MIN_DEVIATION**2 * spread:
        return None
    return "the frames are equal: their attention scores do not differ"


def not_separable(values: Float[np.ndarray, "..."]) -> str | None:
    """Reason to classify a clip as still whose map of the means alone has no two groups."""
    separability = otsu_separability(values)
    if separability > EVEN_SPREAD_SEPARABILITY:
        return None
    return (
        f"one pair per frame shows no clear motion: separability {separability:.2f}, not above "
        f"{EVEN_SPREAD_SEPARABILITY:.2f}, that of uniformly distributed values"
    )


def covers_too_much(masks: Bool[np.ndarray, "n h w"]) -> str | None:
    """Reason to reject a mask that covers most of the clip, which is no moving object."""
    share = float(masks.mean()) if masks.size else 0.0
    if share <= MAX_SHARE:
        return None
    return (
        f"the mask would cover {share:.0%} of the clip, which is taken for the background "
        f"(limit {MAX_SHARE:.0%})"
    )


def otsu_separability(values: Float[np.ndarray, "..."]) -> float:
    """Largest share of the variance that a split into two classes explains, 0..1 (Otsu 1979).

    0 for equal values.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64).ravel())
    size = len(ordered)
    total = ordered.var() if size else 0.0
    if size < 2 or not total > 1e-12 * max(1.0, float(np.abs(ordered).max()) ** 2):
        return 0.0
    low = np.arange(1, size) / size
    below = np.cumsum(ordered)[:-1] / np.arange(1, size)
    above = (ordered.sum() - np.cumsum(ordered)[:-1]) / np.arange(size - 1, 0, -1)
    return float((low * (1 - low) * (above - below) ** 2).max() / total)
