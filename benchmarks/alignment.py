"""Alignment: objective against time for Gauss-Newton and for the published solver (Adam).

    python -m benchmarks.alignment [--threads 2] [--frames 24] [--size 64 96] [--json FILE]
        [--plot FILE.png]    # needs matplotlib; run from the root of the repository

Both solvers start from the same state and run one after the other in one process; compare ratios
only. Problems: the golden one of the tests; a synthetic surface seen by a moving camera, pairs as
in swinstride-5, with random scales, smooth errors, pixel noise and outliers, in half precision; and
the predictions of the embedded model for the bundled clip (24 frames of 176x128).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from tests.oracles.adam import align_adam

from dyn3r.alignment.align import align
from dyn3r.geometry.cameras import intrinsics, pixel_grid, rays
from dyn3r.geometry.registration import weighted_similarity
from dyn3r.types import Geometry, PairPredictions

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "alignment.npz"


def surface_depth(T_world_camera: np.ndarray, f_px: float, size_hw: tuple[int, int]) -> np.ndarray:
    """Depth of the surface Z = 4 + height(X, Y) from a camera, by fixed-point iteration."""
    K = intrinsics(torch.tensor([f_px], dtype=torch.float64), size_hw)[0]
    direction = rays(K, pixel_grid(size_hw, dtype=torch.float64)).numpy()
    turned, centre = direction @ T_world_camera[:3, :3].T, T_world_camera[:3, 3]
    depth = np.full(size_hw, 4.0)
    for _ in range(40):
        x, y, _z = np.moveaxis(centre + depth[..., None] * turned, -1, 0)
        height = 4 + 0.35 * np.sin(1.7 * x) * np.cos(1.3 * y) + 0.15 * np.sin(4 * x + 2 * y)
        depth = 0.5 * depth + 0.5 * (height - centre[2]) / turned[..., 2]
    return depth


def make_problem(
    frames: int, size_hw: tuple[int, int], reach: int = 5, noise: float = 0.02, seed: int = 0
) -> tuple[PairPredictions, np.ndarray, np.ndarray]:
    """Predictions, true cameras and true depth of a camera that sways past a bumpy surface."""
    random = np.random.default_rng(seed)
    f_px, time_ = 1.1 * size_hw[1], np.linspace(0, 1, frames)
    T = np.tile(np.eye(4), (frames, 1, 1))
    for t, s in enumerate(time_):
        yaw, tilt = 0.25 * np.sin(5 * s), 0.1 * np.cos(4 * s)
        Ry = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        Rx = np.array(
            [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
        )
        T[t, :3, :3], T[t, :3, 3] = Ry @ Rx, [1.5 * s - 0.75, 0.3 * np.sin(6 * s), 0.3 * s]
    depth = np.stack([surface_depth(camera, f_px, size_hw) for camera in T])
    offsets = {1 + 2 * k for k in range(reach)}
    edges = np.array(
        [(i, j) for i in range(frames) for j in range(frames) if abs(i - j) in offsets]
    )
    K = intrinsics(torch.tensor([f_px], dtype=torch.float64), size_hw)[0]
    direction = rays(K, pixel_grid(size_hw, dtype=torch.float64)).numpy()
    world = depth[..., None] * (direction @ T[:, None, :3, :3].transpose(0, 1, 3, 2))
    world = world + T[:, None, None, :3, 3]
    points, confidence = [[], []], [[], []]
    for i, j in edges:
        scale = np.exp(random.normal(0, 0.3))
        for side, frame in enumerate((i, j)):
            local = (world[frame] - T[i, :3, 3]) @ T[i, :3, :3]
            coarse = torch.from_numpy(random.normal(0, noise, (1, 1, 4, 5)))
            smooth = torch.nn.functional.interpolate(
                coarse, size_hw, mode="bicubic", align_corners=True
            )[0, 0].numpy()
            rough = random.normal(0, noise / 2, size_hw)
            bad = random.random(size_hw) < 0.03
            error = smooth + rough + bad * random.normal(0, 0.3, size_hw)
            points[side].append((scale * local * np.exp(error)[..., None]).astype(np.float16))
            sure = 1 + np.exp(1 - 2 * bad + 0.5 * random.standard_normal(size_hw))
            confidence[side].append(sure.astype(np.float16))
    predictions = PairPredictions(
        edges,
        frames,
        np.stack(points[0]),
        np.stack(confidence[0]),
        np.stack(points[1]),
        np.stack(confidence[1]),
    )
    return predictions, T, depth


def golden_problem() -> tuple[PairPredictions, dict[str, np.ndarray]]:
    """The golden problem of the tests; half-precision arrays are stored there as byte planes."""
    stored = dict(np.load(GOLDEN))
    halves = {
        name: np.ascontiguousarray(np.moveaxis(stored[f"{name}_bytes"], 0, -1)).view(np.float16)[
            ..., 0
        ]
        for name in ("pts1", "conf1", "pts2", "conf2")
    }
    count = len(stored["gt_poses"])
    return PairPredictions(stored["edges"], count, *halves.values()), stored


def clip_problem() -> tuple[PairPredictions, np.ndarray, np.ndarray]:
    """Predictions of the embedded model for the bundled clip (24 frames, 190 pairs), and truth."""
    import dyn3r
    from dyn3r.assets.demo import demo_clip_folder
    from dyn3r.evaluation.truth import read_truth

    model = dyn3r.load_model()
    clip = dyn3r.read_clip(demo_clip_folder() / "frames", size=model.image_size)
    edges = dyn3r.make_pairs("swinstride-5-noncyclic", len(clip))
    truth = read_truth(demo_clip_folder(), clip.mapping, clip.names)
    return dyn3r.predict_pairs(model, clip, edges), truth.T_world_camera, truth.depth


def path_error(T: np.ndarray, T_true: np.ndarray) -> float:
    """Root mean square distance of the camera centres after a similarity (ATE)."""
    a, b = (torch.from_numpy(np.asarray(x, dtype=np.float64)[:, :3, 3]) for x in (T, T_true))
    moved = weighted_similarity(a, b, torch.ones(len(a))).apply(a)
    return float(((moved - b) ** 2).sum(-1).mean().sqrt())


def depth_error(depth: np.ndarray, truth: np.ndarray) -> float:
    """Mean relative error after one median scale."""
    known = truth > 0
    depth, truth = depth[known], truth[known]
    scaled = depth * (np.median(truth) / np.median(depth))
    return float((np.abs(scaled - truth) / truth).mean())


def compare(
    name: str, predictions: PairPredictions, T_true: np.ndarray, depth_true: np.ndarray
) -> dict:
    """Run both solvers and print a line each."""
    rows = {}
    for solver, run in (("gauss-newton", align), ("adam", align_adam)):
        began = time.perf_counter()
        found: Geometry = run(predictions)
        rows[solver] = {
            "seconds": time.perf_counter() - began,
            "objective": found.diagnostics.terms["pairs"],
            "path_error": path_error(found.T_world_camera, T_true),
            "depth_error": depth_error(found.depth, depth_true),
            "history": found.diagnostics.history.tolist(),
        }
        row = rows[solver]
        print(
            f"{name:8} {solver:12} {row['seconds']:7.2f} s  objective {row['objective']:.6f}  "
            f"path {row['path_error']:.5f}  depth {row['depth_error']:.5f}",
            flush=True,
        )
        for share in (0.1, 0.25, 0.5, 1.0):
            at = found.diagnostics.history[
                max(0, round(share * len(found.diagnostics.history)) - 1)
            ]
            print(f"           after {at[0]:7.2f} s: {at[1]:.6f}")
    ours, published = rows["gauss-newton"], rows["adam"]
    ratio = published["seconds"] / ours["seconds"]
    lower = 1 - ours["objective"] / published["objective"]
    print(f"{name:8} Gauss-Newton is {ratio:.1f} times faster, its objective {lower:+.3%} lower\n")
    return rows


def plot(rows: dict[str, dict], path: Path) -> None:
    """Objective above the best that either solver reached, against time, both axes logarithmic.

    Gauss-Newton minimises the objective on sampled pixels; its curve is scaled to end at its value
    on all pixels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (name, solvers) in zip(figure.subplots(1, len(rows)), rows.items()):
        best = min(row["objective"] for row in solvers.values())
        for solver, row in solvers.items():
            seconds, values = np.array(row["history"]).T
            values = values * (row["objective"] / values[-1])
            reached = np.minimum.accumulate(values) / best - 1
            axes.loglog(np.maximum(seconds, 1e-3), np.maximum(reached, 1e-5), label=solver)
        axes.set(title=name, xlabel="seconds", ylabel="objective above the best, relative")
        axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, nargs=2, default=(64, 96))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    small, golden = golden_problem()
    align(small)  # imports and thread pools are not measured
    rows = {"golden": compare("golden", small, golden["gt_poses"], golden["gt_depth"])}
    problem = make_problem(arguments.frames, tuple(arguments.size))
    name = f"{arguments.frames}x{len(problem[0])}"
    rows[name] = compare(name, *problem)
    rows["clip"] = compare("clip", *clip_problem())
    if arguments.json:
        arguments.json.write_text(json.dumps(rows))
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
