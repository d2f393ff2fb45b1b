"""Ground plane from a point cloud, by RANSAC with a fixed seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

MAX_TILT_DEG = 35.0
"""Largest angle between the normal of the ground and the mean up-vector of the cameras.
Source: chosen by hand."""
MIN_INLIER_SHARE = 0.10
"""Smallest share of the points that must lie on the ground. Source: chosen by hand."""
MAX_SHARE_BELOW = 0.20
"""Largest share of the points that may lie below the ground. Source: chosen by hand."""
HALF_THICKNESS = 0.015
"""Half thickness of the plane as a share of the median depth. Source: chosen by hand."""
MIN_CAMERAS_ABOVE = 0.9
"""Smallest share of the cameras that must lie above the ground. Source: chosen by hand."""
MIN_POINTS = 100
"""Fewest points to fit a plane to."""
HYPOTHESES, REFINEMENTS = 400, 2
"""RANSAC samples, and least-squares refinements of the best one."""


@dataclass(frozen=True)
class GroundPlane:
    """Plane normal . point = height."""

    normal: Float[np.ndarray, " 3"]
    """Unit vector in the world that points up."""
    height: float
    """Height (normal . point) of the plane in scene units."""


@dataclass(frozen=True)
class _Scorer:
    """Test of planes against points and cameras."""

    points: Float[np.ndarray, "k 3"]
    centers: Float[np.ndarray, "n 3"]
    camera_up: Float[np.ndarray, " 3"]
    half_thickness: float

    def on_plane(self, normal: np.ndarray, height: float) -> Bool[np.ndarray, " k"]:
        """Which points lie within the thickness of a plane."""
        return np.asarray(np.abs(self.points @ normal - height) < self.half_thickness)

    def inlier_shares(
        self, normals: Float[np.ndarray, "q 3"], heights: Float[np.ndarray, " q"]
    ) -> Float[np.ndarray, " q"]:
        """Share of the points on each plane; 0 for planes that cannot be the ground."""
        thickness = self.half_thickness
        above = self.points @ normals.T - heights
        share = (np.abs(above) < thickness).mean(axis=0)
        good = (above < -2 * thickness).mean(axis=0) <= MAX_SHARE_BELOW
        cameras_above = (self.centers @ normals.T - heights > thickness).mean(axis=0)
        good &= cameras_above >= MIN_CAMERAS_ABOVE
        good &= normals @ self.camera_up > np.cos(np.radians(MAX_TILT_DEG))
        return np.where(good & (share >= MIN_INLIER_SHARE), share, 0.0)


def fit_ground_plane(
    points_world: Float[np.ndarray, "k 3"],
    centers_world: Float[np.ndarray, "n 3"],
    camera_up: Float[np.ndarray, " 3"],
    median_depth: float,
    up_world: Float[np.ndarray, " 3"] | None = None,
) -> GroundPlane | None:
    """Ground plane with the most inliers, or None if no plane qualifies.

    A plane is a candidate for the ground if its normal lies within MAX_TILT_DEG of `camera_up`,
    the cameras at `centers_world` lie above it, at least MIN_INLIER_SHARE of the points lie on it
    and at most MAX_SHARE_BELOW lie below it. `up_world` fixes the normal. The random numbers have a
    fixed seed.
    """
    if len(points_world) < MIN_POINTS:
        return None
    triples = points_world[np.random.default_rng(0).integers(0, len(points_world), (HYPOTHESES, 3))]
    normals = np.cross(triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    usable = lengths > 1e-9 * median_depth**2
    normals = normals[usable] / lengths[usable, None]
    normals *= np.where(normals @ camera_up < 0, -1.0, 1.0)[:, None]
    if up_world is not None:
        camera_up, usable = up_world, np.ones(len(triples), bool)
        normals = np.tile(up_world, (len(triples), 1))
    heights = (normals * triples[usable, 0]).sum(axis=1)
    scorer = _Scorer(points_world, centers_world, camera_up, HALF_THICKNESS * median_depth)
    shares = scorer.inlier_shares(normals, heights)
    if not shares.any():
        return None
    best = int(np.argmax(shares))
    plane = GroundPlane(normals[best], float(heights[best]))
    return plane if up_world is not None else _refined(plane, scorer)


def _refined(plane: GroundPlane, scorer: _Scorer) -> GroundPlane:
    """Least-squares plane of the inliers, as long as it still qualifies as ground."""
    for _ in range(REFINEMENTS):
        inliers = scorer.points[scorer.on_plane(plane.normal, plane.height)]
        middle = inliers.mean(axis=0)
        normal = np.linalg.svd(inliers - middle, full_matrices=False)[2][2]
        normal = normal * (1.0 if normal @ scorer.camera_up > 0 else -1.0)
        if scorer.inlier_shares(normal[None], np.array([normal @ middle]))[0] == 0:
            break
        plane = GroundPlane(normal, float(normal @ middle))
    return plane
