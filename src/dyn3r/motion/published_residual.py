"""Residual of measured flow against the flow that predicted depth and cameras induce (MonST3R).

Source: MonST3R, dynamic mask; SPEC 7.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from dyn3r.geometry.cameras import focal_from_points, intrinsics
from dyn3r.geometry.induced_flow import induced_flow
from dyn3r.geometry.registration import solve_camera
from dyn3r.motion.residual_means import ResidualMeans
from dyn3r.types import FlowFields, PairPredictions, Progress

PNP_PIXELS = 2000
"""About as many pixels of a pair are used to find its second camera."""


def published_residual(
    predictions: PairPredictions,
    flow: FlowFields,
    shape: tuple[int, int, int],
    progress: Progress,
) -> ResidualMeans:
    """Mean over a frame's pairs of |induced - measured flow|, min-max normalised per pair.

    `shape` is (frames, height, width). Pairs without flow, focal length or camera do not count.
    """
    size_hw = (shape[1], shape[2])
    row_of = {(int(i), int(j)): row for row, (i, j) in enumerate(flow.edges)}
    means = ResidualMeans(shape)
    everywhere = torch.ones(size_hw, dtype=torch.bool)
    done = 0
    for chunk in predictions.chunks():
        focal = focal_from_points(chunk.points1)
        for k, (i, j) in enumerate(chunk.edges.tolist()):
            done += 1
            progress("comparing flow", done, len(predictions))
            row = row_of.get((i, j))
            if row is None or not bool(torch.isfinite(focal[k])):
                continue
            K = intrinsics(focal[k], size_hw)
            camera = _second_camera(chunk.points2[k].numpy(), K.double().numpy())
            if camera is None:
                continue
            T2 = torch.from_numpy(camera).float()
            static = induced_flow(chunk.points1[k, ..., 2], K, torch.eye(4), K, T2)
            measured = np.asarray(flow.flow[row], dtype=np.float32)
            distance_px = np.linalg.norm(static.numpy() - measured, axis=-1)
            low, high = distance_px.min(), distance_px.max()
            normalised = (distance_px - low) / (high - low + 1e-6)
            evidence, far = (torch.from_numpy(x) for x in (normalised, distance_px))
            means.add_evidence(i, evidence, far, everywhere)
    return means


def _second_camera(
    points2: Float[np.ndarray, "h w 3"], K: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "4 4"] | None:
    """Camera j in camera i, by PnP on the points of frame j in camera i (SPEC 6)."""
    h, w = points2.shape[:2]
    stride = max(1, round((h * w / PNP_PIXELS) ** 0.5))
    v, u = np.mgrid[stride // 2 : h : stride, stride // 2 : w : stride]
    uv = np.stack([u, v], -1).reshape(-1, 2).astype(np.float64)
    found = solve_camera(points2[v, u].reshape(-1, 3).astype(np.float64), uv, K)
    return None if found is None else found[0]
