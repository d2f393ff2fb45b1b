"""Residual of measured flow against the static-scene flow fitted to it (ours).

Neither predicted cameras nor the scale of predicted depth are needed: static-scene flow is fitted
to the measured flow (`dyn3r.motion.rigid_flow`), and residuals are judged in units of the standard
error of measured flow.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.io.workers import ordered_map
from dyn3r.motion.flow_sampling import round_trip_px, sample_along_flow
from dyn3r.motion.options import FlowCueOptions
from dyn3r.motion.residual_means import PairResidual, ResidualMeans
from dyn3r.motion.rigid_flow import fit_static_flow, length_of, nearest_static_flow
from dyn3r.types import FlowFields, PairPredictions, Progress

MIN_VISIBLE = 0.2
"""Share of its pixels that a pair must see of each other; other pairs do not count."""
NOISE_PX = 0.5
"""Standard error in pixels that measured flow always has."""
NOISE_SHARE = 0.05
"""Further standard error as a share of the flow's length."""
NOISE_FACTOR = 3.0
"""Evidence is 1/2 where the residual is this many standard errors."""
COLOR_NOISE = 4.0
"""Difference of colours (0..255) that noise and interpolation alone make."""
COLOR_WINDOW_PX = 5
"""Side of the window over which differences of colours are averaged."""
PAIRS_AT_ONCE = 16
"""Pairs that static-scene flow is fitted to together."""
CHANNEL_MEAN = np.full(3, 1 / 3, np.float32)
"""Weights of red, green and blue. A product with them is faster than a mean over a short axis."""


def rigid_residual(
    inverse_depth: Float[np.ndarray, "n h w"],
    images: UInt8[np.ndarray, "n h w 3"],
    flow: FlowFields,
    options: FlowCueOptions,
    progress: Progress,
) -> ResidualMeans:
    """Mean residuals of every frame over its pairs. `inverse_depth` has a median of about 1."""
    means = ResidualMeans(images.shape[:3])
    row_of = {(int(i), int(j)): row for row, (i, j) in enumerate(flow.edges)}
    inverse = inverse_depth.astype(np.float32)

    def fit(start: int) -> Float[np.ndarray, "k 3 4"]:
        rows = slice(start, start + PAIRS_AT_ONCE)
        fields = np.asarray(flow.flow[rows], dtype=np.float32)
        depths = inverse_depth[flow.edges[rows, 0]]
        return fit_static_flow(fields, _visible(flow, rows), depths, NOISE_PX)

    starts = range(0, len(flow.edges), PAIRS_AT_ONCE)
    fits = [P for some in ordered_map(fit, starts) for P in some]

    def compare(row: int) -> tuple[PairResidual, Bool[np.ndarray, "h w"]] | None:
        (i, j), P = flow.edges[row].tolist(), fits[row]
        visible = _visible(flow, slice(row, row + 1))[0]
        if visible.mean() < MIN_VISIBLE or not np.isfinite(P).all():
            return None
        field = np.asarray(flow.flow[row], dtype=np.float32)
        static = nearest_static_flow(P, field, inverse[i], depth_tolerance=options.depth_tolerance)
        back = row_of.get((j, i))
        residual = _pair_residual(
            field, static, None if back is None else flow.flow[back], visible, j - i
        )
        if options.photometric:
            residual = _with_colors(residual, images[i], images[j], field, static)
        return residual, visible

    for row, found in enumerate(ordered_map(compare, range(len(flow.edges)))):
        progress("comparing flow", row + 1, len(flow.edges))
        if found is not None:
            means.add(int(flow.edges[row, 0]), *found)
    return means


def mean_inverse_depth(
    predictions: PairPredictions, num_frames: int, size_hw: tuple[int, int]
) -> Float[np.ndarray, "n h w"]:
    """Inverse depth of every frame, median 1: mean of log depth over its pairs (i, .).

    Weighted by log confidence, without the scale of each pair. 1 for frames without pairs.
    """
    total = np.zeros((num_frames, *size_hw))
    weights = np.zeros((num_frames, *size_hw))
    for chunk in predictions.chunks():
        for row, i in enumerate(chunk.edges[:, 0].tolist()):
            depth = np.nan_to_num(chunk.points1[row, ..., 2].numpy(), nan=1e-6).clip(1e-6)
            weight = np.nan_to_num(np.log(chunk.conf1[row].numpy().clip(1.0))) + 1e-3
            total[i] += weight * np.log(depth / np.median(depth))
            weights[i] += weight
    return np.exp(-total / np.maximum(weights, 1e-9)).clip(0.02, 5.0)


def _visible(flow: FlowFields, rows: slice) -> Bool[np.ndarray, "k h w"]:
    if flow.visible is not None:
        return np.asarray(flow.visible[rows], dtype=bool)
    return np.ones(flow.flow[rows].shape[:3], bool)


def _pair_residual(
    measured: Float[np.ndarray, "h w 2"],
    static: Float[np.ndarray, "h w 2"],
    backward: Float[np.ndarray, "h w 2"] | None,
    visible: Bool[np.ndarray, "h w"],
    frames_apart: int,
) -> PairResidual:
    """Residual of one pair: evidence s^2 / (s^2 + k^2), s = distance / standard error."""
    distance_px = length_of(static - measured)
    miss_px = 0.0 if backward is None else round_trip_px(measured, backward)
    noise_px = np.sqrt(NOISE_PX**2 + (NOISE_SHARE * length_of(measured)) ** 2 + miss_px**2)
    # where the whole pair fits badly (wrong depth, failed flow) only outliers count
    noise_px = np.maximum(noise_px, 1.48 * np.median(distance_px[visible]))
    squared = (distance_px / (NOISE_FACTOR * noise_px)) ** 2
    evidence = squared / (squared + 1)
    velocity = (measured - static) * (100 / measured.shape[1] / float(frames_apart))
    return PairResidual(evidence, distance_px, evidence, np.ones_like(evidence), velocity)


def _with_colors(
    residual: PairResidual,
    source: UInt8[np.ndarray, "h w 3"],
    target: UInt8[np.ndarray, "h w 3"],
    measured: Float[np.ndarray, "h w 2"],
    static: Float[np.ndarray, "h w 2"],
) -> PairResidual:
    """Geometric mean of the evidence and of how much worse static-scene flow explains the colours.

    The latter is a^2 / (a^2 + 2 (b^2 + noise^2)), where a and b are the mean differences of colours
    after warping the target by static-scene and by measured flow: 1/3 where both are equally bad,
    near 0 where both are good.
    """
    a, b = (_color_difference(source, target, field) for field in (static, measured))
    by_color = a**2 / (a**2 + 2 * (b**2 + COLOR_NOISE**2))
    return residual._replace(evidence=np.sqrt(residual.evidence * by_color), by_color=by_color)


def _color_difference(
    source: UInt8[np.ndarray, "h w 3"],
    target: UInt8[np.ndarray, "h w 3"],
    field: Float[np.ndarray, "h w 2"],
) -> Float[np.ndarray, "h w"]:
    """Mean absolute difference (0..255) of the source from the target warped by the flow."""
    import cv2

    warped = sample_along_flow(target, field).astype(np.float32)
    difference = np.abs(warped - source.astype(np.float32)) @ CHANNEL_MEAN
    window = (COLOR_WINDOW_PX, COLOR_WINDOW_PX)
    return np.asarray(cv2.boxFilter(difference, -1, window, borderType=cv2.BORDER_REFLECT))
