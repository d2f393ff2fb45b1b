"""What every way of refining masks has in common."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8

from dyn3r.errors import InputError
from dyn3r.types import Progress, no_progress


@runtime_checkable
class MaskRefiner(Protocol):
    """Anything that can improve the motion masks of a clip by looking at its pictures."""

    @property
    def name(self) -> str:
        """What a person calls it, for messages and results."""
        ...

    def refine(
        self,
        images: UInt8[np.ndarray, "n h w 3"],
        masks: Bool[np.ndarray, "n h w"],
        *,
        progress: Progress = no_progress,
    ) -> Bool[np.ndarray, "n h w"]:
        """Better masks for the same frames; True moves. The masks given are left as they are."""
        ...


def check_masks(images: np.ndarray, masks: np.ndarray) -> None:
    """Raise InputError unless there is one mask for every RGB picture."""
    good = images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8
    if not good or masks.shape != images.shape[:3] or masks.dtype != bool or len(masks) == 0:
        raise InputError(
            "refinement needs pictures (n, h, w, 3) of uint8 and masks (n, h, w) of bool, not "
            f"{images.shape} of {images.dtype} and {masks.shape} of {masks.dtype}"
        )
