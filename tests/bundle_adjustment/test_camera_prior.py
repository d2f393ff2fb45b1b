"""Prior of the cameras against plain numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dyn3r.bundle_adjustment.adjust import bundle_adjust, calibrated_bundle_adjust
from dyn3r.bundle_adjustment.camera_prior import CameraPrior
from dyn3r.bundle_adjustment.problem import Estimate
from dyn3r.bundle_adjustment.schur import linearise
from dyn3r.bundle_adjustment.solver import flow_cost, total_cost
from dyn3r.types import FlowFields
from tests.bundle_adjustment.made_up import alignment_of, made_up
from tests.bundle_adjustment.test_solve import moved, problem_of

WIDTH = 1e6


def test_errors_are_distance_and_angle_in_standard_errors() -> None:
    eye, zero = torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, 3, dtype=torch.float64)
    prior = CameraPrior(eye, zero, rotation_sigma=0.1, centre_sigma=2.0)
    angle = 0.3
    R = torch.tensor([[[math.cos(angle), 0, math.sin(angle)], [0, 1, 0],
                       [-math.sin(angle), 0, math.cos(angle)]]], dtype=torch.float64)  # fmt: skip
    centre = torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.float64)
    t = -(R @ centre[..., None])[..., 0]
    errors = prior.errors(R, t)
    assert float(errors[0, :3].norm()) == pytest.approx(3 / 2)
    assert float(errors[0, 3:].norm()) == pytest.approx(0.3 / 0.1)
    assert prior.cost(R, t) == pytest.approx(1.5**2 + 3**2)
    assert prior.cost(eye, zero) == 0


def test_gradient_and_second_derivatives_are_those_of_the_cost() -> None:
    problem, now = problem_of(made_up(4, (48, 64)))
    plain = replace(problem, measurements=[])
    other = moved(now, 0.05 * torch.sin(torch.arange(25, dtype=torch.float64)))
    prior = CameraPrior(other.R, other.t, rotation_sigma=0.02, centre_sigma=0.3)
    system, without = (linearise(replace(plain, camera_prior=p), now, WIDTH) for p in (prior, None))

    def cost(k: int, step: float) -> float:
        change = torch.zeros(25, dtype=torch.float64)
        change[k] = step
        there: Estimate = moved(now, change)
        return prior.cost(there.R, there.t)

    for k in range(24):
        slope = (cost(k, 1e-5) - cost(k, -1e-5)) / 2e-5 / 2
        added = float(system.gradient[k] - without.gradient[k])
        assert added == pytest.approx(slope, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(system.prior[:6], prior.precision)
    with_prior = replace(problem, camera_prior=prior)
    extra = total_cost(with_prior, now, 3.0) - total_cost(problem, now, 3.0)
    assert extra == pytest.approx(prior.cost(now.R, now.t))
    assert flow_cost(with_prior, now) == flow_cost(problem, now)


@pytest.mark.slow
def test_frames_without_flow_keep_the_stated_camera_and_others_follow_flow() -> None:
    truth = made_up(4, (48, 64))
    T = truth.T.copy()
    T[3, :3, 3] += 0.03
    stated = replace(
        alignment_of(T, truth.K, truth.depth), camera_sigma=(0.01, 0.05), depth_sigma=0.05
    )
    blind = replace(truth.flow, visible=truth.flow.visible & ~_reaches(truth.flow, 3))
    found = calibrated_bundle_adjust(stated, truth.images, blind)
    np.testing.assert_allclose(found.T_world_camera[3], T[3], atol=1e-6)
    seen = bundle_adjust(stated, truth.images, truth.flow)
    before, after = (np.abs(x[3, :3, 3] - truth.T[3, :3, 3]).max()
                     for x in (T, seen.T_world_camera))  # fmt: skip
    assert after < 0.5 * before


def _reaches(flow: FlowFields, frame: int) -> np.ndarray:
    """Pairs with a frame, to be broadcast over pixels."""
    return (flow.edges == frame).any(axis=1)[:, None, None]
