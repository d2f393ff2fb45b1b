"""Line segments of camera frustums and of the camera path. Plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dyn3r.viewer.layout import SceneLayout

MAX_FRUSTUMS = 40
"""Largest number of camera frustums on a page."""
CAMERA_COLOR = (255, 140, 0)
"""RGB of the camera path and of the current camera."""
IMAGE_SCALE = 0.03
"""Size of the frustum that carries an image, in median depths."""
_FRUSTUM_DEPTH = 0.025  # in median depths


def camera_path_segments(layout: SceneLayout) -> Float[np.ndarray, "k 2 3"]:
    """Line segments between consecutive camera centres, in world coordinates."""
    centres = layout.T_world_camera[:, :3, 3]
    return np.stack([centres[:-1], centres[1:]], axis=1)


def frustum_segments(
    layout: SceneLayout, frames: Sequence[int], scale: float = 1.0
) -> Float[np.ndarray, "k 2 3"]:
    """Eight line segments per camera: the frustum's edges, in world coordinates."""
    depth = scale * _FRUSTUM_DEPTH * layout.unit
    segments = []
    for t in frames:
        y = depth * np.tan(layout.fov_y_rad[t] / 2)
        x = y * layout.aspect
        corners = np.array([[-x, -y, depth], [x, -y, depth], [x, y, depth], [-x, y, depth]])
        edges = [(np.zeros(3), corner) for corner in corners]
        edges += list(zip(corners, np.roll(corners, -1, axis=0)))
        R, centre = layout.T_world_camera[t, :3, :3], layout.T_world_camera[t, :3, 3]
        segments.append(np.array(edges) @ R.T + centre)
    return np.concatenate(segments)
