"""Rotation vectors and matrices against SciPy, at every angle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dyn3r.geometry.cameras import cross_matrix
from dyn3r.geometry.rotations import rotmat_to_rotvec, rotvec_to_rotmat

ANGLES = (0.0, 1e-9, 1e-6, 9.9e-4, 1.1e-3, 0.1, 1.0, 2.0, 3.0, np.pi - 1e-4, np.pi - 1e-9)


@pytest.mark.parametrize("angle", ANGLES)
def test_agrees_with_scipy_and_back(angle: float) -> None:
    axes = np.random.default_rng(0).normal(size=(64, 3))
    axes[:3] = np.eye(3)
    rotvec = angle * axes / np.linalg.norm(axes, axis=1, keepdims=True)
    R = rotvec_to_rotmat(torch.from_numpy(rotvec))
    np.testing.assert_allclose(R.numpy(), Rotation.from_rotvec(rotvec).as_matrix(), atol=1e-12)
    back = rotmat_to_rotvec(R).numpy()
    np.testing.assert_allclose(back, rotvec, atol=1e-7 if angle > 3.1 else 1e-11)


def test_derivatives_are_finite_at_zero() -> None:
    rotvec = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    rotvec_to_rotmat(rotvec).sum().backward()
    assert torch.isfinite(rotvec.grad).all()


def test_cross_matrix() -> None:
    u, v = torch.randn(5, 3), torch.randn(5, 3)
    product = (cross_matrix(u) @ v[..., None])[..., 0]
    torch.testing.assert_close(product, torch.linalg.cross(u, v))
