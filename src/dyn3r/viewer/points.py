"""Which pixels of a scene are shown as points, and the points ready to be sent. Plain NumPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, UInt8

from dyn3r.scene import Scene
from dyn3r.scene.background import choose_static, depth_edges, grow, on_grid
from dyn3r.scene.drawing import confidence_picture, depth_picture, motion_picture
from dyn3r.scene.pictures import Limits, find_limits
from dyn3r.viewer.appearance import Look
from dyn3r.viewer.packing import Packed, pack

MAX_BACKGROUND = 400_000
MAX_MOVING = 2_000_000
MAX_MOVING_PER_FRAME = 60_000
MAX_CHUNKS = 64
_RIM = 2
"""Pixels around movers that are left out of the background: it would smear along their path."""

Pixels = tuple[Int[np.ndarray, " k"], ...]
"""Row-major pixel indices, ascending, one array for each frame."""


class Changed(NamedTuple):
    """What a new look touched."""

    background: bool
    moving: bool


class ScenePoints:
    """The points of a scene under a look; a new look remakes only what it touches."""

    def __init__(self, scene: Scene, look: Look) -> None:
        self.scene, self.look = scene, look
        self.unit = scene.median_depth
        n = len(scene)
        chunk = -(-n // MAX_CHUNKS)
        self.chunks = [range(a, min(a + chunk, n)) for a in range(0, n, chunk)]
        """The frames of each piece of the background."""
        self._limits: Limits | None = None
        self._still = choose_background(scene, look)
        self._moves = choose_moving(scene, look)

    def set_look(self, look: Look) -> Changed:
        """Take another look; says which clouds have to be sent again (points or colours)."""
        old, self.look = self.look, look
        moved = ("mask_growth", "hide_edges")
        still = any(getattr(old, x) != getattr(look, x) for x in ("drop_static", "step_static",
                                                                  *moved))  # fmt: skip
        moves = any(getattr(old, x) != getattr(look, x) for x in ("drop_moving", "step_moving",
                                                                  *moved))  # fmt: skip
        if still:
            self._still = choose_background(self.scene, look)
        if moves:
            self._moves = choose_moving(self.scene, look)
        recoloured = old.color != look.color
        return Changed(still or recoloured, moves or recoloured)

    def background(self) -> list[Packed]:
        """One cloud for each of `chunks`."""
        return [self._packed(self._still, frames) for frames in self.chunks]

    def moving(self) -> list[Packed]:
        """One cloud for each frame."""
        return [self._packed(self._moves, range(t, t + 1)) for t in range(len(self.scene))]

    def _packed(self, pixels: Pixels, frames: range) -> Packed:
        points = np.concatenate([positions(self.scene, t, pixels[t]) for t in frames])
        colors = np.concatenate([self._colours(t, pixels[t]) for t in frames])
        centre = self.scene.T_world_camera[frames[len(frames) // 2], :3, 3]
        return pack(points, colors, centre, self.unit)

    def _colours(self, t: int, pixels: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "k 3"]:
        if self.look.color == "rgb":
            return self.scene.images[t].reshape(-1, 3)[pixels]
        if self._limits is None:
            self._limits = find_limits(self.scene)
        return colours(self.scene, t, pixels, self.look.color, self._limits)


def positions(scene: Scene, t: int, pixels: Int[np.ndarray, " k"]) -> Float32[np.ndarray, "k 3"]:
    """World points of these pixels of frame t."""
    chosen = np.zeros(scene.depth[t].size, dtype=bool)
    chosen[pixels] = True
    return scene.points_of(t, chosen.reshape(scene.size_hw)).points_world


def colours(
    scene: Scene, t: int, pixels: Int[np.ndarray, " k"], color: str, limits: Limits
) -> UInt8[np.ndarray, "k 3"]:
    """Colours of these pixels of frame t; the maps and limits of `dyn3r.scene.pictures`."""
    if len(pixels) == 0:
        return np.zeros((0, 3), np.uint8)
    image = scene.images[t].reshape(-1, 3)[pixels]
    if color == "depth":
        depth = scene.depth[t].reshape(-1)[pixels]
        return depth_picture(depth[None], limits.inverse_depth)[0]
    if color == "confidence":
        confidence = scene.confidence[t].reshape(-1)[pixels]
        return confidence_picture(confidence[None], limits.confidence)[0]
    if color == "motion":
        return motion_picture(image[None], scene.dynamic[t].reshape(1, -1)[:, pixels])[0]
    if color == "time":
        share = t / max(1, len(scene) - 1)
        tint = depth_picture(np.array([[1 / (1 + share)]]), (1.0, 2.0))[0, 0]
        # Half of the brightness is the picture's, so that shapes can still be seen.
        brightness = 0.5 + 0.5 * image.mean(axis=1, keepdims=True) / 255
        return (brightness * tint).astype(np.uint8)
    assert color == "rgb"
    return image


def choose_background(scene: Scene, look: Look) -> Pixels:
    """Still pixels of all frames together, one per voxel (the most confident), thinned.

    The voxel is the footprint of a pixel at the median depth, times `look.step_static`. As
    `Scene.static_points`, but it says which pixels they are.
    """
    pixels, _ = choose_static(
        scene,
        min_confidence=confidence_limit(scene, look.drop_static, moving=False),
        max_points=MAX_BACKGROUND,
        mask_margin=look.mask_growth + _RIM,
        keep=(lambda t: ~depth_edges(scene.depth[t])) if look.hide_edges else None,
        step=look.step_static,
    )
    return tuple(pixels)


def choose_moving(scene: Scene, look: Look) -> Pixels:
    """Moving pixels of each frame, at most 60 000 a frame and two million in all."""
    limit = confidence_limit(scene, look.drop_moving, moving=True)
    budget = max(1, min(MAX_MOVING_PER_FRAME, MAX_MOVING // len(scene)))
    found = []
    for t in range(len(scene)):
        chosen = scene.select(t, min_confidence=limit) & grow(scene.dynamic[t], look.mask_growth)
        if look.hide_edges:
            chosen &= ~depth_edges(scene.depth[t])
        pixels = np.flatnonzero(on_grid(chosen, look.step_moving, 0, 0))
        if len(pixels) > budget:
            pixels = np.sort(np.random.default_rng(0).choice(pixels, budget, replace=False))
        found.append(pixels)
    return tuple(found)


def confidence_limit(scene: Scene, drop: float, *, moving: bool) -> float:
    """The confidence that a share `drop` of the kept still (or moving) pixels lies below."""
    if drop <= 0:
        return 0.0
    step = max(1, scene.confidence.size // 4_000_000)
    confidence = scene.confidence.reshape(-1)[::step]
    kept = confidence[(scene.dynamic.reshape(-1)[::step] == moving) & (confidence > 0)]
    return float(np.quantile(kept, drop)) if len(kept) else 0.0
