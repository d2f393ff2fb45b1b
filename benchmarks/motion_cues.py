"""Accuracy of the masks of each motion cue, refined or not, and of geometry estimated with them.

    python benchmarks/motion_cues.py MODEL --clips FOLDER          # clips with true masks
    python benchmarks/motion_cues.py MODEL --world 12              # clips of the synthetic world

prints Markdown tables (and `--json FILE` writes all numbers). `--geometry` also reconstructs every
clip with the masks of each cue: trajectory and depth. `--ablation` adds variants of the cues.
FOLDER holds clips in the layout of the bundled one. Constants may be chosen on the synthetic world
and must not be on clips. J, JR (share of frames with J > 0.5), F, precision and recall as in
docs/metrics.md; `share` is the share of pixels masked, which should be 0 for still clips.

Masks from attention are those of the second pass, as in a run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dyn3r
from dyn3r.evaluation.evaluate import evaluate
from dyn3r.evaluation.mask_metrics import mask_errors
from dyn3r.evaluation.truth import read_truth
from dyn3r.flow import flow_estimator, measure_flow
from dyn3r.io.atomic import write_json
from dyn3r.motion.combine import combine_motion
from dyn3r.motion.cue import AttentionCue, FlowCue, Pass
from dyn3r.motion.flow_residual import flow_residual_motion
from dyn3r.motion.options import AttentionCueOptions, FlowCueOptions, MotionOptions
from dyn3r.motion.refiners import mask_refiner
from dyn3r.network.model import Model
from dyn3r.network.pair_graph import make_pairs
from dyn3r.network.predict import encode_frames, predict_pairs
from dyn3r.types import Clip, Motion, RunContext

MEASURES = ("J", "JR", "F", "precision", "recall", "share")
GEOMETRY = ("ATE", "ATE / path", "rotation", "abs rel", "still", "moving", "focal")
RECONSTRUCTED = ("attention", "flow", "both")


@dataclass(frozen=True)
class Case:
    """A clip with its true masks."""

    name: str
    clip: Clip
    truth: np.ndarray
    folder: Path | None
    """Folder with its ground truth, for geometry."""


def clips(folder: Path, size: int, frames: int | None) -> Iterator[Case]:
    for root in sorted(p.parent for p in folder.glob("*/camera.npz")):
        clip = dyn3r.read_clip(root / "frames", size=size, num_frames=frames)
        truth = read_truth(root, clip.mapping, clip.names).dynamic
        yield Case(root.name, clip, truth, root)


def world(scenes: int, frames: int, seed: int) -> Iterator[Case]:
    from dyn3r.training.synthetic.world import World, WorldOptions

    source = World(WorldOptions(frames=frames, dynamic_share=0.75), seed=seed)
    for step in range(scenes):
        sample = source.sample(1, step, with_flow=False)
        images = (sample.images[0].permute(0, 2, 3, 1).numpy() * 255 + 0.5).clip(0, 255)
        clip = dyn3r.clip_from_images(images.astype(np.uint8), size=images.shape[2])
        yield Case(f"world {step}", clip, sample.moving[0].numpy(), None)


class Passes:
    """Passes of the network over a clip, with shared tokens and flow."""

    def __init__(self, case: Case, model: Model, flow_name: str) -> None:
        self.clip, self.model = case.clip, model
        self.edges = make_pairs("swinstride-5-noncyclic", len(case.clip))
        self.tokens = encode_frames(model, case.clip)
        self.flow = measure_flow(case.clip.images, self.edges, flow_estimator(flow_name))
        self.first = self._predict(None, heads=True)

    def second(self, motion: Motion) -> Pass:
        """The pass with dynamic tokens masked; attention only."""
        return self._predict(motion.masks if motion.has_motion else None, heads=False)

    def _predict(self, masks: np.ndarray | None, *, heads: bool) -> Pass:
        predictions = predict_pairs(
            self.model, self.clip, self.edges, masks, tokens=self.tokens, heads=heads
        )
        return Pass(self.clip, predictions, self.tokens)

    def by_flow(self, options: FlowCueOptions) -> Motion:
        return FlowCue(options).detect(self.first, self.flow, RunContext())

    def by_attention(self, seen: Pass, options: AttentionCueOptions) -> Motion:
        return AttentionCue(options).detect(seen, self.flow, RunContext())


def all_cues(case: Case, model: Model, flow_name: str, ablation: bool) -> dict[str, Motion]:
    """Motion of each cue, from shared passes and one measurement of the flow."""
    passes, ours = Passes(case, model, flow_name), AttentionCueOptions()
    attention, flow = passes.by_attention(passes.first, ours), passes.by_flow(FlowCueOptions())
    both = combine_motion(attention, flow)
    second = passes.second(attention)
    out = {
        "attention": passes.by_attention(second, ours),
        "flow": flow,
        "both": combine_motion(passes.by_attention(passes.second(both), ours), flow),
    }
    if ablation:
        constant = np.ones(case.clip.images.shape[:3])
        out |= {
            "attention, first pass": attention,
            "attention, as published": passes.by_attention(second, AttentionCueOptions.easi3r()),
            "flow, constant depth": flow_residual_motion(
                None, case.clip.images, passes.flow, inverse_depth=constant
            ),
            "flow, exact depth": passes.by_flow(FlowCueOptions(depth_tolerance=1.0)),
            "flow, smoothed evidence": passes.by_flow(FlowCueOptions(masks="evidence")),
            "flow, evidence": passes.by_flow(FlowCueOptions(masks="evidence", smoothing=0.0)),
            "flow, as published": passes.by_flow(FlowCueOptions.monst3r()),
        }
    return out


def refined(case: Case, motions: dict[str, Motion], refiners: list[str]) -> dict[str, np.ndarray]:
    """Masks of every cue as they are and by every refiner."""
    out = {}
    for cue, motion in motions.items():
        out[cue] = motion.masks
        for name in refiners:
            refine = mask_refiner(name)
            masks = motion.masks
            if refine is not None and masks.any():
                masks = refine.refine(case.clip.images, masks)
            out[f"{cue} + {name.partition(':')[0]}"] = masks
    return out


def mask_numbers(masks: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    e = mask_errors(masks, truth)
    values = (e.j_mean, e.j_recall, e.f_mean, e.precision, e.recall, float(masks.mean()))
    return dict(zip(MEASURES, values))


def geometry_numbers(case: Case, model: Model, masks: np.ndarray | None) -> dict[str, float]:
    """A reconstruction with given masks (None: one pass, no masks) against the truth."""
    assert case.folder is not None
    options = dyn3r.Options(motion=MotionOptions(cue="none"))
    scene = dyn3r.reconstruct(case.clip, model, options, masks=masks)
    e = evaluate(scene, case.folder).scene
    focal = float("nan") if e.focal_error is None else e.focal_error
    values = (
        e.trajectory.ate, e.trajectory.ate_share, e.trajectory.rotation_deg, e.depth.abs_rel,
        e.abs_rel_static, e.abs_rel_moving, focal,
    )  # fmt: skip
    return dict(zip(GEOMETRY, map(float, values)))


class Table:
    """Rows of numbers by clip, and their means."""

    def __init__(self, title: str, columns: tuple[str, ...]) -> None:
        self.title, self.columns = title, columns
        self.rows: dict[str, dict[str, dict[str, float]]] = {}

    def add(self, clip: str, row: str, numbers: dict[str, float]) -> None:
        self.rows.setdefault(row, {})[clip] = numbers

    def markdown(self, skip: set[str]) -> str:
        """Means over the clips, then every clip; `skip`: clips that count for no mean."""
        head = f"| {self.title} | " + " | ".join(self.columns) + " |"
        lines = [head, "|" + "---|" * (len(self.columns) + 1)]
        for row, by_clip in self.rows.items():
            kept = [numbers for clip, numbers in by_clip.items() if clip not in skip]
            if kept:
                means = {c: _mean([numbers[c] for numbers in kept]) for c in self.columns}
                lines.append(self._line(f"**{row}**", means))
        for row, by_clip in self.rows.items():
            lines += [self._line(f"{row}: {clip}", by_clip[clip]) for clip in by_clip]
        return "\n".join(lines)

    def _line(self, label: str, numbers: dict[str, float]) -> str:
        cells = ["-" if np.isnan(numbers[c]) else f"{numbers[c]:.3f}" for c in self.columns]
        return f"| {label} | " + " | ".join(cells) + " |"


def _mean(values: list[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")


def _plain(rows: dict[str, dict[str, dict[str, float]]]) -> dict:
    """NaN, which JSON lacks, becomes None."""
    return {
        row: {
            clip: {k: None if np.isnan(v) else round(v, 5) for k, v in numbers.items()}
            for clip, numbers in by_clip.items()
        }
        for row, by_clip in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--world", type=int, default=0, help="so many clips of the synthetic world")
    parser.add_argument("--seed", type=int, default=9002, help="of the synthetic world")
    parser.add_argument("--size", type=int, help="long side; default: the model's")
    parser.add_argument("--frames", type=int, help="at most so many of each clip")
    parser.add_argument("--flow", default="dis")
    parser.add_argument("--refine", default="edges", help="comma-separated; empty: none")
    parser.add_argument("--geometry", action="store_true")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--overlays", type=Path, help="a folder for images")
    args = parser.parse_args()
    if (args.clips is None) == (args.world == 0):
        parser.error("choose --clips FOLDER or --world N")
    model = dyn3r.load_model(args.model)
    size = args.size or model.image_size
    cases = (
        world(args.world, args.frames or 16, args.seed)
        if args.clips is None
        else clips(args.clips, size, args.frames)
    )
    refiners = [name for name in args.refine.split(",") if name]
    masks_table, geometry_table = Table("masks", MEASURES), Table("geometry", GEOMETRY)
    still: set[str] = set()
    for case in cases:
        start = time.perf_counter()
        masks = refined(case, all_cues(case, model, args.flow, args.ablation), refiners)
        if not case.truth.any():  # J of a still clip is 0 or 1; its share says more
            still.add(case.name)
        for row, found in masks.items():
            masks_table.add(case.name, row, mask_numbers(found, case.truth))
            if args.overlays:
                path = args.overlays / f"{case.name}_{row}.png".replace(" ", "_")
                write_overlay(path, case.clip.images, found, case.truth)
        if args.geometry and case.folder is not None:
            tried = {row: m for row, m in masks.items() if row.split(" +")[0] in RECONSTRUCTED}
            for row, given in {"none": None, **tried, "truth": case.truth}.items():
                geometry_table.add(case.name, row, geometry_numbers(case, model, given))
        print(f"# {case.name}: {time.perf_counter() - start:.0f} s", flush=True)
    print(f"\nModel {model.name}, flow {args.flow}; bold: means over the clips with motion\n")
    print(masks_table.markdown(still))
    if geometry_table.rows:
        print("\n" + geometry_table.markdown(set()))
    if args.json:
        numbers = {"masks": _plain(masks_table.rows), "geometry": _plain(geometry_table.rows)}
        write_json(args.json, {"model": model.name, **numbers}, overwrite=True)


def write_overlay(path: Path, images: np.ndarray, masks: np.ndarray, truth: np.ndarray) -> None:
    """Six frames: found masks in red, outlines of the true masks in green."""
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
