"""Optical flow of a static scene, and the forward-backward check of measured flow."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.geometry.cameras import invert, pixel_grid, project, rays, transform


def induced_flow(
    depth1: Float[Tensor, "*batch h w"],
    K1: Float[Tensor, "*batch 3 3"],
    T_world_camera1: Float[Tensor, "*batch 4 4"],
    K2: Float[Tensor, "*batch 3 3"],
    T_world_camera2: Float[Tensor, "*batch 4 4"],
    *,
    stride: int = 1,
) -> Float[Tensor, "*batch hs ws 2"]:
    """Displacement (u, v) in pixels of a static scene from camera 1 to camera 2 (SPEC 6).

    Of the pixels of every `stride`-th row and column, from the first on.
    """
    size_hw = (int(depth1.shape[-2]), int(depth1.shape[-1]))
    here = (slice(None, None, stride), slice(None, None, stride))
    grid = pixel_grid(size_hw, depth1.device, depth1.dtype)[here]
    points1 = depth1[(..., *here)][..., None] * rays(K1.to(depth1.dtype), grid)
    flat = points1.reshape(*points1.shape[:-3], -1, 3)
    uv2 = project(transform(invert(T_world_camera2) @ T_world_camera1, flat), K2)
    return uv2.reshape(*points1.shape[:-1], 2) - grid


def forward_backward_visible(
    forward: Float[Tensor, "*batch h w 2"],
    backward: Float[Tensor, "*batch h w 2"],
    tolerance_px: float = 3.0,
    *,
    as_published: bool = False,
) -> Bool[Tensor, "*batch h w"]:
    """Pixels whose flow ends inside the other image and returns to within `tolerance_px`.

    The error is the distance between a pixel and the end of its round trip. The published programs
    use |du + dv| of that difference instead, which accepts (9, -9); so does `as_published`.
    """
    height, width = int(forward.shape[-3]), int(forward.shape[-2])
    forward_flat = forward.reshape(-1, height, width, 2)
    grid = pixel_grid((height, width), forward.device, forward.dtype)
    target = forward_flat + grid
    span = target.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    returned = torch.nn.functional.grid_sample(
        backward.reshape(-1, height, width, 2).movedim(-1, 1),
        target / span * 2 - 1,
        align_corners=True,
        padding_mode="border",
    ).movedim(1, -1)
    inside = ((target >= 0) & (target <= span)).all(-1)
    difference = forward_flat + returned
    distance = difference.sum(-1).abs() if as_published else difference.norm(dim=-1)
    return (inside & (distance < tolerance_px)).reshape(forward.shape[:-1])
