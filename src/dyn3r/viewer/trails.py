"""Trails: where the points of moving things went, followed through the clip by optical flow."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from dyn3r.scene import Scene
from dyn3r.scene.background import depth_edges
from dyn3r.types import Progress, no_progress

_SPACING = 10  # pixels between the points that are followed
_AGREE_PX = 1.5  # forward and back must meet within this
_FURTHEST = 0.25  # median depths a point may go in one frame; more is a jump between surfaces


class Trail(NamedTuple):
    """The piece of all trails between the frame before and this one."""

    segments: Float32[np.ndarray, "k 2 3"]
    """From where a point was to where it is, in world coordinates."""
    colors: UInt8[np.ndarray, "k 3"]
    """One colour for each followed point, the same in all frames."""


class _Followed(NamedTuple):
    uv: Float[np.ndarray, "k 2"]
    world: Float[np.ndarray, "k 3"]
    colors: UInt8[np.ndarray, "k 3"]


def find_trails(scene: Scene, *, progress: Progress = no_progress) -> list[Trail]:
    """One piece for each frame (empty for the first).

    Points on a grid over the moving pixels are followed with DIS optical flow as long as flow
    there and back agree and the target is moving and has a depth; where none is left new ones
    begin. Positions are the scene's own points, so trails show its depth and cameras, too.
    """
    from dyn3r.flow.dis import DisFlow

    estimator, n = DisFlow(), len(scene)
    usable = _usable(scene, 0)
    followed = _begin(scene, 0, usable, _nothing())
    out = [_piece(np.zeros((0, 3)), _nothing())]
    for t in range(1, n):
        progress("following moving points", t - 1, n)
        before, usable = followed, _usable(scene, t)
        kept = np.zeros(0, dtype=np.int64)
        if len(before.uv) and usable.any():
            there = estimator.flow(scene.images[t - 1], scene.images[t])
            back = estimator.flow(scene.images[t], scene.images[t - 1])
            uv, kept = _follow(before.uv, there, back, usable)
            world = _world(scene, t, uv)
            near = np.linalg.norm(world - before.world[kept], axis=1)
            stays = near < _FURTHEST * scene.median_depth
            uv, world, kept = uv[stays], world[stays], kept[stays]
            followed = _Followed(uv, world, before.colors[kept])
        else:
            followed = _nothing()
        out.append(_piece(before.world[kept], followed))
        followed = _begin(scene, t, usable, followed)
    progress("following moving points", n, n)
    return out


def _usable(scene: Scene, t: int) -> Bool[np.ndarray, "h w"]:
    return scene.select(t, which="dynamic") & ~depth_edges(scene.depth[t])


def _nothing() -> _Followed:
    return _Followed(np.zeros((0, 2)), np.zeros((0, 3)), np.zeros((0, 3), np.uint8))


def _piece(before: Float[np.ndarray, "k 3"], followed: _Followed) -> Trail:
    segments = np.stack([before, followed.world], axis=1).astype(np.float32)
    return Trail(segments, followed.colors)


def _follow(
    uv: Float[np.ndarray, "k 2"],
    there: Float32[np.ndarray, "h w 2"],
    back: Float32[np.ndarray, "h w 2"],
    usable: Bool[np.ndarray, "h w"],
) -> tuple[Float[np.ndarray, "m 2"], Int[np.ndarray, " m"]]:
    """Where the points are in the next frame, and which of them are still there."""
    height, width = usable.shape
    target = uv + _at(there, uv)
    column, row = np.rint(target).astype(int).T
    good = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    good[good] = usable[row[good], column[good]]
    again = target[good] + _at(back, target[good])
    good[good] = np.linalg.norm(again - uv[good], axis=1) < _AGREE_PX
    return target[good], np.flatnonzero(good)


def _at(field: Float32[np.ndarray, "h w 2"], uv: Float[np.ndarray, "k 2"]) -> np.ndarray:
    """The field at these places (nearest pixel)."""
    column, row = np.rint(uv).astype(int).T
    return field[np.clip(row, 0, len(field) - 1), np.clip(column, 0, field.shape[1] - 1)]


def _world(scene: Scene, t: int, uv: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "k 3"]:
    column, row = np.rint(uv).astype(int).T
    K, T = scene.K[t], scene.T_world_camera[t]
    z = scene.depth[t, row, column].astype(np.float64)
    x, y = (uv[:, 0] - K[0, 2]) / K[0, 0] * z, (uv[:, 1] - K[1, 2]) / K[1, 1] * z
    return np.stack([x, y, z], axis=-1) @ T[:3, :3].T + T[:3, 3]


def _begin(scene: Scene, t: int, usable: Bool[np.ndarray, "h w"], known: _Followed) -> _Followed:
    """The points that are followed already, and new ones in the cells that have none."""
    import cv2

    rows, columns = np.nonzero(usable)
    on_grid = (rows % _SPACING == _SPACING // 2) & (columns % _SPACING == _SPACING // 2)
    uv = np.stack([columns[on_grid], rows[on_grid]], axis=-1).astype(float)
    taken = {tuple(cell) for cell in (known.uv // _SPACING).astype(int)}
    free = np.array([tuple(cell) not in taken for cell in (uv // _SPACING).astype(int)], bool)
    uv = uv[free.nonzero()[0]]
    # Colour by the row where a point began: neighbours differ a little, head and feet a lot.
    level = (255 * uv[:, 1] / max(1, usable.shape[0] - 1)).astype(np.uint8)[:, None]
    colors = np.zeros((0, 3), np.uint8)
    if len(level):
        colors = cv2.applyColorMap(level, cv2.COLORMAP_RAINBOW)[:, 0, ::-1]
    return _Followed(
        np.concatenate([known.uv, uv]),
        np.concatenate([known.world, _world(scene, t, uv)]),
        np.concatenate([known.colors, colors]),
    )
