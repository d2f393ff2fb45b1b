"""Training of the multi-view depth network on reconstructed and perturbed synthetic clips.

    python -m dyn3r.training.mvs_training FOLDER --steps 4000 --photos my-photographs/

First renders clips, reconstructs some of them with a model, perturbs the truth of the others, and
computes plane sweeps (FOLDER/clips, resumable). Then trains on them and writes
FOLDER/multi-view-depth.safetensors.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from dyn3r.mvs.depth_network import MIN_LOG_INVERSE, PRIOR_CHANNEL, DepthNetwork
from dyn3r.mvs.estimate import WEIGHTS, load_depth_network
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
from dyn3r.training.mvs_clips import DepthTraining, render_clips

logger = logging.getLogger(__name__)

CONTRAST_NOISE = 0.25
"""Standard deviation of the logarithm of the factor by which the input's log depth is scaled about
its median: depth contrast is a typical error of networks on unfamiliar images."""
EMA_DECAY = 0.995
"""Decay of the exponential moving average of the weights."""
LOG_EVERY = 250
"""Steps between evaluations."""
SKY_WEIGHT = 0.3
"""Weight of infinitely far pixels in the loss."""


def train_depth(folder: Path, options: DepthTraining) -> DepthNetwork:
    """Train on the clips of `folder` and write multi-view-depth.safetensors there.

    The weights written are an exponential moving average. Raises InputError for a folder without
    clips to train on, CheckpointError for an unusable `options.start`.
    """
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    clips, held_out = training_clips(folder, "true")
    network = DepthNetwork() if options.start is None else load_depth_network(options.start)
    network.train().requires_grad_(requires_grad=True)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), options.learning_rate, weight_decay=0.01)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    started, running = time.monotonic(), 0.0
    for step in range(options.steps):
        rate = options.learning_rate * warm_cosine(step, options.steps)
        optimiser.param_groups[0]["lr"] = rate
        frame, sweep, true = _batch(sample_size(clips, rng), options.batch, rng)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = network(frame, sweep)
        loss = depth_loss(predicted.float(), true)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        update_average(average.values(), network.state_dict().values(), EMA_DECAY, step)
        value = float(loss.detach())
        running = value if step == 0 else 0.98 * running + 0.02 * value
        if (step + 1) % LOG_EVERY == 0 or step + 1 == options.steps:
            averaged = DepthNetwork()
            averaged.load_state_dict(average)
            scores = evaluate_depth(averaged, held_out)
            logger.info(
                "step %d, %.0f s: loss %.3f; held out, mean relative error of depth: %s",
                step + 1, time.monotonic() - started, running,
                ", ".join(f"{name} {value:.3f}" for name, value in scores.items()),
            )  # fmt: skip
            write_weights(folder / WEIGHTS, average)
    return network


def depth_loss(predicted: Float[Tensor, "b h w"], true: Float[Tensor, "b h w"]) -> Tensor:
    """Compute the mean error of log inverse depth and of its gradients at four scales.

    Source of the gradient term: MegaDepth (Li and Snavely 2018). Infinitely far pixels have the
    weight `SKY_WEIGHT`.
    """
    sky = true <= MIN_LOG_INVERSE + 0.1
    weight = torch.where(sky, SKY_WEIGHT, 1.0)
    error = predicted - true
    loss = (weight * error.abs()).mean()
    x = error[:, None]
    for _ in range(4):
        loss = loss + 0.5 * (
            x.diff(dim=2).abs().clamp(max=1).mean() + x.diff(dim=3).abs().clamp(max=1).mean()
        )
        x = avg_pool2d(x, 2)
    return loss


def _batch(
    clips: list[Clip], count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample frames of one size, with augmentation: frame channels, sweeps and targets.

    Half of the frames are mirrored; colours and contrast vary; the input depth gets smooth noise
    and another depth contrast.
    """
    pick = [clips[k] for k in rng.integers(len(clips), size=count)]
    frames = [int(rng.integers(len(clip["true"]))) for clip in pick]

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([clip[name][t] for clip, t in zip(pick, frames)])).float()

    frame, sweep, true = stack("frame"), stack("sweep") / 255, stack("true")
    h, w = true.shape[1:]
    colour = torch.from_numpy(rng.normal(0, 0.15, (count, 3, 1, 1)).astype(np.float32))
    contrast = torch.from_numpy(rng.uniform(0.7, 1.3, (count, 1, 1, 1)).astype(np.float32))
    frame[:, :3] = (frame[:, :3] * contrast + colour).clamp(-1, 1)
    coarse = rng.normal(0, 0.2, (count, 1, 4, 5)) * rng.uniform(0, 1, (count, 1, 1, 1)) ** 2
    noise = torch.from_numpy(coarse.astype(np.float32))
    depth = frame[:, PRIOR_CHANNEL : PRIOR_CHANNEL + 2]
    middle = depth[:, :1].flatten(1).median(1).values[:, None, None, None]
    gain = rng.normal(0, CONTRAST_NOISE, (count, 1, 1, 1))
    depth = middle + torch.from_numpy(np.exp(gain).astype(np.float32)) * (depth - middle)
    noisy = depth + interpolate(noise, (h, w), mode="bicubic")
    frame[:, PRIOR_CHANNEL : PRIOR_CHANNEL + 2] = noisy
    for k in np.flatnonzero(rng.random(count) < 0.5):
        frame[k], sweep[k], true[k] = frame[k].flip(-1), sweep[k].flip(-1), true[k].flip(-1)
        frame[k, 6] = -frame[k, 6]
    return frame, sweep, true


