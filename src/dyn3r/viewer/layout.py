"""Scene properties for display that no setting changes: captions, first view, cameras, thumbnails.

Plain NumPy without a browser; `scene_nodes` puts the result on a page.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from dyn3r.scene import Scene
from dyn3r.scene.upright import FirstView, find_up, first_view

DEFAULT_FPS = 10.0
"""Playback speed of scenes without a frame rate, frames per second."""
_THUMBNAIL_PX = 256  # longer side of a thumbnail


@dataclass(frozen=True)
class SceneLayout:
    """Properties of a scene for display; none of them depends on a setting."""

    num_frames: int
    """Number of frames."""
    fps: float
    """Frames per second at speed 1."""
    captions: tuple[str, ...]
    """One line per frame: name and time."""
    up_world: Float[np.ndarray, " 3"]
    """Unit vector in world coordinates that points up."""
    first_view: FirstView
    """Initial camera of a browser, world coordinates."""
    unit: float
    """Median depth in scene units; sizes are fractions of it."""
    point_size: float
    """World size of a point that closes the gaps between neighbours at the median depth."""
    T_world_camera: Float[np.ndarray, "n 4 4"]
    """Camera-to-world transforms."""
    fov_y_rad: Float[np.ndarray, " n"]
    """Vertical field of view of every frame."""
    aspect: float
    """Image width over height."""
    thumbnails: tuple[UInt8[np.ndarray, "_ _ 3"], ...]
    """Down-sampled frames for the image planes of the camera frustums."""


def scene_layout(scene: Scene) -> SceneLayout:
    """Layout of a scene."""
    h, w = scene.size_hw
    up_world = find_up(scene).up_world
    unit = scene.median_depth
    scale = min(1.0, _THUMBNAIL_PX / max(h, w))
    thumbnail_wh = (max(1, round(w * scale)), max(1, round(h * scale)))
    return SceneLayout(
        num_frames=len(scene),
        fps=scene.fps or DEFAULT_FPS,
        captions=tuple(f"{name} at {time:.2f} s" for name, time in zip(scene.names, scene.times_s)),
        up_world=up_world,
        first_view=first_view(scene, up_world),
        unit=unit,
        point_size=2.0 * unit / float(np.median(scene.K[:, 0, 0])),
        T_world_camera=scene.T_world_camera,
        fov_y_rad=2 * np.arctan(h / 2 / scene.K[:, 1, 1]),
        aspect=w / h,
        thumbnails=tuple(
            np.asarray(Image.fromarray(image).resize(thumbnail_wh, Image.Resampling.BOX))
            for image in scene.images
        ),
    )
