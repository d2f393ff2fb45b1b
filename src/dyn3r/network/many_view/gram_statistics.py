"""Statistics of the global attention of a many-view network, from which VGGT4D reads motion.

Source: VGGT4D (arXiv 2511.19971). Of a frame t and the frames s around it, products of queries (Q)
and keys (K) of patch tokens p of t and u of s are averaged over layers, heads and s:

    QQ(p, u) = mean q_tp . q_su,   KK and QK alike.

A statistic is the mean over u, or the standard deviation over u (spread). The mean over u needs one
product a token, as it is q_tp times a mean of q_su. The spread is computed frame by frame. So no
map over the tokens of all frames is formed, and the fused attention kernel stays in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dyn3r.network.many_view.backbone import Readout
from dyn3r.network.many_view.view_config import ManyViewConfig

OFFSETS = (-6, -4, -2, 2, 4, 6)
"""Frames that a frame is compared with. Source: as published."""


@dataclass(frozen=True)
class Statistic:
    """One of the five statistics."""

    name: str
    pair: Literal["QQ", "KK", "QK"]
    kind: Literal["mean", "spread"]
    layers: tuple[int, ...]
    """Blocks that are averaged."""


@dataclass(frozen=True)
class GramMaps:
    """Statistics of the patch tokens of every frame, not normalised, and tokens to cluster."""

    statistics: dict[str, Float[np.ndarray, "s gh gw"]]
    """By the names of `statistics_of`. NaN for a single frame."""
    tokens: Float[np.ndarray, "s p c"]
    """Patch tokens before the first block that sees other frames."""

    def __getitem__(self, rows: slice) -> GramMaps:
        """Some of the frames."""
        return GramMaps({k: v[rows] for k, v in self.statistics.items()}, self.tokens[rows])

    @classmethod
    def join(cls, parts: list[GramMaps]) -> GramMaps:
        """One after the other."""
        names = parts[0].statistics
        return cls(
            {name: np.concatenate([part.statistics[name] for part in parts]) for name in names},
            np.concatenate([part.tokens for part in parts]),
        )


def statistics_of(config: ManyViewConfig) -> tuple[Statistic, ...]:
    """The five statistics of the recipe for the blocks of a network.

    VGGT has 24 global blocks, Depth Anything 3 small and base have four. Their order is kept:
    shallow is the first, middle the first two, deep the last two. Source: set, not verified on
    published weights.
    """
    blocks = config.global_layers
    shallow, middle, deep = blocks[:1], blocks[:2], blocks[-2:]
    return (
        Statistic("mean QQ, middle", "QQ", "mean", middle),
        Statistic("spread QQ, deep", "QQ", "spread", deep),
        Statistic("mean QQ, deep", "QQ", "mean", deep),
        Statistic("mean KK, shallow", "KK", "mean", shallow),
        Statistic("spread QK, shallow", "QK", "spread", shallow),
    )


def readout_for(config: ManyViewConfig) -> Readout:
    """Readout that collects what the statistics need and no more."""
    needed = {
        letter: tuple(
            sorted({i for s in statistics_of(config) if letter in s.pair for i in s.layers})
        )
        for letter in "QK"
    }
    return Readout(needed["Q"], needed["K"])


def gram_maps(readout: Readout, config: ManyViewConfig, grid_hw: tuple[int, int]) -> GramMaps:
    """The statistics of what was collected in a pass over consecutive frames."""
    assert readout.tokens is not None
    statistics = {}
    for statistic in statistics_of(config):
        values = _statistic(readout, statistic, config.num_heads)
        statistics[statistic.name] = values.float().reshape(-1, *grid_hw).cpu().numpy()
    return GramMaps(statistics, readout.tokens.float().cpu().numpy())


def compared_frames(frame: int, frames: int) -> list[int]:
    """Frames at `OFFSETS` from a frame; in a clip too short for any, all other frames."""
    near = [frame + offset for offset in OFFSETS if 0 <= frame + offset < frames]
    return near or [other for other in range(frames) if other != frame]


def _statistic(readout: Readout, statistic: Statistic, heads: int) -> Float[Tensor, "s p"]:
    """One statistic of every token; NaN for a single frame."""
    stores = {"Q": readout.queries, "K": readout.keys}
    own, other = (
        torch.cat([stores[letter][layer] for layer in statistic.layers], dim=-1)
        for letter in statistic.pair
    )
    scale = 1 / (len(statistic.layers) * heads)
    rows = []
    for frame in range(len(own)):
        compared = compared_frames(frame, len(own))
        if not compared:
            return torch.full(own.shape[:2], torch.nan)
        mean_other = other[compared].mean(dim=0)
        if statistic.kind == "mean":
            rows.append(scale * own[frame] @ mean_other.mean(dim=0))
        else:
            rows.append((scale * own[frame] @ mean_other.T).std(dim=1))
    return torch.stack(rows)
