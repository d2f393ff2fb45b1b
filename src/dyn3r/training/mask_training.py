"""Training of the mask network on synthetic clips with measured optical flow.

    python -m dyn3r.training.mask_training FOLDER --clips 400 --steps 4000 --photos my-photographs/

First renders clips and computes flow evidence as a run does (FOLDER/clips, resumable; most of the
time), then trains on them (FOLDER/motion-masks.safetensors). Depth is the perturbed truth, without
moving objects, instead of an estimate.
"""

from __future__ import annotations

import argparse
import copy
import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from dyn3r.motion.mask_network import PARTS, WEIGHTS, MaskNetwork, load_mask_network, prepare
from dyn3r.training.averaging import update_average
from dyn3r.training.clip_cache import (
    Clip,
    Clips,
    add_part,
    part_of,
    sample_size,
    training_clips,
    warm_cosine,
    write_weights,
)
from dyn3r.training.mask_augment import augmented
from dyn3r.training.mask_clips import MaskTraining, render_clips

logger = logging.getLogger(__name__)

EMA_DECAY = 0.995
"""Decay of the exponential moving average of the weights."""
LOG_EVERY = 250
"""Steps between evaluations."""


def train_masks(folder: Path, options: MaskTraining) -> MaskNetwork:
    """Train on the clips of `folder` and write motion-masks.safetensors there.

    Raises InputError for a folder without clips to train on, CheckpointError for a file to start
    from that has no such network.
    """
    torch.manual_seed(options.seed)
    network = MaskNetwork() if options.start is None else load_mask_network(options.start)
    clips, held_out = training_clips(folder, "images")
    return train_network(network, clips, held_out, folder / WEIGHTS, options)


def train_network(
    network: MaskNetwork, clips: Clips, held_out: Clips, file: Path, options: MaskTraining
) -> MaskNetwork:
    """Train in bfloat16; return and write the exponential moving average of the weights."""
    rng = np.random.default_rng(options.seed)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train().requires_grad_(requires_grad=True)  # weights that were loaded do not
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), options.learning_rate, weight_decay=0.01)
    started, running = time.monotonic(), 0.0
    for step in range(options.steps):
        rate = options.learning_rate * warm_cosine(step, options.steps)
        optimiser.param_groups[0]["lr"] = rate
        images, parts, moving = _batch(sample_size(clips, rng), options.batch, rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images, parts)
        logits = logits.float()
        loss = binary_cross_entropy_with_logits(logits, moving) + _soft_iou_loss(logits, moving)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        update_average(average.parameters(), network.parameters(), EMA_DECAY, step)
        value = float(loss.detach())
        running = value if step == 0 else 0.98 * running + 0.02 * value
        if (step + 1) % LOG_EVERY == 0 or step + 1 == options.steps:
            scores = evaluate_masks(average, held_out)
            logger.info(
                "step %d, %.0f s: loss %.3f; held out: J of the network %.3f, of its input %.3f",
                step + 1, time.monotonic() - started, running, *scores,
            )  # fmt: skip
            write_weights(file, average.state_dict())
    return average


def _batch(
    clips: list[Clip], count: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sample frames of one size, with augmentation: images, evidence and true masks."""
    pick = [clips[k] for k in rng.integers(len(clips), size=count)]
    frames = [int(rng.integers(len(clip["images"]))) for clip in pick]
    images, parts, moving = (
        np.stack([clip[name][t] for clip, t in zip(pick, frames)])
        for name in ("images", "parts", "moving")
    )
    return augmented(*prepare(images, parts), torch.from_numpy(moving), rng)


def _soft_iou_loss(logits: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """Compute 1 - soft intersection over union of the batch (Rahman and Wang 2016)."""
    p = logits.sigmoid()
    both = (p * moving).sum()
    return 1 - both / (p + moving - p * moving).sum().clamp(min=1)


def evaluate_masks(network: MaskNetwork, clips: Clips) -> tuple[float, float]:
    """Compute the mean J of the network and of its input, over held-out frames with motion.

    The network is thresholded at 0.5. Its input is the plain evidence above the default threshold
    of `FlowCueOptions`; with a background model, the first network above 0.5.
    """
    from dyn3r.motion.mask_network import mask_probability
    from dyn3r.motion.options import FlowCueOptions

    threshold, ours, plain = FlowCueOptions().threshold, [], []
    network.eval()
    for group in clips.values():
        for clip in group:
            predicted = mask_probability(network, clip["images"], clip["parts"]) > 0.5
            before = clip["parts"][:, 0] > threshold
            if clip["parts"].shape[1] > PARTS:
                before = clip["parts"][:, PARTS] > 0.5
            for true, a, b in zip(clip["moving"], predicted, before):
                if true.any():
                    ours.append((true & a).sum() / (true | a).sum())
                    plain.append((true & b).sum() / (true | b).sum())
    network.train()
    no_frames = float("nan")
    return (
        float(np.mean(ours)) if ours else no_frames,
        float(np.mean(plain)) if plain else no_frames,
    )


def parse_arguments(
    parser: argparse.ArgumentParser, clips: int
) -> tuple[Path, MaskTraining, int, int]:
    """Parse the command line: folder, options, first clip to render and stride."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=clips)
    parser.add_argument("--steps", type=int, default=MaskTraining.steps)
    parser.add_argument("--start", help="weights to start from")
    parser.add_argument("--learning-rate", type=float, default=MaskTraining.learning_rate)
    parser.add_argument("--photos")
    parser.add_argument("--seed", type=int, default=MaskTraining.seed)
    add_part(parser)
    args = parser.parse_args()
    options = MaskTraining(
        clips=args.clips, steps=args.steps, learning_rate=args.learning_rate, start=args.start,
        photos=args.photos, seed=args.seed,
    )  # fmt: skip
    return (args.folder, options, *part_of(parser, args))


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        prog="python -m dyn3r.training.mask_training", description="Train the mask network."
    )
    folder, options, first, stride = parse_arguments(parser, MaskTraining.clips)
    render_clips(folder, options, first, stride)
    if stride == 1:
        train_masks(folder, options)


if __name__ == "__main__":
    main()
