"""Solver of the alignment: re-weighted Gauss-Newton with depth eliminated, coarse to fine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.alignment.linear_solver import Block, Front, elimination, predicted_decrease, solve
from dyn3r.alignment.normal_equations import (
    FrameTerms,
    ParameterLayout,
    eliminate_depth,
    flow_terms,
    frame_columns,
    movement_blocks,
    pair_columns,
    pair_terms,
    scale_block,
)
from dyn3r.alignment.sampled_objective import (
    AlignmentProblem,
    Evaluation,
    depth_anchor,
    evaluate,
    fit_depth,
    flow_weights,
    induced_at,
    pair_points,
    row_blocks,
    world_points,
)
from dyn3r.alignment.state import State
from dyn3r.geometry import rotations
from dyn3r.geometry.cameras import cross_matrix
from dyn3r.io.workers import ordered_map, threads_on

MAX_COARSEST_PIXELS = 1024
"""The number of pixels is divided by four until it is below this. Source: run time."""
MAX_ITERATIONS = 40
"""Largest number of iterations per level. Source: rarely reached."""
MIN_RELATIVE_DECREASE, COARSE_DECREASE = 3e-5, 1e-3
"""A level ends when iterations lower the objective by less than this share: the last one, and those
before it, which the next goes on from. Source: chosen by hand."""
DEPTH_REWEIGHTINGS = 6
"""Re-weightings of depth after every step. Source: they cost little, and cameras converge only as
fast as depth."""
INITIAL_DAMPING, MIN_DAMPING, MAX_DAMPING = 1e-4, 1e-7, 1e4
"""Levenberg-Marquardt damping, relative to the diagonal."""
RESIDUAL_FLOOR = 1e-3
"""Residuals below this share of their mean do not increase the weight further. Source: chosen by
hand; it bounds the weights."""


def pair_centroids(state: State, problem: AlignmentProblem, num_pairs: int) -> Float[Tensor, "m 3"]:
    """Weighted centroid of the points of every pair in the world."""
    weights, pair = problem.weights, problem.observations.pair
    moments = torch.zeros(num_pairs, 3, device=weights.device)
    for rows in row_blocks(weights):
        points = pair_points(state, problem.observations, rows)
        moments.index_add_(0, pair[rows], (weights[rows][..., None] * points).sum(1))
    mass = torch.zeros(num_pairs, device=weights.device).index_add_(0, pair, weights.sum(1))
    return moments / mass.clamp_min(1e-12)[:, None]


@dataclass(frozen=True)
class _FlowResiduals:
    """Flow term at a state."""

    residual: Float[Tensor, "q p 2"]
    weight: Float[Tensor, "q p 2"]
    points: Float[Tensor, "n p 3"]
    """World points of the pixels."""


def _flow_residuals(state: State, problem: AlignmentProblem) -> _FlowResiduals | None:
    flow, options = problem.flow, problem.options
    if flow is None or options.flow_weight <= 0:
        return None
    residual = induced_at(state, problem.observations, flow.edges) - flow.flow
    weight = options.flow_weight * flow_weights(residual, flow.static)
    return _FlowResiduals(residual, weight, world_points(state, problem.observations))


@dataclass(frozen=True)
class FrameGroup:
    """Frames that have equally many views and flow fields, whose equations are built together."""

    frames: Int[Tensor, " f"]
    views: Int[Tensor, "f k"]
    """Views that show each frame."""
    flows: Int[Tensor, "f q"]
    """Flow fields from each frame."""


def frame_groups(problem: AlignmentProblem) -> list[FrameGroup]:
    """All frames that have views, a few together (`row_blocks`)."""
    observations, flow = problem.observations, problem.flow
    uses_flow = flow is not None and problem.options.flow_weight > 0
    alike: dict[tuple[int, int], list[tuple[int, Tensor, Tensor]]] = {}
    for frame in range(observations.num_frames):
        views = observations.views_of(frame)
        flows = views[:0]
        if flow is not None and uses_flow:
            flows = torch.nonzero(flow.edges[:, 0] == frame)[:, 0]
        if len(views):
            alike.setdefault((len(views), len(flows)), []).append((frame, views, flows))
    out = []
    for group in alike.values():
        numbers = torch.tensor([frame for frame, _, _ in group], device=problem.weights.device)
        all_views = torch.stack([views for _, views, _ in group])
        all_flows = torch.stack([flows for _, _, flows in group])
        size = len(group), all_views.shape[1] * len(observations.uv)
        for rows in row_blocks(problem.weights.new_empty(()).expand(size)):
            out.append(FrameGroup(numbers[rows], all_views[rows], all_flows[rows]))
    return out


def flow_columns(
    state: State,
    problem: AlignmentProblem,
    flow: _FlowResiduals,
    group: FrameGroup,
    layout: ParameterLayout,
    J_frame: Float[Tensor, "f p 3 7"],
    ray: Float[Tensor, "f p 3"],
) -> FrameTerms:
    """Linearised flow from the pixels of some frames."""
    assert problem.flow is not None
    j = problem.flow.edges[group.flows, 1]
    R, t = state.T_world_camera[j, :3, :3].float(), state.T_world_camera[j, :3, 3].float()
    arm = flow.points[group.frames][:, None] - t[..., None, :]
    local = arm @ R
    z = local[..., 2].clamp_min(1e-6)
    K = state.K[j].float()
    fx, fy = K[..., None, 0, 0], K[..., None, 1, 1]
    zero = torch.zeros_like(z)
    u_row = torch.stack([fx / z, zero, -fx * local[..., 0] / z**2], -1)
    v_row = torch.stack([zero, fy / z, -fy * local[..., 1] / z**2], -1)
    J_world = torch.stack([u_row, v_row], -2) @ R.transpose(-1, -2)[:, :, None]
    focal = torch.stack([fx * local[..., 0] / z, fy * local[..., 1] / z], -1)
    J_other = torch.cat([J_world @ cross_matrix(arm), -J_world, focal[..., None]], -1)
    # Points behind the other camera have no flow.
    weight = flow.weight[group.flows] * (local[..., 2:] > 1e-6)
    J_own = J_world @ J_frame[:, None]
    J_depth = (J_world * ray[:, None, :, None]).sum(-1)
    residual = flow.residual[group.flows]
    return flow_terms(layout.frames(j), residual, weight, J_own, J_other, J_depth)


def assemble_blocks(
    state: State,
    problem: AlignmentProblem,
    seen: Evaluation,
    layout: ParameterLayout,
    groups: list[FrameGroup],
) -> tuple[list[Block], Float[Tensor, "m 3"]]:
    """Normal equations at a state, blocks in the order of time, and the centroids of the pairs.

    `groups`: see `frame_groups`. The last block is the constraint on the scales.
    """
    observations, options, device = problem.observations, problem.options, problem.weights.device
    m, p = layout.num_pairs, problem.weights.shape[1]
    centroids, world = pair_centroids(state, problem, m), world_points(state, observations)
    floor = RESIDUAL_FLOOR * (problem.weights * seen.length).sum() / problem.weights.sum()
    weight = problem.weights / (seen.length**2 + floor**2).sqrt() * (seen.pair_factor / (m * p))
    R, camera_rays = state.T_world_camera[:, :3, :3].float(), observations.rays(state.K)
    flat = torch.tensor([1.0, 1.0, 0.0], device=device)
    flow = _flow_residuals(state, problem)
    prior_curvature = prior_slope = torch.zeros_like(state.depth)
    if options.depth_prior_weight > 0:
        anchor, prior_curvature = depth_anchor(state, problem)
        prior_slope = prior_curvature * (state.depth - anchor)

    def blocks_of(group: FrameGroup) -> list[Block]:
        frames, rows = group.frames, group.views
        to_world, depth = R[frames].transpose(1, 2), state.depth[frames][..., None]
        ray = camera_rays[frames] @ to_world
        J_frame = frame_columns(depth * ray, -depth * ((camera_rays[frames] * flat) @ to_world))
        pairs = observations.pair[rows]
        points = pair_points(state, observations, rows.flatten()).view(*rows.shape, p, 3)
        J_pair = pair_columns(points - centroids[pairs][:, :, None])
        residual = world[frames][:, None] - points
        terms = [pair_terms(layout.pairs(pairs), residual, weight[rows], J_frame, J_pair, ray)]
        if flow is not None and group.flows.shape[1]:
            terms.append(flow_columns(state, problem, flow, group, layout, J_frame, ray))
        free = ~problem.fixed.depth[frames]
        own = layout.frames(frames)
        return eliminate_depth(own, terms, prior_curvature[frames], prior_slope[frames], free)

    movements: list[Block] = []
    if options.smoothness_weight > 0 and layout.num_frames > 1:
        T, tw = state.T_world_camera, options.translation_weight
        movements = movement_blocks(T, options.smoothness_weight, tw)
    of_frame: dict[int, Block] = {}
    for group, found in zip(groups, ordered_map(blocks_of, groups, threads_on(device))):
        of_frame.update(zip(group.frames.tolist(), found))
    blocks: list[Block] = []
    for frame in range(layout.num_frames):
        blocks += movements[frame - 1 : frame] if frame else []
        blocks += [of_frame[frame]] if frame in of_frame else []
    blocks.append(scale_block(layout, seen.scale_term, device))
    return blocks, centroids.double()


def apply_step(
    state: State,
    step: Float[Tensor, " size"],
    layout: ParameterLayout,
    centroids: Float[Tensor, "m 3"],
) -> State:
    """The state after a step of cameras, focal lengths and pairs; depth is not changed."""
    n, f = layout.num_frames, layout.num_focals
    camera = step[: 6 * n].reshape(n, 6)
    T = state.T_world_camera.clone()
    T[:, :3, :3] = rotations.rotvec_to_rotmat(camera[:, :3]) @ T[:, :3, :3]
    T[:, :3, 3] += camera[:, 3:]
    K = state.K.clone()
    factor = step[6 * n : 6 * n + f].clamp(-0.3, 0.3).exp()
    # Limits for focal lengths that no observation determines (all points on the optical axis).
    half = state.K[:, :2, 2].amax(-1)
    focal = state.K[:, 0, 0]
    factor = (focal * factor).clamp(0.14 * half, 20 * half) / focal
    factor = torch.where(step[6 * n : 6 * n + f] == 0, torch.ones_like(factor), factor)
    K[:, 0, 0] *= factor
    K[:, 1, 1] *= factor
    pair = step[6 * n + f :].reshape(-1, 7)
    rotation = rotations.rotvec_to_rotmat(pair[:, 1:4])
    scale = (1 + pair[:, 0]).clamp(0.5, 2.0)
    arm = (rotation @ (state.pair_t - centroids)[..., None])[..., 0]
    return replace(
        state,
        T_world_camera=T,
        K=K,
        pair_scale=state.pair_scale * scale,
        pair_R=rotation @ state.pair_R,
        pair_t=centroids + pair[:, 4:] + scale[:, None] * arm,
    )


def _free_unknowns(problem: AlignmentProblem, layout: ParameterLayout) -> Bool[Tensor, " size"]:
    fixed, n = problem.fixed, layout.num_frames
    free = torch.ones(layout.size, dtype=torch.bool, device=problem.weights.device)
    free[: 6 * n] = ~fixed.cameras.repeat_interleave(6)
    focals = fixed.focals if layout.num_focals > 1 else fixed.focals.any()[None]
    free[6 * n : 6 * n + layout.num_focals] = ~focals
    return free


def minimise(
    state: State,
    problem: AlignmentProblem,
    report: Callable[[float], None],
    iterations: int,
    least_decrease: float = MIN_RELATIVE_DECREASE,
    patience: int = 2,
) -> State:
    """Levenberg-Marquardt iterations until `patience` of them in a row hardly lower the objective.

    They lower it by less than `least_decrease` of its value.
    """
    n, m = problem.observations.num_frames, len(problem.observations.edges)
    layout = ParameterLayout(n, 1 if problem.options.shared_focal else n, m)
    free = _free_unknowns(problem, layout)
    groups = frame_groups(problem)

    def with_fitted_depth(candidate: State) -> State:
        candidate = candidate if problem.fixed.unit else candidate.normalised()
        return fit_depth(candidate, problem, DEPTH_REWEIGHTINGS)

    state = with_fitted_depth(state)
    seen, damping, increase, small = evaluate(state, problem), INITIAL_DAMPING, 2.0, 0
    report(seen.objective)
    steps: list[Front] | None = None
    for _ in range(iterations):
        blocks, centroids = assemble_blocks(state, problem, seen, layout, groups)
        if steps is None:
            steps = elimination([block.index for block in blocks if block.H.dim() == 2], free)
        while damping < MAX_DAMPING:
            step = solve(blocks, layout.size, free, damping, steps)
            candidate = with_fitted_depth(apply_step(state, step, layout, centroids))
            evaluation = evaluate(candidate, problem)
            if evaluation.objective < seen.objective:
                break
            damping, increase = damping * increase, 2 * increase
        else:
            break  # no step of any length lowers the objective: a minimum to rounding
        decrease = seen.objective - evaluation.objective
        damping *= damping_factor(decrease / max(predicted_decrease(blocks, step), 1e-30))
        damping, increase = max(damping, MIN_DAMPING), 2.0
        small = small + 1 if decrease < least_decrease * seen.objective else 0
        state, seen = candidate, evaluation
        report(seen.objective)
        if small == patience:
            break
    return state


def damping_factor(gain_ratio: float) -> float:
    """Factor on the damping after a step whose decrease is so many times the predicted one.

    It is 1/3 for a good prediction and up to 2 for a bad one. Source: Nielsen 1999, "Damping
    parameter in Marquardt's method"; as there, rejected steps increase it by 2, 4, 8, ...
    """
    return max(1 / 3, 1 - (2 * min(gain_ratio, 1) - 1) ** 3)


def random_subset(count: int, size: int) -> Int[Tensor, " q"]:
    """Ascending indices of `size` of `count` pixels, random with a fixed seed (a grid aliases)."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[:size].sort().values


