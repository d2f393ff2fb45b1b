"""Two opinions on what moves, made one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from dyn3r.errors import InputError
from dyn3r.motion.options import MotionOptions
from dyn3r.motion.stillness import covers_too_much
from dyn3r.types import Motion

Rule = Literal["union", "intersection"]


def combine_motion(
    attention: Motion, flow: Motion, rule: Rule = "union", max_share: float = 0.5
) -> Motion:
    """Masks of two cues together; the clusters and attention maps are those of `attention`.

    `union`: what either calls moving; `intersection`: what both do. Where one cue calls the clip
    still or can't tell, the other decides alone. A union over more than `max_share` of the clip is
    the background: then the smaller of the two masks is kept. docs/flow.md says what was measured.

    Raises InputError for masks of different sizes or an unknown rule.
    """
    if attention.masks.shape != flow.masks.shape:
        raise InputError(
            f"the two motions are of different clips: {attention.masks.shape} and "
            f"{flow.masks.shape}"
        )
    if rule not in ("union", "intersection"):
        raise InputError(f"cues are combined by 'union' or 'intersection', not '{rule}'")
    if not (attention.has_motion and flow.has_motion):
        masks, how = attention.masks | flow.masks, "one cue alone"
    elif rule == "intersection":
        masks, how = attention.masks & flow.masks, "both cues agree"
    else:
        masks, how = attention.masks | flow.masks, "either cue"
        if covers_too_much(masks, MotionOptions(max_share=max_share)):
            masks, how = min((attention.masks, flow.masks), key=np.mean), "the smaller mask"
    merge = np.minimum if rule == "intersection" else np.maximum
    moves = bool(masks.any())
    return replace(
        attention,
        masks=masks,
        dynamic_map=merge(attention.dynamic_map, flow.dynamic_map),
        refined_map=merge(attention.refined_map, flow.refined_map),
        threshold=0.5 if moves else math.inf,
        has_motion=moves,
        reason=f"{how}: {masks.mean():.1%}; attention: {attention.reason}; flow: {flow.reason}",
    )
