"""Uncertainty of the final depth: the standard deviation of log depth of every pixel.

Depth is z in camera coordinates, in the scene's unit of length, 0 where unknown. Sigma is the
standard deviation of the logarithm of depth, dimensionless: 0.05 means 5 %.

    sigma^2 = FLOOR^2 + c^2 ((DISAGREEMENT d)^2 + (SHARED d_clip)^2 + (DRIFT s)^2 + (STAGE e)^2
                             + DYNAMIC^2 on dynamic pixels)

d: median |log| disagreement with the depth of neighbouring frames, apart from their scales; d_clip:
its median over the clip, as frames that share cameras and a network share errors too; s: how far
the scale of the frame's depth is from the other frames' (log); e: |log| difference from the depth
of the stage before, which was found in another way; c: (network confidence / its median)^-TRUST.
A term without input drops out: e without estimates, c = 1 without network confidence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32

from dyn3r.scene.visibility_rule import NEIGHBOURS, as_stored, comparisons

LARGEST = 0.5
"""Log disagreement (a factor of 1.65) at which comparisons are clipped: beyond it, its size no
longer says how wrong a depth is. Source: bounded influence (Huber 1964)."""
SPARSE = 4
"""Scales of frames are compared on every 4th pixel of every 4th row. Source: time."""
LEAST_OVERLAP = 0.02
"""Share of a frame that another must see for their scales to be compared. Source: about
45 of the pixels compared at 224 x 160, enough for a stable median."""
LARGEST_TRUST = 2.0
"""Log of the ratio of network confidence to its median at which it is clipped
(a factor of 7.4). Source: set, not fitted; bounds the effect of single confidences."""
ROUNDS = 5
"""Reweighted least squares solutions per fit. Source: 25 more change the fit by
at most 0.4 % on 22 of 24 synthetic clips (13 % on the worst)."""

# Source of the constants below: quantile regression at 68 % (Koenker and Bassett 1978) of the error
# on 24 synthetic clips after the ratio of medians as scale (evaluation.depth_metrics.align_depth),
# with a reward for its correlation within a clip; docs/results.md, Uncertainty of depth. FLOOR is
# set, not fitted.
FLOOR = 0.02
"""Sigma (log depth) where all agrees: below the errors of every synthetic clip (68 %: 0.03 up)."""
DISAGREEMENT = 1.10
"""Sigma per unit of disagreement between frames."""
SHARED = 4.24
"""Sigma per unit of the clip's median disagreement: shared errors show in no single comparison."""
DRIFT = 0.74
"""Sigma per unit of the scale of a frame (1 if the scale found were exactly its bias)."""
STAGE = 0.71
"""Sigma per unit of difference from the stage before."""
DYNAMIC = 0.155
"""Sigma of log depth that dynamic pixels have in addition: no other frame confirms them."""
TRUST = 0.17
"""Exponent of network confidence above 1 (its least value), relative to the median of the clip."""


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


def inverse_depth_fit(
    x: Float32[np.ndarray, " k"], y: Float32[np.ndarray, " k"]
) -> tuple[np.float32, np.float32]:
    """Scale and shift with scale x + shift = y, robust in relative error (`ROUNDS` of reweighting);
    scale alone where x is constant. x, y: inverse depth, 1 / length."""
    x, y = x[:: 1 + len(x) // 50_000].astype(np.float64), y[:: 1 + len(y) // 50_000]
    design = np.stack([x / y, 1 / y], 1).astype(np.float64)
    if np.ptp(x) < 1e-4 * np.median(x):
        return np.float32(np.median(y / x)), np.float32(0)
    weight = np.ones(len(x))
    for _ in range(ROUNDS):
        weighted = design * weight[:, None]
        solution = np.linalg.lstsq(weighted.T @ design, weighted.sum(0), rcond=None)[0]
        residual = np.abs(design @ solution - 1)
        knee = 1.5 * np.median(residual) + 1e-6
        weight = 1 / np.maximum(1, residual / knee)
    return np.float32(solution[0]), np.float32(solution[1])


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


def window(shape: tuple[int, ...]) -> int:
    """Side of the smoothing window, pixels: 7 at 224. Source: 15 pixels were no better (stage term,
    17 synthetic clips)."""
    return 2 * (max(shape) // 64) + 1
