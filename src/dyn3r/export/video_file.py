"""Frames, depth, motion and confidence side by side as one mp4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dyn3r.export.options import ExportOptions
from dyn3r.scene import Scene
from dyn3r.scene.drawing import Picture, write_video
from dyn3r.scene.pictures import PANELS, find_limits, panels
from dyn3r.types import Progress

UNKNOWN_FPS = 10.0
"""Speed of videos where the scene does not say."""


def write_side_by_side(
    scene: Scene, path: Path, options: ExportOptions, progress: Progress
) -> None:
    """All four panels in one row, at the scene's own speed."""
    write_video(side_by_side(scene, PANELS, progress), path, fps=scene.fps or UNKNOWN_FPS)


def side_by_side(scene: Scene, shown: Sequence[str], progress: Progress) -> Iterator[Picture]:
    """Per frame the panels `shown` (names of `dyn3r.scene.pictures.PANELS`) in one row."""
    limits = find_limits(scene)
    for t in range(len(scene)):
        progress("drawing the video", t, len(scene))
        drawn = dict(zip(PANELS, panels(scene, t, limits)))
        yield np.concatenate([drawn[name] for name in shown], axis=1)
    progress("drawing the video", len(scene), len(scene))
