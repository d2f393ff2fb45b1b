"""Background model: the colour that other frames show at the place of every pixel.

Flow between frames that are close in time says little about objects that move slowly, stand still
for a while or move along with the camera, and it is dragged along at their outlines. With cameras
and depth known, every pixel can be looked up in all frames: static surfaces have the same colour
there, while a moving object has left. This is background subtraction (Stauffer and Grimson 1999)
for a moving camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from torch import Tensor
from torch.nn.functional import grid_sample

from dyn3r.geometry.filters import gaussian_blur, lowest_first, window_max
from dyn3r.geometry.inpainting import inpaint_depth
from dyn3r.geometry.reprojection import (
    MIN_DEPTH,
    frames_at_once,
    maps_to,
    places,
)
from dyn3r.io.devices import on_device
from dyn3r.io.workers import kept_results, ordered_map, threads_on
from dyn3r.types import Progress, no_progress

MAX_FRAMES, MAX_FRAMES_APART = 14, 40
"""Largest number of other frames, spread over those that are at most so many frames away."""
MASK_MARGIN = 0.013
"""Pixels closer to a mask than this share of the long side are not used."""
MAX_LOG_DEPTH_DIFFERENCE = 0.1
"""A pixel of another frame shows the same place if its log depth differs by less than this."""
SAME_COLOR, MIN_SAME_SHARE = 3.0, 0.4
"""A frame is used if at least this share of its pixels differs by less than SAME_COLOR (0..255);
else its camera is wrong. Source: development clips; 45 to 98 % in registered frames, 1 to 20 %
across a cut."""
MIN_FRAMES = 3
"""Frames that must show a place for a result."""
SMOOTH_PX = 0.8
"""Standard deviation in pixels of the Gaussian blur before frames are compared."""


_NUMBER = 15
"""Lowest bits of a difference that hold the number of a frame; MAX_FRAMES is less."""


@dataclass(frozen=True)
class BackgroundEvidence:
    """Colour at the place of every pixel in other frames; NaN where too few of them show it."""

    color_difference: Float[Tensor, "n h w"]
    """Median difference from those frames in the channel that differs most, 0..255."""
    colour: Float[Tensor, "n 3 h w"]
    """RGB, 0..255, in the frame with the median difference (the lower of two), corrected to the
    exposure of this frame and blurred as by `smoothed`."""

    def part(self, rows: slice) -> BackgroundEvidence:
        """Some of the frames."""
        return BackgroundEvidence(self.color_difference[rows], self.colour[rows])


def background_evidence(
    images: UInt8[np.ndarray, "n h w 3"],
    depth: Float[np.ndarray, "n h w"],
    dynamic: Bool[np.ndarray, "n h w"],
    K: Float[np.ndarray, "n 3 3"],
    T_world_camera: Float[np.ndarray, "n 4 4"],
    progress: Progress = no_progress,
    device: str = "cpu",
) -> BackgroundEvidence:
    """Differences of every pixel from the same place in other frames, and the colour there.

    Pixels known to be `dynamic` are not used; the surface behind them is taken to be as far away as
    the static pixels next to them. A colour within the range of the 3x3 pixels around the place has
    difference 0, which tolerates an error of one pixel. Differences of exposure are removed by
    their median (of two values the lower). Single precision, on `device`, where the result stays;
    hidden depth is filled in on the CPU before.
    """
    n, h, w = depth.shape
    filled = inpaint_depth(depth, dynamic).astype(np.float32)
    pictures, surface, excluded = (on_device(x, device) for x in (images, filled, dynamic))
    lookup = _Lookup(pictures, surface, excluded, K, T_world_camera)
    out = BackgroundEvidence(
        torch.empty(n, h, w, device=device), torch.empty(n, 3, h, w, device=device)
    )
    progress("comparing frames", 0, n)
    found = ordered_map(lookup.evidence, range(n), threads_on(device))
    for t, (difference, colour) in enumerate(found):
        out.color_difference[t], out.colour[t] = difference, colour
        progress("comparing frames", t + 1, n)
    return out


def smoothed(image: UInt8[Tensor, "h w 3"]) -> Float32[Tensor, "3 h w"]:
    """Image blurred by SMOOTH_PX, 0..255: as frames are compared."""
    return gaussian_blur(image.permute(2, 0, 1).float(), SMOOTH_PX)


class _Frame(NamedTuple):
    """What a frame shows."""

    smooth: Float32[Tensor, "3 h w"]
    """The blurred frame."""
    sampled: Float32[Tensor, "7 h w"]
    """Depth, and of each channel the centre of the range of 3x3 pixels and half its length."""
    excluded: Float32[Tensor, "1 h w"]
    """1 close to a mask, else 0."""


class _Lookup:
    """Places of one frame's pixels in other frames."""

    def __init__(
        self,
        images: UInt8[Tensor, "n h w 3"],
        depth: Float32[Tensor, "n h w"],
        dynamic: Bool[Tensor, "n h w"],
        K: Float[np.ndarray, "n 3 3"],
        T_world_camera: Float[np.ndarray, "n 4 4"],
    ) -> None:
        """`depth` is that of the static scene."""
        n, h, w = depth.shape
        self.images, self.depth, self.dynamic, self.size_hw = images, depth, dynamic, (h, w)
        self.others = [other_frames(t, n) for t in range(n)]
        self.maps = maps_to(K, T_world_camera, self.others, (h, w), depth.device)
        self.at_once = frames_at_once((h, w), depth.device)
        self.frame = kept_results(self._frame, 2 * MAX_FRAMES)

    def _frame(self, t: int) -> _Frame:
        smooth = smoothed(self.images[t])
        largest, least = window_max(smooth, 3), -window_max(-smooth, 3)
        sampled = torch.cat([self.depth[t][None], (least + largest) / 2, (largest - least) / 2])
        radius = max(1, round(MASK_MARGIN * max(self.size_hw)))
        return _Frame(smooth, sampled, window_max(self.dynamic[t][None].float(), 2 * radius + 1))

    def evidence(self, t: int) -> tuple[Float32[Tensor, "h w"], Float32[Tensor, "3 h w"]]:
        """Median difference of frame t (0..255) and its colour; NaN where unknown."""
        others = [self.frame(k) for k in self.others[t]]
        if len(others) < MIN_FRAMES:
            nothing = torch.full((3, *self.size_hw), torch.nan, device=self.depth.device)
            return nothing[0], nothing
        starts = range(0, len(others), self.at_once)
        parts = (slice(start, start + self.at_once) for start in starts)
        found = [self._compare(t, self.maps[t][some], others[some]) for some in parts]
        difference, brighter, at = (torch.cat(values) for values in zip(*found))
        median, number, known = _median(difference)
        colour = _colour_of([other.smooth for other in others], number, at)
        colour += brighter.T[:, number]
        return median.masked_fill_(~known, torch.nan), colour.masked_fill_(~known, torch.nan)

    def _compare(
        self, t: int, P: Float32[Tensor, "k 3 4"], others: list[_Frame]
    ) -> tuple[Float32[Tensor, "k h w"], Float32[Tensor, "k 3"], Float32[Tensor, "k 2 h w"]]:
        """Largest difference over the channels, inf where unknown or not usable.

        Also how much brighter frame t is than each of the others, and the places of its pixels
        there (-1..1).
        """
        at, z = places(P, self.depth[t])
        grid = at.permute(0, 2, 3, 1)
        sampled = grid_sample(
            torch.stack([other.sampled for other in others]), grid,
            padding_mode="border", align_corners=True,
        )  # fmt: skip
        excluded = grid_sample(
            torch.stack([other.excluded for other in others]), grid, "nearest", "border",
            align_corners=True,
        )  # fmt: skip
        ratio = sampled[:, 0].clamp(min=MIN_DEPTH) / z
        h, w = self.size_hw
        inside = (at[:, 0].abs() < 1 - 2 / (w - 1)) & (at[:, 1].abs() < 1 - 2 / (h - 1))
        same = (ratio > np.exp(-MAX_LOG_DEPTH_DIFFERENCE)) & (
            ratio < np.exp(MAX_LOG_DEPTH_DIFFERENCE)
        )
        usable = inside & same & (z > MIN_DEPTH) & (excluded[:, 0] == 0)
        offset = self.frame(t).smooth - sampled[:, 1:4]
        known = offset.masked_fill(~usable[:, None], torch.nan)
        brighter = known.flatten(2).nanmedian(2).values
        offset = offset.sub_(brighter[..., None, None]).abs_().sub_(sampled[:, 4:])
        a, b, c = offset.unbind(1)
        difference = torch.maximum(torch.maximum(a, b), c).clamp_(min=0)
        same_colour = (usable & (difference < SAME_COLOR)).sum((1, 2))
        enough = same_colour >= MIN_SAME_SHARE * usable.sum((1, 2))
        usable &= enough[:, None, None]
        return difference.masked_fill_(~usable, torch.inf), brighter, at


