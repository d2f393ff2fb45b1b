"""The noise of flow, estimated from residuals whose noise is known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from dyn3r.bundle_adjustment.noise import (
    MAX_CORRELATION,
    MEDIAN_NORMAL_ERROR,
    independent_share,
    typical_sigma_px,
    with_estimated_noise,
)
from dyn3r.bundle_adjustment.problem import BundleProblem, Estimate
from dyn3r.bundle_adjustment.residuals import residuals
from tests.bundle_adjustment.made_up import Truth, made_up
from tests.bundle_adjustment.test_solve import problem_of


@pytest.fixture(scope="module")
def truth() -> Truth:
    return made_up(4, noise=0.0)


def exact(truth: Truth) -> tuple[BundleProblem, Estimate]:
    """Problem, and the true cameras and depth, whose residuals are 0."""
    problem, start = problem_of(truth, 300)
    T = torch.linalg.inv(torch.from_numpy(truth.T))
    uv = problem.uv.long()
    log_depth = torch.from_numpy(truth.depth).log()[:, uv[:, 1], uv[:, 0]]
    problem = replace(problem, focal=problem.focal / 1.03, center=problem.center / 1.03)
    return problem, replace(
        start,
        R=T[:, :3, :3],
        t=T[:, :3, 3],
        log_depth=log_depth,
        log_focal=torch.tensor(0.0).double(),
    )


def with_noise(problem: BundleProblem, sigmas: list[float]) -> BundleProblem:
    """Measurements with white noise of `sigmas` of their stated standard errors, a pair each."""
    random, out = torch.Generator().manual_seed(0), []
    for m in problem.measurements:
        white = torch.randn(m.uv.shape, generator=random)
        scale = torch.tensor([sigmas[j] for j in m.target.tolist()])
        moved = torch.linalg.solve(m.whiten, white[..., None])[..., 0] * scale[:, None, None]
        out.append(replace(m, uv=m.uv + moved))
    return replace(problem, measurements=out)


def test_standard_errors_are_those_of_the_residuals_up_or_down(truth: Truth) -> None:
    problem, answer = exact(truth)
    sigmas = [0.3, 0.5, 1.0, 4.0]
    noisy = with_noise(problem, sigmas)
    found = with_estimated_noise(noisy, answer)
    for before, after in zip(noisy.measurements, found.measurements):
        for row, j in enumerate(after.target.tolist()):
            ratio = float((before.whiten[row, 0, 0, 0] / after.whiten[row, 0, 0, 0]).double())
            assert ratio == pytest.approx(sigmas[j], rel=0.25)
        error = residuals(found, answer, after, derivatives="none").error.norm(dim=-1)
        median = float(error[after.weight > 0].median())
        assert median == pytest.approx(MEDIAN_NORMAL_ERROR, rel=0.15)


def test_the_typical_standard_error_is_that_of_the_measurements_that_count(truth: Truth) -> None:
    problem, _ = exact(truth)
    known = []
    for k, m in enumerate(problem.measurements):
        whiten = torch.tensor([[1 / 0.4, 0.0], [0.0, 1 / 0.9]]).expand_as(m.whiten)
        weight = torch.ones_like(m.weight) if k else torch.zeros_like(m.weight)
        known.append(replace(m, whiten=whiten if k else whiten / 100, weight=weight))
    assert typical_sigma_px(replace(problem, measurements=known)) == pytest.approx(0.4)


def test_a_pair_that_sees_nothing_keeps_its_standard_errors(truth: Truth) -> None:
    problem, answer = exact(truth)
    blind = replace(
        problem.measurements[0], weight=torch.zeros_like(problem.measurements[0].weight)
    )
    blind = replace(problem, measurements=[blind, *problem.measurements[1:]])
    found = with_estimated_noise(blind, answer).measurements[0]
    torch.testing.assert_close(found.whiten, blind.measurements[0].whiten)
    assert not found.weight.any()


def test_white_residuals_are_independent_and_smooth_ones_are_not() -> None:
    random = np.random.default_rng(0)
    white = random.normal(0, 1, (30, 40, 2))
    shares = []
    for radius in (0.0, 0.6, 5.0):
        x = cv2.GaussianBlur(white, (0, 0), radius) if radius else white
        error = torch.from_numpy((x / x.std()).reshape(1, -1, 2))
        shares.append(float(independent_share(error, torch.ones(1, 1200, dtype=torch.bool), 40)))
    assert shares[0] > 0.85
    assert shares[0] > shares[1] > shares[2]
    least = ((1 - MAX_CORRELATION) / (1 + MAX_CORRELATION)) ** 2
    assert shares[2] == pytest.approx(least)
    assert least == pytest.approx(1 / 16)


def test_unused_samples_do_not_count() -> None:
    error = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (1, 400, 2)))
    used = torch.ones(1, 400, dtype=torch.bool)
    used[0, ::7] = False
    wild = error.clone()
    wild[~used] = 1e6
    torch.testing.assert_close(
        independent_share(wild, used, 20), independent_share(error, used, 20)
    )
