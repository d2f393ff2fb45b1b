"""Initialisation of the alignment by a spanning tree of registered pairs (SPEC 6, Start)."""

from __future__ import annotations

import heapq
import logging
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyn3r.alignment.chunked_io import read_part
from dyn3r.alignment.state import Observations, State
from dyn3r.geometry.cameras import focal_from_points, intrinsics
from dyn3r.geometry.registration import Similarity, robust_similarity, solve_camera
from dyn3r.types import PairPredictions

logger = logging.getLogger(__name__)

MIN_STATIC_SHARE = 0.05
"""Registration uses static pixels alone if more than this share of the view is static and usable.
Source: chosen by hand."""
MIN_USABLE_SHARE = 0.02
"""Smallest share of usable pixels in either view of a pair. Source: chosen by hand."""
CONFIDENT_QUANTILE = 0.3
"""PnP leaves out the pixels below this quantile of confidence. Source: chosen by hand."""
REGISTRATION_REWEIGHTINGS = 5
"""Re-weightings of the registration of a pair to known points. Source: chosen by hand."""
PAIRS_AT_ONCE = 64
"""Pairs that are registered to known points together. Source: memory, about 0.6 MB each."""


@dataclass(frozen=True)
class Initialisation:
    """Initial state, and which cameras are guesses."""

    state: State
    component: list[int]
    """Per frame: 0 for the largest connected component, 1, 2, ... for others, -1 for no pair."""
    unsolved: list[int]
    """Frames of a component without a camera of their own; they have that of a neighbour."""


def pair_scores(observations: Observations) -> Float[Tensor, " m"]:
    """mean(C_i) * mean(C_j) at the sampled pixels; 0 if a side has hardly any usable pixel."""
    weights = observations.weights
    usable = (weights > 0).float().mean(-1) > MIN_USABLE_SHARE
    mean = weights.exp().mean(-1) * usable
    count = len(observations.edges)
    return mean[:count] * mean[count:]


def registration_weights(observations: Observations) -> Float[Tensor, "v p"]:
    """Weights without dynamic pixels, except in views that would have too few pixels left."""
    if observations.dynamic is None:
        return observations.weights
    static = observations.weights * ~observations.dynamic[observations.frame]
    enough = (static > 0).float().mean(-1, keepdim=True) > MIN_STATIC_SHARE
    return torch.where(enough, static, observations.weights)


def maximum_spanning_trees(
    scores: list[float], edges: list[list[int]], n: int
) -> list[tuple[int, list[tuple[int, int]]]]:
    """Root edge and following (edge, new frame) of the tree of every component (Prim)."""
    touching: list[list[int]] = [[] for _ in range(n)]
    for e, (i, j) in enumerate(edges):
        if scores[e] > 0:
            touching[i].append(e)
            touching[j].append(e)
    known: set[int] = set()
    trees: list[tuple[int, list[tuple[int, int]]]] = []
    for root in sorted((e for e in range(len(edges)) if scores[e] > 0), key=lambda e: -scores[e]):
        if known.intersection(edges[root]):
            continue  # its tree is complete
        waiting: list[tuple[float, int]] = []
        steps: list[tuple[int, int]] = []
        fresh = list(dict.fromkeys(edges[root]))
        while True:
            for frame in fresh:
                known.add(frame)
                for e in touching[frame]:
                    heapq.heappush(waiting, (-scores[e], e))
            while waiting and known.issuperset(edges[waiting[0][1]]):
                heapq.heappop(waiting)
            if not waiting:
                break
            best = heapq.heappop(waiting)[1]
            new = edges[best][1] if edges[best][0] in known else edges[best][0]
            fresh = [new]
            steps.append((best, new))
        trees.append((root, steps))
    return trees


def chain_pairs(
    observations: Observations, scores: Float[Tensor, " m"]
) -> tuple[Float[Tensor, "n p 3"], list[int]]:
    """World points of every frame by registration of pair after pair along the spanning trees.

    Returns the points (0 for frames without a usable pair) and the component of every frame. The
    world of a component is the camera of frame i of its root edge.
    """
    count, n = len(observations.edges), observations.num_frames
    edges, weights = observations.edges.tolist(), registration_weights(observations)
    world = observations.points.new_zeros(n, observations.points.shape[1], 3)
    component = [-1] * n
    trees = maximum_spanning_trees(scores.tolist(), edges, n)
    trees.sort(key=lambda tree: -len(tree[1]))
    for number, (root, steps) in enumerate(trees):
        for view, frame in ((root, edges[root][0]), (count + root, edges[root][1])):
            world[frame], component[frame] = observations.points[view], number
        for edge, new in steps:
            new_is_j = new == edges[edge][1]
            old_view, new_view = (edge, count + edge) if new_is_j else (count + edge, edge)
            old = edges[edge][0] if new_is_j else edges[edge][1]
            fit = robust_similarity(observations.points[old_view], world[old], weights[old_view])
            world[new], component[new] = fit.apply(observations.points[new_view]), number
    return world, component


