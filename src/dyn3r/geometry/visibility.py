"""Remove points that float in front of what other frames saw better."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.geometry import invert, project, transform, unproject


def clean_confidence(
    depth: Float[Tensor, "n h w"],
    confidence: Float[Tensor, "n h w"],
    K: Float[Tensor, "n 3 3"],
    T_world_camera: Float[Tensor, "n 4 4"],
    tolerance: float = 0.001,
    others: Sequence[Sequence[int]] | None = None,
    *,
    slack: Float[Tensor, "n h w"] | None = None,
    moving: Bool[np.ndarray, "n h w"] | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Float[Tensor, "n h w"]:
    """Confidence with 0 for points in front of another frame's depth (SPEC 6, Cleaning).

    A point that projects (to the nearest pixel) into another frame, closer to it than
    (1 - tolerance) of that frame's depth there, loses its confidence if that pixel's is higher.
    The frames are taken in order, and each is judged by what is left of those before it.

    `slack`: a share of the depth by which it may be wrong; a point must be in front by more than
    both pixels' slack together (root of the sum of squares) on top of `tolerance`. Without it, as
    published, noise alone takes away most of what two frames see alike. `moving`: points that are
    never judged, for they need not be where another frame saw something at its own time. Published:
    neither.

    `others[t]`: the frames that frame t is compared with, ascending (`compared_frames`); None: all,
    as published. `report` is called with the number of frames done. Memory beyond the result is
    that of one frame.
    """
    n, height, width = depth.shape
    T_camera_world = invert(T_world_camera)
    out = confidence.clone()
    for frame in range(n):
        points = transform(T_world_camera[frame], unproject(depth[frame], K[frame]).reshape(-1, 3))
        flat = out[frame].reshape(-1)
        judged = torch.ones_like(flat, dtype=torch.bool)
        if moving is not None:
            judged &= torch.from_numpy(~moving[frame]).reshape(-1)
        for other in range(n) if others is None else others[frame]:
            if other == frame:
                continue
            local = transform(T_camera_world[other], points)
            index, inside = _nearest_pixel(project(local, K[other]), (height, width))
            inside &= judged & (local[:, 2] > 0)
            limit = (1 - tolerance) * depth[other].reshape(-1)[index]
            if slack is not None:
                both = torch.hypot(slack[frame].reshape(-1), slack[other].reshape(-1)[index])
                limit = limit * (1 - both).clamp(min=0)
            closer = local[:, 2] < limit
            surer = flat < out[other].reshape(-1)[index]
            flat = torch.where(inside & closer & surer, torch.zeros_like(flat), flat)
        out[frame] = flat.reshape(height, width)
        report(frame + 1)
    return out


def compared_frames(edges: Int[np.ndarray, "m 2"], num_frames: int, most: int) -> list[list[int]]:
    """For every frame at most `most` frames to compare it with, ascending; 0: all the others.

    First come its partners in pairs (the nearest in time, if there are too many), then others
    spread evenly over the clip, which may see the same place again.
    """
    if most <= 0 or most >= num_frames - 1:
        return [[t for t in range(num_frames) if t != frame] for frame in range(num_frames)]
    partners: list[set[int]] = [set() for _ in range(num_frames)]
    for i, j in np.asarray(edges).tolist():
        if i != j:
            partners[i].add(j)
            partners[j].add(i)
    out = []
    for frame in range(num_frames):
        chosen = set(sorted(partners[frame], key=lambda t: (abs(t - frame), t))[:most])
        places = np.linspace(0, num_frames - 1, most - len(chosen)).round().astype(int)
        out.append(sorted((chosen | set(places.tolist())) - {frame}))
    return out


def _nearest_pixel(
    uv: Float[Tensor, "k 2"], size_hw: tuple[int, int]
) -> tuple[Int[Tensor, " k"], Tensor]:
    limit = float(4 * max(size_hw))
    rounded = uv.nan_to_num(-limit).clamp(-limit, limit).round().long()
    u, v = rounded.unbind(-1)
    inside = (u >= 0) & (u < size_hw[1]) & (v >= 0) & (v < size_hw[0])
    return torch.where(inside, v * size_hw[1] + u, 0), inside
