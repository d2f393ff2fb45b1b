"""The published removal of floating points (SPEC 6, Cleaning).

It compares the alignment's depth with no tolerance for noise. `dyn3r.scene.visibility_rule` takes
its place; the oracle keeps the exact rule beside its golden numbers.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dyn3r.geometry.cameras import invert, project, transform, unproject

DEPTH_TOLERANCE = 0.001
"""Share of the depth by which a point may lie in front of another frame's. Source: SPEC 6."""


def clean_confidence(
    depth: Float[Tensor, "n h w"],
    confidence: Float[Tensor, "n h w"],
    K: Float[Tensor, "n 3 3"],
    T_world_camera: Float[Tensor, "n 4 4"],
) -> Float[Tensor, "n h w"]:
    """Confidence with 0 for points in front of another frame's depth.

    A point is projected to the nearest pixel of another frame. If it is closer to that camera than
    (1 - DEPTH_TOLERANCE) times the depth of that pixel, and less confident, its confidence is set
    to 0. Frames are processed in order, each with the results of those before it.
    """
    n, height, width = depth.shape
    T_camera_world = invert(T_world_camera)
    out = confidence.clone()
    for frame in range(n):
        points = transform(T_world_camera[frame], unproject(depth[frame], K[frame]).reshape(-1, 3))
        flat = out[frame].reshape(-1)
        for other in range(n):
            if other == frame:
                continue
            local = transform(T_camera_world[other], points)
            index, inside = _nearest_pixel(project(local, K[other]), (height, width))
            inside &= local[:, 2] > 0
            limit = (1 - DEPTH_TOLERANCE) * depth[other].reshape(-1)[index]
            closer = local[:, 2] < limit
            less_confident = flat < out[other].reshape(-1)[index]
            flat = torch.where(inside & closer & less_confident, torch.zeros_like(flat), flat)
        out[frame] = flat.reshape(height, width)
    return out


def _nearest_pixel(
    uv: Float[Tensor, "k 2"], size_hw: tuple[int, int]
) -> tuple[Int[Tensor, " k"], Tensor]:
    limit = float(4 * max(size_hw))
    rounded = uv.nan_to_num(-limit).clamp(-limit, limit).round().long()
    u, v = rounded.unbind(-1)
    inside = (u >= 0) & (u < size_hw[1]) & (v >= 0) & (v < size_hw[0])
    return torch.where(inside, v * size_hw[1] + u, 0), inside
