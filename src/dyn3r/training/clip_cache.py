"""Cache of rendered clips, for the training of the mask and depth networks."""

from __future__ import annotations

import logging
import math
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from dyn3r.errors import InputError
from dyn3r.io.atomic import atomic_file, write_bytes

if TYPE_CHECKING:
    from dyn3r.training.synthetic.world import Sample, World

logger = logging.getLogger(__name__)

HELD_OUT_PERIOD = 17
"""One clip in this many is held out; a prime, so that all frame sizes are among them."""

BASELINES = (0.1, 0.25, 0.5)
"""Largest camera distances of clips in turn; see `WorldOptions.max_baseline`."""

Clip = dict[str, np.ndarray]
Clips = dict[tuple[int, int], list[Clip]]
"""Clips by frame size."""


def world_factory(
    sizes_hw: tuple[tuple[int, int], ...], seed: int, **settings: Any
) -> Callable[[int, tuple[float, ...]], World]:
    """Return a function that maps the index of a clip and possible baselines to its world.

    Frame sizes are taken in turn, baselines after each round of sizes. settings: other fields of
    `WorldOptions`.
    """
    from dyn3r.training.synthetic.world import World, WorldOptions

    @cache
    def world(size_hw: tuple[int, int], baseline: float) -> World:
        return World(WorldOptions(size_hw=size_hw, max_baseline=baseline, **settings), seed=seed)

    def world_of(index: int, baselines: tuple[float, ...]) -> World:
        rounds, place = divmod(index, len(sizes_hw))
        return world(sizes_hw[place], baselines[rounds % len(baselines)])

    return world_of


def write_clips(
    folder: Path, count: int, render: Callable[[int], Clip | None], first: int = 0, stride: int = 1
) -> None:
    """Write missing clips to FOLDER/clips/NNNNN.npz; several processes may share the folder.

    Clips for which `render` returns None are left out.
    """
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for index in range(first, count, stride):
        file = folder / "clips" / f"{index:05d}.npz"
        if file.exists():
            continue
        clip = render(index)
        if clip is None:
            continue
        with atomic_file(file, overwrite=True) as part:
            np.savez(part, **clip)  # type: ignore[arg-type]
        logger.info("clip %d of %d", index + 1, count)


def images_of(sample: Sample) -> UInt8[np.ndarray, "v h w 3"]:
    """Return the frames of the first scene of a sample, 0..255."""
    scaled = (sample.images[0].permute(0, 2, 3, 1).numpy() * 255 + 0.5).clip(0, 255)
    return np.ascontiguousarray(scaled.astype(np.uint8))


def read_clip(file: Path) -> Clip:
    """Read the arrays of a clip."""
    with np.load(file) as content:
        return {name: content[name] for name in content.files}


def training_clips(
    folder: Path, sized_by: str, read: Callable[[Path], Clip] = read_clip
) -> tuple[Clips, Clips]:
    """Load the clips to train on and the held-out clips; arguments as for `load_clips`.

    Raises InputError if there are no clips to train on.
    """
    clips = load_clips(folder, sized_by, read, held_out=False)
    if not clips:
        raise InputError(f"{folder / 'clips'} has no clips to train on: render some first")
    return clips, load_clips(folder, sized_by, read, held_out=True)


def load_clips(
    folder: Path, sized_by: str, read: Callable[[Path], Clip] = read_clip, *, held_out: bool
) -> Clips:
    """Load the held-out clips or the others.

    sized_by: array (frames, h, w, ...) whose size is that of the frames. read: returns the arrays
    of a file that are kept in memory.
    """
    out: Clips = {}
    for file in sorted((folder / "clips").glob("?????.npz")):
        if (int(file.stem) % HELD_OUT_PERIOD == HELD_OUT_PERIOD - 1) == held_out:
            clip = read(file)
            h, w = clip[sized_by].shape[1:3]
            out.setdefault((h, w), []).append(clip)
    return out


def sample_size(clips: Clips, rng: np.random.Generator) -> list[Clip]:
    """Sample a frame size in proportion to its number of clips, and return these clips."""
    counts = np.array([len(group) for group in clips.values()], float)
    return list(clips.values())[rng.choice(len(clips), p=counts / counts.sum())]


def warm_cosine(step: int, steps: int, warmup: int = 100) -> float:
    """Compute the learning rate over its peak: linear warm-up, and a cosine to 0.01."""
    warm = min(1.0, (step + 1) / warmup)
    wave = 0.5 * (1 + math.cos(math.pi * step / steps))
    return warm * (0.01 + 0.99 * wave)


def write_weights(file: Path, state: dict[str, Tensor]) -> None:
    """Write weights in half precision; an existing file is replaced atomically."""
    from safetensors.torch import save

    content = save({name: value.contiguous().half() for name, value in state.items()})
    write_bytes(file, content, overwrite=True)  # save_file makes files readable by the owner only


def add_part(parser: ArgumentParser) -> None:
    """Add the option --part."""
    parser.add_argument(
        "--part", default="0/1", help="k/m: render every m-th clip from the k-th on, and stop"
    )


def part_of(parser: ArgumentParser, args: Namespace) -> tuple[int, int]:
    """Parse --part to first clip and stride; exits with an error message if it is invalid."""
    part = re.fullmatch(r"(\d+)/(\d+)", args.part)
    first, stride = (int(part[1]), int(part[2])) if part else (0, 0)
    if first >= stride:
        parser.error(f"--part is k/m with k below m, as in 0/2, not {args.part!r:.40}")
    return first, stride
