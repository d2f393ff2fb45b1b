"""How optical flow and a motion head should be weighed against each other, and what that gains.

    python benchmarks/fuse_motion.py MODEL --clips 12 --seed 9003

draws clips of the synthetic world, asks both cues of every pixel, fits the three weights of
`LearnedMotionOptions` by logistic regression on every second clip and prints J (intersection over
union), precision and recall on the others: all pixels of all clips counted together, then J as the
mean over the clips with motion, then the share masked where nothing moves. The bias that is best
for the likelihood is not the one that is best for J; the last row's is chosen for J, on the clips
of the fit. The seed must not be one that the model was trained on (0 to a few dozen by habit).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

import dyn3r
from dyn3r.alignment import align
from dyn3r.bundle_adjustment import bundle_adjust
from dyn3r.motion import (
    FlowMotionOptions,
    LearnedMotionOptions,
    flow_evidence,
    fuse_motion,
    learned_motion,
)
from dyn3r.motion.estimation import Watcher
from dyn3r.motion.flow_residual import FlowEvidence, motion_from_evidence
from dyn3r.motion.learned import fused_score, learned_probability, log_odds
from dyn3r.network.model import Model
from dyn3r.network.pair_graph import make_pairs
from dyn3r.types import FlowFields, PairPredictions, no_progress


@dataclass(frozen=True)
class Seen:
    """What both cues and the truth say about a clip."""

    evidence: FlowEvidence
    measured: FlowFields
    predictions: PairPredictions
    """Of the first pass; holds what the motion head says."""
    truth: np.ndarray
    """(n,h,w), True where something moves."""


def look(args: argparse.Namespace, model: Model) -> Iterator[Seen]:
    """Clip by clip, as a run with the default pair graph would, flow judged by solved depth."""
    from dyn3r.training.synthetic.world import World, WorldOptions

    size = model.image_size
    settings = WorldOptions(
        size_hw=(round(size * 0.72 / 16) * 16, size), frames=args.frames, dynamic_share=0.8,
        photos=args.photos,
    )  # fmt: skip
    world = World(settings, seed=args.seed)
    for step in range(args.clips):
        start = time.perf_counter()
        sample = world.sample(1, step, with_flow=False)
        images = (sample.images[0].permute(0, 2, 3, 1).numpy() * 255 + 0.5).clip(0, 255)
        clip = dyn3r.clip_from_images(images.astype(np.uint8), size=size)
        edges = make_pairs("swinstride-5-noncyclic", len(clip))
        watcher = Watcher(clip, model, edges, dyn3r.Options(flow=args.flow), no_progress)
        first = watcher.predict("first pass", None, heads=True, scores=False)
        measured = watcher.measure_flow()
        solved = bundle_adjust(align(first, flow=measured), clip.images, measured)
        judged = FlowMotionOptions(depth_slack=FlowMotionOptions().solved_slack)
        inverse = np.median(solved.depth) / np.maximum(solved.depth, 1e-9)
        evidence = flow_evidence(None, clip.images, measured, inverse_depth=inverse, options=judged)
        small = replace(first, points1=None, points2=None, conf1=None, conf2=None)
        yield Seen(evidence, measured, small, sample.moving[0].numpy())
        print(f"# clip {step}: {time.perf_counter() - start:.0f} s", flush=True)


def fit(clips: list[Seen]) -> LearnedMotionOptions:
    """Weights by maximum likelihood; a cue with a negative weight is dropped."""
    from sklearn.linear_model import LogisticRegression

    rows, truth = [], []
    for clip in clips:
        probability = learned_probability(clip.predictions)
        told = np.isfinite(clip.evidence.typical_px) & np.isfinite(probability[:, 0, 0])
        pair = (log_odds(clip.evidence.refined[told]), log_odds(probability[told]))
        rows.append(np.stack([p.ravel() for p in pair], -1))
        truth.append(clip.truth[told].ravel())
    x, y = np.concatenate(rows), np.concatenate(truth)
    weights, used = np.zeros(2), np.ones(2, bool)
    while True:
        found = LogisticRegression().fit(x[:, used], y)
        weights[:] = 0
        weights[used] = found.coef_[0]
        if (weights >= 0).all() or used.sum() == 1:
            break
        used = weights == weights.max()
    flow, learned = weights.clip(0).tolist()
    return LearnedMotionOptions(
        flow_weight=flow, learned_weight=learned, bias=float(found.intercept_[0])
    )


def best_bias(clips: list[Seen], options: LearnedMotionOptions) -> LearnedMotionOptions:
    """The bias with the largest J over all pixels of these clips; the weights stay."""
    free = replace(options, bias=0.0)
    score = np.concatenate(
        [
            fused_score(c.evidence.refined, learned_probability(c.predictions), free).ravel()
            for c in clips
        ]
    )
    truth = np.concatenate([c.truth.ravel() for c in clips])
    biases = np.linspace(-6, 6, 121)
    j = [(truth & (score + b > 0)).sum() / max(1, (truth | (score + b > 0)).sum()) for b in biases]
    return replace(options, bias=round(float(biases[int(np.argmax(j))]), 3))


def line(name: str, masks: list[np.ndarray], clips: list[Seen]) -> str:
    """One row of the table."""
    hit = sum(int((m & c.truth).sum()) for m, c in zip(masks, clips))
    found, true = sum(int(m.sum()) for m in masks), sum(int(c.truth.sum()) for c in clips)
    each = [
        (m & c.truth).sum() / (m | c.truth).sum() for m, c in zip(masks, clips) if c.truth.any()
    ]
    still = [m.mean() for m, c in zip(masks, clips) if not c.truth.any()]
    numbers = (
        hit / max(1, found + true - hit), hit / max(1, found), hit / max(1, true),
        np.mean(each) if each else np.nan, np.mean(still) if still else np.nan,
    )  # fmt: skip
    return f"| {name} | " + " | ".join("-" if np.isnan(n) else f"{n:.3f}" for n in numbers) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--seed", type=int, default=9003)
    parser.add_argument("--photos", help="folder of photographs for textures")
    parser.add_argument("--flow", default="dis")
    args = parser.parse_args()
    model = dyn3r.load_model(args.model)
    if not model.network.config.motion_head:
        parser.error(f"{model.name} has no motion head")
    seen = list(look(args, model))
    learn, test = seen[::2], seen[1::2]
    if not any(clip.truth.any() for clip in learn) or not test:
        parser.error("nothing moves in the clips for the fit: draw more clips")
    neutral, fitted = LearnedMotionOptions(), fit(learn)
    for_j = best_bias(learn, fitted)
    masks = {
        "flow": [motion_from_evidence(c.evidence, c.measured).masks for c in test],
        "learned": [learned_motion(c.predictions).masks for c in test],
    }
    for name, options in (("neutral", neutral), ("fitted", fitted), ("fitted, bias for J", for_j)):
        masks[f"flow+learned, {name}"] = [
            fuse_motion(c.evidence, learned_probability(c.predictions), options=options).masks
            for c in test
        ]
    moving = sum(bool(c.truth.any()) for c in test)
    print(f"\nModel {model.name}, seed {args.seed}, flow {args.flow}; fit on {len(learn)} clips,")
    print(f"measured on {len(test)} others, in {moving} of which something moves\n")
    print("| cue | J | precision | recall | mean J of clips | share of still clips |")
    print("|---|---|---|---|---|---|")
    for name, found in masks.items():
        print(line(name, found, test))
    print(f"\nfitted:     {fitted}\nbias for J: {for_j}")


if __name__ == "__main__":
    main()
