"""Means of flow residuals over the pairs of each frame."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

MAX_SPEED = 20.0
"""Velocities are clipped to this, in percent of the width per frame."""


class PairResidual(NamedTuple):
    """Residual of one pair's flow against static-scene flow, at the pixels of its first frame."""

    evidence: Float[np.ndarray, "h w"]
    """0..1: how much the flow contradicts a static scene."""
    distance_px: Float[np.ndarray, "h w"]
    """Distance of the measured flow from static-scene flow, in pixels."""
    by_distance: Float[np.ndarray, "h w"]
    """Evidence of the distance alone, 0..1."""
    by_color: Float[np.ndarray, "h w"]
    """Evidence of the colours alone, 0..1; 1 if they are not used."""
    velocity: Float[np.ndarray, "h w 2"]
    """Measured minus static-scene flow, in percent of the width per frame."""


class ResidualMeans:
    """Running means over the pairs in which a pixel is visible."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        """Start without pairs; `shape` is (frames, height, width)."""
        self._evidence = np.zeros(shape, np.float32)
        self._distance_px = np.zeros(shape, np.float32)
        self._count = np.zeros(shape, np.uint16)
        self._pairs = np.zeros(shape[0])
        self._others = np.zeros((shape[0], 5, *shape[1:]), np.float32)

    def add(self, frame: int, residual: PairResidual, visible: Bool[np.ndarray, "h w"]) -> None:
        """Add a pair with this first frame; pixels that are not visible in it do not count."""
        self.add_evidence(frame, residual.evidence, residual.distance_px, visible)
        self._pairs[frame] += 1
        velocity = np.moveaxis(residual.velocity, -1, 0).clip(-MAX_SPEED, MAX_SPEED)
        others = [residual.by_distance, residual.by_color, residual.evidence**2, *velocity]
        self._others[frame] += np.where(visible, np.stack(others), 0.0)

    def add_evidence(
        self,
        frame: int,
        evidence: Float[np.ndarray, "h w"],
        distance_px: Float[np.ndarray, "h w"],
        visible: Bool[np.ndarray, "h w"],
    ) -> None:
        """Add a pair of which evidence and distance alone are known; `parts` then has no use."""
        self._evidence[frame] += np.where(visible, evidence, 0.0)
        self._distance_px[frame] += np.where(visible, distance_px, 0.0)
        self._count[frame] += visible

    def evidence(self) -> Float[np.ndarray, "n h w"]:
        """Mean evidence, 0..1; 0 for pixels that no pair sees."""
        return (self._evidence / np.maximum(self._count, 1)).astype(np.float32)

    def typical_px(self) -> Float[np.ndarray, " n"]:
        """99th percentile over each frame of the mean distance; NaN for frames without pairs."""
        count = np.maximum(self._count, 1)
        distance_px = np.where(self._count > 0, self._distance_px / count, np.nan)
        typical = [
            np.nanpercentile(frame, 99) if np.isfinite(frame).any() else np.nan
            for frame in distance_px
        ]
        return np.array(typical, dtype=np.float32)

    def parts(self) -> Float[np.ndarray, "n 7 h w"]:
        """Input of the mask network, see `dyn3r.motion.flow_residual.FlowEvidence.parts`."""
        count = np.maximum(self._count, 1).astype(np.float32)
        mean = (self._evidence / count).astype(np.float32)
        distance, color, squared, u, v = np.moveaxis(self._others, 1, 0) / count
        deviation = np.sqrt((squared - mean**2).clip(0))
        share = self._count / np.maximum(self._pairs, 1)[:, None, None]
        parts = [mean, distance, color, deviation, share, u, v]
        return np.stack(parts, 1).astype(np.float32)
