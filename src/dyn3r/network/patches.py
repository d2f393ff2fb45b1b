"""Reduction of pixel maps to the network's patch grid."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from dyn3r.errors import InputError


def token_mask(masks: np.ndarray, patch: int = 16) -> Bool[np.ndarray, "n gh gw"]:
    """Mark a token as dynamic if any pixel of its patch is (SPEC 5). Masks are (n, h, w), bool.

    Raises InputError if a side of the masks is not a multiple of the patch.
    """
    masks = np.asarray(masks)
    if masks.ndim != 3 or masks.shape[1] % patch or masks.shape[2] % patch:
        raise InputError(
            f"masks must have the shape (frames, height, width) with sides that are multiples of "
            f"{patch}, not {tuple(masks.shape)}"
        )
    n, h, w = masks.shape
    blocks = masks.astype(bool, copy=False).reshape(n, h // patch, patch, w // patch, patch)
    return np.asarray(blocks.any(axis=(2, 4)))


def patch_means(maps: Float[np.ndarray, "n h w"], patch: int = 16) -> Float[np.ndarray, "n gh gw"]:
    """Average maps over patches, float32. Sides must be multiples of the patch."""
    n, h, w = maps.shape
    patches = maps.reshape(n, h // patch, patch, w // patch, patch)
    return np.asarray(patches.mean(axis=(2, 4)), dtype=np.float32)
