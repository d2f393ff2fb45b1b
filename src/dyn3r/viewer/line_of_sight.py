"""Whether something is in the way between a viewer and points of the scene. Plain NumPy.

Every frame's depth is a surface, as it is drawn. A line of sight is blocked where it passes through
one, from either side.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from dyn3r.geometry.pixels import project_pixels
from dyn3r.scene import Scene
from dyn3r.viewer.points import pixel_points

MAX_FRAMES = 16
"""Frames whose surfaces are tested, evenly spread over the scene. Source: run time."""
STEPS = 48
"""Samples of a line of sight. Source: run time."""
REACHED = 0.95
"""Share of the line behind which it has arrived: surfaces of other frames are at other depths."""
LARGEST_GAP = 0.3
"""Largest distance in log depth of two successive samples from the surface between them; farther
ones pass by its edge."""
NUM_POINTS = 400
"""Points of a frame that are looked for."""


def frame_points(scene: Scene, t: int) -> Float[np.ndarray, "k 3"]:
    """About NUM_POINTS world points that frame t shows, moving ones included."""
    shown = (scene.depth[t] > 0) & ((scene.confidence[t] > 0) | scene.dynamic[t])
    pixels = np.flatnonzero(shown)
    return pixel_points(scene, t, pixels[:: max(1, len(pixels) // NUM_POINTS)])


def is_blocked(
    scene: Scene, position: Float[np.ndarray, " 3"], points: Float[np.ndarray, "k 3"]
) -> Bool[np.ndarray, " k"]:
    """Whether a static surface is between `position` and each of the points (world)."""
    shares = np.linspace(0, REACHED, STEPS)
    line = position + shares[:, None, None] * (points - position)
    blocked = np.zeros(len(points), bool)
    for t in np.unique(np.linspace(0, len(scene) - 1, MAX_FRAMES).astype(int)):
        gap = _behind(scene, int(t), line)
        near = np.abs(gap) < LARGEST_GAP  # NaN: nothing known there
        crossed = (gap[1:] > 0) != (gap[:-1] > 0)
        blocked |= (crossed & near[1:] & near[:-1]).any(0)
    return blocked


def _behind(scene: Scene, t: int, points: Float[np.ndarray, "s k 3"]) -> Float[np.ndarray, "s k"]:
    """Log of the depth of points over that of the static surface of frame t; NaN outside it."""
    uv, z = project_pixels(points, scene.K[t], np.linalg.inv(scene.T_world_camera[t]))
    (u, v), (h, w) = np.moveaxis(np.rint(uv), -1, 0), scene.size_hw
    inside = (u >= 0) & (u < w) & (v >= 0) & (v < h)  # not where NaN: behind the camera
    row, column = (np.where(inside, a, 0).astype(int) for a in (v, u))
    static = (scene.confidence[t] > 0) & (scene.depth[t] > 0) & ~scene.dynamic[t]
    known = inside & static[row, column]
    ratio = np.divide(z, scene.depth[t][row, column], out=np.full_like(z, np.nan), where=known)
    return np.log(ratio)
