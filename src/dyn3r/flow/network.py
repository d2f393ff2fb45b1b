"""Compact flow network: corrects a first flow, and says where a point is seen and how sure it is.

Two proposals are refined together: a first flow (dense inverse search, with and without alignment
by a homography), precise where it holds, and a global match of learned features, which finds large
motion of objects too. Every frame is encoded once. Sources: matching by softmax over all positions
and propagation by self-similarity, GMFlow (Xu et al. 2022); lookups in an all-pairs correlation
pyramid, recurrent updates and convex upsampling, RAFT (Teed and Deng 2020); updates by ConvNeXt
blocks and a predicted error distribution, SEA-RAFT (Wang et al. 2024).

Letters in shapes: b frames or pairs, d channels, h w pixels (multiples of 16), gh gw cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    gelu,
    grid_sample,
    interpolate,
    pad,
    scaled_dot_product_attention,
    unfold,
)

from dyn3r.geometry.cameras import pixel_grid

CELL = 16
"""Height and width of frames are multiples of this."""
LARGEST_LOG = 5.0
"""Bound of the log precision: errors from 1/150 to 150 pixels can be stated."""
LARGEST_SHEAR = 20.0
"""Bound of the shear, which makes errors longer in one direction than across it."""


@dataclass(frozen=True)
class FlowNetworkConfig:
    """Size of the network."""

    stem: int = 24
    """Channels at 1/2 resolution."""
    fine: int = 32
    """Channels at 1/4 resolution, of features that are compared."""
    coarse: int = 64
    """Channels at 1/8 resolution."""
    fine_blocks: int = 2
    """Residual blocks at 1/4."""
    coarse_blocks: int = 3
    """Residual blocks at 1/8."""
    attention_blocks: int = 2
    """Self-attention blocks at 1/8."""
    hidden: int = 48
    """Channels of the recurrent state at 1/4."""
    evidence: int = 12
    """Channels that describe how well the first flow explains the second frame."""
    radius: int = 2
    """Correlations are looked up within this many cells, at two scales."""
    coarse_updates: int = 2
    """Updates at 1/8."""
    fine_updates: int = 2
    """Updates at 1/4."""


class FrameFeatures(NamedTuple):
    """Frames with what the encoder says about them."""

    image: Float[Tensor, "b 3 h w"]
    """`normalised` images."""
    coarse: Float[Tensor, "b d gh gw"]
    """At 1/8, for global matching."""
    fine: Float[Tensor, "b e 2*gh 2*gw"]
    """At 1/4, for local correlation."""
    context8: Float[Tensor, "b d gh gw"]
    """State and context of the updates at 1/8."""
    context4: Float[Tensor, "b f 2*gh 2*gw"]
    """State and context of the updates at 1/4."""


class FlowPrediction(NamedTuple):
    """Flow of pairs, in pixels."""

    flow: Float[Tensor, "b 2 h w"]
    """Displacement (u, v) of every pixel of the first frame."""
    visible: Float[Tensor, "b h w"]
    """Logit of the probability that the point is visible in the second frame."""
    whitening: Float[Tensor, "b 3 h w"]
    """(a, b, c): the error (du, dv) is whitened by W = [[e^a, 0], [c e^b, e^b]] (1/pixels); its
    density is the bivariate Laplace |det W| exp(-|W e|) / (2 pi)."""
    coarse: tuple[Float[Tensor, "b gh gw 2"], ...]
    """Flow in pixels after matching and after every update, at 1/8 and 1/4."""
    matching: Float[Tensor, "b t s"]
    """Logits of the target cell t of every source cell s, at 1/8."""


class Residual(nn.Module):
    """Residual block of two 3x3 convolutions."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(d, d, 3, padding=1)
        self.second = nn.Conv2d(d, d, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Add what two convolutions find."""
        return x + self.second(torch.relu(self.first(torch.relu(x))))


class ConvNeXt(nn.Module):
    """ConvNeXt block (Liu et al. 2022): 7x7 per channel, then a two-layer network per cell."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(d, d, 7, padding=3, groups=d)
        self.norm = nn.LayerNorm(d)
        self.widen = nn.Linear(d, 2 * d)
        self.narrow = nn.Linear(2 * d, d)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Float[Tensor, "b gh gw d"]) -> Float[Tensor, "b gh gw d"]:
        """Add what the block finds."""
        y = channels_last(self.depthwise(channels_first(x)))
        return x + self.narrow(gelu(self.widen(self.norm(y))))


