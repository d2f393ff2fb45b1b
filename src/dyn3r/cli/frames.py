"""Which frames of a source a command reads, and the line that says so before the work begins."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dyn3r.errors import InputError
from dyn3r.io.text import counted

if TYPE_CHECKING:
    from dyn3r.network.model import Model
    from dyn3r.options import Options
    from dyn3r.scene import Scene
    from dyn3r.types import Clip

DEFAULT_FRAMES = 90
"""Frames of a longer source that are used unless other ones are asked for. Source: they take
minutes on a laptop."""
FLOW_PAIRS_PER_FRAME = 18.0
"""Time of all stages but the network for a frame, in units of the time that flow takes for a pair.
Source: measured on four clips of 12 to 48 frames, 11 to 28 with writing (docs/experiments.md)."""


@dataclass(frozen=True)
class FrameOptions:
    """What was asked for."""

    fps: float
    num_frames: int | None
    start: float
    end: float | None
    every: int | None
    all_frames: bool

    def check(self) -> None:
        """Raise InputError for options that contradict each other."""
        from dyn3r.io.clip import check_sampling

        check_sampling(self.fps, self.num_frames, self.start, end=self.end)
        if self.every is not None and self.every < 1:
            raise InputError("--every must be 1 or larger")
        given = {
            "--fps": self.fps > 0, "--every": self.every is not None,
            "--all-frames": self.all_frames,
        }  # fmt: skip
        names = [name for name, was in given.items() if was]
        if len(names) > 1:
            raise InputError(f"{names[0]} and {names[1]} both say which frames: give one of them")
        if self.all_frames and self.num_frames is not None:
            raise InputError("--all-frames can't be combined with --num-frames")


@dataclass(frozen=True)
class FramePlan:
    """Arguments of `read_clip`, and how many frames there were to choose from."""

    arguments: dict[str, Any]
    available: int | None
    """Between start and end; None: the file does not say."""
    rate: float
    """Frames per second of the source."""

    def line(self, source: Path, kept: int, seconds: float | None, windows: str = "") -> str:
        """What is used, and how long it will take. `windows`: how a long clip is divided."""
        took = windows + ("" if seconds is None else f"; about {duration(seconds)}")
        if self.available is None or self.available <= kept:
            return f"{source.name} has {counted(kept, 'frame')}: using all{took}"
        length = f" ({self.available / self.rate:.3g} s)"
        text = f"{source.name} has {counted(self.available, 'frame')}{length}: using {kept}"
        step = self.arguments["every"]  # frames may also be missing: unreadable, or of other shots
        if step > 1:
            text += f", one every {round(step)}" if step >= 1.5 else ", evenly spread"
        return text + took


def plan_frames(source: Path, asked: FrameOptions, earlier: Scene | None = None) -> FramePlan:
    """Choose frames: those asked for, else all up to DEFAULT_FRAMES, evenly spread.

    A number alone is spread over the source; with a rate or a step it is a limit. `earlier`: a
    scene that is continued, whose spacing is kept. Raises InputError for options that contradict
    each other, and for a source that cannot be opened.
    """
    from dyn3r.io.source_length import source_length, spread_over

    asked.check()
    length = source_length(source, asked.fps if source.is_dir() else 0.0)
    available = length.between(asked.start, asked.end)
    every: float = asked.every or 1
    free = asked.every is None and not asked.all_frames and (asked.fps == 0 or source.is_dir())
    if free and earlier is not None and asked.num_frames is None:
        every = _spacing(earlier, length.rate)
    elif free and available is not None and asked.num_frames is not None:
        every = spread_over(available, asked.num_frames)
    elif free and available is not None and asked.num_frames is None:
        every = -(-available // DEFAULT_FRAMES) if available > DEFAULT_FRAMES else 1
    arguments = {
        "fps": asked.fps, "num_frames": asked.num_frames, "start": asked.start, "end": asked.end,
        "every": every,
    }  # fmt: skip
    return FramePlan(arguments, available, length.rate)


def _spacing(earlier: Scene, rate: float) -> float:
    """Frames of the source from one frame of a scene to the next."""
    import numpy as np

    if len(earlier) < 2:
        return 1
    return max(1, round(float(np.median(np.diff(earlier.times_s))) * rate))


def expected_seconds(clip: Clip, model: Model, options: Options) -> float | None:
    """Seconds that a reconstruction will take, from the speed of this machine; None: unknown.

    The network is timed on one pair of frames, optical flow on another. Many-view networks are not
    predicted: their time grows with the square of the frames.
    """
    from dyn3r.flow import flow_estimator, measure_flow
    from dyn3r.network.pair_graph import make_pairs
    from dyn3r.network.predict import encode_frames, predict_pairs
    from dyn3r.options import resolve, windows_of

    if model.is_many_view or len(clip) < 2:
        return None
    import numpy as np

    plan = resolve(options, model, clip, motion_model=None, masks_given=False)
    first = clip.part(np.arange(2))
    edges = np.array([[0, 1], [1, 0]])

    def network() -> None:
        predict_pairs(model, first, edges, None, tokens=encode_frames(model, first))

    def flow() -> None:
        measure_flow(first.images, edges, flow_estimator(plan.flow_estimator))

    passes = 2 if plan.second_pass else 1
    seconds = passes * len(make_pairs(plan.pairs, len(clip))) * _timed(network) / len(edges)
    if plan.measure_flow:
        others = FLOW_PAIRS_PER_FRAME if plan.bundle_adjustment else FLOW_PAIRS_PER_FRAME / 3
        seconds += others * len(clip) * _timed(flow)
    windows = windows_of(options, model, clip)
    return seconds if windows is None else seconds * windows.computed / len(clip)


def _timed(work: Any, slow: float = 0.5) -> float:
    """Seconds that a call takes; if it is quick, those of a second one, without the set-up."""
    for _ in range(2):
        began = time.monotonic()
        work()
        seconds = time.monotonic() - began
        if seconds > slow:
            break
    return seconds


def duration(seconds: float) -> str:
    """A rough duration in words: 20 s, 4 min, 2.5 h."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
