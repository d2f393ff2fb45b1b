"""The objective at sampled pixels, and the depths that minimise it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.alignment.depth_along_rays import depth_step
from dyn3r.alignment.objective import FLOW_OUTLIER, camera_movement, depth_change, flow_disagreement
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.alignment.spanning_tree import ENOUGH
from dyn3r.alignment.state import PAIR_SCALE, Observations, State
from dyn3r.geometry import invert, project, transform
from dyn3r.types import FlowFields


@dataclass(frozen=True)
class Fixed:
    """What the solver must not touch."""

    cameras: Bool[Tensor, " n"]
    focals: Bool[Tensor, " n"]
    depth: Bool[Tensor, "n p"]
    unit: bool
    """True: priors fix the unit of length, so pair scales are not normalised."""


@dataclass(frozen=True)
class SampledFlow:
    """Measured flow at the sampled pixels."""

    edges: Int[Tensor, "q 2"]
    flow: Float[Tensor, "q p 2"]
    still: Bool[Tensor, "q p"]
    """Pixels that do not move and whose flow can be believed."""


@dataclass(frozen=True)
class AlignmentProblem:
    """Everything the objective needs besides the state."""

    observations: Observations
    weights: Float[Tensor, "v p"]
    """Of the pair term while cameras are found (AlignmentOptions.dynamic_weight)."""
    options: AlignmentOptions
    fixed: Fixed
    first_depth: Float[Tensor, "n p"]
    flow: SampledFlow | None = None

    def at(self, pixels: Int[Tensor, " q"]) -> AlignmentProblem:
        """The same problem at some of the pixels only."""
        seen, flow = self.observations, self.flow
        return replace(
            self,
            observations=replace(
                seen,
                points=seen.points[:, pixels],
                weights=seen.weights[:, pixels],
                uv=seen.uv[pixels],
                moving=None if seen.moving is None else seen.moving[:, pixels],
            ),
            weights=self.weights[:, pixels],
            fixed=replace(self.fixed, depth=self.fixed.depth[:, pixels]),
            first_depth=self.first_depth[:, pixels],
            flow=None
            if flow is None
            else replace(flow, flow=flow.flow[:, pixels], still=flow.still[:, pixels]),
        )


@dataclass(frozen=True)
class Looked:
    """The state seen from the observations: residuals and the objective."""

    pair_points: Float[Tensor, "v p 3"]
    residual: Float[Tensor, "v p 3"]
    length: Float[Tensor, "v p"]
    pair_factor: float
    """What the pair term is multiplied by; 1 unless priors fix the unit of length."""
    lengthwise: float
    """The part of the objective that is proportional to the pair scales."""
    objective: float


def solver_weights(observations: Observations, dynamic_weight: float) -> Float[Tensor, "v p"]:
    """w of the pair term with moving pixels weighed down, except in frames that are all moving."""
    if observations.moving is None or dynamic_weight == 1:
        return observations.weights
    moving = observations.moving & ((~observations.moving).float().mean(-1, keepdim=True) > ENOUGH)
    factor = torch.where(moving, dynamic_weight, 1.0)
    return observations.weights * factor[observations.frame]


def sample_flow(flow: FlowFields | None, observations: Observations) -> SampledFlow | None:
    """Measured flow at the pixels of the observations."""
    if flow is None or len(flow.edges) == 0:
        return None
    device = observations.points.device
    u, v = observations.uv.long().cpu().numpy().T
    at_pixels = torch.from_numpy(np.asarray(flow.flow[:, v, u], dtype=np.float32)).to(device)
    edges = torch.from_numpy(np.array(flow.edges, dtype=np.int64)).to(device)
    still = torch.isfinite(at_pixels).all(-1)
    if flow.visible is not None:
        still &= torch.from_numpy(np.asarray(flow.visible[:, v, u])).to(device)
    if observations.moving is not None:
        still &= ~observations.moving[edges[:, 0]]
    return SampledFlow(edges, at_pixels.nan_to_num(), still)


def world_points(state: State, observations: Observations) -> Float[Tensor, "n p 3"]:
    """Points of every frame's pixels in the world."""
    R, t = state.T_world_camera[:, :3, :3].float(), state.T_world_camera[:, :3, 3].float()
    rays = observations.rays(state.K)
    return (state.depth[..., None] * rays) @ R.transpose(1, 2) + t[:, None]


