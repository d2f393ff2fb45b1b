"""Pixels of a frame with depth, as pixels of other frames: cameras in NumPy, pixels on a device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int
from torch import Tensor

MIN_DEPTH = 1e-6
"""Smaller depths, and those behind the camera, count as this: nothing is divided by 0."""
PIXELS_AT_ONCE = 2**15
"""Pixels that are looked up in other frames together, on a CPU: they stay in its cache."""
PIXELS_AT_ONCE_ELSEWHERE = 2**22
"""The same on other devices. Source: at most about 0.5 GB."""


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
    P: Float[Tensor, "m 3 4"], depth: Float[Tensor, "h w"], first: int = 0, step: int = 1
) -> tuple[Float[Tensor, "m 2 h w"], Float[Tensor, "m h w"]]:
    """Where the pixels of a frame with depth (z) lie in other frames, and their depth there.

    P: [A | b] of `homographies`, for pixel coordinates, or `unit_homographies`. Depth is at least
    MIN_DEPTH. `depth` may be of every `step`-th row and column alone, from the `first` on.
    """
    v, u = (
        torch.arange(first, first + side * step, step, device=depth.device, dtype=depth.dtype)
        for side in depth.shape
    )
    a, b, c, d = P[..., None, None].unbind(2)
    seen = (a * u + (b * v[:, None] + c)).mul_(depth).add_(d)
    z = seen[:, 2].clamp(min=MIN_DEPTH)
    return seen[:, :2].div_(z[:, None]), z


def pixel_maps(
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    i: int,
    others: Int[np.ndarray, " m"],
    device: torch.device | str,
) -> Float64[Tensor, "m 3 4"]:
    """[A | b] of `homographies`, on a device."""
    A, b = homographies(K.astype(np.float64), T_world_camera.astype(np.float64), i, others)
    return torch.from_numpy(np.concatenate([A, b[..., None]], -1)).to(device)


def static_flow(
    P: Float[Tensor, "m 3 4"], depth: Float[Tensor, "h w"], step: int
) -> Float[Tensor, "m 2 h w"]:
    """Flow in pixels of a static scene to other frames, of every `step`-th row and column.

    P: `pixel_maps`; depth (z) of those rows and columns.
    """
    v, u = (
        torch.arange(0, step * side, step, device=depth.device, dtype=depth.dtype)
        for side in depth.shape
    )
    return places(P, depth, 0, step)[0].sub_(torch.stack(torch.meshgrid(u, v, indexing="xy")))


def maps_to(
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    others: Sequence[Sequence[int]],
    size_hw: tuple[int, int],
    device: torch.device,
) -> tuple[Float32[Tensor, "_ 3 4"], ...]:
    """`unit_homographies` from each frame to others, on a device. One transfer."""
    maps = [
        unit_homographies(K, T_world_camera, t, np.array(frames, int), size_hw)
        for t, frames in enumerate(others)
    ]
    every = torch.from_numpy(np.concatenate(maps)).to(device)
    return torch.split(every, [len(frames) for frames in others])


def frames_at_once(size_hw: tuple[int, int], device: torch.device) -> int:
    """Frames that are looked up together."""
    pixels = PIXELS_AT_ONCE if device.type == "cpu" else PIXELS_AT_ONCE_ELSEWHERE
    return max(1, pixels // (size_hw[0] * size_hw[1]))


class FramesAround:
    """The frames that are near each frame in time, and maps of its pixels to them, on a device."""

    def __init__(
        self,
        K: Float[np.ndarray, "n 3 3"],
        T_world_camera: Float[np.ndarray, "n 4 4"],
        near: Sequence[range],
        size_hw: tuple[int, int],
        device: torch.device,
    ) -> None:
        """`near`: successive frames around each frame, with itself. One transfer, of the maps."""
        self.near = near
        self.maps = maps_to(K, T_world_camera, near, size_hw, device)
        self.at_once = frames_at_once(size_hw, device)

    def parts(self, t: int, times: int = 1) -> Iterator[tuple[Float[Tensor, "k 3 4"], slice]]:
        """Maps from frame t to some of the other frames near it, and which frames those are.

        As many as are looked up at once, or `times` as many; in the order of time.
        """
        first, count = self.near[t].start, times * self.at_once
        for side in (range(first, t), range(t + 1, self.near[t].stop)):
            for start in side[::count]:
                stop = min(start + count, side.stop)
                yield self.maps[t][start - first : stop - first], slice(start, stop)
