"""Training of the mask network: clips of the synthetic world, real optical flow on them.

    python -m dyn3r.training.mask_training FOLDER --clips 400 --steps 4000 --photos my-photographs/

First draws clips and judges their flow as a run would (FOLDER/clips, resumable, most of the time),
then trains on them (FOLDER/motion-masks.safetensors). Depth is not that of a network: the truth,
without what moves, blurred and disturbed as solved depth is.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from dyn3r.motion.mask_network import PARTS, WEIGHTS, MaskNetwork, prepare
from dyn3r.training.clip_cache import (
    BASELINES,
    Clips,
    add_part,
    any_size,
    clips_for_training,
    draw_files,
    part_of,
    pictures_of,
    warm_cosine,
    worlds,
    write_weights,
)

if TYPE_CHECKING:
    from dyn3r.training.synthetic.world import World

logger = logging.getLogger(__name__)

MEMORY = 0.995
"""Of the exponential mean of the weights."""


@dataclass(frozen=True)
class MaskTraining:
    """What decides a run."""

    clips: int = 400
    """Clips to draw; every seventeenth is held out."""
    frames: int = 10
    """Frames per clip."""
    sizes_hw: tuple[tuple[int, int], ...] = ((128, 176), (160, 224), (176, 128))
    """Frame sizes, taken in turn."""
    steps: int = 4000
    """Optimiser steps."""
    batch: int = 12
    """Frames per step, all of one size."""
    learning_rate: float = 2e-3
    """Peak of the cosine."""
    photos: str | None = None
    """Folder of photographs for textures."""
    seed: int = 77
    """Seeds scenes, disturbances and weights."""


def draw_clip(index: int, options: MaskTraining, world: object) -> dict[str, np.ndarray]:
    """Frames, evidence and truth of one clip."""
    from dyn3r.flow import flow_estimator, measure_flow
    from dyn3r.motion import FlowMotionOptions, flow_evidence
    from dyn3r.network.pair_graph import make_pairs

    sample = world.sample(1, index, with_flow=False)  # type: ignore[attr-defined]
    images = pictures_of(sample)
    moving, depth = sample.moving[0].numpy(), sample.depth[0].numpy()
    edges = make_pairs("swinstride-5-noncyclic", len(images))
    flow = measure_flow(images, edges, flow_estimator("dis"))
    rng = np.random.default_rng((options.seed, index))
    inverse = disturbed(depth, moving, rng)
    judged = FlowMotionOptions(masks="evidence")  # a network is what this makes
    judged = replace(judged, depth_slack=judged.solved_slack)
    evidence = flow_evidence(None, images, flow, inverse_depth=inverse, options=judged)
    assert evidence.parts is not None
    return {"images": images, "parts": evidence.parts.astype(np.float16), "moving": moving}


def disturbed(
    depth: Float[np.ndarray, "n h w"], moving: np.ndarray, rng: np.random.Generator
) -> Float[np.ndarray, "n h w"]:
    """Inverse depth as bundle adjustment leaves it, median 1: see `disturbed_log`."""
    inverse = np.exp(disturbed_log(depth, moving, rng, (1.0, 8.0), (0.02, 0.3)))
    return np.asarray(inverse / np.median(inverse), dtype=np.float64)


def disturbed_log(
    depth: Float[np.ndarray, "n h w"],
    moving: np.ndarray,
    rng: np.random.Generator,
    blur_px: tuple[float, float],
    wrong_by: tuple[float, float],
) -> Float[np.ndarray, "n h w"]:
    """Log inverse depth with what moves painted with the still pixel nearest to it, blurred, and
    wrong by some per cent in patches, by amounts between the two of each pair. Depth 0 is very far.
    A frame that moves altogether is plain."""
    import cv2
    from scipy.ndimage import distance_transform_edt

    h, w = depth.shape[1:]
    known = depth > 0
    far = np.where(known, depth, depth[~moving].max(initial=0) * 3 + 1e-6)
    log, blur = -np.log(far), math.exp(rng.uniform(*np.log(blur_px)))
    wrong = math.exp(rng.uniform(*np.log(wrong_by)))
    out = np.empty_like(log)
    for t in range(len(depth)):
        nearest = distance_transform_edt(moving[t], return_distances=False, return_indices=True)
        still = np.zeros((h, w)) if moving[t].all() else log[t][tuple(nearest)]
        smooth = cv2.GaussianBlur(still.astype(np.float32), (0, 0), blur)
        rough = torch.from_numpy(rng.normal(0, wrong, (1, 1, 4, 5)).astype(np.float32))
        out[t] = smooth + interpolate(rough, (h, w), mode="bicubic")[0, 0].numpy()
    return out


def worlds_of_clips(options: MaskTraining) -> Callable[[int], World]:
    """The world that shows the clip of an index."""
    world_of = worlds(
        options.sizes_hw, options.seed, frames=options.frames, photos=options.photos,
        dynamic_share=0.85,
    )  # fmt: skip
    return lambda index: world_of(index, BASELINES)


def draw_clips(folder: Path, options: MaskTraining, first: int = 0, stride: int = 1) -> None:
    """Write FOLDER/clips/*.npz, those that are not there yet; several processes may share it."""
    world_of = worlds_of_clips(options)

    def draw(index: int) -> dict[str, np.ndarray]:
        return draw_clip(index, options, world_of(index))

    draw_files(folder, options.clips, draw, first, stride)


def train_masks(folder: Path, options: MaskTraining) -> MaskNetwork:
    """Train on the clips of `folder`; writes motion-masks.safetensors there.

    Raises InputError for a folder without clips to train on.
    """
    torch.manual_seed(options.seed)
    clips, held_out = clips_for_training(folder, "images")
    return train_network(MaskNetwork(), clips, held_out, folder / WEIGHTS, options)


def train_network(
    network: MaskNetwork, clips: Clips, held_out: Clips, file: Path, options: MaskTraining
) -> MaskNetwork:
    """The loop: bfloat16, an exponential mean of the weights, which is returned and written."""
    rng = np.random.default_rng(options.seed)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), options.learning_rate, weight_decay=0.01)
    began, running = time.monotonic(), 0.0
    for step in range(options.steps):
        rate = options.learning_rate * warm_cosine(step, options.steps)
        optimiser.param_groups[0]["lr"] = rate
        images, parts, moving = _batch(any_size(clips, rng), options.batch, rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images, parts)
        logits = logits.float()
        loss = binary_cross_entropy_with_logits(logits, moving) + _soft_iou_loss(logits, moving)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            keep = min(MEMORY, (step + 1) / (step + 21))
            for held, value in zip(mean.parameters(), network.parameters()):
                held.lerp_(value, 1 - keep)
        running = (
            float(loss.detach()) if step == 0 else 0.98 * running + 0.02 * float(loss.detach())
        )
        if (step + 1) % 250 == 0 or step + 1 == options.steps:
            scores = evaluate_masks(mean, held_out)
            logger.info(
                "step %d, %.0f s: loss %.3f; held out: J of the network %.3f, before it %.3f",
                step + 1, time.monotonic() - began, running, *scores,
            )  # fmt: skip
            write_weights(file, mean.state_dict())
    return mean


def _batch(
    clips: list[dict[str, np.ndarray]], count: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random frames; half of them mirrored, other colours, everything faster or slower. Of what
    other frames show (second look), a tenth knows nothing."""
    pick = [clips[k] for k in rng.integers(len(clips), size=count)]
    frames = [int(rng.integers(len(clip["images"]))) for clip in pick]
    images, parts = prepare(
        np.stack([clip["images"][t] for clip, t in zip(pick, frames)]),
        np.stack([clip["parts"][t] for clip, t in zip(pick, frames)]),
    )
    moving = torch.from_numpy(
        np.stack([clip["moving"][t] for clip, t in zip(pick, frames)]).astype(np.float32)
    )
    colour = torch.from_numpy(rng.normal(0, 0.15, (count, 3, 1, 1)).astype(np.float32))
    contrast = torch.from_numpy(rng.uniform(0.7, 1.3, (count, 1, 1, 1)).astype(np.float32))
    images = (images * contrast + colour).clamp(-1, 1)
    parts = parts.clone()
    stretch = torch.from_numpy(rng.uniform(0.6, 1.6, (count, 1, 1, 1)).astype(np.float32))
    parts[:, 5:PARTS] *= stretch
    for k in range(count):
        if rng.random() < 0.5:
            images[k], parts[k], moving[k] = (
                images[k].flip(-1),
                parts[k].flip(-1),
                moving[k].flip(-1),
            )
            parts[k, 5] = -parts[k, 5]
        if parts.shape[1] > PARTS and rng.random() < 0.1:
            parts[k, PARTS + 1 :] = 0
    return images, parts, moving


def _soft_iou_loss(logits: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """1 - intersection over union of the batch, on probabilities (Rahman and Wang 2016)."""
    p = logits.sigmoid()
    both = (p * moving).sum()
    return 1 - both / (p + moving - p * moving).sum().clamp(min=1)


def evaluate_masks(
    network: MaskNetwork, clips: dict[tuple[int, int], list[dict[str, np.ndarray]]]
) -> tuple[float, float]:
    """Mean J over the frames with motion of the held-out clips: of the network above 0.5, and of
    what there was before it: the plain evidence above the default threshold of `FlowMotionOptions`;
    for the second look, the first network above 0.5."""
    from dyn3r.motion import FlowMotionOptions
    from dyn3r.motion.mask_network import mask_probability

    threshold, ours, plain = FlowMotionOptions().threshold, [], []
    network.eval()
    for group in clips.values():
        for clip in group:
            drawn = mask_probability(network, clip["images"], clip["parts"]) > 0.5
            simple = clip["parts"][:, 0] > threshold
            if clip["parts"].shape[1] > PARTS:
                simple = clip["parts"][:, PARTS] > 0.5
            for true, a, b in zip(clip["moving"], drawn, simple):
                if true.any():
                    ours.append((true & a).sum() / (true | a).sum())
                    plain.append((true & b).sum() / (true | b).sum())
    network.train()
    nothing = float("nan")
    return (
        float(np.mean(ours)) if ours else nothing,
        float(np.mean(plain)) if plain else nothing,
    )


def asked(parser: argparse.ArgumentParser, clips: int) -> tuple[Path, MaskTraining, int, int]:
    """What the command line says: folder, options, the first clip to draw and the stride."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=clips)
    parser.add_argument("--steps", type=int, default=MaskTraining.steps)
    parser.add_argument("--photos")
    parser.add_argument("--seed", type=int, default=MaskTraining.seed)
    add_part(parser)
    args = parser.parse_args()
    options = MaskTraining(clips=args.clips, steps=args.steps, photos=args.photos, seed=args.seed)
    return (args.folder, options, *part_of(parser, args))


def main() -> None:
    """The command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        prog="python -m dyn3r.training.mask_training", description="Train the mask network."
    )
    folder, options, first, stride = asked(parser, MaskTraining.clips)
    draw_clips(folder, options, first, stride)
    if stride == 1:
        train_masks(folder, options)


if __name__ == "__main__":
    main()
