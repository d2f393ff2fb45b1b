"""Mask refiners: the protocol and the checks they share."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8

from dyn3r.errors import InputError
from dyn3r.types import Motion, Progress, no_progress


@runtime_checkable
class MaskRefiner(Protocol):
    """Method that improves the motion masks of a clip from its images."""

    @property
    def name(self) -> str:
        """Name in options, messages and metadata."""
        ...

    def refine(
        self,
        images: UInt8[np.ndarray, "n h w 3"],
        masks: Bool[np.ndarray, "n h w"],
        *,
        progress: Progress = no_progress,
    ) -> Bool[np.ndarray, "n h w"]:
        """Refined masks of the same frames, True on dynamic pixels. `masks` are not changed."""
        ...


def refine_masks(
    images: UInt8[np.ndarray, "n h w 3"],
    motion: Motion,
    refiner: MaskRefiner | None,
    progress: Progress = no_progress,
) -> Motion:
    """Motion with refined masks; `motion` itself without a refiner or without dynamic pixels."""
    if refiner is None or not motion.masks.any():
        return motion
    before = motion.masks
    masks = refiner.refine(images, before, progress=progress)
    note = f"masks refined by {refiner.name}: {before.mean():.1%} -> {masks.mean():.1%}"
    return replace(motion, masks=masks, unrefined=before, refinement=note)


def check_masks(images: np.ndarray, masks: np.ndarray) -> None:
    """Raise InputError unless there is one mask for every RGB image."""
    good = images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8
    if not good or masks.shape != images.shape[:3] or masks.dtype != bool or len(masks) == 0:
        raise InputError(
            "mask refinement needs images (n, h, w, 3) of uint8 and masks (n, h, w) of bool, not "
            f"{images.shape} of {images.dtype} and {masks.shape} of {masks.dtype}"
        )
