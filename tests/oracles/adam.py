"""The published solver of the alignment: Adam on all pixels at once, float32 (SPEC 6).

It is an oracle for the Gauss-Newton solver: tests and benchmarks compare both on the same inputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.alignment.align import estimate_cameras
from dyn3r.alignment.dense_maps import dense_maps
from dyn3r.alignment.objective import (
    camera_movement,
    depth_change,
    flow_disagreement,
    pair_disagreement,
)
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.alignment.postprocess import postprocess
from dyn3r.alignment.sampled_objective import AlignmentProblem, pair_factor
from dyn3r.alignment.state import PAIR_SCALE, State, sample
from dyn3r.geometry.cameras import invert, project, rays, transform
from dyn3r.types import FlowFields, Geometry, PairPredictions, Priors, no_progress

FIRST_RATE, LAST_RATE, BETAS, ITERATIONS = 0.01, 0.001, (0.9, 0.9), 300
"""Source: SPEC 6."""
FLOW_START = 0.1
"""Share of the iterations before the flow term is used. Source: SPEC 6."""


class Unknowns:
    """Leaf tensors: unit quaternions, translations, logarithms of positive values."""

    def __init__(self, state: State, *, shared_focal: bool) -> None:
        """Leaves whose values are those of the state."""
        import roma  # slow to import

        def leaf(x: Tensor) -> Tensor:
            out = x.detach().float().clone()
            out.requires_grad = True
            return out

        self.start, self.shared = state, shared_focal
        self.quat = leaf(roma.rotmat_to_unitquat(state.T_world_camera[:, :3, :3]))
        self.translation = leaf(state.T_world_camera[:, :3, 3])
        self.log_depth = leaf(state.depth.log())
        self.log_focal = leaf(torch.zeros(1 if shared_focal else len(state.K)))
        self.pair_quat = leaf(roma.rotmat_to_unitquat(state.pair_R))
        self.pair_translation = leaf(state.pair_t / state.pair_scale[:, None])
        self.pair_log_scale = leaf(state.pair_scale.log())

    def leaves(self) -> list[Tensor]:
        """All leaf tensors."""
        return [
            self.quat,
            self.translation,
            self.log_depth,
            self.log_focal,
            self.pair_quat,
            self.pair_translation,
            self.pair_log_scale,
        ]

    def state(self, problem: AlignmentProblem) -> State:
        """The state of these unknowns, differentiable, with fixed values put back."""
        fixed, start = problem.fixed, self.start
        T = torch.cat([_rotation(self.quat), self.translation[..., None]], -1)
        bottom = start.T_world_camera[:, 3:].float()
        T = torch.cat([T, bottom], 1)
        T = torch.where(fixed.cameras[:, None, None], start.T_world_camera.float(), T)
        focal_free = ~fixed.focals.any() if self.shared else ~fixed.focals
        factor = (self.log_focal * focal_free).exp()
        one = torch.ones_like(factor)
        K = start.K.float() * torch.stack([factor, factor, one], -1)[..., None]
        K = torch.where(_principal_point(K), start.K.float(), K)
        log_scale = self.pair_log_scale
        if not fixed.unit:
            log_scale = log_scale - log_scale.mean() + torch.tensor(PAIR_SCALE).log()
        scale = log_scale.exp()
        return State(
            T_world_camera=T,
            K=K,
            depth=torch.where(fixed.depth, start.depth, self.log_depth.exp()),
            pair_scale=scale,
            pair_R=_rotation(self.pair_quat),
            pair_t=scale[:, None] * self.pair_translation,
        )


def _rotation(quat: Float[Tensor, "k 4"]) -> Float[Tensor, "k 3 3"]:
    import roma

    return roma.unitquat_to_rotmat(quat / quat.norm(dim=-1, keepdim=True))


def _principal_point(K: Float[Tensor, "n 3 3"]) -> Bool[Tensor, "n 3 3"]:
    mask = torch.ones_like(K, dtype=torch.bool)
    mask[:, 0, 0] = mask[:, 1, 1] = False
    return mask


def objective(
    state: State, problem: AlignmentProblem, *, with_flow: bool = True
) -> Float[Tensor, ""]:
    """The whole objective as a differentiable function of the state."""
    seen, options = problem.observations, problem.options
    points = state.depth[..., None] * rays(state.K, seen.uv)
    world = transform(state.T_world_camera, points)
    A = (state.pair_scale[:, None, None] * state.pair_R)[seen.pair]
    proposals = torch.baddbmm(state.pair_t[seen.pair][:, None], seen.points, A.transpose(1, 2))
    total = pair_disagreement(world[seen.frame], proposals, problem.weights)
    total = total * pair_factor(state.pair_scale, problem.fixed)
    if options.smoothness_weight > 0:
        movement = camera_movement(state.T_world_camera, options.translation_weight)
        total = total + options.smoothness_weight * movement
    if with_flow and problem.flow is not None and options.flow_weight > 0:
        i, j = problem.flow.edges.unbind(1)
        local = transform(invert(state.T_world_camera)[j], world[i])
        induced = project(local, state.K[j]) - seen.uv
        loss = flow_disagreement(induced, problem.flow.flow, problem.flow.static)
        total = total + options.flow_weight * loss
    if options.depth_prior_weight > 0:
        change = depth_change(state.depth, problem.initial_depth, seen.dynamic)
        total = total + options.depth_prior_weight * change
    return total


def solve_adam(
    state: State,
    problem: AlignmentProblem,
    report: Callable[[float], None],
    steps: int = ITERATIONS,
) -> State:
    """Adam with a rate that falls linearly from FIRST_RATE to LAST_RATE."""
    unknowns = Unknowns(state, shared_focal=problem.options.shared_focal)
    optimiser = torch.optim.Adam(unknowns.leaves(), lr=FIRST_RATE, betas=BETAS)
    for step in range(steps):
        share = step / max(1, steps - 1)
        for group in optimiser.param_groups:
            group["lr"] = FIRST_RATE + (LAST_RATE - FIRST_RATE) * share
        optimiser.zero_grad()
        loss = objective(unknowns.state(problem), problem, with_flow=step >= FLOW_START * steps)
        loss.backward()
        report(float(loss.detach()))
        optimiser.step()
    with torch.no_grad():
        found = unknowns.state(problem)
        report(float(objective(found, problem)))
    T = torch.where(
        problem.fixed.cameras[:, None, None], state.T_world_camera, found.T_world_camera.double()
    )
    focal_fixed = problem.fixed.focals[:, None, None]
    if problem.options.shared_focal:
        focal_fixed = focal_fixed.any()
    return replace(
        found,
        T_world_camera=T,
        K=torch.where(focal_fixed, state.K, found.K.double()),
        pair_scale=found.pair_scale.double(),
        pair_R=found.pair_R.double(),
        pair_t=found.pair_t.double(),
    )


def align_adam(
    predictions: PairPredictions,
    *,
    dynamic: Bool[np.ndarray, "n h w"] | None = None,
    flow: FlowFields | None = None,
    priors: Priors | None = None,
    options: AlignmentOptions | None = None,
    steps: int = ITERATIONS,
) -> Geometry:
    """`dyn3r.alignment.align` with the published solver on all pixels.

    For three frames or more. `options.pixels` and `options.iterations` have no effect.
    """
    assert predictions.num_frames > 2
    options, priors = (options or AlignmentOptions()).on("cpu"), priors or Priors()
    start, history = time.perf_counter(), []

    def report(value: float) -> None:
        history.append((time.perf_counter() - start, value))

    height, width = predictions.size_hw
    observations = sample(predictions, height * width, dynamic, options.device)
    solver = partial(solve_adam, steps=steps)
    cameras = estimate_cameras(predictions, observations, flow, priors, options, report, solver)
    depth = cameras.state.depth.reshape(-1, height, width).cpu()
    maps = dense_maps(
        predictions, cameras.state, options.chunk_observations, no_progress, depth,
        cameras.used_pairs, options.device,
    )  # fmt: skip
    return postprocess(predictions, cameras, maps, dynamic, flow, options, history)
