"""Registration and PnP: exact answers on exact input, robustness, degenerate input."""

from __future__ import annotations

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dyn3r.geometry.registration import (
    robust_similarity,
    rotation_and_scale,
    solve_camera,
    weighted_similarity,
)


def similar(seed: int, count: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    R = roma.random_rotmat(dtype=torch.float64)
    scale = 0.1 + 5 * float(torch.rand(1, generator=generator))
    t = torch.randn(3, generator=generator, dtype=torch.float64)
    return source, scale * source @ R.T + t, R, scale


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_recovers_any_similarity(seed: int) -> None:
    source, target, R, scale = similar(seed)
    fit = weighted_similarity(source, target, torch.rand(40).double() + 0.1)
    torch.testing.assert_close(fit.R, R)
    assert float(fit.scale) == pytest.approx(scale)
    torch.testing.assert_close(fit.apply(source), target)


def test_is_a_minimum_and_agrees_with_roma() -> None:
    source, target, _R, _scale = similar(1)
    target = target + 0.3 * torch.randn(40, 3, dtype=torch.float64)
    weights = torch.rand(40).double()
    fit = weighted_similarity(source, target, weights)
    R, t, scale = roma.rigid_points_registration(
        source, target, weights=weights, compute_scaling=True
    )
    torch.testing.assert_close(fit.R, R)
    torch.testing.assert_close(fit.t, t)
    torch.testing.assert_close(fit.scale, scale)


def test_batch_equals_one_by_one() -> None:
    source, target = torch.randn(3, 30, 3), torch.randn(3, 30, 3)
    weights = torch.rand(3, 30)
    batch = weighted_similarity(source, target, weights)
    for k in range(3):
        alone = weighted_similarity(source[k], target[k], weights[k])
        torch.testing.assert_close(batch.R[k], alone.R)
        torch.testing.assert_close(batch.t[k], alone.t)


def test_robust_fit_ignores_a_third_of_outliers() -> None:
    source, target, R, scale = similar(2, 120)
    target[:40] += 8 * torch.randn(40, 3, dtype=torch.float64)
    fit = robust_similarity(source, target, torch.ones(120).double(), 30)
    assert float(roma.rotmat_geodesic_distance(fit.R, R)) < 0.02
    assert float(fit.scale) == pytest.approx(scale, rel=0.02)


@pytest.mark.parametrize("kind", ["plane", "line", "point", "weightless"])
def test_degenerate_points_give_a_finite_proper_rotation(kind: str) -> None:
    source, _target, R, _scale = similar(3)
    if kind == "plane":
        source[:, 2] = 0
    elif kind == "line":
        source[:, 1:] = 0
    elif kind == "point":
        source[:] = 1.0
    target = 2 * source @ R.T + 1
    weights = torch.zeros(40) if kind == "weightless" else torch.ones(40)
    fit = weighted_similarity(source, target, weights.double())
    assert float(torch.linalg.det(fit.R)) == pytest.approx(1, abs=1e-6)
    assert torch.isfinite(fit.t).all()
    assert float(fit.scale) > 0
    if kind in ("plane", "line"):
        torch.testing.assert_close(fit.apply(source), target)


K = np.array([[80.0, 0, 32], [0, 80, 24], [0, 0, 1]])


def seen_by(T: np.ndarray, points: np.ndarray) -> np.ndarray:
    local = (points - T[:3, 3]) @ T[:3, :3]
    image = local @ K.T
    return image[:, :2] / image[:, 2:]


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("flat", [False, True])
def test_pnp_finds_the_camera_in_any_unit(unit: float, flat: bool) -> None:
    random = np.random.default_rng(0)
    points = random.uniform(-1, 1, (200, 3)) + np.array([0, 0, 4])
    if flat:
        points[:, 2] = 4 + 0.3 * points[:, 0]
    T = np.eye(4)
    T[:3, :3] = roma.rotvec_to_rotmat(torch.tensor([0.1, -0.2, 0.05])).numpy()
    T[:3, 3] = [0.2, -0.1, 0.3]
    uv = seen_by(T, points)
    uv[:40] += 40
    scaled = T.copy()
    scaled[:3, 3] *= unit
    found = solve_camera(points * unit, uv, K)
    assert found is not None
    np.testing.assert_allclose(found[0][:3, :3], T[:3, :3], atol=2e-3)
    np.testing.assert_allclose(found[0][:3, 3] / unit, T[:3, 3], atol=1e-2)
    assert 0.7 < found[1] < 0.95


def test_pnp_says_none_instead_of_guessing() -> None:
    assert solve_camera(np.zeros((3, 3)), np.zeros((3, 2)), K) is None
    assert solve_camera(np.full((50, 3), np.nan), np.zeros((50, 2)), K) is None
    same = solve_camera(np.ones((50, 3)), np.tile([3.0, 4.0], (50, 1)), K)
    assert same is None or np.isfinite(same[0]).all()


def test_cameras_in_two_worlds_give_rotation_and_scale() -> None:
    """Also on a line, and of paths that contradict each other. One place determines no scale."""
    torch.manual_seed(0)
    source = torch.eye(4).double().repeat(5, 1, 1)
    source[:, :3, :3] = roma.random_rotmat(5, dtype=torch.float64)
    source[:, 0, 3] = torch.arange(5).double()
    R, target = roma.random_rotmat(dtype=torch.float64), source.clone()
    target[:, :3, :3] = R @ source[:, :3, :3]
    target[:, :3, 3] = 2.5 * source[:, :3, 3] @ R.T + 7
    found, scale = rotation_and_scale(source, target)
    torch.testing.assert_close(found, R)
    assert scale == pytest.approx(2.5)
    assert rotation_and_scale(source[:1], target[:1])[1] is None
    target[:, :3, 3] *= -1
    assert rotation_and_scale(source, target)[1] == pytest.approx(2.5)
    target[:, :3, 3] = 7
    assert rotation_and_scale(source, target)[1] is None
