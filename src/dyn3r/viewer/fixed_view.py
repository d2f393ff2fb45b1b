"""Images of all frames of a scene from one viewpoint: the background is rendered once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from dyn3r.scene import Scene
from dyn3r.viewer.framing import Window
from dyn3r.viewer.renderer import SceneRenderer, Viewpoint, with_background
from dyn3r.viewer.turntable import orbit

_ANGLE_DEG = 15.0
"""Rotation about the vertical, so that the view differs from the frames."""


class FixedView:
    """A renderer for videos in which the clip plays and the camera stands still."""

    def __init__(
        self, scene: Scene, size_hw: tuple[int, int], viewpoint: Viewpoint | None = None
    ) -> None:
        """Render the background; `viewpoint`: the page's first view from the side if None."""
        self._renderer = SceneRenderer(scene)
        self._size_hw = size_hw
        self._viewpoint = viewpoint or self._from_the_side()
        self._static = self._renderer.static_layer(self._viewpoint, size_hw)

    def render(self, t: int) -> UInt8[np.ndarray, "h w 3"]:
        """Image of frame t, as `SceneRenderer.render` makes it without supersampling."""
        moving = self._renderer.moving_layer(t, self._viewpoint, self._size_hw)
        return with_background(self._static.over(moving))

    def _from_the_side(self) -> Viewpoint:
        layout = self._renderer.layout
        view = layout.first_view(Window(self._size_hw[1] / self._size_hw[0], 0.0, 0.0))
        first = Viewpoint(view.position, view.look_at, layout.up_world)
        return orbit(first, float(np.radians(_ANGLE_DEG)))


def scene_view(
    scene: Scene, size_hw: tuple[int, int]
) -> Callable[[int], UInt8[np.ndarray, "h w 3"]]:
    """The scene from the side, for `dyn3r.scene.pictures.write_overview_video`."""
    return FixedView(scene, size_hw).render
