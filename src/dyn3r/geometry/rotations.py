"""Rotation vectors and rotation matrices (torch), without a dependency that loads slowly."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dyn3r.geometry.cameras import cross_matrix

SMALL_ANGLE = 1e-3
"""Radians below which series replace quotients; their error is below 1e-12 there."""


def rotvec_to_rotmat(rotvec: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation by |rotvec| radians about rotvec (Rodrigues 1840), smooth at 0."""
    squared = (rotvec * rotvec).sum(-1)[..., None, None]
    small = squared < SMALL_ANGLE**2
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    sine = torch.where(small, 1 - squared / 6 + squared**2 / 120, angle.sin() / angle)
    half = (angle / 2).sin() / (angle / 2)
    versine = torch.where(small, 0.5 - squared / 24 + squared**2 / 720, half**2 / 2)
    cross = cross_matrix(rotvec)
    identity = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    return identity + sine * cross + versine * (cross @ cross)


def rotmat_to_rotvec(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """The rotation vector of a rotation matrix, with a length of at most pi.

    By way of the quaternion whose largest component is divided by (Shepperd 1978), which is
    accurate for every angle.
    """
    diagonal = R.diagonal(dim1=-2, dim2=-1)
    trace = diagonal.sum(-1, keepdim=True)
    # 4 x the squares of w, x, y, z
    squares = torch.cat([1 + trace, 1 + 2 * diagonal - trace], dim=-1)
    off = [R[..., a, b] for a, b in ((2, 1), (1, 2), (0, 2), (2, 0), (1, 0), (0, 1))]
    wx, wy, wz = (off[k] - off[k + 1] for k in (0, 2, 4))
    yz, xz, xy = (off[k] + off[k + 1] for k in (0, 2, 4))
    ww, xx, yy, zz = squares.unbind(-1)
    rows = torch.stack(
        [
            torch.stack([ww, wx, wy, wz], -1),
            torch.stack([wx, xx, xy, xz], -1),
            torch.stack([wy, xy, yy, yz], -1),
            torch.stack([wz, xz, yz, zz], -1),
        ],
        -2,
    )
    largest = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    quat = rows.gather(-2, largest).squeeze(-2)
    quat = quat / quat.norm(dim=-1, keepdim=True)
    quat = torch.where(quat[..., :1] < 0, -quat, quat)
    w, xyz = quat[..., 0], quat[..., 1:]
    length = xyz.norm(dim=-1)
    small = length < SMALL_ANGLE
    safe = torch.where(small, torch.ones_like(length), length)
    factor = torch.where(small, 2 + length**2 / 3, 2 * torch.atan2(length, w) / safe)
    return xyz * factor[..., None]
