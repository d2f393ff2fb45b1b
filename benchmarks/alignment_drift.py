"""Alignment: drift over a long loop, and time against length.

    python -m benchmarks.alignment_drift [--frames 600] [--window 100] [--pixels 768]
        [--whole] [--lengths]    # run from the root of the repository

A camera flies a circle over a surface, looks down, and rotates once about its axis. Frames are
24x32 pixels, pairs as in swinstride-4-noncyclic. Every pair has a random scale, smooth errors of
2 %, pixel noise of 1 % and 3 % outliers, independent between pairs. The errors of a network are not
independent, so this is a lower bound of the drift.

Estimate and truth are registered at the first camera (position, rotation, and the scale of depth in
the first 20 frames). Drift is the error of the last frame, where the circle closes.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from benchmarks.alignment import path_error, surface_depth

from dyn3r.alignment.align import align
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.network.pair_graph import make_pairs
from dyn3r.types import PairPredictions

SIZE, FOCAL, RADIUS, REFERENCE = (24, 32), 30.0, 3.0, 20


def loop(frames: int) -> np.ndarray:
    """T_world_camera on a circle of RADIUS, with a small wobble; the last frame meets the first."""
    T = np.tile(np.eye(4), (frames, 1, 1))
    for t in range(frames):
        a = 2 * np.pi * t / frames
        tilt = 0.05 * np.sin(9 * a)
        turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        nod = [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
        T[t, :3, :3] = turn @ np.array(nod)
        T[t, :3, 3] = [RADIUS * np.cos(a), RADIUS * np.sin(a), 0.1 * np.sin(7 * a)]
    return T


def make_loop(frames: int, graph: str, seed: int = 0) -> tuple[PairPredictions, np.ndarray]:
    """Predictions, cameras and depth; the pairs of one graph have the same errors in another."""
    T = loop(frames)
    depth = np.stack([surface_depth(camera, FOCAL, SIZE) for camera in T])
    rows, columns = np.indices(SIZE)
    ray = np.stack(
        [(columns - SIZE[1] / 2) / FOCAL, (rows - SIZE[0] / 2) / FOCAL, np.ones(SIZE)], -1
    )
    edges = make_pairs(graph, frames)
    sides: tuple[list, list, list, list] = ([], [], [], [])
    for i, j in edges:
        random = np.random.default_rng([seed, i, j])
        scale = np.exp(random.normal(0, 0.3))
        for side, frame in enumerate((i, j)):
            relative = np.linalg.inv(T[i]) @ T[frame]
            local = depth[frame][..., None] * (ray @ relative[:3, :3].T) + relative[:3, 3]
            coarse = torch.from_numpy(random.normal(0, 0.02, (1, 1, 4, 5)))
            error = torch.nn.functional.interpolate(
                coarse, SIZE, mode="bicubic", align_corners=True
            )[0, 0].numpy()
            bad = random.random(SIZE) < 0.03
            error = error + random.normal(0, 0.01, SIZE) + bad * random.normal(0, 0.3, SIZE)
            sides[2 * side].append((scale * local * np.exp(error)[..., None]).astype(np.float16))
            sure = 1 + np.exp(1 - 2 * bad + 0.5 * random.standard_normal(SIZE))
            sides[2 * side + 1].append(sure.astype(np.float16))
    return PairPredictions(edges, frames, *(np.stack(side) for side in sides)), depth


def report(
    name: str, predictions: PairPredictions, depth: np.ndarray, window: int, pixels: int
) -> None:
    """Align, and print drift at the last frame."""
    options = AlignmentOptions(window=window, pixels=pixels)
    began = time.process_time()
    found = align(predictions, options=options)
    seconds = time.process_time() - began
    T, n = loop(len(depth)), len(depth)
    scale = float(np.median(depth[:REFERENCE] / found.depth[:REFERENCE]))
    moved = found.T_world_camera.copy()
    moved[:, :3, 3] *= scale
    moved = T[0] @ np.linalg.inv(moved[0]) @ moved
    length = float(np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1).sum())
    shift = float(np.linalg.norm(moved[-1, :3, 3] - T[-1, :3, 3]))
    turn = moved[-1, :3, :3].T @ T[-1, :3, :3]
    angle = float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    growth = float(np.median(found.depth[-REFERENCE:] * scale / depth[-REFERENCE:]))
    print(
        f"{name:24} {len(predictions):5} pairs {seconds:6.1f} CPU s  drift at the end: "
        f"{shift / length:.2%} of the path, {angle:.2f} degrees, scale {growth - 1:+.2%}; "
        f"path error after a similarity {path_error(found.T_world_camera, T) / length:.3%}; "
        f"pair term {found.diagnostics.terms['pairs']:.5f}; "
        f"{len(found.diagnostics.history)} evaluations, "
        f"{n - int(found.determined.sum())} frames undetermined",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--pixels", type=int, default=768)
    parser.add_argument("--whole", action="store_true", help="also all frames in one window")
    parser.add_argument("--lengths", action="store_true", help="also half and a quarter as long")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.lengths:
        for frames in (arguments.frames // 4, arguments.frames // 2):
            report(
                f"{frames} frames, windows",
                *make_loop(frames, GRAPH),
                arguments.window,
                arguments.pixels,
            )
    open_loop = make_loop(arguments.frames, GRAPH)
    report(f"{arguments.frames} frames, windows", *open_loop, arguments.window, arguments.pixels)
    if arguments.whole:
        report(f"{arguments.frames} frames at once", *open_loop, 0, arguments.pixels)
        closed = make_loop(arguments.frames, GRAPH.removesuffix("-noncyclic"))
        report(f"{arguments.frames}, loop closed", *closed, 0, arguments.pixels)


GRAPH = "swinstride-4-noncyclic"

if __name__ == "__main__":
    main()
