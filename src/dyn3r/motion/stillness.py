"""Is anything moving at all? Judged before min-max normalisation has made everything look alike.

The published recipe stretches every frame's map to 0..1 and then looks for a threshold: it finds
something in every clip, also where the pairs differ by rounding alone. The limits here are ratios,
free of the scores' scale and offset. docs/motion.md says what they can and can't tell.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from dyn3r.motion.options import MotionOptions

EVEN_SPREAD_SEPARABILITY = 0.75
"""Otsu's separability of evenly spread values; bell curves (0.64) and exponential ones (0.65) are
below it. Maps made of the means alone must be above."""


def pairs_agree(deviation: Float[np.ndarray, "n gh gw"], options: MotionOptions) -> str | None:
    """A reason to call the clip still if no token varies noticeably between its pairs."""
    largest = float(deviation.max(initial=0.0))
    if largest > options.min_deviation:
        return None
    return (
        f"the pairs of every frame agree: scores vary by at most {largest:.2%} of their spread, "
        f"and moving things need more than {options.min_deviation:.2%}"
    )


def single_pairs_agree(
    mean: Float[np.ndarray, "n gh gw c"], scored: Bool[np.ndarray, " n"], options: MotionOptions
) -> str | None:
    """The same for clips whose frames have one pair each: do the frames score alike?

    Compares every frame's scores with the clip's mean. Frames that are equal are caught; frames of
    a moving camera are not, whatever moves.
    """
    kept = mean[scored]
    if len(kept) < 2:
        return None
    spread = float(kept.var(axis=(0, 1, 2)).mean())
    apart = float(np.square(kept - kept.mean(axis=0)).mean(axis=-1).max())
    if apart > options.min_deviation**2 * spread:
        return None
    return "the frames are alike: their attention scores do not differ"


def motion_contrast(
    deviation: Float[np.ndarray, "n gh gw"], moving: Bool[np.ndarray, "n gh gw"]
) -> float:
    """How many times as much the moving tokens vary between the pairs as the others, on average.

    Give it only frames that have two pairs. NaN if one of the two groups is empty.
    """
    if not moving.any() or moving.all():
        return math.nan
    return float(deviation[moving].mean()) / max(float(deviation[~moving].mean()), 1e-12)


def too_little_contrast(contrast: float, options: MotionOptions) -> str | None:
    """A reason to call the clip still if what was found varies hardly more than the rest."""
    if math.isnan(contrast) or contrast >= options.min_contrast:
        return None
    return (
        f"nothing stands out: the most suspicious parts vary {contrast:.2f} times as much between "
        f"pairs as the rest, and moving things need {options.min_contrast:.2f} times"
    )


def not_separable(values: Float[np.ndarray, "..."]) -> str | None:
    """A reason to call a clip still whose map, made of the means alone, has no two groups."""
    separability = otsu_separability(values)
    if separability > EVEN_SPREAD_SEPARABILITY:
        return None
    return (
        f"one pair per frame shows no clear motion: separability {separability:.2f}, and it takes "
        f"more than {EVEN_SPREAD_SEPARABILITY:.2f}, that of evenly spread values"
    )


def covers_too_much(masks: Bool[np.ndarray, "n h w"], options: MotionOptions) -> str | None:
    """A reason to reject a mask that covers most of the clip: that is no moving thing."""
    share = float(masks.mean()) if masks.size else 0.0
    if share <= options.max_share:
        return None
    return (
        f"the mask would cover {share:.0%} of the clip, which is taken for the background "
        f"(limit {options.max_share:.0%})"
    )


def otsu_separability(values: Float[np.ndarray, "..."]) -> float:
    """Largest share of the variance that a split into two classes explains, 0..1 (Otsu 1979).

    0 for values that are all alike.
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