class Attention(nn.Module):
    """Transformer block over all cells of one frame (pre-norm)."""

    def __init__(self, d: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.project = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.widen, self.narrow = nn.Linear(d, 3 * d), nn.Linear(3 * d, d)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        """Add what attention and the two-layer network find."""
        b, s, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, s, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, s, d)
        x = x + self.project(mixed)
        return x + self.narrow(gelu(self.widen(self.norm2(x))))


class Encoder(nn.Module):
    """Features of single frames at 1/8 and 1/4."""

    def __init__(self, c: FlowNetworkConfig) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, c.stem, 5, stride=2, padding=2)
        self.stem2 = nn.Conv2d(c.stem, c.stem, 3, padding=1)
        self.to_fine = nn.Conv2d(c.stem, c.fine, 3, stride=2, padding=1)
        self.fine = nn.Sequential(*(Residual(c.fine) for _ in range(c.fine_blocks)))
        self.to_coarse = nn.Conv2d(c.fine, c.coarse, 3, stride=2, padding=1)
        self.coarse = nn.Sequential(*(Residual(c.coarse) for _ in range(c.coarse_blocks)))
        self.attention = nn.Sequential(*(Attention(c.coarse) for _ in range(c.attention_blocks)))
        self.norm = nn.LayerNorm(c.coarse)
        self.match = nn.Conv2d(c.coarse, c.coarse, 1)
        self.context8 = nn.Conv2d(c.coarse, c.coarse, 1)
        self.down = nn.Conv2d(c.coarse, c.fine, 1)
        self.match4 = nn.Conv2d(c.fine, c.fine, 3, padding=1)
        self.context4 = nn.Conv2d(c.fine, c.hidden, 3, padding=1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> FrameFeatures:
        """Encode frames; images: RGB 0..1."""
        image = normalised(images)
        x = torch.relu(self.stem(image))
        x = torch.relu(self.stem2(x))
        fine = self.fine(self.to_fine(x))
        x = self.coarse(self.to_coarse(torch.relu(fine)))
        b, d, gh, gw = x.shape
        tokens = x.flatten(2).transpose(1, 2) + positions(gh, gw, d, x.device)
        x = self.norm(self.attention(tokens)).transpose(1, 2).view(b, d, gh, gw)
        fine = torch.relu(fine + doubled(self.down(x)))
        return FrameFeatures(
            image, self.match(x), self.match4(fine), self.context8(x), self.context4(fine)
        )


class Evidence(nn.Module):
    """How well the first flow explains the second frame: round trip and colours, at 1/4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shrink = nn.Conv2d(5, channels, 4, stride=4)
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self,
        source: Float[Tensor, "b 3 h w"],
        target: Float[Tensor, "b 3 h w"],
        first: Float[Tensor, "b 2 h w"],
        backward: Float[Tensor, "b 2 h w"],
    ) -> Float[Tensor, "b e gh gw"]:
        """Describe the first flow of a pair by that of the opposite direction and the images."""
        there = warped(torch.cat([target, backward], 1), first)
        inside = warped(torch.ones_like(first[:, :1]), first)
        trip = (first + there[:, 3:]).square().sum(1, keepdim=True)
        seen = torch.cat([(there[:, :3] - source) * inside, 0.5 * torch.log1p(trip), inside], 1)
        return torch.relu(self.mix(torch.relu(self.shrink(seen))))


class Update(nn.Module):
    """One recurrent update of flow, by what the correlations around it and the first flow say."""

    def __init__(self, d: int, looked_up: int, evidence: int) -> None:
        super().__init__()
        self.join = nn.Linear(2 * looked_up + 4 + 2 * d + evidence, d)
        self.block = ConvNeXt(d)
        self.change = nn.Conv2d(d, 3, 3, padding=1)

    def forward(
        self,
        state: Float[Tensor, "b gh gw d"],
        flow: Float[Tensor, "b gh gw 2"],
        first: Float[Tensor, "b gh gw 2"],
        known: tuple[Tensor, ...],
    ) -> tuple[Float[Tensor, "b gh gw d"], Float[Tensor, "b gh gw 2"]]:
        """Return the new state and flow, in cells; `known`: further channels (b, gh, gw, *)."""
        gap = first - flow
        state = self.block(state + self.join(torch.cat([state, flow, gap, *known], -1)))
        out = channels_last(self.change(channels_first(state)))
        return state, flow + out[..., :2] + torch.sigmoid(out[..., 2:]) * gap


class FlowNetwork(nn.Module):
    """Flow, its visibility and its error distribution for pairs of frames."""

    def __init__(self, config: FlowNetworkConfig | None = None) -> None:
        """Create random weights."""
        super().__init__()
        self.config = c = config if config is not None else FlowNetworkConfig()
        looked_up = 2 * (2 * c.radius + 1) ** 2
        self.encoder = Encoder(c)
        self.evidence = Evidence(c.evidence)
        self.similar = nn.Linear(c.coarse, 2 * c.coarse)
        self.temperature = nn.Parameter(torch.tensor(math.log(2.0)))
        self.update8 = Update(c.coarse, looked_up, c.evidence)
        self.update4 = Update(c.hidden, looked_up, c.evidence)
        self.to_fine = nn.Linear(c.coarse, c.hidden)
        self.final = nn.Conv2d(c.hidden, 64, 3, padding=1)
        self.weights = nn.Conv2d(64, 9 * 16, 1)
        self.says = nn.Conv2d(64, 5, 1)
        nn.init.zeros_(self.weights.weight)
        for head in (self.says, self.update8.change, self.update4.change):
            nn.init.normal_(head.weight, std=1e-3)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> FrameFeatures:
        """Encode frames; images: RGB 0..1."""
        return self.encoder(images)

    def forward(
        self,
        source: FrameFeatures,
        target: FrameFeatures,
        first: Float[Tensor, "b 2 h w"],
        backward: Float[Tensor, "b 2 h w"],
    ) -> FlowPrediction:
        """Flow from the frames of `source` to those of `target`.

        first, backward: flow by another method in this and in the opposite direction, pixels.
        """
        c = self.config
        evidence = self.evidence(source.image, target.image, first, backward)
        steps = []
        # at 1/8: from the global match
        volumes = correlations(source.coarse, target.coarse)
        logits = volumes[0].flatten(1, 2) * self.temperature.exp()
        flow = self._match(logits, source)
        steps.append(8 * flow)
        first8, first4 = (channels_last(avg_pool2d(first, k)) / k for k in (8, 4))
        context = channels_last(source.context8)
        state, context = torch.tanh(context), torch.relu(context)
        said = channels_last(avg_pool2d(evidence, 2))
        known = (context, look_up(volumes, first8, c.radius), said)
        for _ in range(c.coarse_updates):
            flow = flow.detach()
            around = look_up(volumes, flow, c.radius)
            state, flow = self.update8(state, flow, first8, (*known, around))
            steps.append(8 * flow)
        # at 1/4
        flow = 2 * channels_last(doubled(channels_first(flow)))
        upper = doubled(channels_first(self.to_fine(state)))
        state = channels_last(torch.tanh(source.context4 + upper))
        context = channels_last(torch.relu(source.context4))
        volumes = correlations(source.fine, target.fine)
        known = (context, look_up(volumes, first4, c.radius), channels_last(evidence))
        for _ in range(c.fine_updates):
            flow = flow.detach()
            around = look_up(volumes, flow, c.radius)
            state, flow = self.update4(state, flow, first4, (*known, around))
            steps.append(4 * flow)
        # at full resolution: the fine details of the first flow, where they are right
        final = gelu(self.final(channels_first(state)))
        coarse = torch.cat([channels_first(flow), channels_first(first4)], 1) * 4
        full = convex_upsample(torch.cat([coarse, self.says(final)], 1), self.weights(final))
        details = torch.sigmoid(full[:, 8:9]) * (first - full[:, 2:4])
        bounded = LARGEST_LOG * torch.tanh(full[:, 5:7] / LARGEST_LOG)
        shear = LARGEST_SHEAR * torch.tanh(full[:, 7:8] / LARGEST_SHEAR)
        whitening = torch.cat([bounded, shear], 1)
        return FlowPrediction(full[:, :2] + details, full[:, 4], whitening, tuple(steps), logits)

    def both_directions(
        self, frames: FrameFeatures, first: Float[Tensor, "b 2 h w"]
    ) -> FlowPrediction:
        """Flow of pairs from the frames to their `opposite` ones; `first`: of all directions."""
        target = FrameFeatures(*(opposite(x) for x in frames))
        return self(frames, target, first, opposite(first))

    def _match(
        self, logits: Float[Tensor, "b t s"], source: FrameFeatures
    ) -> Float[Tensor, "b gh gw 2"]:
        """Match globally at 1/8 (expected position), then propagate by self-similarity."""
        b, _, gh, gw = source.coarse.shape
        grid = pixel_grid((gh, gw), logits.device).view(1, gh * gw, 2)
        q, k = self.similar(source.context8.flatten(2).transpose(1, 2)).chunk(2, -1)
        similar = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).float().softmax(-1)
        with torch.autocast(grid.device.type, enabled=False):  # positions need float32
            flow = logits.float().softmax(1).transpose(1, 2) @ grid - grid
            return (similar @ flow).view(b, gh, gw, 2)


def opposite(x: Tensor) -> Tensor:
    """Swap the halves of a batch (b, ...): row (k + b / 2) mod b is the other direction of k."""
    half = len(x) // 2
    return torch.cat([x[half:], x[:half]])


def channels_first(x: Float[Tensor, "b gh gw d"]) -> Float[Tensor, "b d gh gw"]:
    """Move channels to the front; the memory stays as it is."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Float[Tensor, "b d gh gw"]) -> Float[Tensor, "b gh gw d"]:
    """Move channels to the end; the memory stays as it is."""
    return x.permute(0, 2, 3, 1)


def doubled(x: Float[Tensor, "b d gh gw"]) -> Float[Tensor, "b d 2*gh 2*gw"]:
    """Enlarge twofold, bilinear."""
    return interpolate(x, scale_factor=2, mode="bilinear")


def warped(x: Float[Tensor, "b d h w"], flow: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b d h w"]:
    """Sample an image where the flow ends, bilinear; 0 outside."""
    h, w = x.shape[2:]
    at = channels_last(flow) + pixel_grid((h, w), flow.device)
    size = torch.tensor([w - 1, h - 1], dtype=at.dtype, device=at.device)
    return grid_sample(x, 2 * at / size - 1, align_corners=True)


def normalised(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Scale every image to zero mean and unit deviation, all channels alike: exposure drops out."""
    mean = images.mean((1, 2, 3), keepdim=True)
    deviation = images.std((1, 2, 3), keepdim=True)
    return (images - mean) / (deviation + 0.02)


def positions(gh: int, gw: int, d: int, device: torch.device) -> Float[Tensor, "s d"]:
    """Sine code of cell positions (Vaswani et al. 2017), half of the channels per axis."""
    count = d // 4
    rates = torch.exp(torch.arange(count, device=device) * (-math.log(200.0) / count))
    axes = pixel_grid((gh, gw), device).unbind(-1)
    angles = [axis.reshape(-1, 1) * rates for axis in axes]
    return torch.cat([wave(a) for a in angles for wave in (torch.sin, torch.cos)], 1)


def correlations(
    source: Float[Tensor, "b d gh gw"], target: Float[Tensor, "b d gh gw"]
) -> list[Float[Tensor, "b _ _ s"]]:
    """Scaled products of the features of all cells, and of the target's averaged 2 x 2.

    The cells of the source, s = gh gw, come last: look-ups run along them.
    """
    b, d = source.shape[:2]
    columns = source.flatten(2) / math.sqrt(d)
    return [
        (image.flatten(2).transpose(1, 2) @ columns).view(b, *image.shape[2:], -1)
        for image in (target, avg_pool2d(target, 2))
    ]


def look_up(
    volumes: list[Float[Tensor, "b _ _ s"]], flow: Float[Tensor, "b gh gw 2"], radius: int
) -> Float[Tensor, "b gh gw k"]:
    """Correlations around the target of every cell, bilinear, at every scale; 0 outside.

    k: scales x (2 radius + 1)^2. All samples of a cell share one sub-cell position: its integer
    neighbourhood is gathered once and interpolated.
    """
    b, gh, gw, _ = flow.shape
    target, found = (flow + pixel_grid((gh, gw), flow.device)).view(b, gh * gw, 2), []
    step = torch.arange(2 * radius + 2, device=flow.device).view(-1, 1) - radius
    for level, volume in enumerate(volumes):
        th, tw, s = volume.shape[1:]
        at = (target + 0.5) / 2.0**level - 0.5
        x, left, right = _taps(at[..., 0], step, tw)
        y, over, under = _taps(at[..., 1], step, th)
        index = (y[:, :, None] * tw + x[:, None]).flatten(1, 2)
        values = volume.reshape(b, th * tw, s).gather(1, index).view(b, len(step), -1, s)
        across = left[:, None] * values[:, :, :-1] + right[:, None] * values[:, :, 1:]
        both = over[:, :, None] * across[:, :-1] + under[:, :, None] * across[:, 1:]
        found.append(both.flatten(1, 2))
    return torch.cat(found, 1).transpose(1, 2).view(b, gh, gw, -1)


def _taps(
    at: Float[Tensor, "b s"], step: Tensor, size: int
) -> tuple[Tensor, Float[Tensor, "b taps s"], Float[Tensor, "b taps s"]]:
    """Cells along one axis, and the weights of each two neighbours; 0 outside."""
    taps = len(step)
    at = at.clamp(-taps, size - 1 + taps)[:, None]  # far outside: any place without a weight
    corner = at.floor()
    x = corner.long() + step
    inside = ((x >= 0) & (x < size)).to(at.dtype)
    rest = at - corner
    return x.clamp(0, size - 1), (1 - rest) * inside[:, :-1], rest * inside[:, 1:]


def convex_upsample(
    values: Float[Tensor, "b k gh gw"], logits: Float[Tensor, "b 144 gh gw"]
) -> Float[Tensor, "b k 4*gh 4*gw"]:
    """Enlarge fourfold: every pixel is a convex combination of the 3 x 3 nearest cells (RAFT)."""
    b, k, gh, gw = values.shape
    share = logits.float().view(b, 9, 16, gh * gw).softmax(1).permute(0, 3, 1, 2)
    around = unfold(pad(values.float(), (1, 1, 1, 1), mode="replicate"), 3)
    with torch.autocast(values.device.type, enabled=False):  # displacements need float32
        mixed = around.view(b, k, 9, gh * gw).permute(0, 3, 1, 2) @ share
    mixed = mixed.view(b, gh, gw, k, 4, 4).permute(0, 3, 1, 4, 2, 5)
    return mixed.reshape(b, k, 4 * gh, 4 * gw)
