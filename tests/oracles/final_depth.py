"""Uncertainty of depth and rejected pixels in NumPy and OpenCV, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from dyn3r.scene.compared_depth import LARGEST, LEAST_OVERLAP, SPARSE
from dyn3r.scene.depth_uncertainty import (
    DISAGREEMENT,
    DRIFT,
    DYNAMIC,
    FLOOR,
    LARGEST_TRUST,
    SHARED,
    STAGE,
    TRUST,
    inverse_depth_fit,
    window,
)
from dyn3r.scene.visibility_rule import NEIGHBOURS, SLACK, as_stored, comparisons


def log_depth_sigma(
    depth: Float32[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    dynamic: Bool[np.ndarray, "n h w"],
    estimates: Sequence[Float32[np.ndarray, "n h w"]] = (),
    network_confidence: Float[np.ndarray, "n h w"] | None = None,
) -> Float32[np.ndarray, "n h w"]:
    """Standard deviation of log depth of every pixel: the formula at the top of this file.

    `estimates`: depth of earlier stages, in order; only the last counts: earlier ones added nothing
    on synthetic clips. `network_confidence`: above 1, as the pointmap network gives it.
    """
    n = len(depth)
    depth = as_stored(depth)
    scale = frame_scales(depth, K, T_world_camera, dynamic)
    compared = [disagreement(i, depth, K, T_world_camera, dynamic, scale) for i in range(n)]
    every = np.concatenate([d[seen] for d, seen in compared])
    shared = float(np.median(every)) if len(every) else 0.0
    apart = stage_difference(depth, estimates[-1], dynamic) if len(estimates) else None
    ratio = None if network_confidence is None else relative_trust(network_confidence)
    sigma = np.empty(depth.shape, np.float32)
    for i, (d, seen) in enumerate(compared):
        variance = (DISAGREEMENT * smooth(d, seen)) ** 2
        variance += (SHARED * shared) ** 2 + (DRIFT * scale[i]) ** 2
        if apart is not None:
            variance += (STAGE * smooth(apart[0][i], apart[1][i])) ** 2
        variance[dynamic[i]] += DYNAMIC**2
        if ratio is not None:
            variance *= np.exp(-2 * TRUST * ratio[i])
        sigma[i] = np.sqrt(variance + FLOOR**2)
    return sigma


def stage_difference(
    depth: Float32[np.ndarray, "n h w"],
    estimate: Float32[np.ndarray, "n h w"],
    dynamic: Bool[np.ndarray, "n h w"],
) -> tuple[Float32[np.ndarray, "n h w"], Bool[np.ndarray, "n h w"]]:
    """|log| difference of `depth` from another estimate of it, at most `LARGEST`, and the pixels
    that both know (0 elsewhere).

    One scale and shift of inverse depth for the clip are removed first: they say how the units and
    the relief of the whole differ, not where depth is wrong. Robust fit on static pixels: relative
    error, weights of Huber (1964) at 1.5 times the median residual.
    """
    known = (depth > 0) & (estimate > 0)
    there, own = 1 / np.where(known, estimate, 1), 1 / np.where(known, depth, 1)
    static = known & ~dynamic
    if static.sum() < 2:
        return np.zeros(depth.shape, np.float32), known
    scale, shift = inverse_depth_fit(there[static], own[static])
    mapped = np.maximum(scale * there + shift, np.float32(1e-3) * own)
    apart = np.minimum(np.abs(np.log(mapped / own)), np.float32(LARGEST))
    return np.where(known, apart, 0).astype(np.float32), known


def relative_trust(
    confidence: Float[np.ndarray, "n h w"],
) -> Float32[np.ndarray, "n h w"]:
    """Log of network confidence above 1, smoothed, less its median over the clip; within
    `LARGEST_TRUST` of 0."""
    import cv2

    log = np.log(np.maximum(confidence - 1, 1e-3)).astype(np.float32)
    side = window(confidence.shape[1:])
    log = np.stack([cv2.blur(frame, (side, side)) for frame in log])
    return np.clip(log - np.median(log), -LARGEST_TRUST, LARGEST_TRUST)


def frame_scales(
    depth: Float32[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    dynamic: Bool[np.ndarray, "n h w"],
) -> Float[np.ndarray, " n"]:
    """Log scale of every frame's depth, median 0: the least squares solution of
    scale[i] - scale[j] = median log disagreement of frames i and j (scale synchronisation)."""
    from scipy.linalg import solveh_banded

    n, h, w = depth.shape
    static = (depth > 0) & ~dynamic
    grid = np.arange(h * w).reshape(h, w)[SPARSE // 2 :: SPARSE, SPARSE // 2 :: SPARSE].ravel()
    laplacian, right = np.zeros((min(NEIGHBOURS + 1, n), n)), np.zeros(n)  # banded, lower
    laplacian[0] = 1e-6  # holds what no pair determines
    for i in range(n):
        at = grid[static[i].ravel()[grid]]
        for j, log_z, pixel in comparisons(i, at, depth, K, T_world_camera):
            usable = (pixel >= 0) & static[j].ravel()[pixel]
            if usable.sum() > LEAST_OVERLAP * len(grid):
                value = np.median(log_z[usable] - np.log(depth[j].ravel()[pixel[usable]]))
                laplacian[0, [i, j]] += 1
                laplacian[abs(i - j), min(i, j)] -= 1
                right[[i, j]] += value, -value
    scale = solveh_banded(laplacian, right, lower=True)
    return scale - np.median(scale)


def disagreement(
    i: int,
    depth: Float32[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    dynamic: Bool[np.ndarray, "n h w"],
    scale: Float[np.ndarray, " n"],
) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Median over the neighbouring frames of |log| disagreement of depth, the log `scale` of the
    frames apart, at most `LARGEST`; and the static pixels of frame i that are static and known in
    another frame at all (0 elsewhere)."""
    static = (depth > 0) & ~dynamic
    at = np.flatnonzero(static[i])
    rows = [np.full((1, len(at)), np.inf, np.float32)]
    for j, log_z, pixel in comparisons(i, at, depth, K, T_world_camera):
        usable = (pixel >= 0) & static[j].ravel()[pixel]
        apart = log_z - np.log(np.where(usable, depth[j].ravel()[pixel], 1))
        apart = np.minimum(np.abs(apart - np.float32(scale[i] - scale[j])), np.float32(LARGEST))
        rows.append(np.where(usable, apart, np.float32(np.inf))[None])
    ordered = np.sort(np.concatenate(rows), axis=0)
    count = np.isfinite(ordered).sum(0)
    median = ordered[np.maximum(count - 1, 0) // 2, np.arange(len(at))]
    values, seen = np.zeros(depth[i].size, np.float32), np.zeros(depth[i].size, bool)
    values[at], seen[at] = np.where(count > 0, median, 0), count > 0
    return values.reshape(depth[i].shape), seen.reshape(depth[i].shape)


def smooth(
    values: Float32[np.ndarray, "h w"], seen: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"]:
    """Root of the mean square over the pixels of a window that are `seen`; 0 where there are none.

    Errors of neighbours are alike while single comparisons are noisy."""
    import cv2

    side = window(values.shape)
    weight = cv2.blur(seen.astype(np.float32), (side, side))
    total = cv2.blur(np.where(seen, values * values, 0).astype(np.float32), (side, side))
    return np.sqrt(np.maximum(total, 0) / np.maximum(weight, 1e-3))


def visible(
    depth: Float32[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    dynamic: Bool[np.ndarray, "n h w"],
    sigma: Float32[np.ndarray, "n h w"],
) -> Bool[np.ndarray, "n h w"]:
    """Pixels with a depth that do not float in front of what other frames see (SPEC 6, Cleaning).

    A static pixel floats if it projects, to the nearest pixel, onto a static pixel of a
    neighbouring frame that has a smaller sigma and lies behind it by more than `SLACK` standard
    deviations of the difference of the two log depths. Every pixel is judged by itself: the result
    depends neither on the order of the frames nor on what else is rejected.
    """
    depth, sigma = as_stored(depth), as_stored(sigma)
    valid = depth > 0

    def floating(i: int) -> Int[np.ndarray, " k"]:
        at = np.flatnonzero(valid[i] & ~dynamic[i])
        own = sigma[i].ravel()[at]
        floats = np.zeros(len(at), bool)
        for j, log_z, pixel in comparisons(i, at, depth, K, T_world_camera):
            other, theirs = depth[j].ravel()[pixel], sigma[j].ravel()[pixel]
            judge = (pixel >= 0) & (other > 0) & ~dynamic[j].ravel()[pixel] & (theirs < own)
            behind = np.log(np.where(judge, other, 1)) - log_z
            floats |= judge & (behind > SLACK * np.sqrt(own * own + theirs * theirs))
        return at[floats]

    for i, pixels in enumerate(map(floating, range(len(depth)))):
        valid[i].ravel()[pixels] = False
    return valid
