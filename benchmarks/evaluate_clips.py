"""Accuracy of models and motion cues on clips with ground truth; prints one Markdown table.

    python benchmarks/evaluate_clips.py CLIPS_FOLDER [--models compact ...] [--size 224]
        [--no-bundle-adjustment] [--no-multi-view-depth] [--colmap]

CLIPS_FOLDER holds clips in the layout of the bundled one (frames/, depth.npz, dynamic.npz,
camera.npz). Every model runs without motion (one pass, no masks), with motion from attention, with
motion from optical flow, and with the true masks as an upper bound. Baselines: constant depth and a
static camera; with --colmap, the cameras of pycolmap with its default settings (exhaustive
matching, one camera). Numbers are defined in docs/metrics.md.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Literal

import numpy as np

import dyn3r
from dyn3r.datasets.folder import sequences
from dyn3r.evaluation import evaluate
from dyn3r.evaluation.colmap_baseline import colmap_cameras
from dyn3r.evaluation.trajectory import trajectory_errors
from dyn3r.motion.options import MotionOptions
from dyn3r.options import RefinementOptions

HEAD = ("clip", "model", "motion", "abs rel", "d<1.25", "abs rel (s+s)", "ATE/path", "rot deg",
        "focal", "J", "recall", "s")  # fmt: skip


def share(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f} %"


def colmap_row(folder: Path) -> tuple[str, ...]:
    """Cameras of the frames in pycolmap's largest model."""
    (sequence,) = sequences(folder)
    assert sequence.T_world_camera is not None
    assert sequence.K is not None
    start = time.perf_counter()
    T, focal = colmap_cameras(sequence)
    seconds = time.perf_counter() - start
    known = np.isfinite(T).all(axis=(1, 2))
    found = f"{known.sum()} of {len(sequence)} frames"
    if not known.any():
        return (folder.name, "pycolmap", found, *["-"] * 9)
    errors = trajectory_errors(T[known], sequence.T_world_camera[known])
    return (
        folder.name, "pycolmap", found, "-", "-", "-",
        share(errors.ate_share if known.sum() > 2 else None), f"{errors.rotation_deg:.2f}",
        share(abs(focal / float(sequence.K[0, 0, 0]) - 1)), "-", "-",
        f"{seconds:.0f}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--models", nargs="+", default=["compact"])
    parser.add_argument("--size", type=int)
    parser.add_argument("--modes", nargs="+", default=["none", "attention", "flow", "truth"])
    parser.add_argument("--no-bundle-adjustment", action="store_true", help="as published")
    parser.add_argument("--no-multi-view-depth", action="store_true")
    parser.add_argument("--colmap", action="store_true", help="also the cameras of pycolmap")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    records = []
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    modes: list[Literal["none", "attention", "flow", "truth"]] = args.modes
    for name in args.models:
        model = dyn3r.load_model(name)
        for folder in sorted(p.parent for p in args.clips.glob("*/camera.npz")):
            clip = dyn3r.read_clip(
                folder / "frames", size=args.size or model.image_size, fit=model.fit(args.size)
            )
            for mode in modes:
                masks = dyn3r.read_masks(folder / "dynamic.npz", clip) if mode == "truth" else None
                motion: Literal["none", "attention", "flow"] = "none" if mode == "truth" else mode
                options = dyn3r.Options(
                    motion=MotionOptions(cue=motion),
                    refinement=RefinementOptions(
                        bundle_adjustment=not args.no_bundle_adjustment,
                        multi_view_depth=False if args.no_multi_view_depth else None,
                    ),
                )
                start = time.perf_counter()
                scene = dyn3r.reconstruct(clip, model, options, masks=masks)
                seconds = time.perf_counter() - start
                result = evaluate(scene, folder)
                ours = result.scene
                row = (
                    folder.name, Path(name).stem, mode, f"{ours.depth.abs_rel:.3f}",
                    share(ours.depth.delta1), f"{ours.depth_scale_shift.abs_rel:.3f}",
                    share(ours.trajectory.ate_share), f"{ours.trajectory.rotation_deg:.2f}",
                    share(ours.focal_error), f"{ours.masks.j_mean:.3f}", share(ours.masks.recall),
                    f"{seconds:.0f}",
                )  # fmt: skip
                print("| " + " | ".join(row) + " |", flush=True)
                records.append({"clip": folder.name, "model": name, "motion": mode,
                                "seconds": seconds, **result.to_json()})  # fmt: skip
            base = result.baseline
            constant = (
                folder.name, "constant depth", "-", f"{base.depth.abs_rel:.3f}",
                share(base.depth.delta1), f"{base.depth_scale_shift.abs_rel:.3f}",
                share(base.trajectory.ate_share), f"{base.trajectory.rotation_deg:.2f}", "-",
                f"{base.masks.j_mean:.3f}", share(base.masks.recall), "-",
            )  # fmt: skip
            print("| " + " | ".join(constant) + " |", flush=True)
    if args.colmap:
        for folder in sorted(p.parent for p in args.clips.glob("*/camera.npz")):
            print("| " + " | ".join(colmap_row(folder)) + " |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
