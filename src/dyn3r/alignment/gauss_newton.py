"""The solver we ship: re-weighted Gauss-Newton with depth eliminated, coarse to fine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dyn3r.alignment.linear_solver import Block, solve
from dyn3r.alignment.normal_equations import (
    Layout,
    Part,
    cross_matrix,
    eliminate_depth,
    flow_part,
    frame_columns,
    movement_blocks,
    pair_columns,
    pair_part,
    scale_block,
)
from dyn3r.alignment.sampled_objective import (
    AlignmentProblem,
    Looked,
    depth_anchor,
    fit_depth,
    flow_weights,
    induced_at,
    look,
    world_points,
)
from dyn3r.alignment.state import State

logger = logging.getLogger(__name__)

FEW = 1024
"""With so many pixels, a quarter of them is looked at before."""

DEPTH_STEPS = 6
"""Re-weightings of depth after every step: cheap, and cameras converge only as fast as depth."""


def pair_centres(problem: AlignmentProblem, seen: Looked, num_pairs: int) -> Float[Tensor, "m 3"]:
    """Weighted centroid of every pair's points in the world, about which its points turn."""
    weights, pair = problem.weights, problem.observations.pair
    moments = torch.zeros(num_pairs, 3, device=weights.device)
    moments.index_add_(0, pair, (weights[..., None] * seen.pair_points).sum(1))
    mass = torch.zeros(num_pairs, device=weights.device).index_add_(0, pair, weights.sum(1))
    return moments / mass.clamp_min(1e-12)[:, None]


def flow_columns(
    state: State,
    problem: AlignmentProblem,
    rows: Int[Tensor, " q"],
    layout: Layout,
    J_frame: Float[Tensor, "p 3 7"],
    ray: Float[Tensor, "p 3"],
    points: Float[Tensor, "p 3"],
    residual: Float[Tensor, "q p 2"],
    weight: Float[Tensor, "q p 2"],
) -> Part:
    """Linearised flow from one frame's pixels into the frames of the flow edges `rows`."""
    assert problem.flow is not None
    j = problem.flow.edges[rows, 1]
    R, t = state.T_world_camera[j, :3, :3].float(), state.T_world_camera[j, :3, 3].float()
    arm = points - t[:, None]
    local = arm @ R
    z = local[..., 2].clamp_min(1e-6)
    K = state.K[j].float()
    fx, fy = K[:, None, 0, 0], K[:, None, 1, 1]
    o = torch.zeros_like(z)
    across = torch.stack([fx / z, o, -fx * local[..., 0] / z**2], -1)
    down = torch.stack([o, fy / z, -fy * local[..., 1] / z**2], -1)
    J_world = torch.stack([across, down], -2) @ R.transpose(1, 2)[:, None]
    focal = torch.stack([fx * local[..., 0] / z, fy * local[..., 1] / z], -1)
    J_other = torch.cat([J_world @ cross_matrix(arm), -J_world, focal[..., None]], -1)
    # Points behind the other camera have no flow to speak of.
    weight = weight * (local[..., 2:] > 1e-6)
    J_own, J_depth = J_world @ J_frame, (J_world @ ray[..., None])[..., 0]
    return flow_part(layout.frames(j), residual, weight, J_own, J_other, J_depth)


def blocks_of(
    state: State, problem: AlignmentProblem, seen: Looked, layout: Layout, views: list[Tensor]
) -> tuple[list[Block], Float[Tensor, "m 3"]]:
    """The normal equations at a state, a block per frame, and the centroids of the pairs."""
    observations, options, device = problem.observations, problem.options, problem.weights.device
    m, p = layout.num_pairs, problem.weights.shape[1]
    centres = pair_centres(problem, seen, m)
    floor = 1e-3 * (problem.weights * seen.length).sum() / problem.weights.sum()
    weight = problem.weights / (seen.length**2 + floor**2).sqrt() * (seen.pair_factor / (m * p))
    R, camera_rays = state.T_world_camera[:, :3, :3].float(), observations.rays(state.K)
    flat = torch.tensor([1.0, 1.0, 0.0], device=device)
    flow = problem.flow if options.flow_weight > 0 else None
    if flow is not None:
        flow_residual = induced_at(state, observations, flow.edges) - flow.flow
        flow_weight = options.flow_weight * flow_weights(flow_residual, flow.still)
        points = world_points(state, observations)
    stiffness = strain = torch.zeros_like(state.depth)
    if options.depth_prior_weight > 0:
        anchor, stiffness = depth_anchor(state, problem)
        strain = stiffness * (state.depth - anchor)
    blocks = []
    for frame in range(layout.num_frames):
        rows = views[frame]
        if len(rows) == 0:
            continue
        ray, depth = camera_rays[frame] @ R[frame].T, state.depth[frame][:, None]
        bend = -depth * ((camera_rays[frame] * flat) @ R[frame].T)
        J_frame = frame_columns(depth * ray, bend)
        pairs = observations.pair[rows]
        J_pair = pair_columns(seen.pair_points[rows] - centres[pairs][:, None])
        parts = [
            pair_part(layout.pairs(pairs), seen.residual[rows], weight[rows], J_frame, J_pair, ray)
        ]
        if flow is not None:
            out = torch.nonzero(flow.edges[:, 0] == frame)[:, 0]
            if len(out):
                parts.append(
                    flow_columns(
                        state, problem, out, layout, J_frame, ray, points[frame],
                        flow_residual[out], flow_weight[out],
                    )
                )  # fmt: skip
        own = layout.frames(torch.tensor([frame], device=device))[0]
        free = ~problem.fixed.depth[frame]
        blocks.append(eliminate_depth(own, parts, stiffness[frame], strain[frame], free))
    if options.smoothness_weight > 0 and layout.num_frames > 1:
        T, tw = state.T_world_camera, options.translation_weight
        blocks += movement_blocks(T, options.smoothness_weight, tw)
    blocks.append(scale_block(layout, seen.lengthwise, device))
    return blocks, centres.double()


