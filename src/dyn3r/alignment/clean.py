"""Remove points that float in front of what other frames saw better."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dyn3r.geometry import invert, project, transform, unproject


def clean_confidence(
    depth: Float[Tensor, "n h w"],
    confidence: Float[Tensor, "n h w"],
    K: Float[Tensor, "n 3 3"],
    T_world_camera: Float[Tensor, "n 4 4"],
    tolerance: float = 0.001,
) -> Float[Tensor, "n h w"]:
    """Confidence with 0 for points in front of another frame's depth (SPEC 6, Cleaning).

    A point that projects (to the nearest pixel) into another frame, closer to it than
    (1 - tolerance) of that frame's depth there, loses its confidence if that pixel's is higher.
    The frames are taken in order, and each is judged by what is left of those before it.
    """
    n, height, width = depth.shape
    points = transform(T_world_camera, unproject(depth, K).reshape(n, -1, 3))
    T_camera_world = invert(T_world_camera)
    out = confidence.clone()
    for frame in range(n):
        flat = out[frame].reshape(-1)
        for other in range(n):
            if other == frame:
                continue
            local = transform(T_camera_world[other], points[frame])
            index, inside = _nearest_pixel(project(local, K[other]), (height, width))
            inside &= local[:, 2] > 0
            closer = local[:, 2] < (1 - tolerance) * depth[other].reshape(-1)[index]
            surer = flat < out[other].reshape(-1)[index]
            flat = torch.where(inside & closer & surer, torch.zeros_like(flat), flat)
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
