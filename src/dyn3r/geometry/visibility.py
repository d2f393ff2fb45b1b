"""Detection of floating points: points in front of surfaces that other frames see better."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.geometry.cameras import invert, project, transform, unproject

DEPTH_TOLERANCE = 0.001
"""Share of the depth by which a point may lie in front of another frame's. Source: SPEC 6."""
COMPARED_FRAMES = 24
"""Frames that our rule compares a frame with. Source: run time; all of them is quadratic."""


def _no_report(_done: int) -> None:
    """Ignore progress."""


def clean_confidence(
    depth: Float[Tensor, "n h w"],
    confidence: Float[Tensor, "n h w"],
    K: Float[Tensor, "n 3 3"],
    T_world_camera: Float[Tensor, "n 4 4"],
    others: Sequence[Sequence[int]] | None = None,
    *,
    slack: Float[Tensor, "n h w"] | None = None,
    dynamic: Bool[np.ndarray, "n h w"] | None = None,
    report: Callable[[int], None] = _no_report,
) -> Float[Tensor, "n h w"]:
    """Confidence with 0 for points in front of another frame's depth (SPEC 6, Cleaning).

    A point is projected to the nearest pixel of another frame. If it is closer to that camera than
    (1 - DEPTH_TOLERANCE) times the depth of that pixel, and less confident, its confidence is set
    to 0. Frames are processed in order, each with the results of those before it.

    `slack` is a relative depth tolerance per pixel. A point must be in front by more than the slack
    of both pixels (root of the sum of squares). The published rule has none; then noise alone
    removes most pixels of surfaces that two frames see equally well. `dynamic` pixels are never
    removed, because their surface moves between frames. The published rule does not spare them.

    `others[t]` lists the frames that frame t is compared with, ascending (`compared_frames`); None:
    all, as published. `report` is called with the number of finished frames. Memory beyond the
    result is that of one frame.
    """
    n, height, width = depth.shape
    T_camera_world = invert(T_world_camera)
    out = confidence.clone()
    for frame in range(n):
        points = transform(T_world_camera[frame], unproject(depth[frame], K[frame]).reshape(-1, 3))
        flat = out[frame].reshape(-1)
        tested = torch.ones_like(flat, dtype=torch.bool)
        if dynamic is not None:
            tested &= torch.from_numpy(~dynamic[frame]).reshape(-1)
        for other in range(n) if others is None else others[frame]:
            if other == frame:
                continue
            local = transform(T_camera_world[other], points)
            index, inside = _nearest_pixel(project(local, K[other]), (height, width))
            inside &= tested & (local[:, 2] > 0)
            limit = (1 - DEPTH_TOLERANCE) * depth[other].reshape(-1)[index]
            if slack is not None:
                both = torch.hypot(slack[frame].reshape(-1), slack[other].reshape(-1)[index])
                limit = limit * (1 - both).clamp(min=0)
            closer = local[:, 2] < limit
            less_confident = flat < out[other].reshape(-1)[index]
            flat = torch.where(inside & closer & less_confident, torch.zeros_like(flat), flat)
        out[frame] = flat.reshape(height, width)
        report(frame + 1)
    return out


def compared_frames(
    edges: Int[np.ndarray, "m 2"], num_frames: int, limit: int = COMPARED_FRAMES
) -> list[list[int]]:
    """At most `limit` frames to compare each frame with, ascending; 0: all other frames.

    A frame's partners in the pairs come first (the nearest in time if there are too many). The rest
    is spread evenly over the clip, because the camera may return to the same place.
    """
    if limit <= 0 or limit >= num_frames - 1:
        return [[t for t in range(num_frames) if t != frame] for frame in range(num_frames)]
    partners: list[set[int]] = [set() for _ in range(num_frames)]
    for i, j in np.asarray(edges).tolist():
        if i != j:
            partners[i].add(j)
            partners[j].add(i)
    out = []
    for frame in range(num_frames):
        chosen = set(sorted(partners[frame], key=lambda t: (abs(t - frame), t))[:limit])
        spread = np.linspace(0, num_frames - 1, limit - len(chosen)).round().astype(int)
        out.append(sorted((chosen | set(spread.tolist())) - {frame}))
    return out


def _nearest_pixel(
    uv: Float[Tensor, "k 2"], size_hw: tuple[int, int]
) -> tuple[Int[Tensor, " k"], Tensor]:
    limit = float(4 * max(size_hw))
    rounded = uv.nan_to_num(-limit).clamp(-limit, limit).round().long()
    u, v = rounded.unbind(-1)
    inside = (u >= 0) & (u < size_hw[1]) & (v >= 0) & (v < size_hw[0])
    return torch.where(inside, v * size_hw[1] + u, 0), inside
