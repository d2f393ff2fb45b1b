"""Several scenes in one world, side by side. Plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from dyn3r.scene import Scene
from dyn3r.scene.upright import FirstView, horizontal_axes, sample_static
from dyn3r.viewer.layout import PlaybackPlan

_GAP = 0.25  # between neighbours, in median depths


@dataclass(frozen=True)
class Placement:
    """Where a scene stands: a rotation and a translation from its world to the common one."""

    R: Float[np.ndarray, "3 3"]
    position: Float[np.ndarray, " 3"]

    def __call__(self, points: Float[np.ndarray, "*k 3"]) -> Float[np.ndarray, "*k 3"]:
        """World points of the scene in the common world."""
        return points @ self.R.T + self.position


STAND_ALONE = Placement(np.eye(3), np.zeros(3))
"""The common world is the scene's own."""


def at_unit_size(scene: Scene) -> Scene:
    """The same scene with its median depth as the unit of length.

    Reconstructions have no scale of their own, so scenes are compared at this one.
    """
    unit = scene.median_depth
    T = scene.T_world_camera.copy()
    T[:, :3, 3] /= unit
    return replace(scene, depth=scene.depth / np.float32(unit), T_world_camera=T)


def side_by_side(scenes: Sequence[Scene], plans: Sequence[PlaybackPlan]) -> list[Placement]:
    """The scenes in a row from left to right, so that they do not overlap.

    In the common world z is up and every first camera looks along y from the same line. Of each
    scene a twentieth of the static points may stick out on either side.
    """
    placed: list[Placement] = []
    edge = 0.0
    for scene, plan in zip(scenes, plans):
        right, ahead = horizontal_axes(scene, plan.upright.up_world)
        R = np.stack([right, ahead, plan.upright.up_world])
        centres = plan.T_world_camera[:, :3, 3] @ R.T
        across = np.concatenate([(sample_static(scene, 4000) @ R.T)[:, 0], centres[:1, 0]])
        low = min(np.percentile(across, 5), centres[:, 0].min()) - centres[0, 0]
        high = max(np.percentile(across, 95), centres[:, 0].max()) - centres[0, 0]
        at = edge + _GAP * plan.unit - low if placed else 0.0
        placed.append(Placement(R, np.array([at, 0.0, 0.0]) - centres[0]))
        edge = at + high
    return placed


def common_first_view(plans: Sequence[PlaybackPlan], placements: Sequence[Placement]) -> FirstView:
    """A view of all scenes that stand side by side, from behind their first cameras."""
    positions = np.stack([place(p.first_view.position) for p, place in zip(plans, placements)])
    targets = np.stack([place(p.first_view.look_at) for p, place in zip(plans, placements)])
    width = float(np.ptp(positions[:, 0]))
    # Further back to see all of them, and to the right, where the controls cover the picture.
    move, aside = np.array([0.0, -0.7 * width, 0.25 * width]), np.array([0.2 * width, 0.0, 0.0])
    return FirstView(
        (positions.min(axis=0) + positions.max(axis=0)) / 2 + move + aside,
        (targets.min(axis=0) + targets.max(axis=0)) / 2 + aside,
    )


def label_position(scene: Scene, plan: PlaybackPlan) -> Float[np.ndarray, " 3"]:
    """Where the scene's name floats, in its own world: over the middle of its static points."""
    points, up = sample_static(scene, 4000), plan.upright.up_world
    if len(points) == 0:
        points = plan.T_world_camera[:, :3, 3]
    middle, height = np.median(points, axis=0), np.percentile(points @ up, 98)
    return middle + (height + 0.1 * plan.unit - middle @ up) * up
