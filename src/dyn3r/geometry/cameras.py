"""Pinhole cameras: axes x right, y down, z forward; integer pixel coordinates are pixel centres."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def pixel_grid(
    size_hw: tuple[int, int],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "h w 2"]:
    """Coordinates (u, v) of every pixel centre: u = column, v = row."""
    height, width = size_hw
    v, u = torch.meshgrid(
        torch.arange(height, device=device, dtype=dtype),
        torch.arange(width, device=device, dtype=dtype),
        indexing="ij",
    )
    return torch.stack([u, v], -1)


def intrinsics(
    f_px: Float[Tensor, "*batch"], size_hw: tuple[int, int]
) -> Float[Tensor, "*batch 3 3"]:
    """K with square pixels and the principal point (W/2, H/2) of the published convention (SPEC 0).

    That point is half a pixel right of and below the true centre of the image.
    """
    K = torch.zeros(*f_px.shape, 3, 3, dtype=f_px.dtype, device=f_px.device)
    K[..., 0, 0] = K[..., 1, 1] = f_px
    K[..., 0, 2] = size_hw[1] / 2
    K[..., 1, 2] = size_hw[0] / 2
    K[..., 2, 2] = 1
    return K


def rays(
    K: Float[Tensor, "*batch 3 3"], uv: Float[Tensor, "*pixels 2"]
) -> Float[Tensor, "*batch_pixels 3"]:
    """Viewing rays with z = 1 in the camera, shape (*batch, *pixels, 3). Skew is ignored."""
    lead = K.shape[:-2] + (1,) * (uv.dim() - 1)
    x = (uv[..., 0] - K[..., 0, 2].reshape(lead)) / K[..., 0, 0].reshape(lead)
    y = (uv[..., 1] - K[..., 1, 2].reshape(lead)) / K[..., 1, 1].reshape(lead)
    return torch.stack([x, y, torch.ones_like(x)], -1)


def unproject(
    depth: Float[Tensor, "*batch h w"], K: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch h w 3"]:
    """Depth (z in the camera) -> points in the camera frame, in the unit of the depth."""
    size_hw = (int(depth.shape[-2]), int(depth.shape[-1]))
    grid = pixel_grid(size_hw, depth.device, depth.dtype)
    return depth[..., None] * rays(K.to(depth.dtype), grid)


def project(
    points: Float[Tensor, "*batch k 3"], K: Float[Tensor, "*batch 3 3"], min_depth: float = 1e-6
) -> Float[Tensor, "*batch k 2"]:
    """Camera-frame points -> pixels (u, v). Depths below `min_depth` are raised to it."""
    z = points[..., 2].clamp_min(min_depth)
    u = points[..., 0] / z * K[..., None, 0, 0] + K[..., None, 0, 2]
    v = points[..., 1] / z * K[..., None, 1, 1] + K[..., None, 1, 2]
    return torch.stack([u, v], -1)


def transform(
    T: Float[Tensor, "*batch 4 4"], points: Float[Tensor, "*batch k 3"]
) -> Float[Tensor, "*batch k 3"]:
    """Apply 4x4 maps (rigid or similarity) to rows of points."""
    return points @ T[..., :3, :3].transpose(-1, -2) + T[..., None, :3, 3]


def invert(T: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverse of rigid or similarity transforms (the 3x3 part is scale times a rotation)."""
    A = T[..., :3, :3]
    squared_scale = (A * A).sum((-2, -1), keepdim=True) / 3
    A_inverse = A.transpose(-1, -2) / squared_scale
    out = torch.zeros_like(T)
    out[..., :3, :3] = A_inverse
    out[..., :3, 3] = -(A_inverse @ T[..., :3, 3:])[..., 0]
    out[..., 3, 3] = 1
    return out


def cross_matrix(a: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Skew-symmetric matrix [a]x with [a]x b = a x b."""
    x, y, z = a.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*a.shape, 3)


def focal_from_points(
    points: Float[Tensor, "*batch h w 3"],
    weights: Float[Tensor, "*batch h w"] | None = None,
    reweightings: int = 10,
) -> Float[Tensor, "*batch"]:
    """Focal length in pixels that best explains pointmaps in their own camera.

    Minimises the sum of |pixel - f * (x, y) / z| with the principal point (W/2, H/2) by Weiszfeld's
    algorithm, started from least squares (SPEC 6). Points that are not finite or have no positive
    depth have no weight. The result is NaN if no pixel is usable. It is limited to a field of view
    of 6 to 164 degrees along the long side.
    """
    height, width = int(points.shape[-3]), int(points.shape[-2])
    grid = pixel_grid((height, width), points.device, points.dtype)
    pixel = (grid - grid.new_tensor([width / 2, height / 2])).reshape(-1, 2)
    flat = points.reshape(*points.shape[:-3], -1, 3)
    usable = torch.isfinite(flat).all(-1) & (flat[..., 2] > 1e-6)
    direction = torch.where(
        usable[..., None], flat[..., :2] / flat[..., 2:].clamp_min(1e-6), flat.new_zeros(())
    )
    base = usable.to(points.dtype)
    if weights is not None:
        base = base * weights.reshape(base.shape)
    along, across = (direction * pixel).sum(-1), (direction * direction).sum(-1)
    weight = base
    for step in range(reweightings + 1):
        f = (weight * along).sum(-1) / (weight * across).sum(-1)
        if step < reweightings:
            error = (pixel - f[..., None, None] * direction).norm(dim=-1)
            weight = base / error.clamp_min(1e-8)
    side = max(height, width)
    return f.clamp(side / 14.0, side * 10.0)