def pyramid_sizes(count: int) -> list[int]:
    """Numbers of pixels from coarse to fine by factors of four; at least two levels."""
    out = [max(16, count // 4), count]
    while out[0] >= MAX_COARSEST_PIXELS:
        out.insert(0, out[0] // 4)
    return out


def solve_gauss_newton(
    state: State, problem: AlignmentProblem, report: Callable[[float], None]
) -> State:
    """The minimum of the objective from an initial state, coarse to fine.

    From the third level on, cameras are nearly converged and a step is expensive: the first small
    gain ends the level.
    """
    count = len(problem.observations.uv)
    *coarse, _ = pyramid_sizes(count)
    for level, size in enumerate(coarse):
        subset = random_subset(count, size).to(state.depth.device)
        solution = replace(state, depth=state.depth[:, subset])
        solution = _solve_level(level, solution, problem.at_pixels(subset), report, COARSE_DECREASE)
        state = replace(solution, depth=state.depth)
    return _solve_level(len(coarse), state, problem, report, MIN_RELATIVE_DECREASE)


def _solve_level(
    level: int,
    state: State,
    problem: AlignmentProblem,
    report: Callable[[float], None],
    least_decrease: float,
) -> State:
    if level:  # cameras have changed since these depths were fitted
        state = fit_depth(state, problem, DEPTH_REWEIGHTINGS, restart=True)
    iterations = problem.options.iterations or MAX_ITERATIONS
    patience = 2 if level < 2 else 1
    return minimise(state, problem, report, iterations, least_decrease, patience)
