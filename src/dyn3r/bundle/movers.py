"""Depth of what moves, from where it stands.

Flow says nothing of the depth of moving things, and a small network hardly sees them: it paints
them onto the background. Most of them stand on the ground, though, and the depth of the ground is
known: a thing is as far as the still surface just below its lowest point (Hoiem et al. 2006,
"Putting objects in perspective").
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

LEAST_SHARE = 0.002
"""Pieces of a mask below this share of the picture keep their depth."""
GAP_ACROSS, GAP_DOWN = 0.01, 0.04
"""Parts of a mask are one thing if they come this near each other, across and down, twice, as a
share of the long side: bodies are tall, and masks have holes."""
FOOT = 0.12
"""Columns whose lowest masked pixel lies within this share of the thing's height of its bottom are
where it stands."""
BELOW = 0.015
"""How far below the mask depth is read, as a share of the long side: outlines bleed."""
RELIEF = 0.05
"""What is kept of the thing's own shape: log depth within this of that of its feet."""
MEMORY = 5
"""Frames over which the depth of a thing is smoothed (median)."""


@dataclass
class Thing:
    """A connected part of one frame's mask."""

    pixels: Bool[np.ndarray, "h w"]
    log_contact: float
    """Log depth of the still surface below it; NaN if there is none to be seen."""
    before: int = -1
    """Which thing of the frame before this is; -1: a new one."""


def stand_on_ground(
    depth: Float[np.ndarray, "n h w"],
    moving: Bool[np.ndarray, "n h w"],
    known: Bool[np.ndarray, "n h w"] | None = None,
) -> Float[np.ndarray, "n h w"]:
    """Depth with everything that moves as far as the ground below it, where that is nearer.

    Nothing is put behind what it hides, so a wall below a mask changes nothing. Where a thing is
    cut off by the lower edge of the picture, the ground at that edge is the farthest it can be, and
    taken. Things in the air come out too near. v must grow towards the ground. `known` depth stays.
    """
    frames = [_things(depth[t], moving[t]) for t in range(len(depth))]
    for last, now in itertools.pairwise(frames):
        _link(last, now)
    out = depth.copy()
    for t, things in enumerate(frames):
        for thing in things:
            contact = _remembered(frames, t, thing)
            log = np.log(depth[t][thing.pixels])
            middle = float(np.median(log))
            if contact < middle:  # also False for NaN
                relief = np.clip(log - middle, -RELIEF, RELIEF)
                out[t][thing.pixels] = np.exp(contact + relief)
    return out if known is None else np.where(known, depth, out)


def _things(depth: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> list[Thing]:
    import cv2

    across, down = (max(1, round(gap * max(mask.shape))) for gap in (GAP_ACROSS, GAP_DOWN))
    reach = np.ones((2 * down + 1, 2 * across + 1), np.uint8)
    count, label = cv2.connectedComponents(cv2.dilate(mask.astype(np.uint8), reach), connectivity=8)
    things = []
    for k in range(1, count):
        pixels = (label == k) & mask
        if pixels.mean() >= LEAST_SHARE:
            things.append(Thing(pixels, _log_contact(depth, mask, pixels)))
    return things


def _log_contact(
    depth: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"], pixels: Bool[np.ndarray, "h w"]
) -> float:
    height, width = mask.shape
    below = max(1, round(BELOW * max(mask.shape)))
    columns = np.flatnonzero(pixels.any(0))
    lowest = height - 1 - pixels[::-1, columns].argmax(0)
    tall = lowest.max() - np.flatnonzero(pixels.any(1))[0] + 1
    feet = lowest >= lowest.max() - FOOT * tall
    if lowest.max() >= height - 1 - below:  # cut off: the ground beside it, at the edge
        left, right = max(columns[0] - width // 4, 0), min(columns[-1] + width // 4, width)
        beside = ~mask[-1, left:right]
        values = depth[-1, left:right][beside]
    else:
        rows = lowest[feet] + below
        still = ~mask[rows, columns[feet]]
        values = depth[rows[still], columns[feet][still]]
    return float(np.median(np.log(values))) if len(values) else float("nan")


def _link(last: list[Thing], now: list[Thing]) -> None:
    """Each thing goes on with the one of the frame before that it covers most of."""
    for thing in now:
        shared = [
            (thing.pixels & other.pixels).sum() / (thing.pixels | other.pixels).sum()
            for other in last
        ]
        if shared and max(shared) > 0.1:
            thing.before = int(np.argmax(shared))


def _remembered(frames: list[list[Thing]], t: int, thing: Thing) -> float:
    """Median over the frames around, as far as the thing can be followed; NaN if never seen."""
    half, values = MEMORY // 2, [thing.log_contact]
    earlier, at = thing, t
    while earlier.before >= 0 and t - at < half:
        at -= 1
        earlier = frames[at][earlier.before]
        values.append(earlier.log_contact)
    later, at = thing, t
    while at + 1 < len(frames) and at - t < half:
        index = next(k for k, other in enumerate(frames[at]) if other is later)
        following = [other for other in frames[at + 1] if other.before == index]
        if not following:
            break
        later, at = following[0], at + 1
        values.append(later.log_contact)
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else float("nan")
