"""The rule for rejected pixels of the final depth, and pixels in other frames without PyTorch.

Depth is z in camera coordinates, in the scene's unit of length, 0 where unknown. Sigma is the
standard deviation of the logarithm of depth, dimensionless: 0.05 means 5 %. The rule is applied by
`dyn3r.scene.compared_depth.visible`; `comparisons` serves the viewer and exports.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32, Int

NEIGHBOURS = 16
"""Frames that a frame is compared with: the nearest in time. Source: bounds the time per frame."""
SLACK = 1.0
"""Standard deviations of the difference of two log depths by which a floating pixel is in front; on
six synthetic clips 0 to 0.9 % of the pixels are (4 to 8 % at 0.5, 0 to 0.3 % at 1.5)."""


def as_stored(values: Float[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Values >= 0 rounded to 11 significant bits, ties to even, as half precision files do."""
    bits = np.array(values, np.float32).view(np.uint32)
    bits += np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def comparisons(
    i: int,
    at: Int[np.ndarray, " k"],
    depth: Float32[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
) -> Iterator[tuple[int, Float32[np.ndarray, " k"], Int[np.ndarray, " k"]]]:
    """Pixels `at` (row-major) of frame i in its neighbouring frames j: (j, log z in the camera of
    j, nearest pixel of frame j or -1 where there is none)."""
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
        row, column = (np.where(inside, x, 0).astype(np.int32) for x in (row, column))
        pixel = np.where(inside, row * np.int32(w) + column, np.int32(-1))
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
