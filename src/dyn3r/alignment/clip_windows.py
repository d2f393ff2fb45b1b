"""Windows of a long clip that are reconstructed one after the other: how many, and how long.

All stages work on one window at a time, so time is linear in the number of frames and memory does
not grow, but for the result itself. How windows are joined: `dyn3r.scene.windows`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dyn3r.errors import InputError
from dyn3r.io.numbers import checked_number, checked_whole
from dyn3r.types import Priors

LARGEST_WINDOW = 95
"""Frames of a window unless memory allows fewer; clips of up to so many are one window. Source: the
published pair graph is narrower above 95 frames (SPEC 3)."""
SMALLEST_WINDOW = 24
"""Frames of a window at least, whatever memory there is. Source: shorter ones have hardly any
frame with all its pairs."""
PROGRAM_GB = 0.5
"""Memory without any frame, but for the network's parameters. Source: docs/speed.md."""
FRAME_BYTES_PER_PIXEL = 240
"""Memory that grows with the frames of a window, with the default pairs. Source: docs/speed.md."""
RESULT_BYTES_PER_PIXEL = 17
"""Memory of the result: image, depth, confidence, uncertainty, mask; and its check."""
EVEN = 1.15
"""Factor on the memory that is expected, for clips that need more. Source: chosen by hand."""


@dataclass(frozen=True)
class WindowOptions:
    """Windows of a long clip that go through all stages one after the other, and are joined."""

    frames: int | None = None
    """Frames of a window. Default: 95, fewer where memory is short. 0: all frames in one window.
    Larger: less drift, more memory."""
    overlap: int = 10
    """Frames that a window shares with the next; they join the two. Larger: less drift, and they
    are computed twice."""
    memory_gb: float = 4.0
    """Memory in GB that a run may take, at any length of the clip; it decides how long windows are
    where `frames` does not."""

    def __post_init__(self) -> None:
        """Check every value. Raises InputError for one out of range."""
        if self.frames is not None:
            checked_whole(self.frames, "windows.frames", low=0, high=10**6)
        checked_whole(self.overlap, "windows.overlap", low=2, high=10**6)
        checked_number(self.memory_gb, "windows.memory_gb", low=0.1, high=1e6)
        if self.frames and self.frames < 2 * self.overlap:
            raise InputError(
                f"windows of {self.frames} frames can't share {self.overlap} with the window "
                "before and as many with the next: give longer windows or a smaller overlap"
            )


@dataclass(frozen=True)
class WindowPlan:
    """Windows of a clip."""

    spans: tuple[tuple[int, int], ...]
    """First frame and end of each."""
    memory_gb: float
    """Memory that the run is expected to take."""

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def longest(self) -> int:
        """Frames of the longest window."""
        return max(end - first for first, end in self.spans)

    @property
    def computed(self) -> int:
        """Frames of all windows; shared ones count twice."""
        return sum(end - first for first, end in self.spans)

    @property
    def owned(self) -> list[tuple[int, int]]:
        """First frame and end of what each window contributes: the frames nearest to its middle."""
        return kept_frames(self.spans, self.spans[-1][1])


def expected_gb(
    window: int, num_frames: int, size_hw: tuple[int, int], parameter_bytes: float
) -> float:
    """Memory in GB of a run with windows of so many frames, of a clip of `num_frames`."""
    pixels = math.prod(size_hw)
    frames = window * FRAME_BYTES_PER_PIXEL + num_frames * RESULT_BYTES_PER_PIXEL
    return PROGRAM_GB + (parameter_bytes + EVEN * pixels * frames) / 1e9


def plan_windows(
    num_frames: int,
    size_hw: tuple[int, int],
    options: WindowOptions,
    *,
    parameter_bytes: float = 0.0,
    largest: int = LARGEST_WINDOW,
) -> WindowPlan | None:
    """Windows of a clip; None if all its frames are one window.

    `parameter_bytes`: memory of the networks. `largest`: frames of a window if there is memory. All
    windows have the same length up to one frame and share `options.overlap` frames with the next.
    """
    size = options.frames
    if size is None:
        alone = expected_gb(0, num_frames, size_hw, parameter_bytes)
        each = expected_gb(1, num_frames, size_hw, parameter_bytes) - alone
        affordable = int((options.memory_gb - alone) / each)
        least = max(SMALLEST_WINDOW, 2 * options.overlap)
        size = max(least, min(largest, affordable))
    if size == 0 or num_frames <= size:
        return None
    spans = tuple(window_spans(num_frames, size, options.overlap))
    longest = max(end - first for first, end in spans)
    return WindowPlan(spans, expected_gb(longest, num_frames, size_hw, parameter_bytes))


def window_spans(num_frames: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """First frame and end of every window: at most `size` frames, `overlap` of them shared."""
    if num_frames <= size:
        return [(0, num_frames)]
    count = math.ceil((num_frames - overlap) / (size - overlap))
    firsts = [k * (num_frames - overlap) // count for k in range(count + 1)]
    return [(a, b + overlap) for a, b in itertools.pairwise(firsts)]


def kept_frames(windows: Sequence[tuple[int, int]], num_frames: int) -> list[tuple[int, int]]:
    """First frame and end of what each window contributes.

    One window takes over from the one before in the middle of what they share.
    """
    middle = [(later[0] + earlier[1]) // 2 for earlier, later in itertools.pairwise(windows)]
    return list(zip([0, *middle], [*middle, num_frames]))


def can_be_windowed(priors: Priors, plan: WindowPlan) -> bool:
    """Whether windows leave known cameras and depth in place.

    They do where nothing is known, where all cameras are known and kept, and where what is known
    is of frames of the first window alone, whose world is that of the clip.
    """
    if priors.fixes_all_cameras:
        return True
    end = plan.spans[1][0]
    cameras, depth = priors.T_world_camera, priors.depth
    rest = [value[end:] for value in (cameras, depth) if value is not None]
    return not any(bool(np.isfinite(value).any()) for value in rest)
