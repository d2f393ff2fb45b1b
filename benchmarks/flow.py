"""Optical flow on data with exact truth: errors, visibility and calibration; prints one table.

    python benchmarks/flow.py [FOLDER ...] [--estimators dis FILE.safetensors] [--size 224]

FOLDER holds truth folders (docs/metrics.md) with depth and cameras: true flow is that of their
static pixels. Without folders, 48 held-out pairs of the synthetic world, as in training. Pairs are
1, 2, 4 and 8 frames apart. Errors are over points that both frames show (depth agrees to 3 %);
`whitened` is the median error in standard errors (1.18 if they are right), ms are of one thread,
for each direction of a pair.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import dyn3r
from dyn3r.bundle_adjustment.measurements import whitening_matrix
from dyn3r.datasets.folder import sequences
from dyn3r.evaluation.benchmark_frames import resampled
from dyn3r.flow import flow_estimator, measure_flow
from dyn3r.geometry.cameras import invert, pixel_grid, project, transform, unproject
from dyn3r.training.flow_batches import held_out_flow

APART = (1, 2, 4, 8)
AGREES = 0.03
"""Relative difference of depth up to which both frames show the same point."""
HEAD = ("data", "estimator", "median px", "> 3 px", "whitened", "called visible", "ms")

Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Images (n, h, w, 3), directed pairs (k, 2), true flow (k, h, w, 2), where it is known."""


def folder_cases(root: Path, size: int) -> Iterator[tuple[str, Case]]:
    """Sequences of truth folders with depth and cameras."""
    for sequence in sequences(root):
        if sequence.depth is None or sequence.T_world_camera is None or sequence.K is None:
            continue
        frames = [sequence.image(i) for i in range(len(sequence))]
        clip = dyn3r.clip_from_images(frames, size=size)
        depth = resampled(sequence.depth, sequence, clip.mapping).astype(np.float32)
        depth[~np.isfinite(depth)] = 0
        moving = np.zeros(depth.shape, bool)
        if sequence.mask is not None:
            moving = resampled(sequence.mask, sequence, clip.mapping)
        K = clip.mapping.K_from_source(sequence.K)
        yield (
            sequence.name,
            static_case(clip.images, depth, ~moving, K, sequence.T_world_camera),
        )


def static_case(
    images: np.ndarray, depth: np.ndarray, static: np.ndarray, K: np.ndarray, T: np.ndarray
) -> Case:
    """Flow of static pixels with known depth, of pairs APART, both directions."""
    n, h, w = depth.shape
    pairs = [(i, i + a) for a in APART for i in range(n - a)]
    directed = np.array([p for i, j in pairs for p in ((i, j), (j, i))])
    flow = np.zeros((len(directed), h, w, 2), np.float32)
    known = np.zeros((len(directed), h, w), bool)
    z, K_, T_ = (torch.from_numpy(np.asarray(x, np.float64)) for x in (depth, K, T))
    grid = pixel_grid((h, w), dtype=torch.float64)
    for k, (i, j) in enumerate(directed):
        points = unproject(z[i], K_[i]).reshape(-1, 3)
        there = transform(invert(T_[j]) @ T_[i], points)
        at = project(there, K_[j]).reshape(h, w, 2)
        field, ahead = (at - grid).numpy(), there[:, 2].reshape(h, w).numpy()
        x, y = (c.numpy() for c in at.clamp(-9, 9e4).round().long().unbind(-1))
        inside = (x >= 0) & (y >= 0) & (x < w) & (y < h) & (ahead > 0) & (depth[i] > 0) & static[i]
        x, y = x.clip(0, w - 1), y.clip(0, h - 1)
        agrees = np.abs(depth[j][y, x] / np.maximum(ahead, 1e-6) - 1) < AGREES
        known[k] = inside & agrees & static[j][y, x]
        flow[k] = np.where(known[k][..., None], field, 0)
    return images, directed, flow, known


def synthetic_cases() -> Iterator[tuple[str, Case]]:
    """Held-out pairs of the synthetic world, which moves."""
    for batch in held_out_flow(None, count=24) + held_out_flow(None, (160, 224), count=24):
        images = (batch.images.permute(0, 2, 3, 1).numpy() * 255 + 0.5).astype(np.uint8)
        flow = batch.flow.permute(0, 2, 3, 1).numpy()
        seen = (batch.known & batch.visible).numpy()
        yield "synthetic, held out", (images, np.array([[0, 1], [1, 0]]), flow, seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--estimators", nargs="+", default=["dis"])
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    cases = [c for f in args.folders for c in folder_cases(f, args.size)]
    rows: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray, np.ndarray, float]]] = {}
    for name, (images, directed, true, known) in cases or synthetic_cases():
        for estimator in args.estimators:
            began = time.perf_counter()
            found = measure_flow(images, directed, flow_estimator(estimator))
            took = 1e3 * (time.perf_counter() - began) / len(found.edges)
            at = {tuple(edge): k for k, edge in enumerate(found.edges.tolist())}
            order = [at[tuple(edge)] for edge in directed.tolist()]
            error = (np.asarray(found.flow, np.float32)[order] - true)[known]
            assert found.visible is not None
            units = np.zeros(0)
            if found.whitening is not None:
                W = whitening_matrix(np.asarray(found.whitening)[order][known])
                units = np.linalg.norm((W @ error[..., None])[..., 0], axis=-1)
            visible = found.visible[order][known]
            row = (np.linalg.norm(error, axis=-1), units, visible, took)
            rows.setdefault((name, estimator), []).append(row)
    for (name, estimator), parts in rows.items():
        error, units, visible = (np.concatenate([p[k] for p in parts]) for k in range(3))
        whitened = f"{np.median(units):.2f}" if len(units) else "-"
        print(
            f"| {name} | {Path(estimator).name} | {np.median(error):.2f} "
            f"| {100 * (error > 3).mean():.1f} % | {whitened} | {100 * visible.mean():.0f} % "
            f"| {np.mean([p[3] for p in parts]):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
