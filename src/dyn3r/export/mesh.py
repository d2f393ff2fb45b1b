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
from dyn3r.scene.surface import background_masks
from dyn3r.scene.surface import surface as cut_surface
from dyn3r.types import Progress

DEFAULT_VERTICES = 1_000_000


def write_mesh(scene: Scene, path: Path, options: ExportOptions, progress: Progress) -> None:
    """Write one .glb file."""
    static, moving = mesh_parts(scene, options, progress)
    path.write_bytes(document_bytes(scene, static, moving))


def mesh_parts(scene: Scene, options: ExportOptions, progress: Progress) -> tuple[Part, list[Part]]:
    """Surface of the background, and that of the dynamic pixels of each frame."""
    chosen = select_pixels(scene, options)
    background = background_masks(scene, chosen)
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
    found = cut_surface(scene, t, mask, step)
    return Part(found.points_world, found.colors, found.triangles.astype(np.uint32))


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
