"""The stated error of the focal length against dense algebra and against real errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dyn3r.bundle_adjustment import calibrated_bundle_adjust
from dyn3r.bundle_adjustment.depth_prior import network_prior
from dyn3r.bundle_adjustment.focal_uncertainty import SYSTEMATIC, focal_sigma
from dyn3r.bundle_adjustment.residuals import residuals, robust_weight
from dyn3r.bundle_adjustment.solver import KERNEL_WIDTH
from dyn3r.types import Priors
from tests.bundle_adjustment.made_up import disturbed, focal_error, made_up
from tests.bundle_adjustment.test_solve import dense_precision, problem_of


def test_it_is_the_marginal_of_all_unknowns() -> None:
    problem, now = problem_of(made_up(4, (48, 64)))
    problem = problem.with_prior(network_prior(problem.prior, problem.uv, (48, 64)))
    problem = replace(problem, focal_sigma=10.0)
    n, k = now.log_depth.shape
    unknowns = 6 * n + 1
    H = torch.zeros(unknowns + n * k, unknowns + n * k, dtype=torch.float64)
    for measured in problem.batches:
        found = residuals(problem, now, measured)
        w = robust_weight(measured, found, KERNEL_WIDTH)
        for row, (i, j) in enumerate(zip(measured.source.tolist(), measured.target.tolist())):
            for sample in range(k):
                J = torch.zeros(2, len(H), dtype=torch.float64)
                J[:, 6 * i : 6 * i + 6] += found.derivatives.all()[row, sample, :, :6]
                J[:, 6 * j : 6 * j + 6] += found.derivatives.all()[row, sample, :, 6:12]
                J[:, 6 * n] = found.derivatives.all()[row, sample, :, 12]
                J[:, unknowns + i * k + sample] = found.J_depth[row, sample]
                H += w[row, sample] * J.T @ J
    H[6 * n, 6 * n] += problem.focal_sigma**-2
    for i in range(n):
        at = slice(unknowns + i * k, unknowns + (i + 1) * k)
        H[at, at] += dense_precision(problem.prior, i)
    free = torch.arange(len(H)) >= 6  # the first camera is known
    covariance = torch.linalg.inv(H[free][:, free])
    wanted = float(covariance[6 * n - 6, 6 * n - 6].sqrt())
    assert SYSTEMATIC * wanted < problem.focal_sigma
    assert focal_sigma(problem, now) == pytest.approx(SYSTEMATIC * wanted, rel=1e-2)
    assert focal_sigma(replace(problem, focal_sigma=0.01), now) == 0.01  # at most the prior's
    assert focal_sigma(replace(problem, focal_sigma=0.0), now) == 0


@pytest.mark.slow
def test_it_states_the_errors_that_occur() -> None:
    ratios = []
    for seed in range(4):
        truth = made_up(seed=seed)
        found = calibrated_bundle_adjust(disturbed(truth, seed), truth.images, truth.flow)
        assert found.focal_sigma is not None
        ratios.append(focal_error(found.K, truth) / found.focal_sigma)
    assert 0.02 < np.sqrt(np.mean(np.square(ratios))) < 1.2


@pytest.mark.slow
def test_known_focal_lengths_have_no_error() -> None:
    truth = made_up(5)
    found = calibrated_bundle_adjust(
        replace(disturbed(truth), K=truth.K), truth.images, truth.flow, priors=Priors(K=truth.K)
    )
    assert found.focal_sigma == 0
