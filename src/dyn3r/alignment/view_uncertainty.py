"""Focal length of a many-view prediction, and how sure the prediction is of itself.

Everything follows from statements of one network that should agree: of its frames, of its axes, of
its rays and cameras, and of neighbouring frames about the same surface.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from dyn3r.alignment.components import AGREEMENT_TOLERANCE
from dyn3r.alignment.view_windows import PlacedViews, square_K
from dyn3r.geometry.pixels import median_depth, unproject_pixels
from dyn3r.types import Priors

FOCAL_FLOOR = 0.02
"""Least standard error of the log focal length: errors that all frames share do not show in their
spread. Source: set, not fitted; the published weights could not be run where this was developed."""
MIN_SIDES, MAX_SIDES = 1 / 14, 10.0
"""Focal lengths that are estimates, in long sides of a frame: a field of view of 6 to 164 degrees.
Source: as for pointmaps (`dyn3r.geometry.cameras.focal_from_points`)."""
ASSUMED_FOV_DEG = 53.0
"""Field of view along the long side where no frame has a focal length; as in the alignment."""
QUALITY_STEP = 8
"""Frames are compared on every 8th pixel of every 8th row. Source: run time."""
SHARED, DEPTH_FLOOR = 4.24, 0.02
"""Standard error of log depth per unit of the median disagreement of neighbouring frames, which
share errors, and its least value. Source: as for the final depth, fitted to errors on synthetic
clips (`dyn3r.scene.depth_uncertainty`)."""
ROTATION_FLOOR_DEG, CENTRE_FLOOR = 1.0, 0.05
"""Least standard errors of a camera: rotation, and centre in median depths. Source: set, not
fitted, as `FOCAL_FLOOR`."""
UNKNOWN_SIGMA = 10.0
"""`Geometry.sigma_log_depth` where no other frame can be compared."""


def shared_intrinsics(
    views: PlacedViews, priors: Priors, *, shared: bool
) -> tuple[Float[np.ndarray, "n 3 3"], float | None, tuple[str, ...]]:
    """Intrinsics of every frame, standard error of the log focal length, and notes.

    The standard error joins the spread over the frames (1.48 times the median absolute deviation),
    half the difference between the axes, whose pixels are square, the difference from the focal
    length of the rays, and `FOCAL_FLOOR`. It is not divided by the number of frames: one network
    has seen all of them, so their errors are alike.
    """
    h, w = views.depth.shape[1:]
    side, notes = max(h, w), []
    log_f = np.log(views.focal_px)
    usable = (log_f > np.log(MIN_SIDES * side)) & (log_f < np.log(MAX_SIDES * side))
    sigma: float | None = None
    if usable.any():
        middle = float(np.median(log_f[usable]))
        spread = 1.4826 * float(np.median(np.abs(log_f[usable] - middle)))
        aspect = float(np.median(np.abs(np.log(np.divide(*views.focal_xy[usable].T)))))
        by_rays = float(np.median(views.disagreement[usable, 1]))
        sigma = float(np.linalg.norm([spread, aspect / 2, by_rays, FOCAL_FLOOR]))
    else:
        middle = float(np.log(side / 2 / np.tan(np.radians(ASSUMED_FOV_DEG / 2))))
        if priors.K is None or not np.isfinite(priors.K).all():
            notes.append(
                "no frame determines its own focal length: a field of view of 53 degrees is assumed"
            )
    chosen = np.where(usable & (not shared), log_f, middle)
    K = np.stack([square_K(f, (h, w)) for f in np.exp(chosen)])
    if priors.K is not None:
        known = np.isfinite(priors.K).all((1, 2))
        K = np.where(known[:, None, None], priors.K, K)
        if shared and known.any():
            K[~known] = np.asarray(priors.K)[known][0]
    return K, sigma, tuple(notes)


def camera_terms(views: PlacedViews) -> dict[str, float]:
    """Medians over the frames of how far the two statements of the network about its cameras
    differ: a lower bound of their errors, as one network makes both."""
    names = ("camera_disagreement_deg", "focal_disagreement_log", "center_disagreement_depths")
    return dict(zip(names, np.median(views.disagreement, axis=0).tolist()))


def camera_sigma(views: PlacedViews) -> tuple[float, float]:
    """Standard errors of rotation (radians) and centre (unit of length) of a camera.

    The disagreement of the two statements, times the factor that depth has, as both have seen the
    same images; and a floor for errors that they share.
    """
    apart = np.median(views.disagreement, axis=0)
    turned = math.hypot(math.radians(ROTATION_FLOOR_DEG), SHARED * math.radians(apart[0]))
    moved = math.hypot(CENTRE_FLOOR, SHARED * float(apart[2]))
    return turned, moved * median_depth(views.depth)


def neighbour_agreement(
    views: PlacedViews, K: Float[np.ndarray, "n 3 3"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Share of the confidence of every frame where the next frame agrees within 10 % of the depth,
    and the median |log| disagreement.

    The last frame is compared with the one before. Frames that see nothing of each other have
    quality 0 and `UNKNOWN_SIGMA`; a single frame has quality 1.
    """
    n, h, w = views.depth.shape
    quality, apart = np.ones(n), np.full(n, UNKNOWN_SIGMA)
    step = QUALITY_STEP
    v, u = (grid.ravel() for grid in np.mgrid[step // 2 : h : step, step // 2 : w : step])
    for i in range(n if n > 1 else 0):
        j = i + 1 if i + 1 < n else i - 1
        points = unproject_pixels(u, v, views.depth[i, v, u], K[i], views.T_world_camera[i])
        world_to_j = np.linalg.inv(views.T_world_camera[j])
        x, y, z = (points @ world_to_j[:3, :3].T + world_to_j[:3, 3]).T
        front = np.where(z > 0, z, 1.0)
        at = np.stack([K[j, 0, 0] * x / front + K[j, 0, 2], K[j, 1, 1] * y / front + K[j, 1, 2]])
        col, row = np.clip(at, -1, max(h, w)).round().astype(int)
        seen = (z > 0) & (col >= 0) & (col < w) & (row >= 0) & (row < h)
        if not seen.any():
            quality[i] = 0
            continue
        error = np.abs(np.log(front[seen] / views.depth[j, row[seen], col[seen]]))
        weight = views.confidence[i, v, u][seen]
        quality[i] = (weight * (error < AGREEMENT_TOLERANCE)).sum() / weight.sum()
        apart[i] = np.median(error)
    return quality, apart


def depth_sigma(apart: Float[np.ndarray, " n"]) -> float | None:
    """Standard error of log depth from the disagreement of neighbouring frames; None if unknown."""
    known = apart[apart < UNKNOWN_SIGMA]
    return float(np.hypot(DEPTH_FLOOR, SHARED * np.median(known))) if len(known) else None
