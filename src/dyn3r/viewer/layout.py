"""Scene properties for display that no setting changes: names, first view, cameras, thumbnails.

Plain NumPy without a browser; `scene_nodes` puts the result on a page.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from dyn3r.scene import Scene
from dyn3r.scene.upright import FirstView, find_up, horizontal_axes, sample_static
from dyn3r.viewer.framing import Window, fit_view, view_axes
from dyn3r.viewer.line_of_sight import frame_points, is_blocked

DEFAULT_FPS = 10.0
"""Playback speed of scenes without a frame rate, frames per second."""
FOV_RAD = 0.96
"""Vertical field of view of the first view: 55 degrees, nearer to a video camera than the 75
degrees of viser's default."""
_MAX_BLOCKED = 1 / 3
"""Share of the points of the middle frame that may be hidden. Source: looked at on six clips."""
_NUM_SAMPLES = 4000
_THUMBNAIL_PX = 256  # longer side of a thumbnail


@dataclass(frozen=True)
class SceneLayout:
    """Properties of a scene for display; none of them depends on a setting."""

    num_frames: int
    """Number of frames."""
    fps: float
    """Frames per second at speed 1."""
    names: tuple[str, ...]
    """Name of each frame."""
    times: tuple[str, ...]
    """Time of each frame."""
    up_world: Float[np.ndarray, " 3"]
    """Unit vector in world coordinates that points up."""
    view_axes: Float[np.ndarray, "3 3"]
    """Right, up and ahead of the first view's camera in world coordinates, as rows."""
    sample: Float[np.ndarray, "k 3"]
    """World points that the first view shows: a sample of the static points."""
    unit: float
    """Median depth in scene units; sizes are fractions of it."""
    spacing: float
    """Width of a pixel at the median depth, in scene units."""
    T_world_camera: Float[np.ndarray, "n 4 4"]
    """Camera-to-world transforms."""
    fov_y_rad: Float[np.ndarray, " n"]
    """Vertical field of view of every frame."""
    aspect: float
    """Image width over height."""
    thumbnails: tuple[UInt8[np.ndarray, "_ _ 3"], ...]
    """Down-sampled frames for the image planes of the camera frustums."""
    near: Float[np.ndarray, "j 3"] | None = None
    """World points that the first view shows instead, where the whole scene can't be seen at once:
    those of the middle frame, with which the page begins."""

    def first_view(self, window: Window | None = None) -> FirstView:
        """Camera of a browser at first, world coordinates: the scene in the free part of `window`
        (None: 16:9, all of it free), or a part of it (`near`)."""
        points = self.sample if self.near is None else self.near
        return fit_view(points, self.view_axes, FOV_RAD, self.unit, window or Window())


def scene_layout(scene: Scene) -> SceneLayout:
    """Layout of a scene."""
    h, w = scene.size_hw
    up_world = find_up(scene).up_world
    unit = scene.median_depth
    _, ahead = horizontal_axes(scene, up_world, frame=len(scene) // 2)
    sample = sample_static(scene, _NUM_SAMPLES)
    if len(sample) == 0:
        middle = scene.T_world_camera[len(scene) // 2]
        sample = (middle[:3, 3] + unit * middle[:3, 2])[None]
    scale = min(1.0, _THUMBNAIL_PX / max(h, w))
    thumbnail_wh = (max(1, round(w * scale)), max(1, round(h * scale)))
    layout = SceneLayout(
        num_frames=len(scene),
        fps=scene.fps or DEFAULT_FPS,
        names=scene.names,
        times=tuple(f"{time:.2f} s" for time in scene.times_s),
        up_world=up_world,
        view_axes=view_axes(ahead, up_world),
        sample=sample,
        unit=unit,
        spacing=unit / float(np.median(scene.K[:, 0, 0])),
        T_world_camera=scene.T_world_camera,
        fov_y_rad=2 * np.arctan(h / 2 / scene.K[:, 1, 1]),
        aspect=w / h,
        thumbnails=tuple(
            np.asarray(Image.fromarray(image).resize(thumbnail_wh, Image.Resampling.BOX))
            for image in scene.images
        ),
    )
    return replace(layout, near=_near_points(scene, layout))


def _near_points(scene: Scene, layout: SceneLayout) -> Float[np.ndarray, "k 3"] | None:
    """Points of the middle frame, if surfaces hide too many of them in the view of the whole.

    So it is in rooms that the camera walks through: seen from outside, a wall is in the way.
    """
    points = frame_points(scene, len(scene) // 2)
    if len(points) == 0:
        return None
    whole, near = (
        is_blocked(scene, x.first_view().position, points).mean()
        for x in (layout, replace(layout, near=points))
    )
    return points if whole > _MAX_BLOCKED and near < whole else None
