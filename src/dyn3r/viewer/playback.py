"""One scene or several on a page, without its controls: stages that keep the same time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.scene import Scene
from dyn3r.scene.upright import FirstView
from dyn3r.viewer.appearance import Look, Parts
from dyn3r.viewer.page import FOV_RAD
from dyn3r.viewer.placement import (
    STAND_ALONE,
    at_unit_size,
    common_first_view,
    label_position,
    side_by_side,
)
from dyn3r.viewer.scene_nodes import Stage
from dyn3r.viewer.trails import find_trails

EVERYTHING = "side by side"


class Show:
    """The stages of a page. One scene keeps its own world; several stand side by side in one."""

    def __init__(
        self, server: Any, scenes: Sequence[Scene], names: Sequence[str], look: Look, parts: Parts
    ) -> None:
        self._server = server
        several = len(scenes) > 1
        self.names = list(names)
        scenes = [at_unit_size(scene) for scene in scenes] if several else list(scenes)
        self.stages = [
            Stage(server, f"/scene_{i}", scene, look, parts) for i, scene in enumerate(scenes)
        ]
        plans = [stage.plan for stage in self.stages]
        self._places = side_by_side(scenes, plans) if several else [STAND_ALONE]
        self._wide_view = common_first_view(plans, self._places) if several else plans[0].first_view
        for stage, place, name in zip(self.stages, self._places, self.names):
            stage.place(place)
            if several:
                stage.set_label(name, label_position(stage.scene, stage.plan))
        self.chosen: int | None = None if several else 0
        self._set_world()

    @classmethod
    def of(
        cls, server: Any, scenes: Scene | Sequence[Scene], names: Sequence[str] | None,
        look: Look, parts: Parts,
    ) -> Show:  # fmt: skip
        """Raises InputError: see `listed`."""
        return cls(server, *listed(scenes, names), look, parts)

    @property
    def choices(self) -> list[str]:
        """What `choose` can be asked for."""
        return [EVERYTHING, *self.names] if len(self.stages) > 1 else self.names

    @property
    def leading(self) -> Stage:
        """The stage whose camera and captions count: the chosen one, or the first."""
        return self.stages[self.chosen or 0]

    @property
    def visible(self) -> list[Stage]:
        """The stages that can be seen."""
        return self.stages if self.chosen is None else [self.stages[self.chosen]]

    @property
    def num_frames(self) -> int:
        """Of the longest visible scene; shorter ones stay at their last frame."""
        return max(stage.plan.num_frames for stage in self.visible)

    @property
    def fps(self) -> float:
        """Of the leading scene."""
        return self.leading.plan.fps

    @property
    def unit(self) -> float:
        """Median depth of the leading scene, in the common world."""
        return self.leading.plan.unit

    @property
    def up_world(self) -> Float[np.ndarray, " 3"]:
        """Up in the common world."""
        stage = self.stages[0]
        return stage.placement.R @ stage.plan.upright.up_world

    @property
    def first_view(self) -> FirstView:
        """Where a browser's camera begins, in the common world."""
        if self.chosen is None:
            return self._wide_view
        stage = self.stages[self.chosen]
        view, place = stage.plan.first_view, stage.placement
        return FirstView(place(view.position), place(view.look_at))

    def T_common_camera(self, t: int) -> Float[np.ndarray, "4 4"]:
        """The leading scene's camera of frame t in the common world."""
        stage = self.leading
        T = stage.plan.T_world_camera[min(t, stage.plan.num_frames - 1)].copy()
        T[:3, 3] = stage.placement(T[:3, 3])
        T[:3, :3] = stage.placement.R @ T[:3, :3]
        return T

    def fov_y_rad(self, t: int) -> float:
        """Vertical field of view of that camera."""
        plan = self.leading.plan
        return float(plan.fov_y_rad[min(t, plan.num_frames - 1)])

    def caption(self, t: int) -> str:
        """Name and time of the leading scene's frame."""
        captions = self.leading.plan.captions
        return captions[min(t, len(captions) - 1)]

    def choose(self, index: int | None) -> None:
        """Show one scene alone, or all of them side by side (None)."""
        assert index is not None or len(self.stages) > 1
        self.chosen = index
        with self._server.atomic():
            for i, stage in enumerate(self.stages):
                stage.root.visible = index is None or i == index
        self._set_world()

    def show_frame(self, t: int) -> None:
        """Show frame t of every visible scene."""
        with self._server.atomic():
            for stage in self.visible:
                stage.show_frame(t)

    def show_parts(self, parts: Parts) -> None:
        """Switch parts on and off; trails are made the first time."""
        for stage in self.stages:
            if parts.trail and not stage.trails:
                stage.set_trails(find_trails(stage.scene))
            stage.show_parts(parts)

    def _set_world(self) -> None:
        view, camera = self.first_view, self._server.initial_camera
        self._server.scene.set_up_direction(tuple(float(x) for x in self.up_world))
        camera.position, camera.look_at, camera.fov = view.position, view.look_at, FOV_RAD
        camera.near, camera.far = 0.01 * self.unit, 1000 * self.unit


def listed(
    scenes: Scene | Sequence[Scene], names: Sequence[str] | None
) -> tuple[list[Scene], list[str]]:
    """Scenes and as many different names.

    Raises:
        InputError: no scene, or names that do not fit.
    """
    found = [scenes] if isinstance(scenes, Scene) else list(scenes)
    if not found:
        raise InputError("there is no scene to view")
    labels = list(names) if names is not None else [f"scene {i + 1}" for i in range(len(found))]
    if len(labels) != len(found) or len({*labels, EVERYTHING}) != len(labels) + 1:
        raise InputError(f"{len(found)} scenes need as many different names, not {labels}")
    return found, labels