def pair_points(state: State, observations: Observations) -> Float[Tensor, "v p 3"]:
    """Where the pairs put their points in the world."""
    A = (state.pair_scale[:, None, None] * state.pair_R).float()[observations.pair]
    t = state.pair_t.float()[observations.pair]
    return torch.baddbmm(t[:, None], observations.points, A.transpose(1, 2))


def induced_at(
    state: State, observations: Observations, edges: Int[Tensor, "q 2"]
) -> Float[Tensor, "q p 2"]:
    """Camera-induced flow at the sampled pixels."""
    i, j = edges.unbind(1)
    points = world_points(state, observations)[i]
    local = transform(invert(state.T_world_camera)[j].float(), points)
    return project(local, state.K[j].float()) - observations.uv


def pair_factor(pair_scale: Float[Tensor, " m"], fixed: Fixed) -> Float[Tensor, ""]:
    """Factor on the pair term that has the effect of normalised pair scales in a preset unit.

    Where the unit is free, the scales are normalised and this is 1. Where priors fix it, the scene
    cannot be rescaled; without the factor the pair term would shrink the pairs to please itself.
    """
    if not fixed.unit:
        return torch.ones((), dtype=pair_scale.dtype, device=pair_scale.device)
    return PAIR_SCALE / pair_scale.log().mean().exp()


def look(state: State, problem: AlignmentProblem) -> Looked:
    """Residuals and the objective at a state."""
    observations, options = problem.observations, problem.options
    proposals = pair_points(state, observations)
    residual = world_points(state, observations)[observations.frame] - proposals
    length = residual.norm(dim=-1)
    factor = float(pair_factor(state.pair_scale, problem.fixed))
    lengthwise = factor * float(2 * (problem.weights * length).mean())
    total = lengthwise
    if options.smoothness_weight > 0:
        T, tw = state.T_world_camera, options.translation_weight
        movement = options.smoothness_weight * float(camera_movement(T, tw))
        total += movement
        if not problem.fixed.unit:
            lengthwise += movement - options.smoothness_weight * float(camera_movement(T, 0.0))
    if problem.flow is not None and options.flow_weight > 0:
        induced = induced_at(state, observations, problem.flow.edges)
        loss = flow_disagreement(induced, problem.flow.flow, problem.flow.still)
        total += options.flow_weight * float(loss)
    if options.depth_prior_weight > 0:
        change = depth_change(state.depth, problem.first_depth, observations.moving)
        total += options.depth_prior_weight * float(change)
    return Looked(proposals, residual, length, factor, lengthwise, total)


def depth_anchor(state: State, problem: AlignmentProblem) -> tuple[Tensor, Tensor]:
    """The depth prior as a spring per pixel: where it pulls to, and its curvature (n, p).

    The term is the smallest sum of ŵ (log d - log d0 - mu)^2 over mu; mu is held while depth moves.
    """
    ratio = state.depth.log() - problem.first_depth.log()
    moving = problem.observations.moving
    weight = torch.ones_like(ratio) if moving is None else 1 + moving.to(ratio.dtype)
    weight = weight / weight.sum(-1, keepdim=True)
    anchor = problem.first_depth * (weight * ratio).sum(-1, keepdim=True).exp()
    curvature = 2 * problem.options.depth_prior_weight * weight / (len(ratio) * anchor**2)
    return anchor, curvature


