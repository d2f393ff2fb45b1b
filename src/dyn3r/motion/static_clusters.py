"""Removal of false objects by reprojection: clusters of points that other frames see unmoved.

Source: VGGT4D (arXiv 2511.19971), refinement of the masks as its program does it (no gradient is
taken). Ours: differences of depth are relative, as the unit of the network is arbitrary, and the
vote of a frame is that of `VOTERS` of its points.
"""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from dyn3r.geometry.pixels import unproject_pixels
from dyn3r.types import Geometry, Motion

_log = logging.getLogger(__name__)

CLUSTERS, SEED = 30, 42
"""Clusters of the dynamic points of a frame, and the seed. Source: as published."""
NEIGHBOURS, OUTLIER_SPREADS = 20, 2.5
"""A point whose mean distance to so many neighbours is so many standard deviations above the mean
has no vote. Source: as published."""
IN_FRONT = 0.01
"""A point is visible if it is not farther than the surface there by this share of its depth.
Source: as published, where it is a length."""
LEAST_SEEN = 0.05
"""A cluster that is seen less often, as a share of points times other frames, stays dynamic.
Source: as published."""
LARGEST_LOSS = 0.1
"""Error of depth (a share) plus error of colour (0..1) up to which a cluster is static. Source: as
published."""
VOTERS = 3000
"""Points of a frame that are projected into all others. Source: run time."""
CLOSING_PX, DILATION_PX = 5, 3
"""Sizes of the closing (ellipse) and of the dilation (square) of what is left. Source: as
published."""


def without_static_clusters(
    motion: Motion, images: UInt8[np.ndarray, "n h w 3"], geometry: Geometry
) -> Motion:
    """The motion without clusters that other frames show at the same place in the same colour.

    The dynamic points of a frame are clustered by their place in the world (k-means). The points of
    a cluster are projected into every other frame. Where they are visible and the masks call the
    pixel static, depth and colour are compared; a cluster whose mean error is small is static. It
    can remove objects, and adds a margin alone. A single frame is returned unchanged.
    """
    n = len(images)
    if n < 2 or not motion.has_motion:
        return motion
    masks = np.zeros_like(motion.masks)
    removed = found = 0
    for t in range(n):
        rows, columns = np.nonzero(motion.masks[t])
        if len(rows) == 0:
            continue
        labels, voters = _clusters(rows, columns, t, geometry)
        votes = _votes(labels[voters], rows[voters], columns[voters], t, motion, images, geometry)
        dynamic = votes.dynamic
        removed, found = removed + int((~dynamic).sum()), found + len(dynamic)
        kept = dynamic[labels]
        masks[t, rows[kept], columns[kept]] = True
        masks[t] = _smoothed(masks[t])
    reason = (
        f"{removed} of {found} clusters of moving points were seen unmoved by other frames; "
        f"{masks.mean():.1%} of the clip's pixels are left"
    )
    _log.info("motion: %s", reason)
    return replace(motion, masks=masks, reason=f"{motion.reason}; {reason}")


@dataclass(frozen=True)
class _Votes:
    """What other frames say about the clusters of a frame."""

    seen: Float[np.ndarray, " c"]
    """Share of points times other frames in which points were compared."""
    loss: Float[np.ndarray, " c"]
    """Mean error of depth plus mean error of colour; infinite where nothing was compared."""

    @property
    def dynamic(self) -> Bool[np.ndarray, " c"]:
        """Clusters that stay."""
        return (self.seen < LEAST_SEEN) | (self.loss > LARGEST_LOSS)


def _clusters(
    rows: Int[np.ndarray, " k"], columns: Int[np.ndarray, " k"], t: int, geometry: Geometry
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " v"]]:
    """Cluster of every dynamic pixel of a frame, and indices of the pixels that vote."""
    from scipy.spatial import cKDTree
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    points = _world_points(rows, columns, t, geometry)
    sample = np.random.default_rng(SEED).permutation(len(points))[:VOTERS]
    chosen = points[sample]
    neighbours = min(NEIGHBOURS + 1, len(chosen))  # the first is the point itself
    apart = cKDTree(chosen).query(chosen, neighbours)[0].reshape(len(chosen), -1).mean(axis=1)
    voters = sample[apart <= apart.mean() + OUTLIER_SPREADS * apart.std()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        means = KMeans(min(CLUSTERS, len(voters)), random_state=SEED, n_init=1)
        means.fit(points[voters].astype(np.float32))
    return means.predict(points.astype(np.float32)), voters


def _votes(
    labels: Int[np.ndarray, " v"],
    rows: Int[np.ndarray, " v"],
    columns: Int[np.ndarray, " v"],
    t: int,
    motion: Motion,
    images: UInt8[np.ndarray, "n h w 3"],
    geometry: Geometry,
) -> _Votes:
    """Compare the points of a frame with all other frames."""
    (n, h, w), count = geometry.depth.shape, int(labels.max()) + 1
    points, colours = _world_points(rows, columns, t, geometry), images[t, rows, columns] / 255
    totals = np.zeros((3, count))  # comparisons, errors of depth, errors of colour
    for s in range(n):
        if s == t:
            continue
        into = np.linalg.inv(geometry.T_world_camera[s])
        local = points @ into[:3, :3].T + into[:3, 3]
        z = local[:, 2]
        u, v, _ = (local @ geometry.K[s].T / np.maximum(z, 1e-12)[:, None]).T
        column, row = (np.clip(x, -1, max(h, w)).round().astype(int) for x in (u, v))
        inside = (z > 0) & (column >= 0) & (column < w) & (row >= 0) & (row < h)
        row, column = np.where(inside, row, 0), np.where(inside, column, 0)
        surface = geometry.depth[s, row, column].astype(np.float64)
        compared = inside & ~motion.masks[s, row, column] & (z * (1 - IN_FRONT) < surface)
        at, error = labels[compared], np.abs(z - surface)[compared] / z[compared]
        colour = np.abs(colours - images[s, row, column] / 255)[compared].mean(axis=1)
        for total, values in zip(totals, (np.ones(len(at)), error, colour)):
            total += np.bincount(at, values, minlength=count)
    points_of = np.bincount(labels, minlength=count)
    with np.errstate(invalid="ignore", divide="ignore"):
        loss = (totals[1] + totals[2]) / totals[0]
        seen = totals[0] / (points_of * (n - 1))
    return _Votes(np.nan_to_num(seen), np.nan_to_num(loss, nan=math.inf))


def _world_points(
    rows: Int[np.ndarray, " k"], columns: Int[np.ndarray, " k"], t: int, geometry: Geometry
) -> Float[np.ndarray, "k 3"]:
    """World points of some pixels of a frame."""
    depth = geometry.depth[t, rows, columns].astype(np.float64)
    return unproject_pixels(columns, rows, depth, geometry.K[t], geometry.T_world_camera[t])


def _smoothed(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """A mask after closing and dilation."""
    import cv2

    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (CLOSING_PX, CLOSING_PX))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, ellipse)
    return cv2.dilate(closed, np.ones((DILATION_PX, DILATION_PX), np.uint8)) > 0
