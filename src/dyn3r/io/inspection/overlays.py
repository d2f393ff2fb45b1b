"""Overlays that stay put while the picture moves: logos, watermarks, displays of a camera.

The gradient of an overlay is there in every frame, so it is the median over time, also where the
overlay is half transparent; the picture behind it changes.
Source: Dekel et al., On the Effectiveness of Visible Watermarks, CVPR 2017, 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.io.inspection.neighbours import Comparison

MIN_FRAMES = 20
"""With fewer, an object that the camera follows looks like an overlay (a car for 16 frames)."""
SAMPLES = 60
"""At most about as many frames are looked at."""
MIN_GRADIENT = 4.0
"""Grey levels per pixel of an edge of an overlay."""
MOST = 2 / 3
"""Share of the frames in which the gradient is steady. Half of few frames agree by chance: of the
first 8 frames of two of four rendered clips."""
STEADY = 3.0
"""The median gradient is as many times its deviation in MOST of the frames."""
MOVED_PX = 5.0
"""Median distance over time by which the picture around an overlay must have moved: an edge of the
picture would be elsewhere in half of the frames."""
ACROSS = 0.35
"""Share of that motion that must be across an edge; a line that moves along itself looks steady."""
BOTH = 0.1
"""Smallest mean square of the directions of an overlay's edges, along any axis (0.5 at most): a
kerb that runs towards the camera has one direction only."""
MIN_EDGES = 20
"""Smallest number of pixels on the edges of an overlay."""
NEAREST = 15
"""The motion around an overlay is the median of so many matches."""
MIN_AREA_PX = 12
"""Smallest overlay, in pixels."""
MAX_SHARE = 0.3
"""Largest share of the frame that is an overlay; beyond it the camera is taken to stand still."""
GROW_PX = 3
"""The mask is larger than the edges by this, and closed between edges twice as far apart."""


class _Edges(NamedTuple):
    steady: Bool[np.ndarray, "h w"]
    """Pixels whose gradient is the same in most frames."""
    direction: Float[np.ndarray, "h w 2"]
    """Unit vector of that gradient."""


def find_overlays(
    greys: UInt8[np.ndarray, "n h w"], neighbours: Sequence[Comparison]
) -> Bool[np.ndarray, "h w"] | None:
    """Pixels of overlays; None if there are none or the picture does not move enough to tell.

    `neighbours`: of each frame with the next one.
    """
    if len(greys) < MIN_FRAMES:
        return None
    frames = np.unique(np.linspace(0, len(greys) - 1, min(len(greys), SAMPLES)).astype(int))
    edges = _steady_edges(greys[frames].astype(np.float32))
    candidates = _closed(edges.steady)
    count, labels = cv2.connectedComponents(candidates.astype(np.uint8))
    kept = np.zeros_like(candidates)
    for label in range(1, count):
        part = labels == label
        path = _motion_around(part, candidates, neighbours)[frames]
        kept |= _contradicting(edges, part, path)
    mask = _closed(kept)
    return mask if 0 < mask.mean() <= MAX_SHARE else None


def _steady_edges(greys: Float[np.ndarray, "k h w"]) -> _Edges:
    blurred = np.stack([cv2.GaussianBlur(grey, (0, 0), 0.7) for grey in greys])
    step_y, step_x = np.gradient(blurred, axis=(1, 2))
    gradient = np.stack([np.median(step_x, axis=0), np.median(step_y, axis=0)], axis=-1)
    strength = np.linalg.norm(gradient, axis=-1)
    apart = np.hypot(step_x - gradient[..., 0], step_y - gradient[..., 1])
    deviation = np.quantile(apart, MOST, axis=0)
    steady = (strength > MIN_GRADIENT) & (strength > STEADY * deviation)
    return _Edges(steady, gradient / np.maximum(strength, 1e-6)[..., None])


def _motion_around(
    part: Bool[np.ndarray, "h w"],
    candidates: Bool[np.ndarray, "h w"],
    neighbours: Sequence[Comparison],
) -> Float[np.ndarray, "n 2"]:
    """How far the picture around a part has moved since the first frame, in pixels (x, y)."""
    h, w = part.shape
    distance = cv2.distanceTransform((~part).astype(np.uint8), cv2.DIST_L2, 5)
    distance[candidates] = np.inf
    steps = [np.zeros(2)]
    for compared in neighbours:
        x, y = np.rint(compared.here.T).astype(int)
        far = distance[y.clip(0, h - 1), x.clip(0, w - 1)]
        near = np.argsort(far)[:NEAREST]
        near = near[np.isfinite(far[near])]
        moved = compared.there[near] - compared.here[near]
        steps.append(np.median(moved, axis=0) if len(near) else np.zeros(2))
    return np.cumsum(steps, axis=0)


def _contradicting(
    edges: _Edges, part: Bool[np.ndarray, "h w"], path: Float[np.ndarray, "k 2"]
) -> Bool[np.ndarray, "h w"]:
    """Steady edges of a part that would not be steady if they moved along the path."""
    y, x = np.nonzero(edges.steady & part)
    moved = path - np.median(path, axis=0)
    across = np.median(np.abs(edges.direction[y, x] @ moved.T), axis=1)
    needed = max(MOVED_PX, ACROSS * float(np.median(np.linalg.norm(moved, axis=1))))
    out = np.zeros_like(part)
    out[y, x] = across >= needed
    normals = edges.direction[out]
    if len(normals) < MIN_EDGES or np.linalg.eigvalsh(normals.T @ normals)[0] < BOTH * len(normals):
        return np.zeros_like(part)
    return out


def _closed(edges: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Edges with what lies between them, without specks."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (4 * GROW_PX + 1, 4 * GROW_PX + 1))
    margin = 4 * GROW_PX
    padded = cv2.dilate(np.pad(edges.astype(np.uint8), margin), np.ones((3, 3), np.uint8))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(padded)
    kept = (boxes[:, cv2.CC_STAT_AREA] >= MIN_AREA_PX) & (np.arange(len(boxes)) > 0)
    closed = cv2.morphologyEx(kept[labels].astype(np.uint8), cv2.MORPH_CLOSE, disc)
    grown = cv2.dilate(closed, np.ones((2 * GROW_PX + 1, 2 * GROW_PX + 1), np.uint8))
    return grown[margin:-margin, margin:-margin].astype(bool)
