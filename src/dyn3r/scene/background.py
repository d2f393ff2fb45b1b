"""Static part of a scene as one thinned point cloud."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float32, Int

from dyn3r.scene.scene import PointCloud, Scene


def static_points(
    scene: Scene,
    *,
    min_confidence: float = 0.0,
    max_points: int = 500_000,
    voxel_size: float | None = None,
    mask_margin: int = 2,
    keep: Callable[[int], Bool[np.ndarray, "h w"]] | None = None,
) -> PointCloud:
    """Static points of all frames together, thinned to `max_points`.

    Frames are sampled on a pixel grid that holds about four times `max_points`. Of the points in
    one voxel the most confident is kept (`voxel_size` in scene units; None: the footprint of a
    pixel at the median depth; 0: no voxels). A fixed random choice reduces the rest to
    `max_points`. Pixels within `mask_margin` pixels of a dynamic one are left out, as outlines of
    moving objects otherwise smear along their paths. `keep(t)`: mask of the pixels to use.
    """
    return choose_static(
        scene, min_confidence=min_confidence, max_points=max_points, voxel_size=voxel_size,
        mask_margin=mask_margin, keep=keep,
    )[1]  # fmt: skip


def choose_static(
    scene: Scene,
    *,
    min_confidence: float,
    max_points: int,
    mask_margin: int,
    keep: Callable[[int], Bool[np.ndarray, "h w"]] | None,
    voxel_size: float | None = None,
    step: int = 1,
) -> tuple[list[Int[np.ndarray, " k"]], PointCloud]:
    """Pixels of each frame (row-major, ascending) that make the background, and their points.

    As `static_points`; `step` thins the pixel grid and widens the voxels by the same factor.
    """
    assert max_points > 0
    stride = step * max(1, int(np.ceil(np.sqrt(scene.depth.size / (4 * max_points)))))
    found, points, colors, confidence = [], [], [], []
    for t in range(len(scene)):
        chosen = scene.select(t, min_confidence=min_confidence)
        chosen &= ~grow(scene.dynamic[t], mask_margin)
        if keep is not None:
            chosen &= keep(t)
        # the grid starts at another pixel in every frame, so that together they cover all
        thin = on_grid(chosen, stride, t % stride, (t // stride) % stride)
        cloud = scene.points_of(t, thin)
        found.append(np.flatnonzero(thin))
        points.append(cloud.points_world)
        colors.append(cloud.colors)
        confidence.append(scene.confidence[t][thin])
    all_points, all_colors = np.concatenate(points), np.concatenate(colors)
    if voxel_size is None:
        voxel_size = step * scene.median_depth / float(np.median(scene.K[:, 0, 0]))
    kept = most_confident_per_voxel(all_points, np.concatenate(confidence), voxel_size)
    if len(kept) > max_points:
        kept = np.sort(np.random.default_rng(0).choice(kept, max_points, replace=False))
    ends = np.cumsum([len(pixels) for pixels in found])
    of_frame = np.split(np.concatenate(found)[kept], np.searchsorted(kept, ends)[:-1])
    return of_frame, PointCloud(all_points[kept], all_colors[kept])


def on_grid(
    chosen: Bool[np.ndarray, "h w"], step: int, row: int, column: int
) -> Bool[np.ndarray, "h w"]:
    """Chosen pixels of every `step`-th row and column, from this row and column on."""
    thin = np.zeros_like(chosen)
    thin[row::step, column::step] = chosen[row::step, column::step]
    return thin


def most_confident_per_voxel(
    points: Float32[np.ndarray, "k 3"], confidence: Float32[np.ndarray, " k"], voxel_size: float
) -> np.ndarray:
    """Indices (ascending) of the most confident point of every occupied voxel.

    All points if `voxel_size` is 0.
    """
    if voxel_size <= 0 or len(points) == 0:
        return np.arange(len(points))
    # 21 bits an axis around the median make one 63-bit key; farther points share its rim
    cells = np.floor((points - np.median(points, axis=0)) / voxel_size)
    cells = (np.clip(cells, -(2**20), 2**20 - 1) + 2**20).astype(np.int64)
    key = (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]
    order = np.lexsort((-confidence, key))
    first = np.ones(len(order), dtype=bool)
    first[1:] = key[order][1:] != key[order][:-1]
    return np.sort(order[first])


def grow(mask: Bool[np.ndarray, "h w"], margin: int) -> Bool[np.ndarray, "h w"]:
    """Mask dilated by `margin` pixels in rows and columns."""
    if margin <= 0 or not mask.any():
        return mask
    import cv2

    square = np.ones((2 * margin + 1, 2 * margin + 1), dtype=np.uint8)
    return cv2.dilate(mask.astype(np.uint8), square).astype(bool)


def depth_edges(depth: Float32[np.ndarray, "h w"], relative: float = 0.05) -> np.ndarray:
    """True on pixels whose depth jumps to a neighbour by more than `relative` of the nearer depth.

    Such pixels lie between foreground and background in predicted depth and float in the air when
    seen from the side. Returns bool (h, w); unknown depth (0) is no edge.
    """
    edges = np.zeros(depth.shape, dtype=bool)
    for axis in (0, 1):
        ahead = np.moveaxis(depth, axis, 0)[1:]
        behind = np.moveaxis(depth, axis, 0)[:-1]
        near = np.minimum(ahead, behind)
        jump = (np.abs(ahead - behind) > relative * near) & (near > 0)
        view = np.moveaxis(edges, axis, 0)
        view[1:] |= jump
        view[:-1] |= jump
    return edges
