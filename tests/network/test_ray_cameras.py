"""Cameras from rays: exact on rays of known cameras, robust against outliers."""

from __future__ import annotations

import numpy as np
import torch

from dyn3r.geometry.rotations import rotvec_to_rotmat
from dyn3r.network.many_view.ray_cameras import camera_disagreement, cameras_from_rays

SIZE_HW, GRID = (280, 504), (20, 36)
FOCAL = torch.tensor([[400.0, 410.0], [300.0, 250.0], [900.0, 900.0]]).double()


def known() -> tuple[torch.Tensor, torch.Tensor]:
    """Three cameras, and their rays by the definition: R K^-1 (u, v, 1), then the centre."""
    generator = torch.Generator().manual_seed(0)
    T = torch.eye(4).double().repeat(3, 1, 1)
    T[:, :3, :3] = rotvec_to_rotmat(torch.randn(3, 3, generator=generator).double())
    T[:, :3, 3] = torch.randn(3, 3, generator=generator).double()
    rays = torch.empty(3, *GRID, 6).double()
    for i in range(3):
        for row in range(GRID[0]):
            for col in range(GRID[1]):
                u = (col + 0.5) * SIZE_HW[1] / GRID[1] - SIZE_HW[1] / 2
                v = (row + 0.5) * SIZE_HW[0] / GRID[0] - SIZE_HW[0] / 2
                d = torch.tensor([u / FOCAL[i, 0], v / FOCAL[i, 1], 1.0]).double()
                rays[i, row, col, :3], rays[i, row, col, 3:] = T[i, :3, :3] @ d, T[i, :3, 3]
    return T, rays


def test_exact_rays_give_the_cameras() -> None:
    T, rays = known()
    found, focal = cameras_from_rays(rays.float(), torch.full((3, *GRID), 2.0), SIZE_HW)
    torch.testing.assert_close(found, T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(focal, FOCAL, rtol=1e-5, atol=1e-3)


def test_outliers_and_doubtful_rays_have_little_say() -> None:
    T, rays = known()
    generator = torch.Generator().manual_seed(1)
    rays += 0.003 * torch.randn(rays.shape, generator=generator)
    wrong = torch.rand(3, *GRID, generator=generator) < 0.1
    rays[..., :3][wrong] += 0.5
    confidence = torch.full((3, *GRID), 2.0)
    confidence[:, :5] = 1.01
    rays[:, :5, :, 3:] += 10.0  # origins of the doubtful rows
    found, focal = cameras_from_rays(rays, confidence, SIZE_HW)
    angle, log_focal, apart = camera_disagreement((found, T), (focal, FOCAL), torch.ones(3)).T
    assert (angle < 0.3).all()  # squares: 3 degrees
    assert (log_focal < 0.01).all()
    assert (apart < 0.1).all()


def test_disagreement_in_known_units() -> None:
    T, _ = known()
    turned = T.clone()
    turned[:, :3, :3] = T[:, :3, :3] @ rotvec_to_rotmat(torch.tensor([0, np.radians(3), 0]))
    turned[:, 0, 3] += 0.5
    unit = torch.tensor([1.0, 2.0, 5.0]).double()
    found = camera_disagreement((T, turned), (FOCAL, FOCAL * np.exp(-0.1)), unit)
    torch.testing.assert_close(found[:, 0], torch.full((3,), 3.0).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found[:, 1], torch.full((3,), 0.1).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found[:, 2], 0.5 / unit, rtol=1e-6, atol=0)
