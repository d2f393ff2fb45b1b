"""Motion from masks."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from dyn3r.network.patches import token_mask
from dyn3r.types import Motion

CONVERGED_IOU = 0.7
"""Intersection over union above which two masks give the same cameras. Source: development clips,
docs/experiments.md."""

_log = logging.getLogger(__name__)


def motion_from_masks(masks: Bool[np.ndarray, "n h w"] | Tensor) -> Motion:
    """Motion of known masks; the dynamic map is the token mask.

    Raises InputError if a side of the masks is no multiple of the patch.
    """
    array = masks.detach().cpu().numpy() if isinstance(masks, Tensor) else np.asarray(masks)
    return Motion(
        masks=array.astype(bool),
        dynamic_map=token_mask(array).astype(np.float32),
        reason="the masks were given" if array.any() else "the masks that were given are empty",
    )


def still_motion(shape: tuple[int, ...], reason: str) -> Motion:
    """Motion of a still clip of shape (n, h, w)."""
    return replace(motion_from_masks(np.zeros(shape, bool)), reason=reason)


def with_added_pixels(motion: Motion, added: Bool[np.ndarray, "n h w"], why: str) -> Motion:
    """Motion with further dynamic pixels; `why` ends the sentence "x % ..."."""
    if not added.any():
        return motion
    reason = f"{motion.reason}; {(added & ~motion.masks).mean():.1%} {why}"
    _log.info("motion: %s", reason)
    return replace(
        motion,
        masks=motion.masks | added,
        dynamic_map=np.maximum(motion.dynamic_map, token_mask(added).astype(np.float32)),
        reason=reason,
    )


def masks_converged(masks: Bool[np.ndarray, "n h w"], before: Bool[np.ndarray, "n h w"]) -> bool:
    """Whether two estimates overlap by at least `CONVERGED_IOU` (intersection over union)."""
    return bool((masks & before).sum() >= CONVERGED_IOU * (masks | before).sum())
