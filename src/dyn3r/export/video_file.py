"""Video of frames, depth, motion and confidence side by side, as mp4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dyn3r.export.options import ExportOptions
from dyn3r.scene import Scene
from dyn3r.scene.drawing import write_video
from dyn3r.scene.pictures import PANELS, find_limits, panels
from dyn3r.types import Progress

DEFAULT_FPS = 10.0
"""Frames per second of scenes without a frame rate."""


def write_side_by_side(
    scene: Scene,
    path: Path,
    _options: ExportOptions,
    progress: Progress,
) -> None:
    """Write all four panels in one row, at the scene's frame rate."""
    write_video(side_by_side(scene, PANELS, progress), path, fps=scene.fps or DEFAULT_FPS)


def side_by_side(
    scene: Scene, names: Sequence[str], progress: Progress
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yield the panels `names` (of `dyn3r.scene.pictures.PANELS`) of each frame in one row."""
    limits = find_limits(scene)
    for t in range(len(scene)):
        progress("rendering the video", t, len(scene))
        by_name = dict(zip(PANELS, panels(scene, t, limits)))
        yield np.concatenate([by_name[name] for name in names], axis=1)
    progress("rendering the video", len(scene), len(scene))
