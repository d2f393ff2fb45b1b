"""Synchronous display of one scene or several on a page, without the controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.io.arguments import check_type
from dyn3r.scene import Scene
from dyn3r.scene.upright import FirstView
from dyn3r.types import Progress, no_progress
from dyn3r.viewer.appearance import Appearance, Visibility
from dyn3r.viewer.framing import Window
from dyn3r.viewer.layout import FOV_RAD, scene_layout
from dyn3r.viewer.placement import (
    UP,
    common_first_view,
    label_position,
    place_side_by_side,
    scale_to_unit_depth,
)
from dyn3r.viewer.points import ScenePoints
from dyn3r.viewer.scene_nodes import SceneNodes
from dyn3r.viewer.trails import find_trails

SIDE_BY_SIDE = "side by side"
"""Menu entry for all scenes together."""


class PreparedScenes:
    """Scenes with what all browsers share: names, layouts, placements and selected points."""

    def __init__(
        self, scenes: Sequence[Scene], names: Sequence[str], appearance: Appearance
    ) -> None:
        """Prepare the scenes; several are scaled to the same median depth and placed in a row."""
        several = len(scenes) > 1
        self.names = list(names)
        self.scenes = [scale_to_unit_depth(s) for s in scenes] if several else list(scenes)
        self.layouts = [scene_layout(scene) for scene in self.scenes]
        self.points = [ScenePoints(scene, appearance) for scene in self.scenes]
        for points in self.points:
            points.prepare()
        self.placements = place_side_by_side(self.scenes, self.layouts)

    def set_masks(self, scene: Scene, points: ScenePoints) -> None:
        """Take another version of the only scene, with other masks, and its points."""
        assert len(self.scenes) == 1
        self.scenes[0], self.points[0] = scene, points.copy()

    @property
    def title(self) -> str:
        """Title of the page."""
        return " | ".join(self.names)


class Playback:
    """Scenes of a page that show the same frame, in a common world with z up."""

    def __init__(
        self, target: Any, prepared: PreparedScenes, appearance: Appearance, visibility: Visibility
    ) -> None:
        """Add the nodes of all scenes to `target`, viser's server or one of its clients."""
        self._target, self._prepared = target, prepared
        several = len(prepared.scenes) > 1
        self.names = prepared.names
        self.scene_nodes = [
            SceneNodes(target, f"/scene_{i}", layout, points.copy(), visibility)
            for i, (layout, points) in enumerate(zip(prepared.layouts, prepared.points))
        ]
        for nodes, placement, name in zip(self.scene_nodes, prepared.placements, self.names):
            nodes.set_appearance(appearance)
            nodes.set_placement(placement)
            if several:
                nodes.set_label(name, label_position(nodes.scene, nodes.layout))
        self.chosen: int | None = None if several else 0

    def remove(self) -> None:
        """Remove all nodes from the page."""
        for nodes in self.scene_nodes:
            nodes.root.remove()

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

    def first_view(self, window: Window | None = None) -> FirstView:
        """Initial camera of a browser with this window, in the common world."""
        if self.chosen is None:
            return common_first_view(self._prepared.layouts, self._prepared.placements, window)
        nodes = self.scene_nodes[self.chosen]
        view, placement = nodes.layout.first_view(window), nodes.placement
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

    def caption(self, t: int) -> tuple[str, str]:
        """Time and name of frame t of the leading scene."""
        layout = self.leading.layout
        t = min(t, layout.num_frames - 1)
        return layout.times[t], layout.names[t]

    def choose(self, index: int | None) -> None:
        """Show one scene alone, or all of them side by side (None)."""
        assert index is not None or len(self.scene_nodes) > 1
        self.chosen = index
        with self._target.atomic():
            for i, nodes in enumerate(self.scene_nodes):
                nodes.root.visible = index is None or i == index

    def show_frame(self, t: int) -> None:
        """Show frame t of every visible scene."""
        with self._target.atomic():
            for nodes in self.visible:
                nodes.show_frame(t)

    def set_visibility(self, visibility: Visibility, progress: Progress = no_progress) -> None:
        """Show and hide elements. Trails are computed when they are first shown."""
        for nodes in self.scene_nodes:
            if visibility.trail_length and not nodes.trails:
                nodes.set_trails(find_trails(nodes.scene, progress=progress))
            nodes.set_visibility(visibility)


class CameraState(NamedTuple):
    """Camera of a browser, in the common world."""

    position: Float[np.ndarray, " 3"]
    """Its centre."""
    look_at: Float[np.ndarray, " 3"]
    """The point that it turns around."""
    up: Float[np.ndarray, " 3"]
    """The direction that points up."""
    fov_y_rad: float
    """Vertical field of view."""


def set_initial_camera(server: Any, playback: Playback, state: CameraState | None = None) -> None:
    """View of browsers that connect to a server, or that open its recording; None: the first."""
    if state is None:
        view = playback.first_view()
        state = CameraState(view.position, view.look_at, UP, FOV_RAD)
    camera = server.initial_camera
    camera.position, camera.look_at = state.position, state.look_at
    camera.up, camera.fov = state.up, state.fov_y_rad
    camera.near, camera.far = 0.01 * playback.unit, 1000 * playback.unit


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
