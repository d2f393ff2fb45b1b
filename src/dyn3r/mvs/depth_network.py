"""A small network that draws depth from a plane sweep, the depth before, and the picture (ours).

Depth that follows optical flow knows no outlines, and nothing where nothing shifts; the depth of
what moves is a guess. A U-Net (Ronneberger et al. 2015) reads all that is known of one frame and
says the inverse depth of every pixel. Matching costs are channels of it (SimpleRecon, Sayed et al.
2022), looked up around the depth before (as RAFT does, Teed and Deng 2020). Trained on the
synthetic world by `dyn3r.training.mvs_training`; its weights are part of the package.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from dyn3r.mvs.plane_sweep import PLANES

FRAME = 9
"""Channels of a frame at full resolution: picture (3, -1..1), log inverse depth before and with
movers standing on the ground (both in units of the last plane), mask, bearing (x, y), and the
logarithm of the pixels from plane to plane."""
BEFORE = 3
"""Which of them is the log inverse depth before."""
WIDTHS = (48, 64, 96, 128, 128)
"""Channels at 1/2 to 1/32 of the frame."""
OFFSETS = (0.03, 0.05, 0.09, 0.15, 0.26, 0.44, 0.75)
"""Costs are read at the depth before and so far off on both sides (logarithm)."""
MATCHES = 2 * (2 * len(OFFSETS) + 1) + 2
"""Channels of what is read of a sweep: both costs at these depths; how far off the best plane is;
its cost."""
FARTHEST, NEAREST = -5.0, 3.0
"""Log inverse depth, in units of the last plane, of what is infinitely far, and the largest."""


class Block(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Same size."""
        return relu(x + self.second(relu(self.first(x))))


class DepthNetwork(nn.Module):
    """Frames and their sweeps in, log inverse depth out, in units of the last plane."""

    def __init__(self) -> None:
        super().__init__()
        half = WIDTHS[0] // 2
        self.frame = nn.Conv2d(FRAME, half, 3, stride=2, padding=1)
        self.sweep = nn.Sequential(
            nn.Conv2d(MATCHES, WIDTHS[0], 1), nn.ReLU(), nn.Conv2d(WIDTHS[0], half, 3, padding=1)
        )
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(WIDTHS)
        )
        self.blocks = nn.ModuleList(Block(w) for w in WIDTHS)
        self.whole = nn.Linear(WIDTHS[-1], WIDTHS[-1])
        self.up = nn.ModuleList(
            nn.Conv2d(coarse + fine, fine, 3, padding=1)
            for fine, coarse in itertools.pairwise(WIDTHS)
        )
        self.last = nn.Conv2d(WIDTHS[0] + FRAME, half, 3, padding=1)
        self.out = nn.Conv2d(half, 1, 3, padding=1)
        nn.init.zeros_(self.out.weight)  # at first: the depth before
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(
        self, frame: Float[Tensor, "b 9 h w"], sweep: Float[Tensor, "b c h2 w2"]
    ) -> Float[Tensor, "b h w"]:
        """h and w must be even."""
        matches = look_up(sweep, avg_pool2d(frame[:, BEFORE], 2))
        x = self.blocks[0](relu(torch.cat([self.frame(frame), self.sweep(matches)], 1)))
        levels = [x]
        for down, block in zip(self.down, self.blocks[1:]):
            x = block(relu(down(x)))
            levels.append(x)
        x = x + self.whole(x.mean((2, 3)))[..., None, None]  # how the whole frame looks
        for up, finer in zip(reversed(self.up), reversed(levels[:-1])):
            x = relu(up(torch.cat([_like(x, finer), finer], 1)))
        x = relu(self.last(torch.cat([_like(x, frame), frame], 1)))
        return frame[:, BEFORE] + self.out(x)[:, 0]


def look_up(
    sweep: Float[Tensor, "b c h2 w2"], before: Float[Tensor, "b h2 w2"]
) -> Float[Tensor, "b m h2 w2"]:
    """What a sweep says of depths around `before` (log inverse depth, units of the last plane)."""
    off = torch.tensor([*(-x for x in reversed(OFFSETS)), 0.0, *OFFSETS], device=before.device)
    at = torch.exp(before[:, None] + off[:, None, None]) * (PLANES - 1)
    at = at.clamp(0, PLANES - 1 - 1e-3)
    lower = at.floor()
    share, index = at - lower, lower.long()
    found = []
    for costs in (sweep[:, :PLANES], sweep[:, PLANES : 2 * PLANES]):
        a, b = costs.gather(1, index), costs.gather(1, index + 1)
        found.append(a + share * (b - a))
    best = sweep[:, -2].clamp(min=math.exp(FARTHEST)).log() - before
    return torch.cat([*found, best.clamp(-2, 2)[:, None], sweep[:, -1:]], 1)


def _like(x: Tensor, finer: Tensor) -> Tensor:
    return interpolate(x, finer.shape[2:], mode="bilinear", align_corners=False)
