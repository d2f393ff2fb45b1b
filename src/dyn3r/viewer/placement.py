"""Placement of several scenes side by side in one common world. Plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from dyn3r.scene import Scene
from dyn3r.scene.upright import FirstView, horizontal_axes, sample_static
from dyn3r.viewer.framing import Window, fit_view
from dyn3r.viewer.layout import FOV_RAD, SceneLayout

_GAP = 0.25  # between neighbours, in median depths
_NUM_SAMPLES = 4000  # static points that the extent of a scene is measured with


@dataclass(frozen=True)
class Placement:
    """Rigid transform from the world of a scene to the common world."""

    R: Float[np.ndarray, "3 3"]
    """Rotation."""
    position: Float[np.ndarray, " 3"]
    """Translation."""

    def __call__(self, points: Float[np.ndarray, "*k 3"]) -> Float[np.ndarray, "*k 3"]:
        """Transform world points of the scene to the common world."""
        moved: np.ndarray = points @ self.R.T + self.position
        return moved


UP = np.array([0.0, 0.0, 1.0])
"""Unit vector that points up in the common world; viser's own."""
IDENTITY = Placement(np.eye(3), np.zeros(3))
"""Placement of a scene before it is placed."""


def scale_to_unit_depth(scene: Scene) -> Scene:
    """The same scene with its median depth as the unit of length.

    The scale of a reconstruction is arbitrary; this makes scenes comparable.
    """
    unit = scene.median_depth
    T = scene.T_world_camera.copy()
    T[:, :3, 3] /= unit
    ground = None if scene.ground_height is None else scene.ground_height / unit
    depth = scene.depth / np.float32(unit)
    return replace(scene, depth=depth, T_world_camera=T, ground_height=ground)


def place_side_by_side(scenes: Sequence[Scene], layouts: Sequence[SceneLayout]) -> list[Placement]:
    """Placements of the scenes in a row from left to right without overlap.

    In the common world z is up. The first cameras of all scenes stand on one line and look along
    y. The extent of a scene is the 5th to 95th percentile of its static points.
    """
    placements: list[Placement] = []
    edge = 0.0
    for scene, layout in zip(scenes, layouts):
        right, ahead = horizontal_axes(scene, layout.up_world)
        R = np.stack([right, ahead, layout.up_world])
        centres = layout.T_world_camera[:, :3, 3] @ R.T
        across = np.concatenate([(sample_static(scene, _NUM_SAMPLES) @ R.T)[:, 0], centres[:1, 0]])
        low = min(np.percentile(across, 5), centres[:, 0].min()) - centres[0, 0]
        high = max(np.percentile(across, 95), centres[:, 0].max()) - centres[0, 0]
        x = edge + _GAP * layout.unit - low if placements else 0.0
        placements.append(Placement(R, np.array([x, 0.0, 0.0]) - centres[0]))
        edge = x + high
    return placements


def common_first_view(
    layouts: Sequence[SceneLayout], placements: Sequence[Placement], window: Window | None = None
) -> FirstView:
    """First view of scenes side by side, in the common world."""
    points = np.concatenate([place(x.sample) for x, place in zip(layouts, placements)])
    axes = layouts[0].view_axes @ placements[0].R.T
    unit = float(np.median([x.unit for x in layouts]))
    return fit_view(points, axes, FOV_RAD, unit, window or Window())


def label_position(scene: Scene, layout: SceneLayout) -> Float[np.ndarray, " 3"]:
    """Position of the scene's label in its own world: above the median of its static points."""
    points, up = sample_static(scene, _NUM_SAMPLES), layout.up_world
    if len(points) == 0:
        points = layout.T_world_camera[:, :3, 3]
    middle, height = np.median(points, axis=0), np.percentile(points @ up, 98)
    position: np.ndarray = middle + (height + 0.1 * layout.unit - middle @ up) * up
    return position
