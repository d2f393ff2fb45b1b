"""Synthetic static scene with exact depth, cameras and flow, and a wrong initial geometry."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from dyn3r.geometry.cameras import intrinsics, pixel_grid, rays
from dyn3r.geometry.induced_flow import induced_flow
from dyn3r.geometry.warping import sample_bilinear
from dyn3r.network.pair_graph import make_pairs
from dyn3r.types import Diagnostics, FlowFields, Geometry

RETURNS = 0.75
"""Correlation of the errors of flow there and back. Source: flow misses its start by 1 / 1.4 of its
error (`dyn3r.flow.noise.ROUND_TRIP_SHARE`), so 2 (1 - RETURNS) is 1 / 1.4^2."""


@dataclass(frozen=True)
class Truth:
    """Ground truth."""

    T: np.ndarray
    K: np.ndarray
    depth: np.ndarray
    images: np.ndarray
    flow: FlowFields


def path(n: int, move: float = 0.15, turn: float = 0.05) -> np.ndarray:
    """Camera-to-world matrices: translation to the right with a sway and a rotation."""
    T = np.tile(np.eye(4), (n, 1, 1))
    for t in range(n):
        a = turn * np.sin(0.7 * t)
        T[t, :3, :3] = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
        T[t, :3, 3] = move * np.array([t, 0.8 * np.sin(t), 0.6 * (1 - np.cos(0.9 * t))])
    return T


def surface(T: np.ndarray, K: np.ndarray, size_hw: tuple[int, int], seed: int) -> np.ndarray:
    """Depth of a random bumpy surface about Z = 4 from every camera."""
    random = np.random.default_rng(seed)
    waves = random.normal(0, 1.2, (6, 2)), random.uniform(0, 6.3, 6)
    grid = pixel_grid(size_hw, dtype=torch.float64)
    direction = rays(torch.from_numpy(K), grid).numpy()
    depth = np.full((len(T), *size_hw), 4.0)
    for camera, found in zip(T, depth):
        turned = direction @ camera[:3, :3].T
        for _ in range(50):
            xy = (camera[:3, 3] + found[..., None] * turned)[..., :2]
            bumps = 0.25 * np.sin(xy @ waves[0].T + waves[1]).sum(-1)
            found[:] = 0.5 * found + 0.5 * (4 + bumps - camera[2, 3]) / turned[..., 2]
    return depth


def made_up(
    n: int = 8,
    size_hw: tuple[int, int] = (64, 96),
    *,
    T: np.ndarray | None = None,
    graph: str = "swinstride-3-noncyclic",
    noise: float = 0.2,
    seed: int = 0,
) -> Truth:
    """A scene with flow whose error is `noise` pixels (smooth over a few pixels).

    There and back it is wrong in nearly the same way, as estimated flow is (`RETURNS`).
    """
    import cv2

    random, (h, w) = np.random.default_rng(seed), size_hw
    T = path(n) if T is None else T
    K = intrinsics(torch.tensor([0.9 * w], dtype=torch.float64), size_hw)[0].numpy()
    depth = surface(T, K, size_hw, seed)
    edges = make_pairs(graph, n)
    flow = np.empty((len(edges), h, w, 2), np.float32)
    K_, T_, depth_ = (torch.from_numpy(x) for x in (K, T, depth))
    errors: dict[tuple[int, int], np.ndarray] = {}
    for row, (i, j) in enumerate(edges.tolist()):
        exact = induced_flow(depth_[i], K_, T_[i], K_, T_[j]).numpy()
        error = cv2.GaussianBlur(random.normal(0, 1, (h, w, 2)), (0, 0), 1.5)
        error *= noise / error.std()
        if (j, i) in errors:
            there = sample_bilinear(errors[j, i], pixel_grid(size_hw).numpy() + exact)
            error = (1 - RETURNS**2) ** 0.5 * error - RETURNS * there
        errors[i, j] = error
        flow[row] = exact + error
    target = flow + pixel_grid(size_hw).numpy()
    visible = ((target >= 0) & (target <= [w - 1, h - 1])).all(-1)
    images = [cv2.GaussianBlur(random.normal(0, 1, (h, w, 3)), (0, 0), 1.2) for _ in range(n)]
    bright = np.stack([128 + 45 * x / x.std() for x in images]).clip(0, 255).astype(np.uint8)
    return Truth(T, np.tile(K, (n, 1, 1)), depth, bright, FlowFields(edges, flow, visible))


def alignment_of(T: np.ndarray, K: np.ndarray, depth: np.ndarray) -> Geometry:
    """Geometry with these cameras and this depth."""
    n = len(T)
    return Geometry(
        T_world_camera=T.copy(),
        K=K.copy(),
        depth=depth.astype(np.float32),
        confidence=np.full(depth.shape, 2.0, np.float32),
        sigma_log_depth=np.full(depth.shape, 0.1, np.float32),
        valid=np.ones(depth.shape, bool),
        frame_quality=np.ones(n),
        determined=np.ones(n, bool),
        diagnostics=Diagnostics(terms={"total": 1.0}),
    )


def turned(T: np.ndarray, degrees: float, seed: int) -> np.ndarray:
    """Cameras, all but the first rotated in place by about `degrees`."""
    from scipy.spatial.transform import Rotation

    angles = np.random.default_rng(seed).normal(0, np.radians(degrees), (len(T), 3))
    angles[0] = 0
    out = T.copy()
    out[:, :3, :3] = T[:, :3, :3] @ Rotation.from_rotvec(angles).as_matrix()
    return out


def wrong_depth(depth: np.ndarray, size: float = 0.25) -> np.ndarray:
    """Depth times a smooth factor, different in every frame."""
    n, h, w = depth.shape
    t, v, u = np.meshgrid(np.arange(n), np.arange(h) / h, np.arange(w) / w, indexing="ij")
    return depth * np.exp(size * np.sin(5 * u + 1.3 * t) * np.cos(4 * v - 0.7 * t))


def disturbed(truth: Truth, seed: int = 1) -> Geometry:
    """Geometry with errors of the focal length, depth and all cameras but the first."""
    T = turned(truth.T, 1.5, seed)
    step = np.linalg.norm(np.diff(truth.T[:, :3, 3], axis=0), axis=1).sum() / len(T)
    T[1:, :3, 3] += np.random.default_rng(seed).normal(0, 0.3 * step, (len(T) - 1, 3))
    K = truth.K.copy()
    K[:, [0, 1], [0, 1]] *= 1.15
    return alignment_of(T, K, wrong_depth(truth.depth))


def turn_error(T: np.ndarray, truth: Truth) -> float:
    """Mean angle to the true cameras in degrees; the first is the same."""
    trace = np.einsum("nij,nij->n", T[:, :3, :3], truth.T[:, :3, :3])
    return float(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))).mean())


def path_error(T: np.ndarray, truth: Truth) -> float:
    """Root mean square distance of camera centres after a similarity, over the path's extent."""
    from dyn3r.geometry.registration import weighted_similarity

    a, b = torch.from_numpy(T[:, :3, 3]), torch.from_numpy(truth.T[:, :3, 3])
    moved = weighted_similarity(a, b, torch.ones(len(a))).apply(a)
    return float((moved - b).square().sum(-1).mean().sqrt() / b.std(0).norm())


