"""Last stage of the pipeline: uncertainty, visibility and confidence of the delivered geometry.

A pure function of what a Scene stores. Depth is z in camera coordinates, in the scene's unit of
length, 0 where unknown. Sigma is the standard deviation of the logarithm of depth: 0.05 means 5 %.

    sigma^2 = FLOOR^2 + (DISAGREEMENT d)^2 + (SHARED d_clip)^2 + (DRIFT s)^2 + photometric
              + MOVING^2 on moving pixels

s: how far the scale of the frame's depth is from the other frames' (log); d: median |log|
disagreement with the depth of neighbouring frames apart from that; d_clip: its median over the
clip, as frames that share cameras and a network share errors too; photometric: mean square of the
log depth offset under a prior and the likelihood of the other frames' brightness.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8
from scipy.linalg import solveh_banded

from dyn3r.mvs.plane_sweep import SweepFeatures

NEIGHBOURS = 16
"""Frames that a frame is compared with: the nearest in time."""
LARGEST = 0.5
"""Log disagreement (a factor of 1.65) at which comparisons are clipped (Huber 1964): beyond it,
its size no longer says how wrong a depth is."""
SPARSE = 4
"""Scales of frames are compared on every 4th pixel of every 4th row."""
LEAST_OVERLAP = 0.02
"""Share of a frame that another must see for their scales to be compared."""
SOURCES = 6
"""Of those frames, how many are compared in brightness, evenly spread in time (as stereo.sweep)."""
OFFSETS = np.array([-0.35, -0.18, -0.08, -0.03, 0, 0.03, 0.08, 0.18, 0.35], np.float32)
"""Offsets of log depth at which brightness is compared."""
GRID = 112
"""Brightness is compared on a grid of at most so many pixels along the longer side."""

# Calibration, all fitted together on synthetic clips by quantile regression at 68 % (Koenker and
# Bassett 1978): calibrate.py.
FLOOR = 0.05
DISAGREEMENT = 1.2
SHARED = 2.8
DRIFT = 1.5
TEMPERATURE = 0.0045
"""Difference of brightness (0..1) by which a depth becomes e times less likely."""
PRIOR, RELIEF = 0.06, 0.34
"""Prior sigma of log depth at the clip's median depth, and its growth per unit of |log(depth /
median)|: without parallax, depth is known up to a power of itself at best (bas-relief ambiguity)."""
MOVING = 0.2
"""Sigma of log depth that moving pixels have in addition: no other frame confirms them."""

SLACK = 2.0
"""Standard deviations of the difference of two log depths by which a floating pixel is in front."""


class Final(NamedTuple):
    """What `finalise` returns."""

    sigma_log_depth: Float32[np.ndarray, "n h w"]
    """Standard deviation of log depth; finite and above 0 everywhere."""
    valid: Bool[np.ndarray, "n h w"]
    """False where depth is unknown or floats in front of what other frames see."""
    confidence: Float32[np.ndarray, "n h w"]
    """1 / sigma, the signal-to-noise ratio of depth (20: known to 5 %); 0 where not valid."""


def final_judgement(
    depth: Float32[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    dynamic: Bool[np.ndarray, "n h w"],
    images: UInt8[np.ndarray, "n h w 3"] | None = None,
    network_confidence: Float[np.ndarray, "n h w"] | None = None,
) -> Final:
    """Uncertainty, visibility and confidence of the final depth.

    Without `images` the photometric term is its prior. `network_confidence` is not used: it is of
    an earlier depth, and its rank correlation with the error is about 0. Inputs and results are rounded as a
    half-precision file rounds them, so that a saved scene gives the same `valid` from a full and
    a half precision file. Time is linear in the frames.
    """
    del network_confidence
    depth = as_stored(depth)
    sigma = as_stored(log_depth_sigma(depth, K, T_world_camera, dynamic, images))
    valid = visible(depth, K, T_world_camera, dynamic, sigma)
    return Final(sigma, valid, as_stored(np.where(valid, 1 / sigma, 0)))


def as_stored(values: Float[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Values >= 0 rounded to 11 significant bits, ties to even, as half precision files hold them."""
    bits = np.array(values, np.float32).view(np.uint32)
    bits += np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


# --- uncertainty