def moved(
    state: State, step: Float[Tensor, " size"], layout: Layout, centres: Float[Tensor, "m 3"]
) -> State:
    """The state after a step (depth is not part of the step)."""
    n, f = layout.num_frames, layout.num_focals
    camera = step[: 6 * n].reshape(n, 6)
    T = state.T_world_camera.clone()
    T[:, :3, :3] = roma.rotvec_to_rotmat(camera[:, :3]) @ T[:, :3, :3]
    T[:, :3, 3] += camera[:, 3:]
    K = state.K.clone()
    grow = step[6 * n : 6 * n + f].clamp(-0.3, 0.3).exp()
    # Where nothing shows the focal (points all on the axis) it must not run away.
    half = state.K[:, :2, 2].amax(-1)
    focal = state.K[:, 0, 0]
    grow = (focal * grow).clamp(0.14 * half, 20 * half) / focal
    grow = torch.where(step[6 * n : 6 * n + f] == 0, torch.ones_like(grow), grow)
    K[:, 0, 0] *= grow
    K[:, 1, 1] *= grow
    pair = step[6 * n + f :].reshape(-1, 7)
    turn = roma.rotvec_to_rotmat(pair[:, 1:4])
    factor = (1 + pair[:, 0]).clamp(0.5, 2.0)
    arm = (turn @ (state.pair_t - centres)[..., None])[..., 0]
    return replace(
        state,
        T_world_camera=T,
        K=K,
        pair_scale=state.pair_scale * factor,
        pair_R=turn @ state.pair_R,
        pair_t=centres + pair[:, 4:] + factor[:, None] * arm,
    )


def _free(problem: AlignmentProblem, layout: Layout) -> Tensor:
    fixed, n = problem.fixed, layout.num_frames
    free = torch.ones(layout.size, dtype=torch.bool, device=problem.weights.device)
    free[: 6 * n] = ~fixed.cameras.repeat_interleave(6)
    focals = fixed.focals if layout.num_focals > 1 else fixed.focals.any()[None]
    free[6 * n : 6 * n + layout.num_focals] = ~focals
    return free


def refine(
    state: State,
    problem: AlignmentProblem,
    report: Callable[[float], None],
    iterations: int,
    patience: int = 2,
) -> State:
    """Gauss-Newton steps with Levenberg-Marquardt damping, until `patience` in a row hardly pay."""
    n, m = problem.observations.num_frames, len(problem.observations.edges)
    layout = Layout(n, 1 if problem.options.shared_focal else n, m)
    free = _free(problem, layout)
    views = [problem.observations.views_of(frame) for frame in range(n)]

    def settle(candidate: State) -> State:
        candidate = candidate if problem.fixed.unit else candidate.normalised()
        return fit_depth(candidate, problem, DEPTH_STEPS)

    state = settle(state)
    seen, damping, small = look(state, problem), 1e-4, 0
    report(seen.objective)
    for _ in range(iterations):
        blocks, centres = blocks_of(state, problem, seen, layout, views)
        while damping < 1e4:
            candidate = settle(
                moved(state, solve(blocks, layout.size, free, damping), layout, centres)
            )
            looked = look(candidate, problem)
            if looked.objective < seen.objective:
                break
            damping *= 10
        else:
            break  # no step of any length helps: this is a minimum, to rounding
        gain = 1 - looked.objective / max(seen.objective, 1e-30)
        state, seen, damping = candidate, looked, max(damping / 5, 1e-7)
        report(seen.objective)
        small = small + 1 if gain < problem.options.tolerance else 0
        if small == patience:
            break
    return state


def thinned(count: int, size: int) -> Int[Tensor, " q"]:
    """`size` of `count` pixels, at random but always the same (a grid would alias)."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[:size].sort().values


def levels(count: int) -> list[int]:
    """Numbers of pixels from coarse to fine by factors of four: at least two, the first small."""
    out = [max(16, count // 4), count]
    while out[0] >= FEW:
        out.insert(0, out[0] // 4)
    return out


def solve_fast(state: State, problem: AlignmentProblem, report: Callable[[float], None]) -> State:
    """On few of the sampled pixels first, then on four times as many, and so on to all of them.

    From the third level on cameras are nearly there and a step is dear: the first small gain ends
    it.
    """
    most, count = problem.options.iterations or 40, len(problem.observations.uv)
    *coarse, _ = levels(count)
    for level, size in enumerate(coarse):
        few = thinned(count, size).to(state.depth.device)
        part = replace(state, depth=state.depth[:, few])
        part = _solve_level(level, part, problem.at(few), report, most)
        state = replace(part, depth=state.depth)
    return _solve_level(len(coarse), state, problem, report, most)


def _solve_level(
    level: int, state: State, problem: AlignmentProblem, report: Callable[[float], None], most: int
) -> State:
    if level:  # cameras have moved since these depths were found
        state = fit_depth(state, problem, DEPTH_STEPS, fresh=True)
    return refine(state, problem, report, most, patience=2 if level < 2 else 1)