def fit_depth(
    state: State, problem: AlignmentProblem, reweightings: int = 1, fresh: bool = False
) -> State:
    """Depth of all sampled pixels by re-weighting along the rays (see along_rays).

    Flow, and the mean that the depth prior ignores, are linearised once. `fresh` starts from the
    weighted mean of the pairs instead of the state's depth.
    """
    observations = problem.observations
    proposals = pair_points(state, observations)
    R, t = state.T_world_camera[:, :3, :3].float(), state.T_world_camera[:, :3, 3].float()
    rays = observations.rays(state.K) @ R.transpose(1, 2)
    squared = (rays * rays).sum(-1)
    frame, weights = observations.frame, observations.weights
    arm = proposals - t[frame][:, None]
    along = (arm * rays[frame]).sum(-1) / squared[frame]
    across = ((arm - along[..., None] * rays[frame]) ** 2).sum(-1)
    ray_length = squared[frame].sqrt()
    anchor = stiffness = torch.zeros_like(state.depth)
    if problem.options.depth_prior_weight > 0:
        anchor, stiffness = depth_anchor(state, problem)
        stiffness = stiffness * (weights.numel() / 2)
    if problem.flow is not None and problem.options.flow_weight > 0 and not fresh:
        slope, curvature = flow_on_depth(state, problem)
        share = problem.options.flow_weight * weights.numel() / 2
        total = stiffness + share * curvature
        pull = stiffness * (state.depth - anchor) + share * slope
        anchor = state.depth - pull / total.clamp_min(1e-20)
        stiffness = total

    def gather(x: Tensor) -> Tensor:
        return torch.zeros_like(state.depth).index_add_(0, frame, x)

    seen = gather(weights) > 0
    depth = state.depth
    if fresh:
        depth = torch.where(seen, gather(weights * along) / gather(weights).clamp_min(1e-12), depth)
    for _ in range(reweightings):
        slope = (depth[frame] - along) * ray_length
        miss2 = slope * slope + across
        weight = weights / (miss2.sqrt() + 1e-4 * depth[frame].abs() + 1e-12)
        pull = gather(weight * slope * ray_length) + stiffness * (depth - anchor)
        curvature = gather(weight * depth_step(slope, miss2) * ray_length**2) + stiffness
        depth = torch.where(seen, depth - pull / curvature.clamp_min(1e-20), depth)
    depth = depth.clamp_min(1e-4 * float(depth.clamp_min(1e-6).median()))
    return replace(state, depth=torch.where(problem.fixed.depth, state.depth, depth))


def flow_on_depth(state: State, problem: AlignmentProblem) -> tuple[Tensor, Tensor]:
    """Slope and curvature of the flow term in the depth of every sampled pixel, (n, p) each."""
    flow, observations = problem.flow, problem.observations
    assert flow is not None
    i, j = flow.edges.unbind(1)
    T_camera_world = invert(state.T_world_camera)[j].float()
    points = transform(T_camera_world, world_points(state, observations)[i])
    z = points[..., 2:].clamp_min(1e-6)
    ray = observations.rays(state.K)[i] @ (
        T_camera_world[:, :3, :3] @ state.T_world_camera[i, :3, :3].float()
    ).transpose(1, 2)
    focal = state.K[j].float()[:, None, [0, 1], [0, 1]]
    steep = focal * (ray[..., :2] - points[..., :2] / z * ray[..., 2:]) / z
    residual = project(points, state.K[j].float()) - observations.uv - flow.flow
    weight = flow_weights(residual, flow.still) * (points[..., 2:] > 1e-6)
    nothing = torch.zeros_like(state.depth)
    slope = nothing.index_add(0, i, (weight * steep * residual).sum(-1))
    return slope, nothing.index_add(0, i, (weight * steep * steep).sum(-1))


def flow_weights(residual: Float[Tensor, "q p 2"], still: Bool[Tensor, "q p"]) -> Tensor:
    """Curvature of the smooth-L1 loss by re-weighting, 0 where the loss leaves pixels out."""
    size = residual.abs()
    keep = still & (size < FLOW_OUTLIER + 0.5).all(-1)
    share = keep[..., None] / keep.sum().clamp_min(1)
    return share / size.clamp_min(1.0)
