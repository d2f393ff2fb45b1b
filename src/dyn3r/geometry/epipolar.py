"""How well given cameras explain what is seen: points tracked between frames lie on epipolar lines.

Sampson distance: Hartley and Zisserman, *Multiple View Geometry*, 2nd edition, section 11.4.3.
Tracks: Lucas-Kanade in pyramids (Bouguet 2000), kept where forward and backward agree.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

MAX_PAIRS = 12
MAX_GAP = 4
"""Largest distance of two frames in the clip; tracks over more of it are often lost."""
FOCALS = (0.6, 0.8, 1.0, 1.3)
"""Focal lengths that are tried, in widths of the image: horizontal fields of 80 to 42 degrees."""
_MIN_TRACKS = 20


def epipolar_error_px(
    images: UInt8[np.ndarray, "n h w 3"], T_world_camera: Float[np.ndarray, "n 4 4"]
) -> float:
    """Median Sampson distance of tracked points in pixels, with the focal length that fits best.

    Cameras of NaN are unknown. Infinite if nothing can be tracked between frames that are known.
    """
    known = np.flatnonzero(np.isfinite(T_world_camera).all(axis=(1, 2)))
    gap = min(MAX_GAP, len(known) - 1)
    if gap < 1:
        return np.inf
    starts = known[np.unique(np.linspace(0, len(known) - 1 - gap, MAX_PAIRS).astype(int))]
    height, width = images.shape[1:3]
    distances: list[list[np.ndarray]] = [[] for _ in FOCALS]
    for i in starts.tolist():
        j = int(known[np.searchsorted(known, i) + gap])
        before, after = _tracked(images[i], images[j])
        if len(before) < _MIN_TRACKS:
            continue
        T = np.linalg.inv(T_world_camera[j]) @ T_world_camera[i]
        for found, focal in zip(distances, FOCALS):
            f = focal * width
            K = np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]])
            found.append(_sampson(before, after, K, T))
    medians = [float(np.median(np.concatenate(found))) for found in distances if found]
    return min(medians, default=np.inf)


def _tracked(
    first: UInt8[np.ndarray, "h w 3"], second: UInt8[np.ndarray, "h w 3"]
) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, "k 2"]]:
    """Corners of the first image and where they are in the second."""
    import cv2

    a, b = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (first, second))
    corners = cv2.goodFeaturesToTrack(a, 400, 0.01, 5)
    if corners is None:
        return np.zeros((0, 2)), np.zeros((0, 2))
    there, ok, _ = cv2.calcOpticalFlowPyrLK(a, b, corners, np.empty_like(corners))
    back, ok_back, _ = cv2.calcOpticalFlowPyrLK(b, a, there, np.empty_like(corners))
    close = np.linalg.norm((back - corners).reshape(-1, 2), axis=1) < 0.5
    keep = close & (ok.ravel() > 0) & (ok_back.ravel() > 0)
    return (
        corners.reshape(-1, 2)[keep].astype(np.float64),
        there.reshape(-1, 2)[keep].astype(np.float64),
    )


def _sampson(
    before: Float[np.ndarray, "k 2"],
    after: Float[np.ndarray, "k 2"],
    K: Float[np.ndarray, "3 3"],
    T: Float[np.ndarray, "4 4"],
) -> Float[np.ndarray, " k"]:
    """Distances of point pairs from the epipolar geometry of T (first camera to second)."""
    ones = np.ones((len(before), 1))
    x, y = np.hstack([before, ones]), np.hstack([after, ones])
    R, t = T[:3, :3], T[:3, 3]
    K_inverse = np.linalg.inv(K)
    length = np.linalg.norm(t)
    if length < 1e-12:  # a rotation: the points themselves
        seen = x @ (K @ R @ K_inverse).T
        moved: np.ndarray = np.linalg.norm(seen[:, :2] / seen[:, 2:] - after, axis=1)
        return moved
    tx, ty, tz = t / length
    cross = np.array([[0, -tz, ty], [tz, 0, -tx], [-ty, tx, 0]])
    F = K_inverse.T @ cross @ R @ K_inverse
    line_after, line_before = x @ F.T, y @ F
    scale = (line_after[:, :2] ** 2).sum(axis=1) + (line_before[:, :2] ** 2).sum(axis=1)
    distance: np.ndarray = np.abs((y * line_after).sum(axis=1)) / np.sqrt(np.maximum(scale, 1e-30))
    return distance
