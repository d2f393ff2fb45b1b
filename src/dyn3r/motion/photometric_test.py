"""Masked pixels whose images a static surface explains better than their flow does.

Where measured flow is wrong (thin things, repeated texture, fast motion close to the camera), its
residuals look like motion. There the flow also matches the images worse than elsewhere in the
frame. Such pixels are searched in the neighbouring frames along their epipolar lines, at one depth
in all of them, as a plane sweep does (Collins 1996); if that matches better than flow, flow says
nothing about motion.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from torch import Tensor
from torch.nn.functional import grid_sample

from dyn3r.flow.fields import neighbouring_rows
from dyn3r.geometry.reprojection import MIN_DEPTH, unit_homographies
from dyn3r.io.devices import on_device
from dyn3r.io.workers import ordered_map, threads_on
from dyn3r.types import FlowFields, Geometry

DEPTHS = 25
"""Inverse depths that are tried, at equal distances. Source: 33 give the same masks on 19
development clips (docs/results.md)."""
WINDOW_PX = (-2, 0, 2)
"""Rows and columns around a pixel that are compared."""
ROUNDING = 0.5
"""Smallest difference of two matches, in grey levels of 255: images are rounded to whole levels."""
BAD = 0.9
"""Flow matches badly where it is worse than in this share of the background. Source: 28 clips; 0.75
and 0.95 are hardly different on real ones, and lower shares cost slow objects (docs/results.md)."""
BACKGROUND_STEP = 8
"""Every eighth background pixel that is tested gives that. Source: run time."""
MIN_BACKGROUND = 20
"""With fewer of them flow is not judged."""
LARGEST_DIFFERENCE = 60.0
"""Grey levels; larger ones count as this: an occlusion says no more."""


def better_static(
    masks: Bool[np.ndarray, "n h w"],
    images: UInt8[np.ndarray, "n h w 3"],
    geometry: Geometry,
    flow: FlowFields,
    largest_error: float,
    stride: int,
    device: str = "cpu",
) -> Bool[np.ndarray, "n th tw"]:
    """Whether flow matches badly, and a static surface explains the images better.

    Of masked pixels of every `stride`-th row and column. largest_error: the depth tried is off from
    the geometry's by at most so much in its logarithm. A pixel may be hidden in half of the frames
    it is compared with. Single precision, on `device`.
    """
    grey = torch.stack([on_device(image, device).float().mean(-1) for image in images])[:, None]
    tested = masks[:, ::stride, ::stride]
    near = neighbouring_rows(flow.edges)
    factors = torch.linspace(math.exp(-largest_error), math.exp(largest_error), DEPTHS).to(device)

    def frame(i: int) -> Bool[np.ndarray, " q"]:
        rows = near[flow.edges[near, 0] == i]
        inside, outside = np.flatnonzero(tested[i]), np.flatnonzero(~tested[i])[::BACKGROUND_STEP]
        if not len(rows) or len(outside) < MIN_BACKGROUND:
            return np.zeros(len(inside), bool)
        both = np.concatenate([inside, outside])
        v, u = (stride * index for index in np.unravel_index(both, tested[i].shape))
        others, size_hw = flow.edges[rows, 1], (masks.shape[1], masks.shape[2])
        pixels = torch.from_numpy(np.stack([u, v]).astype(np.float32)).to(device)
        measured = torch.from_numpy(np.asarray(flow.flow[rows][:, v, u], np.float32)).to(device)
        at = _to_unit(pixels.T + measured, size_hw)[:, None]
        by_flow = _cost(grey[i], grey[others], pixels, at)[0]
        count = len(inside)
        by_flow, background, pixels = by_flow[:count], by_flow[count:], pixels[:, :count]
        P = unit_homographies(geometry.K, geometry.T_world_camera, i, others, size_hw)
        depth = geometry.depth[i][v[:count], u[:count]].astype(np.float32)
        inverse = factors[:, None] / torch.from_numpy(depth).to(device).clamp(min=MIN_DEPTH)
        at = _places(torch.from_numpy(P).to(device), pixels, inverse)
        static = _cost(grey[i], grey[others], pixels, at).amin(0)
        limit = background.masked_fill(background.isinf(), torch.nan).nanquantile(BAD)
        better = (by_flow > limit) & (static < by_flow - ROUNDING)
        return np.asarray(better.cpu().numpy())

    out = np.zeros_like(tested)
    frames = np.flatnonzero(tested.any((1, 2))).tolist()
    for i, better in zip(frames, ordered_map(frame, frames, threads_on(device))):
        out[i][tested[i]] = better
    return out


def _places(
    P: Float32[Tensor, "m 3 4"], pixels: Float32[Tensor, "2 q"], inverse: Float32[Tensor, "d q"]
) -> Float32[Tensor, "m d q 2"]:
    """Where pixels (x, y) at inverse depths lie in other frames, -1..1; far outside if behind."""
    start = P[:, :, :2] @ pixels + P[:, :, 2:3]
    seen = start[:, :, None] + P[:, :, 3, None, None] * inverse
    z = seen[:, 2]
    at = seen[:, :2] / z.clamp(min=MIN_DEPTH)[:, None]
    return torch.where(z[:, None] > MIN_DEPTH, at, 2.0).movedim(1, -1)


def _to_unit(
    places: Float32[Tensor, "m q 2"], size_hw: tuple[int, int]
) -> Float32[Tensor, "m q 2"]:
    """Pixel coordinates as -1..1, the outermost pixel centres."""
    scale = torch.tensor([2 / (size_hw[1] - 1), 2 / (size_hw[0] - 1)], device=places.device)
    return places * scale - 1


def _cost(
    image: Float32[Tensor, "1 h w"],
    others: Float32[Tensor, "m 1 h w"],
    pixels: Float32[Tensor, "2 q"],
    at: Float32[Tensor, "m d q 2"],
) -> Float[Tensor, "d q"]:
    """Mean difference of the windows around pixels, over the better half of the other frames.

    Infinite where more than half of them do not see the pixel.
    """
    m, h, w = len(others), *image.shape[1:]
    offsets = torch.cartesian_prod(*[torch.tensor(WINDOW_PX, device=at.device)] * 2)
    here = _window(pixels.long().T, offsets, (h, w))
    mine = image[0].flatten()[here]
    windows = at[:, :, :, None] + _to_unit(offsets[None].float(), (h, w)) + 1
    found = grid_sample(
        others, windows.reshape(m, -1, len(here.T), 2), padding_mode="border", align_corners=True
    )
    cost = (found.view(*at.shape[:3], -1) - mine).abs().mean(-1)
    outside = ~(at.abs() <= 1).all(-1)
    cost = cost.clamp(max=LARGEST_DIFFERENCE).masked_fill(outside, torch.inf)
    return cost.sort(0).values[: (m + 1) // 2].mean(0)


def _window(
    pixels: Int[Tensor, "q 2"], offsets: Int[Tensor, "o 2"], size_hw: tuple[int, int]
) -> Int[Tensor, "q o"]:
    """Flat indices of the pixels (x, y) around each, the outermost ones beyond the edge."""
    h, w = size_hw
    around = pixels[:, None] + offsets
    return around[..., 1].clamp(0, h - 1) * w + around[..., 0].clamp(0, w - 1)
