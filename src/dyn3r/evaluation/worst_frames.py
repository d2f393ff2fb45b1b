"""A picture of the frames of a sequence that came out worst: image, error of masks and depth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw

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
    """Write the worst frames below each other: the named image, and the errors drawn on it.

    Masks: green agrees, red is missed, blue is false. Depth: brighter is worse. They are the frames
    of the lowest J, or of the largest depth error where all masks agree. Nothing is written without
    a truth of masks or depth. Raises OutputError.
    """
    panels: list[list[UInt8[np.ndarray, "h w 3"]]] = []
    score = np.ones(len(clip.images))
    if truth.dynamic is not None:
        score = region_similarity(np.asarray(scene.dynamic), truth.dynamic)
        panels.append(
            [_masks(*each) for each in zip(clip.images, np.asarray(scene.dynamic), truth.dynamic)]
        )
    if truth.depth is not None:
        error = np.nan_to_num(relative_error(np.asarray(scene.depth), truth.depth))
        if (score == 1).all():
            score = -error.mean(axis=(1, 2))
        panels.append([_depth(each) for each in error])
    if not panels:
        return
    drawn = [
        np.concatenate([_named(clip, i), *(panel[i] for panel in panels)], axis=1)
        for i in _worst(score)
    ]
    with atomic_file(file, overwrite=True) as part:
        Image.fromarray(np.concatenate(drawn)).save(part, quality=85)


def _named(clip: Clip, index: int) -> UInt8[np.ndarray, "h w 3"]:
    """The image with its frame's name."""
    image = Image.fromarray(clip.images[index])
    draw, name = ImageDraw.Draw(image), clip.names[index]
    draw.rectangle(draw.textbbox((3, 2), name), fill="black")
    draw.text((3, 2), name, fill="white")
    return np.asarray(image)


def _worst(score: Float[np.ndarray, " n"]) -> list[int]:
    """Frames of the lowest score, in order of time."""
    return sorted(np.argsort(score, kind="stable")[:SHOWN].tolist())


def _masks(
    image: UInt8[np.ndarray, "h w 3"],
    found: Bool[np.ndarray, "h w"],
    true: Bool[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w2 3"]:
    """The image with both masks on it."""
    painted = image.astype(np.float64)
    for where, colour in ((found & true, AGREED), (true & ~found, MISSED), (found & ~true, FALSE)):
        painted[where] = (1 - MIX) * painted[where] + MIX * np.array(colour)
    return painted.round().astype(np.uint8)


def _depth(error: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """The depth error as brightness."""
    grey = (255 * np.clip(error / LARGEST_ERROR, 0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
