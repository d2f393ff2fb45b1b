"""A picture of the frames of a sequence that came out worst: image, truth, estimate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from dyn3r.evaluation.depth_metrics import relative_error
from dyn3r.evaluation.mask_metrics import region_similarity
from dyn3r.evaluation.truth import Truth
from dyn3r.io.atomic import atomic_file
from dyn3r.types import Clip

if TYPE_CHECKING:
    from dyn3r.scene import Scene

SHOWN = 4
"""Frames shown."""
AGREED, MISSED, FALSE = (60, 180, 75), (230, 60, 60), (60, 120, 240)
"""Colours of mask pixels: true and found, true only, found only."""
MIX = 0.55
"""Opacity of these colours."""
LARGEST_ERROR = 0.5
"""Relative depth error that is drawn brightest."""


def write_worst_frames(file: Path, scene: Scene, clip: Clip, truth: Truth) -> None:
    """Write the worst frames below each other: the image, and the error drawn on it.

    Masks: green agrees, red is missed, blue is false. Depth: brighter is worse. Nothing is written
    without a truth of masks or depth. Raises OutputError.
    """
    if truth.dynamic is not None:
        score = region_similarity(np.asarray(scene.dynamic), truth.dynamic)
        drawn = [_masks(clip.images[i], scene.dynamic[i], truth.dynamic[i]) for i in _worst(score)]
    elif truth.depth is not None:
        error = relative_error(np.asarray(scene.depth), truth.depth)
        score = -np.nan_to_num(error).mean(axis=(1, 2))
        drawn = [_depth(clip.images[i], error[i]) for i in _worst(score)]
    else:
        return
    with atomic_file(file, overwrite=True) as part:
        Image.fromarray(np.concatenate(drawn)).save(part, quality=85)


def _worst(score: Float[np.ndarray, " n"]) -> list[int]:
    """Frames of the lowest score, in order of time."""
    return sorted(np.argsort(score, kind="stable")[:SHOWN].tolist())


def _masks(
    image: UInt8[np.ndarray, "h w 3"],
    found: Bool[np.ndarray, "h w"],
    true: Bool[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w2 3"]:
    """The image, and the image with both masks on it."""
    painted = image.astype(np.float64)
    for where, colour in ((found & true, AGREED), (true & ~found, MISSED), (found & ~true, FALSE)):
        painted[where] = (1 - MIX) * painted[where] + MIX * np.array(colour)
    return np.concatenate([image, painted.round().astype(np.uint8)], axis=1)


def _depth(
    image: UInt8[np.ndarray, "h w 3"], error: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w2 3"]:
    """The image, and its depth error as brightness."""
    grey = (255 * np.clip(np.nan_to_num(error) / LARGEST_ERROR, 0, 1)).astype(np.uint8)
    return np.concatenate([image, np.repeat(grey[..., None], 3, axis=2)], axis=1)
