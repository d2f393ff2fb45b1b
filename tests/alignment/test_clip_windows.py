"""Windows of long clips: which frames, how many, how much memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dyn3r.alignment.clip_windows import (
    LARGEST_WINDOW,
    SMALLEST_WINDOW,
    WindowOptions,
    can_be_windowed,
    expected_gb,
    plan_windows,
    window_spans,
)
from dyn3r.errors import InputError
from dyn3r.types import Priors

HW = (112, 224)


@pytest.mark.parametrize(("n", "size", "overlap"), [(96, 95, 10), (1000, 95, 10), (25, 12, 5)])
def test_windows_cover_the_clip_with_one_overlap_and_even_lengths(
    n: int, size: int, overlap: int
) -> None:
    spans = window_spans(n, size, overlap)
    lengths = [end - first for first, end in spans]
    assert (spans[0][0], spans[-1][1]) == (0, n)
    assert [a[1] - b[0] for a, b in itertools.pairwise(spans)] == [overlap] * (len(spans) - 1)
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1
    # one window fewer would need longer ones
    assert (len(spans) - 1) * (size - overlap) + overlap < n


def test_each_frame_belongs_to_the_window_in_which_it_is_most_central() -> None:
    plan = plan_windows(100, HW, WindowOptions(frames=40, overlap=10))
    assert plan is not None
    owner = np.concatenate([[k] * (b - a) for k, (a, b) in enumerate(plan.owned)])
    assert len(owner) == 100
    middles = np.array([(a + b - 1) / 2 for a, b in plan.spans])
    nearest = np.abs(np.arange(100)[:, None] - middles).min(1)
    assert (np.abs(np.arange(100) - middles[owner]) <= nearest + 1).all()
    assert plan.computed == 100 + 10 * (len(plan) - 1)


def test_clips_that_fit_are_not_divided() -> None:
    assert plan_windows(LARGEST_WINDOW, HW, WindowOptions()) is None
    assert plan_windows(900, HW, WindowOptions(frames=0)) is None
    assert plan_windows(300, HW, WindowOptions(), largest=10**6) is None
    plan = plan_windows(LARGEST_WINDOW + 1, HW, WindowOptions())
    assert plan is not None
    assert len(plan) == 2


def test_memory_decides_the_length_of_windows() -> None:
    small = WindowOptions(memory_gb=0.85)
    plan = plan_windows(60, HW, small)
    assert plan is not None
    assert plan.memory_gb <= 0.85
    assert plan.memory_gb == expected_gb(plan.longest, 60, HW, 0.0)
    larger = plan_windows(900, (512, 512), WindowOptions())
    assert larger is not None
    assert larger.longest < LARGEST_WINDOW
    # of memory that nothing fits in, windows stay as long as they must be
    least = plan_windows(900, HW, WindowOptions(memory_gb=0.1))
    assert least is not None
    assert SMALLEST_WINDOW - 2 <= least.longest <= SMALLEST_WINDOW
    assert least.memory_gb > 0.1


def test_a_larger_network_leaves_less_for_frames() -> None:
    options = WindowOptions(memory_gb=2.0)
    without = plan_windows(400, HW, options)
    with_large = plan_windows(400, HW, options, parameter_bytes=1.2e9)
    assert without is not None
    assert with_large is not None
    assert with_large.longest < without.longest


@pytest.mark.parametrize(
    "values",
    [
        {"frames": -1},
        {"frames": 12, "overlap": 7},
        {"overlap": 1},
        {"memory_gb": 0.0},
        {"memory_gb": float("nan")},
    ],
)
def test_values_out_of_range_are_refused(values: dict) -> None:
    with pytest.raises(InputError):
        WindowOptions(**values)


def test_known_values_after_the_first_window_forbid_windows() -> None:
    plan = plan_windows(30, HW, WindowOptions(frames=12, overlap=4))
    assert plan is not None
    T = np.full((30, 4, 4), np.nan)
    T[:3] = np.eye(4)
    assert can_be_windowed(Priors(), plan)
    assert can_be_windowed(Priors(T_world_camera=T), plan)
    T[9] = np.eye(4)  # shared with the second window
    assert not can_be_windowed(Priors(T_world_camera=T), plan)
    everything = Priors(T_world_camera=np.tile(np.eye(4), (30, 1, 1)))
    assert can_be_windowed(everything, plan)
