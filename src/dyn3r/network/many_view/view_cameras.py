"""Cameras as the many-view network writes and reads them, and its camera encoder and decoder.

The code of a camera is (tx, ty, tz, qx, qy, qz, qw, fov_h, fov_w): camera to world, the vertical
field of view before the horizontal one, both in radians. A pixel i covers [i, i + 1], so the
principal point (W/2, H/2) is the centre of the image.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, relu

from dyn3r.geometry.cameras import invert
from dyn3r.network.layers import EncoderBlock
from dyn3r.network.many_view.view_config import CAMERA_HEADS

LEAST_DISTANCE = 0.1
"""Least median distance of given cameras from the first, which scales them. Source: as published.
"""
ENCODER_BLOCKS = 4


def decode_cameras(
    code: Float[Tensor, "s 9"], size_hw: tuple[int, int]
) -> tuple[Float[Tensor, "s 4 4"], Float[Tensor, "s 3 3"]]:
    """T_world_camera and K in pixels of an image of `size_hw` from camera codes.

    A field of view of 0 gives a focal length of about 1e8: no estimate.
    """
    height, width = size_hw
    T = torch.eye(4, dtype=code.dtype, device=code.device).repeat(len(code), 1, 1)
    T[:, :3, :3] = _rotation(code[:, 3:7])
    T[:, :3, 3] = code[:, :3]
    half_tan = (code[:, 7:] / 2).tan().clamp_min(1e-6)
    K = torch.zeros(len(code), 3, 3, dtype=code.dtype, device=code.device)
    K[:, 0, 0], K[:, 1, 1] = width / 2 / half_tan[:, 1], height / 2 / half_tan[:, 0]
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = width / 2, height / 2, 1
    return T, K


def encode_cameras(
    T_world_camera: Float[Tensor, "s 4 4"],
    K: Float[Tensor, "s 3 3"],
    size_hw: tuple[int, int],
) -> Float[Tensor, "s 9"]:
    """Camera codes; K in pixels of an image of `size_hw`, its principal point is not used."""
    height, width = size_hw
    fov_h, fov_w = (2 * torch.atan(side / 2 / K[:, i, i]) for i, side in ((1, height), (0, width)))
    quat = _quaternion(T_world_camera[:, :3, :3])
    return torch.cat([T_world_camera[:, :3, 3], quat, fov_h[:, None], fov_w[:, None]], dim=-1)


def normalise_cameras(T_world_camera: Float[Tensor, "s 4 4"]) -> Float[Tensor, "s 4 4"]:
    """Cameras relative to the first, with a median distance of 1 from it.

    The median is the lower one for an even number of cameras, and at least `LEAST_DISTANCE`.
    """
    T = invert(T_world_camera[:1]) @ T_world_camera
    distance = T[:, :3, 3].norm(dim=-1).median().clamp_min(LEAST_DISTANCE)
    T = T.clone()
    T[:, :3, 3] /= distance
    return T


class CameraEncoder(nn.Module):
    """Transformer that turns the codes of given cameras into one token a view."""

    def __init__(self, dim: int) -> None:
        """Create the layers for tokens of width `dim`."""
        super().__init__()
        self.pose_branch = nn.ModuleDict(
            {"fc1": nn.Linear(9, dim // 2), "fc2": nn.Linear(dim // 2, dim)}
        )
        self.token_norm = nn.LayerNorm(dim)
        self.trunk = nn.ModuleList(
            EncoderBlock(dim, CAMERA_HEADS, eps=1e-5, layer_scale=True)
            for _ in range(ENCODER_BLOCKS)
        )
        self.trunk_norm = nn.LayerNorm(dim)

    def forward(self, code: Float[Tensor, "s 9"]) -> Float[Tensor, "s c"]:
        """Map camera codes to tokens."""
        fc1, fc2 = self.pose_branch["fc1"], self.pose_branch["fc2"]
        x = self.token_norm(fc2(gelu(fc1(code))))[None]
        for block in self.trunk:
            x = block(x)
        out: Tensor = self.trunk_norm(x)[0]
        return out


class CameraDecoder(nn.Module):
    """Perceptron that reads a camera code from the camera token of a view."""

    def __init__(self, dim: int) -> None:
        """Create the layers for camera features of width `dim`."""
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU()
        )
        self.fc_t = nn.Linear(dim, 3)
        self.fc_qvec = nn.Linear(dim, 4)
        self.fc_fov = nn.Sequential(nn.Linear(dim, 2))

    def forward(self, feature: Float[Tensor, "s dim"]) -> Float[Tensor, "s 9"]:
        """Map camera features to camera codes; fields of view are not negative."""
        x = self.backbone(feature)
        return torch.cat([self.fc_t(x), self.fc_qvec(x), relu(self.fc_fov(x))], dim=-1)


def _rotation(quat_xyzw: Float[Tensor, "s 4"]) -> Float[Tensor, "s 3 3"]:
    """Rotation of a quaternion of any length: I + 2/|q|^2 (w [v]x + [v]x^2)."""
    x, y, z, w = quat_xyzw.unbind(-1)
    double = 2 / quat_xyzw.square().sum(-1)
    rows = [
        1 - double * (y * y + z * z), double * (x * y - z * w), double * (x * z + y * w),
        double * (x * y + z * w), 1 - double * (x * x + z * z), double * (y * z - x * w),
        double * (x * z - y * w), double * (y * z + x * w), 1 - double * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(-1, 3, 3)


def _quaternion(R: Float[Tensor, "s 3 3"]) -> Float[Tensor, "s 4"]:
    """Unit quaternion (x, y, z, w) with w >= 0."""
    from dyn3r.geometry.rotations import rotmat_to_rotvec

    rotvec = rotmat_to_rotvec(R.double())
    angle = rotvec.norm(dim=-1, keepdim=True)
    # sin(a/2) / a = sinc(a / 2 pi) / 2
    xyz = rotvec * torch.sinc(angle / (2 * torch.pi)) / 2
    return torch.cat([xyz, (angle / 2).cos()], dim=-1).to(R.dtype)
