"""viser nodes of a scene. Every node is created once; playback only switches visibility."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.scene import Scene
from dyn3r.viewer.appearance import Appearance, Visibility
from dyn3r.viewer.drawn_nodes import drawn_nodes
from dyn3r.viewer.frustums import (
    CAMERA_COLOR,
    IMAGE_SCALE,
    MAX_FRUSTUMS,
    camera_path_segments,
    frustum_segments,
)
from dyn3r.viewer.layout import SceneLayout
from dyn3r.viewer.packing import quat_wxyz
from dyn3r.viewer.placement import IDENTITY, Placement
from dyn3r.viewer.points import ChangedClouds, ScenePoints
from dyn3r.viewer.trails import TrailSegments

_GREY = (120, 120, 120)


class SceneNodes:
    """Nodes of one scene below one root node."""

    def __init__(
        self, target: Any, root: str, layout: SceneLayout, points: ScenePoints,
        visibility: Visibility,
    ) -> None:  # fmt: skip
        """Create all nodes below the node `root` of viser's server or of one of its clients.

        Frame 0 is shown. The appearance of `points` changes with that of the nodes.
        """
        self._api, self._root, self._atomic = target.scene, root, target.atomic
        self.visibility = visibility
        self.layout, self.points = layout, points
        self.placement = IDENTITY
        self.frame = 0
        self.inside = False
        self._frustum_scale, self._factor = 1.0, 1.0
        self._lock = threading.RLock()
        self.trails: list[Any] = []
        with self._atomic():
            self._add_groups()
            self._drawn = drawn_nodes(self._api, root, points, self._factor)
            self._style = points.appearance.style
            self._add_cameras()
            self.images = [self._add_image(t) for t in range(self.layout.num_frames)]
            self._update_visibility()

    @property
    def background(self) -> list[Any]:
        """Nodes of the background."""
        return self._drawn.background

    @property
    def moving(self) -> list[Any]:
        """Nodes of the moving objects, one per frame."""
        return self._drawn.moving

    @property
    def scene(self) -> Scene:
        """The scene, with the masks that are shown."""
        return self.points.scene

    def show_frame(self, t: int) -> None:
        """Show frame t, clamped to the frames of the scene."""
        with self._lock:
            self.frame = min(max(t, 0), self.layout.num_frames - 1)
            self._update_visibility()

    def set_visibility(self, visibility: Visibility) -> None:
        """Show and hide elements."""
        with self._lock:
            self.visibility = visibility
            self._update_visibility()

    def set_inside(self, *, inside: bool) -> None:
        """Hide cameras, path and images while the browser is at the clip's camera."""
        with self._lock:
            if inside != self.inside:
                self.inside = inside
                self._update_visibility()

    def set_appearance(self, appearance: Appearance) -> None:
        """Replace points or colours in the same nodes; only arrays that differ are sent."""
        self._replace(self.points.set_appearance(appearance))

    def set_masks(self, scene: Scene) -> None:
        """Take the masks of another version of the same scene."""
        self._replace(self.points.set_masks(scene))

    def _replace(self, changed: ChangedClouds) -> None:
        """Show the new points; in another style with other nodes."""
        with self._lock:
            if self.points.appearance.style == self._style:
                # the moving objects first: they are selected at once, the background takes a second
                for part in (changed._replace(background=False), changed._replace(moving=False)):
                    with self._atomic():
                        self._drawn.replace(part)
                        self._update_visibility()
                return
            with self._atomic():
                self._drawn.remove()
                self._drawn = drawn_nodes(self._api, self._root, self.points, self._factor)
                self._style = self.points.appearance.style
                self._update_visibility()

    def set_point_size(self, factor: float) -> None:
        """Scale the points; 1 closes the gaps between neighbours."""
        with self._lock, self._atomic():
            self._factor = factor
            self._drawn.set_size(factor)

    def set_frustums(self, size: float, thickness: float) -> None:
        """Scale all frustums, and set the width of their lines and of the path in pixels."""
        with self._lock, self._atomic():
            for node in self.images:
                node.scale, node.thickness = size * IMAGE_SCALE * self.layout.unit, thickness
            self.path.thickness, self.cameras.thickness = 1.5 * thickness, 0.5 * thickness
            if size != self._frustum_scale:
                self._frustum_scale = size
                self.cameras.points = self._frustums().astype(np.float32)

    def set_trails(self, trails: Sequence[TrailSegments]) -> None:
        """Add the trails that `Visibility.trail_length` shows, one element per frame."""
        with self._lock, self._atomic():
            for t, trail in enumerate(trails):
                segments, colors = trail.segments, np.repeat(trail.colors[:, None], 2, axis=1)
                if len(segments) == 0:  # viser needs a segment: one of length 0
                    segments = np.zeros((1, 2, 3), np.float32)
                    colors = np.zeros((1, 2, 3), np.uint8)
                self.trails.append(
                    self._add_lines(
                        f"{self._root}/trails/{t}", segments, colors, 2.0, visible=False
                    )
                )
            self._update_visibility()

    def set_placement(self, placement: Placement) -> None:
        """Move the scene in the common world."""
        with self._lock, self._atomic():
            self.placement = placement
            self.root.wxyz = quat_wxyz(placement.R)
            self.root.position = placement.position

    def set_label(self, text: str, position: Float[np.ndarray, " 3"]) -> None:
        """Add a label with the scene's name; `position` is in the scene's own world."""
        self.label = self._api.add_label(
            f"{self._root}/label", text, position=position, anchor="bottom-center"
        )

    # --- implementation -------------------------------------------------------------------------

    def _update_visibility(self) -> None:
        """Set the visibility of all nodes for the current frame; viser sends only changes."""
        shown, t, n = self.visibility, self.frame, self.layout.num_frames
        frames, trails = shown.visible_frames(t, n), shown.visible_trails(t)
        with self._atomic():
            self._drawn.show(frames, until=t if shown.up_to_current else None)
            for i, node in enumerate(self.images):
                node.visible = i in frames
            for i, node in enumerate(self.trails):
                node.visible = i in trails
            self.groups["background"].visible = shown.background
            self.groups["moving"].visible = shown.moving
            self.groups["images"].visible = shown.image and not self.inside
            self.cameras.visible = shown.cameras and not self.inside
            self.path.visible = shown.path and not self.inside
            self.axes.visible = shown.axes

    def _add_groups(self) -> None:
        root, unit = self._root, self.layout.unit
        self.root = self._api.add_frame(root, show_axes=False)
        names = ("background", "moving", "images", "trails")
        self.groups = {
            name: self._api.add_frame(f"{root}/{name}", show_axes=False) for name in names
        }
        self.axes = self._api.add_frame(
            f"{root}/axes", axes_length=0.1 * unit, axes_radius=0.0015 * unit, visible=False
        )

    def _add_image(self, t: int) -> Any:
        layout = self.layout
        return self._api.add_camera_frustum(
            f"{self._root}/images/{t}",
            fov=float(layout.fov_y_rad[t]),
            aspect=layout.aspect,
            scale=IMAGE_SCALE * layout.unit,
            thickness=2.0,
            thickness_units="screen",
            color=CAMERA_COLOR,
            image=layout.thumbnails[t],
            jpeg_quality=80,
            wxyz=quat_wxyz(layout.T_world_camera[t, :3, :3]),
            position=layout.T_world_camera[t, :3, 3],
            visible=t == 0,
        )

    def _add_cameras(self) -> None:
        layout, root = self.layout, self._root
        self.cameras = self._add_lines(f"{root}/cameras", self._frustums(), _GREY, 1.0)
        path = camera_path_segments(layout)
        if len(path) == 0:  # viser needs a segment: one of length 0
            path = np.repeat(layout.T_world_camera[:1, None, :3, 3], 2, axis=1)
        self.path = self._add_lines(f"{root}/path", path, CAMERA_COLOR, 3.0)

    def _frustums(self) -> np.ndarray:
        n = self.layout.num_frames
        return frustum_segments(
            self.layout, range(0, n, max(1, -(-n // MAX_FRUSTUMS))), self._frustum_scale
        )

    def _add_lines(
        self, name: str, segments: np.ndarray, color: Any, width_px: float, *, visible: bool = True
    ) -> Any:
        return self._api.add_line_segments(
            name,
            segments.astype(np.float32),
            color,
            thickness=width_px,
            thickness_units="screen",
            visible=visible,
        )
