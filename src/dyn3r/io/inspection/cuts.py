"""Hard cuts, and single frames of another place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from jaxtyping import Bool

from dyn3r.geometry.keypoints import Keypoints
from dyn3r.io.inspection.neighbours import Comparison, compare
from dyn3r.io.text import counted
from dyn3r.types import Clip
from dyn3r.types.input_report import InputNote

MAX_NAMED = 5
"""Most shots that a note names."""
MAX_SHARE = 0.25
"""Where more of the neighbours differ than this, the frames are too far apart to tell a cut."""


def find_cuts(
    features: Sequence[Keypoints], neighbours: Sequence[Comparison]
) -> tuple[tuple[int, ...], Bool[np.ndarray, " n"]]:
    """Frames with which another shot begins, and which frames are alone among others.

    `neighbours`: of each frame with the next one. A frame begins a shot if it differs from the
    frame before and from the one before that, and the one after it differs from both likewise.
    """
    n = len(features)
    alone = np.zeros(n, bool)
    differ = [compared.differ for compared in neighbours]
    if too_far_apart(sum(differ), n):
        return (), alone

    def match(first: int, second: int) -> bool:
        inside = first >= 0 and second < n
        return inside and not compare(features[first], features[second]).differ

    cuts = []
    for t in (int(k) + 1 for k in np.flatnonzero(differ)):
        if t + 1 < n and differ[t] and match(t - 1, t + 1):
            alone[t] = True
        elif not (match(t - 2, t) or match(t - 1, t + 1)):
            cuts.append(t)
    return tuple(cuts), alone


def too_far_apart(differing: int, frames: int) -> bool:
    """Whether so many of the frames differ from the one before that cuts can't be told."""
    return differing > max(2, MAX_SHARE * frames)


def longest_shot(clip: Clip) -> Clip:
    """The longest part of a clip without a cut; the report says how to get the others."""
    if not clip.cuts:
        return clip
    bounds = list(pairwise((0, *clip.cuts, len(clip))))
    first, last = max(bounds, key=lambda bound: bound[1] - bound[0])
    others = [
        f"--start {math.floor(1e3 * clip.times_s[a]) / 1e3:g} "
        f"--end {math.floor(1e3 * clip.times_s[b - 1] + 2) / 1e3:g}"
        for a, b in bounds
        if a != first
    ]
    shown = "; ".join(others[:MAX_NAMED]) + ("; ..." if len(others) > MAX_NAMED else "")
    text = (
        f"only the longest shot is reconstructed, {counted(int(last - first), 'frame')} "
        f"from {clip.names[first]} on; the others have a world of their own: {shown}"
    )
    shot = clip.part(slice(first, last))
    return replace(shot, report=clip.report.adding(InputNote("cuts", text, warning=True)))
