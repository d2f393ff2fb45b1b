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


class Means(NamedTuple):
    """Means over the pairs in which a pixel is visible."""

    evidence: Float[Tensor, "n h w"]
    """0..1; 0 for pixels that no pair sees."""
    typical_px: Float[Tensor, " n"]
    """99th percentile over each frame of the mean distance; NaN for frames without pairs. Over the
    pixels that some pair sees; of two values the lower."""
    parts: Float[Tensor, "n 7 h w"]
    """Input of the mask network, see `dyn3r.motion.flow_residual.FlowEvidence.parts`."""


class ResidualMeans:
    """Running sums over the pairs in which a pixel is visible, and the means that they become."""

    def __init__(self, shape: tuple[int, int, int], device: str = "cpu") -> None:
        """Start without pairs; `shape` is (frames, height, width)."""
        n, h, w = shape
        # evidence, that of the distance, that of the colours, squared evidence, pairs, u, v
        self._sums = torch.zeros(n, 7, h, w, device=device)
        self._distance_px = torch.zeros(n, h, w, device=device)
        self._pairs = torch.zeros(n, device=device)

    def add(
        self, frame: int, residual: PairResidual, visible: Bool[Tensor, "h w"], frames_ahead: int
    ) -> None:
        """Add a pair with this first frame; pixels that are not visible in it do not count.

        Nor does a pair in which no pixel is. `frames_ahead`: number of the second frame less that
        of the first, so velocities are those forward in time.
        """
        self.add_evidence(frame, residual.evidence, residual.distance_px, visible)
        self._pairs[frame] += visible.any()
        to_percent = 100 / visible.shape[1] / frames_ahead
        u, v = (residual.off_px * to_percent).clamp(-MAX_SPEED, MAX_SPEED)
        others = [residual.by_distance, residual.by_color, residual.evidence.square(), u, v]
        for number, values in zip((1, 2, 3, 5, 6), others):
            self._sums[frame, number] += torch.where(visible, values, 0)

    def add_evidence(
        self,
        frame: int,
        evidence: Float[Tensor, "h w"],
        distance_px: Float[Tensor, "h w"],
        visible: Bool[Tensor, "h w"],
    ) -> None:
        """Add a pair of which evidence and distance alone are known; `parts` then has no use."""
        self._sums[frame, 0] += torch.where(visible, evidence, 0)
        self._distance_px[frame] += torch.where(visible, distance_px, 0)
        self._sums[frame, 4] += visible

    def finish(self) -> Means:
        """The means. The sums become `parts` in place, to save memory: nothing can be added then.

        One transfer, of the number of visible pixels of every frame.
        """
        typical_px = self._typical_px()
        for sums, pairs in zip(self._sums, self._pairs.clamp(min=1)):
            seen = sums[4].clone()
            sums /= seen.clamp(min=1)
            sums[3] = (sums[3] - sums[0].square()).clamp(min=0).sqrt()
            sums[4] = seen / pairs
        return Means(self._sums[:, 0].clone(), typical_px, self._sums)

    def _typical_px(self) -> Float[Tensor, " n"]:
        pairs = self._sums[:, 4]
        out = torch.full(self._pairs.shape, torch.nan, device=pairs.device)
        for t, count in enumerate((pairs > 0).sum((1, 2)).tolist()):
            if count:
                distance_px = (self._distance_px[t] / pairs[t]).masked_fill(
                    pairs[t] == 0, -torch.inf
                )
                largest = distance_px.flatten().topk(count - int(0.99 * (count - 1)))
                out[t] = largest.values[-1]
        return out
