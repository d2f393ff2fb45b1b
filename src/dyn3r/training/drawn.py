"""Clips drawn once and trained on many times, for the small networks beside the large one."""

from __future__ import annotations

import logging
import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

HELD_OUT = 17
"""Every so manieth clip is; a prime, so that all frame sizes are among them."""

Clip = dict[str, np.ndarray]
Clips = dict[tuple[int, int], list[Clip]]
"""By frame size."""


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
        temporary = file.with_suffix(".tmp.npz")
        np.savez(temporary, **clip)  # type: ignore[arg-type]
        os.replace(temporary, file)
        logger.info("clip %d of %d", index + 1, count)


def load_clips(folder: Path, held_out: bool, sized_by: str) -> Clips:
    """Those held out, or the others; `sized_by`: an array (frames, h, w, ...)."""
    out: Clips = {}
    for file in sorted((folder / "clips").glob("?????.npz")):
        if (int(file.stem) % HELD_OUT == HELD_OUT - 1) == held_out:
            with np.load(file) as content:
                clip = {name: content[name] for name in content.files}
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
