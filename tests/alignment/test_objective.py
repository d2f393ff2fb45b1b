"""The terms of the objective: golden values at golden states, gradients, and what they ignore."""

from __future__ import annotations

import pytest
import torch

from dyn3r.alignment.objective import (
    camera_movement,
    depth_change,
    flow_disagreement,
    pair_disagreement,
)
from dyn3r.geometry.cameras import intrinsics, transform, unproject
from dyn3r.geometry.induced_flow import induced_flow

from .golden_alignment import golden


def golden_state(run: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    g = golden()
    T, depth, similarity = (
        torch.from_numpy(g[f"{run}_{name}"]) for name in ("poses", "depth", "pairwise_poses")
    )
    K = intrinsics(torch.full((12,), float(g[f"{run}_focal"])), (48, 64))
    return T, K, depth, similarity


@pytest.mark.parametrize("run", ["plain", "full"])
def test_pair_term_agrees_with_golden(run: str) -> None:
    g, (T, K, depth, similarity) = golden(), golden_state(run)
    world = transform(T, unproject(depth, K).reshape(12, -1, 3))
    frames, points, weights = [], [], []
    for side in (0, 1):
        frames.append(world[g["edges"][:, side]])
        given = torch.from_numpy(g[f"pts{side + 1}"]).float().reshape(70, -1, 3)
        points.append(transform(similarity, given))
        weights.append(torch.from_numpy(g[f"conf{side + 1}"]).float().reshape(70, -1).log())
    value = pair_disagreement(torch.cat(frames), torch.cat(points), torch.cat(weights))
    assert float(value) == pytest.approx(float(g[f"{run}_align_term"]), rel=2e-5)


@pytest.mark.parametrize(("run", "translation_weight"), [("plain", 0.1), ("full", 1.0)])
def test_smoothness_agrees_with_golden(run: str, translation_weight: float) -> None:
    value = camera_movement(golden_state(run)[0].double(), translation_weight)
    assert float(value) == pytest.approx(float(golden()[f"{run}_smooth_term"]), rel=1e-5)


def test_flow_agrees_with_golden() -> None:
    # The golden value also holds the opposite direction's measurements, with noise of their own.
    g, (T, K, depth, _similarity) = golden(), golden_state("full")
    i, j = g["edges"].T
    induced = induced_flow(depth[i], K[i], T[i], K[j], T[j])
    measured = torch.from_numpy(g["flow_ij"]).float().movedim(1, -1)
    still = torch.from_numpy(~g["gt_dynamic"][i])
    value = flow_disagreement(induced, measured, still)
    assert float(value) == pytest.approx(float(g["full_flow_term"]), rel=1e-3)


def test_gradients_are_right() -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(True)

    weights = torch.rand(4, 5, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda a, b: pair_disagreement(a, b, weights), (random(4, 5, 3), random(4, 5, 3))
    )
    still = torch.ones(4, 5, dtype=torch.bool)
    assert torch.autograd.gradcheck(
        lambda a, b: flow_disagreement(a, b, still), (random(4, 5, 2), random(4, 5, 2))
    )
    shift = random(4, 3)

    def movement(t: torch.Tensor) -> torch.Tensor:
        T = torch.cat([torch.eye(3).double().expand(4, 3, 3), t[..., None]], -1)
        return camera_movement(torch.cat([T, torch.zeros(4, 1, 4).double()], 1), 0.7)

    assert torch.autograd.gradcheck(movement, (shift,))
    moving = torch.rand(3, 6, generator=generator) > 0.5
    assert torch.autograd.gradcheck(
        lambda a: depth_change(a.exp(), torch.ones(3, 6).double(), moving), (random(3, 6),)
    )


def test_flow_leaves_out_outliers_and_moving_pixels_and_switches_off() -> None:
    measured = torch.zeros(1, 4, 4, 2)
    induced = torch.full((1, 4, 4, 2), 0.5)
    still = torch.ones(1, 4, 4, dtype=torch.bool)
    plain = float(flow_disagreement(induced, measured, still))
    assert plain == pytest.approx(2 * 0.5 * 0.25)
    induced[0, 0, 0] = 1000
    assert float(flow_disagreement(induced, measured, still)) == pytest.approx(plain)
    induced[0, 1] = 20
    still[0, 1] = False
    assert float(flow_disagreement(induced, measured, still)) == pytest.approx(plain)
    assert float(flow_disagreement(torch.full_like(induced, 30.0), measured, still)) == 0
    assert float(flow_disagreement(induced, measured, ~torch.ones_like(still))) == 0


def test_depth_prior_ignores_scale_and_counts_moving_pixels_twice() -> None:
    first = torch.rand(2, 50) + 1
    assert float(depth_change(3 * first, first)) == pytest.approx(0, abs=1e-6)
    changed = first.clone()
    changed[:, :5] *= 1.5
    moving = torch.zeros(2, 50, dtype=torch.bool)
    moving[:, :5] = True
    assert float(depth_change(changed, first, moving)) > 1.3 * float(depth_change(changed, first))


def test_movement_of_a_still_camera_is_zero_with_a_gradient() -> None:
    T = torch.eye(4).repeat(3, 1, 1).requires_grad_(True)
    value = camera_movement(T)
    value.backward()
    assert float(value.detach()) == 0
    assert T.grad is not None
    assert torch.isfinite(T.grad).all()
