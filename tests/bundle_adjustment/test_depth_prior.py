"""The prior of log depth against its covariance matrix, and against densities of SciPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from dyn3r.bundle_adjustment.depth_prior import (
    DEGREES_OF_FREEDOM,
    INDEPENDENT_SIGMA,
    KNOWN_DEPTH_SIGMA,
    SMOOTH_SIGMA,
    DepthPrior,
    independent_prior,
    network_prior,
    smooth_basis,
)
from dyn3r.bundle_adjustment.measurements import regular_grid

SIZE = (48, 64)


@pytest.fixture
def uv() -> torch.Tensor:
    return torch.from_numpy(regular_grid(SIZE, 40).astype(np.float64))


@pytest.fixture
def prior(uv: torch.Tensor) -> DepthPrior:
    """Of two frames; the depth of the first three samples of the second is known."""
    mean = torch.from_numpy(np.random.default_rng(0).normal(1, 0.3, (2, len(uv))))
    sigma = torch.full_like(mean, 0.5)
    sigma[1, :3] = KNOWN_DEPTH_SIGMA
    return network_prior(independent_prior(mean, sigma), uv, SIZE)


def covariance(prior: DepthPrior, i: int) -> torch.Tensor:
    B = prior.basis[i]
    return torch.diag(prior.variance[i]) + B @ torch.diag(prior.basis_variance) @ B.T


def some_depth(prior: DepthPrior, size: float = 0.3) -> torch.Tensor:
    return prior.mean + torch.from_numpy(np.random.default_rng(1).normal(0, size, prior.mean.shape))


def test_the_cost_is_that_of_the_covariance_matrix(prior: DepthPrior) -> None:
    log_depth = some_depth(prior)
    total = 0.0
    for i, deviation in enumerate(log_depth - prior.mean):
        total += float(deviation @ torch.linalg.solve(covariance(prior, i), deviation))
    assert prior.cost(log_depth) == pytest.approx(total, rel=1e-8)


def test_the_gradient_is_that_of_the_cost(prior: DepthPrior) -> None:
    log_depth = some_depth(prior)
    for i, s in ((0, 0), (1, 7)):
        step = torch.zeros_like(log_depth)
        step[i, s] = 1e-5
        slope = (prior.cost(log_depth + step) - prior.cost(log_depth - step)) / 2e-5
        assert float(2 * prior.gradient(log_depth)[i, s]) == pytest.approx(slope, rel=1e-5)


def test_smooth_errors_cost_little_and_rough_ones_much(prior: DepthPrior, uv: torch.Tensor) -> None:
    tilt = 0.2 * torch.cos(torch.pi * (uv[:, 0] + 0.5) / SIZE[1]).expand_as(prior.mean)
    rough = 0.2 * (-1.0) ** torch.arange(len(uv)).double().expand_as(prior.mean)
    free = prior.variance[0] > 1e-4
    first = [x * torch.tensor([[1.0], [0.0]]) for x in (tilt, rough)]
    assert free.all()
    assert prior.cost(prior.mean + first[0]) == pytest.approx(1.0, abs=0.05)  # one sigma
    wanted = len(uv) * (0.2 / INDEPENDENT_SIGMA) ** 2
    assert prior.cost(prior.mean + first[1]) == pytest.approx(wanted, rel=0.05)


def test_the_basis_is_a_constant_and_cosines_up_to_a_whole_wave(uv: torch.Tensor) -> None:
    basis, variance = smooth_basis(uv, SIZE)
    assert basis.shape == (len(uv), 6)
    assert (basis[:, 0] == 1).all()
    assert sorted(set(variance.sqrt().round(decimals=6).tolist()), reverse=True) == [*SMOOTH_SIGMA]
    mirrored = smooth_basis(torch.tensor([[0.0, 0.0], [63.0, 47.0]]).double(), SIZE)[0]
    half = [1, 3]  # odd along one axis
    torch.testing.assert_close(mirrored[0, half], -mirrored[1, half])


def test_known_depth_has_no_smooth_error_and_keeps_its_weight(prior: DepthPrior) -> None:
    far = prior.mean + 1.0
    weight = prior.reweighted(far).weight
    assert (weight[1, :3] == 1).all()
    assert not prior.basis[1, :3].any()
    torch.testing.assert_close(prior.scaled(3.0).variance[1, :3], prior.variance[1, :3])
    torch.testing.assert_close(prior.scaled(3.0).variance[0], 9 * prior.variance[0])
    torch.testing.assert_close(prior.scaled(3.0).basis_variance, 9 * prior.basis_variance)


def test_weights_are_those_of_students_t() -> None:
    mean = torch.zeros(1, 5).double()
    t = replace(independent_prior(mean, torch.full_like(mean, 0.1)), heavy_tails=True)
    log_depth = torch.tensor([[0.0, 0.05, 0.1, 0.3, 1.0]]).double()
    # the weight is the slope of the negative log density over that of a normal one
    x = log_depth.numpy()
    step = 1e-6
    density = stats.t(DEGREES_OF_FREEDOM, scale=0.1).logpdf
    slope = -(density(x + step) - density(x - step)) / (2 * step)
    wanted = slope[0, 1:] / (x[0, 1:] / 0.1**2)
    np.testing.assert_allclose(t.reweighted(log_depth).weight[0, 1:], wanted, rtol=1e-5)
    cost = t.robust_cost(log_depth) - t.robust_cost(mean)
    assert cost == pytest.approx(-2 * (density(x) - density(0.0)).sum(), rel=1e-9)


def test_normal_errors_are_not_reweighted() -> None:
    mean = torch.zeros(1, 4).double()
    normal = independent_prior(mean, torch.full_like(mean, 0.5))
    assert normal.reweighted(mean + 9) is normal
    assert normal.robust_cost(mean + 1) == pytest.approx(16.0)
