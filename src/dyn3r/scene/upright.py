"""The upright world of a scene, and where a person should stand to see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dyn3r.geometry.gravity import Upright, sample_static_points
from dyn3r.geometry.gravity import find_up as estimate_up
from dyn3r.scene.scene import Scene


@dataclass(frozen=True)
class FirstView:
    """Where to stand and where to look, in world coordinates."""

    position: Float[np.ndarray, " 3"]
    look_at: Float[np.ndarray, " 3"]


def find_up(scene: Scene) -> Upright:
    """The up direction stored in the scene; estimated for scenes that do not have one."""
    if scene.up_world is not None:
        return Upright(scene.up_world, "stored", scene.ground_height)
    return estimate_up(
        scene.images, scene.K, scene.T_world_camera, scene.depth, scene.confidence > 0,
        scene.dynamic, scene.confidence,
    )  # fmt: skip


def horizontal_axes(
    scene: Scene, up_world: Float[np.ndarray, " 3"], frame: int = 0
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """Unit vectors (right, ahead) that span the horizontal plane, as the frame's camera sees it."""
    T = scene.T_world_camera[frame]
    ahead = T[:3, 2] - (T[:3, 2] @ up_world) * up_world
    # A camera that looks straight down or up has its ahead in the image's upward direction.
    fallback = -T[:3, 1] + (T[:3, 1] @ up_world) * up_world
    ahead = _unit(ahead if np.linalg.norm(ahead) > 0.2 else fallback, T[:3, 0])
    return np.cross(ahead, up_world), ahead


def sample_static(scene: Scene, count: int) -> Float[np.ndarray, "k 3"]:
    """About `count` static world points of the more certain four fifths, over frames and pixels."""
    return sample_static_points(
        scene.K, scene.T_world_camera, scene.depth, scene.confidence > 0, scene.dynamic,
        scene.confidence, count,
    )  # fmt: skip


def _unit(vector: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    return vector / length if length > 0.1 else fallback / np.linalg.norm(fallback)
