"""Where the browsers' own cameras stand: the first view, and in the place of the clip's camera."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.viewer.page import FOV_RAD
from dyn3r.viewer.playback import Show


class BrowserCameras:
    """Moves the cameras of the browsers that look at a show. Clients are viser's `ClientHandle`."""

    def __init__(self, server: Any, show: Show) -> None:
        self._server, self._show = server, show
        self._before: dict[int, tuple[Any, Any, Any, float]] = {}
        self.following = False

    def first_view(self, client: Any) -> None:
        """Back to where the page began."""
        view = self._show.first_view
        _move(client, view.position, view.look_at, self._show.up_world, FOV_RAD)

    def look_through(self, client: Any, t: int) -> None:
        """To where the camera of frame t was."""
        T, unit = self._show.T_common_camera(t), self._show.unit
        ahead = T[:3, 3] + unit * T[:3, 2]
        _move(client, T[:3, 3], ahead, -T[:3, 1], self._show.fov_y_rad(t))

    def follow(self, following: bool) -> None:
        """Remember where every browser is, or bring it back there."""
        clients = self._server.get_clients()
        if following and not self.following:
            for key, client in clients.items():
                camera = client.camera
                self._before[key] = (
                    camera.position, camera.look_at, camera.up_direction, camera.fov,
                )  # fmt: skip
        for stage in self._show.stages:
            stage.set_following(following)
        if self.following and not following:
            for key, client in clients.items():
                if key in self._before:
                    _move(client, *self._before[key])
                else:  # it came while we were following
                    self.first_view(client)
            self._before.clear()
        self.following = following

    def go_on(self, t: int) -> None:
        """To frame t, if the camera is followed."""
        if self.following:
            for client in self._server.get_clients().values():
                self.look_through(client, t)

    def scene_changed(self) -> None:
        """Other scenes are to be seen: begin anew, unless the camera is followed."""
        if not self.following:
            for client in self._server.get_clients().values():
                self.first_view(client)


def _move(
    client: Any,
    position: Float[np.ndarray, " 3"],
    look_at: Float[np.ndarray, " 3"],
    up: Float[np.ndarray, " 3"],
    fov: float,
) -> None:
    with client.atomic():
        client.camera.up_direction = up
        client.camera.position = position
        client.camera.look_at = look_at
        client.camera.fov = fov
