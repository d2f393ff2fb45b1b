"""Full-resolution depth, confidence and pair disagreement, streamed frame by frame.

Cameras and pair similarities are fixed, so every pixel is a separate problem
(`dyn3r.alignment.depth_along_rays`). The views of a frame are read once, in bands of rows that
respect the memory limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.alignment.chunked_io import read_part
from dyn3r.alignment.depth_along_rays import best_depth, decompose_along_rays
from dyn3r.alignment.state import State, usable_weights
from dyn3r.geometry.cameras import invert, pixel_grid, rays
from dyn3r.io.workers import ordered_map, threads_on
from dyn3r.types import PairPredictions, Progress

MAX_UNCERTAINTY = 10.0
"""Largest relative disagreement; also the value of pixels that no pair sees."""


@dataclass(frozen=True)
class DenseMaps:
    """Maps of all pixels."""

    depth: Float[Tensor, "n h w"]
    """z in the camera; 0 where no pair sees the pixel."""
    confidence: Float[Tensor, "n h w"]
    """Largest confidence of the pairs."""
    uncertainty: Float[Tensor, "n h w"]
    """Mean distance of the points of the pairs from the pixel's point, over its depth."""
    pair_term: float
    """Pair term of the objective on all pixels."""


def dense_maps(
    predictions: PairPredictions,
    state: State,
    chunk_observations: int,
    progress: Progress,
    known_depth: Float[Tensor, "n h w"] | None = None,
    used: Bool[np.ndarray, " m"] | None = None,
    device: torch.device | str = "cpu",
) -> DenseMaps:
    """Depth, confidence and pair disagreement of every pixel.

    `known_depth` is kept where it is not NaN. Pairs that are False in `used` are left out.
    """
    height, width = predictions.size_hw
    n = predictions.num_frames
    maps = [torch.zeros(n, height, width) for _ in range(3)]
    similarity = state.pair_similarity()
    edges = np.asarray(predictions.edges)
    if used is not None:
        edges = np.where(used[:, None], edges, -1)
    rows_of = [_rows_by_frame(edges[:, side], n) for side in (0, 1)]
    grid = pixel_grid((height, width), device, torch.float64)

    def solve(frame: int) -> list[float]:
        """Write the maps of a frame; returns the cost of every band."""
        costs = []
        first, second = rows_of[0][frame], rows_of[1][frame]
        views = len(first) + len(second)
        band = max(1, chunk_observations // max(1, views * width))
        # From each pair's own frame straight to this camera.
        pairs_of_views = torch.from_numpy(np.concatenate([first, second])).to(device)
        to_camera = (invert(state.T_world_camera[frame]) @ similarity[pairs_of_views]).float()
        for top in range(0, height if views else 0, band):
            rows = slice(top, min(top + band, height))
            points, confidence = _read(predictions, first, second, rows, device)
            ray = rays(state.K[frame], grid[rows].reshape(-1, 2)).float()
            known = None if known_depth is None else known_depth[frame, rows].reshape(-1).to(device)
            depth, uncertainty, cost = _solve_band(ray, points, confidence, to_camera, known)
            costs.append(cost)
            fused = torch.where(torch.isfinite(confidence), confidence, 0).amax(0)
            for out, value in zip(maps, (depth, fused, uncertainty)):
                out[frame, rows] = value.reshape(-1, width).cpu()
        return costs

    total = 0.0
    for frame, costs in enumerate(ordered_map(solve, range(n), threads_on(device))):
        for cost in costs:
            total += cost
        progress("aligning: depth", frame + 1, n)
    pairs = int((edges[:, 0] >= 0).sum())
    return DenseMaps(maps[0], maps[1], maps[2], total / max(1, pairs * height * width))


def _rows_by_frame(frames: Int[np.ndarray, " m"], n: int) -> list[np.ndarray]:
    """Rows that contain each of the frames 0..n-1, ascending."""
    order = np.argsort(frames, kind="stable")
    bounds = np.searchsorted(frames[order], np.arange(n + 1))
    return [order[bounds[t] : bounds[t + 1]] for t in range(n)]


def _read(
    predictions: PairPredictions,
    first: np.ndarray,
    second: np.ndarray,
    rows: slice,
    device: torch.device | str,
) -> tuple[Float[Tensor, "k p 3"], Float[Tensor, "k p"]]:
    def load(array: np.ndarray | None, pairs: np.ndarray, *last: int) -> Tensor:
        assert array is not None
        part = torch.from_numpy(read_part(array, pairs, rows))
        return part.to(device).float().reshape(len(pairs), part.shape[1] * part.shape[2], *last)

    points = [load(predictions.points1, first, 3), load(predictions.points2, second, 3)]
    confidence = [load(predictions.conf1, first), load(predictions.conf2, second)]
    return torch.cat(points), torch.cat(confidence)


def _solve_band(
    ray: Float[Tensor, "p 3"],
    points: Float[Tensor, "k p 3"],
    confidence: Float[Tensor, "k p"],
    to_camera: Float[Tensor, "k 4 4"],
    known: Float[Tensor, " p"] | None,
) -> tuple[Tensor, Tensor, float]:
    points, weights = usable_weights(points, confidence)
    points = torch.baddbmm(to_camera[:, None, :3, 3], points, to_camera[:, :3, :3].transpose(1, 2))
    seen = decompose_along_rays(ray, points, weights)
    depth = best_depth(seen)
    if known is not None:
        depth = torch.where(torch.isfinite(known), known, depth)
    cost = (weights * seen.distances(depth)).sum(0)
    mass = weights.sum(0)
    relative = cost / (mass * depth).clamp_min(1e-12)
    uncertainty = torch.where(mass > 0, relative, MAX_UNCERTAINTY).clamp(0, MAX_UNCERTAINTY)
    return torch.where(mass > 0, depth, 0), uncertainty, float(cost.double().sum())


def fill_depth(depth: Float[Tensor, "n h w"], seen: Bool[Tensor, "n h w"]) -> None:
    """Set unseen pixels to the median of their frame (of the clip if none is seen), in place."""
    medians = [float(d[s].median()) if bool(s.any()) else None for d, s in zip(depth, seen)]
    known = [median for median in medians if median is not None]
    overall = float(np.median(known)) if known else 1.0
    for frame, median in enumerate(medians):
        value = overall if median is None else median
        depth[frame][~seen[frame]] = value
        depth[frame].clamp_(min=1e-4 * value)
