"""Measuring with the mouse: depth and coordinates of a point, distance between two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dyn3r.viewer.playback import Playback
from dyn3r.viewer.points import pixel_points
from dyn3r.viewer.scene_nodes import SceneNodes

_RADIUS_RAD = 0.006
"""Angle between the clicked ray and a point, up to which the point is hit: about five pixels."""
_BEHIND = 0.02
"""Points this much farther than the nearest hit, as a share of its distance, are candidates."""
_COLORS = ((255, 210, 60), (60, 200, 255))


class Hit(NamedTuple):
    """A point of the scene that was clicked."""

    frame: int
    """Frame that the point comes from."""
    pixel: int
    """Its pixel, row-major."""
    point: Float[np.ndarray, " 3"]
    """World coordinates of the scene."""


def nearest_hit(
    points: Float[np.ndarray, "k 3"],
    origin: Float[np.ndarray, " 3"],
    direction: Float[np.ndarray, " 3"],
    gap: float = 0.0,
) -> int | None:
    """Index of the point that a click on a ray hits; None if there is none.

    Of the points within a small angle of the ray, or nearer to it than `gap`, the front ones count,
    and of these the one at the smallest angle.
    """
    away = points - origin
    along = away @ (direction / np.linalg.norm(direction))
    across = np.sqrt(np.maximum((away * away).sum(axis=1) - along * along, 0))
    angle = across / np.maximum(along, 1e-12)
    near = np.flatnonzero((along > 0) & ((angle < _RADIUS_RAD) | (across < gap)))
    if len(near) == 0:
        return None
    front = near[along[near] <= along[near].min() * (1 + _BEHIND)]
    return int(front[np.argmin(angle[front])])


def find_hit(
    nodes: SceneNodes, origin: Float[np.ndarray, " 3"], direction: Float[np.ndarray, " 3"]
) -> Hit | None:
    """Visible point of a scene that a ray hits; the ray is in the scene's own world."""
    t, shown = nodes.frame, nodes.visibility
    frames: list[tuple[int, np.ndarray]] = []
    if shown.background:
        static = nodes.points.shown_static
        frames += [part for part in static if not shown.up_to_current or part[0] <= t]
    if shown.moving:
        frames.append((t, nodes.points.shown_moving(t)))
    if not frames:
        return None
    points = [pixel_points(nodes.scene, i, chosen) for i, chosen in frames]
    gap = 0.7 * nodes.layout.spacing if nodes.points.appearance.style == "surface" else 0.0
    index = nearest_hit(np.concatenate(points), origin, direction, gap)
    if index is None:
        return None
    ends = np.cumsum([len(p) for p in points])
    which = int(np.searchsorted(ends, index, side="right"))
    frame, chosen = frames[which]
    within = index - (int(ends[which - 1]) if which else 0)
    return Hit(frame, int(chosen[within]), points[which][within].astype(np.float64))


def clicked_hit(event: Any, playback: Playback) -> Hit | None:
    """Point of the leading scene that a click of viser's hits."""
    place = playback.leading.placement
    origin = (np.array(event.ray_origin) - place.position) @ place.R
    return find_hit(playback.leading, origin, np.array(event.ray_direction) @ place.R)


class Picker:
    """Clicks on the points of a page. While it is on, a click measures."""

    def __init__(self, target: Any, playback: Playback, show: Callable[[str], None]) -> None:
        """`show` gets the text of a measurement; empty: none."""
        self._target, self._playback, self._show = target, playback, show
        self._hits: list[Hit] = []
        self._marks: list[Any] = []
        self._enabled = False

    def set_enabled(self, *, enabled: bool) -> None:
        """Measure with clicks, or stop and remove the marks."""
        if enabled == self._enabled:
            return
        self._enabled = enabled
        if enabled:
            self._target.scene.on_click()(self._clicked)
            self._show("click a point")
        else:
            self._target.scene.remove_click_callback(self._clicked)
            self._clear()
            self._show("")

    def remove(self) -> None:
        """Stop and remove the marks."""
        self.set_enabled(enabled=False)

    def _clicked(self, event: Any) -> None:
        nodes = self._playback.leading
        hit = clicked_hit(event, self._playback)
        if hit is None:
            return
        if len(self._hits) >= 2:
            self._clear()
        self._hits.append(hit)
        self._mark(hit)
        self._show(describe(nodes, self._hits))

    def _mark(self, hit: Hit) -> None:
        nodes = self._playback.leading
        place, unit = nodes.placement, nodes.layout.unit
        number = len(self._hits)
        with self._target.atomic():
            self._marks.append(
                self._target.scene.add_icosphere(
                    f"/measure/{number}",
                    radius=0.006 * unit,
                    color=_COLORS[number - 1],
                    position=place(hit.point),
                )
            )
            if number == 2:
                ends = np.stack([place(h.point) for h in self._hits])[None].astype(np.float32)
                self._marks.append(
                    self._target.scene.add_line_segments(
                        "/measure/line", ends, _COLORS[0], thickness=2.0, thickness_units="screen"
                    )
                )

    def _clear(self) -> None:
        self._hits.clear()
        for mark in self._marks:
            mark.remove()
        self._marks.clear()


def describe(nodes: SceneNodes, hits: list[Hit]) -> str:
    """Depth and coordinates of the last point, and the distance of two points."""
    scene, hit = nodes.scene, hits[-1]
    unit = str(scene.metadata.get("unit", "arbitrary units"))
    depth = float(scene.depth[hit.frame].reshape(-1)[hit.pixel])
    row, column = divmod(hit.pixel, scene.size_hw[1])
    x, y, z = hit.point
    text = (
        f"depth {depth:.4g}, x {x:.4g}, y {y:.4g}, z {z:.4g} ({unit}); "
        f"{scene.names[hit.frame]}, column {column}, row {row}"
    )
    if len(hits) == 2:
        distance = float(np.linalg.norm(hits[0].point - hits[1].point))
        text = f"distance {distance:.4g} ({unit}); second point: {text}"
    return text
