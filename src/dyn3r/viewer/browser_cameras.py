"""Cameras of the connected browsers: the first view, and the viewpoint of the clip's camera."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dyn3r.viewer.page import FOV_RAD
from dyn3r.viewer.playback import Playback


class _CameraState(NamedTuple):
    position: Float[np.ndarray, " 3"]
    look_at: Float[np.ndarray, " 3"]
    up: Float[np.ndarray, " 3"]
    fov_y_rad: float


class BrowserCameras:
    """Control of the cameras of all connected browsers. Clients are viser's `ClientHandle`."""

    def __init__(self, server: Any, playback: Playback) -> None:
        """Start in free navigation."""
        self._server, self._playback = server, playback
        self._saved: dict[int, _CameraState] = {}
        self.following = False

    def reset(self, client: Any) -> None:
        """Move a browser's camera to the first view."""
        view = self._playback.first_view
        up = self._playback.up_world
        _set_camera(client, _CameraState(view.position, view.look_at, up, FOV_RAD))

    def look_through(self, client: Any, t: int) -> None:
        """Move a browser's camera to the viewpoint of the camera of frame t."""
        T, unit = self._playback.T_common_camera(t), self._playback.unit
        look_at = T[:3, 3] + unit * T[:3, 2]
        state = _CameraState(T[:3, 3], look_at, -T[:3, 1], self._playback.fov_y_rad(t))
        _set_camera(client, state)

    def set_following(self, *, enabled: bool) -> None:
        """Save the camera of every browser (enabled), or restore it (disabled)."""
        clients = self._server.get_clients()
        if enabled and not self.following:
            for key, client in clients.items():
                camera = client.camera
                self._saved[key] = _CameraState(
                    camera.position, camera.look_at, camera.up_direction, camera.fov
                )
        for nodes in self._playback.scene_nodes:
            nodes.set_following(enabled=enabled)
        if self.following and not enabled:
            for key, client in clients.items():
                if key in self._saved:
                    _set_camera(client, self._saved[key])
                else:  # connected while following was on
                    self.reset(client)
            self._saved.clear()
        self.following = enabled

    def update(self, t: int) -> None:
        """Move all browsers to the camera of frame t if following is on."""
        if self.following:
            for client in self._server.get_clients().values():
                self.look_through(client, t)

    def scene_changed(self) -> None:
        """Reset all browsers after another scene was chosen, unless following is on."""
        if not self.following:
            for client in self._server.get_clients().values():
                self.reset(client)


def _set_camera(client: Any, state: _CameraState) -> None:
    with client.atomic():
        client.camera.up_direction = state.up
        client.camera.position = state.position
        client.camera.look_at = state.look_at
        client.camera.fov = state.fov_y_rad
