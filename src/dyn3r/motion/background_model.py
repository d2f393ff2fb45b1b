"""What other frames show in the place of a pixel: the still scene, seen again, looks alike (ours).

Flow between frames that are near each other in time says little of what moves slowly, stands still
for a while or goes along with the camera, and it drags along what is next to a mover. With cameras
and depth known every pixel can be looked up in all frames: what is still there looks the same,
while a mover has left. This is background subtraction (Stauffer and Grimson 1999) for a moving
camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dyn3r.types import Progress, no_progress

OTHERS, REACH = 14, 40
"""So many frames are asked, spread over those that are at most so far away."""
MARGIN = 0.013
"""Pixels this near to a mask (share of the long side) are not asked."""
SAME_PLACE = 0.1
"""A pixel of another frame shows the place if its depth differs by less than this (logarithm)."""
ALIKE, LEAST_ALIKE = 3.0, 0.4
"""A frame of which less than this share looks alike (grey levels) does not show what it should: its
camera is wrong, and it is not asked. Of registered frames it is 45 to 98 %, across a cut 1 to
20."""
LEAST_FRAMES = 3
"""Frames that must show the place for a verdict."""
SMOOTH_PX = 0.8
"""Frames are blurred by this much before they are compared."""


@dataclass(frozen=True)
class OtherFrames:
    """What other frames show in the place of every pixel; NaN where too few of them show it."""

    unlike: Float[np.ndarray, "n h w"]
    """Median over those frames, in grey levels (0..255), of the channel that differs most."""
    colour: Float[np.ndarray, "n h w 3"]
    """RGB, 0..255, of the frame that differs by that much (the lower one of an even number), as
    bright as this frame, `smoothed`: what would be seen here if nothing moved."""


def other_frames(
    images: UInt8[np.ndarray, "n h w 3"],
    depth: Float[np.ndarray, "n h w"],
    moving: Bool[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    progress: Progress = no_progress,
) -> OtherFrames:
    """How unlike its place in other frames each pixel looks, and what they show there.

    `moving` is what is known so far: those pixels are not asked, and for what they show, the
    surface behind them is taken to be as far as the still pixels next to them. Colours within those
    of the 3x3 pixels around the place are alike, so that an error of a pixel is forgiven.
    Differences of exposure between two frames are taken out by their median.
    """
    import cv2

    n, h, w = depth.shape
    behind = without_movers(depth, moving).astype(np.float32)
    square = np.ones((3, 3), np.uint8)

    @lru_cache(maxsize=2 * OTHERS)
    def looks(t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A frame, and the least and the largest of 3x3 pixels."""
        smooth = smoothed(images[t])
        return smooth, cv2.erode(smooth, square), cv2.dilate(smooth, square)

    radius = max(1, round(MARGIN * max(h, w)))
    wide = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    taken = [cv2.dilate(mask.astype(np.uint8), wide) for mask in moving]
    v, u = np.mgrid[:h, :w].astype(np.float32)
    T = T_world_camera.astype(np.float32)
    out = OtherFrames(np.empty((n, h, w), np.float32), np.empty((n, h, w, 3), np.float32))
    for t in range(n):
        progress("comparing frames", t, n)
        me = looks(t)[0]
        k = K[t].astype(np.float32)
        ray = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], -1)
        world = (ray * behind[t][..., None]) @ T[t, :3, :3].T + T[t, :3, 3]
        found, shown = [], []
        for other in _others(t, n):
            k = K[other].astype(np.float32)
            seen = (world - T[other, :3, 3]) @ T[other, :3, :3]
            z = np.maximum(seen[..., 2], 1e-6)
            x = k[0, 0] * seen[..., 0] / z + k[0, 2]
            y = k[1, 1] * seen[..., 1] / z + k[1, 2]
            ask = (x > 1) & (x < w - 2) & (y > 1) & (y < h - 2) & (seen[..., 2] > 0)
            ask &= cv2.remap(taken[other], x, y, cv2.INTER_NEAREST) == 0
            there = np.maximum(cv2.remap(behind[other], x, y, cv2.INTER_LINEAR), 1e-6)
            ask &= np.abs(np.log(there / z)) < SAME_PLACE
            if not ask.any():
                continue
            colour, least, most = (cv2.remap(a, x, y, cv2.INTER_LINEAR) for a in looks(other))
            brighter = np.median((me - (least + most) / 2)[ask], axis=0)
            mine = me - brighter
            outside = np.maximum(least - mine, mine - most)
            off = np.maximum(np.maximum(outside[..., 0], outside[..., 1]), outside[..., 2])
            off = np.maximum(off, 0)
            if (off[ask] < ALIKE).mean() >= LEAST_ALIKE:
                found.append(np.where(ask, off, np.nan))
                shown.append(colour + brighter)
        out.unlike[t], out.colour[t] = _median(found, shown, (h, w))
    progress("comparing frames", n, n)
    return out


def smoothed(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """A frame as it is compared with others: without the finest noise."""
    import cv2

    return np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), SMOOTH_PX))


def without_movers(
    depth: Float[np.ndarray, "n h w"], moving: Bool[np.ndarray, "n h w"]
) -> Float[np.ndarray, "n h w"]:
    """Depth in which what moves is as far as the still pixel nearest to it, smoothly."""
    import cv2
    from scipy.ndimage import distance_transform_edt

    out = np.maximum(depth, 1e-6)
    for t, mask in enumerate(moving):
        if not mask.any():
            continue
        wide = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        if wide.all():
            continue
        nearest = distance_transform_edt(wide, return_distances=False, return_indices=True)
        filled = np.log(out[t][tuple(nearest)]).astype(np.float32)
        out[t] = np.where(wide, np.exp(cv2.GaussianBlur(filled, (0, 0), 4.0)), out[t])
    return out


def _others(t: int, count: int) -> list[int]:
    rest = [k for k in range(max(0, t - REACH), min(count, t + REACH + 1)) if k != t]
    return [rest[k] for k in np.linspace(0, len(rest) - 1, min(len(rest), OTHERS)).astype(int)]


def _median(
    found: list[np.ndarray], shown: list[np.ndarray], size_hw: tuple[int, int]
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w 3"]]:
    """Over the frames that show the place; NaN where they are too few."""
    if len(found) < LEAST_FRAMES:
        return np.full(size_hw, np.nan, np.float32), np.full((*size_hw, 3), np.nan, np.float32)
    off = np.stack(found)
    order = np.argsort(off, axis=0)  # NaN last
    count = np.isfinite(off).sum(0)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(found) - 1)
    low, high = (np.take_along_axis(order, k[None], 0) for k in (low, high))
    middle = (np.take_along_axis(off, low, 0) + np.take_along_axis(off, high, 0))[0] / 2
    colour = np.take_along_axis(np.stack(shown), low[..., None], 0)[0]
    known = count >= LEAST_FRAMES
    return (
        np.where(known, middle, np.nan).astype(np.float32),
        np.where(known[..., None], colour, np.nan).astype(np.float32),
    )
