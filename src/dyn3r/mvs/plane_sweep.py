"""Plane sweep: matching costs of a set of inverse depths for every pixel of a frame.

With known cameras, the inverse depth of a pixel determines its position in other frames. A set of
inverse depths is tested for all pixels at once (Collins 1996, "A space-sweep approach to true
multi-image matching"). Pixels are compared individually at full resolution; the costs have half
that. Depth is z in the camera of the frame, in the unit of length of the cameras. Sweeps are
computed on the device of the network that reads them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import grid_sample

from dyn3r.geometry.filters import lowest_first, window_mean_inside, window_mean_reflect
from dyn3r.geometry.reprojection import homographies
from dyn3r.io.devices import on_device
from dyn3r.io.workers import kept_results
from dyn3r.mvs.source_frames import MAX_FRAME_DISTANCE, choose_sources

PLANES = 32
"""Number of inverse depths, equally spaced from 0 (infinity) to the largest. Source: the weights of
the network are for this number."""
NORMALISATION_WINDOWS_PX = (5, 11)
"""Sides of the windows in which brightness is normalised. Source: chosen by hand."""
CONTRAST_FLOOR = 4.0
"""Standard deviation of brightness (0..255) below which there is no texture. Source: chosen by
hand."""
MIN_STATIC_WEIGHT = 0.7
"""Smallest weight of static pixels in an interpolated source pixel. Source: chosen by hand."""
BEHIND = 1e-6
"""Smallest projective denominator, as a share of the largest: what is behind the source camera is
mapped far out of its image."""
SAMPLES_AT_ONCE = 2**17
"""Samples that are computed at once: on a CPU they stay in its cache."""
SAMPLES_AT_ONCE_ELSEWHERE = 2**23
"""The same on other devices. Source: about 0.4 GB."""
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


class SweepFrames:
    """The frames of a clip, their cameras and the depth before, on a device.

    Features of frames are computed on demand; the most recent ones are kept.
    """

    def __init__(
        self,
        images: UInt8[np.ndarray, "n h w 3"],
        K: Float[np.ndarray, "n 3 3"],
        T_world_camera: Float[np.ndarray, "n 4 4"],
        depth: Float[np.ndarray, "n h w"],
        dynamic: Bool[np.ndarray, "n h w"],
        device: str = "cpu",
    ) -> None:
        """`depth` determines planes and source frames; `dynamic` pixels are not compared with."""
        self.K, self.T_world_camera = K, T_world_camera
        self.size_hw = (int(depth.shape[1]), int(depth.shape[2]))
        self.images, self.depth, self.dynamic = (
            on_device(x, device) for x in (images, depth.astype(np.float32, copy=False), dynamic)
        )
        static_count = (~dynamic).sum((1, 2))
        self.sources = choose_sources(K, T_world_camera, self.depth, self.dynamic, static_count)
        rows, columns = (torch.arange(side, device=device).float() for side in self.size_hw)
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
        self.u, self.v = _by_position(grid).flatten(1)
        self._kept = kept_results(self._features, 2 * MAX_FRAME_DISTANCE + 1)

    def features(self, i: int) -> Float[Tensor, "4 h w"]:
        """Brightness and brightness normalised in two windows, of order 1/3; 1 where static."""
        return self._kept(i)

    def _features(self, i: int) -> Float[Tensor, "4 h w"]:
        grey = self.images[i].float().mean(-1)
        found = [grey / 128]
        for side in NORMALISATION_WINDOWS_PX:
            mean, squared = window_mean_reflect(torch.stack([grey, grey * grey]), side)
            deviation = (squared - mean * mean).clamp(min=0).sqrt()
            found.append((grey - mean) / (deviation + CONTRAST_FLOOR) / 3)
        return torch.cat([torch.stack(found) / 3, (~self.dynamic[i])[None].float()])


def plane_sweep(frames: SweepFrames, i: int) -> Sweep:
    """Plane sweep of frame i, on the device of the frames."""
    h2, w2 = (side // 2 for side in frames.size_hw)
    chosen = frames.sources[i]
    if not len(chosen.frames):
        nothing = torch.ones(CHANNELS, h2, w2, device=frames.depth.device)
        nothing[-2] = 0
        return Sweep(nothing, chosen.max_inverse_depth, 0.0)
    reference = _by_position(frames.features(i)[:3])
    A, b = homographies(frames.K, frames.T_world_camera, i, chosen.frames)
    maps = np.concatenate([A, b[..., None] * chosen.max_inverse_depth], -1)
    costs = [_costs(frames, reference, int(j), P) for j, P in zip(chosen.frames, maps)]
    half = (len(costs) + 1) // 2
    costs = lowest_first(costs, half)  # inf where nothing is visible
    lower = _visible_sum(costs[:half])
    better_half, every = _mean(*lower), _mean(*_visible_sum(costs[half:], lower))
    best, cost = _best_plane(window_mean_inside(better_half, 5))
    channels = torch.cat([*(window_mean_inside(x, 3) for x in (better_half, every)), best, cost])
    planes = (PLANES - 1) * chosen.median_inverse_depth / chosen.max_inverse_depth
    return Sweep(channels, chosen.max_inverse_depth, float(np.mean(chosen.parallax_px)) / planes)


def _costs(
    frames: SweepFrames,
    reference: Float[Tensor, "3 4 q"],
    j: int,
    P: Float[np.ndarray, "3 4"],
) -> Float[Tensor, "d h2 w2"]:
    """Difference of a frame from source frame j on every plane, 0..1, means of 2 x 2 pixels.

    It is inf where frame j does not see the point or is dynamic. P maps pixels (u, v, 1) of the
    frame, with the share of the largest inverse depth, to those of frame j. `reference`: features
    of the frame.
    """
    (h, w), (u, v) = frames.size_hw, (frames.u, frames.v)
    unit = np.array([[2 / (w - 1), 0, -1], [0, 2 / (h - 1), -1], [0, 0, 1]])  # as `grid_sample`
    far = torch.stack([u * a + v * b + c for a, b, c, _ in (unit @ P).tolist()])[:, None]
    corners = P[2, :3] @ [[0, w - 1, 0, w - 1], [0, 0, h - 1, h - 1], [1, 1, 1, 1]]
    corners = np.concatenate([corners, corners + P[2, 3]])  # of the first and the last plane
    shares = torch.arange(PLANES, device=u.device, dtype=u.dtype)[:, None] / (PLANES - 1)
    towards = torch.stack([shares * b for b in (unit @ P)[:, 3].tolist()])
    at_once = SAMPLES_AT_ONCE if u.is_cpu else SAMPLES_AT_ONCE_ELSEWHERE
    source, out = frames.features(j)[None], []
    for some in torch.split(towards, max(1, at_once // len(u)), 1):
        z = far[2] + some[2]
        if corners.min() <= 0:  # part of a plane is behind the source camera
            z = z.clamp(min=float(BEHIND * np.abs(corners).max()))
        # `grid_sample` reads x and y apart faster than interleaved
        grid = (far[:2] + some[:2]).div_(z).view(2, 1, -1, w // 2).permute(1, 2, 3, 0)
        sampled = grid_sample(source, grid, align_corners=True)[0].view(4, -1, *reference.shape[1:])
        out.append(_difference(sampled, reference).view(-1, h // 2, w // 2))
    return torch.cat(out)


def _difference(
    sampled: Float[Tensor, "4 k 4 q"], reference: Float[Tensor, "3 4 q"]
) -> Float[Tensor, "k q"]:
    """Mean difference of sampled from reference features over the four pixels of each block.

    Over those that are usable; inf where less than half of them are. `sampled` is overwritten.
    """
    usable = sampled[3].gt_(MIN_STATIC_WEIGHT)
    a, b, c = sampled[:3].sub_(reference[:, None]).abs_()
    difference = torch.minimum(a.add_(b).add_(c), usable)  # at most 1; 0 where not usable
    total, count = difference.sum(1), usable.sum(1)
    return torch.where(count >= 2, total / count, torch.inf)


def _by_position(x: Float[Tensor, "c h w"]) -> Float[Tensor, "c 4 q"]:
    """Pixels with those at one position in the blocks of 2 x 2 together.

    Means over blocks are then sums of whole rows. An odd row or column at the end is left out.
    """
    c, h2, w2 = x.shape[0], x.shape[1] // 2, x.shape[2] // 2
    blocks = x[:, : 2 * h2, : 2 * w2].reshape(c, h2, 2, w2, 2)
    return blocks.permute(0, 2, 4, 1, 3).reshape(c, 4, h2 * w2)


def _visible_sum(
    costs: list[Tensor], start: tuple[Tensor, Tensor] | None = None
) -> tuple[Float[Tensor, "d h w"], Float[Tensor, "d h w"]]:
    """Sum and number of the finite costs, added to those of `start`."""
    if start is None:
        seen = costs[0] < torch.inf
        start, costs = (torch.where(seen, costs[0], 0), seen.float()), costs[1:]
    total, count = start
    for cost in costs:
        seen = cost < torch.inf
        total, count = total + torch.where(seen, cost, 0), count + seen
    return total, count


def _mean(total: Float[Tensor, "d h w"], count: Float[Tensor, "d h w"]) -> Float[Tensor, "d h w"]:
    """Mean cost; 1 where nothing is visible."""
    return torch.where(count > 0, total / count, 1)


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


def log_plane_spacing(spacing_px: float) -> float:
    """Input channel of the network for the plane spacing in pixels."""
    return math.log(spacing_px + 0.02)
