"""Detail of depth: occluding contours against truth, and flicker from frame to frame."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

CONTOUR_PERCENT = np.arange(5, 26)
"""Ratios of neighbouring depths, in percent above 1, of a contour. Source: Depth Pro (Bochkovskii
et al. 2024), section 4: 5 to 25."""
SAME_SURFACE = 0.02
"""A true point shows in the next frame if the true log depth there differs by less than this."""


def contour_f1(
    predicted: Float[np.ndarray, "n h w"], truth: Float[np.ndarray, "n h w"]
) -> float | None:
    """F1 of occluding contours, 0..1; None if the truth has none.

    Between two neighbouring pixels there is a contour if the ratio of their depths is above
    1 + t / 100. F1 of the contours of all frames, whose side in front is the same, is averaged over
    CONTOUR_PERCENT with weights t. Neither a scale nor its unit matters. Pixels of unknown depth
    (0 or NaN) on either side are left out. A contour that is one pixel off is missed, so the value
    depends on the resolution.

    Source: Depth Pro, equations 1 to 3.
    """
    known = (predicted > 0) & (truth > 0) & np.isfinite(predicted) & np.isfinite(truth)
    p, t = (np.log(np.where(known, d, 1.0)) for d in (predicted, truth))
    steps = [_steps(x, known) for x in (p, t)]
    scores, weights = [], []
    for percent in CONTOUR_PERCENT:
        limit = np.log1p(percent / 100)
        found, true = ((s > limit, s < -limit) for s in steps)
        hits = sum(int((a & b).sum()) for a, b in zip(found, true))
        total = sum(int(a.sum()) for a in (*found, *true))
        if not any(a.any() for a in true):
            continue
        scores.append(2 * hits / total)
        weights.append(percent)
    return float(np.average(scores, weights=weights)) if scores else None


def _steps(log_depth: np.ndarray, known: Bool[np.ndarray, "n h w"]) -> Float[np.ndarray, " k"]:
    """Differences between neighbours along rows and columns; 0 where one is unknown."""
    parts = []
    for axis in (1, 2):
        both = np.diff(known.astype(np.int8), axis=axis) == 0
        both &= np.delete(known, 0, axis)
        parts.append(np.where(both, np.diff(log_depth, axis=axis), 0.0).ravel())
    return np.concatenate(parts)


def flicker(
    predicted: Float[np.ndarray, "n h w"],
    truth: Float[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    dynamic: Bool[np.ndarray, "n h w"] | None = None,
) -> float | None:
    """Median change of the log depth error of a static point from one frame to the next.

    Points are carried from frame to frame by true depth and cameras (OpenCV axes, K in pixels), to
    the nearest pixel. 0: steady, however wrong; 0.01: depth changes by 1 %. None without a point
    that two successive frames show.
    """
    changes = []
    for t in range(len(truth) - 1):
        if not (np.isfinite(T_world_camera[t : t + 2]).all() and np.isfinite(K[t : t + 2]).all()):
            continue
        static = truth[t] > 0 if dynamic is None else (truth[t] > 0) & ~dynamic[t]
        v, u = np.nonzero(static)
        rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K[t]).T
        points = rays * truth[t][v, u][:, None]
        move = np.linalg.inv(T_world_camera[t + 1]) @ T_world_camera[t]
        moved = points @ move[:3, :3].T + move[:3, 3]
        ahead = moved[:, 2] > 0
        u, v, moved = u[ahead], v[ahead], moved[ahead]
        x, y = np.rint((moved @ K[t + 1].T)[:, :2] / moved[:, 2:]).astype(int).T
        inside = (x >= 0) & (x < truth.shape[2]) & (y >= 0) & (y < truth.shape[1])
        u, v, x, y, z = u[inside], v[inside], x[inside], y[inside], moved[inside, 2]
        there = truth[t + 1][y, x]
        seen = (there > 0) & (np.abs(np.log(np.maximum(there, 1e-9) / z)) < SAME_SURFACE)
        if dynamic is not None:
            seen &= ~dynamic[t + 1][y, x]
        a, b = predicted[t][v, u], predicted[t + 1][y, x]
        seen &= (a > 0) & (b > 0)
        a, b = a[seen] / truth[t][v, u][seen], b[seen] / there[seen]
        changes.append(np.abs(np.log(b / a)))
    every = np.concatenate(changes) if changes else np.zeros(0)
    return float(np.median(every)) if len(every) else None
