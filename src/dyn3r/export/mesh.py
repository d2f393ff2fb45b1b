"""Mesh: surfaces of the depth maps, cut at depth edges, with vertex colours, as GLB.

The pixels of a frame are the vertices, and neighbours are joined. The static background comes from
a few frames: a later one adds only what the earlier ones do not show. The dynamic pixels of every
frame are a surface of their own, shown at its time. Axes and animation are those of `glb`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt32

from dyn3r.export.clouds import select_pixels
from dyn3r.export.glb import Part, document_bytes
from dyn3r.export.options import ExportOptions
from dyn3r.scene import Scene
from dyn3r.scene.background import grow
from dyn3r.scene.visibility_rule import homography
from dyn3r.types import Progress

DEFAULT_VERTICES = 1_000_000
KEYFRAMES = 8
"""Largest number of frames that the background is made of."""
_MAX_JUMP = 0.05
"""Relative difference of depth above which neighbours are not joined, and up to which two frames
see the same surface."""
_MASK_MARGIN_PX = 2
"""Pixels around dynamic ones that are left out of the background."""


def write_mesh(scene: Scene, path: Path, options: ExportOptions, progress: Progress) -> None:
    """Write one .glb file."""
    static, moving = mesh_parts(scene, options, progress)
    path.write_bytes(document_bytes(scene, static, moving))


def mesh_parts(scene: Scene, options: ExportOptions, progress: Progress) -> tuple[Part, list[Part]]:
    """Surface of the background, and that of the dynamic pixels of each frame."""
    chosen = select_pixels(scene, options)
    background = _background(scene, chosen)
    moving = [mask & scene.dynamic[t] for t, mask in enumerate(chosen)]
    count = sum(int(mask.sum()) for mask in (*background.values(), *moving))
    step = max(1, int(np.ceil(np.sqrt(count / (options.max_points or DEFAULT_VERTICES)))))
    parts = []
    for t, mask in enumerate(moving):
        progress("building surfaces", t, len(scene))
        parts.append(surface(scene, t, mask, step))
    static = _joined([surface(scene, t, mask, step) for t, mask in background.items()])
    progress("building surfaces", len(scene), len(scene))
    return static, parts


def surface(scene: Scene, t: int, mask: Bool[np.ndarray, "h w"], step: int) -> Part:
    """Surface through every `step`-th pixel of a mask of frame t, cut at depth edges."""
    mask = mask[::step, ::step]
    index = np.full(mask.shape, -1, np.int64)
    index[mask] = np.arange(mask.sum())
    depth = scene.depth[t, ::step, ::step]
    corners = [(0, 0), (1, 0), (1, 1), (0, 1)]  # counter-clockwise in the image, x right, y down
    h, w = mask.shape
    at = [index[y : h - 1 + y, x : w - 1 + x] for y, x in corners]
    z = np.stack([depth[y : h - 1 + y, x : w - 1 + x] for y, x in corners])
    whole = np.all([i >= 0 for i in at], axis=0) & (
        np.ptp(z, axis=0) < _MAX_JUMP * z.min(axis=0) * step
    )
    a, b, c, d = (i[whole] for i in at)
    triangles = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    used, triangles = np.unique(triangles, return_inverse=True)
    full = np.zeros(scene.size_hw, bool)
    full[::step, ::step] = mask
    cloud = scene.points_of(t, full)
    return Part(
        cloud.points_world[used], cloud.colors[used],
        triangles.reshape(-1, 3).astype(np.uint32),
    )  # fmt: skip


def _background(
    scene: Scene, chosen: list[Bool[np.ndarray, "h w"]]
) -> dict[int, Bool[np.ndarray, "h w"]]:
    """Static pixels of a few frames, the middle one first, that the frames before do not show."""
    n = len(scene)
    frames = np.unique(np.linspace(0, n - 1, min(n, KEYFRAMES)).round().astype(int))
    found: dict[int, np.ndarray] = {}
    for t in sorted(map(int, frames), key=lambda t: abs(t - n // 2)):
        mask = chosen[t] & ~grow(scene.dynamic[t], _MASK_MARGIN_PX)
        new = mask.copy()
        for s, shown in found.items():
            new &= ~_shown(scene, t, s, mask, shown)
        found[t] = grow(new, 1) & mask  # surfaces overlap by a pixel: no gaps
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
    same = front & shown[row, column] & (np.abs(other - depth) < _MAX_JUMP * depth)
    found = np.zeros((h, w), bool)
    found[rows[same], columns[same]] = True
    return found


def _joined(parts: list[Part]) -> Part:
    """One surface of several."""
    triangles: list[UInt32[np.ndarray, "m 3"]] = []
    offset = 0
    for part in parts:
        assert part.triangles is not None
        triangles.append((part.triangles + offset).astype(np.uint32))
        offset += len(part.points_world)
    return Part(
        np.concatenate([part.points_world for part in parts]),
        np.concatenate([part.colors for part in parts]),
        np.concatenate(triangles),
    )
