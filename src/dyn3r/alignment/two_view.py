"""Alignment of one or two frames in closed form (SPEC 6)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from dyn3r.alignment.spanning_tree import registration_weights
from dyn3r.alignment.state import PAIR_SCALE, Observations, State
from dyn3r.geometry.cameras import invert, transform
from dyn3r.geometry.registration import robust_similarity, solve_camera
from dyn3r.types import PairPredictions

MIN_INLIER_SHARE = 0.1
"""Smallest share of PnP inliers of an accepted camera. Source: chosen by hand."""
CONFIDENT_QUANTILE = 0.3
"""PnP leaves out the pixels below this quantile of confidence. Source: chosen by hand."""


def solve_two_view(
    predictions: PairPredictions,
    observations: Observations,
    scores: Tensor,
    K: Tensor,
    K_given: Bool[np.ndarray, " n"],
) -> tuple[State, Tensor, Bool[np.ndarray, " n"]]:
    """State, full-resolution depth (NaN: none), and which cameras are determined.

    Frame i of the more confident direction is the world. Both its pointmaps are used unchanged. The
    camera of frame j follows by PnP on its confident, static pixels.
    """
    best = int(scores.argmax())
    count = len(observations.edges)
    i, j = (int(x) for x in observations.edges[best])
    assert predictions.points1 is not None
    assert predictions.points2 is not None
    height, width = predictions.size_hw
    T = torch.eye(4, dtype=torch.float64).repeat(predictions.num_frames, 1, 1)
    depth = torch.zeros(predictions.num_frames, height, width)
    if not K_given.any():
        K = K[i].clone().expand_as(K).clone()
    points_i = torch.from_numpy(np.array(predictions.points1[best], dtype=np.float32))
    points_j = torch.from_numpy(np.array(predictions.points2[best], dtype=np.float32))
    depth[i], found = points_i[..., 2], True
    world = observations.points.new_zeros(predictions.num_frames, observations.points.shape[1], 3)
    world[i] = observations.points[best]
    if i != j:
        world[j] = observations.points[count + best]
        camera = second_camera(observations, scores, best, K[j])
        found = camera is not None
        T[j] = T[j] if camera is None else camera
        local = transform(invert(T[j]).float(), points_j.reshape(-1, 3))
        depth[j] = local[:, 2].reshape(height, width)
    weights = registration_weights(observations)
    views = torch.cat([observations.points[:count], observations.points[count:]], 1)
    target = world[observations.frame]
    fit = robust_similarity(
        views,
        torch.cat([target[:count], target[count:]], 1),
        torch.cat([weights[:count], weights[count:]], 1),
    )
    empty = observations.points.new_ones(predictions.num_frames, observations.points.shape[1])
    device = observations.points.device
    state = State(
        T.to(device), K.to(device), empty,
        fit.scale.double().clamp_min(1e-6), fit.R.double(), fit.t.double(),
    )  # fmt: skip
    mean_scale = state.pair_scale[(scores > 0).to(state.pair_scale.device)].log().mean().exp()
    factor = PAIR_SCALE / float(mean_scale)
    determined = np.isin(np.arange(predictions.num_frames), [i, j] if found else [i])
    good = torch.isfinite(depth) & (depth > 0)
    return state.rescaled(factor), torch.where(good, depth * factor, torch.nan), determined


def second_camera(
    observations: Observations, scores: Tensor, best: int, K: Tensor
) -> Tensor | None:
    """T_world_camera of frame j of a pair by PnP, else by registration of the reverse pair."""
    count = len(observations.edges)
    weights = registration_weights(observations)
    view = count + best
    w = weights[view]
    if bool((w > 0).any()):
        confident = (w > 0) & (w >= w[w > 0].quantile(CONFIDENT_QUANTILE))
        solved = solve_camera(
            observations.points[view][confident].cpu().numpy(),
            observations.uv[confident].cpu().numpy(),
            K.cpu().numpy(),
        )
        if solved is not None and solved[1] > MIN_INLIER_SHARE:
            return torch.from_numpy(solved[0])
    reverse = (observations.edges == observations.edges[best].flip(0)).all(-1) & (scores > 0)
    if bool(reverse.any()):
        reverse_pair = int(torch.nonzero(reverse)[0, 0])
        fit = robust_similarity(observations.points[reverse_pair], observations.points[view], w)
        T = torch.eye(4, dtype=torch.float64)
        T[:3, :3], T[:3, 3] = fit.R.double(), fit.t.double()
        return T
    return None
