"""Camera of one browser: the first view, and the viewpoint of the clip's camera."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.viewer.framing import Window
from dyn3r.viewer.layout import FOV_RAD
from dyn3r.viewer.page_script import NARROW_PX
from dyn3r.viewer.placement import UP
from dyn3r.viewer.playback import CameraState, Playback

PANEL_PX = 350
"""Width of the panel with the controls and its margin, in a window that has room for it."""
TIMELINE_PX = 170
"""Height of the timeline and its margin."""
_SHEET_PX = 60  # height of that sheet, collapsed
_INSIDE = 0.1  # distance from the clip's camera, in median depths, at which its frustum is hidden


class BrowserCamera:
    """Control of the camera of a browser. Without one (None) no call has an effect."""

    def __init__(self, client: Any, playback: Playback) -> None:
        """Start in free navigation; `client` is viser's `ClientHandle`."""
        self._client, self._playback = client, playback
        self._saved: CameraState | None = None
        self.following = False

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the browser's canvas."""
        if self._client is None:
            return (1280, 720)
        camera = self._client.camera
        return (max(1, int(camera.image_width)), max(1, int(camera.image_height)))

    @property
    def state(self) -> CameraState | None:
        """The browser's camera now; None without a browser."""
        if self._client is None:
            return None
        camera = self._client.camera
        return CameraState(camera.position, camera.look_at, camera.up_direction, float(camera.fov))

    @property
    def window(self) -> Window:
        """The browser's window and what the controls cover of it."""
        width, height = self.size_px
        if width <= NARROW_PX:
            return Window(width / height, 0.0, min(0.3, _SHEET_PX / height))
        return Window(width / height, min(0.5, PANEL_PX / width), min(0.3, TIMELINE_PX / height))

    def reset(self) -> None:
        """Move the browser's camera to the first view of its window."""
        view = self._playback.first_view(self.window)
        self._set(CameraState(view.position, view.look_at, UP, FOV_RAD))
        if self._client is not None:
            unit = self._playback.unit
            self._client.camera.near, self._client.camera.far = 0.01 * unit, 1000 * unit

    def set_view(self, position: Float[np.ndarray, " 3"], look_at: Float[np.ndarray, " 3"]) -> None:
        """Move the browser's camera to a viewpoint without roll."""
        self._set(CameraState(position, look_at, UP, FOV_RAD))

    def look_through(self, t: int) -> None:
        """Move the browser's camera to the viewpoint of the camera of frame t."""
        T, unit = self._playback.T_common_camera(t), self._playback.unit
        look_at = T[:3, 3] + unit * T[:3, 2]
        self._set(CameraState(T[:3, 3], look_at, -T[:3, 1], self._playback.fov_y_rad(t)))
        self._set_inside(inside=True)

    def set_following(self, *, enabled: bool) -> None:
        """Save the camera of the browser (enabled), or restore it (disabled)."""
        if enabled and not self.following and self._client is not None:
            self._saved = self.state
        was_following, self.following = self.following, enabled
        self._set_inside(inside=enabled)
        if was_following and not enabled and self._saved is not None:
            self._set(self._saved)
            self._saved = None

    def update(self, t: int) -> None:
        """Move the browser to the camera of frame t if following is on."""
        if self.following:
            self.look_through(t)

    def moved(self, t: int) -> None:
        """The user has moved the camera: show the frustum of frame t unless it is too near."""
        if self._client is not None and not self.following:
            away = self._client.camera.position - self._playback.T_common_camera(t)[:3, 3]
            self._set_inside(inside=bool(np.linalg.norm(away) < _INSIDE * self._playback.unit))

    def scene_changed(self) -> None:
        """Reset the browser after another scene was chosen, unless following is on."""
        if not self.following:
            self.reset()

    def _set_inside(self, *, inside: bool) -> None:
        for nodes in self._playback.scene_nodes:
            nodes.set_inside(inside=inside)

    def _set(self, state: CameraState) -> None:
        if self._client is None:
            return
        with self._client.atomic():
            camera = self._client.camera
            camera.up_direction = state.up
            camera.position = state.position
            camera.look_at = state.look_at
            camera.fov = state.fov_y_rad
