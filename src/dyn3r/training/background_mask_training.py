"""Training of the mask network for the second look, which also sees what other frames show.

    python -m dyn3r.training.background_mask_training FOLDER --clips 1400 --steps 4000 --photos my-photographs/

FOLDER is that of `dyn3r.training.mask_training`; clips that it lacks are drawn. Then every clip is looked
at once more with cameras and depth nearly right, as bundle adjustment finds them, and with what the
first network says of it (FOLDER/second, resumable). Writes
FOLDER/motion-masks-second-look.safetensors.
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from dyn3r.errors import InputError
from dyn3r.motion.background_model import OtherFrames, other_frames
from dyn3r.motion.mask_network import (
    SECOND_PARTS,
    SECOND_WEIGHTS,
    SECOND_WIDTHS,
    MaskNetwork,
    load_mask_network,
    mask_probability,
    second_parts,
)
from dyn3r.training.clip_cache import (
    Clip,
    clips_for_training,
    draw_files,
    pictures_of,
    read_clip_file,
)
from dyn3r.training.mask_training import (
    MaskTraining,
    asked,
    disturbed_log,
    draw_clips,
    train_network,
    worlds_of_clips,
)

BLUR_PX, WRONG_BY = (0.7, 5.0), (0.005, 0.1)
"""How wrong depth is, at least and at most: what matters is where a pixel is looked for in other
frames, and bundle adjustment has seen to that."""
CARELESS = (0.1, 3.0)
"""Cameras are wrong by this, times 0.06 degrees and 1 % of the path."""


def second_clip(index: int, options: MaskTraining, world: object, first: Clip) -> Clip:
    """What the first network says of a clip, and how unlike other frames its pixels look.

    Raises InputError if the clip is not what the world shows at this index.
    """
    sample = world.sample(1, index, with_flow=False)  # type: ignore[attr-defined]
    if not np.array_equal(pictures_of(sample), first["images"]):
        raise InputError(
            f"clip {index} was drawn with other options: give the same --seed and --photos, or "
            "take a new folder"
        )
    rng = np.random.default_rng((options.seed, index, 5))
    probability = mask_probability(load_mask_network(), first["images"], first["parts"])
    log = disturbed_log(sample.depth[0].numpy(), first["moving"], rng, BLUR_PX, WRONG_BY)
    T = sample.T_world_camera[0].numpy().astype(np.float64)
    careless = math.exp(rng.uniform(*np.log(CARELESS)))
    turn = Rotation.from_rotvec(rng.normal(0, careless * math.radians(0.06), (len(T), 3)))
    path = np.linalg.norm(T[:, :3, 3] - T[:, :3, 3].mean(0), axis=1).max()
    T[:, :3, :3] = T[:, :3, :3] @ turn.as_matrix()
    T[:, :3, 3] += rng.normal(0, careless * 0.01 * path + 1e-9, (len(T), 3))
    others = other_frames(
        first["images"], np.exp(-log).astype(np.float32), probability > 0.5,
        sample.K[0].numpy(), T,
    )  # fmt: skip
    return {
        "probability": probability.astype(np.float16), "unlike": others.unlike.astype(np.float16),
        "colour": others.colour.astype(np.float16),
    }  # fmt: skip


def draw_second(folder: Path, options: MaskTraining, first: int = 0, stride: int = 1) -> None:
    """Write FOLDER/second/clips/*.npz, those that are not there yet."""
    world_of = worlds_of_clips(options)

    def draw(index: int) -> Clip:
        clip = read_clip_file(folder / "clips" / f"{index:05d}.npz")
        return second_clip(index, options, world_of(index), clip)

    draw_files(folder / "second", options.clips, draw, first, stride)


def train_second(folder: Path, options: MaskTraining) -> MaskNetwork:
    """Train on the clips of `folder` that were looked at twice; writes the weights there.

    Raises InputError for a folder without clips to train on.
    """
    torch.manual_seed(options.seed)

    def read(file: Path) -> Clip:
        again = folder / "second" / "clips" / file.name
        if not again.exists():
            raise InputError("some clips were looked at once only: draw the rest first")
        return _joined(read_clip_file(file), read_clip_file(again))

    clips, held_out = clips_for_training(folder, "images", read)
    network = MaskNetwork(SECOND_PARTS, SECOND_WIDTHS)
    return train_network(network, clips, held_out, folder / SECOND_WEIGHTS, options)


def _joined(first: Clip, second: Clip) -> Clip:
    """A clip with everything that the network reads as its parts."""
    others = OtherFrames(*(second[name].astype(np.float32) for name in ("unlike", "colour")))
    parts = second_parts(first["parts"], second["probability"], first["images"], others)
    return {**first, "parts": parts.astype(np.float16)}


def main() -> None:
    """The command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        prog="python -m dyn3r.training.background_mask_training",
        description="Train the mask network for the second look.",
    )
    folder, options, first, stride = asked(parser, clips=1400)
    draw_clips(folder, options, first, stride)
    draw_second(folder, options, first, stride)
    if stride == 1:
        train_second(folder, options)


if __name__ == "__main__":
    main()
