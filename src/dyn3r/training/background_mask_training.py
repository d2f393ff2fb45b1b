"""Training of the mask network of the second motion pass, which also reads a background model.

    python -m dyn3r.training.background_mask_training FOLDER --clips 1400 --photos my-photographs/

FOLDER is that of `dyn3r.training.mask_training`; missing clips are rendered. Then the background
model of every clip is computed from perturbed cameras and depth, as after bundle adjustment, and
the masks of the first network (FOLDER/background, resumable). Writes
FOLDER/motion-masks-second-look.safetensors.
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from dyn3r.errors import InputError
from dyn3r.motion.background_model import BackgroundEvidence, background_evidence
from dyn3r.motion.mask_network import (
    BACKGROUND_PARTS,
    BACKGROUND_WEIGHTS,
    BACKGROUND_WIDTHS,
    MaskNetwork,
    background_mask_inputs,
    load_background_mask_network,
    load_mask_network,
    mask_probability,
)
from dyn3r.training.clip_cache import Clip, images_of, read_clip, training_clips, write_clips
from dyn3r.training.mask_clips import (
    MaskTraining,
    clip_worlds,
    perturbed_log_inverse_depth,
    render_clips,
)
from dyn3r.training.mask_training import parse_arguments, train_network

if TYPE_CHECKING:
    from dyn3r.training.synthetic.world import World

BLUR_PX, DEPTH_NOISE = (0.7, 5.0), (0.005, 0.1)
"""Ranges of the blur of depth and of the standard deviation of its logarithm."""
POSE_NOISE = (0.1, 3.0)
"""Range of the scale of pose errors; 1 stands for `ROTATION_NOISE_DEG` and `POSITION_NOISE`."""
ROTATION_NOISE_DEG, POSITION_NOISE = 0.06, 0.01
"""Standard deviations of camera rotations in degrees, and of positions over the path."""


def background_clip(index: int, options: MaskTraining, world: World, first: Clip) -> Clip:
    """Compute the first network's masks and the background model of a clip.

    Raises InputError if `world` does not render this clip at this index.
    """
    sample = world.sample(1, index, with_flow=False)
    if not np.array_equal(images_of(sample), first["images"]):
        raise InputError(
            f"clip {index} was rendered with other options: give the same --seed and --photos, or "
            "a new folder"
        )
    rng = np.random.default_rng((options.seed, index, 5))
    probability = mask_probability(load_mask_network(), first["images"], first["parts"])
    log = perturbed_log_inverse_depth(
        sample.depth[0].numpy(), first["moving"], rng, blur_px=BLUR_PX, noise_sigma=DEPTH_NOISE
    )
    T = _perturbed_poses(sample.T_world_camera[0].numpy().astype(np.float64), rng)
    evidence = background_evidence(
        first["images"], np.exp(-log).astype(np.float32), probability > 0.5,
        sample.K[0].numpy(), T,
    )  # fmt: skip
    return {
        "probability": probability.astype(np.float16),
        "color_difference": evidence.color_difference.half().numpy(),
        "colour": evidence.colour.permute(0, 2, 3, 1).half().numpy(),
    }


def _perturbed_poses(T_world_camera: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Perturb camera poses (n, 4, 4) in place."""
    T = T_world_camera
    scale = math.exp(rng.uniform(*np.log(POSE_NOISE)))
    sigma = scale * math.radians(ROTATION_NOISE_DEG)
    rotation = Rotation.from_rotvec(rng.normal(0, sigma, (len(T), 3)))
    path = np.linalg.norm(T[:, :3, 3] - T[:, :3, 3].mean(0), axis=1).max()
    T[:, :3, :3] = T[:, :3, :3] @ rotation.as_matrix()
    T[:, :3, 3] += rng.normal(0, scale * POSITION_NOISE * path + 1e-9, (len(T), 3))
    return T


def render_background(folder: Path, options: MaskTraining, first: int = 0, stride: int = 1) -> None:
    """Write missing background models to FOLDER/background/clips/*.npz."""
    world_of = clip_worlds(options)

    def render(index: int) -> Clip:
        clip = read_clip(folder / "clips" / f"{index:05d}.npz")
        return background_clip(index, options, world_of(index), clip)

    write_clips(folder / "background", options.clips, render, first, stride)


def train_background_masks(folder: Path, options: MaskTraining) -> MaskNetwork:
    """Train on the clips of `folder` and their background models, and write the weights there.

    Raises InputError for a folder without clips to train on, or without all background models,
    CheckpointError for a file to start from that has no such network.
    """
    torch.manual_seed(options.seed)
    network = (
        MaskNetwork(BACKGROUND_PARTS, BACKGROUND_WIDTHS)
        if options.start is None
        else load_background_mask_network(options.start)
    )

    def read(file: Path) -> Clip:
        background = folder / "background" / "clips" / file.name
        if not background.exists():
            raise InputError("some clips have no background model: compute the others first")
        return _joined(read_clip(file), read_clip(background))

    clips, held_out = training_clips(folder, "images", read)
    return train_network(network, clips, held_out, folder / BACKGROUND_WEIGHTS, options)


def _joined(first: Clip, background: Clip) -> Clip:
    """Return the clip with all input channels of the network."""
    color_difference, colour, probability, images, evidence = (
        torch.from_numpy(x)
        for x in (
            *(background[name] for name in ("color_difference", "colour", "probability")),
            first["images"], first["parts"],
        )
    )  # fmt: skip
    shown = BackgroundEvidence(color_difference.float(), colour.permute(0, 3, 1, 2).float())
    parts = background_mask_inputs(evidence, probability, images, shown)
    return {**first, "parts": parts.half().numpy()}


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        prog="python -m dyn3r.training.background_mask_training",
        description="Train the mask network of the second motion pass.",
    )
    folder, options, first, stride = parse_arguments(parser, clips=1400)
    render_clips(folder, options, first, stride)
    render_background(folder, options, first, stride)
    if stride == 1:
        train_background_masks(folder, options)


if __name__ == "__main__":
    main()
