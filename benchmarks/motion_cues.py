"""How well each motion cue finds what moves, on clips with true masks; prints a Markdown table.

    python benchmarks/motion_cues.py CLIPS_FOLDER MODEL [--size 224] [--flow dis] [--overlays DIR]
    python benchmarks/motion_cues.py world MODEL [--scenes 12]     # clips of the synthetic world

CLIPS_FOLDER holds clips in the layout of the bundled one. Constants may be chosen on the synthetic
world and must not be on clips. J, JR, precision, recall as in docs/metrics.md; `share` is the share
of pixels masked, which should be 0 where nothing moves.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import dyn3r
from dyn3r.flow import flow_estimator, measure_flow
from dyn3r.metrics.evaluate import read_truth
from dyn3r.metrics.masks import mask_errors
from dyn3r.motion import MotionOptions, find_motion
from dyn3r.motion.combine import combine_motion
from dyn3r.motion.flow_options import FlowMotionOptions
from dyn3r.motion.flow_residual import flow_residual_motion
from dyn3r.network.predict import encode_frames, predict_pairs
from dyn3r.pairs import make_pairs
from dyn3r.types import Motion

Case = tuple[str, np.ndarray, np.ndarray]


def clips(folder: Path, size: int) -> Iterator[Case]:
    for root in sorted(p.parent for p in folder.glob("*/camera.npz")):
        clip = dyn3r.read_clip(root / "frames", size=size)
        yield root.name, clip.images, read_truth(root, clip.mapping, clip.names).dynamic


def world(scenes: int) -> Iterator[Case]:
    from dyn3r.training.world import World, WorldOptions

    source = World(WorldOptions(frames=16, dynamic_share=0.75), seed=9002)
    for step in range(scenes):
        sample = source.sample(1, step, with_flow=False)
        images = (sample.images[0].permute(0, 2, 3, 1).numpy() * 255 + 0.5).clip(0, 255)
        yield f"world {step}", images.astype(np.uint8), sample.moving[0].numpy()


def all_cues(model: dyn3r.Model, images: np.ndarray, flow_name: str) -> dict[str, Motion]:
    edges = make_pairs("swinstride-5-noncyclic", len(images))
    tokens = encode_frames(model, images)
    seen = predict_pairs(model, images, edges, tokens=tokens)
    start = time.perf_counter()
    flow = measure_flow(images, edges, flow_estimator(flow_name))
    measured = time.perf_counter()
    out = {
        "flow, robust": flow_residual_motion(seen, images, flow),
    }
    print(f"# flow {measured - start:.1f} s, residual {time.perf_counter() - measured:.1f} s")
    out |= {
        "flow, robust, flat geometry": flow_residual_motion(
            None, images, flow, options=FlowMotionOptions(geometry="flat")
        ),
        "flow, robust, trusting depth": flow_residual_motion(
            seen, images, flow, options=FlowMotionOptions(depth_slack=1.0)
        ),
        "flow, robust, not smoothed": flow_residual_motion(
            seen, images, flow, options=FlowMotionOptions(smoothing=0.0)
        ),
        "flow, as published": flow_residual_motion(
            seen, images, flow, options=FlowMotionOptions.monst3r()
        ),
    }
    for name, options in (
        ("attention", MotionOptions()),
        ("attention, as published", MotionOptions.easi3r()),
    ):
        out[name] = find_motion(
            seen.scores1, seen.scores2, edges, tokens.features.float().cpu(),
            images.shape[1:3], options=options,
        )  # fmt: skip
    for rule in ("union", "intersection"):
        out[f"both, {rule}"] = combine_motion(out["attention"], out["flow, robust"], rule)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips")
    parser.add_argument("model")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--flow", default="dis")
    parser.add_argument("--overlays", type=Path)
    args = parser.parse_args()
    model = dyn3r.load_model(args.model)
    cases = world(args.scenes) if args.clips == "world" else clips(Path(args.clips), args.size)
    rows: dict[str, list[tuple[float, ...]]] = {}
    print("| clip | cue | J | JR | precision | recall | share |\n|---|---|---|---|---|---|---|")

    def show(clip: str, cue: str, numbers: tuple[float, ...]) -> None:
        cells = " | ".join("-" if np.isnan(x) else f"{x:.3f}" for x in numbers)
        print(f"| {clip} | {cue} | {cells} |", flush=True)

    for name, images, truth in cases:
        for cue, motion in all_cues(model, images, args.flow).items():
            e = mask_errors(motion.masks, truth)
            numbers = (e.j_mean, e.j_recall, e.precision, e.recall, float(motion.masks.mean()))
            show(name, cue, numbers)
            if truth.any():  # J of a still clip is 0 or 1; its share says more
                rows.setdefault(cue, []).append(numbers)
            if args.overlays:
                write_overlay(args.overlays / f"{name}_{cue}.png", images, motion.masks, truth)
    for cue, numbers in rows.items():
        show("mean of clips with motion", cue, tuple(np.nanmean(np.array(numbers), axis=0)))


def write_overlay(path: Path, images: np.ndarray, masks: np.ndarray, truth: np.ndarray) -> None:
    """Six frames: red what was found, green the outline of the truth."""
    from PIL import Image

    picks = np.linspace(0, len(images) - 1, 6).astype(int)
    tiles = []
    for t in picks:
        tile = images[t].astype(np.float32)
        tile[masks[t]] = 0.5 * tile[masks[t]] + [127, 0, 0]
        edge = np.zeros_like(truth[t])
        edge[1:] |= truth[t][1:] != truth[t][:-1]
        edge[:, 1:] |= truth[t][:, 1:] != truth[t][:, :-1]
        tile[edge] = [0, 255, 0]
        tiles.append(tile.astype(np.uint8))
    rows = [np.concatenate(tiles[:3], axis=1), np.concatenate(tiles[3:], axis=1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)


if __name__ == "__main__":
    main()
