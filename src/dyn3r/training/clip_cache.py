"""Clips drawn once and trained on many times, for the small networks beside the large one."""

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

HELD_OUT = 17
"""Every so manieth clip is; a prime, so that all frame sizes are among them."""

BASELINES = (0.1, 0.25, 0.5)
"""Of the world, in turn."""

Clip = dict[str, np.ndarray]
Clips = dict[tuple[int, int], list[Clip]]
"""By frame size."""


def worlds(
    sizes_hw: tuple[tuple[int, int], ...], seed: int, **settings: Any
) -> Callable[[int, tuple[float, ...]], World]:
    """The world that shows the clip of an index, given the baselines to be had: sizes in turn, and
    after each round of them the next baseline. `settings`: the others of `WorldOptions`."""
    from dyn3r.training.synthetic.world import World, WorldOptions

    @cache
    def world(size_hw: tuple[int, int], baseline: float) -> World:
        return World(WorldOptions(size_hw=size_hw, max_baseline=baseline, **settings), seed=seed)

    def world_of(index: int, baselines: tuple[float, ...]) -> World:
        rounds, place = divmod(index, len(sizes_hw))
        return world(sizes_hw[place], baselines[rounds % len(baselines)])

    return world_of


def draw_files(
    folder: Path, count: int, draw: Callable[[int], Clip | None], first: int = 0, stride: int = 1
) -> None:
    """Write FOLDER/clips/NNNNN.npz, those that are not there yet; several processes may share it.

    Clips for which `draw` has nothing are left out.
    """
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for index in range(first, count, stride):
        file = folder / "clips" / f"{index:05d}.npz"
        if file.exists():
            continue
        clip = draw(index)
        if clip is None:
            continue
        with atomic_file(file, overwrite=True) as part:
            np.savez(part, **clip)  # type: ignore[arg-type]
        logger.info("clip %d of %d", index + 1, count)


def pictures_of(sample: Sample) -> UInt8[np.ndarray, "v h w 3"]:
    """The frames of the world's first scene, 0..255."""
    bright = (sample.images[0].permute(0, 2, 3, 1).numpy() * 255 + 0.5).clip(0, 255)
    return np.ascontiguousarray(bright.astype(np.uint8))


def read_clip_file(file: Path) -> Clip:
    """The arrays of a clip."""
    with np.load(file) as content:
        return {name: content[name] for name in content.files}


def clips_for_training(
    folder: Path, sized_by: str, read: Callable[[Path], Clip] = read_clip_file
) -> tuple[Clips, Clips]:
    """Clips to train on, and those held out, as `load_clips` has them.

    Raises InputError if there are none of the former.
    """
    clips = load_clips(folder, False, sized_by, read)
    if not clips:
        raise InputError(f"{folder / 'clips'} holds no clips to train on: draw some first")
    return clips, load_clips(folder, True, sized_by, read)


def any_size(clips: Clips, rng: np.random.Generator) -> list[Clip]:
    """The clips of one size, by chance; sizes with many clips come more often."""
    counts = np.array([len(group) for group in clips.values()], float)
    return list(clips.values())[rng.choice(len(clips), p=counts / counts.sum())]


def warm_cosine(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: 100 steps of warm-up, then down to a hundredth."""
    warm = min(1.0, (step + 1) / 100)
    wave = 0.5 * (1 + math.cos(math.pi * step / steps))
    return warm * (0.01 + 0.99 * wave)


def write_weights(file: Path, state: dict[str, Tensor]) -> None:
    """In half precision, in place of what is there."""
    from safetensors.torch import save

    content = save({name: value.contiguous().half() for name, value in state.items()})
    write_bytes(file, content, overwrite=True)  # save_file's are for the owner's eyes only


def load_clips(
    folder: Path, held_out: bool, sized_by: str, read: Callable[[Path], Clip] = read_clip_file
) -> Clips:
    """Those held out, or the others; `sized_by`: an array (frames, h, w, ...). `read`: what is
    held of a file, if not all of it."""
    out: Clips = {}
    for file in sorted((folder / "clips").glob("?????.npz")):
        if (int(file.stem) % HELD_OUT == HELD_OUT - 1) == held_out:
            clip = read(file)
            h, w = clip[sized_by].shape[1:3]
            out.setdefault((h, w), []).append(clip)
    return out


def add_part(parser: ArgumentParser) -> None:
    """The option --part."""
    parser.add_argument("--part", default="0/1", help="k/m: draw every m-th clip only, and stop")


def part_of(parser: ArgumentParser, args: Namespace) -> tuple[int, int]:
    """First clip and stride by --part; ends the program where it is nonsense."""
    part = re.fullmatch(r"(\d+)/(\d+)", args.part)
    first, stride = (int(part[1]), int(part[2])) if part else (0, 0)
    if first >= stride:
        parser.error(f"--part is k/m with k below m, as in 0/2, not {args.part!r:.40}")
    return first, stride
