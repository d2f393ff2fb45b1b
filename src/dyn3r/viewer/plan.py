"""What the viewer shows, decided in plain numpy: clouds, cameras, the first view, the clock.

Nothing here knows about a browser, so all of it is testable; `stage` puts it on a page.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from dyn3r.background import depth_edges
from dyn3r.scene import PointCloud, Scene
from dyn3r.upright import FirstView, Upright, find_up, first_view

MAX_BACKGROUND = 400_000
MAX_MOVING = 2_000_000
MAX_MOVING_PER_FRAME = 60_000
THUMBNAIL_PIXELS = 256


@dataclass(frozen=True)
class Clouds:
    """The points to show at one confidence setting."""

    background: PointCloud
    """Static points of all frames together."""
    moving: tuple[PointCloud, ...]
    """Moving points, one cloud a frame."""


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


def plan_clouds(scene: Scene, *, drop: float = 0.2, hide_edges: bool = True) -> Clouds:
    """The points to show when the share `drop` (0..1) of least confident pixels is left out.

    `hide_edges` also leaves out pixels at jumps of depth, which hang between near and far.
    """
    threshold = scene.confidence_threshold(drop)

    def keep(t: int) -> Bool[np.ndarray, "h w"]:
        if not hide_edges:
            return np.ones(scene.size_hw, dtype=bool)
        return ~depth_edges(scene.depth[t])

    budget = max(1, min(MAX_MOVING_PER_FRAME, MAX_MOVING // len(scene)))
    moving = []
    for t in range(len(scene)):
        # A mover is cut by its own outline only: a limb in front of the body is no reason.
        chosen = scene.select(t, min_confidence=threshold, which="dynamic") & keep(t)
        moving.append(scene.points_of(t, _thin(chosen, budget)))
    background = scene.static_points(min_confidence=threshold, max_points=MAX_BACKGROUND, keep=keep)
    return Clouds(background, tuple(moving))


def camera_path_segments(plan: PlaybackPlan) -> Float[np.ndarray, "k 2 3"]:
    """Line segments between successive camera centres."""
    centres = plan.T_world_camera[:, :3, 3]
    return np.stack([centres[:-1], centres[1:]], axis=1)


def camera_segments(plan: PlaybackPlan, every: int) -> Float[np.ndarray, "k 2 3"]:
    """Eight line segments for each `every`-th camera: a small pyramid."""
    depth = 0.05 * plan.unit
    segments = []
    for t in range(0, plan.num_frames, every):
        y = depth * np.tan(plan.fov_y_rad[t] / 2)
        x = y * plan.aspect
        corners = np.array([[-x, -y, depth], [x, -y, depth], [x, y, depth], [-x, y, depth]])
        edges = [(np.zeros(3), corner) for corner in corners]
        edges += list(zip(corners, np.roll(corners, -1, axis=0)))
        R, centre = plan.T_world_camera[t, :3, :3], plan.T_world_camera[t, :3, 3]
        segments.append(np.array(edges) @ R.T + centre)
    return np.concatenate(segments)


@dataclass
class Clock:
    """Which frame is shown while time passes. Not thread-safe."""

    num_frames: int
    fps: float
    speed: float = 1.0
    loop: bool = True
    playing: bool = False
    position: float = 0.0
    """Frame and share of the way to the next one, in [0, num_frames)."""

    @property
    def frame(self) -> int:
        """The frame to show."""
        return min(int(self.position), self.num_frames - 1)

    @property
    def frame_seconds(self) -> float:
        """How long a frame is shown at the present speed."""
        return 1.0 / (self.fps * self.speed)

    def seek(self, frame: int) -> None:
        """Show this frame (cut to those there are)."""
        self.position = float(min(max(frame, 0), self.num_frames - 1))

    def step(self, by: int) -> None:
        """Stop, and show the frame `by` further on, around the ends."""
        self.playing = False
        self.position = float((self.frame + by) % self.num_frames)

    def play(self) -> None:
        """Go on, from the start if the end was reached without looping."""
        if not self.loop and self.frame == self.num_frames - 1:
            self.position = 0.0
        self.playing = True

    def advance(self, seconds: float) -> None:
        """Let time pass. Frames are skipped rather than shown late."""
        if not self.playing:
            return
        self.position += seconds * self.fps * self.speed
        if self.position >= self.num_frames:
            if self.loop:
                self.position %= self.num_frames
            else:
                self.position, self.playing = float(self.num_frames - 1), False


def _thin(chosen: Bool[np.ndarray, "h w"], budget: int) -> Bool[np.ndarray, "h w"]:
    """At most `budget` of the True pixels, by a fixed random choice."""
    indices = np.flatnonzero(chosen)
    if len(indices) <= budget:
        return chosen
    out = np.zeros(chosen.size, dtype=bool)
    out[np.random.default_rng(0).choice(indices, budget, replace=False)] = True
    return out.reshape(chosen.shape)
