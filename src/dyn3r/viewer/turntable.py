"""Pictures and videos of a scene seen from outside, drawn in software."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dyn3r.errors import InputError
from dyn3r.io.atomic import check_writable
from dyn3r.scene import Scene
from dyn3r.scene.drawing import Picture, write_picture, write_video
from dyn3r.types import Progress, no_progress
from dyn3r.viewer.appearance import Look
from dyn3r.viewer.splat import Painter, View


@dataclass(frozen=True)
class TurntableOptions:
    """How a turn around a scene is filmed, while its clip plays."""

    seconds: float = 8.0
    """Length of the video."""
    fps: float = 24.0
    """Frames per second of the video."""
    degrees: float = 360.0
    """How far the camera goes; less than 360: there and back again."""
    size_hw: tuple[int, int] = (480, 854)
    """Height and width of the video in pixels."""
    finer: int = 1
    """Pictures are drawn this many times as large and averaged down; 2 is smooth and slow."""

    def __post_init__(self) -> None:
        if not (0 < self.seconds <= 600 and 0 < self.fps <= 120 and self.finer in (1, 2, 3, 4)):
            raise InputError("a turntable takes 0..600 seconds at 0..120 frames a second")
        if not 0 < abs(self.degrees) <= 3600 or min(self.size_hw) < 16:
            raise InputError("a turntable turns by 0..3600 degrees, in pictures of 16 pixels up")


def write_screenshot(
    scene: Scene,
    path: str | Path,
    *,
    frame: int = 0,
    look: Look | None = None,
    view: View | None = None,
    size_hw: tuple[int, int] = (720, 1280),
    overwrite: bool = False,
) -> None:
    """The first view of the page (or another) as .png or .jpg, drawn in software.

    Raises:
        OutputError: `path` exists and `overwrite` is False, or can't be written.
        InputError: there is no such frame.
    """
    if not 0 <= frame < len(scene):
        raise InputError(f"there is no frame {frame}: the scene has 0 to {len(scene) - 1}")
    check_writable(path, overwrite=overwrite)
    painter = Painter(scene, look)
    picture = painter.picture(frame, view or painter.first_view, size_hw)
    write_picture(picture, path, overwrite=overwrite)


def write_turntable(
    scene: Scene,
    path: str | Path,
    *,
    look: Look | None = None,
    view: View | None = None,
    options: TurntableOptions | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> None:
    """A turn around what `view` (the page's first view) looks at, while the clip plays, as mp4.

    Raises:
        OutputError: `path` exists and `overwrite` is False, or can't be written.
    """
    check_writable(path, overwrite=overwrite)
    options = options or TurntableOptions()
    painter = Painter(scene, look)
    start = view or painter.first_view
    frames = turntable_pictures(painter, start, options, scene.fps or 10.0, progress)
    write_video(frames, path, fps=options.fps, overwrite=overwrite)


def turntable_pictures(
    painter: Painter, start: View, options: TurntableOptions, clip_fps: float, progress: Progress
) -> Iterator[Picture]:
    """The pictures of `write_turntable`, one after the other."""
    count = max(1, round(options.seconds * options.fps))
    n = painter.plan.num_frames
    for k in range(count):
        progress("drawing the turntable", k, count)
        view = turned(start, np.radians(turntable_angle(k / count, options.degrees)))
        t = int(k / options.fps * clip_fps) % n
        yield painter.picture(t, view, options.size_hw, finer=options.finer)
    progress("drawing the turntable", count, count)


def turntable_angle(share: float, degrees: float) -> float:
    """Degrees at this share (0..1) of the video: all around, or to both sides and back."""
    if abs(degrees) >= 360:
        return share * degrees
    return 0.5 * degrees * float(np.sin(2 * np.pi * share))


def turned(view: View, angle_rad: float) -> View:
    """The view after a walk around the vertical through the point that it looks at."""
    up = view.up / np.linalg.norm(view.up)
    arm = view.position - view.look_at
    along = (arm @ up) * up
    across = arm - along
    rotated = np.cos(angle_rad) * across + np.sin(angle_rad) * np.cross(up, across) + along
    return replace(view, position=view.look_at + rotated)
