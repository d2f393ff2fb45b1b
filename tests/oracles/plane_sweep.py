"""The plane sweep by OpenCV's warps, pair by pair and plane by plane."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dyn3r.mvs.plane_sweep import (
    CONTRAST_FLOOR,
    MIN_STATIC_WEIGHT,
    NORMALISATION_WINDOWS_PX,
    PLANES,
    Sweep,
)
from dyn3r.mvs.source_frames import (
    BASELINE_SHARE,
    HALF_PARALLAX_PX,
    INVERSE_DEPTH_FACTOR,
    INVERSE_DEPTH_QUANTILE,
    MAX_FRAME_DISTANCE,
    MAX_SOURCES,
    MIN_OVERLAP,
    SOURCE_GRID,
)

Array = np.ndarray


def _features(image: Array) -> Array:
    grey, normalised = image.mean(-1, dtype=np.float32), []
    for side in NORMALISATION_WINDOWS_PX:
        mean = cv2.blur(grey, (side, side))
        deviation = np.sqrt(np.maximum(cv2.blur(grey * grey, (side, side)) - mean * mean, 0))
        normalised.append((grey - mean) / (deviation + np.float32(CONTRAST_FLOOR)) / 3)
    return np.dstack([grey / 128, *normalised])


def plane_sweep(
    images: Array, i: int, K: Array, T_world_camera: Array, depth: Array, dynamic: Array
) -> Sweep:
    """Sweep of frame i that has source frames."""
    static = depth[i][~dynamic[i]]
    inverse_depth = 1 / np.maximum(static if len(static) else depth[i].ravel(), 1e-9)
    largest = float(INVERSE_DEPTH_FACTOR * np.quantile(inverse_depth, INVERSE_DEPTH_QUANTILE))
    sources, parallax = choose_sources(i, K, T_world_camera, depth, dynamic)
    reference = _features(images[i])
    costs = [
        _costs(
            reference, _features(images[j]), _homography(K, T_world_camera, i, int(j)), largest,
            dynamic[j],
        )
        for j in sources
    ]  # fmt: skip
    stack = torch.stack(costs).sort(0).values  # inf where nothing is visible
    better_half = _mean_of_visible(stack[: (len(stack) + 1) // 2])
    every = _mean_of_visible(stack)
    best, cost = _best_plane(_box(better_half[None], 5)[0])
    channels = torch.cat([_box(better_half[None], 3)[0], _box(every[None], 3)[0], best, cost])
    median = float(np.median(inverse_depth))
    spacing = float(np.mean(parallax)) / median * largest / (PLANES - 1)
    return Sweep(channels, largest, spacing)


def choose_sources(
    i: int, K: Array, T_world_camera: Array, depth: Array, dynamic: Array
) -> tuple[Array, Array]:
    """Source frames of frame i, and the median parallax in each in pixels."""
    n, h, w = depth.shape
    stride = max(1, max(h, w) // SOURCE_GRID)
    v, u = np.mgrid[stride // 2 : h : stride, stride // 2 : w : stride]
    z = np.where(dynamic[i][v, u], np.nan, depth[i][v, u]).ravel()
    if np.isnan(z).all():
        z = depth[i][v, u].ravel()
    pixel = np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    value, parallax = np.full(n, -1.0), np.zeros(n)
    for j in range(max(0, i - MAX_FRAME_DISTANCE), min(n, i + MAX_FRAME_DISTANCE + 1)):
        if j == i:
            continue
        overlap, median = _overlap(*_homography(K, T_world_camera, i, j), pixel, z, (h, w))
        if overlap > MIN_OVERLAP:
            parallax[j] = median
            value[j] = overlap * parallax[j] / (parallax[j] + HALF_PARALLAX_PX)
    center = T_world_camera[:, :3, 3]
    baseline = np.linalg.norm(center - center[i], axis=1)
    chosen: list[int] = []
    while len(chosen) < MAX_SOURCES and value.max() > 0:
        best = int(value.argmax())
        chosen.append(best)
        # another view from the same place adds no information
        separation = np.linalg.norm(center - center[best], axis=1)
        value *= separation / (separation + BASELINE_SHARE * baseline + 1e-12)
        value[best] = 0.0
    return np.array(chosen, int), parallax[chosen]


def _overlap(
    A: Array, b: Array, pixel: Array, z: Array, size_hw: tuple[int, int]
) -> tuple[float, float]:
    h, w = size_hw
    known, far = np.isfinite(z), A @ pixel
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = far + b[:, None] / z
        at, at_infinity = seen[:2] / seen[2], far[:2] / far[2]
        inside = (seen[2] > 0) & (at > 0).all(0) & (at[0] < w - 1) & (at[1] < h - 1)
    displacement = np.linalg.norm(at - at_infinity, axis=0)[inside & known & (far[2] > 0)]
    median = float(np.median(displacement)) if len(displacement) else 0.0
    return float((inside & known).sum() / known.sum()), median


def _homography(K: Array, T_world_camera: Array, i: int, j: int) -> tuple[Array, Array]:
    T = np.linalg.inv(T_world_camera[j]) @ T_world_camera[i]
    return K[j] @ T[:3, :3] @ np.linalg.inv(K[i]), K[j] @ T[:3, 3]


def _costs(
    reference: Array, source: Array, homography: tuple[Array, Array], largest: float, dynamic: Array
) -> Tensor:
    reference = np.dstack([reference, np.zeros(dynamic.shape, np.float32)])
    source = np.dstack([source, (~dynamic).astype(np.float32)])
    (A, b), (h, w) = homography, dynamic.shape
    half = (w // 2, h // 2)
    v, u = np.ogrid[:h, :w]
    mean_of_channels = np.array([[1 / 3, 1 / 3, 1 / 3, 0]])
    out = np.empty((PLANES, h // 2, w // 2), np.float32)
    for plane, inverse in zip(out, np.linspace(0, largest, PLANES)):
        H = A.copy()
        H[:, 2] += inverse * b
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpPerspective(source, H, (w, h), flags=flags)
        usable = warped[..., 3] > MIN_STATIC_WEIGHT
        corners = H[2] @ [[0, w - 1, 0, w - 1], [0, 0, h - 1, h - 1], [1, 1, 1, 1]]
        if corners.min() <= 0:  # part of the plane is behind the source camera
            usable &= H[2, 0] * u + H[2, 1] * v + H[2, 2] > 1e-6 * np.abs(corners).max()
        difference = cv2.transform(cv2.absdiff(warped, reference), mean_of_channels)
        difference = np.minimum(difference, 1) * usable
        share = cv2.resize(usable.astype(np.float32), half, interpolation=cv2.INTER_AREA)
        mean = cv2.resize(difference, half, interpolation=cv2.INTER_AREA)
        plane[:] = np.where(share >= 0.5, mean / np.maximum(share, 0.5), np.inf)
    return torch.from_numpy(out)


def _mean_of_visible(costs: Tensor) -> Tensor:
    seen = costs.isfinite()
    total = costs.masked_fill(~seen, 0).sum(0)
    count = seen.sum(0)
    return torch.where(count > 0, total / count.clamp(min=1), torch.ones(()))


def _best_plane(
    costs: Tensor,
) -> tuple[Tensor, Tensor]:
    cost, at = costs.min(0, keepdim=True)
    inner = at.clamp(1, PLANES - 2)
    left, middle, right = (costs.gather(0, inner + k) for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    offset = (0.5 * (left - right) / bend.clamp(min=1e-6)).clamp(-0.5, 0.5)
    at = torch.where((at == inner) & (bend > 1e-6), at + offset, at.float())
    return at / (PLANES - 1), cost


def _box(x: Tensor, side: int) -> Tensor:
    return avg_pool2d(x, side, stride=1, padding=side // 2, count_include_pad=False)
