"""Cameras from rays: the second statement of a many-view network about its cameras.

The head gives a direction R K^-1 (u, v, 1) and an origin, the camera centre, for every cell of a
grid. With the principal point at the centre of the image the matrix R diag(1/fx, 1/fy, 1) follows
by weighted least squares. The published solver uses RANSAC and a decomposition that holds for a
centred principal point only.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dyn3r.geometry.registration import nearest_rotation

REWEIGHTINGS = 8
"""Re-weightings towards the sum of distances, not their squares."""


def cameras_from_rays(
    rays: Float[Tensor, "s rh rw 6"],
    confidence: Float[Tensor, "s rh rw"],
    size_hw: tuple[int, int],
) -> tuple[Float[Tensor, "s 4 4"], Float[Tensor, "s 2"]]:
    """T_world_camera and focal lengths along x and y, in pixels of an image of `size_hw`.

    `confidence` is above 1. The centre is the mean origin, weighted by confidence above 1.
    """
    views, rows, cols = confidence.shape
    height, width = size_hw
    v = (torch.arange(rows, dtype=torch.float64) + 0.5) * height / rows - height / 2
    u = (torch.arange(cols, dtype=torch.float64) + 0.5) * width / cols - width / 2
    grid_v, grid_u = torch.meshgrid(v, u, indexing="ij")
    p = torch.stack([grid_u, grid_v, torch.full_like(grid_u, width)], -1).reshape(-1, 3) / width
    direction = rays[..., :3].double().cpu().reshape(views, -1, 3)
    trust = (confidence.double().cpu().reshape(views, -1) - 1).clamp_min(1e-9)
    weight, A = trust, p.new_zeros(views, 3, 3)
    for _ in range(1 + REWEIGHTINGS):
        weighted = weight[..., None] * p
        A = torch.linalg.solve(weighted.transpose(1, 2) @ p, weighted.transpose(1, 2) @ direction)
        error = (direction - p @ A).norm(dim=-1)
        typical = (trust * error).sum(-1, keepdim=True) / trust.sum(-1, keepdim=True)
        weight = trust / (error + 0.01 * typical + 1e-12)
    columns = A.transpose(1, 2)  # direction = columns @ p
    length = columns.norm(dim=1).clamp_min(1e-9)
    T = torch.eye(4, dtype=torch.float64).repeat(views, 1, 1)
    T[:, :3, :3] = nearest_rotation(columns / length[:, None])[0]
    origin = rays[..., 3:].double().cpu().reshape(views, -1, 3)
    T[:, :3, 3] = (trust[..., None] * origin).sum(1) / trust.sum(-1, keepdim=True)
    return T, width * length[:, 2:] / length[:, :2]


def camera_disagreement(
    T_world_camera: tuple[Float[Tensor, "s 4 4"], Float[Tensor, "s 4 4"]],
    focal_xy: tuple[Float[Tensor, "s 2"], Float[Tensor, "s 2"]],
    unit: Float[Tensor, " s"],
) -> Float[Tensor, "s 3"]:
    """How far two statements about the same cameras differ.

    Angle between the rotations in degrees; |log| ratio of the focal lengths (geometric mean of both
    axes); distance of the centres over `unit`.
    """
    one, two = T_world_camera
    cosine = ((one[:, :3, :3] * two[:, :3, :3]).sum((1, 2)) - 1) / 2
    log_focal = (focal_xy[0].log() - focal_xy[1].log()).mean(dim=1).abs()
    apart = (one[:, :3, 3] - two[:, :3, 3]).norm(dim=-1) / unit
    return torch.stack([torch.rad2deg(cosine.clamp(-1, 1).acos()), log_focal, apart], dim=-1)
