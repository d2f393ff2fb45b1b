"""Surfaces through the pixels of depth maps, cut at depth edges.

The pixels of a frame are the vertices; neighbours are joined. The static background comes from a
few frames: a later one adds only what the earlier ones do not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from dyn3r.scene.background import grow
from dyn3r.scene.scene import Scene
from dyn3r.scene.visibility_rule import homography

KEYFRAMES = 8
"""Largest number of frames that the background is made of."""
MAX_JUMP = 0.05
"""Relative difference of depth above which neighbours are not joined, and up to which two frames
see the same surface."""
_STEEP, _FLAT = 0.15, 0.02
"""Planes are joined up to the first difference, if the second difference of inverse depth (as a
share of it) is below the second."""
_OVERLAP_PX = 4
"""Overlap of the surfaces of two frames, which depth errors would otherwise part."""
MASK_MARGIN_PX = 2
"""Pixels around dynamic ones that are left out of the background."""


class Surface(NamedTuple):
    """Surface through pixels of one frame."""

    frame: int
    """The frame."""
    pixels: Int[np.ndarray, " k"]
    """Row-major indices of the pixels that are vertices, ascending."""
    points_world: Float32[np.ndarray, "k 3"]
    """The vertices."""
    colors: UInt8[np.ndarray, "k 3"]
    """The image at the vertices, sRGB."""
    quads: Int[np.ndarray, "m 4"]
    """Indices of vertices, counter-clockwise in the image (x right, y down)."""

    @property
    def triangles(self) -> Int[np.ndarray, "l 3"]:
        """Indices of vertices, two triangles for each of `quads`."""
        return np.concatenate([self.quads[:, [0, 1, 2]], self.quads[:, [0, 2, 3]]])


def surface(scene: Scene, t: int, mask: Bool[np.ndarray, "h w"], step: int = 1) -> Surface:
    """Surface through every `step`-th pixel of a mask of frame t, cut at depth edges."""
    thin = np.zeros_like(mask)
    thin[::step, ::step] = mask[::step, ::step]
    index = np.full(mask.shape, -1, np.int64)
    index[thin] = np.arange(thin.sum())
    index = index[::step, ::step]
    depth = scene.depth[t, ::step, ::step]
    h, w = depth.shape
    corners = [(0, 0), (1, 0), (1, 1), (0, 1)]
    at = [index[y : h - 1 + y, x : w - 1 + x] for y, x in corners]
    z = np.stack([depth[y : h - 1 + y, x : w - 1 + x] for y, x in corners])
    jump = np.ptp(z, axis=0) / np.maximum(z.min(axis=0), 1e-12)
    bend = _bend(depth)
    bend = np.max([bend[y : h - 1 + y, x : w - 1 + x] for y, x in corners], axis=0)
    smooth = (jump < MAX_JUMP * step) | ((jump < _STEEP * step) & (bend < _FLAT * step))
    whole = np.all([i >= 0 for i in at], axis=0) & smooth
    used, quads = np.unique(np.stack([i[whole] for i in at], axis=-1), return_inverse=True)
    cloud = scene.points_of(t, thin)
    return Surface(
        t, np.flatnonzero(thin)[used], cloud.points_world[used], cloud.colors[used],
        quads.reshape(-1, 4),
    )  # fmt: skip


def _bend(depth: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Second difference of inverse depth relative to it; 0 on planes, which may be steep."""
    inverse = 1 / np.maximum(depth, 1e-12)
    bend = np.zeros_like(depth)
    bend[1:-1] = np.abs(inverse[:-2] + inverse[2:] - 2 * inverse[1:-1])
    across = np.abs(inverse[:, :-2] + inverse[:, 2:] - 2 * inverse[:, 1:-1])
    bend[:, 1:-1] = np.maximum(bend[:, 1:-1], across)
    return np.asarray(bend / inverse, np.float32)


def background_masks(
    scene: Scene, chosen: Sequence[Bool[np.ndarray, "h w"]], margin: int = MASK_MARGIN_PX
) -> dict[int, Bool[np.ndarray, "h w"]]:
    """Static pixels of a few frames, the middle one first, that the frames before do not show.

    `chosen`: pixels of each frame that may be used; `margin`: pixels around dynamic ones that are
    left out.
    """
    n = len(scene)
    frames = np.unique(np.linspace(0, n - 1, min(n, KEYFRAMES)).round().astype(int))
    found: dict[int, np.ndarray] = {}
    for t in sorted(map(int, frames), key=lambda t: abs(t - n // 2)):
        mask = chosen[t] & ~grow(scene.dynamic[t], margin)
        new = mask.copy()
        for s, shown in found.items():
            new &= ~_shown(scene, t, s, mask, shown)
        found[t] = grow(new, _OVERLAP_PX) & mask
    return found


def _shown(
    scene: Scene, t: int, s: int, mask: Bool[np.ndarray, "h w"], shown: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Pixels of frame t whose surface is among the pixels `shown` of frame s."""
    h, w = mask.shape
    rows, columns = np.nonzero(mask)
    z = scene.depth[t, rows, columns].astype(np.float64)
    A, b = homography(t, s, scene.K, scene.T_world_camera)
    q = (np.stack([columns, rows, np.ones_like(rows)], -1) @ A.T.astype(float)) * z[:, None] + b
    front = q[:, 2] > 1e-6 * z
    depth = np.where(front, q[:, 2], 1)
    column, row = np.rint(q[:, 0] / depth), np.rint(q[:, 1] / depth)
    front &= (column >= 0) & (column < w) & (row >= 0) & (row < h)
    row, column = (np.where(front, x, 0).astype(int) for x in (row, column))
    other = scene.depth[s, row, column]
    same = front & shown[row, column] & (np.abs(other - depth) < MAX_JUMP * depth)
    found = np.zeros((h, w), bool)
    found[rows[same], columns[same]] = True
    return found
