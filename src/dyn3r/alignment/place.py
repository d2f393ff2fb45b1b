"""Fit a state to what is known beforehand, and put parts side by side that nothing connects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.alignment.evaluate import Fixed
from dyn3r.alignment.options import Presets
from dyn3r.alignment.state import Observations, State
from dyn3r.geometry import invert
from dyn3r.geometry.registration import nearest_rotation


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


def to_presets(
    state: State, observations: Observations, presets: Presets, K_given: Bool[np.ndarray, " n"]
) -> tuple[State, Fixed]:
    """The first state moved to where the presets want it, and what must stay as it is.

    The world is registered to the known cameras (turn: mean of the differences; scale: from their
    baselines, else from known depth), then the known values are put in.
    """
    n, p = state.depth.shape
    device = state.depth.device
    cameras = torch.zeros(n, dtype=torch.bool, device=device)
    depth_known = torch.zeros(n, p, dtype=torch.bool, device=device)
    K_fixed = torch.from_numpy(K_given & presets.fix_K).to(device)
    unit = False
    depth = None
    if presets.depth is not None:
        u, v = observations.uv.long().cpu().numpy().T
        depth = torch.from_numpy(np.asarray(presets.depth, dtype=np.float32)[:, v, u]).to(device)
        depth_known = torch.isfinite(depth) & (depth > 0)
    if presets.T_world_camera is not None:
        given = np.isfinite(presets.T_world_camera).all((1, 2))
        cameras = torch.from_numpy(given).to(device)
    scale = 1.0
    if depth is not None and bool(depth_known.any()):
        scale, unit = float((depth / state.depth)[depth_known].median()), presets.fix_depth
    if bool(cameras.any()):
        assert presets.T_world_camera is not None
        target = torch.from_numpy(np.asarray(presets.T_world_camera, dtype=np.float64)).to(device)
        target = target[cameras]
        now = state.T_world_camera[cameras]
        R = nearest_rotation((target[:, :3, :3] @ now[:, :3, :3].transpose(1, 2)).sum(0))[0]
        a, b = now[:, :3, 3] @ R.T, target[:, :3, 3]
        a_mean, b_mean = a.mean(0), b.mean(0)
        spread = float(((a - a_mean) ** 2).sum())
        product = float(((a - a_mean) * (b - b_mean)).sum())
        if product > 0 and spread > 1e-12:
            scale, unit = product / spread, unit or presets.fix_T
        state = transformed(state, scale, R, b_mean - scale * a_mean)
        T = state.T_world_camera.clone()
        T[cameras] = target
        state = replace(state, T_world_camera=T)
    elif scale != 1.0:
        state = state.rescaled(scale)
    if depth is not None:
        state = replace(state, depth=torch.where(depth_known, depth, state.depth))
    fixed = Fixed(cameras & presets.fix_T, K_fixed, depth_known & presets.fix_depth, unit)
    return state, fixed


def place_components(
    state: State, observations: Observations, component: list[int]
) -> tuple[State, list[str]]:
    """Put unconnected parts next to the main one, as nothing says where they belong.

    A part is scaled to the median depth of the main part and moved so that its frame nearest in
    time to a frame of the main part shares that frame's camera. Frames of no part likewise take
    their nearest determined neighbour's camera.
    """
    notes = []
    main = [t for t, part in enumerate(component) if part == 0]
    middle = float(state.depth[main].median())
    T, depth = state.T_world_camera.clone(), state.depth.clone()
    pair_scale, pair_R, pair_t = (x.clone() for x in (state.pair_scale, state.pair_R, state.pair_t))
    for part in sorted({c for c in component if c > 0}):
        frames = [t for t, c in enumerate(component) if c == part]
        own, near = min(((a, b) for a in frames for b in main), key=lambda ab: abs(ab[0] - ab[1]))
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
    for frame in (t for t, part in enumerate(component) if part < 0):
        T[frame] = T[min(main, key=lambda t: abs(t - frame))]
    placed = replace(
        state, T_world_camera=T, depth=depth, pair_scale=pair_scale, pair_R=pair_R, pair_t=pair_t
    )
    return placed, notes
