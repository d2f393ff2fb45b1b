"""Probability of a pixel to be dynamic, on one scale for all cues: 255 is certain, 128 the limit.

Masks can be drawn again from it with another limit (`dyn3r.scene.sensitivity`).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8

LIMIT = 127.5
"""Between the values of static and those of dynamic pixels."""


def probability_of(
    score: Float[np.ndarray, "n h w"], threshold: float
) -> UInt8[np.ndarray, "n h w"]:
    """Probability from a score of 0..1, piecewise linear with `threshold` (0..1) at the limit.

    Infinite threshold: the clip is still, and every score lies below the limit.
    """
    limit = min(threshold, 1.0)
    out = np.empty(score.shape, np.uint8)
    for t, frame in enumerate(np.clip(score, 0, 1)):
        above = 128 + 127 * (frame - limit) / max(1 - limit, 1e-6)
        below = 127 * frame / max(limit, 1e-6)
        out[t] = np.rint(np.where(frame > limit, above, np.minimum(below, 127)))
    return out


def agreeing(
    probability: UInt8[np.ndarray, "n h w"] | None, masks: Bool[np.ndarray, "n h w"]
) -> UInt8[np.ndarray, "n h w"] | None:
    """Probability that lies above the limit exactly where the masks are.

    Where a later stage decided otherwise than the cue, it is the mean of the probability and of
    that decision (0 or 256), so between 64 and 191.
    """
    if probability is None:
        return None
    out = probability.copy()
    differs = (probability > LIMIT) != masks
    decision = np.where(masks[differs], np.uint16(256), np.uint16(0))
    out[differs] = (out[differs] + decision) // 2
    return out
