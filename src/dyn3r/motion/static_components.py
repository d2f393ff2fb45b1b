"""Masked components that do not move: their flow is that of a static scene at some depth.

Evidence of motion is found while cameras and depth are still uncertain. With the final cameras
every masked pixel is tested again: flow across the epipolar line must vanish, and flow along it
must be that of one depth in all neighbouring frames. Connected pixels are judged together, static
parts of moving objects by their neighbourhood.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from dyn3r.flow.fields import neighbouring_rows
from dyn3r.flow.noise import MEDIAN_NORMAL_ERROR, flow_sigma_px
from dyn3r.geometry.induced_flow import induced_flow
from dyn3r.types import FlowFields, Geometry, Motion

DEPTH_SIGMA = 0.4
"""Standard error of the log depth of a masked pixel: that of the embedded network. 0.2 and 0.6
give the same masks on 17 of 18 clips (docs/results.md)."""
LARGEST_DEPTH_ERROR = 3 * DEPTH_SIGMA
"""Largest error of a log depth."""
WITHIN = 3.0
"""Largest error, in standard errors of flow, of a static point."""
MIN_SCALE = 1 / 3
"""Lower bound of the estimated scale of the standard errors: 0.1 pixels on perfect texture."""
MIN_SAMPLES = 20
"""Static pixels of a pair from which the scale is estimated; with fewer it is 1."""
STATIC = 0.5
"""A component is static if this share of its measurements is: most of them."""
NEIGHBOURHOOD = 0.03
"""Standard deviation of the neighbourhood in which a part is judged, as a share of the long side.
0.015 and 0.02 give the same mean accuracy on 23 development clips (docs/results.md)."""
STEP = 0.02
"""Change of log depth in the derivative of flow."""
STRIDE = 2
"""Every second row and column is tested. Source: run time."""


class StaticTest(NamedTuple):
    """Number of measurements of every tested pixel that is masked."""

    static: Int[np.ndarray, "n th tw"]
    """That a static point explains."""
    all: Int[np.ndarray, "n th tw"]
    """That are visible."""


def without_static_components(motion: Motion, geometry: Geometry, flow: FlowFields) -> Motion:
    """Motion without what a static scene explains: whole components of its masks, and parts.

    Components are connected in space and time, over neighbouring pixels and successive frames.
    Those that no measurement reaches are kept. Of those that move, `static_parts` are left out.
    """
    if not motion.masks.any():
        return motion
    test = static_test(motion.masks, geometry, flow)
    masks = _moving_components(motion.masks, test)
    masks &= ~static_parts(masks, test)
    if (masks == motion.masks).all():
        return motion
    if masks.any():
        return replace(motion, masks=masks)
    reason = "what seemed to move is static with the final cameras"
    return replace(motion, masks=masks, has_motion=False, reason=reason)


def _moving_components(
    masks: Bool[np.ndarray, "n h w"], test: StaticTest
) -> Bool[np.ndarray, "n h w"]:
    """The components of the masks that are not static."""
    from scipy.ndimage import label, sum_labels

    components, count = label(masks, np.ones((3, 3, 3)))
    tested = components[:, ::STRIDE, ::STRIDE]
    static, total = (sum_labels(x, tested, np.arange(count + 1)) for x in test)
    kept = (total == 0) | (static <= STATIC * total)
    kept[0] = False  # the background
    return np.asarray(kept[components])


def static_parts(masks: Bool[np.ndarray, "n h w"], test: StaticTest) -> Bool[np.ndarray, "n h w"]:
    """Parts of moving components that a static scene explains, such as a post before an animal.

    Around each of their pixels, at most STATIC of the measurements contradict a static scene. In a
    frame in which a whole component is static, its object rests: then it has no such parts.
    """
    import cv2
    from scipy.ndimage import gaussian_filter, label

    n, h, w = masks.shape
    tested = masks[:, ::STRIDE, ::STRIDE]
    counts = [np.where(tested, x, 0).astype(np.float32) for x in test]
    across = NEIGHBOURHOOD * max(h, w) / STRIDE
    around = [gaussian_filter(x, (1.0, across, across)) for x in counts]
    out = np.zeros_like(masks)
    for t in range(n):
        static, total = (cv2.resize(x[t], (w, h), interpolation=cv2.INTER_LINEAR) for x in around)
        components, count = label(masks[t], np.ones((3, 3)))
        sampled = components[::STRIDE, ::STRIDE].ravel()
        static_all, total_all = (np.bincount(sampled, x[t].ravel(), count + 1) for x in counts)
        moves = static_all <= STATIC * total_all
        out[t] = masks[t] & (static > STATIC * total) & moves[components]
    return out


def static_test(
    masks: Bool[np.ndarray, "n h w"], geometry: Geometry, flow: FlowFields
) -> StaticTest:
    """Test the flow of masked pixels to the neighbouring frames for a static point of one depth."""
    tested = masks[:, ::STRIDE, ::STRIDE]
    test = StaticTest(np.zeros(tested.shape, np.int64), np.zeros(tested.shape, np.int64))
    near = neighbouring_rows(flow.edges)  # the flow of others is less certain
    for i in np.flatnonzero(masks.any((1, 2))):
        rows = near[flow.edges[near, 0] == i]
        if len(rows):
            error, visible = _whitened_errors(rows, geometry, flow)
            static = _within(error, visible & ~tested[i]) & visible
            test.static[i], test.all[i] = (static & tested[i]).sum(0), (visible & tested[i]).sum(0)
    return test


def _whitened_errors(
    rows: np.ndarray, geometry: Geometry, flow: FlowFields
) -> tuple[Float[np.ndarray, "m th tw"], Bool[np.ndarray, "m th tw"]]:
    """Errors of the flow of one frame's pairs at the best depth of each pixel; where it is seen.

    In standard errors. The depth is that of least squared error, with the geometry's as a prior.
    """
    here = (slice(None), slice(None, None, STRIDE), slice(None, None, STRIDE))
    measured = np.asarray(flow.flow[rows], np.float32)[here]
    visible = np.ones(measured.shape[:3], bool)
    if flow.visible is not None:
        visible = np.asarray(flow.visible[rows])[here]
    induced, deeper = (_induced(rows, geometry, flow, scale) for scale in (1, np.exp(STEP)))
    sigma = flow_sigma_px(measured)
    error, slope = induced - measured, (deeper - induced) / STEP
    weight = visible / sigma**2
    gradient = (weight * (error * slope).sum(-1)).sum(0)
    curvature = (weight * (slope * slope).sum(-1)).sum(0) + DEPTH_SIGMA**-2
    change = np.clip(-gradient / curvature, -LARGEST_DEPTH_ERROR, LARGEST_DEPTH_ERROR)
    return np.linalg.norm(error + change[..., None] * slope, axis=-1) / sigma, visible


def _induced(
    rows: np.ndarray, geometry: Geometry, flow: FlowFields, scale: float
) -> Float[np.ndarray, "m th tw 2"]:
    """Flow of a static scene at `scale` times the depth, of pairs of one frame (STRIDE)."""
    i, j = (torch.from_numpy(np.array(flow.edges[rows, k], np.int64)) for k in (0, 1))
    K, T = (torch.from_numpy(np.asarray(x)).double() for x in (geometry.K, geometry.T_world_camera))
    depth = torch.from_numpy(geometry.depth[flow.edges[rows[:1], 0]]).double() * scale
    every = depth.expand(len(rows), *depth.shape[1:])
    return np.asarray(induced_flow(every, K[i], T[i], K[j], T[j], stride=STRIDE).numpy())


def _within(
    error: Float[np.ndarray, "m th tw"], background: Bool[np.ndarray, "m th tw"]
) -> Bool[np.ndarray, "m th tw"]:
    """Whether errors are small for the noise of their pair, estimated from the background."""
    scale = np.ones(len(error))
    for k, (e, where) in enumerate(zip(error, background)):
        if where.sum() >= MIN_SAMPLES:
            scale[k] = max(float(np.median(e[where])) / MEDIAN_NORMAL_ERROR, MIN_SCALE)
    return error < WITHIN * scale[:, None, None]
