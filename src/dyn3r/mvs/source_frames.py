"""Which frames a plane sweep compares a frame with, for all frames of a clip at once.

Depth is z in the camera of its frame, in the unit of length of the cameras. Samples of all pairs
are projected on the device of the depth; the choice itself is made on the host.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.geometry.filters import masked_median
from dyn3r.geometry.reprojection import homographies

MAX_SOURCES = 6
"""Largest number of source frames that a frame is compared with. Source: run time."""
MAX_FRAME_DISTANCE = 40
"""Largest distance of a source frame in frames. Source: run time."""
HALF_PARALLAX_PX = 8.0
"""Parallax in pixels at which a source frame has half its full value. Source: chosen by hand."""
MIN_OVERLAP = 0.2
"""Smallest share of the static pixels that a source frame must see. Source: chosen by hand."""
BASELINE_SHARE = 0.3
"""Source frames nearer to a chosen one than about this share of their distance from the frame have
less value. Source: chosen by hand."""
SOURCE_GRID = 28
"""Samples along the long side that the choice of source frames is based on. Source: run time."""
INVERSE_DEPTH_FACTOR, INVERSE_DEPTH_QUANTILE = 1.5, 0.97
"""The largest inverse depth of a sweep is this factor times this quantile of the inverse depth
before. Source: chosen by hand."""
SMALLEST_DEPTH = 1e-9
"""Smaller depths count as this."""


class Sources(NamedTuple):
    """What one frame is compared with, and over which depths."""

    frames: Int[np.ndarray, " m"]
    """Source frames, the best first."""
    parallax_px: Float[np.ndarray, " m"]
    """Median parallax of the frame's samples in each of them, in pixels."""
    median_inverse_depth: float
    """Of the static pixels; of all where none is static."""
    max_inverse_depth: float
    """Largest inverse depth of the sweep."""


def choose_sources(
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    depth: Float[Tensor, "n h w"],
    dynamic: Bool[Tensor, "n h w"],
    static_count: Int[np.ndarray, " n"],
) -> list[Sources]:
    """Source frames of every frame.

    They are chosen greedily by overlap, parallax and distance from the sources chosen before.
    `static_count` is the number of pixels of every frame that are not `dynamic`. One transfer from
    the device of `depth`.
    """
    n = len(K)
    others = [_others(i, n) for i in range(n)]
    ranges = _inverse_depths(depth, dynamic, static_count)
    pairs = _overlaps(K, T_world_camera, depth, dynamic, others)
    found = torch.cat([ranges.reshape(-1), pairs.reshape(-1)]).cpu().double().numpy()
    median, high = found[: 2 * n].reshape(2, n)
    overlap, parallax = found[2 * n :].reshape(2, -1)
    center = T_world_camera[:, :3, 3]
    out, start = [], 0
    for i in range(n):
        rows = slice(start, start + len(others[i]))
        chosen = _greedy(center[others[i]], center[i], overlap[rows], parallax[rows])
        out.append(
            Sources(
                others[i][chosen], parallax[rows][chosen], float(median[i]),
                float(INVERSE_DEPTH_FACTOR * high[i]),
            )
        )  # fmt: skip
        start = rows.stop
    return out


def overlap_and_parallax(
    P: Float[Tensor, "m 3 4"], depth: Float[Tensor, "h w"], known: Bool[Tensor, "h w"]
) -> Float[Tensor, "2 m"]:
    """Share of a frame's pixels that other frames see, and the median parallax in pixels.

    P: [A | b] of `homographies` to them. Only a grid of the pixels that are `known` counts; where
    there are none, nothing is seen.
    """
    h, w = int(depth.shape[0]), int(depth.shape[1])
    at, pixel = _grid((h, w), depth)
    z = torch.where(known[at], depth[at], torch.nan).flatten()
    if not bool(z.isfinite().any()):
        return torch.zeros(2, len(P))
    return _overlap(P, pixel, z, (h, w))


def _others(i: int, num_frames: int) -> Int[np.ndarray, " m"]:
    near = np.arange(max(0, i - MAX_FRAME_DISTANCE), min(num_frames, i + MAX_FRAME_DISTANCE + 1))
    return near[near != i]


