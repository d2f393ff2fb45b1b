"""Small alignment problems with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dyn3r.geometry.cameras import intrinsics, pixel_grid, rays
from dyn3r.geometry.registration import weighted_similarity
from dyn3r.types import PairPredictions

SIZE, FOCAL = (24, 32), 30.0


def cameras(count: int, turn: float = 0.3, move: float = 1.0) -> np.ndarray:
    """Camera-to-world matrices of a sway to the right with a turn."""
    T = np.tile(np.eye(4), (count, 1, 1))
    for t in range(count):
        a = turn * np.sin(0.7 * t)
        T[t, :3, :3] = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
        T[t, :3, 3] = move * np.array([0.15 * t, 0.1 * np.sin(t), 0.05 * np.cos(1.3 * t)])
    return T


def surface(T: np.ndarray, flat: bool = False) -> np.ndarray:
    """Depth of the world surface Z = 4 + bumps from every camera."""
    K = intrinsics(torch.tensor([FOCAL], dtype=torch.float64), SIZE)[0]
    direction = rays(K, pixel_grid(SIZE, dtype=torch.float64)).numpy()
    depths = []
    for camera in T:
        turned, depth = direction @ camera[:3, :3].T, np.full(SIZE, 4.0)
        for _ in range(60):
            x, y, _z = np.moveaxis(camera[:3, 3] + depth[..., None] * turned, -1, 0)
            bumps = 0 if flat else 0.4 * np.sin(1.5 * x) * np.cos(1.2 * y) + 0.1 * np.sin(4 * x + y)
            depth = 0.5 * depth + 0.5 * (4 + bumps - camera[2, 3]) / turned[..., 2]
        depths.append(depth)
    return np.stack(depths)


def pairs_within(count: int, reach: int = 2) -> np.ndarray:
    """All directed pairs of frames at most `reach` apart."""
    return np.array(
        [(i, j) for i in range(count) for j in range(count) if 0 < abs(i - j) <= reach]
    ).reshape(-1, 2)


def make(
    T: np.ndarray,
    edges: np.ndarray,
    noise: float = 0.0,
    flat: bool = False,
    seed: int = 0,
    dtype: Any = np.float32,
) -> tuple[PairPredictions, np.ndarray]:
    """Predictions of these cameras with random pair scales, and the true depth."""
    random = np.random.default_rng(seed)
    depth = surface(T, flat)
    K = intrinsics(torch.tensor([FOCAL], dtype=torch.float64), SIZE)[0]
    local = depth[..., None] * rays(K, pixel_grid(SIZE, dtype=torch.float64)).numpy()
    world = local @ T[:, None, :3, :3].transpose(0, 1, 3, 2) + T[:, None, None, :3, 3]
    sides: tuple[list, list, list, list] = ([], [], [], [])
    for i, j in edges:
        scale = np.exp(random.normal(0, 0.3))
        for side, frame in enumerate((i, j)):
            points = scale * (world[frame] - T[i, :3, 3]) @ T[i, :3, :3]
            error = 1 + noise * random.standard_normal((*SIZE, 1))
            sides[2 * side].append((points * error).astype(dtype))
            sure = 1 + np.exp(1 + 0.3 * random.standard_normal(SIZE))
            sides[2 * side + 1].append(sure.astype(dtype))
    return PairPredictions(edges, len(T), *(np.stack(side) for side in sides)), depth


def path_error(T: np.ndarray, T_true: np.ndarray) -> float:
    """Root mean square distance of camera centres after a similarity."""
    a, b = (torch.from_numpy(np.asarray(x, dtype=np.float64)[:, :3, 3]) for x in (T, T_true))
    moved = weighted_similarity(a, b, torch.ones(len(a))).apply(a)
    return float(((moved - b) ** 2).sum(-1).mean().sqrt())


def turn_error(T: np.ndarray, T_true: np.ndarray) -> float:
    """Largest difference of the turns relative to frame 0, in degrees."""
    ours, true = (x[0, :3, :3].T @ x[:, :3, :3] for x in (T, T_true))
    cosine = (np.trace(ours.transpose(0, 2, 1) @ true, axis1=1, axis2=2) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).max())


def depth_error(depth: np.ndarray, truth: np.ndarray) -> float:
    """Mean relative error after one median scale."""
    scaled = depth * (np.median(truth) / np.median(depth))
    return float((np.abs(scaled - truth) / truth).mean())


def all_finite(alignment: Any) -> bool:
    """Nothing in a result is NaN or infinite."""
    arrays = [v for v in vars(alignment).values() if isinstance(v, np.ndarray)]
    numbers = np.array(list(alignment.diagnostics.terms.values()))
    return all(np.isfinite(a).all() for a in [*arrays, numbers]) and bool(
        (alignment.depth > 0).all()
    )
