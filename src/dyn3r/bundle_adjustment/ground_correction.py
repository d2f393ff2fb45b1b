"""Gravity-aligned ground correction of depth for cameras that only rotate.

Without parallax the depth is that of the network. The inverse depth of a network is off by a
constant ("disparity shift", Ranftl et al. 2020; Yin et al. 2021). A shift keeps planes planar but
tilts them. Floors and tables are horizontal, and vertical edges in the images show the up direction
(`dyn3r.geometry.vanishing_point`).

For a camera at one place, X = ray / d with the inverse depth d, and d + v . ray explains the images
as well for every v, because the plane at infinity is not determined. A plane p . ray = d becomes
p + v. The ground is horizontal if p + v is parallel to the up direction. With v along the mean
viewing direction there is one unknown, which every pixel of the ground determines.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from dyn3r.geometry.cameras import pixel_grid, rays
from dyn3r.geometry.surface_planes import PLANE_WINDOW_PX, inverse_depth_planes
from dyn3r.geometry.vanishing_point import find_vertical
from dyn3r.types import Geometry

logger = logging.getLogger(__name__)

MAX_ROTATION_DEG = 45.0
"""Largest angle between a viewing direction and their mean: beyond it, no single shift holds.
Source: chosen by hand."""
MIN_DEPRESSION_DEG = 6.0
"""Smallest angle below the horizon at which ground is looked for. Source: chosen by hand."""
MIN_INVERSE_DEPTH_SHARE = 0.25
"""A surface whose inverse depth would fall below this share is not ground. Source: chosen by
hand."""
MAX_RESIDUAL_TILT_DEG = 15.0
"""A surface that would remain tilted by more than this is not ground. Source: chosen by hand."""
SHIFT_TOLERANCE = 0.2
"""Shifts that differ by less than about this agree; unit: median inverse depth. Source: chosen by
hand."""
SHIFT_SIGMA = 0.7
"""Prior: standard deviation of log(1 + shift). Source: chosen by hand."""
MIN_SHIFT = 0.05
"""Smaller shifts are not applied; unit: median inverse depth. Source: chosen by hand."""
MIN_GROUND_SHARE = 0.1
"""Smallest share of the static pixels that must be ground. Source: chosen by hand."""
MIN_AGREEMENT = 0.2
"""At least this share of the ground pixels must agree on the shift. Source: chosen on one
development clip (docs/experiments.md)."""
MAX_FRAMES = 16
"""Frames that the shift is estimated from. Source: run time."""


def correct_ground_tilt(
    geometry: Geometry,
    images: UInt8[np.ndarray, "n h w 3"],
    dynamic: Bool[np.ndarray, "n h w"] | None = None,
) -> Geometry:
    """The geometry with depth whose ground is horizontal, if the images show the up direction.

    For clips without parallax only (`dyn3r.bundle_adjustment.is_rotation_only`): with parallax,
    flow determines depth better. The shift is applied only if it reduces depth differences. Objects
    on the ground and smooth transitions to walls make the ground appear less steep than it is, so
    an estimate of the opposite sign is not reliable. The median depth stays. A sentence in
    `diagnostics.notes` states the shift. Source: see the module.
    """
    static = np.ones(geometry.depth.shape, bool) if dynamic is None else ~dynamic
    static &= geometry.depth > 0
    R = geometry.T_world_camera[:, :3, :3]
    forward = R[:, :, 2].mean(0)
    if not static.any() or np.linalg.norm(forward) < 0.5:
        return geometry
    forward = forward / np.linalg.norm(forward)
    if (R[:, :, 2] @ forward).min() < math.cos(math.radians(MAX_ROTATION_DEG)):
        return geometry
    vertical = find_vertical(
        images, geometry.K, geometry.T_world_camera, dynamic=dynamic, depth=geometry.depth
    )
    if vertical is None or not vertical.reliable:
        return geometry
    unit = float(np.median(1 / geometry.depth[static]))
    shift = disparity_shift(geometry, static, vertical.up_world, forward, unit)
    if shift < MIN_SHIFT:
        return geometry
    depth = np.empty_like(geometry.depth)
    for t, before in enumerate(geometry.depth):
        along = _rays_world(geometry, t) @ forward
        depth[t] = 1 / (1 / np.maximum(before, 1e-9) + shift * unit * np.maximum(along, 0))
    depth *= np.median(geometry.depth[static]) / np.median(depth[static])
    warning = (
        "the camera only rotates, so flow does not determine depth; inverse depth was shifted by "
        f"{shift:.2f} of its median to make the ground level"
    )
    logger.info(warning)
    return replace(geometry, depth=depth, diagnostics=geometry.diagnostics.added(warning))


def disparity_shift(
    geometry: Geometry,
    static: Bool[np.ndarray, "n h w"],
    up_world: Float[np.ndarray, " 3"],
    forward_world: Float[np.ndarray, " 3"],
    unit: float,
) -> float:
    """Shift of inverse depth that makes the ground horizontal; 0 if there is too little ground.

    The change of inverse depth is shift * unit * (ray . forward). The result is the shift that most
    ground pixels agree on. A camera that looks straight down does not determine it.
    """
    level = forward_world - (forward_world @ up_world) * up_world
    if level @ level < math.sin(math.radians(MIN_DEPRESSION_DEG)) ** 2:
        return 0.0
    frames = np.unique(np.linspace(0, len(static) - 1, min(len(static), MAX_FRAMES)).astype(int))
    shifts = np.concatenate(
        [
            _ground_shifts(geometry, int(t), static[t], up_world, forward_world) / unit
            for t in frames
        ]
    )
    if len(shifts) < MIN_GROUND_SHARE * static[frames].sum():
        return 0.0
    candidates = np.expm1(np.linspace(-1.4, 1.4, 57))
    counts, edges = np.histogram(shifts, np.linspace(-2, 4, 301))
    middle = (edges[1:] + edges[:-1]) / 2
    votes = np.exp(-0.5 * ((middle - candidates[:, None]) / SHIFT_TOLERANCE) ** 2) @ counts
    prior = np.exp(-0.5 * (np.log1p(candidates) / SHIFT_SIGMA) ** 2)
    best = float(candidates[(votes * prior).argmax()])
    agreeing = (np.abs(shifts - best) < 1.25 * SHIFT_TOLERANCE).mean()
    return best if agreeing >= MIN_AGREEMENT else 0.0


def _ground_shifts(
    geometry: Geometry,
    t: int,
    static: Bool[np.ndarray, "h w"],
    up_world: Float[np.ndarray, " 3"],
    forward_world: Float[np.ndarray, " 3"],
) -> Float[np.ndarray, " k"]:
    """Shift of inverse depth that makes the surface at each ground pixel of a frame horizontal."""
    border = PLANE_WINDOW_PX // 2 + 1
    inside = np.s_[border:-border, border:-border]
    level = forward_world - (forward_world @ up_world) * up_world
    R = geometry.T_world_camera[t, :3, :3]
    inverse = 1 / np.maximum(geometry.depth[t], 1e-9).astype(np.float64)
    plane = inverse_depth_planes(inverse, geometry.K[t]) @ R.T
    tilt = plane - (plane @ up_world)[..., None] * up_world
    shift = -(tilt @ level) / (level @ level)
    shifted = plane + shift[..., None] * forward_world
    height = -(shifted @ up_world)
    residual_tilt = np.linalg.norm(shifted + height[..., None] * up_world, axis=-1)
    ray = _rays_world(geometry, t)
    depression = -(ray @ up_world) / np.linalg.norm(ray, axis=-1)
    ground = static & (depression > math.sin(math.radians(MIN_DEPRESSION_DEG))) & (height > 0)
    ground &= residual_tilt < math.tan(math.radians(MAX_RESIDUAL_TILT_DEG)) * height
    ground &= inverse + shift > MIN_INVERSE_DEPTH_SHARE * inverse
    return np.asarray(shift[inside][ground[inside]])


def _rays_world(geometry: Geometry, t: int) -> Float[np.ndarray, "h w 3"]:
    """Viewing rays of frame t with z = 1 in the camera, in world axes."""
    grid = pixel_grid(geometry.depth.shape[1:], dtype=torch.float64)
    ray = rays(torch.from_numpy(geometry.K[t].astype(np.float64)), grid).numpy()
    return np.asarray(ray @ geometry.T_world_camera[t, :3, :3].T)
