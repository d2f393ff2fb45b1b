"""How good models and modes are on clips with ground truth; prints one Markdown table.

    python benchmarks/evaluate_clips.py CLIPS_FOLDER [--models compact ...] [--size 224]

CLIPS_FOLDER holds clips in the layout of the bundled one (frames/, depth.npz, dynamic.npz,
camera.npz). Every model runs plain (one pass, no masks), with motion read out of the attention,
with motion from optical flow, and, to see what masks are worth, with the true masks. Numbers are
defined in docs/metrics.md.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import dyn3r
from dyn3r.metrics import evaluate

HEAD = ("clip", "model", "motion", "abs rel", "d<1.25", "abs rel (s+s)", "ATE/path", "rot deg",
        "focal", "J", "recall", "s")  # fmt: skip


def share(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--models", nargs="+", default=["compact"])
    parser.add_argument("--size", type=int)
    parser.add_argument("--modes", nargs="+", default=["none", "attention", "flow", "truth"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    records = []
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    for name in args.models:
        model = dyn3r.load_model(name)
        for folder in sorted(p.parent for p in args.clips.glob("*/camera.npz")):
            clip = dyn3r.read_clip(folder / "frames", size=args.size or model.image_size)
            for mode in args.modes:
                masks = dyn3r.read_masks(folder / "dynamic.npz", clip) if mode == "truth" else None
                options = dyn3r.Options(motion="none" if mode == "truth" else mode)
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
            if mode == args.modes[-1]:
                base = result.baseline
                row = (
                    folder.name, "flat wall", "-", f"{base.depth.abs_rel:.3f}",
                    share(base.depth.delta1), f"{base.depth_scale_shift.abs_rel:.3f}",
                    share(base.trajectory.ate_share), f"{base.trajectory.rotation_deg:.2f}", "-",
                    f"{base.masks.j_mean:.3f}", share(base.masks.recall), "-",
                )  # fmt: skip
                print("| " + " | ".join(row) + " |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
