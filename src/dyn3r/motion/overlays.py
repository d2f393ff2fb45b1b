"""Overlays of a clip (logos, displays): neither moving nor part of the scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from dyn3r.types import Clip, Motion


def with_overlay(
    masks: Bool[np.ndarray, "n h w"] | None, clip: Clip
) -> Bool[np.ndarray, "n h w"] | None:
    """Masks of what geometry is not estimated from: dynamic pixels, and overlays of the clip."""
    if clip.overlay is None:
        return masks
    overlay = np.broadcast_to(clip.overlay, clip.images.shape[:3])
    return overlay if masks is None else masks | overlay


def without_overlay(motion: Motion, clip: Clip) -> Motion:
    """The motion without the overlays of the clip, which do not move."""
    if clip.overlay is None:
        return motion
    return replace(motion, masks=motion.masks & ~clip.overlay)
