"""Network that estimates depth from a plane sweep, the depth before and the image (ours).

Depth from optical flow has no sharp outlines and is undetermined without parallax, and that of
moving objects is a guess. A U-Net (Ronneberger et al. 2015) predicts a correction of log inverse
depth. Matching costs are input channels (SimpleRecon, Sayed et al. 2022), sampled around the depth
before (as in RAFT, Teed and Deng 2020). It is trained on the synthetic world by
`dyn3r.training.mvs_training`; its weights are part of the package.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from dyn3r.mvs.plane_sweep import PLANES

FRAME_CHANNELS = 9
"""Input channels at full resolution: image (3, -1..1), log inverse depth before, the same with
moving objects at their ground contact (both in units of the last plane), dynamic mask, bearing
(x, y), log of the plane spacing in pixels."""
PRIOR_CHANNEL = 3
"""Index of the log inverse depth before."""
WIDTHS = (48, 64, 96, 128, 128)
"""Channels at 1/2 to 1/32 of the frame's size."""
LOG_OFFSETS = (0.03, 0.05, 0.09, 0.15, 0.26, 0.44, 0.75)
"""Offsets of log inverse depth, on both sides of the depth before, at which costs are sampled."""
MATCH_CHANNELS = 2 * (2 * len(LOG_OFFSETS) + 1) + 2
"""Input channels of a sweep: both costs at these depths, log offset of the best plane, its cost."""
MIN_LOG_INVERSE, MAX_LOG_INVERSE = -5.0, 3.0
"""Range of log inverse depth in units of the last plane; the minimum stands for infinity."""


class ResidualBlock(nn.Module):
    """Two convolutions with a skip connection."""

    def __init__(self, width: int) -> None:
        """Layers for `width` channels."""
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        return relu(x + self.second(relu(self.first(x))))


class DepthNetwork(nn.Module):
    """U-Net from frames and their sweeps to log inverse depth in units of the last plane."""

    def __init__(self) -> None:
        """Random weights; the correction of the depth before is 0."""
        super().__init__()
        half = WIDTHS[0] // 2
        self.frame = nn.Conv2d(FRAME_CHANNELS, half, 3, stride=2, padding=1)
        self.sweep = nn.Sequential(
            nn.Conv2d(MATCH_CHANNELS, WIDTHS[0], 1),
            nn.ReLU(),
            nn.Conv2d(WIDTHS[0], half, 3, padding=1),
        )
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(WIDTHS)
        )
        self.blocks = nn.ModuleList(ResidualBlock(w) for w in WIDTHS)
        self.whole = nn.Linear(WIDTHS[-1], WIDTHS[-1])
        self.up = nn.ModuleList(
            nn.Conv2d(coarse + fine, fine, 3, padding=1)
            for fine, coarse in itertools.pairwise(WIDTHS)
        )
        self.last = nn.Conv2d(WIDTHS[0] + FRAME_CHANNELS, half, 3, padding=1)
        self.out = nn.Conv2d(half, 1, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(
        self, frame: Float[Tensor, "b 9 h w"], sweep: Float[Tensor, "b c h2 w2"]
    ) -> Float[Tensor, "b h w"]:
        """Log inverse depth at full resolution; h and w must be even."""
        matches = sample_costs(sweep, avg_pool2d(frame[:, PRIOR_CHANNEL], 2))
        x = self.blocks[0](relu(torch.cat([self.frame(frame), self.sweep(matches)], 1)))
        levels = [x]
        for down, block in zip(self.down, self.blocks[1:]):
            x = block(relu(down(x)))
            levels.append(x)
        x = x + self.whole(x.mean((2, 3)))[..., None, None]  # global context
        for up, finer in zip(reversed(self.up), reversed(levels[:-1])):
            x = relu(up(torch.cat([_resize_like(x, finer), finer], 1)))
        x = relu(self.last(torch.cat([_resize_like(x, frame), frame], 1)))
        correction: Tensor = self.out(x)[:, 0]
        return frame[:, PRIOR_CHANNEL] + correction


def sample_costs(
    sweep: Float[Tensor, "b c h2 w2"], before: Float[Tensor, "b h2 w2"]
) -> Float[Tensor, "b m h2 w2"]:
    """Matching costs of a sweep around `before` (log inverse depth in units of the last plane)."""
    both_sides = [*(-x for x in reversed(LOG_OFFSETS)), 0.0, *LOG_OFFSETS]
    offsets = torch.tensor(both_sides, device=before.device)
    at = torch.exp(before[:, None] + offsets[:, None, None]) * (PLANES - 1)
    at = at.clamp(0, PLANES - 1 - 1e-3)
    lower = at.floor()
    share, index = at - lower, lower.long()
    found = []
    for costs in (sweep[:, :PLANES], sweep[:, PLANES : 2 * PLANES]):
        a, b = costs.gather(1, index), costs.gather(1, index + 1)
        found.append(a + share * (b - a))
    best = sweep[:, -2].clamp(min=math.exp(MIN_LOG_INVERSE)).log() - before
    return torch.cat([*found, best.clamp(-2, 2)[:, None], sweep[:, -1:]], 1)


def _resize_like(x: Tensor, finer: Tensor) -> Tensor:
    return interpolate(x, finer.shape[2:], mode="bilinear", align_corners=False)