def _inverse_depths(
    depth: Float[Tensor, "n h w"],
    dynamic: Bool[Tensor, "n h w"],
    static_count: Int[np.ndarray, " n"],
) -> Float[Tensor, "2 n"]:
    """Median and INVERSE_DEPTH_QUANTILE (the lower of two) of the static inverse depth."""
    found = []
    for z, moving, count in zip(depth, dynamic, static_count.tolist()):
        inverse = 1 / z.clamp(min=SMALLEST_DEPTH)
        if count:
            inverse = inverse.masked_fill(moving, torch.inf)
        else:
            count = inverse.numel()
        ranks = (1 + int(share * (count - 1)) for share in (0.5, INVERSE_DEPTH_QUANTILE))
        found += [inverse.reshape(-1).kthvalue(rank).values for rank in ranks]
    return torch.stack(found).reshape(-1, 2).T


def _overlaps(
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    depth: Float[Tensor, "n h w"],
    dynamic: Bool[Tensor, "n h w"],
    others: list[Int[np.ndarray, " _"]],
) -> Float[Tensor, "2 pairs"]:
    """Share of each frame's static samples that its other frames see, and the median parallax."""
    h, w = int(depth.shape[1]), int(depth.shape[2])
    rows_and_columns, pixel = _grid((h, w), depth)
    at = (slice(None), *rows_and_columns)
    z = torch.where(dynamic[at], torch.nan, depth[at])
    z = torch.where(z.isnan().all(2).all(1)[:, None, None], depth[at], z).flatten(1)
    maps = [np.concatenate([A, b[..., None]], -1) for A, b in (
        homographies(K, T_world_camera, i, js) for i, js in enumerate(others))]  # fmt: skip
    every = torch.from_numpy(np.concatenate(maps).astype(np.float32)).to(depth.device)
    parts = torch.split(every, [len(js) for js in others])
    return torch.cat([_overlap(P, pixel, z[i], (h, w)) for i, P in enumerate(parts)], 1)


def _grid(
    size_hw: tuple[int, int], like: Tensor
) -> tuple[tuple[slice, slice], Float[Tensor, "2 k"]]:
    """Rows and columns of a grid of samples, and their pixels (u, v) with the type of `like`."""
    stride = max(1, max(size_hw) // SOURCE_GRID)
    every = slice(stride // 2, None, stride)
    v, u = (
        torch.arange(stride // 2, side, stride, device=like.device, dtype=like.dtype)
        for side in size_hw
    )
    return (every, every), torch.stack(torch.meshgrid(u, v, indexing="xy")).flatten(1)


def _overlap(
    P: Float[Tensor, "m 3 4"],
    pixel: Float[Tensor, "2 k"],
    z: Float[Tensor, " k"],
    size_hw: tuple[int, int],
) -> Float[Tensor, "2 m"]:
    """Share of the samples with known depth z (else NaN) that are seen, and median parallax."""
    h, w = size_hw
    far = P[..., :1] * pixel[0] + P[..., 1:2] * pixel[1] + P[..., 2:3]
    seen = far + P[..., 3:] / z
    at, at_infinity = seen[:, :2] / seen[:, 2:], far[:, :2] / far[:, 2:]
    inside = (seen[:, 2] > 0) & (at > 0).all(1) & (at[:, 0] < w - 1) & (at[:, 1] < h - 1)
    shift = (at - at_infinity).square().sum(1).sqrt()
    counted = inside & (far[:, 2] > 0)
    median = torch.where(counted.any(1), masked_median(shift, counted), 0)
    return torch.stack([inside.sum(1) / z.isfinite().sum(), median])


def _greedy(
    center: Float[np.ndarray, "m 3"],
    here: Float[np.ndarray, "3"],
    overlap: Float[np.ndarray, " m"],
    parallax_px: Float[np.ndarray, " m"],
) -> list[int]:
    """Indices of the chosen frames. `center`, `here`: camera centres of all and of the frame."""
    value = overlap * parallax_px / (parallax_px + HALF_PARALLAX_PX)
    value[~(overlap > MIN_OVERLAP)] = -1.0
    baseline = np.linalg.norm(center - here, axis=1)
    chosen: list[int] = []
    while len(chosen) < MAX_SOURCES and value.max(initial=0.0) > 0:
        best = int(value.argmax())
        chosen.append(best)
        # another view from the same place adds no information
        separation = np.linalg.norm(center - center[best], axis=1)
        value *= separation / (separation + BASELINE_SHARE * baseline + 1e-12)
        value[best] = 0.0
    return chosen
