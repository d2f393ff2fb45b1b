"""viser nodes of what a scene looks like: discs, or surfaces. One node per part and frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from dyn3r.scene.surface import Surface
from dyn3r.viewer.packing import add_cloud, point_size
from dyn3r.viewer.points import ChangedClouds, ScenePoints
from dyn3r.viewer.surfaces import glb, texture


class DrawnNodes(ABC):
    """Nodes `ROOT/background/*` and `ROOT/moving/*` of a scene."""

    background: list[Any]
    """Nodes of the background."""
    moving: list[Any]
    """Nodes of the moving objects, one per frame."""

    def show(self, frames: set[int], *, until: int | None) -> None:
        """Show the moving objects of these frames; `until`: background of frames up to it only."""
        for i, node in enumerate(self.moving):
            node.visible = i in frames
        for first, node in zip(self._first_frames(), self.background):
            node.visible = until is None or first <= until

    def remove(self) -> None:
        """Remove all nodes."""
        for node in (*self.background, *self.moving):
            node.remove()

    @abstractmethod
    def replace(self, changed: ChangedClouds) -> None:
        """Replace what has changed in the nodes; only arrays that differ are sent."""

    @abstractmethod
    def set_size(self, factor: float) -> None:
        """Scale the points, if there are any."""

    @abstractmethod
    def _first_frames(self) -> list[int]:
        """First frame of each node of the background."""


class DiscNodes(DrawnNodes):
    """Points as discs."""

    def __init__(self, api: Any, root: str, points: ScenePoints, factor: float) -> None:
        """Add the nodes; `factor` scales the discs."""
        self._points, self._factor = points, factor
        self._clouds = points.background(), points.moving()
        self.background, self.moving = (
            [
                add_cloud(api, f"{root}/{name}/{i}", cloud, factor=factor)
                for i, cloud in enumerate(clouds)
            ]
            for name, clouds in zip(("background", "moving"), self._clouds)
        )

    def replace(self, changed: ChangedClouds) -> None:
        """Replace what has changed in the nodes; only arrays that differ are sent."""
        old_static, old_moving = self._clouds
        self._clouds = (
            self._points.background() if changed.background else old_static,
            self._points.moving() if changed.moving else old_moving,
        )
        for nodes, clouds, is_new in zip((self.background, self.moving), self._clouds, changed):
            for node, cloud in zip(nodes, clouds if is_new else ()):
                node.points, node.colors = cloud.points, cloud.colors
                node.point_size = point_size(cloud, self._factor)

    def set_size(self, factor: float) -> None:
        """Scale the discs; at 1 those of neighbours touch."""
        self._factor = factor
        for nodes, clouds in zip((self.background, self.moving), self._clouds):
            for node, cloud in zip(nodes, clouds):
                node.point_size = point_size(cloud, factor)

    def _first_frames(self) -> list[int]:
        return [chunk[0] for chunk in self._points.chunks]


class SurfaceNodes(DrawnNodes):
    """Textured surfaces."""

    def __init__(self, api: Any, root: str, points: ScenePoints) -> None:
        """Add the nodes."""
        self._api, self._root, self._points = api, root, points
        self._frames: list[int] = []
        self._content: dict[str, bytes] = {}
        self.background, self.moving = [], []
        self.replace(ChangedClouds(background=True, moving=True))

    def replace(self, changed: ChangedClouds) -> None:
        """Replace what has changed in the nodes; only files that differ are sent."""
        if changed.background:
            parts = self._points.static_surfaces
            self._frames = [part.frame for part in parts]
            self._fill("background", self.background, parts)
        if changed.moving:
            self._fill("moving", self.moving, self._points.moving_surfaces)

    def set_size(self, factor: float) -> None:
        """Surfaces have no size."""

    def _first_frames(self) -> list[int]:
        return self._frames

    def _fill(self, group: str, nodes: list[Any], parts: list[Surface]) -> None:
        """Give each part a node, and remove the nodes that are left."""
        for node in nodes[len(parts) :]:
            self._content.pop(node.name, None)
            node.remove()
        del nodes[len(parts) :]
        for i, part in enumerate(parts):
            name = f"{self._root}/{group}/{i}"
            content, origin = self._file(part)
            if i == len(nodes):
                nodes.append(self._add(name, content, origin))
            elif content != self._content[name]:
                nodes[i].glb_data, nodes[i].position = content, origin
            self._content[name] = content

    def _add(self, name: str, content: bytes, origin: np.ndarray) -> Any:
        return self._api.add_glb(
            name, content, position=origin, cast_shadow=False, receive_shadow=False
        )

    def _file(self, part: Surface) -> tuple[bytes, np.ndarray]:
        """Binary glTF of a surface, and the place of its origin."""
        points = self._points
        origin = points.scene.T_world_camera[part.frame, :3, 3]
        color = points.appearance.color
        limits = None if color == "rgb" else points.limits
        picture = texture(points.scene, part, color, limits)
        return glb(part, picture, origin, points.scene.size_hw[1]), origin


def drawn_nodes(api: Any, root: str, points: ScenePoints, factor: float) -> DrawnNodes:
    """Nodes in the style of the appearance of `points`; `factor` scales discs."""
    if points.appearance.style == "surface":
        return SurfaceNodes(api, root, points)
    return DiscNodes(api, root, points, factor)
