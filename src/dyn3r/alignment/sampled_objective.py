"""Objective at sampled pixels, and the depth that minimises it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.alignment.depth_along_rays import depth_step
from dyn3r.alignment.objective import FLOW_OUTLIER, camera_movement, depth_change, flow_disagreement
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.alignment.spanning_tree import MIN_STATIC_SHARE
from dyn3r.alignment.state import PAIR_SCALE, Observations, State
from dyn3r.flow.fields import rows_of_pairs
from dyn3r.geometry.cameras import invert, project, transform
from dyn3r.types import FlowFields

AT_ONCE, AT_ONCE_ELSEWHERE = 2**17, 2**24
"""Views (or flow fields) times pixels that are computed together, on a CPU and on other devices:
arrays of all of them with several numbers each would take more memory than what they come from."""


@dataclass(frozen=True)
class FixedUnknowns:
    """Unknowns that the solver must not change."""

    cameras: Bool[Tensor, " n"]
    focals: Bool[Tensor, " n"]
    depth: Bool[Tensor, "n p"]
    unit: bool
    """True: priors fix the unit of length, so pair scales are not normalised."""

    @classmethod
    def nothing(cls, state: State) -> FixedUnknowns:
        """No unknown is fixed."""
        depth = torch.zeros_like(state.depth, dtype=torch.bool)
        return cls(cameras=depth[:, 0], focals=depth[:, 0], depth=depth, unit=False)


@dataclass(frozen=True)
class SampledFlow:
    """Measured flow at the sampled pixels."""

    edges: Int[Tensor, "q 2"]
    flow: Float[Tensor, "q p 2"]
    static: Bool[Tensor, "q p"]
    """Static pixels whose flow is visible."""


@dataclass(frozen=True)
class AlignmentProblem:
    """Everything that the objective depends on besides the state."""

    observations: Observations
    weights: Float[Tensor, "v p"]
    """Weights of the pair term; see `AlignmentOptions.dynamic_weight`."""
    options: AlignmentOptions
    fixed: FixedUnknowns
    initial_depth: Float[Tensor, "n p"]
    flow: SampledFlow | None = None

    def at_pixels(self, pixels: Int[Tensor, " q"]) -> AlignmentProblem:
        """The problem at some of the pixels."""
        seen, flow = self.observations, self.flow
        return replace(
            self,
            observations=replace(
                seen,
                points=seen.points[:, pixels],
                weights=seen.weights[:, pixels],
                uv=seen.uv[pixels],
                dynamic=None if seen.dynamic is None else seen.dynamic[:, pixels],
            ),
            weights=self.weights[:, pixels],
            fixed=replace(self.fixed, depth=self.fixed.depth[:, pixels]),
            initial_depth=self.initial_depth[:, pixels],
            flow=None
            if flow is None
            else replace(flow, flow=flow.flow[:, pixels], static=flow.static[:, pixels]),
        )


@dataclass(frozen=True)
class Evaluation:
    """Lengths of the residuals and the objective at a state."""

    length: Float[Tensor, "v p"]
    """Distance between the points of frames and of pairs."""
    pair_factor: float
    """Factor on the pair term; 1 unless priors fix the unit of length."""
    scale_term: float
    """The part of the objective that is proportional to the pair scales."""
    objective: float


def pair_term_weights(observations: Observations, dynamic_weight: float) -> Float[Tensor, "v p"]:
    """Weights of the pair term with reduced weight of dynamic pixels.

    Frames with hardly any static pixel (MIN_STATIC_SHARE) keep their weights.
    """
    if observations.dynamic is None or dynamic_weight == 1:
        return observations.weights
    static_share = (~observations.dynamic).float().mean(-1, keepdim=True)
    dynamic = observations.dynamic & (static_share > MIN_STATIC_SHARE)
    factor = torch.where(dynamic, dynamic_weight, 1.0)
    return observations.weights * factor[observations.frame]


def sample_flow(flow: FlowFields | None, observations: Observations) -> SampledFlow | None:
    """Measured flow of the pairs of the observations and of neighbours, at their pixels."""
    if flow is None:
        return None
    rows = rows_of_pairs(flow.edges, observations.edges.cpu().numpy())
    if not len(rows):
        return None
    device = observations.points.device
    at = (rows[:, None], *observations.uv.long().cpu().numpy().T[::-1])
    at_pixels = torch.from_numpy(np.asarray(flow.flow[at], dtype=np.float32)).to(device)
    edges = torch.from_numpy(np.asarray(flow.edges[rows], dtype=np.int64)).to(device)
    static = torch.isfinite(at_pixels).all(-1)
    if flow.visible is not None:
        static &= torch.from_numpy(np.asarray(flow.visible[at])).to(device)
    if observations.dynamic is not None:
        static &= ~observations.dynamic[edges[:, 0]]
    return SampledFlow(edges, at_pixels.nan_to_num(), static)


def row_blocks(values: Float[Tensor, "r p"]) -> Iterator[slice]:
    """Slices of the rows, of AT_ONCE numbers each (at least one row); AT_ONCE_ELSEWHERE."""
    at_once = AT_ONCE if values.is_cpu else AT_ONCE_ELSEWHERE
    step = max(1, at_once // max(1, values.shape[1]))
    for first in range(0, len(values), step):
        yield slice(first, min(first + step, len(values)))


def world_points(state: State, observations: Observations) -> Float[Tensor, "n p 3"]:
    """World points of the sampled pixels of every frame."""
    R, t = state.T_world_camera[:, :3, :3].float(), state.T_world_camera[:, :3, 3].float()
    rays = observations.rays(state.K)
    return (state.depth[..., None] * rays) @ R.transpose(1, 2) + t[:, None]


def pair_points(
    state: State, observations: Observations, rows: slice | Int[Tensor, " k"]
) -> Float[Tensor, "k p 3"]:
    """World points of some views according to their pairs."""
    pair = observations.pair[rows]
    A = (state.pair_scale[pair, None, None] * state.pair_R[pair]).float()
    t = state.pair_t[pair].float()
    return torch.baddbmm(t[:, None], observations.points[rows], A.transpose(1, 2))


def induced_at(
    state: State, observations: Observations, edges: Int[Tensor, "q 2"]
) -> Float[Tensor, "q p 2"]:
    """Flow of a static scene at the sampled pixels."""
    world, T_camera_world = world_points(state, observations), invert(state.T_world_camera).float()
    K = state.K.float()
    out = world.new_empty(len(edges), world.shape[1], 2)
    for rows in row_blocks(out[..., 0]):
        i, j = edges[rows].unbind(1)
        local = transform(T_camera_world[j], world[i])
        out[rows] = project(local, K[j]) - observations.uv
    return out


def pair_factor(pair_scale: Float[Tensor, " m"], fixed: FixedUnknowns) -> Float[Tensor, ""]:
    """Factor on the pair term that replaces the normalisation of the pair scales.

    It is 1 where the unit of length is free, because the scales are normalised. Where priors fix
    the unit, the scene cannot be rescaled, and without the factor smaller pairs would always lower
    the pair term.
    """
    if not fixed.unit:
        return torch.ones((), dtype=pair_scale.dtype, device=pair_scale.device)
    return PAIR_SCALE / pair_scale.log().mean().exp()


def evaluate(state: State, problem: AlignmentProblem) -> Evaluation:
    """Lengths of the residuals and the objective at a state."""
    observations, options = problem.observations, problem.options
    world, length = world_points(state, observations), torch.empty_like(observations.weights)
    for rows in row_blocks(length):
        shown = world[observations.frame[rows]]
        length[rows] = (shown - pair_points(state, observations, rows)).norm(dim=-1)
    factor = float(pair_factor(state.pair_scale, problem.fixed))
    scale_term = factor * float(2 * (problem.weights * length).mean())
    total = scale_term
    if options.smoothness_weight > 0:
        T, tw = state.T_world_camera, options.translation_weight
        movement = options.smoothness_weight * float(camera_movement(T, tw))
        total += movement
        if not problem.fixed.unit:
            scale_term += movement - options.smoothness_weight * float(camera_movement(T, 0.0))
    if problem.flow is not None and options.flow_weight > 0:
        induced = induced_at(state, observations, problem.flow.edges)
        loss = flow_disagreement(induced, problem.flow.flow, problem.flow.static)
        total += options.flow_weight * float(loss)
    if options.depth_prior_weight > 0:
        change = depth_change(state.depth, problem.initial_depth, observations.dynamic)
        total += options.depth_prior_weight * float(change)
    return Evaluation(length, factor, scale_term, total)


def depth_anchor(state: State, problem: AlignmentProblem) -> tuple[Tensor, Tensor]:
    """Quadratic approximation of the depth prior per pixel: its minimum and curvature, (n, p) each.

    The term is the minimum over mu of the sum of ŵ (log d - log d0 - mu)^2; mu is held constant.
    """
    ratio = state.depth.log() - problem.initial_depth.log()
    dynamic = problem.observations.dynamic
    weight = torch.ones_like(ratio) if dynamic is None else 1 + dynamic.to(ratio.dtype)
    weight = weight / weight.sum(-1, keepdim=True)
    anchor = problem.initial_depth * (weight * ratio).sum(-1, keepdim=True).exp()
    curvature = 2 * problem.options.depth_prior_weight * weight / (len(ratio) * anchor**2)
    return anchor, curvature


def fit_depth(
    state: State, problem: AlignmentProblem, reweightings: int = 1, *, restart: bool = False
) -> State:
    """The state with depth that minimises the objective, by re-weighting along the rays.

    Flow and the depth prior are linearised once. `restart`: the initial value is the weighted mean
    of the pairs instead of the depth of the state, and flow is left out. See
    `dyn3r.alignment.depth_along_rays`.
    """
    observations = problem.observations
    frame, weights = observations.frame, observations.weights
    views = _views_along_rays(state, observations)
    anchor = prior_curvature = torch.zeros_like(state.depth)
    if problem.options.depth_prior_weight > 0:
        anchor, prior_curvature = depth_anchor(state, problem)
        prior_curvature = prior_curvature * (weights.numel() / 2)
    if problem.flow is not None and problem.options.flow_weight > 0 and not restart:
        slope, curvature = flow_depth_derivatives(state, problem)
        share = problem.options.flow_weight * weights.numel() / 2
        total = prior_curvature + share * curvature
        gradient = prior_curvature * (state.depth - anchor) + share * slope
        anchor = state.depth - gradient / total.clamp_min(1e-20)
        prior_curvature = total

    def gather(x: Tensor) -> Tensor:
        return torch.zeros_like(state.depth).index_add_(0, frame, x)

    mass = gather(weights)
    seen, depth = mass > 0, state.depth
    if restart:
        mean = gather(weights * views.along) / mass.clamp_min(1e-12)
        depth = torch.where(seen, mean, depth)
    for _ in range(reweightings):
        gradient, curvature = views.depth_derivatives(depth, observations)
        gradient += prior_curvature * (depth - anchor)
        curvature += prior_curvature
        depth = torch.where(seen, depth - gradient / curvature.clamp_min(1e-20), depth)
    depth = depth.clamp_min(1e-4 * float(depth.clamp_min(1e-6).median()))
    return replace(state, depth=torch.where(problem.fixed.depth, state.depth, depth))


@dataclass(frozen=True)
class _ViewsAlongRays:
    """Points of all views along and across the rays of their pixels, see `RayObservations`."""

    along: Float[Tensor, "v p"]
    across: Float[Tensor, "v p"]
    ray_length: Float[Tensor, "n p"]

    def depth_derivatives(
        self, depth: Float[Tensor, "n p"], observations: Observations
    ) -> tuple[Float[Tensor, "n p"], Float[Tensor, "n p"]]:
        """First and second derivative of the pair term by the depths, by re-weighting."""
        gradient, curvature = torch.zeros_like(depth), torch.zeros_like(depth)
        for rows in row_blocks(self.along):
            frame = observations.frame[rows]
            here, ray_length = depth[frame], self.ray_length[frame]
            slope = (here - self.along[rows]) * ray_length
            squared = slope * slope + self.across[rows]
            weight = observations.weights[rows] / (squared.sqrt() + 1e-4 * here.abs() + 1e-12)
            gradient.index_add_(0, frame, weight * slope * ray_length)
            factor = depth_step(slope, squared)
            curvature.index_add_(0, frame, weight * factor * ray_length**2)
        return gradient, curvature


def _views_along_rays(state: State, observations: Observations) -> _ViewsAlongRays:
    R, t = state.T_world_camera[:, :3, :3].float(), state.T_world_camera[:, :3, 3].float()
    rays = observations.rays(state.K) @ R.transpose(1, 2)
    squared = (rays * rays).sum(-1)
    along, across = (torch.empty_like(observations.weights) for _ in range(2))
    for rows in row_blocks(along):
        frame = observations.frame[rows]
        arm, ray = pair_points(state, observations, rows) - t[frame][:, None], rays[frame]
        along[rows] = (arm * ray).sum(-1) / squared[frame]
        across[rows] = ((arm - along[rows][..., None] * ray) ** 2).sum(-1)
    return _ViewsAlongRays(along, across, squared.sqrt())


def flow_depth_derivatives(state: State, problem: AlignmentProblem) -> tuple[Tensor, Tensor]:
    """First and second derivative of the flow term by the sampled depths, (n, p) each."""
    flow, observations = problem.flow, problem.observations
    assert flow is not None
    world, rays = world_points(state, observations), observations.rays(state.K)
    T_camera_world, K = invert(state.T_world_camera).float(), state.K.float()
    R_world_camera = state.T_world_camera[:, :3, :3].float()
    residual = induced_at(state, observations, flow.edges) - flow.flow
    weights = flow_weights(residual, flow.static)
    slope, curvature = torch.zeros_like(state.depth), torch.zeros_like(state.depth)
    for rows in row_blocks(residual[..., 0]):
        i, j = flow.edges[rows].unbind(1)
        points = transform(T_camera_world[j], world[i])
        z = points[..., 2:].clamp_min(1e-6)
        ray = rays[i] @ (T_camera_world[j, :3, :3] @ R_world_camera[i]).transpose(1, 2)
        focal = K[j][:, None, [0, 1], [0, 1]]
        J_depth = focal * (ray[..., :2] - points[..., :2] / z * ray[..., 2:]) / z
        weight = weights[rows] * (points[..., 2:] > 1e-6)
        slope.index_add_(0, i, (weight * J_depth * residual[rows]).sum(-1))
        curvature.index_add_(0, i, (weight * J_depth * J_depth).sum(-1))
    return slope, curvature


def flow_weights(
    residual: Float[Tensor, "q p 2"], static: Bool[Tensor, "q p"]
) -> Float[Tensor, "q p 2"]:
    """Re-weighting curvature of the smooth-L1 loss; 0 for outliers."""
    size = residual.abs()
    keep = static & (size < FLOW_OUTLIER + 0.5).all(-1)
    share = keep[..., None] / keep.sum().clamp_min(1)
    return torch.div(share, size.clamp_min_(1.0), out=size)
