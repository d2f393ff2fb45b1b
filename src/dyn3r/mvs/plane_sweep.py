"""Plane sweep: how well every depth of a pixel agrees with what other frames show.

With the cameras known, a pixel's inverse depth says where other frames see it. A set of inverse
depths is tried for all pixels at once (Collins 1996, "A space-sweep approach to true multi-image
matching"); where the other frames look alike at one of them, that is the depth. Pixels are compared
one by one; what comes of it has half the frame's resolution. Camera coordinates of the frame
itself, the unit of length of the cameras.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d

PLANES = 32
"""Inverse depths tried, from 0 (infinitely far) to the largest, at equal steps."""
SOURCES = 6
"""Most other frames that a frame is compared with."""
WINDOW = 40
"""They are at most so many frames away."""
MARGIN, NEAR_SHARE = 1.5, 0.97
"""The largest inverse depth: this many times that quantile of the inverse depth before."""
USEFUL_PX = 8.0
"""Parallax of about this many pixels makes another frame worth comparing with."""
SCALES = (5, 11)
"""Sides of the windows in which brightness is normalised."""
CONTRAST = 4.0
"""Differences of brightness (0..255) below this are no texture."""
CHANNELS = 2 * PLANES + 2
"""Of `Sweep.channels`."""


@dataclass(frozen=True)
class Sweep:
    """One frame's plane sweep, at half resolution."""

    channels: Float[Tensor, "c h2 w2"]
    """Costs 0..1 of every plane, mean of the better half of the frames compared with; the same of
    all of them; which plane is best (0..1); its cost. Cost 1: nothing to compare with."""
    nearest: float
    """Inverse depth of the last plane."""
    step_px: float
    """How far a pixel moves in the other frames from one plane to the next (full resolution)."""


class SweepFeatures:
    """What is compared, of every frame: brightness, and the same normalised in windows of two
    sizes; about 0..1 wide. Made when asked for; the last ones are kept."""

    def __init__(self, images: UInt8[np.ndarray, "n h w 3"]) -> None:
        self._of = lru_cache(2 * WINDOW + 1)(lambda i: _features(images[i]))

    def __getitem__(self, i: int) -> Float[np.ndarray, "h w 3"]:
        return self._of(i)