def register_pairs(observations: Observations, world: Float[Tensor, "n p 3"]) -> Similarity:
    """Similarity of every pair that maps both of its sides to the world points, float64.

    Pairs are fitted a few at a time, as a fit takes many times the memory of its points.
    """
    count = len(observations.edges)
    weights = registration_weights(observations)
    rows, fits = torch.arange(count, device=weights.device), []
    for first in range(0, count, PAIRS_AT_ONCE):
        pairs = rows[first : first + PAIRS_AT_ONCE]
        sides = (pairs, count + pairs)
        source = torch.cat([observations.points[views] for views in sides], 1)
        target = torch.cat([world[observations.frame[views]] for views in sides], 1)
        both = torch.cat([weights[views] for views in sides], 1)
        fits.append(robust_similarity(source, target, both, REGISTRATION_REWEIGHTINGS))
    scale, R, t = (torch.cat(values).double() for values in zip(*fits))
    return Similarity(scale.clamp_min(1e-6), R, t)


def initial_focals(
    predictions: PairPredictions, scores: Float[Tensor, " m"], *, shared: bool
) -> tuple[Float[Tensor, " n"], bool]:
    """Focal lengths in pixels from the first pointmap of each frame's best pair (SPEC 6).

    Frames without such a pair get the median of the others. The second value is False if there is
    none at all; then a field of view of 53 degrees along the long side is assumed.
    """
    assert predictions.points1 is not None
    edges, n = np.asarray(predictions.edges), predictions.num_frames
    focals = torch.full((n,), torch.nan, dtype=torch.float64)
    for frame in range(n):
        rows = np.nonzero(edges[:, 0] == frame)[0]
        if len(rows) and float(scores[rows].max()) > 0:
            row = int(rows[int(scores[rows].argmax())])
            points = read_part(predictions.points1, row).astype(np.float32)
            focals[frame] = focal_from_points(torch.from_numpy(points).double())
    known = focals[torch.isfinite(focals)]
    if len(known) == 0:
        return torch.full((n,), float(max(predictions.size_hw)), dtype=torch.float64), False
    median = known.quantile(0.5)
    focals = torch.where(torch.isfinite(focals), focals, median)
    return (torch.full_like(focals, float(median)) if shared else focals), True


def initial_cameras(
    observations: Observations,
    world: Float[Tensor, "n p 3"],
    pairs: Similarity,
    scores: Float[Tensor, " m"],
    K: Float[Tensor, "n 3 3"],
) -> tuple[Float[Tensor, "n 4 4"], list[int]]:
    """Cameras from the best pair that has its points in that camera, else by PnP; the unsolved."""
    count, n = len(observations.edges), observations.num_frames
    weights = registration_weights(observations)
    T = torch.eye(4, dtype=torch.float64).repeat(n, 1, 1)
    unsolved = []
    for frame in range(n):
        own = torch.nonzero((observations.edges[:, 0] == frame) & (scores > 0))[:, 0]
        if len(own):
            best = own[scores[own].argmax()]
            T[frame, :3, :3], T[frame, :3, 3] = pairs.R[best], pairs.t[best]
            continue
        views = torch.nonzero(observations.edges[:, 1] == frame)[:, 0]
        views = views[scores[views] > 0]
        found = None
        if len(views):
            w = weights[count + int(views[scores[views].argmax()])]
            confident = w > 0
            if bool(confident.any()):
                confident = confident & (w >= w[w > 0].quantile(CONFIDENT_QUANTILE))
            found = solve_camera(
                world[frame][confident].cpu().numpy(),
                observations.uv[confident].cpu().numpy(),
                K[frame].cpu().numpy(),
            )
        if found is None:
            unsolved.append(frame)
        else:
            T[frame] = torch.from_numpy(found[0])
    return T, unsolved


def initialise(observations: Observations, K: Tensor, scores: Tensor) -> Initialisation:
    """Initial state except depth, which is 1 and follows in closed form (`fit_depth`)."""
    world, component = chain_pairs(observations, scores)
    pairs = register_pairs(observations, world)
    T, unsolved = initial_cameras(observations, world, pairs, scores, K)
    unsolved = [t for t in unsolved if component[t] >= 0]
    missing = set(unsolved) | {t for t in range(len(component)) if component[t] < 0}
    others = [t for t in range(len(component)) if t not in missing]
    for frame in sorted(missing):
        same = [t for t in others if component[t] == component[frame]] or others
        if same:
            T[frame] = T[min(same, key=lambda t: abs(t - frame))]
    device = observations.points.device
    state = State(
        T_world_camera=T.to(device),
        K=K.to(device),
        depth=observations.points.new_ones(observations.num_frames, observations.points.shape[1]),
        pair_scale=pairs.scale,
        pair_R=pairs.R,
        pair_t=pairs.t,
    )
    return Initialisation(state, component, unsolved)


def initial_intrinsics(
    predictions: PairPredictions,
    scores: Tensor,
    prior_K: Float[np.ndarray, "n 3 3"] | None,
    *,
    shared: bool,
) -> tuple[Float[Tensor, "n 3 3"], Bool[np.ndarray, " n"], bool]:
    """Initial K, which frames have a prior K, and whether any focal length is known.

    `shared`: frames without a prior K get that of the first frame that has one.
    """
    focals, found = initial_focals(predictions, scores, shared=shared)
    K = intrinsics(focals, predictions.size_hw)
    given = np.zeros(len(K), dtype=bool)
    if prior_K is not None:
        given = np.isfinite(prior_K).all((1, 2))
        K[torch.from_numpy(given)] = torch.from_numpy(np.asarray(prior_K, dtype=np.float64)[given])
        if shared and given.any() and not given.all():
            K[torch.from_numpy(~given)] = K[int(np.nonzero(given)[0][0])].clone()
    return K, given, found
