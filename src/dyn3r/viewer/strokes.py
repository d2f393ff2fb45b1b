"""Strokes with the mouse over the points of a scene: press, drag, release."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dyn3r.viewer.picking import Hit, find_hit
from dyn3r.viewer.session import Session

_RADIUS = 0.05
"""Radius of the sphere that catches the mouse, in median depths: in front of all that is drawn."""
_COLOR = (255, 80, 80)


class Strokes:
    """Takes drags of the left button as strokes instead of as turns of the camera, until `remove`.

    viser reports drags of nodes only, so an invisible sphere around the browser's camera is
    dragged. It moves along with the camera.
    """

    def __init__(self, client: Any, session: Session, done: Callable[[list[Hit]], None]) -> None:
        """`done` gets the points of the current frame that a stroke went over, in order."""
        self._client, self._session, self._done = client, session, done
        self._hits: list[Hit] = []
        self._line: Any = None
        self._removed = False
        nodes = session.scene_nodes
        self._sphere = client.scene.add_icosphere(
            "/strokes/sphere", radius=_RADIUS * nodes.layout.unit, color=_COLOR, opacity=0.0,
            side="back", subdivisions=1, cast_shadow=False, receive_shadow=False,
            position=client.camera.position,
        )  # fmt: skip
        self._sphere.on_drag("left")(self._dragged)
        client.camera.on_update(lambda _: self._follow())

    def remove(self) -> None:
        """Stop; the left button turns the camera again."""
        self._removed = True
        self._sphere.remove()
        self._hide()

    def _follow(self) -> None:
        if not self._removed:
            self._sphere.position = self._client.camera.position

    def _dragged(self, event: Any) -> None:
        if event.phase == "start":
            self._hits = []
            self._add(event.start_position)
        self._add(event.end_position)
        if event.phase == "end":
            hits, self._hits = self._hits, []
            self._hide()
            if hits:
                self._done(hits)
        else:
            self._show()

    def _add(self, position: tuple[float, float, float]) -> None:
        """Add the point that lies in this direction from the browser's camera, if there is one."""
        nodes, camera = self._session.scene_nodes, np.asarray(self._client.camera.position)
        place = nodes.placement
        direction = (np.asarray(position) - camera) @ place.R
        hit = find_hit(nodes, (camera - place.position) @ place.R, direction)
        if hit is not None and hit.frame == nodes.frame:
            self._hits.append(hit)

    def _show(self) -> None:
        if len(self._hits) < 2:
            return
        place = self._session.scene_nodes.placement
        path = np.stack([place(hit.point) for hit in self._hits])
        segments = np.stack([path[:-1], path[1:]], axis=1).astype(np.float32)
        if self._line is not None:
            self._line.points = segments
            return
        self._line = self._client.scene.add_line_segments(
            "/strokes/line", segments, _COLOR, thickness=4.0, thickness_units="screen"
        )

    def _hide(self) -> None:
        if self._line is not None:
            self._line.remove()
            self._line = None
