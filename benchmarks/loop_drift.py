"""Drift of a long clip that comes back to where it began, with and without closing the loop.

    python benchmarks/loop_drift.py CLIP [--window 16] [--overlap 5] [--alternate]

CLIP has the layout of the bundled one (frames/, camera.npz). It is played forward and backward, so
that every place is seen twice; with --alternate even frames forward and odd ones backward, so that
no image comes twice. Printed, before and after closing loops: the trajectory error over the length
of the path, and how far apart the two visits of a place are (rotation; centre over the length of
the path; ratio of depths), less what the truth has.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

import dyn3r
from dyn3r.alignment.clip_windows import WindowOptions
from dyn3r.evaluation.trajectory import path_length, rotation_angle_deg, trajectory_errors
from dyn3r.io.workers import use_threads
from dyn3r.scene import Scene


def there_and_back(n: int, *, alternate: bool) -> np.ndarray:
    """Indices of the frames in the order in which they are played."""
    if alternate:
        return np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)[::-1]])
    return np.concatenate([np.arange(n), np.arange(n - 1)[::-1]])


def drift(scene: Scene, truth: np.ndarray, order: np.ndarray) -> str:
    """Errors of a scene of the frames `order`; `truth` (n,4,4): their cameras."""
    errors = trajectory_errors(scene.T_world_camera, truth)
    turn, shift, ratio = [], [], []
    length = path_length(truth[:, :3, 3]) / errors.scale
    for t in range(len(order) // 4):
        u = len(order) - 1 - t
        found, true = (np.linalg.inv(T[t]) @ T[u] for T in (scene.T_world_camera, truth))
        turn.append(rotation_angle_deg(found[:3, :3] @ true[:3, :3].T))
        shift.append(np.linalg.norm(found[:3, 3] - true[:3, 3] / errors.scale) / length)
        ratio.append(abs(np.log(np.median(scene.depth[u]) / np.median(scene.depth[t]))))
    return (
        f"ATE/path {errors.ate_share:7.2%}  rotation {errors.rotation_deg:.3f} deg   visits differ "
        f"by {np.mean(turn):.3f} deg, {np.mean(shift):.2%} of the path, depth {np.mean(ratio):.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--overlap", type=int, default=5)
    parser.add_argument("--alternate", action="store_true")
    args = parser.parse_args()
    use_threads(1)
    model = dyn3r.load_model()
    clip = dyn3r.read_clip(args.clip / "frames", size=model.image_size)
    order = there_and_back(len(clip), alternate=args.alternate)
    truth = np.load(args.clip / "camera.npz")["cam2world"][order]
    names = tuple(f"{k:06d}" for k in range(len(order)))
    clip = replace(clip.part(order), cuts=(), names=names, times_s=np.arange(len(order)) / 12)
    joined: list[Scene] = []
    context = dyn3r.RunContext(
        observe=lambda name, value: joined.append(value) if name == "joined windows" else None  # type: ignore[arg-type]
    )
    windows = WindowOptions(frames=args.window, overlap=args.overlap)
    scene = dyn3r.reconstruct(clip, model, dyn3r.Options(windows=windows), context=context)
    about = scene.metadata["windows"]
    print(
        f"{args.clip.name}: {len(clip)} frames in {len(about['spans'])} windows; {about['loops']}"
    )
    print("joined      ", drift(joined[0], truth, order))
    print("loops closed", drift(scene, truth, order))


if __name__ == "__main__":
    main()
