"""Pixels of a frame with depth, as pixels of other frames: cameras in NumPy, pixels on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32, Int

if TYPE_CHECKING:
    from torch import Tensor

MIN_DEPTH = 1e-6
"""Smaller depths, and those behind the camera, count as this: nothing is divided by 0."""


def homographies(
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    i: int,
    others: Int[np.ndarray, " m"],
) -> tuple[Float[np.ndarray, "m 3 3"], Float[np.ndarray, "m 3"]]:
    """A, b: the pixel x of frame i at inverse depth d projects to A x + d b in each other frame."""
    T = np.linalg.inv(T_world_camera[others]) @ T_world_camera[i]
    return K[others] @ T[:, :3, :3] @ np.linalg.inv(K[i]), (K[others] @ T[:, :3, 3:])[..., 0]


def unit_homographies(
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    i: int,
    others: Int[np.ndarray, " m"],
    size_hw: tuple[int, int],
) -> Float32[np.ndarray, "m 3 4"]:
    """[A | b] of `homographies`, to image coordinates from -1 to 1: the outermost pixel centres.

    Those are the coordinates of `grid_sample` with `align_corners`.
    """
    A, b = homographies(K.astype(np.float64), T_world_camera.astype(np.float64), i, others)
    h, w = size_hw
    unit = np.array([[2 / (w - 1), 0, -1], [0, 2 / (h - 1), -1], [0, 0, 1]])
    return (unit @ np.concatenate([A, b[..., None]], -1)).astype(np.float32)


def places(
    P: Float[Tensor, "m 3 4"], depth: Float[Tensor, "h w"]
) -> tuple[Float[Tensor, "m 2 h w"], Float[Tensor, "m h w"]]:
    """Where the pixels of a frame with depth (z) lie in other frames, and their depth there.

    P: `unit_homographies`, and so are the coordinates; depth is at least MIN_DEPTH.
    """
    import torch

    v, u = (torch.arange(side, device=depth.device, dtype=depth.dtype) for side in depth.shape)
    a, b, c, d = P[..., None, None].unbind(2)
    seen = (a * u + (b * v[:, None] + c)).mul_(depth).add_(d)
    z = seen[:, 2].clamp(min=MIN_DEPTH)
    return seen[:, :2].div_(z[:, None]), z
