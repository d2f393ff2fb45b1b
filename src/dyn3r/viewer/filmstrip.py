"""Filmstrip: image, depth and motion mask of the current frame side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import UInt8

from dyn3r.scene import Scene
from dyn3r.scene.drawing import depth_picture, draw_text, motion_picture
from dyn3r.scene.pictures import Limits, find_limits

_GAP_PX = 4
_HEIGHT_PX = 200
_MAX_PANEL_PX = 560
_MARGIN_PX = 32


def filmstrip_width(scene: Scene, height: int = _HEIGHT_PX) -> int:
    """Width of the filmstrip in pixels."""
    step = _step(scene, height)
    return 3 * len(range(0, scene.size_hw[1], step)) + 2 * _GAP_PX


def filmstrip_image(
    scene: Scene, t: int, limits: Limits, height: int = _HEIGHT_PX
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Frame, inverse depth (red is near) and the frame with dynamic pixels in red, side by side.

    Every n-th pixel is taken, so that there are at most `height` rows.
    """
    step = _step(scene, height)
    image = np.ascontiguousarray(scene.images[t, ::step, ::step])
    depth = depth_picture(scene.depth[t, ::step, ::step], limits.inverse_depth)
    mask = motion_picture(image, scene.dynamic[t, ::step, ::step])
    gap = np.full((len(image), _GAP_PX, 3), 24, np.uint8)
    columns = []
    for panel, text in ((image.copy(), "frame"), (depth, "depth"), (mask, "mask")):
        draw_text(panel, text, (4, 12), size=0.35, box=True)
        columns += [panel, gap]
    return np.concatenate(columns[:-1], axis=1)


class FilmstripPanel:
    """Floating panel of a viser page with the filmstrip of one scene."""

    def __init__(self, gui: Any) -> None:
        """Start without a panel; `gui` is viser's `GuiApi`."""
        self._gui = gui
        self._panel: Any = None
        self._image: Any = None
        self._limits: Limits | None = None

    @property
    def image(self) -> UInt8[np.ndarray, "_ _ 3"] | None:
        """The image shown; None without a panel."""
        return None if self._image is None else self._image.image

    def open(self, scene: Scene, t: int) -> None:
        """Open a panel for a scene, at frame t. It is as wide as the scene's filmstrip."""
        self.close()
        self._limits = find_limits(scene)
        self._panel = self._gui.add_panel()
        with self._panel.add_tab("frame, depth, mask"):
            self._image = self._gui.add_image(self._draw(scene, t), jpeg_quality=85)
        self._panel.float(x=16, y=16)
        self._panel.set_width(min(_MAX_PANEL_PX, filmstrip_width(scene) + _MARGIN_PX))

    def update(self, scene: Scene, t: int) -> None:
        """Show frame t of the scene that the panel was opened for, if it is open."""
        if self._image is not None:
            self._image.image = self._draw(scene, t)

    def close(self) -> None:
        """Remove the panel, if it is open."""
        if self._panel is not None:
            self._panel.remove()
            self._panel = self._image = None

    def _draw(self, scene: Scene, t: int) -> UInt8[np.ndarray, "_ _ 3"]:
        assert self._limits is not None
        return filmstrip_image(scene, min(t, len(scene) - 1), self._limits)


def _step(scene: Scene, height: int) -> int:
    return -(-scene.size_hw[0] // height)
