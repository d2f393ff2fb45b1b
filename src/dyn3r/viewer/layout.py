"""What the viewer shows besides points, decided in plain NumPy: cameras, first view, captions.

Nothing here knows about a browser, so all of it is testable; `stage` puts it on a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from dyn3r.scene import Scene
from dyn3r.scene.upright import FirstView, Upright, find_up, first_view

THUMBNAIL_PIXELS = 256
MAX_PYRAMIDS = 40


@dataclass(frozen=True)
class PlaybackPlan:
    """Everything about a scene that is shown and does not depend on a setting."""

    num_frames: int
    fps: float
    """Frames per second at speed 1; 10 where the scene does not know."""
    captions: tuple[str, ...]
    """One line a frame: name and time."""
    upright: Upright
    first_view: FirstView
    unit: float
    """The scene's natural length (median depth), which sizes are fractions of."""
    point_size: float
    """World size of a point that closes the gaps between neighbours at the median depth."""
    T_world_camera: Float[np.ndarray, "n 4 4"]
    fov_y_rad: Float[np.ndarray, " n"]
    """Vertical field of view of every frame."""
    aspect: float
    """Width over height."""
    thumbnails: tuple[UInt8[np.ndarray, "_ _ 3"], ...]
    """Small frames for the camera's picture plane."""


def plan_playback(scene: Scene) -> PlaybackPlan:
    """Decide all that does not depend on a setting."""
    h, w = scene.size_hw
    upright = find_up(scene)
    unit = scene.median_depth
    scale = min(1.0, THUMBNAIL_PIXELS / max(h, w))
    small = (max(1, round(w * scale)), max(1, round(h * scale)))
    return PlaybackPlan(
        num_frames=len(scene),
        fps=scene.fps or 10.0,
        captions=tuple(f"{name} at {time:.2f} s" for name, time in zip(scene.names, scene.times_s)),
        upright=upright,
        first_view=first_view(scene, upright.up_world),
        unit=unit,
        point_size=2.0 * unit / float(np.median(scene.K[:, 0, 0])),
        T_world_camera=scene.T_world_camera,
        fov_y_rad=2 * np.arctan(h / 2 / scene.K[:, 1, 1]),
        aspect=w / h,
        thumbnails=tuple(
            np.asarray(Image.fromarray(image).resize(small, Image.Resampling.BOX))
            for image in scene.images
        ),
    )


def camera_path_segments(plan: PlaybackPlan) -> Float[np.ndarray, "k 2 3"]:
    """Line segments between successive camera centres."""
    centres = plan.T_world_camera[:, :3, 3]
    return np.stack([centres[:-1], centres[1:]], axis=1)


def camera_segments(plan: PlaybackPlan, frames: Sequence[int]) -> Float[np.ndarray, "k 2 3"]:
    """Eight line segments for each of these cameras: a small pyramid."""
    depth = 0.05 * plan.unit
    segments = []
    for t in frames:
        y = depth * np.tan(plan.fov_y_rad[t] / 2)
        x = y * plan.aspect
        corners = np.array([[-x, -y, depth], [x, -y, depth], [x, y, depth], [-x, y, depth]])
        edges = [(np.zeros(3), corner) for corner in corners]
        edges += list(zip(corners, np.roll(corners, -1, axis=0)))
        R, centre = plan.T_world_camera[t, :3, :3], plan.T_world_camera[t, :3, 3]
        segments.append(np.array(edges) @ R.T + centre)
    return np.concatenate(segments)