def focal_error(K: np.ndarray, truth: Truth) -> float:
    """Error of the log focal length."""
    return float(np.abs(np.log(K[0, 0, 0] / truth.K[0, 0, 0])))


def depth_error(depth: np.ndarray, truth: Truth) -> float:
    """Mean error of log depth after one common factor."""
    error = np.log(depth / truth.depth)
    return float(np.abs(error - np.median(error)).mean())


def bent(truth: Truth, size: float, seed: int = 0) -> FlowFields:
    """The flow between images that are each distorted smoothly, by at most `size` pixels.

    Every frame has its own distortion, as a rolling shutter makes it: cosines of up to a whole wave
    over the frame with random coefficients.
    """
    import cv2

    random, (n, h, w) = np.random.default_rng(seed), truth.depth.shape
    v, u = np.mgrid[:h, :w].astype(np.float32)
    waves = [
        np.cos(np.pi * p * (u + 0.5) / w) * np.cos(np.pi * q * (v + 0.5) / h)
        for p in range(3)
        for q in range(3 - p)
        if p + q
    ]
    field = np.einsum("nkc,khw->nhwc", random.normal(size=(n, len(waves), 2)), np.stack(waves))
    field = (size * field / np.abs(field).max()).astype(np.float32)
    flow = np.array(truth.flow.flow)
    for (i, j), moved in zip(truth.flow.edges, flow):
        there = cv2.remap(field[j], u + moved[..., 0], v + moved[..., 1], cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
        moved += there - field[i]
    return replace(truth.flow, flow=flow)
