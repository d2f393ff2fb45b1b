"""What the app asks of a reconstruction, the plan for it, and its scene."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from dyn3r.cli.app.uploads import Source
from dyn3r.cli.overall import PREVIEW, WRITING, Overall
from dyn3r.cli.watch import RunWatcher
from dyn3r.errors import InputError
from dyn3r.io.text import counted
from dyn3r.network.model import Model
from dyn3r.options import Options
from dyn3r.scene import Scene
from dyn3r.types import Clip, Priors, Progress, RunContext

SECONDS_PER_FRAME = 3.5
"""Seconds per frame of 224x160 pixels, before a run has been measured. Source: the demo clip on two
cores."""
_REFERENCE_SIZE = 224


@dataclass(frozen=True)
class Request:
    """A clip and the options of its reconstruction."""

    source: Source
    """The clip."""
    num_frames: int = 48
    """Largest number of frames; those of a video are spread over all of it."""
    size: int = 224
    """Long side of the frames in pixels."""
    fov_deg: float | None = None
    """Horizontal field of view, if it is known."""
    cameras: Path | None = None
    """File of known cameras."""
    model: str = ""
    """Name of the model; empty: the one that the app was started with."""
    options: Options = field(default_factory=Options)
    """Options of the method."""
    masks: Bool[np.ndarray, "n h w"] | None = None
    """Masks of moving objects of the prepared frames, if they are known."""

    @property
    def step(self) -> int:
        """Every how many-th frame of the video is kept."""
        if self.source.fps <= 0:
            return 1
        return max(1, math.ceil(self.source.num_frames / self.num_frames))

    @property
    def kept(self) -> int:
        """Number of frames that are kept."""
        return min(self.num_frames, math.ceil(self.source.num_frames / self.step))

    def expected_s(self, seconds_per_frame: float) -> float:
        """Expected seconds; `seconds_per_frame`: of the reference size."""
        return seconds_per_frame * self.kept * (self.size / _REFERENCE_SIZE) ** 2

    def plan(self, seconds_per_frame: float) -> str:
        """One line: how many frames, and how long it takes."""
        seconds = self.expected_s(seconds_per_frame)
        time = f"{max(10, 10 * round(seconds / 10))} s" if seconds < 90 else (
            f"{round(seconds / 60)} min"
        )  # fmt: skip
        return f"{self.kept} of {counted(self.source.num_frames, 'frame')}, about {time}"


def reconstruct_request(
    request: Request, model: Model, progress: Progress, watcher: RunWatcher,
    expected_s: float | None = None,
) -> Scene:  # fmt: skip
    """The scene of a request; `watcher` shows a rough one first, from feed-forward mode.

    `progress.overall`, if there is one, is told how far the whole is; `expected_s`: what it takes.

    Raises:
        InputError, GeometryError: as `dyn3r.pipeline.reconstruct`.
    """
    from dyn3r.io.camera_files import known_field_of_view
    from dyn3r.io.clip import read_clip
    from dyn3r.pipeline import reconstruct
    from dyn3r.scene.known_cameras import known_cameras

    source = request.source
    rough = request.masks is None and not model.is_many_view
    overall = Overall(progress, expected_s, without=(WRITING,) if rough else (PREVIEW, WRITING))
    clip = read_clip(
        source.path, fps=source.fps / request.step if request.step > 1 else 0.0,
        num_frames=request.num_frames, size=request.size, fit=model.fit(), progress=overall,
    )  # fmt: skip
    priors = Priors()
    if request.cameras is not None:
        try:
            clip, priors = known_cameras(request.cameras, clip)
        except InputError as problem:  # paths of this machine are nobody's business
            path = request.cameras
            raise InputError(str(problem).replace(str(path), path.name)) from None
    watcher.start(clip)
    if rough and len(clip) > 1:
        watcher.show_scene(rough_scene(clip, model, overall, watcher.add_depth))
    if request.fov_deg is not None:
        if priors.K is not None:
            raise InputError("the cameras have the field of view: leave one of the two out")
        priors = replace(priors, K=known_field_of_view(request.fov_deg, clip).K, fix_K=True)
    options = replace(request.options, priors=priors)

    def observe(name: str, value: object) -> None:
        overall.observe(name, value)
        watcher(name, value)

    context = RunContext(overall, observe, overall.stage)
    scene = reconstruct(clip, model, options, masks=request.masks, context=context)
    return replace(scene, metadata={**scene.metadata, "source": source.name})


def rough_scene(
    clip: Clip, model: Model, progress: Progress, show_depth: Callable[[int, np.ndarray], None]
) -> Scene:
    """Scene of feed-forward mode: a network pass per frame, no refinement.

    `show_depth` gets index and depth (h,w) of each frame as it is found.
    """
    from dyn3r.scene.frame_results import FrameResult
    from dyn3r.streaming import StreamOptions, scene_from_frames, stream_scene

    results: list[FrameResult] = []
    for result in stream_scene(clip, model, StreamOptions(reference="middle")):
        show_depth(len(results), result.depth)
        results.append(result)
        progress("preview", len(results), len(clip))
    return scene_from_frames(results, fps=clip.fps)
