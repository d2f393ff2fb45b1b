"""Means of flow residuals over the pairs of each frame, on any device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MAX_SPEED = 20.0
"""Velocities are clipped to this, in percent of the width per frame."""


class PairResidual(NamedTuple):
    """Residual of one pair's flow against static-scene flow, at the pixels of its first frame."""

    evidence: Float[Tensor, "h w"]
    """0..1: how much the flow contradicts a static scene."""
    distance_px: Float[Tensor, "h w"]
    """Distance of the measured flow from static-scene flow, in pixels."""
    by_distance: Float[Tensor, "h w"]
    """Evidence of the distance alone, 0..1."""
    by_color: Float[Tensor, "h w"]
    """Evidence of the colours alone, 0..1; 1 if they are not used."""
    off_px: Float[Tensor, "2 h w"]
    """Measured minus static-scene flow, in pixels."""


class ResidualMeans:
    """Running means over the pairs in which a pixel is visible."""

    def __init__(self, shape: tuple[int, int, int], device: str = "cpu") -> None:
        """Start without pairs; `shape` is (frames, height, width)."""
        n, h, w = shape
        self._evidence = torch.zeros(n, h, w, device=device)
        self._distance_px = torch.zeros(n, h, w, device=device)
        self._count = torch.zeros(n, h, w, device=device)
        self._pairs = torch.zeros(n, device=device)
        self._others = torch.zeros(n, 5, h, w, device=device)

    def add(
        self, frame: int, residual: PairResidual, visible: Bool[Tensor, "h w"], frames_apart: int
    ) -> None:
        """Add a pair with this first frame; pixels that are not visible in it do not count.

        Nor does a pair in which no pixel is.
        """
        self.add_evidence(frame, residual.evidence, residual.distance_px, visible)
        self._pairs[frame] += visible.any()
        to_percent = 100 / visible.shape[1] / frames_apart
        u, v = (residual.off_px * to_percent).clamp(-MAX_SPEED, MAX_SPEED)
        others = [residual.by_distance, residual.by_color, residual.evidence.square(), u, v]
        for total, values in zip(self._others[frame], others):
            total += torch.where(visible, values, 0)

    def add_evidence(
        self,
        frame: int,
        evidence: Float[Tensor, "h w"],
        distance_px: Float[Tensor, "h w"],
        visible: Bool[Tensor, "h w"],
    ) -> None:
        """Add a pair of which evidence and distance alone are known; `parts` then has no use."""
        self._evidence[frame] += torch.where(visible, evidence, 0)
        self._distance_px[frame] += torch.where(visible, distance_px, 0)
        self._count[frame] += visible

    def evidence(self) -> Float[Tensor, "n h w"]:
        """Mean evidence, 0..1; 0 for pixels that no pair sees."""
        return self._evidence / self._count.clamp(min=1)

    def typical_px(self) -> Float[Tensor, " n"]:
        """99th percentile over each frame of the mean distance; NaN for frames without pairs.

        Over the pixels that some pair sees; of two values the lower. One transfer, of their number.
        """
        unseen = self._count == 0
        distance_px = (self._distance_px / self._count).masked_fill(unseen, -torch.inf)
        out = torch.full(self._pairs.shape, torch.nan, device=unseen.device)
        for t, count in enumerate((~unseen).sum((1, 2)).tolist()):
            if count:
                largest = distance_px[t].flatten().topk(count - int(0.99 * (count - 1)))
                out[t] = largest.values[-1]
        return out

    def parts(self) -> Float[Tensor, "n 7 h w"]:
        """Input of the mask network, see `dyn3r.motion.flow_residual.FlowEvidence.parts`."""
        count, mean = self._count.clamp(min=1), self.evidence()
        distance, color, squared, u, v = (self._others / count[:, None]).unbind(1)
        deviation = (squared - mean.square()).clamp(min=0).sqrt()
        share = self._count / self._pairs.clamp(min=1)[:, None, None]
        return torch.stack([mean, distance, color, deviation, share, u, v], 1)