def log_depth_sigma(
    depth: Float32[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    dynamic: Bool[np.ndarray, "n h w"],
    images: UInt8[np.ndarray, "n h w 3"] | None,
) -> Float32[np.ndarray, "n h w"]:
    """Standard deviation of log depth of every pixel: the formula at the top of this file."""
    n = len(depth)
    scale = frame_scales(depth, K, T_world_camera, dynamic)
    compared = [disagreement(i, depth, K, T_world_camera, dynamic, scale) for i in range(n)]
    every = np.concatenate([d[seen] for d, seen in compared])
    shared = float(np.median(every)) if len(every) else 0.0
    known = depth[depth > 0]
    middle = float(np.median(known)) if len(known) else 1.0
    features = None if images is None else SweepFeatures(images)
    sigma = np.empty(depth.shape, np.float32)
    for i, (d, seen) in enumerate(compared):
        prior = prior_sigma(depth[i], middle)
        costs = None
        if features is not None:
            costs = offset_costs(features, i, depth, K, T_world_camera, dynamic)
        variance = (DISAGREEMENT * smooth(d, seen)) ** 2
        variance += FLOOR**2 + (SHARED * shared) ** 2 + (DRIFT * scale[i]) ** 2
        variance += mean_square_offset(costs, prior, TEMPERATURE)
        variance[dynamic[i]] += MOVING**2
        sigma[i] = np.sqrt(variance)
    return sigma


def prior_sigma(depth: Float32[np.ndarray, "h w"], middle: float) -> Float32[np.ndarray, "h w"]:
    """Prior standard deviation of log depth; `middle`: median depth of the clip."""
    relief = np.log(np.where(depth > 0, depth, middle) / np.float32(middle))
    return np.sqrt(PRIOR**2 + (RELIEF * relief) ** 2).astype(np.float32)


def frame_scales(
    depth: Float32[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    dynamic: Bool[np.ndarray, "n h w"],
) -> Float[np.ndarray, " n"]:
    """Log scale of every frame's depth, median 0: the least squares solution of
    scale[i] - scale[j] = median log disagreement of frames i and j (scale synchronisation)."""
    n, h, w = depth.shape
    still = (depth > 0) & ~dynamic
    grid = np.arange(h * w).reshape(h, w)[SPARSE // 2 :: SPARSE, SPARSE // 2 :: SPARSE].ravel()
    laplacian, right = np.zeros((min(NEIGHBOURS + 1, n), n)), np.zeros(n)  # banded, lower
    laplacian[0] = 1e-6  # holds what no pair determines
    for i in range(n):
        at = grid[still[i].ravel()[grid]]
        for j, log_z, pixel in comparisons(i, at, depth, K, T_world_camera):
            usable = (pixel >= 0) & still[j].ravel()[pixel]
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
    still = (depth > 0) & ~dynamic
    at = np.flatnonzero(still[i])
    rows = [np.full((1, len(at)), np.inf, np.float32)]
    for j, log_z, pixel in comparisons(i, at, depth, K, T_world_camera):
        usable = (pixel >= 0) & still[j].ravel()[pixel]
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

    Errors of neighbours are alike while single comparisons are noisy; 7 pixels at 224."""
    side = 2 * (max(values.shape) // 64) + 1
    weight = cv2.blur(seen.astype(np.float32), (side, side))
    total = cv2.blur(np.where(seen, values * values, 0).astype(np.float32), (side, side))
    return np.sqrt(np.maximum(total, 0) / np.maximum(weight, 1e-3))


# --- brightness


def offset_costs(
    features: SweepFeatures,
    i: int,
    depth: Float32[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    dynamic: Bool[np.ndarray, "n h w"],
) -> Float32[np.ndarray, "d gh gw"]:
    """Difference of brightness (0..1) from other frames if the depth of frame i is changed by every
    one of `OFFSETS`: mean of the better half of the frames, so that occlusion does not count. On a
    grid of every `stride`-th pixel; NaN where nothing can be compared."""
    n, h, w = depth.shape
    stride = -(-max(h, w) // GRID)
    v, u = (x.astype(np.float32) for x in np.mgrid[0:h:stride, 0:w:stride])
    here = np.ascontiguousarray(features[i][::stride, ::stride])
    inverse = 1 / np.maximum(depth[i][::stride, ::stride], np.float32(1e-9))
    near = sorted(neighbours(i, n))
    picks = np.unique(np.linspace(0, len(near) - 1, min(SOURCES, len(near))).round().astype(int))
    costs = [np.full((1, len(OFFSETS), *u.shape), np.inf, np.float32)]
    for j in (near[k] for k in picks):
        there = np.dstack([features[j], (~dynamic[j]).astype(np.float32)])
        A, b = homography(i, j, K, T_world_camera)
        far = [A[k, 0] * u + A[k, 1] * v + A[k, 2] for k in range(3)]
        cost = [_difference(here, there, far, b, inverse * np.exp(-step)) for step in OFFSETS]
        costs.append(np.stack(cost)[None])
    ordered = np.sort(np.concatenate(costs), axis=0)[: (len(costs)) // 2]
    seen = np.isfinite(ordered)
    count = seen.sum(0)
    total = np.where(seen, ordered, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _difference(
    here: Float32[np.ndarray, "gh gw 3"],
    there: Float32[np.ndarray, "h w 4"],
    far: list[np.ndarray],
    b: Float32[np.ndarray, "3"],
    inverse: Float32[np.ndarray, "gh gw"],
) -> Float32[np.ndarray, "gh gw"]:
    """Mean difference of brightness in 5 x 5 grid points at one inverse depth per pixel; infinite
    where less than 40 % of them are seen and static. Channel 4 of `there`: static."""
    q = [far[k] + b[k] * inverse for k in range(3)]
    front = q[2] > 1e-6
    z = np.where(front, q[2], 1)
    x, y = np.where(front, q[0] / z, -99), np.where(front, q[1] / z, -99)
    found = cv2.remap(there, x, y, cv2.INTER_LINEAR)
    usable = (found[..., 3] > 0.7).astype(np.float32)
    apart = cv2.transform(cv2.absdiff(found[..., :3], here), np.full((1, 3), 1 / 3))
    share = cv2.blur(usable, (5, 5))
    total = cv2.blur(np.minimum(apart, 1) * usable, (5, 5))
    return np.where(share > 0.4, total / np.maximum(share, 1e-3), np.inf).astype(np.float32)


def mean_square_offset(
    costs: Float32[np.ndarray, "d gh gw"] | None,
    prior: Float32[np.ndarray, "h w"],
    temperature: float,
) -> Float32[np.ndarray, "h w"]:
    """Mean square of the offset of log depth, about the depth as it is, under the prior
    N(0, prior^2) and the likelihood exp(-cost / temperature)."""
    h, w = prior.shape
    weight = np.exp(-0.5 * (OFFSETS[:, None, None] / prior) ** 2)
    if costs is not None:
        costs = np.nan_to_num(costs - costs.min(0), nan=0.0)
        costs = np.stack([cv2.resize(cost, (w, h)) for cost in costs])
        weight *= np.exp(-costs / np.float32(temperature))
    weight *= np.gradient(OFFSETS)[:, None, None]
    total = np.maximum(weight.sum(0), 1e-12)
    return (np.tensordot(OFFSETS**2, weight, 1) / total).astype(np.float32)


# --- visibility


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
    for i in range(len(depth)):
        at = np.flatnonzero(valid[i] & ~dynamic[i])
        own = sigma[i].ravel()[at]
        floats = np.zeros(len(at), bool)
        for j, log_z, pixel in comparisons(i, at, depth, K, T_world_camera):
            other, theirs = depth[j].ravel()[pixel], sigma[j].ravel()[pixel]
            judge = (pixel >= 0) & (other > 0) & ~dynamic[j].ravel()[pixel] & (theirs < own)
            behind = np.log(np.where(judge, other, 1)) - log_z
            floats |= judge & (behind > SLACK * np.sqrt(own * own + theirs * theirs))
        valid[i].ravel()[at[floats]] = False
    return valid


# --- geometry


def comparisons(
    i: int,
    at: Int[np.ndarray, " k"],
    depth: Float32[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
) -> Iterator[tuple[int, Float32[np.ndarray, " k"], Int[np.ndarray, " k"]]]:
    """Pixels `at` (row-major) of frame i in its neighbouring frames j: (j, log z in the camera of j,
    nearest pixel of frame j or -1 where there is none)."""
    n, h, w = depth.shape
    v, u = (x.astype(np.float32) for x in np.divmod(at, w))
    z = depth[i].ravel()[at]
    for j in neighbours(i, n):
        A, b = homography(i, j, K, T_world_camera)
        q = [(A[k, 0] * u + A[k, 1] * v + A[k, 2]) * z + b[k] for k in range(3)]
        front = q[2] > 1e-6 * z
        there = np.where(front, q[2], 1)
        column, row = np.rint(q[0] / there), np.rint(q[1] / there)
        inside = front & (column >= 0) & (column < w) & (row >= 0) & (row < h)
        pixel = np.where(inside, row * w + column, -1).astype(np.int32)
        yield j, np.log(there), pixel


def homography(
    i: int, j: int, K: Float[np.ndarray, "n 3 3"], T_world_camera: Float[np.ndarray, "n 4 4"]
) -> tuple[Float32[np.ndarray, "3 3"], Float32[np.ndarray, "3"]]:
    """A, b: pixel x of frame i at depth z lies in frame j at A x + b / z; b in units of length."""
    T = np.linalg.inv(T_world_camera[j]) @ T_world_camera[i]
    A, b = K[j] @ T[:3, :3] @ np.linalg.inv(K[i]), K[j] @ T[:3, 3]
    return A.astype(np.float32), b.astype(np.float32)


def neighbours(i: int, n: int) -> list[int]:
    """The `NEIGHBOURS` frames nearest in time to frame i of n, nearest first."""
    window = range(max(0, i - NEIGHBOURS), min(n, i + NEIGHBOURS + 1))
    return sorted((j for j in window if j != i), key=lambda j: (abs(j - i), j))[:NEIGHBOURS]
