"""Masked components that do not move: their flow is that of a static scene at some depth.

Evidence of motion is found while cameras and depth are still uncertain. With the final cameras
every masked pixel is tested again: flow across the epipolar line must vanish, and flow along it
must be that of one depth in all neighbouring frames. Where a static surface explains the images
better than flow does, flow is wrong and no evidence (`dyn3r.motion.photometric_test`). Connected
pixels are judged together, by these measurements and by the probability that the mask network
states; static parts of moving objects are judged by their neighbourhood.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dyn3r.flow.fields import neighbouring_rows, sampled_on
from dyn3r.flow.noise import (
    MEDIAN_NORMAL_ERROR,
    flow_variance_px2,
    texture_covariance_px2,
    whitening_of,
)
from dyn3r.geometry.filters import masked_median
from dyn3r.geometry.reprojection import pixel_maps, static_flow
from dyn3r.io.devices import float64_device
from dyn3r.motion.photometric_test import better_static
from dyn3r.motion.probability import agreeing
from dyn3r.types import FlowFields, Geometry, Motion

DEPTH_SIGMA = 0.4
"""Standard error of the log depth of a masked pixel: that of the embedded network. 0.2 and 0.6
give the same masks on 17 of 18 clips (docs/experiments.md)."""
LARGEST_DEPTH_ERROR = 3 * DEPTH_SIGMA
"""Largest error of a log depth."""
BRIGHTNESS_SIGMA = 6.0
"""Standard error of the brightness (0..255) of a pixel, from which that of flow on weak texture
follows. Source: twice the noise of a camera, as neighbours share errors; with 3 and 10 masks of 32
clips are as exact (docs/experiments.md)."""
WITHIN = 3.0
"""Largest error, in standard errors of flow, of a static point."""
MIN_SCALE = 1 / 3
"""Lower bound of the estimated scale of the standard errors: 0.1 pixels on perfect texture."""
MIN_SAMPLES = 20
"""Static pixels of a pair from which the scale is estimated; with fewer it is 1."""
AT_REST = 0.5
"""A component rests in a frame if this share of its measurements is static: most of them."""
STATIC = 0.7
"""A part of a moving component is static if this share of the measurements around it is. Source:
the middle of 0.65 to 0.75, within which masks of 73 development clips are as exact
(docs/experiments.md)."""
SHARE_WEIGHT = 2 / 3
"""Weight of the log odds that a measurement of a component is static, where those of the mask
network weigh 1. Source: logistic regressions over 167 and over 133 components of development clips
give 0.66 and 0.68 (docs/experiments.md)."""
PRIOR_LOG_ODDS = 1.85
"""A component moves if its log odds exceed this. Source: the middle of 1.75 to 1.95, within which
masks of these clips are as exact."""
LARGEST_SHARE = 0.98
"""Shares and probabilities are bounded by this, and by its complement: errors of both are alike in
all pixels of a component."""
NEIGHBOURHOOD = 0.03
"""Standard deviation of the neighbourhood in which a part is judged, as a share of the long side.
0.015 and 0.02 give the same mean accuracy on 23 development clips (docs/experiments.md)."""
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


def without_static_components(
    motion: Motion,
    images: UInt8[np.ndarray, "n h w 3"],
    geometry: Geometry,
    flow: FlowFields,
    device: str = "cpu",
) -> Motion:
    """Motion without what a static scene explains: whole components of its masks, and parts.

    First `static_parts` are left out: a moving object may hold static ones together. Then
    components, connected in space and time over neighbouring pixels and successive frames, whose
    share of static measurements is too large for their mean probability: by the log odds of both.
    Those that no measurement reaches are kept; without a probability most of the measurements
    decide. Where flow is wrong (`better_static`) it says that of a static surface. Measurements are
    tested on `device`, components are found on the CPU.
    """
    if not motion.masks.any():
        return motion
    test = static_test(motion.masks, images, geometry, flow, device)
    better = better_static(
        motion.masks, images, geometry, flow, LARGEST_DEPTH_ERROR, STRIDE, device
    )
    test = test._replace(static=np.where(better, test.all, test.static))
    probability = agreeing(motion.probability, motion.masks)
    masks = motion.masks & ~static_parts(motion.masks, test)
    masks = _moving_components(masks, test, probability)
    if (masks == motion.masks).all():
        return motion
    if masks.any():
        shares = f"{motion.masks.mean():.1%} -> {masks.mean():.1%}"
        reason = f"{motion.reason}; {shares}: the rest is static with the final cameras"
    else:
        reason = "what seemed to move is static with the final cameras"
    return replace(motion, masks=masks, reason=reason)


def _moving_components(
    masks: Bool[np.ndarray, "n h w"],
    test: StaticTest,
    probability: UInt8[np.ndarray, "n h w"] | None,
) -> Bool[np.ndarray, "n h w"]:
    """The components of the masks that move."""
    from scipy.ndimage import label, mean, sum_labels

    components, count = label(masks, np.ones((3, 3, 3)))
    each = np.arange(1, count + 1)
    tested = components[:, ::STRIDE, ::STRIDE]
    static, total = (sum_labels(x, tested, each) for x in test)
    log_odds = -SHARE_WEIGHT * _log_odds((static + 1) / (total + 2))  # Laplace's rule
    if probability is not None:
        log_odds += _log_odds(mean(probability, components, each) / 255) - PRIOR_LOG_ODDS
    moves = (total == 0) | (log_odds >= 0)
    return np.asarray(np.concatenate([[False], moves])[components])


def _log_odds(share: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    bounded = share.clip(1 - LARGEST_SHARE, LARGEST_SHARE)
    return np.log(bounded / (1 - bounded))


def static_parts(masks: Bool[np.ndarray, "n h w"], test: StaticTest) -> Bool[np.ndarray, "n h w"]:
    """Parts of moving components that a static scene explains, such as a post before an animal.

    Around each of their pixels, more than STATIC of the measurements agree with a static
    scene. In a frame in which a whole component is static, its object rests: then it has no such
    parts.
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
        moves = static_all <= AT_REST * total_all
        out[t] = masks[t] & (static > STATIC * total) & moves[components]
    return out


