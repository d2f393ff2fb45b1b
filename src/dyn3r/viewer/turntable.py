"""Screenshots and turntable videos of a scene, rendered in software."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dyn3r.errors import InputError
from dyn3r.io.atomic import check_writable
from dyn3r.io.numbers import check_finite, checked_whole
from dyn3r.scene import Scene
from dyn3r.scene.drawing import write_picture, write_video
from dyn3r.types import Progress, no_progress
from dyn3r.viewer.appearance import Appearance
from dyn3r.viewer.renderer import SceneRenderer, Viewpoint

LARGEST_SIDE = 16_384
"""Largest side of an image that is rendered."""


@dataclass(frozen=True)
class TurntableOptions:
    """Options of a turntable video: the camera orbits the scene while its clip plays.

    Raises:
        InputError: a value out of its range.
    """

    seconds: float = 8.0
    """Length of the video, above 0 and up to 600."""
    fps: float = 24.0
    """Frames per second of the video, above 0 and up to 120."""
    degrees: float = 360.0
    """Angle of the orbit; below 360 the camera swings to both sides and back."""
    size_hw: tuple[int, int] = (480, 854)
    """Height and width of the video in pixels."""
    supersampling: int = 1
    """Factor (1 to 4) by which images are rendered larger and then averaged; 2 is smooth and
    slow."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_finite(self)
        if not (0 < self.seconds <= 600 and 0 < self.fps <= 120):
            raise InputError("a turntable takes 0 to 600 seconds at 0 to 120 frames per second")
        if not 0 < abs(self.degrees) <= 3600 or min(self.size_hw) < 16:
            raise InputError("a turntable turns by up to 3600 degrees, in 16 pixels or more")
        if self.supersampling not in (1, 2, 3, 4):
            raise InputError(f"supersampling is 1, 2, 3 or 4, not {self.supersampling}")


def write_screenshot(
    scene: Scene,
    path: str | Path,
    *,
    frame: int | None = None,
    appearance: Appearance | None = None,
    viewpoint: Viewpoint | None = None,
    size_hw: tuple[int, int] = (720, 1280),
    overwrite: bool = False,
) -> None:
    """Write the page's first view (or another viewpoint) as .png or .jpg, rendered in software.

    frame: None: the middle one, with which the page begins.

    Raises:
        OutputError: `path` exists and `overwrite` is False, or it cannot be written.
        InputError: the scene has no such frame.
    """
    frame = len(scene) // 2 if frame is None else frame
    checked_whole(frame, "the frame", low=0, high=len(scene) - 1)
    for side in size_hw:
        checked_whole(side, "the size of the image in pixels", low=16, high=LARGEST_SIDE)
    check_writable(path, overwrite=overwrite)
    renderer = SceneRenderer(scene, appearance)
    image = renderer.render(frame, viewpoint or renderer.first_view, size_hw)
    write_picture(image, path, overwrite=overwrite)


def write_turntable(
    scene: Scene,
    path: str | Path,
    *,
    appearance: Appearance | None = None,
    viewpoint: Viewpoint | None = None,
    options: TurntableOptions | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> None:
    """Write an mp4 of an orbit, from `viewpoint` (default: the page's first view) on.

    Raises:
        OutputError: `path` exists and `overwrite` is False, or it cannot be written.
    """
    check_writable(path, overwrite=overwrite)
    options = options or TurntableOptions()
    renderer = SceneRenderer(scene, appearance)
    start = viewpoint or renderer.first_view
    images = render_turntable(renderer, start, options, renderer.layout.fps, progress)
    write_video(images, path, fps=float(options.fps), overwrite=overwrite)


def render_turntable(
    renderer: SceneRenderer,
    start: Viewpoint,
    options: TurntableOptions,
    clip_fps: float,
    progress: Progress,
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yield the images of a turntable video in order; the clip plays at `clip_fps`."""
    count = max(1, round(options.seconds * options.fps))
    num_frames = renderer.layout.num_frames
    for k in range(count):
        progress("rendering the turntable", k, count)
        angle = np.radians(turntable_angle_deg(k / count, options.degrees))
        t = int(k / options.fps * clip_fps) % num_frames
        yield renderer.render(
            t, orbit(start, angle), options.size_hw, supersampling=options.supersampling
        )
    progress("rendering the turntable", count, count)


def turntable_angle_deg(share: float, degrees: float) -> float:
    """Angle at a share (0..1) of the video: a full turn, or a swing to both sides and back."""
    if abs(degrees) >= 360:
        return share * degrees
    return 0.5 * degrees * float(np.sin(2 * np.pi * share))


def orbit(viewpoint: Viewpoint, angle_rad: float) -> Viewpoint:
    """Viewpoint after a rotation about the vertical through the point that it looks at."""
    up = viewpoint.up / np.linalg.norm(viewpoint.up)
    arm = viewpoint.position - viewpoint.look_at
    along = (arm @ up) * up
    across = arm - along
    rotated = np.cos(angle_rad) * across + np.sin(angle_rad) * np.cross(up, across) + along
    return replace(viewpoint, position=viewpoint.look_at + rotated)