def other_frames(t: int, num_frames: int) -> list[int]:
    """Frames to compare frame t with."""
    first, end = max(0, t - MAX_FRAMES_APART), min(num_frames, t + MAX_FRAMES_APART + 1)
    near = [k for k in range(first, end) if k != t]
    picks = np.linspace(0, len(near) - 1, min(len(near), MAX_FRAMES)).astype(int)
    return [near[k] for k in picks]


def _median(
    differences: Float32[Tensor, "m h w"],
) -> tuple[Float32[Tensor, "h w"], Int[Tensor, "h w"], Bool[Tensor, "h w"]]:
    """Median over the frames that show a place, which of them has it, and where enough do.

    The lower of two has it; of equal differences that of the earlier frame counts as lower.
    """
    count = (differences < torch.inf).sum(0)
    # differences are not negative: as integers they have the same order
    numbers = torch.arange(len(differences), device=count.device, dtype=torch.int32)
    keys = (differences.view(torch.int32) & ~_NUMBER) | numbers[:, None, None]
    half = len(differences) // 2 + 1
    ordered = torch.stack(lowest_first(keys.unbind(), half)[:half])
    low, high = (ordered.gather(0, k[None]) for k in ((count - 1).clamp(min=0) >> 1, count >> 1))
    both = [differences.gather(0, (key & _NUMBER).long())[0] for key in (low, high)]
    return (both[0] + both[1]) / 2, (low[0] & _NUMBER).long(), count >= MIN_FRAMES


def _colour_of(
    images: list[Float32[Tensor, "3 h w"]],
    number: Int[Tensor, "h w"],
    at: Float32[Tensor, "m 2 h w"],
) -> Float32[Tensor, "3 h w"]:
    """Bilinear colour of every pixel in the image with this number, at its place there (-1..1)."""
    h, w = number.shape
    x, y = at.gather(0, number.expand(1, 2, h, w))[0]
    x, y = ((p.clamp(-1, 1) + 1).mul_((side - 1) / 2) for p, side in ((x, w), (y, h)))
    left, top = x.floor().clamp_(max=w - 2), y.floor().clamp_(max=h - 2)
    across, down = x - left, y - top
    corner = ((number * h + top.long()) * w + left.long()).flatten()
    every = torch.stack(images, 1).flatten(1)
    a, b, c, d = (every.index_select(1, corner + step).view(3, h, w) for step in (0, 1, w, w + 1))
    upper, lower = torch.lerp(a, b, across), torch.lerp(c, d, across)
    return torch.lerp(upper, lower, down)
