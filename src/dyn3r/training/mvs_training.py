"""Training of the depth network: clips of the synthetic world, solved as a run solves them.

    python -m dyn3r.training.mvs_training FOLDER --steps 4000 --photos my-photographs/

First draws clips, reconstructs some of them with the model named and disturbs the truth of the
others, and sweeps planes (FOLDER/clips, resumable); then trains on them
(FOLDER/multi-view-depth.safetensors).
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from dyn3r.errors import GeometryError
from dyn3r.geometry.ground_contact import stand_on_ground
from dyn3r.mvs.depth_network import BEFORE, FARTHEST, DepthNetwork
from dyn3r.mvs.estimate import WEIGHTS, frame_channels, load_depth_network, log_inverse
from dyn3r.mvs.plane_sweep import Sweep, SweepFeatures, plane_sweep
from dyn3r.network.model import Model
from dyn3r.training.clip_cache import (
    BASELINES,
    Clip,
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
from dyn3r.training.mask_training import disturbed

logger = logging.getLogger(__name__)

LONG_BASELINES = (0.5, 0.75, 1.0)
"""Of the world, in turn, for imagined clips."""
OVERLOOKED = 0.15
"""Share of imagined clips whose masks are empty."""
TURN, SHIFT = 1e-3, 0.02
"""Standard errors of imagined cameras at most: radians, and as a share of the path."""
RELIEF = 0.25
"""How far too strong or too weak the depth before is made: standard error of the logarithm. That is
how networks are wrong about pictures unlike those they have seen."""
CONFIRMING_PX = 0.2
"""A sweep with fewer pixels from plane to plane confirms nothing."""


@dataclass(frozen=True)
class DepthTraining:
    """What decides a run."""

    reconstructed: int = 400
    """Clips to draw and reconstruct as a run would (8 s each)."""
    imagined: int = 800
    """Clips with the true cameras and depth, a little disturbed (2 s each); longer paths. Every
    seventeenth of all clips is held out."""
    frames: int = 10
    """Frames per clip."""
    sizes_hw: tuple[tuple[int, int], ...] = ((160, 224), (128, 224), (176, 224), (224, 160))
    """Frame sizes, taken in turn."""
    steps: int = 4000
    """Optimiser steps."""
    batch: int = 8
    """Frames per step, all of one size."""
    learning_rate: float = 2e-3
    """Peak of the cosine."""
    start: str | None = None
    """Weights to go on from, as an earlier run has written them."""
    photos: str | None = None
    """Folder of photographs for textures."""
    seed: int = 4711
    """Seeds scenes and weights."""


def draw_clip(index: int, world: object, model: Model) -> Clip:
    """Evidence and truth of one clip. Raises GeometryError where nothing can be reconstructed."""
    from dyn3r.io.clip import clip_from_images
    from dyn3r.options import Options
    from dyn3r.pipeline import reconstruct

    sample = world.sample(1, index, with_flow=False)  # type: ignore[attr-defined]
    images = pictures_of(sample)
    clip = clip_from_images(list(images), size=max(images.shape[1:3]))
    scene = reconstruct(clip, model, Options(mover_depth="network", stereo=False))
    found = {
        "images": images, "depth": scene.depth, "dynamic": scene.dynamic, "K": scene.K,
        "T": scene.T_world_camera, "true_depth": sample.depth[0].numpy(),
        "moving": sample.moving[0].numpy(),
    }  # fmt: skip
    return evidence_of(found)


def imagine_clip(index: int, options: DepthTraining, world: object) -> Clip:
    """Evidence and truth of one clip that was not reconstructed: cameras nearly right, depth
    blurred, wrong in patches and without what moves, masks too large or too small."""
    import cv2

    rng = np.random.default_rng((options.seed, index))
    sample = world.sample(1, index, with_flow=False)  # type: ignore[attr-defined]
    true, moving = sample.depth[0].numpy(), sample.moving[0].numpy()
    depth = 1 / disturbed(true, moving, rng)
    still = (true > 0) & ~moving
    if still.any():
        depth *= float(np.median(true[still] / depth[still]))
    rim = int(rng.integers(-3, 4))
    reach = np.ones((2 * abs(rim) + 1,) * 2, np.uint8)
    change = cv2.dilate if rim > 0 else cv2.erode
    seen = np.stack([change(mask.astype(np.uint8), reach) > 0 for mask in moving])
    seen &= rng.random() > OVERLOOKED
    T = sample.T_world_camera[0].numpy().astype(np.float64)
    travel = np.linalg.norm(T[:, :3, 3] - T[0, :3, 3], axis=1).max()
    careless = rng.random()
    turns = Rotation.from_rotvec(rng.normal(0, careless * TURN, (len(T), 3))).as_matrix()
    T[:, :3, :3] = T[:, :3, :3] @ turns
    T[:, :3, 3] += rng.normal(0, careless * SHIFT * travel, (len(T), 3))
    return evidence_of(
        {
            "images": pictures_of(sample), "dynamic": seen, "T": T,
            "depth": depth.astype(np.float32), "K": sample.K[0].numpy().astype(np.float64),
            "true_depth": true, "moving": moving,
        }
    )  # fmt: skip


def evidence_of(found: Clip) -> Clip:
    """What the network reads, and what it should say, for a reconstructed clip."""
    depth, moving, K, T = (found[name] for name in ("depth", "dynamic", "K", "T"))
    features = SweepFeatures(found["images"])
    sweeps = [plane_sweep(features, i, K, T, depth, moving) for i in range(len(depth))]
    unit, standing = unit_of(found, sweeps), stand_on_ground(depth, moving)
    frames, truths = [], []
    for i, sweep in enumerate(sweeps):
        seen = frame_channels(found["images"][i], depth[i], standing[i], moving[i], K[i], sweep)
        frames.append(seen.numpy().astype(np.float16))
        true = found["true_depth"][i] * unit * sweep.nearest
        truths.append(np.where(true > 0, log_inverse(true), FARTHEST).astype(np.float16))
    costs = [(sweep.channels * 255).round().to(torch.uint8).numpy() for sweep in sweeps]
    return {
        "frame": np.stack(frames),
        "sweep": np.stack(costs),
        "true": np.stack(truths),
        "moving": found["moving"],
    }


def unit_of(found: Clip, sweeps: list[Sweep]) -> float:
    """Units of length of the cameras found, per metre: the median ratio of depth where nothing
    moves and the sweep confirms it; where it confirms little, of all depth. (Not by the distance
    between cameras: with a wrong focal length that fits other depths.)"""
    depth, true = found["depth"], found["true_depth"]
    still = (true > 0) & ~found["moving"]
    still = still if still.any() else true > 0
    confirmed = np.zeros_like(still)
    for i, sweep in enumerate(sweeps):
        if sweep.step_px > CONFIRMING_PX:
            best = interpolate(sweep.channels[None, -2:-1], depth.shape[1:], mode="bilinear")
            confirmed[i] = (
                np.abs(np.log(best[0, 0].numpy() * sweep.nearest * depth[i] + 1e-9)) < 0.1
            )
    if (confirmed & still).mean() > 0.05:
        still &= confirmed
    return float(np.median(depth[still] / true[still]))


def draw_clips(
    folder: Path, options: DepthTraining, model: Model, first: int = 0, stride: int = 1
) -> None:
    """Write FOLDER/clips/*.npz, those that are not there yet; several processes may share it."""
    world_of = worlds(options.sizes_hw, options.seed, frames=options.frames, photos=options.photos)

    def draw(index: int) -> Clip | None:
        if index >= options.reconstructed:
            return imagine_clip(index, options, world_of(index, LONG_BASELINES))
        try:
            return draw_clip(index, world_of(index, BASELINES), model)
        except GeometryError as problem:
            logger.info("clip %d left out: %s", index + 1, problem)
            return None

    draw_files(folder, options.reconstructed + options.imagined, draw, first, stride)


def train_depth(folder: Path, options: DepthTraining) -> DepthNetwork:
    """Train on the clips of `folder`; writes multi-view-depth.safetensors there.

    Raises InputError for a folder without clips to train on, CheckpointError for an unusable start.
    """
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    clips, held_out = clips_for_training(folder, "true")
    network = DepthNetwork() if options.start is None else load_depth_network(options.start)
    network.train().requires_grad_(True)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), options.learning_rate, weight_decay=0.01)
    mean = {name: value.detach().clone() for name, value in network.state_dict().items()}
    began, running = time.monotonic(), 0.0
    for step in range(options.steps):
        rate = options.learning_rate * warm_cosine(step, options.steps)
        optimiser.param_groups[0]["lr"] = rate
        frame, sweep, true = _batch(any_size(clips, rng), options.batch, rng)
        with torch.autocast("cpu", torch.bfloat16):
            said = network(frame, sweep)
        loss = depth_loss(said.float(), true)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        keep = min(0.995, step / (step + 10))
        for name, value in network.state_dict().items():
            mean[name].lerp_(value, 1 - keep)
        value = float(loss.detach())
        running = value if step == 0 else 0.98 * running + 0.02 * value
        if (step + 1) % 250 == 0 or step + 1 == options.steps:
            averaged = DepthNetwork()
            averaged.load_state_dict(mean)
            scores = evaluate_depth(averaged, held_out)
            logger.info(
                "step %d, %.0f s: loss %.3f; held out, mean relative error of depth: %s",
                step + 1, time.monotonic() - began, running,
                ", ".join(f"{name} {value:.3f}" for name, value in scores.items()),
            )  # fmt: skip
            write_weights(folder / WEIGHTS, mean)
    return network


def depth_loss(said: Float[Tensor, "b h w"], true: Float[Tensor, "b h w"]) -> Tensor:
    """Mean error of log inverse depth, and of its differences between neighbours at four scales
    (Li and Snavely 2018, MegaDepth); what is infinitely far counts a third."""
    sky = true <= FARTHEST + 0.1
    weight = torch.where(sky, 0.3, 1.0)
    error = said - true
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
    """Random frames; half of them mirrored, other colours, the depth before disturbed: in patches,
    and with more or less relief."""
    pick = [clips[k] for k in rng.integers(len(clips), size=count)]
    frames = [int(rng.integers(len(clip["true"]))) for clip in pick]

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([clip[name][t] for clip, t in zip(pick, frames)])).float()

    frame, sweep, true = stack("frame"), stack("sweep") / 255, stack("true")
    h, w = true.shape[1:]
    colour = torch.from_numpy(rng.normal(0, 0.15, (count, 3, 1, 1)).astype(np.float32))
    contrast = torch.from_numpy(rng.uniform(0.7, 1.3, (count, 1, 1, 1)).astype(np.float32))
    frame[:, :3] = (frame[:, :3] * contrast + colour).clamp(-1, 1)
    wrong = rng.normal(0, 0.2, (count, 1, 4, 5)) * rng.uniform(0, 1, (count, 1, 1, 1)) ** 2
    rough = torch.from_numpy(wrong.astype(np.float32))
    before = frame[:, BEFORE : BEFORE + 2]
    middle = before[:, :1].flatten(1).median(1).values[:, None, None, None]
    relief = torch.from_numpy(np.exp(rng.normal(0, RELIEF, (count, 1, 1, 1))).astype(np.float32))
    before = middle + relief * (before - middle)
    frame[:, BEFORE : BEFORE + 2] = before + interpolate(rough, (h, w), mode="bicubic")
    for k in np.flatnonzero(rng.random(count) < 0.5):
        frame[k], sweep[k], true[k] = frame[k].flip(-1), sweep[k].flip(-1), true[k].flip(-1)
        frame[k, 6] = -frame[k, 6]
    return frame, sweep, true


def evaluate_depth(network: DepthNetwork, clips: Clips) -> dict[str, float]:
    """Mean over the held-out clips of |depth / true - 1| after one scale per clip (median), of the
    depth before and of the network's, over all pixels and over those that move."""
    rows: dict[str, list[float]] = {"before": [], "now": [], "movers before": [], "movers now": []}
    network.eval()
    for group in clips.values():
        for clip in group:
            frame, sweep = torch.from_numpy(clip["frame"]), torch.from_numpy(clip["sweep"])
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                said = torch.cat(
                    [network(f[None].float(), s[None].float() / 255) for f, s in zip(frame, sweep)]
                ).float()
            true = torch.from_numpy(clip["true"]).float()
            seen, moving = true > FARTHEST + 0.1, torch.from_numpy(clip["moving"])
            for name, log in (("before", frame[:, BEFORE + 1].float()), ("now", said)):
                error = (true - log)[seen]
                relative = ((true - log) - error.median()).exp().sub(1).abs()
                rows[name].append(float(relative[seen].mean()))
                if (seen & moving).any():
                    rows["movers " + name].append(float(relative[seen & moving].mean()))
    network.train()
    return {name: float(np.mean(values)) for name, values in rows.items() if values}


def main() -> None:
    """The command line."""
    from dyn3r.network.model import load_model

    parser = argparse.ArgumentParser(
        prog="python -m dyn3r.training.mvs_training", description="Train the depth network."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reconstructed", type=int, default=DepthTraining.reconstructed)
    parser.add_argument("--imagined", type=int, default=DepthTraining.imagined)
    parser.add_argument("--steps", type=int, default=DepthTraining.steps)
    parser.add_argument("--model", default="compact", help="reconstructs the clips")
    parser.add_argument("--start", help="weights to go on from")
    parser.add_argument("--photos")
    parser.add_argument("--seed", type=int, default=DepthTraining.seed)
    add_part(parser)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = DepthTraining(
        args.reconstructed,
        args.imagined,
        steps=args.steps,
        start=args.start,
        photos=args.photos,
        seed=args.seed,
    )
    first, stride = part_of(parser, args)
    draw_clips(args.folder, options, load_model(args.model), first, stride)
    if stride == 1:
        train_depth(args.folder, options)


if __name__ == "__main__":
    main()