def static_test(
    masks: Bool[np.ndarray, "n h w"],
    images: UInt8[np.ndarray, "n h w 3"],
    geometry: Geometry,
    flow: FlowFields,
    device: str = "cpu",
) -> StaticTest:
    """Test the flow of masked pixels to the neighbouring frames for a static point of one depth.

    The covariance of flow is that of its length and of the texture of the image: on a plain surface
    it says nothing. On `device`, in double precision: images, tested depth and flow of frames with
    masks go there once, and the numbers of measurements come back.
    """
    device = float64_device(device)
    tested = torch.from_numpy(np.ascontiguousarray(masks[:, ::STRIDE, ::STRIDE])).to(device)
    counts = torch.zeros(2, *tested.shape, dtype=torch.int64, device=device)
    near = neighbouring_rows(flow.edges)  # the flow of others is less certain
    for i in np.flatnonzero(masks.any((1, 2))):
        rows = near[flow.edges[near, 0] == i]
        if len(rows):
            image = torch.from_numpy(np.ascontiguousarray(images[i])).to(device)
            error, visible = _whitened_errors(rows, image, geometry, flow)
            static = _within(error, visible & ~tested[i]) & visible
            counts[:, i] = torch.stack([(x & tested[i]).sum(0) for x in (static, visible)])
    return StaticTest(*counts.cpu().numpy())


def _whitened_errors(
    rows: np.ndarray, image: UInt8[Tensor, "h w 3"], geometry: Geometry, flow: FlowFields
) -> tuple[Float[Tensor, "m th tw"], Bool[Tensor, "m th tw"]]:
    """Errors of the flow of one frame's pairs at the best depth of each pixel; where it is seen.

    In standard errors. The depth is that of least squared error, with the geometry's as a prior.
    `image`: that frame, on the device.
    """
    measured, visible = sampled_on(image.device, flow, rows, STRIDE)
    induced, deeper = _induced(rows, geometry, flow, image.device)
    texture = texture_covariance_px2(image, BRIGHTNESS_SIGMA)
    uu, cross, vv = (x[::STRIDE, ::STRIDE] for x in texture)
    variance = flow_variance_px2(*measured.unbind(1))
    W = whitening_of(uu + variance, cross, vv + variance)
    error = _whitened(induced - measured, W)
    slope = _whitened(deeper.sub_(induced).div_(STEP), W)
    gradient = (visible * _product(error, slope)).sum(0)
    curvature = (visible * _product(slope, slope)).sum(0) + DEPTH_SIGMA**-2
    change = (-gradient / curvature).clamp(-LARGEST_DEPTH_ERROR, LARGEST_DEPTH_ERROR)
    left = error.addcmul_(slope, change)
    return _product(left, left).sqrt_(), visible


def _whitened(
    values: Float[Tensor, "m 2 th tw"], W: tuple[Tensor, Tensor, Tensor]
) -> Float[Tensor, "m 2 th tw"]:
    """W times the vectors of every pixel."""
    u, v = values.unbind(1)
    a, b, c = W
    return torch.stack([a * u + b * v, c * v], 1)


def _product(a: Float[Tensor, "m 2 th tw"], b: Float[Tensor, "m 2 th tw"]) -> Tensor:
    """Scalar products of the vectors of every pixel."""
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1]


def _induced(
    rows: np.ndarray, geometry: Geometry, flow: FlowFields, device: torch.device
) -> tuple[Float[Tensor, "m 2 th tw"], Float[Tensor, "m 2 th tw"]]:
    """Flow of a static scene, of pairs of one frame (STRIDE), and of one that is STEP deeper."""
    i, others = int(flow.edges[rows[0], 0]), flow.edges[rows, 1]
    P = pixel_maps(geometry.K, geometry.T_world_camera, i, others, device)
    tested = np.ascontiguousarray(geometry.depth[i][::STRIDE, ::STRIDE])
    depth = torch.from_numpy(tested).to(device).double()
    return static_flow(P, depth, STRIDE), static_flow(P, depth * np.exp(STEP), STRIDE)


def _within(
    error: Float[Tensor, "m th tw"], background: Bool[Tensor, "m th tw"]
) -> Bool[Tensor, "m th tw"]:
    """Whether errors are small for the noise of their pair, estimated from the background."""
    where = background.flatten(1)
    typical = masked_median(error.flatten(1), where) / MEDIAN_NORMAL_ERROR
    scale = torch.where(where.sum(1) >= MIN_SAMPLES, typical.clamp(min=MIN_SCALE), 1.0)
    return error < WITHIN * scale[:, None, None]
