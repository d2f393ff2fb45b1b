"""Plane sweep: matching costs of a set of inverse depths for every pixel of a frame.

With known cameras, the inverse depth of a pixel determines its position in other frames. A set of
inverse depths is tested for all pixels at once (Collins 1996, "A space-sweep approach to true
multi-image matching"). Pixels are compared individually at full resolution; the costs have half the
resolution. Depth is z in the camera of the frame, in the unit of length of the cameras.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dyn3r.io.workers import kept_results

PLANES = 32
"""Number of inverse depths, equally spaced from 0 (infinity) to the largest. Source: the weights of
the network are for this number."""
MAX_SOURCES = 6
"""Largest number of source frames that a frame is compared with. Source: run time."""
MAX_FRAME_DISTANCE = 40
"""Largest distance of a source frame in frames. Source: run time."""
INVERSE_DEPTH_FACTOR, INVERSE_DEPTH_QUANTILE = 1.5, 0.97
"""The largest inverse depth is this factor times this quantile of the inverse depth before.
Source: chosen by hand."""
HALF_PARALLAX_PX = 8.0
"""Parallax in pixels at which a source frame has half its full value. Source: chosen by hand."""
MIN_OVERLAP = 0.2
"""Smallest share of the static pixels that a source frame must see. Source: chosen by hand."""
BASELINE_SHARE = 0.3
"""Source frames nearer to a chosen one than about this share of their distance from the frame have
less value. Source: chosen by hand."""
SOURCE_GRID = 28
"""Samples along the long side that the choice of source frames is based on. Source: run time."""
NORMALISATION_WINDOWS_PX = (5, 11)
"""Sides of the windows in which brightness is normalised. Source: chosen by hand."""
CONTRAST_FLOOR = 4.0
"""Standard deviation of brightness (0..255) below which there is no texture. Source: chosen by
hand."""
MIN_STATIC_WEIGHT = 0.7
"""Smallest weight of static pixels in an interpolated source pixel. Source: chosen by hand."""
CHANNELS = 2 * PLANES + 2
"""Number of channels of `Sweep.channels`."""


@dataclass(frozen=True)
class Sweep:
    """Plane sweep of one frame at half resolution."""

    channels: Float[Tensor, "c h2 w2"]
    """Costs 0..1 of every plane, mean of the better half of the source frames; the same of all
    source frames; inverse depth of the best plane (0..1); its cost. Cost 1: no source frame sees
    the point."""
    max_inverse_depth: float
    """Inverse depth of the last plane."""
    plane_spacing_px: float
    """Mean displacement in the source frames from one plane to the next, in pixels."""


class SweepFeatures:
    """Features of frames that are compared: brightness, and brightness normalised in two windows.

    They are computed on demand; the most recent ones are kept.
    """

    def __init__(self, images: UInt8[np.ndarray, "n h w 3"]) -> None:
        """Features of these images."""
        self._cached = kept_results(lambda i: _features(images[i]), 2 * MAX_FRAME_DISTANCE + 1)

    def __getitem__(self, i: int) -> Float[np.ndarray, "h w 3"]:
        """Features of frame i, of order 1."""
        return self._cached(i)


def _features(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    import cv2

    grey, normalised = image.mean(-1, dtype=np.float32), []
    for side in NORMALISATION_WINDOWS_PX:
        mean = cv2.blur(grey, (side, side))
        deviation = np.sqrt(np.maximum(cv2.blur(grey * grey, (side, side)) - mean * mean, 0))
        normalised.append((grey - mean) / (deviation + np.float32(CONTRAST_FLOOR)) / 3)
    return np.dstack([grey / 128, *normalised])


def plane_sweep(
    features: SweepFeatures,
    i: int,
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    depth: Float[np.ndarray, "n h w"],
    dynamic: Bool[np.ndarray, "n h w"],
) -> Sweep:
    """Plane sweep of frame i.

    `depth` determines the range of the planes and the source frames. `dynamic` pixels of the source
    frames are left out.
    """
    h2, w2 = (side // 2 for side in dynamic.shape[1:])
    static = depth[i][~dynamic[i]]
    inverse_depth = 1 / np.maximum(static if len(static) else depth[i].ravel(), 1e-9)
    largest = float(INVERSE_DEPTH_FACTOR * np.quantile(inverse_depth, INVERSE_DEPTH_QUANTILE))
    sources, parallax = choose_sources(i, K, T_world_camera, depth, dynamic)
    if not len(sources):
        nothing = torch.ones(CHANNELS, h2, w2)
        nothing[-2] = 0
        return Sweep(nothing, largest, 0.0)
    costs = [
        _costs(
            features, (i, int(j)), _homography(K, T_world_camera, i, int(j)), largest, dynamic[j]
        )
        for j in sources
    ]
    stack = torch.stack(costs).sort(0).values  # inf where nothing is visible
    better_half = _mean_of_visible(stack[: (len(stack) + 1) // 2])
    every = _mean_of_visible(stack)
    best, cost = _best_plane(_box(better_half[None], 5)[0])
    channels = torch.cat([_box(better_half[None], 3)[0], _box(every[None], 3)[0], best, cost])
    median = float(np.median(inverse_depth))
    spacing = float(np.mean(parallax)) / median * largest / (PLANES - 1)
    return Sweep(channels, largest, spacing)


def choose_sources(
    i: int,
    K: np.ndarray,
    T_world_camera: np.ndarray,
    depth: np.ndarray,
    dynamic: np.ndarray,
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Source frames of frame i, and the median parallax in each in pixels.

    They are chosen greedily by overlap, parallax and distance from the sources chosen before.
    """
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
    A: Float[np.ndarray, "3 3"],
    b: Float[np.ndarray, "3"],
    pixel: Float[np.ndarray, "3 k"],
    z: Float[np.ndarray, " k"],
    size_hw: tuple[int, int],
) -> tuple[float, float]:
    """Share of the pixels with known depth z that a source frame sees, and their median parallax.

    `A` and `b` are those of `_homography`; unknown depth is NaN.
    """
    h, w = size_hw
    known, far = np.isfinite(z), A @ pixel
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = far + b[:, None] / z
        at, at_infinity = seen[:2] / seen[2], far[:2] / far[2]
        inside = (seen[2] > 0) & (at > 0).all(0) & (at[0] < w - 1) & (at[1] < h - 1)
    displacement = np.linalg.norm(at - at_infinity, axis=0)[inside & known & (far[2] > 0)]
    median = float(np.median(displacement)) if len(displacement) else 0.0
    return float((inside & known).sum() / known.sum()), median


