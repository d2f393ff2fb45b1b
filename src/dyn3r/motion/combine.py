"""The union of two motion cues."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from dyn3r.errors import InputError
from dyn3r.motion.stillness import covers_too_much
from dyn3r.types import Motion


@dataclass(frozen=True)
class CombinedEvidence:
    """What each cue found on its own."""

    attention: Motion
    """Motion from attention alone."""
    flow: Motion
    """Motion from flow alone."""


def combine_motion(attention: Motion, flow: Motion) -> Motion:
    """The union of the masks of two cues.

    Where one cue classifies the clip as still, the other decides alone. A union over most of the
    clip is the background: then the smaller of the two masks is kept.

    Raises InputError for masks of different sizes.
    """
    if attention.masks.shape != flow.masks.shape:
        raise InputError(
            f"the two motions are of different clips: {attention.masks.shape} and "
            f"{flow.masks.shape}"
        )
    masks, rule = attention.masks | flow.masks, "either cue"
    if not (attention.has_motion and flow.has_motion):
        rule = "one cue alone" if masks.any() else "neither cue"
    elif covers_too_much(masks):
        masks, rule = min((attention.masks, flow.masks), key=np.mean), "the smaller mask"
    return Motion(
        masks=masks,
        dynamic_map=np.maximum(attention.dynamic_map, flow.dynamic_map),
        reason=f"{rule}: {masks.mean():.1%}; attention: {attention.reason}; flow: {flow.reason}",
        evidence=CombinedEvidence(attention, flow),
        probability=_larger(attention.probability, flow.probability),
        unreliable=flow.unreliable,
    )


def _larger(
    first: UInt8[np.ndarray, "n h w"] | None, second: UInt8[np.ndarray, "n h w"] | None
) -> UInt8[np.ndarray, "n h w"] | None:
    if first is None or second is None:
        return second if first is None else first
    return np.maximum(first, second)
