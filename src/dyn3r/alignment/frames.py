"""Work on every frame of the alignment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from dyn3r.io.workers import ordered_map

Result = TypeVar("Result")


def frames_side_by_side(
    function: Callable[[int], Result], num_frames: int, device: torch.device | str
) -> Iterator[Result]:
    """Results for all frames in order; on a CPU several at once, on the threads of this process."""
    count = None if torch.device(device).type == "cpu" else 1
    return ordered_map(function, range(num_frames), count)
