"""Trails: paths of points on moving objects, tracked through the clip by optical flow."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from dyn3r.scene import Scene
from dyn3r.scene.background import depth_edges
from dyn3r.types import Progress, no_progress
from dyn3r.viewer.points import unproject

_GRID_STEP_PX = 10  # spacing of the tracked points
_MAX_ROUND_TRIP_PX = 1.5  # forward-backward error of a track
_MAX_MOTION = 0.25  # median depths per frame; more is a jump between surfaces


class TrailSegments(NamedTuple):
    """Segments of all trails between the previous frame and this one."""

    segments: Float32[np.ndarray, "k 2 3"]
    """Previous and current position of each point, in world coordinates."""
    colors: UInt8[np.ndarray, "k 3"]
    """One colour per tracked point, the same in all frames."""


class _Tracked(NamedTuple):
    """Points that are tracked at one frame."""

    uv: Float[np.ndarray, "k 2"]
    world: Float[np.ndarray, "k 3"]
    colors: UInt8[np.ndarray, "k 3"]


def find_trails(scene: Scene, *, progress: Progress = no_progress) -> list[TrailSegments]:
    """Trail segments of each frame; the first frame has none.

    Points on a grid over the dynamic pixels are tracked with DIS optical flow. A track ends where
    forward and backward flow disagree, or where the target is not dynamic or has no depth. New
    tracks start in grid cells without one. Positions are the scene's own points, so trails show
    the errors of its depth and cameras.
    """
    from dyn3r.flow.dis import DisFlow

    estimator, n = DisFlow(), len(scene)
    usable = _usable(scene, 0)
    tracked = _add_tracks(scene, 0, usable, _no_points())
    out = [_segments(np.zeros((0, 3)), _no_points())]
    for t in range(1, n):
        progress("tracking moving points", t - 1, n)
        before, usable = tracked, _usable(scene, t)
        kept = np.zeros(0, dtype=np.int64)
        if len(before.uv) and usable.any():
            forward = estimator.flow(scene.images[t - 1], scene.images[t])
            backward = estimator.flow(scene.images[t], scene.images[t - 1])
            uv, kept = _track(before.uv, forward, backward, usable)
            world = _world_points(scene, t, uv)
            motion = np.linalg.norm(world - before.world[kept], axis=1)
            continuous = motion < _MAX_MOTION * scene.median_depth
            uv, world, kept = uv[continuous], world[continuous], kept[continuous]
            tracked = _Tracked(uv, world, before.colors[kept])
        else:
            tracked = _no_points()
        out.append(_segments(before.world[kept], tracked))
        tracked = _add_tracks(scene, t, usable, tracked)
    progress("tracking moving points", n, n)
    return out


def _usable(scene: Scene, t: int) -> Bool[np.ndarray, "h w"]:
    """Dynamic pixels with a depth, away from depth discontinuities."""
    usable: np.ndarray = scene.select(t, which="dynamic") & ~depth_edges(scene.depth[t])
    return usable


def _no_points() -> _Tracked:
    return _Tracked(np.zeros((0, 2)), np.zeros((0, 3)), np.zeros((0, 3), np.uint8))


def _segments(before: Float[np.ndarray, "k 3"], tracked: _Tracked) -> TrailSegments:
    segments = np.stack([before, tracked.world], axis=1).astype(np.float32)
    return TrailSegments(segments, tracked.colors)


def _track(
    uv: Float[np.ndarray, "k 2"],
    forward: Float32[np.ndarray, "h w 2"],
    backward: Float32[np.ndarray, "h w 2"],
    usable: Bool[np.ndarray, "h w"],
) -> tuple[Float[np.ndarray, "m 2"], Int[np.ndarray, " m"]]:
    """Pixel coordinates in the next frame, and indices of the points that are still tracked."""
    height, width = usable.shape
    target = uv + _sample(forward, uv)
    column, row = np.rint(target).astype(int).T
    good = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    good[good] = usable[row[good], column[good]]
    returned = target[good] + _sample(backward, target[good])
    good[good] = np.linalg.norm(returned - uv[good], axis=1) < _MAX_ROUND_TRIP_PX
    return target[good], np.flatnonzero(good)


def _sample(
    flow: Float32[np.ndarray, "h w 2"], uv: Float[np.ndarray, "k 2"]
) -> Float32[np.ndarray, "k 2"]:
    """Flow at pixel coordinates, by nearest neighbour."""
    column, row = np.rint(uv).astype(int).T
    values: np.ndarray = flow[np.clip(row, 0, len(flow) - 1), np.clip(column, 0, flow.shape[1] - 1)]
    return values


def _world_points(scene: Scene, t: int, uv: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "k 3"]:
    """World points at pixel coordinates, with the depth of the nearest pixel."""
    column, row = np.rint(uv).astype(int).T
    return unproject(uv, scene.depth[t, row, column], scene.K[t], scene.T_world_camera[t])


def _add_tracks(
    scene: Scene, t: int, usable: Bool[np.ndarray, "h w"], tracked: _Tracked
) -> _Tracked:
    """The tracked points, and a new one in each grid cell without one."""
    import cv2

    rows, columns = np.nonzero(usable)
    offset = _GRID_STEP_PX // 2
    on_grid = (rows % _GRID_STEP_PX == offset) & (columns % _GRID_STEP_PX == offset)
    uv = np.stack([columns[on_grid], rows[on_grid]], axis=-1).astype(float)
    taken = {tuple(cell) for cell in (tracked.uv // _GRID_STEP_PX).astype(int)}
    free = np.array([tuple(cell) not in taken for cell in (uv // _GRID_STEP_PX).astype(int)], bool)
    uv = uv[free.nonzero()[0]]
    # The colour is that of the row where a track starts: neighbours differ a little.
    level = (255 * uv[:, 1] / max(1, usable.shape[0] - 1)).astype(np.uint8)[:, None]
    colors = np.zeros((0, 3), np.uint8)
    if len(level):
        colors = cv2.applyColorMap(level, cv2.COLORMAP_RAINBOW)[:, 0, ::-1]
    return _Tracked(
        np.concatenate([tracked.uv, uv]),
        np.concatenate([tracked.world, _world_points(scene, t, uv)]),
        np.concatenate([tracked.colors, colors]),
    )