def _homography(
    K: np.ndarray, T_world_camera: np.ndarray, i: int, j: int
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """A, b: the pixel x of frame i at inverse depth d projects to A x + d b in frame j."""
    T = np.linalg.inv(T_world_camera[j]) @ T_world_camera[i]
    return K[j] @ T[:3, :3] @ np.linalg.inv(K[i]), K[j] @ T[:3, 3]


def _costs(
    features: SweepFeatures,
    pair: tuple[int, int],
    homography: tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]],
    max_inverse_depth: float,
    dynamic: Bool[np.ndarray, "h w"],
) -> Float[Tensor, "d h2 w2"]:
    """Difference of frame i from source frame j on every plane, 0..1, means of 2 x 2 pixels.

    It is inf where frame j does not see the point or is `dynamic`.
    """
    import cv2

    # a fourth channel of the reference: slices of interleaved channels would be copied
    reference = np.dstack([features[pair[0]], np.zeros(dynamic.shape, np.float32)])
    source = np.dstack([features[pair[1]], (~dynamic).astype(np.float32)])
    (A, b), (h, w) = homography, dynamic.shape
    half = (w // 2, h // 2)
    v, u = np.ogrid[:h, :w]
    mean_of_channels = np.array([[1 / 3, 1 / 3, 1 / 3, 0]])
    out = np.empty((PLANES, h // 2, w // 2), np.float32)
    for plane, inverse in zip(out, np.linspace(0, max_inverse_depth, PLANES)):
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


def _mean_of_visible(costs: Float[Tensor, "m d h w"]) -> Float[Tensor, "d h w"]:
    seen = costs.isfinite()
    total = costs.masked_fill(~seen, 0).sum(0)
    count = seen.sum(0)
    return torch.where(count > 0, total / count.clamp(min=1), torch.ones(()))


def _best_plane(
    costs: Float[Tensor, "d h w"],
) -> tuple[Float[Tensor, "1 h w"], Float[Tensor, "1 h w"]]:
    """Inverse depth 0..1 of the plane of lowest cost, refined by a parabola, and its cost."""
    cost, at = costs.min(0, keepdim=True)
    inner = at.clamp(1, PLANES - 2)
    left, middle, right = (costs.gather(0, inner + k) for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    offset = (0.5 * (left - right) / bend.clamp(min=1e-6)).clamp(-0.5, 0.5)
    at = torch.where((at == inner) & (bend > 1e-6), at + offset, at.float())
    return at / (PLANES - 1), cost


def _box(x: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, "b c h w"]:
    return avg_pool2d(x, side, stride=1, padding=side // 2, count_include_pad=False)


def log_plane_spacing(spacing_px: float) -> float:
    """Input channel of the network for the plane spacing in pixels."""
    return math.log(spacing_px + 0.02)
