"""Synchronous display of one scene or several on a page, without the controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.io.arguments import check_type
from dyn3r.scene import Scene
from dyn3r.scene.upright import FirstView
from dyn3r.viewer.appearance import Appearance, Visibility
from dyn3r.viewer.page import FOV_RAD
from dyn3r.viewer.placement import (
    IDENTITY,
    common_first_view,
    label_position,
    place_side_by_side,
    scale_to_unit_depth,
)
from dyn3r.viewer.scene_nodes import SceneNodes
from dyn3r.viewer.trails import find_trails

SIDE_BY_SIDE = "side by side"
"""Menu entry for all scenes together."""


class Playback:
    """Scenes of a page that show the same frame. The common world of one scene is its own."""

    def __init__(
        self, server: Any, scenes: Sequence[Scene], names: Sequence[str],
        appearance: Appearance, visibility: Visibility,
    ) -> None:  # fmt: skip
        """Add the nodes of all scenes to `server`, a viser server. Several get a label each."""
        self._server = server
        several = len(scenes) > 1
        self.names = list(names)
        scenes = [scale_to_unit_depth(scene) for scene in scenes] if several else list(scenes)
        self.scene_nodes = [
            SceneNodes(server, f"/scene_{i}", scene, appearance, visibility)
            for i, scene in enumerate(scenes)
        ]
        layouts = [nodes.layout for nodes in self.scene_nodes]
        placements = place_side_by_side(scenes, layouts) if several else [IDENTITY]
        self._wide_view = (
            common_first_view(layouts, placements) if several else layouts[0].first_view
        )
        for nodes, placement, name in zip(self.scene_nodes, placements, self.names):
            nodes.set_placement(placement)
            if several:
                nodes.set_label(name, label_position(nodes.scene, nodes.layout))
        self.chosen: int | None = None if several else 0
        self._set_initial_camera()

    @property
    def choices(self) -> list[str]:
        """Entries of the scene menu."""
        return [SIDE_BY_SIDE, *self.names] if len(self.scene_nodes) > 1 else self.names

    @property
    def leading(self) -> SceneNodes:
        """Scene that gives camera and captions: the chosen one, or the first of several."""
        return self.scene_nodes[self.chosen or 0]

    @property
    def visible(self) -> list[SceneNodes]:
        """Scenes that are visible."""
        return self.scene_nodes if self.chosen is None else [self.scene_nodes[self.chosen]]

    @property
    def num_frames(self) -> int:
        """Number of frames of the longest visible scene; shorter ones stay at their last frame."""
        return max(nodes.layout.num_frames for nodes in self.visible)

    @property
    def fps(self) -> float:
        """Frames per second of the leading scene."""
        return self.leading.layout.fps

    @property
    def unit(self) -> float:
        """Median depth of the leading scene, in the common world."""
        return self.leading.layout.unit

    @property
    def up_world(self) -> Float[np.ndarray, " 3"]:
        """Unit vector that points up in the common world."""
        nodes = self.scene_nodes[0]
        up: np.ndarray = nodes.placement.R @ nodes.layout.up_world
        return up

    @property
    def first_view(self) -> FirstView:
        """Initial camera of a browser, in the common world."""
        if self.chosen is None:
            return self._wide_view
        nodes = self.scene_nodes[self.chosen]
        view, placement = nodes.layout.first_view, nodes.placement
        return FirstView(placement(view.position), placement(view.look_at))

    def T_common_camera(self, t: int) -> Float[np.ndarray, "4 4"]:
        """Camera of frame t of the leading scene, mapping camera to common world."""
        nodes = self.leading
        T: np.ndarray = nodes.layout.T_world_camera[min(t, nodes.layout.num_frames - 1)].copy()
        T[:3, 3] = nodes.placement(T[:3, 3])
        T[:3, :3] = nodes.placement.R @ T[:3, :3]
        return T

    def fov_y_rad(self, t: int) -> float:
        """Vertical field of view of the camera of frame t of the leading scene."""
        layout = self.leading.layout
        return float(layout.fov_y_rad[min(t, layout.num_frames - 1)])

    def caption(self, t: int) -> str:
        """Name and time of frame t of the leading scene."""
        captions = self.leading.layout.captions
        return captions[min(t, len(captions) - 1)]

    def choose(self, index: int | None) -> None:
        """Show one scene alone, or all of them side by side (None)."""
        assert index is not None or len(self.scene_nodes) > 1
        self.chosen = index
        with self._server.atomic():
            for i, nodes in enumerate(self.scene_nodes):
                nodes.root.visible = index is None or i == index
        self._set_initial_camera()

    def show_frame(self, t: int) -> None:
        """Show frame t of every visible scene."""
        with self._server.atomic():
            for nodes in self.visible:
                nodes.show_frame(t)

    def set_visibility(self, visibility: Visibility) -> None:
        """Show and hide elements. Trails are computed when they are first shown."""
        for nodes in self.scene_nodes:
            if visibility.trail_length and not nodes.trails:
                nodes.set_trails(find_trails(nodes.scene))
            nodes.set_visibility(visibility)

    def _set_initial_camera(self) -> None:
        view, camera = self.first_view, self._server.initial_camera
        self._server.scene.set_up_direction(tuple(float(x) for x in self.up_world))
        camera.position, camera.look_at, camera.fov = view.position, view.look_at, FOV_RAD
        camera.near, camera.far = 0.01 * self.unit, 1000 * self.unit


def label_scenes(
    scenes: Scene | Sequence[Scene], names: Sequence[str] | None
) -> tuple[list[Scene], list[str]]:
    """Scenes as a list, and one distinct name for each.

    Raises:
        InputError: no scene, or names that are too few, too many or not distinct.
    """
    if not isinstance(scenes, (Scene, list, tuple)):
        raise InputError(f"a scene or a list of scenes is needed, not {type(scenes).__name__}")
    if not isinstance(names, (list, tuple, type(None))):
        raise InputError(f"names must be a list of strings, not {type(names).__name__}")
    found = [scenes] if isinstance(scenes, Scene) else list(scenes)
    for scene in found:
        check_type(scene, Scene, "every scene")
    if not found:
        raise InputError("there is no scene to view")
    labels = list(names) if names is not None else [f"scene {i + 1}" for i in range(len(found))]
    if len(labels) != len(found) or len({*labels, SIDE_BY_SIDE}) != len(labels) + 1:
        raise InputError(f"{len(found)} scenes need as many different names, not {labels}")
    return found, labels
