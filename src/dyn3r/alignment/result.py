"""What the alignment hands on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Alignment:
    """Cameras and depth of every frame in one world, and how far to trust them. Never NaN."""

    T_world_camera: Float[np.ndarray, "n 4 4"]
    """Camera to world, float64. The unit is arbitrary unless presets fix it."""
    K: Float[np.ndarray, "n 3 3"]
    """Intrinsics in pixels of the prepared frames; principal point (W/2, H/2) unless preset."""
    depth: Float[np.ndarray, "n h w"]
    """z in the camera, above 0, float32."""
    confidence: Float[np.ndarray, "n h w"]
    """The network's confidence in each pixel: the largest over the pairs that show it; 0 where
    cleaning took the point away or no pair says anything."""
    uncertainty: Float[np.ndarray, "n h w"]
    """How far the pairs disagree about a pixel: their mean distance from its point, weighted by
    log confidence, over its depth. 0.05 means 5 % of the depth; 10 where no pair says anything."""
    pair_similarity: Float[np.ndarray, "m 4 4"]
    """Maps the points of a pair to the world: s [R | T] as one matrix, rows as in the edges."""
    frame_quality: Float[np.ndarray, " n"]
    """Share of the confidence of a frame's pixels where the pairs agree within 10 % of the depth;
    0 for frames that could not be determined."""
    determined: Bool[np.ndarray, " n"]
    """False: the camera of this frame is a guess (see warnings), not a measurement."""
    terms: dict[str, float]
    """The objective at the end, on all pixels: pairs, smoothness, flow, depth_prior unweighted,
    and their weighted sum as total."""
    history: Float[np.ndarray, "k 2"]
    """Seconds since the start, and the objective as the solver saw it (fast: on sampled pixels)."""
    warnings: tuple[str, ...] = ()
    """Sentences for a person: what could not be determined, and what was done about it."""

    def __len__(self) -> int:
        return len(self.T_world_camera)
