"""Windows of a clip that a many-view network sees one after the other, and how they are joined.

Every window has a world and a unit of length of its own. Frames that two windows share have two
depth maps; the similarity between the worlds maps the points of one to those of the other. Source:
VGGT-Long (Deng et al. 2025), which joins chunks likewise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from dyn3r.geometry.pixels import unproject_pixels
from dyn3r.geometry.registration import Similarity, robust_similarity
from dyn3r.network.predict_views import ViewPrediction

SAMPLES = 20_000
"""Pixels that two windows are joined by, over all shared frames. Source: run time."""
LEAST_CONFIDENCE = 0.1
"""Pixels count where confidence above 1 exceeds this share of its median. Source: as published for
long clips."""
OUTLIER_SPREADS = 3.0
"""Log ratios of depth count within this many robust standard deviations of their median. Source: a
normal distribution has 0.3 % outside."""
LEAST_SPREAD = 1e-3
"""Added to that limit, for windows that agree to rounding."""


@dataclass(frozen=True)
class PlacedViews:
    """Frames of a clip with cameras and depth in one world."""

    T_world_camera: Float[np.ndarray, "s 4 4"]
    """Camera to world, float64."""
    focal_xy: Float[np.ndarray, "s 2"]
    """Focal lengths in pixels along x and y, as predicted."""
    depth: Float[np.ndarray, "s h w"]
    """z in the camera."""
    confidence: Float[np.ndarray, "s h w"]
    """Confidence of the network, above 1."""
    disagreement: Float[np.ndarray, "s 3"]
    """See `ViewPrediction.disagreement`."""

    def __getitem__(self, rows: slice) -> PlacedViews:
        """Some of the frames."""
        return PlacedViews(*(values[rows] for values in vars(self).values()))

    @classmethod
    def of(cls, seen: ViewPrediction) -> PlacedViews:
        """A prediction in its own world."""
        return cls(
            seen.T_world_camera, seen.focal_xy, seen.depth, seen.confidence, seen.disagreement
        )

    @classmethod
    def join(cls, parts: list[PlacedViews]) -> PlacedViews:
        """One after the other."""
        return cls(*(np.concatenate(values) for values in zip(*(vars(p).values() for p in parts))))

    @property
    def focal_px(self) -> Float[np.ndarray, " s"]:
        """Focal lengths for square pixels: the geometric mean of those along x and y."""
        return np.sqrt(self.focal_xy.prod(axis=1))

    def moved(self, by: Similarity) -> PlacedViews:
        """The same in another world."""
        T, R = self.T_world_camera.copy(), by.R.double().numpy()
        T[:, :3, :3] = R @ T[:, :3, :3]
        T[:, :3, 3] = float(by.scale) * T[:, :3, 3] @ R.T + by.t.double().numpy()
        depth = (float(by.scale) * self.depth).astype(np.float32)
        return replace(self, T_world_camera=T, depth=depth)


def view_windows(num_frames: int, size: int, overlap: float) -> list[tuple[int, int]]:
    """First frame and end of every window; `size` 0: one window for all frames.

    All windows have `size` frames, or all frames of a shorter clip, and share at least the part
    `overlap` (0..1) with the next.
    """
    if size <= 0 or num_frames <= size:
        return [(0, num_frames)]
    step = max(1, size - max(1, round(size * overlap)))
    count = 1 + -(-(num_frames - size) // step)
    starts = np.linspace(0, num_frames - size, count).round().astype(int)
    return [(int(start), int(start) + size) for start in starts]


def join_windows(earlier: PlacedViews, later: PlacedViews) -> Similarity:
    """Similarity that maps the world of `later` to that of `earlier`; both are the same frames.

    It minimises the weighted sum of distances, not their squares, between the points of the same
    pixels. Weights are confidence over depth, so that distances are relative to depth. Pixels whose
    ratio of depths is not the common one are left out.
    """
    step = max(1, round((earlier.depth.size / SAMPLES) ** 0.5))
    (confidence1, depth1), (confidence2, depth2) = (_sampled(v, step) for v in (earlier, later))
    usable = (confidence1 > 0) & (confidence2 > 0)
    ratio = np.log(depth1 / depth2)
    middle = np.median(ratio[usable])
    spread = 1.4826 * np.median(np.abs(ratio[usable] - middle))
    usable &= np.abs(ratio - middle) < OUTLIER_SPREADS * spread + LEAST_SPREAD
    weights = np.where(usable, np.sqrt(confidence1 * confidence2) / depth1, 0)
    points = [torch.from_numpy(world_points(views, step)) for views in (later, earlier)]
    return robust_similarity(points[0], points[1], torch.from_numpy(weights))


def world_points(views: PlacedViews, step: int) -> Float[np.ndarray, "k 3"]:
    """World points of every `step`-th pixel of every `step`-th row, frame by frame, float64."""
    size_hw = views.depth.shape[1:]
    v, u = (grid.ravel() for grid in np.mgrid[: size_hw[0] : step, : size_hw[1] : step])
    out = [
        unproject_pixels(u, v, depth[v, u], square_K(f, size_hw), T)
        for depth, f, T in zip(views.depth, views.focal_px, views.T_world_camera)
    ]
    return np.concatenate(out).astype(np.float64)


def square_K(f_px: float, size_hw: tuple[int, ...]) -> Float[np.ndarray, "3 3"]:
    """Intrinsics of square pixels with the principal point (W/2, H/2) (SPEC 0)."""
    height, width = size_hw
    return np.array([[f_px, 0, width / 2], [0, f_px, height / 2], [0, 0, 1.0]])


def _sampled(
    views: PlacedViews, step: int
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Confidence above 1 (0 where it is small) and depth of the pixels of `world_points`."""
    above, depth = (
        np.maximum(maps[:, ::step, ::step].ravel().astype(np.float64), 1e-9)
        for maps in (views.confidence - 1, views.depth)
    )
    return np.where(above > LEAST_CONFIDENCE * np.median(above), above, 0), depth
