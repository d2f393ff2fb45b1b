"""Fit a state to what is known beforehand, and put parts side by side that nothing connects."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.alignment.sampled_objective import Fixed
from dyn3r.alignment.state import Observations, State
from dyn3r.geometry import invert
from dyn3r.geometry.registration import nearest_rotation
from dyn3r.types import Priors


def transformed(
    state: State, scale: float, R: Float[Tensor, "3 3"], t: Float[Tensor, " 3"]
) -> State:
    """The state in another world: x -> scale R x + t."""
    T = state.T_world_camera.clone()
    T[:, :3, :3] = R @ T[:, :3, :3]
    T[:, :3, 3] = scale * T[:, :3, 3] @ R.T + t
    return replace(
        state,
        T_world_camera=T,
        depth=state.depth * scale,
        pair_scale=state.pair_scale * scale,
        pair_R=R @ state.pair_R,
        pair_t=scale * state.pair_t @ R.T + t,
    )


def from_first_camera(state: State, frame: int) -> State:
    """The same scene with the camera of `frame` as the world."""
    T = invert(state.T_world_camera[frame])
    state = transformed(state, 1.0, T[:3, :3], T[:3, 3])
    exact = state.T_world_camera.clone()
    exact[frame] = torch.eye(4, dtype=exact.dtype, device=exact.device)
    return replace(state, T_world_camera=exact)


@dataclass(frozen=True)
class Known:
    """What is known before a problem is solved, at the pixels of its observations."""

    K_fixed: Bool[Tensor, " n"]
    T_world_camera: Float[Tensor, "n 4 4"]
    """float64; NaN where not known."""
    T_fixed: Bool[Tensor, " n"]
    """False for a known camera: it is a start only."""
    depth: Float[Tensor, "n p"]
    """NaN where not known."""
    depth_fixed: Bool[Tensor, "n p"]

    def at(self, frames: Int[Tensor, " k"]) -> Known:
        """Of some of the frames."""
        return Known(*(getattr(self, field.name)[frames] for field in fields(self)))


def known_values(
    priors: Priors, observations: Observations, K_given: Bool[np.ndarray, " n"]
) -> Known:
    """What priors say, at the pixels of the observations."""
    n, p = observations.num_frames, len(observations.uv)
    device = observations.points.device
    T = torch.full((n, 4, 4), torch.nan, dtype=torch.float64, device=device)
    depth = torch.full((n, p), torch.nan, device=device)
    if priors.T_world_camera is not None:
        T = torch.from_numpy(np.array(priors.T_world_camera, dtype=np.float64)).to(device)
        T[~torch.isfinite(T).all(-1).all(-1)] = torch.nan
    if priors.depth is not None:
        u, v = observations.uv.long().cpu().numpy().T
        depth = torch.from_numpy(np.asarray(priors.depth[:, v, u], dtype=np.float32)).to(device)
        depth = torch.where(torch.isfinite(depth) & (depth > 0), depth, torch.nan)
    return Known(
        K_fixed=torch.from_numpy(K_given & priors.fix_K).to(device),
        T_world_camera=T,
        T_fixed=torch.isfinite(T[:, 0, 0]) & priors.fix_T,
        depth=depth,
        depth_fixed=torch.isfinite(depth) & priors.fix_depth,
    )


def to_known(state: State, known: Known) -> tuple[State, Fixed]:
    """The first state moved to where the known values want it, and what must stay as it is.

    The world is registered to the known cameras (turn: mean of the differences; scale: from fixed
    depth, else from their baselines, else from depth that is a start), and the values put in.
    """
    cameras, depth_known = (
        torch.isfinite(known.T_world_camera[:, 0, 0]),
        torch.isfinite(known.depth),
    )
    unit = bool(known.depth_fixed.any())
    scale = 1.0
    if bool(depth_known.any()):
        scale = float((known.depth / state.depth)[depth_known].median())
    if bool(cameras.any()):
        target, now = known.T_world_camera[cameras], state.T_world_camera[cameras]
        R = nearest_rotation((target[:, :3, :3] @ now[:, :3, :3].transpose(1, 2)).sum(0))[0]
        a, b = now[:, :3, 3] @ R.T, target[:, :3, 3]
        a_mean, b_mean = a.mean(0), b.mean(0)
        spread = float(((a - a_mean) ** 2).sum())
        product = float(((a - a_mean) * (b - b_mean)).sum())
        if product > 0 and spread > 1e-12:
            scale = scale if unit else product / spread
            unit = unit or bool(known.T_fixed.any())
        state = transformed(state, scale, R, b_mean - scale * a_mean)
        T = state.T_world_camera.clone()
        T[cameras] = target
        state = replace(state, T_world_camera=T)
    elif scale != 1.0:
        state = state.rescaled(scale)
    state = replace(state, depth=torch.where(depth_known, known.depth, state.depth))
    return state, Fixed(known.T_fixed, known.K_fixed, known.depth_fixed, unit)


def back_to_fixed(state: State, known: Known, fixed: Fixed) -> State:
    """Undo what normalising the unit of length did to fixed cameras that do not set the unit."""
    if fixed.unit or not bool(fixed.cameras.any()):
        return state
    first = int(torch.nonzero(fixed.cameras)[0, 0])
    shift = known.T_world_camera[first, :3, 3] - state.T_world_camera[first, :3, 3]
    state = transformed(state, 1.0, torch.eye(3, dtype=shift.dtype, device=shift.device), shift)
    T = torch.where(fixed.cameras[:, None, None], known.T_world_camera, state.T_world_camera)
    return replace(state, T_world_camera=T)


def place_components(
    state: State, observations: Observations, component: list[int], fixed: Bool[np.ndarray, " n"]
) -> tuple[State, list[str]]:
    """Put unconnected parts next to the main one, as nothing says where they belong.

    A part is scaled to the median depth of the main part and moved so that its frame nearest in
    time to a frame of the main part shares that frame's camera. Frames of no part likewise take
    their nearest determined neighbour's camera. Parts and frames with a `fixed` camera stay.
    """
    notes = []
    members: dict[int, list[int]] = {}
    for frame, part in enumerate(component):
        members.setdefault(part, []).append(frame)
    main = members[0]
    middle = float(state.depth[main].median())
    T, depth = state.T_world_camera.clone(), state.depth.clone()
    pair_scale, pair_R, pair_t = (x.clone() for x in (state.pair_scale, state.pair_R, state.pair_t))
    for part in sorted(c for c in members if c > 0):
        frames = members[part]
        if fixed[frames].any():
            continue
        own, near = min(((t, nearest(main, t)) for t in frames), key=lambda ab: abs(ab[0] - ab[1]))
        scale = middle / max(float(state.depth[frames].median()), 1e-12)
        move = state.T_world_camera[near] @ invert(state.T_world_camera[own])
        R = move[:3, :3]
        t = state.T_world_camera[near][:3, 3] - scale * R @ state.T_world_camera[own][:3, 3]
        moved = transformed(state, scale, R, t)
        rows = torch.isin(observations.edges[:, 0], torch.tensor(frames, device=T.device))
        T[frames], depth[frames] = moved.T_world_camera[frames], moved.depth[frames]
        pair_scale[rows], pair_R[rows], pair_t[rows] = (
            moved.pair_scale[rows],
            moved.pair_R[rows],
            moved.pair_t[rows],
        )
        notes.append(
            f"frames {frames[0]}..{frames[-1]} ({len(frames)} of them) share no pair with the main "
            "part: where they lie, and how large, is a guess"
        )
    for frame in members.get(-1, []):
        if not fixed[frame]:
            T[frame] = T[nearest(main, frame)]
    placed = replace(
        state, T_world_camera=T, depth=depth, pair_scale=pair_scale, pair_R=pair_R, pair_t=pair_t
    )
    return placed, notes


def nearest(frames: list[int], frame: int) -> int:
    """The one of ascending `frames` that is nearest to `frame` in time (the earlier of two)."""
    place = bisect_left(frames, frame)
    around = frames[max(0, place - 1) : place + 1]
    return min(around, key=lambda t: abs(t - frame))
