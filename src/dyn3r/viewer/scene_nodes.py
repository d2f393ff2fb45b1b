"""Puts a scene on a viser page. Every node is made once; playing only switches visibility."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from dyn3r.scene import Scene
from dyn3r.viewer.appearance import Look, Parts
from dyn3r.viewer.layout import (
    MAX_PYRAMIDS,
    PlaybackPlan,
    camera_path_segments,
    camera_segments,
    plan_playback,
)
from dyn3r.viewer.packing import Packed, add_cloud, quat_wxyz
from dyn3r.viewer.placement import STAND_ALONE, Placement
from dyn3r.viewer.points import ScenePoints
from dyn3r.viewer.trails import Trail

_ORANGE, _GREY = (255, 140, 0), (120, 120, 120)


class Stage:
    """The nodes of one scene below one root node."""

    def __init__(self, server: Any, root: str, scene: Scene, look: Look, parts: Parts) -> None:
        self._api, self._root, self._atomic = server.scene, root, server.atomic
        self.scene, self.parts = scene, parts
        self.plan: PlaybackPlan = plan_playback(scene)
        self.points = ScenePoints(scene, look)
        self.placement = STAND_ALONE
        self.frame = 0
        self.point_factor = 1.0
        self.following = False
        self._lock = threading.RLock()
        self.trails: list[Any] = []
        with self._atomic():
            self._make_groups()
            self.background = [
                self._cloud(f"{root}/background/{c}", cloud)
                for c, cloud in enumerate(self.points.background())
            ]
            self.moving = [
                self._cloud(f"{root}/moving/{t}", cloud, visible=t == 0)
                for t, cloud in enumerate(self.points.moving())
            ]
            self._make_cameras()
            self.pictures = [self._picture(t) for t in range(self.plan.num_frames)]
            self._apply()

    def show_frame(self, t: int) -> None:
        """Show frame t, or the last one if there are not so many."""
        with self._lock:
            self.frame = min(max(t, 0), self.plan.num_frames - 1)
            self._apply()

    def show_parts(self, parts: Parts) -> None:
        """Switch parts on and off."""
        with self._lock:
            self.parts = parts
            self._apply()

    def set_following(self, following: bool) -> None:
        """Hide what would stand in the way of somebody who looks through the camera."""
        with self._lock:
            self.following = following
            self._apply()

    def set_look(self, look: Look) -> None:
        """Other points or colours in the same nodes; only arrays that differ are sent."""
        changed = self.points.set_look(look)
        background = self.points.background() if changed.background else []
        moving = self.points.moving() if changed.moving else []
        with self._lock, self._atomic():
            for nodes, clouds in ((self.background, background), (self.moving, moving)):
                for node, cloud in zip(nodes, clouds):
                    node.points, node.colors = cloud.points, cloud.colors

    def set_point_size(self, factor: float) -> None:
        """Point size as a multiple of the one that closes the gaps."""
        with self._lock, self._atomic():
            self.point_factor = factor
            for node in (*self.background, *self.moving):
                node.point_size = factor * self.plan.point_size / self.plan.unit

    def set_trails(self, trails: Sequence[Trail]) -> None:
        """Add the trails that `Parts.trail` shows."""
        with self._lock, self._atomic():
            for t, trail in enumerate(trails):
                segments, colors = trail.segments, np.repeat(trail.colors[:, None], 2, axis=1)
                if len(segments) == 0:  # a segment of no length keeps the node alive
                    segments = np.zeros((1, 2, 3), np.float32)
                    colors = np.zeros((1, 2, 3), np.uint8)
                self.trails.append(
                    self._lines(f"{self._root}/trails/{t}", segments, colors, 2, visible=False)
                )
            self._apply()

    def place(self, placement: Placement) -> None:
        """Stand somewhere else, e.g. beside another scene."""
        with self._lock, self._atomic():
            self.placement = placement
            self.root.wxyz = quat_wxyz(placement.R)
            self.root.position = placement.position

    def set_label(self, text: str, position: np.ndarray) -> None:
        """Float a name over the scene."""
        self.label = self._api.add_label(
            f"{self._root}/label", text, position=position, anchor="bottom-center"
        )

    # --- how it is done -------------------------------------------------------------------------

    def _apply(self) -> None:
        """Bring the visibility of all nodes to what frame and parts say; only changes are sent."""
        parts, t, n = self.parts, self.frame, self.plan.num_frames
        together, trails = parts.frames(t, n), parts.trails(t)
        with self._atomic():
            for i, node in enumerate(self.moving):
                node.visible = i in together
            for i, node in enumerate(self.pictures):
                node.visible = i in together
            for frames, node in zip(self.points.chunks, self.background):
                node.visible = not parts.until_now or frames[0] <= t
            for i, node in enumerate(self.trails):
                node.visible = i in trails
            self._groups["background"].visible = parts.background
            self._groups["moving"].visible = parts.moving
            self._groups["pictures"].visible = parts.picture and not self.following
            self.cameras.visible = parts.cameras and not self.following
            self.path.visible = parts.path and not self.following
            self.axes.visible = parts.axes

    def _make_groups(self) -> None:
        root, unit = self._root, self.plan.unit
        self.root = self._api.add_frame(root, show_axes=False)
        names = ("background", "moving", "pictures", "trails")
        self._groups = {
            name: self._api.add_frame(f"{root}/{name}", show_axes=False) for name in names
        }
        self.axes = self._api.add_frame(
            f"{root}/axes", axes_length=0.1 * unit, axes_radius=0.0015 * unit, visible=False
        )

    def _cloud(self, name: str, cloud: Packed, visible: bool = True) -> Any:
        return add_cloud(self._api, name, cloud, point_size=self.plan.point_size, visible=visible)

    def _picture(self, t: int) -> Any:
        plan = self.plan
        return self._api.add_camera_frustum(
            f"{self._root}/pictures/{t}",
            fov=float(plan.fov_y_rad[t]),
            aspect=plan.aspect,
            scale=0.07 * plan.unit,
            thickness=2.0,
            thickness_units="screen",
            color=_ORANGE,
            image=plan.thumbnails[t],
            jpeg_quality=80,
            wxyz=quat_wxyz(plan.T_world_camera[t, :3, :3]),
            position=plan.T_world_camera[t, :3, 3],
            visible=t == 0,
        )

    def _make_cameras(self) -> None:
        plan, root = self.plan, self._root
        every = max(1, -(-plan.num_frames // MAX_PYRAMIDS))
        pyramids = camera_segments(plan, range(0, plan.num_frames, every))
        self.cameras = self._lines(f"{root}/cameras", pyramids, _GREY, 1)
        # A path of one camera has no segment; a segment of no length keeps the node alive.
        path = camera_path_segments(plan)
        if len(path) == 0:
            path = np.repeat(plan.T_world_camera[:1, None, :3, 3], 2, axis=1)
        self.path = self._lines(f"{root}/path", path, _ORANGE, 3)

    def _lines(
        self, name: str, segments: np.ndarray, colour: Any, pixels: float, visible: bool = True
    ) -> Any:
        return self._api.add_line_segments(
            name,
            segments.astype(np.float32),
            colour,
            thickness=pixels,
            thickness_units="screen",
            visible=visible,
        )
