"""Registration of a state to known values, and merging of components that no pair connects."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.alignment.sampled_objective import FixedUnknowns
from dyn3r.alignment.state import Observations, State
from dyn3r.geometry.cameras import invert
from dyn3r.geometry.registration import rotation_and_scale
from dyn3r.io.text import counted
from dyn3r.types import Priors


def transformed(
    state: State, scale: float, R: Float[Tensor, "3 3"], t: Float[Tensor, " 3"]
) -> State:
    """State in another world frame: x -> scale R x + t."""
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


def relative_to_camera(state: State, frame: int) -> State:
    """State with the camera of `frame` as the world frame."""
    T = invert(state.T_world_camera[frame])
    state = transformed(state, 1.0, T[:3, :3], T[:3, 3])
    exact = state.T_world_camera.clone()
    exact[frame] = torch.eye(4, dtype=exact.dtype, device=exact.device)
    return replace(state, T_world_camera=exact)


@dataclass(frozen=True)
class KnownValues:
    """Cameras, focal lengths and depth that are known before, at the pixels of the observations."""

    K_fixed: Bool[Tensor, " n"]
    T_world_camera: Float[Tensor, "n 4 4"]
    """float64; NaN where not known."""
    T_fixed: Bool[Tensor, " n"]
    """False for a known camera that is only an initial value."""
    depth: Float[Tensor, "n p"]
    """NaN where not known."""
    depth_fixed: Bool[Tensor, "n p"]

    def subset(self, frames: Int[Tensor, " k"]) -> KnownValues:
        """The values of some of the frames."""
        return KnownValues(*(getattr(self, field.name)[frames] for field in fields(self)))


def known_values(
    priors: Priors, observations: Observations, K_given: Bool[np.ndarray, " n"]
) -> KnownValues:
    """Values of the priors at the pixels of the observations."""
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
    return KnownValues(
        K_fixed=torch.from_numpy(K_given & priors.fix_K).to(device),
        T_world_camera=T,
        T_fixed=torch.isfinite(T[:, 0, 0]) & priors.fix_T,
        depth=depth,
        depth_fixed=torch.isfinite(depth) & priors.fix_depth,
    )


def register_to_priors(state: State, known: KnownValues) -> tuple[State, FixedUnknowns]:
    """The state registered to the known values, with these put in, and which of them are fixed.

    Rotation: mean of the differences to the known cameras. Scale: from fixed depth, else from the
    baselines of the known cameras, else from depth that is an initial value.
    """
    cameras = torch.isfinite(known.T_world_camera[:, 0, 0])
    depth_known = torch.isfinite(known.depth)
    unit = bool(known.depth_fixed.any())
    scale = 1.0
    if bool(depth_known.any()):
        scale = float((known.depth / state.depth)[depth_known].median())
    if bool(cameras.any()):
        target, now = known.T_world_camera[cameras], state.T_world_camera[cameras]
        R, by_baselines = rotation_and_scale(now, target)
        if by_baselines is not None:
            scale = scale if unit else by_baselines
            unit = unit or bool(known.T_fixed.any())
        shift = target[:, :3, 3].mean(0) - scale * R @ now[:, :3, 3].mean(0)
        state = transformed(state, scale, R, shift)
        T = state.T_world_camera.clone()
        T[cameras] = target
        state = replace(state, T_world_camera=T)
    elif scale != 1.0:
        state = state.rescaled(scale)
    state = replace(state, depth=torch.where(depth_known, known.depth, state.depth))
    return state, FixedUnknowns(known.T_fixed, known.K_fixed, known.depth_fixed, unit)


def restore_fixed(state: State, known: KnownValues, fixed: FixedUnknowns) -> State:
    """The state with fixed cameras where normalisation of the unit of length has moved them."""
    if fixed.unit or not bool(fixed.cameras.any()):
        return state
    first = int(torch.nonzero(fixed.cameras)[0, 0])
    shift = known.T_world_camera[first, :3, 3] - state.T_world_camera[first, :3, 3]
    state = transformed(state, 1.0, torch.eye(3, dtype=shift.dtype, device=shift.device), shift)
    T = torch.where(fixed.cameras[:, None, None], known.T_world_camera, state.T_world_camera)
    return replace(state, T_world_camera=T)


def merge_components(
    state: State, observations: Observations, component: list[int], fixed: Bool[np.ndarray, " n"]
) -> tuple[State, list[str]]:
    """All components in the world of the main one, and notes about those placed by a guess.

    A component without a pair to the main one is scaled to the median depth of the main one and
    moved so that, of its frames, the nearest in time to a frame of the main component has the
    camera of that frame. Frames of no component take the camera of the nearest frame of the main
    component. Components and frames with a `fixed` camera stay.
    """
    notes = []
    members: dict[int, list[int]] = {}
    for frame, number in enumerate(component):
        members.setdefault(number, []).append(frame)
    main = members[0]
    median_depth = float(state.depth[main].median())
    T, depth = state.T_world_camera.clone(), state.depth.clone()
    pair_scale, pair_R, pair_t = (x.clone() for x in (state.pair_scale, state.pair_R, state.pair_t))
    for number in sorted(c for c in members if c > 0):
        frames = members[number]
        if fixed[frames].any():
            continue
        own, near = min(((t, nearest(main, t)) for t in frames), key=lambda ab: abs(ab[0] - ab[1]))
        scale = median_depth / max(float(state.depth[frames].median()), 1e-12)
        move = state.T_world_camera[near] @ invert(state.T_world_camera[own])
        R = move[:3, :3]
        t = state.T_world_camera[near][:3, 3] - scale * R @ state.T_world_camera[own][:3, 3]
        placed = transformed(state, scale, R, t)
        rows = torch.isin(observations.edges[:, 0], torch.tensor(frames, device=T.device))
        T[frames], depth[frames] = placed.T_world_camera[frames], placed.depth[frames]
        pair_scale[rows], pair_R[rows], pair_t[rows] = (
            placed.pair_scale[rows],
            placed.pair_R[rows],
            placed.pair_t[rows],
        )
        notes.append(
            f"frames {frames[0]}..{frames[-1]} ({counted(len(frames), 'frame')}) share no pair "
            "with the main component: their position and scale are a guess"
        )
    for frame in members.get(-1, []):
        if not fixed[frame]:
            T[frame] = T[nearest(main, frame)]
    merged = replace(
        state, T_world_camera=T, depth=depth, pair_scale=pair_scale, pair_R=pair_R, pair_t=pair_t
    )
    return merged, notes


def nearest(frames: list[int], frame: int) -> int:
    """The element of ascending `frames` that is nearest to `frame` (the earlier of two)."""
    index = bisect_left(frames, frame)
    around = frames[max(0, index - 1) : index + 1]
    return min(around, key=lambda t: abs(t - frame))