def evaluate_depth(network: DepthNetwork, clips: Clips) -> dict[str, float]:
    """Compute mean relative depth errors over clips, after one median scale per clip.

    Of the depth `before` and `after` the network; over all pixels, and over moving objects
    (`moving before`, `moving after`).
    """
    names = ("before", "after")
    rows: dict[str, list[float]] = {
        name: [] for name in (*names, *(f"moving {name}" for name in names))
    }
    network.eval()
    for group in clips.values():
        for clip in group:
            frame, sweep = torch.from_numpy(clip["frame"]), torch.from_numpy(clip["sweep"])
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                predicted = torch.cat(
                    [network(f[None].float(), s[None].float() / 255) for f, s in zip(frame, sweep)]
                ).float()
            true = torch.from_numpy(clip["true"]).float()
            known, moving = true > MIN_LOG_INVERSE + 0.1, torch.from_numpy(clip["moving"])
            for name, log in zip(names, (frame[:, PRIOR_CHANNEL + 1].float(), predicted)):
                error = (true - log)[known]
                relative = ((true - log) - error.median()).exp().sub(1).abs()
                rows[name].append(float(relative[known].mean()))
                if (known & moving).any():
                    rows[f"moving {name}"].append(float(relative[known & moving].mean()))
    network.train()
    return {name: float(np.mean(values)) for name, values in rows.items() if values}


def main() -> None:
    """Run the command line."""
    from dyn3r.network.model import load_model

    parser = argparse.ArgumentParser(
        prog="python -m dyn3r.training.mvs_training", description="Train the depth network."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reconstructed", type=int, default=DepthTraining.reconstructed)
    parser.add_argument("--perturbed", type=int, default=DepthTraining.perturbed)
    parser.add_argument("--steps", type=int, default=DepthTraining.steps)
    parser.add_argument("--model", default="compact", help="reconstructs the clips")
    parser.add_argument("--start", help="weights to start from")
    parser.add_argument("--photos")
    parser.add_argument("--seed", type=int, default=DepthTraining.seed)
    add_part(parser)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = DepthTraining(
        args.reconstructed,
        args.perturbed,
        steps=args.steps,
        start=args.start,
        photos=args.photos,
        seed=args.seed,
    )
    first, stride = part_of(parser, args)
    render_clips(args.folder, options, load_model(args.model), first, stride)
    if stride == 1:
        train_depth(args.folder, options)


if __name__ == "__main__":
    main()
