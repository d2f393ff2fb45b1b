"""Loops of a long clip: pairs of frames, far apart in time, that show the same place.

Candidates look alike as thumbnails. Optical flow between the two says which pixels correspond, and
depth makes points of them. A candidate is a loop if one similarity explains most of these points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from dyn3r.alignment.similarity_graph import Loops
from dyn3r.flow import FlowEstimator, measure_flow
from dyn3r.geometry.registration import Similarity, robust_similarity
from dyn3r.scene.scene import Scene
from dyn3r.types import Progress, no_progress

MOST_KEY_FRAMES = 400
"""Frames that are compared with each other. Source: run time."""
THUMBNAIL_HW = (18, 32)
MIN_CORRELATION = 0.8
"""Correlation of thumbnails above which two frames are a candidate."""
MOST_CANDIDATES = 60
"""Candidates that are tested, those most alike first. Source: run time; about 0.1 s each."""
MIN_VISIBLE = 0.3
"""Share of the pixels that flow must find again for a loop."""
TOLERANCE = 0.05
"""Distance of corresponding points over their depth below which they agree."""
MIN_AGREEING = 0.6
"""Share of the corresponding points that must agree for a loop."""
SAMPLES = 4000
"""Corresponding points of a pair, at most. Source: run time."""
MIN_SAMPLES = 300
"""Corresponding points of a loop, at least. Source: chosen by hand."""


@dataclass(frozen=True)
class LoopSearch:
    """What was found."""

    loops: Loops | None
    """None: there are none."""
    tested: int
    """Number of candidates."""


def find_loops(
    scene: Scene, estimator: FlowEstimator, least_apart: int, progress: Progress = no_progress
) -> LoopSearch:
    """Loops between frames at least `least_apart` frames from each other."""
    pairs = candidates(scene.images, least_apart)
    found: list[tuple[np.ndarray, Similarity]] = []
    for done, pair in enumerate(pairs, start=1):
        similarity = pair_similarity(scene, pair, estimator)
        if similarity is not None:
            found.append((pair, similarity))
        progress("looking for loops", done, len(pairs))
    if not found:
        return LoopSearch(None, len(pairs))
    joined = Similarity(*(torch.stack(parts) for parts in zip(*(s for _, s in found))))
    return LoopSearch(Loops(np.stack([pair for pair, _ in found]), joined), len(pairs))


def candidates(images: UInt8[np.ndarray, "n h w 3"], least_apart: int) -> Int[np.ndarray, "q 2"]:
    """Pairs of frames that look alike; no two of them are near each other at both ends."""
    step = -(-len(images) // MOST_KEY_FRAMES)
    keys = np.arange(0, len(images), step)
    small = _thumbnails(images, keys)
    alike = small @ small.T
    a, b = np.nonzero((alike >= MIN_CORRELATION) & (keys[None] - keys[:, None] >= least_apart))
    order = np.argsort(-alike[a, b], kind="stable")
    pairs = np.stack([keys[a], keys[b]], -1)[order]
    spacing = max(1, least_apart // 4)
    kept: list[np.ndarray] = []
    for pair in pairs:
        if len(kept) == MOST_CANDIDATES:
            break
        if all(np.abs(pair - other).max() >= spacing for other in kept):
            kept.append(pair)
    return np.array(kept, int).reshape(-1, 2)


def pair_similarity(
    scene: Scene, pair: Int[np.ndarray, " 2"], estimator: FlowEstimator
) -> Similarity | None:
    """Similarity from the camera of the second frame to that of the first; None: no loop."""
    flow = measure_flow(scene.images[pair], np.array([[0, 1]]), estimator)
    assert flow.visible is not None
    seen = flow.visible[0]
    if seen.mean() < MIN_VISIBLE:
        return None
    v, u = np.nonzero(seen)
    target = np.rint(np.stack([u, v], -1) + flow.flow[0, v, u].astype(np.float64)).astype(int)
    source_points = _camera_points(scene, int(pair[0]))[v, u]
    target_points = _camera_points(scene, int(pair[1]))[target[:, 1], target[:, 0]]
    known = np.isfinite(source_points[:, 0]) & np.isfinite(target_points[:, 0])
    rows = np.flatnonzero(known)
    rows = rows[:: max(1, -(-len(rows) // SAMPLES))]
    if len(rows) < MIN_SAMPLES:
        return None
    a, b = (torch.from_numpy(p[rows]) for p in (source_points, target_points))
    depth = a[:, 2]
    fit = robust_similarity(b, a, 1 / depth)
    agreeing = (fit.apply(b) - a).norm(dim=-1) < TOLERANCE * depth
    if float(agreeing.double().mean()) < MIN_AGREEING:
        return None
    return robust_similarity(b[agreeing], a[agreeing], 1 / depth[agreeing])


def _camera_points(scene: Scene, t: int) -> Float[np.ndarray, "h w 3"]:
    """Points of a frame in its camera, float64; NaN where they are dynamic or rejected."""
    h, w = scene.size_hw
    v, u = np.mgrid[:h, :w]
    K, z = scene.K[t], scene.depth[t].astype(np.float64)
    usable = (scene.confidence[t] > 0) & (z > 0) & ~scene.dynamic[t]
    z = np.where(usable, z, np.nan)
    return np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], -1)


def _thumbnails(
    images: UInt8[np.ndarray, "n h w 3"], keys: Int[np.ndarray, " k"]
) -> Float[np.ndarray, "k p"]:
    """Small grey images with mean 0 and norm 1."""
    import cv2

    h, w = THUMBNAIL_HW
    out = np.empty((len(keys), h * w))
    for row, t in enumerate(keys):
        grey = cv2.cvtColor(images[t], cv2.COLOR_RGB2GRAY)
        out[row] = cv2.resize(grey, (w, h), interpolation=cv2.INTER_AREA).ravel()
    out -= out.mean(1, keepdims=True)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
