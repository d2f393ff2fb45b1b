"""Images of all frames of a scene from one viewpoint: the background is rendered once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from dyn3r.scene import Scene
from dyn3r.viewer.framing import Window
from dyn3r.viewer.splat import BACKGROUND, EMPTY, SplatRenderer, Viewpoint, nearest_index
from dyn3r.viewer.turntable import orbit

_ANGLE_DEG = 15.0
"""Rotation about the vertical, so that the view differs from the frames."""


class FixedView:
    """A renderer for videos in which the clip plays and the camera stands still."""

    def __init__(
        self, scene: Scene, size_hw: tuple[int, int], viewpoint: Viewpoint | None = None
    ) -> None:
        """Render the background; `viewpoint`: the page's first view from the side if None."""
        self._renderer = SplatRenderer(scene)
        self._size_hw = size_hw
        self._viewpoint = viewpoint or self._from_the_side()
        self._colors, self._keys = self._renderer.static_keys(self._viewpoint, size_hw)

    def render(self, t: int) -> UInt8[np.ndarray, "h w 3"]:
        """Image of frame t, as `SplatRenderer.render` makes it without supersampling."""
        colors, keys = self._renderer.moving_keys(t, self._viewpoint, self._size_hw)
        # the index of a point is the lower half of its key
        later = np.where(keys == EMPTY, keys, keys + len(self._colors))
        index = nearest_index(np.minimum(self._keys, later))
        image = np.empty((*self._size_hw, 3), np.uint8)
        image[:] = BACKGROUND
        hit = index >= 0
        image.reshape(-1, 3)[hit] = np.concatenate([self._colors, colors])[index[hit]]
        return image

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
