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
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from dyn3r.flow.fields import neighbouring_rows
from dyn3r.geometry.reprojection import MIN_DEPTH, pixel_maps
from dyn3r.geometry.warping import sample_at
from dyn3r.io.devices import on_device
from dyn3r.io.workers import ordered_map, threads_on
from dyn3r.types import FlowFields, Geometry

DEPTHS = 25
"""Inverse depths that are tried, at equal distances. Source: 33 give the same masks on 19
development clips (docs/experiments.md)."""
WINDOW_PX = (-2, 0, 2)
"""Rows and columns around a pixel that are compared."""
ROUNDING = 0.5
"""Smallest difference of two matches, in grey levels of 255: images are rounded to whole levels."""
BAD = 0.9
"""Flow matches badly where it is worse than in this share of the background. Source: 28 clips; 0.75
and 0.95 are hardly different on real ones, and lower shares cost slow objects
(docs/experiments.md)."""
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
        others = flow.edges[rows, 1]
        pixels = torch.from_numpy(np.stack([u, v]).astype(np.float32)).to(device)
        measured = torch.from_numpy(np.asarray(flow.flow[rows][:, v, u], np.float32)).to(device)
        at = pixels[:, None] + measured.permute(0, 2, 1)[:, :, None]
        by_flow = _cost(grey[i], grey[others], pixels, at)[0]
        count = len(inside)
        by_flow, background, pixels = by_flow[:count], by_flow[count:], pixels[:, :count]
        P = pixel_maps(geometry.K, geometry.T_world_camera, i, others, "cpu").float().to(device)
        depth = geometry.depth[i][v[:count], u[:count]].astype(np.float32)
        inverse = factors[:, None] / torch.from_numpy(depth).to(device).clamp(min=MIN_DEPTH)
        at = _places(P, pixels, inverse)
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
) -> Float32[Tensor, "m 2 d q"]:
    """Where pixels at inverse depths lie in other frames; -1 if behind the camera."""
    start = P[:, :, :2] @ pixels + P[:, :, 2:3]
    seen = start[:, :, None] + P[:, :, 3, None, None] * inverse
    z = seen[:, 2:]
    return torch.where(z > MIN_DEPTH, seen[:, :2] / z.clamp(min=MIN_DEPTH), -1.0)


def _cost(
    image: Float32[Tensor, "1 h w"],
    others: Float32[Tensor, "m 1 h w"],
    pixels: Float32[Tensor, "2 q"],
    at: Float32[Tensor, "m 2 d q"],
) -> Float32[Tensor, "d q"]:
    """Mean difference of the windows around pixels, over the better half of the other frames.

    Infinite where more than half of them do not see the pixel.
    """
    m, h, w = len(others), *image.shape[1:]
    offsets = torch.cartesian_prod(*[torch.tensor(WINDOW_PX, device=at.device).float()] * 2).T
    mine = sample_at(image[None], (pixels[..., None] + offsets[:, None])[None])[0, 0]
    windows = at[..., None] + offsets[:, None, None]
    found = sample_at(others, windows.flatten(2, 3)).view(m, *windows.shape[2:])
    cost = (found - mine).abs().mean(-1).clamp(max=LARGEST_DIFFERENCE)
    last = torch.tensor([w - 1, h - 1], device=at.device)[:, None, None]
    cost = cost.masked_fill(~((at >= 0) & (at <= last)).all(1), torch.inf)
    return cost.sort(0).values[: (m + 1) // 2].mean(0)