def _features(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    import cv2

    grey, normal = image.mean(-1, dtype=np.float32), []
    for side in SCALES:
        mean = cv2.blur(grey, (side, side))
        spread = np.sqrt(np.maximum(cv2.blur(grey * grey, (side, side)) - mean * mean, 0))
        normal.append((grey - mean) / (spread + np.float32(CONTRAST)) / 3)
    return np.dstack([grey / 128, *normal])


def plane_sweep(
    features: SweepFeatures,
    i: int,
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    depth: Float[np.ndarray, "n h w"],
    moving: Bool[np.ndarray, "n h w"],
) -> Sweep:
    """Try the planes for frame i. `depth` decides their range and which frames are compared;
    what moves in those does not count."""
    h2, w2 = (side // 2 for side in moving.shape[1:])
    still = depth[i][~moving[i]]
    far_first = 1 / np.maximum(still if len(still) else depth[i].ravel(), 1e-9)
    nearest = float(MARGIN * np.quantile(far_first, NEAR_SHARE))
    sources, parallax = _sources(i, K, T_world_camera, depth, moving)
    if not len(sources):
        nothing = torch.ones(CHANNELS, h2, w2)
        nothing[-2] = 0
        return Sweep(nothing, nearest, 0.0)
    costs = [_costs(features, i, int(j), K, T_world_camera, nearest, moving[j]) for j in sources]
    stack = torch.stack(costs).sort(0).values  # inf where nothing is seen
    better = _mean_of_seen(stack[: (len(stack) + 1) // 2])
    every = _mean_of_seen(stack)
    smooth = _box(better[None], 5)[0]
    best, cost = _best(smooth)
    channels = torch.cat([_box(better[None], 3)[0], _box(every[None], 3)[0], best, cost])
    typical = float(np.median(far_first))
    step = float(np.mean(parallax)) / typical * nearest / (PLANES - 1)
    return Sweep(channels, nearest, step)


def _sources(
    i: int,
    K: np.ndarray,
    T_world_camera: np.ndarray,
    depth: np.ndarray,
    moving: np.ndarray,
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Which frames to compare with, and the median parallax in each in pixels."""
    n, h, w = depth.shape
    stride = max(1, max(h, w) // 28)
    v, u = np.mgrid[stride // 2 : h : stride, stride // 2 : w : stride]
    z = np.where(moving[i][v, u], np.nan, depth[i][v, u]).ravel()
    if np.isnan(z).all():
        z = depth[i][v, u].ravel()
    pixel = np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    known = np.isfinite(z)
    values, parallax = np.full(n, -1.0), np.zeros(n)
    for j in range(max(0, i - WINDOW), min(n, i + WINDOW + 1)):
        if j == i:
            continue
        A, b = _homography(K, T_world_camera, i, j)
        far = A @ pixel
        with np.errstate(invalid="ignore", divide="ignore"):
            seen = far + b[:, None] / z
            at, at_far = seen[:2] / seen[2], far[:2] / far[2]
            inside = (seen[2] > 0) & (at > 0).all(0) & (at[0] < w - 1) & (at[1] < h - 1)
        overlap = (inside & known).sum() / known.sum()
        if overlap > 0.2:
            moved = np.linalg.norm(at - at_far, axis=0)[inside & known & (far[2] > 0)]
            parallax[j] = np.median(moved) if len(moved) else 0.0
            values[j] = overlap * parallax[j] / (parallax[j] + USEFUL_PX)
    centre = T_world_camera[:, :3, 3]
    away = np.linalg.norm(centre - centre[i], axis=1)
    chosen: list[int] = []
    while len(chosen) < SOURCES and values.max() > 0:
        best = int(values.argmax())
        chosen.append(best)
        # another view from the same place says the same
        apart = np.linalg.norm(centre - centre[best], axis=1)
        values *= apart / (apart + 0.3 * away + 1e-12)
        values[best] = 0.0
    return np.array(chosen, int), parallax[chosen]


def _homography(
    K: np.ndarray, T_world_camera: np.ndarray, i: int, j: int
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """A, b: a pixel x of frame i at inverse depth d is seen in frame j at A x + d b."""
    T = np.linalg.inv(T_world_camera[j]) @ T_world_camera[i]
    return K[j] @ T[:3, :3] @ np.linalg.inv(K[i]), K[j] @ T[:3, 3]


def _costs(
    features: SweepFeatures,
    i: int,
    j: int,
    K: np.ndarray,
    T_world_camera: np.ndarray,
    nearest: float,
    moving: Bool[np.ndarray, "h w"],
) -> Float[Tensor, "d h2 w2"]:
    """Difference of frame i from frame j on every plane, 0..1, means of 2 x 2 pixels; inf where j
    shows nothing."""
    import cv2

    here, there = features[i], np.dstack([features[j], (~moving).astype(np.float32)])
    h, w = moving.shape
    half = (w // 2, h // 2)
    A, b = _homography(K, T_world_camera, i, j)
    v, u = np.ogrid[:h, :w]
    mean_of_channels = np.full((1, 3), 1 / 3)
    out = np.empty((PLANES, h // 2, w // 2), np.float32)
    for plane, inverse in zip(out, np.linspace(0, nearest, PLANES)):
        H = A.copy()
        H[:, 2] += inverse * b
        seen = cv2.warpPerspective(there, H, (w, h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        usable = seen[..., 3] > 0.7
        corners = H[2] @ [[0, w - 1, 0, w - 1], [0, 0, h - 1, h - 1], [1, 1, 1, 1]]
        if corners.min() <= 0:  # part of the plane lies behind the other camera
            usable &= H[2, 0] * u + H[2, 1] * v + H[2, 2] > 1e-6 * np.abs(corners).max()
        difference = cv2.transform(cv2.absdiff(seen[..., :3], here), mean_of_channels)
        difference = np.minimum(difference, 1) * usable
        share = cv2.resize(usable.astype(np.float32), half, interpolation=cv2.INTER_AREA)
        mean = cv2.resize(difference, half, interpolation=cv2.INTER_AREA)
        plane[:] = np.where(share >= 0.5, mean / np.maximum(share, 0.5), np.inf)
    return torch.from_numpy(out)


def _mean_of_seen(costs: Float[Tensor, "m d h w"]) -> Float[Tensor, "d h w"]:
    seen = costs.isfinite()
    total = costs.masked_fill(~seen, 0).sum(0)
    count = seen.sum(0)
    return torch.where(count > 0, total / count.clamp(min=1), torch.ones(()))


def _best(costs: Float[Tensor, "d h w"]) -> tuple[Float[Tensor, "1 h w"], Float[Tensor, "1 h w"]]:
    """The cheapest plane, between planes by a parabola, 0..1; and its cost."""
    cost, at = costs.min(0, keepdim=True)
    inner = at.clamp(1, PLANES - 2)
    left, middle, right = (costs.gather(0, inner + k) for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    between = (0.5 * (left - right) / bend.clamp(min=1e-6)).clamp(-0.5, 0.5)
    at = torch.where((at == inner) & (bend > 1e-6), at + between, at.float())
    return at / (PLANES - 1), cost


def _box(x: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, "b c h w"]:
    return avg_pool2d(x, side, stride=1, padding=side // 2, count_include_pad=False)


def log_step(step_px: float) -> float:
    """How finely the planes resolve depth, as the network reads it."""
    return math.log(step_px + 0.02)
