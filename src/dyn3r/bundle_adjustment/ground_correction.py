"""Depth of a camera that only turns: relief so strong that the ground is not level is made weaker.

Without parallax depth is the network's, and what a network gets wrong first is the horizon: inverse
depth is off by a constant ("shift", Ranftl et al. 2020; Yin et al. 2021), and relief is too strong
or too weak as a whole. Such a change leaves planes plane but tilts them. Floors and tables are
level, and which way is up the vertical edges in the pictures say (`dyn3r.geometry.gravity`).

For a camera at one place, X = ray / d with d the inverse depth, and d + v . ray is as good a scene
for every v (the plane at infinity is anywhere). A plane p . ray = d becomes p + v; the ground is
level if p + v is parallel to up. With v along the mean line of sight this is one unknown for each
pixel.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from dyn3r.geometry.cameras import pixel_grid, rays
from dyn3r.geometry.gravity import WINDOW, find_vertical, plane_of_inverse_depth
from dyn3r.types import Geometry

logger = logging.getLogger(__name__)

LARGEST_TURN_DEG = 45.0
"""Of a camera against the mean line of sight: beyond, one change for all frames makes no sense."""
BELOW_HORIZON_DEG = 6.0
"""Ground is seen at least this far below the horizon."""
LEAST_NEAR = 0.25
"""A surface that the change would make more than 1 / this farther is no ground."""
ROLLED_DEG = 15.0
"""Nor is one that would still be tilted by more than this."""
WIDTH = 0.2
"""Changes that differ by this much, in units of the median inverse depth, agree."""
USUAL = 0.7
"""How large changes are: standard deviation of log(1 + change)."""
LEAST_CHANGE = 0.05
"""Smaller ones are not worth it."""
LEAST_SHARE = 0.1
"""Of the still pixels that must be ground below the horizon."""
LEAST_AGREEMENT = 0.2
"""Of the ground that must agree."""


def level_ground(
    alignment: Geometry,
    images: UInt8[np.ndarray, "n h w 3"],
    moving: Bool[np.ndarray, "n h w"] | None = None,
) -> Geometry:
    """The same cameras with depth whose ground is level, where the pictures tell which way is up.

    For clips without parallax only: with parallax, flow knows depth better. Relief becomes weaker
    or stays. Things on the ground and smooth transitions to walls make the ground look less steep
    than it is, so that a demand for more relief says nothing (on 48 turning clips of the synthetic
    world, with the true vertical, the change found is -0.3 in the median, though the network was
    trained on that world); a demand for less says the more. The median depth stays as it is. A note
    in `warnings` says what was done. Source: see the module.
    """
    still = np.ones(alignment.depth.shape, bool) if moving is None else ~moving
    still &= alignment.depth > 0
    R = alignment.T_world_camera[:, :3, :3]
    ahead = R[:, :, 2].mean(0)
    if not still.any() or np.linalg.norm(ahead) < 0.5:
        return alignment
    ahead = ahead / np.linalg.norm(ahead)
    if (R[:, :, 2] @ ahead).min() < math.cos(math.radians(LARGEST_TURN_DEG)):
        return alignment
    vertical = find_vertical(
        images, alignment.K, alignment.T_world_camera, moving=moving, depth=alignment.depth
    )
    if vertical is None or not vertical.sure:
        return alignment
    unit = float(np.median(1 / alignment.depth[still]))
    change = change_of_relief(alignment, still, vertical.up_world, ahead, unit)
    if change < LEAST_CHANGE:
        return alignment
    depth = np.empty_like(alignment.depth)
    for t, before in enumerate(alignment.depth):
        along = _rays_world(alignment, t) @ ahead
        depth[t] = 1 / (1 / np.maximum(before, 1e-9) + change * unit * np.maximum(along, 0))
    depth *= np.median(alignment.depth[still]) / np.median(depth[still])
    note = (
        "the camera only turns, so flow says nothing of depth; relief was made weaker, "
        f"by {change:.2f} of the median inverse depth, so that the ground is level"
    )
    logger.info(note)
    return replace(alignment, depth=depth, warnings=(*alignment.warnings, note))


def change_of_relief(
    alignment: Geometry,
    still: Bool[np.ndarray, "n h w"],
    up_world: Float[np.ndarray, " 3"],
    ahead_world: Float[np.ndarray, " 3"],
    unit: float,
) -> float:
    """What to add to inverse depth, times ray . ahead and in units of `unit`, so that the ground is
    level: the value most pixels of it agree on; 0 where there is too little ground.

    Above 0: less relief. A camera that looks straight down tells nothing.
    """
    level = ahead_world - (ahead_world @ up_world) * up_world
    if level @ level < math.sin(math.radians(BELOW_HORIZON_DEG)) ** 2:
        return 0.0
    frames = np.unique(np.linspace(0, len(still) - 1, min(len(still), 16)).astype(int))
    asked, rim = [], WINDOW // 2 + 1
    for t in frames:
        R = alignment.T_world_camera[t, :3, :3]
        inverse = 1 / np.maximum(alignment.depth[t], 1e-9).astype(np.float64)
        plane = plane_of_inverse_depth(inverse, alignment.K[t]) @ R.T
        across = plane - (plane @ up_world)[..., None] * up_world
        change = -(across @ level) / (level @ level)
        after = plane + change[..., None] * ahead_world
        height = -(after @ up_world)
        tilted = np.linalg.norm(after + height[..., None] * up_world, axis=-1)
        ray = _rays_world(alignment, t)
        down = -(ray @ up_world) / np.linalg.norm(ray, axis=-1)
        ground = still[t] & (down > math.sin(math.radians(BELOW_HORIZON_DEG))) & (height > 0)
        ground &= tilted < math.tan(math.radians(ROLLED_DEG)) * height
        ground &= inverse + change > LEAST_NEAR * inverse
        inside = np.s_[rim:-rim, rim:-rim]
        asked.append(change[inside][ground[inside]] / unit)
    every = np.concatenate(asked)
    if len(every) < LEAST_SHARE * still[frames].sum():
        return 0.0
    tried = np.expm1(np.linspace(-1.4, 1.4, 57))
    counts, edges = np.histogram(every, np.linspace(-2, 4, 301))
    middle = (edges[1:] + edges[:-1]) / 2
    agree = np.exp(-0.5 * ((middle - tried[:, None]) / WIDTH) ** 2) @ counts
    best = float(tried[(agree * np.exp(-0.5 * (np.log1p(tried) / USUAL) ** 2)).argmax()])
    return best if (np.abs(every - best) < 1.25 * WIDTH).mean() >= LEAST_AGREEMENT else 0.0


def _rays_world(alignment: Geometry, t: int) -> Float[np.ndarray, "h w 3"]:
    """Viewing rays of frame t with z = 1 in the camera, in world axes."""
    grid = pixel_grid(alignment.depth.shape[1:], dtype=torch.float64)
    seen = rays(torch.from_numpy(alignment.K[t].astype(np.float64)), grid).numpy()
    return np.asarray(seen @ alignment.T_world_camera[t, :3, :3].T)
